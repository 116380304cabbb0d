// @ts-check
// The panel of a text box: what is typed is answered as it is typed, with a picture of where the model looked.

import { capital, figure } from "./moments.mjs";
import { $, element } from "./page.mjs";

const TYPED_MS = 250; // After the last key.
const AGAIN_MS = 300; // After a text of another page had to be answered first.
const BUSY = 409;

export default class Texts {
  /** @param {import("./page.mjs").Page} page */
  constructor(page) {
    this.page = page;
    this.asked = ""; // The text that was last sent.
    this.busy = false;
    $("text").oninput = () => this.later(TYPED_MS);
  }

  async begin() {
    $("write").hidden = $("answer").hidden = false;
    const { limits } = await fetch("/api/about").then((answer) => answer.json());
    $("text").maxLength = limits.characters;
    this.later(0);
  }

  /** @param {number} wait */
  later(wait) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), wait);
  }

  /** One text at a time; of those that were typed meanwhile the newest is next. */
  async ask() {
    const text = $("text").value;
    if (this.busy || text === this.asked) return;
    this.busy = true;
    const body = JSON.stringify({ text }), headers = { "Content-Type": "application/json" };
    try {
      const answer = await fetch("/api/say", { method: "POST", headers, body });
      const found = await answer.json();
      if (answer.status === BUSY) return this.later(AGAIN_MS);
      this.asked = text;
      if (answer.ok) this.tell(found);
      else this.refused(found);
    } catch {
      this.later(4 * AGAIN_MS); // The connection's state is told beside it.
      return;
    } finally {
      this.busy = false;
    }
    if ($("text").value !== text) this.later(0);
  }

  refused({ error, do: mend }) {
    this.tell({ text: "", score: null, unknown: 0, attention: null, latency_ms: 0 });
    $("answer-note").textContent = `${capital(error)}: ${mend}`;
  }

  tell({ text, score, unknown, attention, latency_ms: latency }) {
    $("answer-text").textContent = text;
    const known = unknown ? `${unknown} ${unknown === 1 ? "piece" : "pieces"} of the text not known` : "";
    const sure = score === null ? "" : `log-probability ${figure(score, 2)}`;
    $("answer-note").textContent = text ? [sure, `${figure(latency, 0)} ms`, known].filter(Boolean).join(" \u00b7 ") : "";
    $("attention").hidden = !attention;
    $("weights").replaceChildren();
    if (attention) $("weights").append(...table(attention));
  }
}

/** A row a piece of what was said, a column a piece of what was read. */
function table({ source, target, weights }) {
  const caption = element("caption", "How much of its attention each piece of the answer had for each piece of the text", "heard");
  const head = element("thead"), top = element("tr"), body = element("tbody");
  top.append(element("td"), ...source.map((piece) => headed(piece, "col")));
  head.append(top);
  target.forEach((piece, i) => {
    const row = element("tr");
    row.append(headed(piece, "row"), ...weights[i].map((weight) => cell(weight)));
    body.append(row);
  });
  return [caption, head, body];
}

function headed(piece, scope) {
  const made = element("th");
  made.setAttribute("scope", scope);
  made.append(element("span", piece));
  return made;
}

function cell(weight) {
  const made = element("td"), percent = `${Math.round(100 * weight)} %`;
  made.style.setProperty("--share", String(weight));
  made.title = percent;
  made.append(element("span", percent, "heard"));
  return made;
}
