// @ts-check
// The table of all predictions.

import { figure, unit } from "./moments.mjs";
import { $, element } from "./page.mjs";

export class Values {
  /** @param {import("./page.mjs").Page} page */
  constructor(page) {
    this.page = page;
    this.every = 200;
  }

  begin({ targets }) {
    $("all").hidden = !targets.length;
    $("all").open = !this.page.has("wheel");
    $("values").replaceChildren();
  }

  show(moment) {
    if (!moment || !$("all").open) return;
    const { hello } = this.page;
    $("values").replaceChildren(...hello.targets.map((name) => {
      const row = element("tr"), head = element("th", name), said = moment.said[name];
      head.setAttribute("scope", "row");
      const predicted = typeof said === "string" ? `"${said}"` : this.number(name, said);
      const truth = moment.truth?.[name] ?? null;
      row.append(head, element("td", predicted, "n"), element("td", this.true(name, truth, said), "n"));
      row.append(element("td", unit(hello, name)));
      return row;
    }));
  }

  /** Three places of a quantity, none of what is counted. */
  number(name, value) {
    return figure(value, this.page.hello.range[name] ? 3 : 0);
  }

  true(name, value, said) {
    const symbol = typeof said === "string" && this.page.has("words") && value > 0;
    return symbol ? JSON.stringify(String.fromCodePoint(value)) : this.number(name, value);
  }
}
