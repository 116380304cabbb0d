// @ts-check
// The gates as they move: a strip for each gate of each layer.

import { Belt } from "./over_time.mjs";
import { $, element } from "./page.mjs";

export class Gates {
  /** @param {import("./page.mjs").Page} page */
  constructor(page) {
    this.page = page;
    this.every = 66;
    /** @type {Belt[]} */
    this.belts = [];
  }

  begin({ belts, rate_hz: rate }) {
    $("belts").replaceChildren();
    this.belts = belts.map(({ layer, gates }) => {
      if (belts.length > 1 && gates.length) $("belts").append(element("p", `Layer ${layer + 1}`));
      return new Belt(gates.map((gate) => strip(gate)), rate);
    });
    $("gates").hidden = !belts.some(({ gates }) => gates.length);
  }

  moment(moment) {
    const time = moment.n / this.page.hello.rate_hz;
    moment.gates?.forEach((gates, i) => gates.length && this.belts[i]?.add(time, gates));
  }

  show(moment) {
    if (moment) for (const belt of this.belts) belt.draw(moment.n / this.page.hello.rate_hz);
  }
}

/** @param {string} gate */
function strip(gate) {
  const canvas = document.createElement("canvas"), made = element("div", "", "strip");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${gate}, over time, a row a unit`);
  made.append(element("span", gate), canvas);
  $("belts").append(made);
  return canvas;
}
