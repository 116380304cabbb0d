// The last ten seconds: the wheel as lines, the gates as heat.

import { colour, plot, ticks } from "./plots.mjs";
import { figure } from "./moments.mjs";

export const SECONDS = 10;
const BREAK_S = 0.5; // Longer without a frame, and a line is broken.

/** Keeps what is younger than SECONDS; `time` runs on through records, unlike their own clocks. */
export class OverTime {
  constructor(canvas) {
    this.canvas = canvas;
    this.rows = [];
  }

  clear() {
    this.rows = [];
  }

  begin(steering) {
    this.steering = steering;
    this.clear();
  }

  add(time, moment) {
    const last = this.rows.at(-1);
    if (last && time < last.time) this.clear();
    this.rows.push({
      time,
      record: moment.record,
      person: moment.hands === "person",
      prediction: this.steering.of(moment.prediction),
      truth: this.steering.of(moment.truth),
      driven: moment.driven?.steer ?? null,
    });
    while (this.rows[0].time < time - SECONDS - 1) this.rows.shift();
  }

  draw() {
    const { rows, steering } = this, now = rows.at(-1)?.time ?? 0;
    const [low, high] = steering.range ?? symmetric(rows);
    const join = (name, when) => {
      const points = [];
      rows.forEach((row, i) => {
        const before = rows[i - 1];
        if (before && (row.record !== before.record || row.time - before.time > BREAK_S)) points.push(null);
        points.push(row[name] === null || (when && !when(row)) ? null : [row.time - now, row[name]]);
      });
      return points;
    };
    plot(this.canvas, {
      x: { low: -SECONDS, high: 0, label: "seconds", ticks: [-10, -8, -6, -4, -2, 0], text: (v) => (v ? figure(v, 0) : "now") },
      y: { low, high, label: steering.target, ticks: ticks(low, high, 4) },
      lines: [
        { points: join("truth"), colour: "truth" },
        { points: join("prediction"), colour: "model" },
        { points: join("driven", (row) => row.person), colour: "third", width: 2 },
      ],
      bands: spans(rows, (row) => row.person).map((pair) => pair.map((time) => time - now)),
      cuts: rows.filter((row, i) => i && row.record !== rows[i - 1].record).map((row) => row.time - now),
    });
  }

  has(name) {
    return this.rows.some((row) => (name === "person" ? row.person : row[name] !== null));
  }
}

function symmetric(rows) {
  const most = Math.max(1e-3, ...rows.flatMap((row) => [row.prediction, row.truth].map((v) => Math.abs(v ?? 0))));
  const step = 10 ** Math.floor(Math.log10(most)), high = Math.ceil((most * 1.1) / step) * step;
  return [-high, high];
}

/** Stretches [from, to] in which a row is as asked for. */
function spans(rows, when) {
  const found = [];
  rows.forEach((row, i) => {
    if (!when(row)) return;
    if (i && when(rows[i - 1])) found.at(-1)[1] = row.time;
    else found.push([row.time, row.time]);
  });
  return found;
}

const COLUMNS = 10 * SECONDS; // Gates come ten times a second.
const SEEN = 30; // Columns after which the units are put in order.

/** The gates of a layer over time as heat, a row a unit, 0 light and 1 dark; those that keep most come to stand on top. */
export class Belt {
  constructor(gates, canvasOf) {
    this.canvases = gates.map(canvasOf);
    this.clear();
  }

  clear() {
    this.columns = [];
    this.order = null;
  }

  /** `values` are numbers from 0 to 1 by gate and unit; the first gate says what is kept. */
  add(time, values) {
    const last = this.columns.at(-1);
    if (last && time < last.time) this.clear();
    this.columns.push({ time, values });
    while (this.columns[0].time < time - SECONDS) this.columns.shift();
    if (this.columns.length === SEEN) this.order ??= this.byKept();
  }

  byKept() {
    const kept = this.columns[0].values[0].map((_, unit) => this.columns.reduce((sum, { values }) => sum + values[0][unit], 0));
    return [...kept.keys()].sort((a, b) => kept[b] - kept[a]);
  }

  draw(now) {
    if (this.columns.length) this.canvases.forEach((canvas, gate) => this.paint(canvas, gate, now));
  }

  paint(canvas, gate, now) {
    const order = this.order ?? [...this.columns[0].values[gate].keys()];
    if (canvas.height !== order.length) Object.assign(canvas, { width: COLUMNS, height: order.length });
    const pen = canvas.getContext("2d"), pixels = pen.createImageData(COLUMNS, order.length);
    const from = rgb(pen, colour("soft")), to = rgb(pen, colour("model"));
    const place = (time) => Math.round(COLUMNS - 1 + (time - now) * (COLUMNS / SECONDS));
    this.columns.forEach(({ time, values }, i) => {
      const next = this.columns[i + 1];
      // Where a column is missing the one before it is drawn on, but no longer than a line would be.
      const end = next ? Math.min(place(next.time), place(time) + 10 * BREAK_S) : COLUMNS;
      for (let column = Math.max(0, place(time)); column < end; column++) {
        order.forEach((unit, row) => {
          const at = 4 * (row * COLUMNS + column), share = values[gate][unit];
          for (let c = 0; c < 3; c++) pixels.data[at + c] = from[c] + (to[c] - from[c]) * share;
          pixels.data[at + 3] = 255;
        });
      }
    });
    pen.putImageData(pixels, 0, 0);
  }
}

function rgb(pen, name) {
  pen.fillStyle = name; // A canvas gives every opaque colour back as #rrggbb.
  return [1, 3, 5].map((i) => parseInt(pen.fillStyle.slice(i, i + 2), 16));
}
