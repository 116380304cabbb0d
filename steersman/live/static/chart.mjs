// @ts-check
// The panel of a number over time: the target that `hello` names, or none where no target is a quantity.

import { unit } from "./moments.mjs";
import { OverTime } from "./over_time.mjs";
import { $ } from "./page.mjs";

export default class Chart {
  /** @param {import("./page.mjs").Page} page */
  constructor(page) {
    this.page = page;
    this.every = 66;
    /** @type {OverTime | null} */
    this.plot = null;
  }

  begin(hello) {
    const { main_target: target, rate_hz: rate } = hello;
    $("over-time").hidden = target === null;
    this.plot = target === null ? null : new OverTime($("angle"), { target, range: hello.range[target], rate });
    $("over-time-title").textContent = this.page.has("wheel") ? "Steering over time" : `${target} over time`;
    $("unit").textContent = target === null ? "" : unit(hello, target);
  }

  moment(moment) {
    this.plot?.add(moment.n / this.page.hello.rate_hz, moment);
  }

  show(moment) {
    if (!moment || !this.plot) return;
    this.plot.draw();
    $("key-truth").hidden = !this.plot.has("truth");
    $("key-driven").hidden = !this.plot.has("person");
  }
}
