// @ts-check
// The panel of the person: takes the controls from the model, is recorded, and teaches.

import { Driving } from "./driving.mjs";
import { listenToGamepads, listenToKeys, listenToPointer } from "./inputs.mjs";
import { figure } from "./moments.mjs";
import { $, element } from "./page.mjs";
import { progress } from "./progress.mjs";

const ARROWS = { left: "\u2190", right: "\u2192", up: "\u2191", down: "\u2193" };

export default class Hands {
  /** @param {import("./page.mjs").Page} page */
  constructor(page) {
    this.page = page;
    this.hands = "";
    this.driving = new Driving((message) => page.send(message), () => {
      $("take").setAttribute("aria-pressed", String(this.driving.held));
    });
    listenToPointer(this.driving, $("screen"), $("thumb"));
    listenToKeys(this.driving);
    listenToGamepads((words) => {
      $("gamepad").textContent = words;
      $("gamepad").hidden = !words;
    });
    $("take").onclick = () => this.driving.hold(!this.driving.held);
    $("learn").onclick = () => page.send({ type: "learn" }) && this.learning({ step: 0, steps: 1, loss: null });
    this.events = {
      learning: (event) => this.learning(event),
      swapped: ({ version }) => {
        this.ended();
        page.say(`New weights ${this.verb()}: version ${version}`);
      },
      recorded: ({ drives }) => {
        if (drives > this.page.hello.recorded) page.say(`A drive was recorded: ${drives} in all`);
        this.recorded(drives);
      },
      error: () => this.ended(),
    };
  }

  begin(hello) {
    this.hands = "";
    $("person").hidden = false;
    $("screen").classList.add("takes");
    $("learning").hidden = true; // If it goes on, that is told again soon.
    this.driving.allow(hello.controls, this.page.has("wheel") ? hello.main_target : "");
    this.recorded(hello.recorded);
    this.help();
  }

  moment({ hands }) {
    if (hands === this.hands) return;
    this.hands = hands;
    const person = hands === "person", who = !person ? "The model" : this.driving.recent ? "You" : "Another page";
    $("screen").classList.toggle("person", person);
    $("hands").hidden = false;
    $("hands").textContent = `${who} ${person && this.driving.recent ? this.verb("") : this.verb("s")}`;
  }

  lost() {
    this.driving.letGo();
  }

  verb(end = "") {
    return (this.page.has("wheel") ? "drive" : "act") + end;
  }

  learning({ step, steps, loss }) {
    progress("learning", "learned", step, steps, loss);
    $("learn").disabled = true;
  }

  ended() {
    $("learning").hidden = true;
    $("learn").disabled = !this.page.hello?.recorded;
  }

  recorded(drives) {
    this.page.hello.recorded = drives;
    const count = `${figure(drives, 0)} ${drives === 1 ? "drive" : "drives"} recorded`;
    $("recorded").textContent = drives ? count : "Nothing recorded yet";
    $("learn").disabled = !drives || !$("learning").hidden;
  }

  /** Which key does what, at the head of the help. */
  help() {
    for (const old of document.querySelectorAll("#help .driving")) old.remove();
    /** @param {import("./driving.mjs").Axis} axis */
    const way = ({ plus, minus }) => [plus, minus].flatMap((one) => (one ? ARROWS[one] : []));
    const rows = this.driving.axes.map((axis) => helped(way(axis), "", axis.name));
    rows.push(helped(["Esc"], "", "let go at once; it is let go by itself a second after the last key"));
    rows.push(helped([], "gamepad", "the left stick goes the ways of the keys left and right, the triggers up and down"));
    rows.push(helped([], "drag", "on the picture: the ways of the keys"));
    $("help").querySelector("dl").prepend(...rows);
  }
}

/** @param {string[]} keys @param {string} term @param {string} what */
function helped(keys, term, what) {
  const row = element("div", "", "driving"), head = element("dt", term);
  head.append(...keys.flatMap((key) => [element("kbd", key), " "]));
  row.append(head, element("dd", what));
  return row;
}
