// @ts-check
// The panel of classes and of words: what came of late, and what of it the model had said.

import { $, element } from "./page.mjs";

const KEPT = 240;

export default class Stream {
  /** @param {import("./page.mjs").Page} page */
  constructor(page) {
    this.page = page;
    this.every = 200;
    /** @type {{ text: string, known: boolean, hit: boolean }[]} */
    this.rows = [];
  }

  begin({ targets, source }) {
    this.spoken = source === "microphone"; // A piece for each record, which is a word.
    this.rows = [];
    this.target = targets[0];
    this.words = this.page.has("words");
    $("stream").hidden = false;
    $("stream").classList.toggle("words", this.words);
    $("stream-title").textContent = this.words ? "The text as it comes" : this.spoken ? "What was heard" : `${this.target}, of late`;
  }

  moment(moment, before) {
    if (this.spoken) this.rows.length -= moment.record === before?.record && this.rows.length ? 1 : 0;
    else if (moment.record !== before?.record) this.rows = [];
    const said = moment.said[this.target], truth = moment.truth?.[this.target] ?? null;
    const text = truth === null ? String(said) : this.words && truth > 0 ? String.fromCodePoint(truth) : String(truth);
    this.rows.push({ text, known: truth !== null, hit: truth !== null && truth === moment.prediction[this.target] });
    if (this.rows.length > KEPT) this.rows.shift();
  }

  show() {
    const pieces = this.words ? joined(this.rows) : this.rows.slice(-KEPT / 6);
    $("stream-text").replaceChildren(...pieces.map(({ text, hit }) => element("span", text, hit ? "hit" : "")));
    const known = this.rows.filter((row) => row.known), hits = known.filter(({ hit }) => hit).length;
    $("stream-share").textContent = known.length ? `${Math.round((100 * hits) / known.length)} % of the last ${known.length}` : "";
  }
}

/** Neighbours that are alike as one piece. */
function joined(rows) {
  /** @type {{ text: string, hit: boolean }[]} */
  const found = [];
  for (const { text, hit } of rows) {
    const last = found.at(-1);
    if (last && last.hit === hit) last.text += text;
    else found.push({ text, hit });
  }
  return found;
}
