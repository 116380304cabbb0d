// @ts-check
// The panel of what is done in a world: a bar for each control that no wheel shows.

import { worded } from "./facts.mjs";
import { figure } from "./moments.mjs";
import { $, element } from "./page.mjs";

export default class Controls {
  /** @param {import("./page.mjs").Page} page */
  constructor(page) {
    this.page = page;
    this.every = 30;
    /** @type {[string, HTMLProgressElement, HTMLElement][]} */
    this.bars = [];
  }

  begin({ controls, main_target: turned }) {
    const names = Object.keys(controls).filter((name) => !this.page.has("wheel") || name !== turned);
    this.bars = names.map((name) => {
      const bar = document.createElement("progress"), value = element("span", "", "n");
      bar.setAttribute("aria-label", worded(name).label);
      return [name, bar, value];
    });
    $("pedals").replaceChildren(...this.bars.map(([name, bar, value]) => {
      const row = element("div"), held = element("dd");
      held.append(bar);
      if (controls[name][0] < 0) held.append(value); // A bar alone has no middle.
      row.append(element("dt", worded(name).label), held);
      return row;
    }));
  }

  show(moment) {
    $("pedals").hidden = !moment?.driven || !this.bars.length;
    for (const [name, bar, value] of this.bars) {
      const [low, high] = this.page.hello.controls[name], held = moment?.driven?.[name] ?? low;
      bar.value = (held - low) / (high - low);
      value.textContent = `${figure(held, 2)} ${worded(name).unit}`;
    }
  }
}
