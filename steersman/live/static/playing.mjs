// @ts-check
// Pause, begin anew, choose a record.

import { $ } from "./page.mjs";

export class Playing {
  /** @param {import("./page.mjs").Page} page */
  constructor(page) {
    this.page = page;
    this.paused = false;
    this.every = 200;
    this.events = {
      paused: ({ paused }) => {
        if (paused !== this.paused) page.say(paused ? "Paused" : "Going on");
        this.set(paused);
      },
    };
    $("pause").onclick = () => this.toggle();
    $("restart").onclick = () => page.send({ type: "restart" });
    $("record").onchange = () => page.send({ type: "record", name: $("record").value });
  }

  begin({ source, records, paused }) {
    $("controls").hidden = source === "text";
    $("restart").textContent = source !== "simulator" ? "From the start" : this.page.has("wheel") ? "Next track" : "Next episode";
    $("restart").hidden = ["webcam", "microphone", "training", "text"].includes(source);
    $("pause").hidden = ["training", "text"].includes(source);
    $("records").hidden = !records;
    $("record").replaceChildren(...(records ?? []).map((name) => new Option(name, name)));
    this.set(paused);
  }

  set(paused) {
    this.paused = paused;
    $("pause").textContent = paused ? "Go on" : "Pause";
  }

  toggle() {
    if (!$("pause").hidden) this.page.send({ type: "pause", paused: !this.paused });
  }

  show(moment) {
    if (moment && this.page.hello.records && document.activeElement !== $("record")) $("record").value = moment.record;
  }
}
