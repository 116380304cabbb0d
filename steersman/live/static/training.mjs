// The panel of a training: its loss, and how far back its gradient reaches.

import { $ } from "./page.mjs";
import { plot, ticks } from "./plots.mjs";
import { progress } from "./progress.mjs";

const MOST = 1000; // Points kept of a curve; beyond, every second one goes.

export default class Training {
  constructor() {
    this.every = 66;
    this.canvases = { loss: $("loss"), lag: $("lag") };
    this.clear();
    this.events = {
      training: (event) => {
        this.add(event);
        progress("training", "trained", event.step, event.steps, event.loss);
      },
    };
  }

  begin() {
    $("training").hidden = false;
  }

  clear() {
    this.losses = [];
    this.validations = [];
    this.lags = null;
    this.steps = 1;
  }

  add({ step, steps, loss, validation, lag }) {
    if (step < (this.losses.at(-1)?.[0] ?? 0)) this.clear();
    this.steps = steps;
    if (loss > 0) this.losses.push([step, loss]);
    if (validation > 0) this.validations.push([step, validation]);
    if (lag) this.lags = lag;
    if (this.losses.length > MOST) this.losses = this.losses.filter((_, i) => i % 2 === 0);
  }

  show() {
    const all = [...this.losses, ...this.validations].map(([, value]) => value);
    if (all.length) {
      const [low, high] = ends(all);
      plot(this.canvases.loss, {
        x: { low: 0, high: this.steps, label: "step" },
        y: { low, high, label: "loss", log: true, ticks: within(low, high) },
        lines: [
          { points: this.losses, colour: "model" },
          { points: this.validations, colour: "truth", dots: true },
        ],
      });
    }
    if (!this.lags) return;
    const points = this.lags.map((norm, lag) => (norm > 0 ? [lag, norm] : null));
    const [low, high] = ends(points.filter(Boolean).map(([, norm]) => norm).concat(1));
    plot(this.canvases.lag, {
      x: { low: 0, high: Math.max(1, this.lags.length - 1), label: "steps back", ticks: ticks(0, Math.max(1, this.lags.length - 1)).filter(Number.isInteger) },
      y: { low, high, label: "norm, 1 at lag 0", log: true },
      lines: [{ points, colour: "model", dots: points.length < 40 }],
    });
  }
}

/** Limits of a logarithmic axis about positive numbers, at least a decade apart. */
function ends(values) {
  const low = 10 ** Math.floor(Math.log10(Math.min(...values))), high = 10 ** Math.ceil(Math.log10(Math.max(...values)));
  return [low, Math.max(high, low * 10)];
}

/** Decades, and where there are few of them also 2 and 5. */
function within(low, high) {
  if (high / low > 1000) return undefined;
  const found = [];
  for (let power = low; power <= high * 1.001; power *= 10) found.push(...[1, 2, 5].map((m) => m * power));
  return found.filter((value) => value <= high * 1.001);
}
