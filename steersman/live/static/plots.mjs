// Plots on canvas, drawn from scratch each time; colours come from the page's own, light or dark.

import { figure } from "./moments.mjs";

const LEFT = 52, RIGHT = 8, TOP = 10, BOTTOM = 36;

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Round numbers between two ends, about so many. */
export function ticks(low, high, about = 5) {
  const rough = (high - low) / about, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.9);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

const decades = (low, high) => {
  const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const every = Math.max(1, Math.ceil((last - first + 1) / 6));
  return Array.from({ length: last - first + 1 }, (_, i) => first + i).filter((e) => (last - e) % every === 0).map((e) => 10 ** e);
};

/**
 * Draws lines in axes. `x` and `y`: { low, high, label, ticks?, log?, text?(value) }. `lines`: { points: [[x, y] or null],
 * colour, width?, dots? }, where null breaks a line. `bands` [from, to] are shaded, `cuts` are thin verticals.
 */
export function plot(canvas, { x, y, lines, bands = [], cuts = [] }) {
  const ratio = window.devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = canvas;
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const scale = (axis, from, to) => {
    const f = axis.log ? Math.log10 : Number, [low, high] = [f(axis.low), f(axis.high)];
    return (value) => from + ((f(value) - low) / (high - low)) * (to - from);
  };
  const across = scale(x, LEFT, width - RIGHT), up = scale(y, height - BOTTOM, TOP);
  axes(pen, { x, y, across, up, width, height });
  pen.save();
  pen.beginPath();
  pen.rect(LEFT, TOP - 2, width - LEFT - RIGHT, height - TOP - BOTTOM + 4);
  pen.clip();
  pen.globalAlpha = 0.12;
  pen.fillStyle = colour("third");
  for (const [from, to] of bands) pen.fillRect(across(from), TOP, across(to) - across(from), height - TOP - BOTTOM);
  pen.globalAlpha = 1;
  pen.strokeStyle = colour("faint");
  for (const at of cuts) line(pen, [[across(at), TOP], [across(at), height - BOTTOM]], 1, [2, 3]);
  for (const one of lines) {
    const points = one.points.map((point) => point && [across(point[0]), up(point[1])]);
    pen.strokeStyle = pen.fillStyle = colour(one.colour);
    line(pen, points, one.width ?? 1.75);
    if (one.dots) for (const point of points) if (point) dot(pen, point);
  }
  pen.restore();
}

function axes(pen, { x, y, across, up, width, height }) {
  pen.font = `12px ${colour("sans")}`;
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (const value of y.ticks ?? (y.log ? decades(y.low, y.high) : ticks(y.low, y.high, 4))) {
    pen.strokeStyle = colour(value === 0 ? "faint" : "rule");
    line(pen, [[LEFT, up(value)], [width - RIGHT, up(value)]], 1);
    pen.fillStyle = colour("muted");
    pen.fillText(y.text ? y.text(value) : plain(value), LEFT - 7, up(value));
  }
  pen.textAlign = "center";
  for (const value of x.ticks ?? ticks(x.low, x.high, width < 360 ? 4 : 6)) {
    const text = x.text ? x.text(value) : plain(value), half = pen.measureText(text).width / 2;
    pen.fillText(text, Math.min(across(value), width - half - 1), height - BOTTOM + 13);
  }
  pen.fillText(x.label, (LEFT + width - RIGHT) / 2, height - 7);
  pen.save();
  pen.translate(8, (TOP + height - BOTTOM) / 2);
  pen.rotate(-Math.PI / 2);
  pen.fillText(y.label, 0, 0, height - 12);
  pen.restore();
}

const plain = (value) => value !== 0 && (Math.abs(value) < 0.01 || Math.abs(value) >= 1e6)
  ? value.toExponential(0).replace("e", "\u00b710^").replace("+", "").replace("1\u00b7", "").replace(/\^(-?\d+)/, (_, n) => sup(n))
  : figure(value, Number.isInteger(value) ? 0 : Math.abs(value) < 0.1 ? 2 : 1);

const sup = (digits) => [...digits].map((d) => (d === "-" ? "\u207b" : "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[d])).join("");

function line(pen, points, width, dash = []) {
  pen.lineWidth = width;
  pen.lineJoin = "round";
  pen.setLineDash(dash);
  pen.beginPath();
  let down = false;
  for (const point of points) {
    if (point && down) pen.lineTo(...point);
    else if (point) pen.moveTo(...point);
    down = point !== null;
  }
  pen.stroke();
  pen.setLineDash([]);
}

function dot(pen, [x, y]) {
  pen.beginPath();
  pen.arc(x, y, 2.5, 0, 7);
  pen.fill();
}
