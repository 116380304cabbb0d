// @ts-check
// Where the show is, what is known of its world, and how quick the model is.

import { capital, figure } from "./moments.mjs";
import { $, element } from "./page.mjs";

/** As the ends of names say them, with the places that are read. */
const UNITS = {
  mps: ["m/s", 1], m: ["m", 1], s: ["s", 1], rad: ["rad", 2], radps: ["rad/s", 2], deg: ["\u00b0", 1], hz: ["Hz", 1], n: ["N", 1], nm: ["N m", 2],
};

/** @param {string} name @returns {{ label: string, unit: string, places?: number }} */
export function worded(name) {
  const parts = name.split("_"), [unit, places] = (parts.length > 1 && UNITS[parts.at(-1) ?? ""]) || ["", undefined];
  return { label: capital((unit ? parts.slice(0, -1) : parts).join(" ")), unit, places };
}

export class Facts {
  /** @param {import("./page.mjs").Page} page */
  constructor(page) {
    this.page = page;
    this.every = 200;
    /** @type {Record<string, HTMLElement>} */
    this.shown = {};
  }

  begin({ source }) {
    for (const value of Object.values(this.shown)) value.parentElement?.parentElement?.remove();
    this.shown = {};
    $("facts").hidden = source === "text";
    if (source === "text") $("about").textContent = "";
  }

  /** What became true is said once. */
  moment(moment, before) {
    for (const [name, value] of Object.entries(moment.facts)) {
      if (value === true && before && before.facts[name] !== true) this.page.say(`${worded(name).label}: ${moment.record}`);
    }
  }

  show(moment) {
    if (!moment) return;
    const { latency_ms: latency, n, record, version, dropped } = moment;
    const place = [this.page.hello.source, record, `frame ${figure(n, 0)}`, `weights ${version}`];
    $("about").textContent = place.filter(Boolean).join(" \u00b7 ");
    $("median").textContent = figure(latency.median, 1);
    $("p99").textContent = figure(latency.p99, 1);
    $("dropped").textContent = figure(dropped + this.page.skipped, 0);
    for (const [name, value] of Object.entries(moment.facts)) {
      if (typeof value === "boolean") continue;
      const { places } = worded(name);
      this.place(name).textContent = typeof value === "number" ? figure(value, places) : value;
    }
  }

  /** Where a fact's value is written; before those of the model. @param {string} name */
  place(name) {
    if (!this.shown[name]) {
      const { label, unit } = worded(name), value = element("span"), fact = element("div"), said = element("dd");
      said.append(value, " ", element("small", unit));
      fact.append(element("dt", label), said);
      $("facts").insertBefore(fact, $("median").closest("div"));
      this.shown[name] = value;
    }
    return this.shown[name];
  }
}
