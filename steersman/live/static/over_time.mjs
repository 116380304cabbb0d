// What was a short while ago: one target as lines, the gates as heat.

import { colour, plot, ticks } from "./plots.mjs";
import { figure } from "./moments.mjs";

const SPAN_S = 10, SPAN_FRAMES = 100; // The window: as long as the longer of them.
const COLUMNS = 100; // Of heat in a window.
const GAP_COLUMNS = 5; // Longer without a frame, and a line is broken.
const SEEN = 30; // Columns after which the units are put in order.

const span = (rate) => Math.max(SPAN_S, SPAN_FRAMES / rate);

/** Keeps what is younger than the window; `time` runs on through records, unlike their own clocks. */
export class OverTime {
  constructor(canvas, { target, range, rate }) {
    Object.assign(this, { canvas, target, range, span: span(rate) });
    this.clear();
  }

  clear() {
    this.rows = [];
  }

  add(time, moment) {
    const last = this.rows.at(-1);
    if (last && time < last.time) this.clear();
    this.rows.push({
      time,
      record: moment.record,
      person: moment.hands === "person",
      prediction: moment.prediction[this.target],
      truth: moment.truth?.[this.target] ?? null,
      driven: moment.driven?.[this.target] ?? null,
    });
    while (this.rows[0].time < time - this.span - 1) this.rows.shift();
  }

  draw() {
    const { rows, span } = this, now = rows.at(-1)?.time ?? 0;
    const [low, high] = this.limits();
    const join = (name, when) => {
      const points = [];
      rows.forEach((row, i) => {
        const before = rows[i - 1];
        if (before && (row.record !== before.record || row.time - before.time > (GAP_COLUMNS * span) / COLUMNS)) points.push(null);
        points.push(row[name] === null || (when && !when(row)) ? null : [row.time - now, row[name]]);
      });
      return points;
    };
    plot(this.canvas, {
      x: { low: -span, high: 0, label: "seconds", ticks: ticks(-span, 0), text: (v) => (v ? figure(v, 0) : "now") },
      y: { low, high, label: this.target, ticks: ticks(low, high, 4) },
      lines: [
        { points: join("truth"), colour: "truth" },
        { points: join("prediction"), colour: "model" },
        { points: join("driven", (row) => row.person), colour: "third", width: 2 },
      ],
      bands: spans(rows, (row) => row.person).map((pair) => pair.map((time) => time - now)),
      cuts: rows.filter((row, i) => i && row.record !== rows[i - 1].record).map((row) => row.time - now),
    });
  }

  /** The range that is usual, or more where there was more. */
  limits() {
    const all = this.rows.flatMap((row) => [row.prediction, row.truth]).filter((value) => value !== null);
    const [low, high] = this.range ?? [Infinity, -Infinity];
    const [least, most] = [Math.min(low, ...all), Math.max(high, ...all)];
    return most > least ? [least, most] : [least - 1 || -1, least + 1 || 1];
  }

  has(name) {
    return this.rows.some((row) => (name === "person" ? row.person : row[name] !== null));
  }
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

/** The gates of a layer over time as heat, a row a unit, 0 faint and 1 strong; those that keep most come to stand on top. */
export class Belt {
  constructor(canvases, rate) {
    Object.assign(this, { canvases, span: span(rate) });
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
    while (this.columns[0].time < time - this.span) this.columns.shift();
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
    const place = (time) => Math.round(COLUMNS - 1 + (time - now) * (COLUMNS / this.span));
    this.columns.forEach(({ time, values }, i) => {
      const next = this.columns[i + 1];
      // Where a column is missing the one before it is drawn on, but no longer than a line would be.
      const end = next ? Math.min(place(next.time), place(time) + GAP_COLUMNS) : COLUMNS;
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
