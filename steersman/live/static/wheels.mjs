// The panel of steering wheels in SVG, each turned by a number: the model's, the true one, what is driven.

import { DASH, figure } from "./moments.mjs";
import { $ } from "./page.mjs";

const SVG = "http://www.w3.org/2000/svg";
const RADIUS = 52, LOCK_DEG = 135;

function shape(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** An arc about the centre from straight ahead by so many degrees, positive to the left. */
function arc(degrees) {
  const turn = (-Math.max(-179, Math.min(179, degrees)) * Math.PI) / 180;
  const [x, y] = [RADIUS * Math.sin(turn), -RADIUS * Math.cos(turn)];
  return `M0 ${-RADIUS}A${RADIUS} ${RADIUS} 0 0 ${turn > 0 ? 1 : 0} ${x.toFixed(2)} ${y.toFixed(2)}`;
}

export class Wheel {
  /** `colour` is model, truth or third. */
  constructor(label, colour) {
    this.swing = shape("path", { class: "swing" });
    this.turned = shape("g", {},
      shape("circle", { class: "rim", r: 38 }),
      shape("path", { class: "spokes", d: "M-36-2H-12M36-2H12M0 12V36" }),
      shape("circle", { class: "hub", r: 11, cy: -1 }),
      shape("path", { class: "mark", d: "M0-41V-35" }),
    );
    const lock = shape("path", { class: "lock", d: arc(LOCK_DEG) + arc(-LOCK_DEG) });
    const drawing = shape("svg", { viewBox: "-56 -56 112 104", "aria-hidden": "true" }, lock, this.swing, this.turned);
    this.label = document.createElement("span");
    this.label.className = "label";
    this.label.textContent = label;
    this.value = document.createElement("span");
    this.value.className = "value";
    this.element = document.createElement("div");
    this.element.className = `wheel ${colour}`;
    this.element.append(drawing, this.label, this.value);
  }

  show(value, steering) {
    this.element.hidden = value === null;
    if (value === null) return;
    const degrees = steering.degrees(value);
    this.turned.setAttribute("transform", `rotate(${(-degrees).toFixed(1)})`);
    this.swing.setAttribute("d", arc(degrees));
    this.value.textContent = steering.text(value);
  }
}

/** The target that turns a wheel: how far it goes, and how it is read. */
export class Steering {
  static LOCK_DEG = 135; // How far a drawn wheel turns at full lock.

  constructor(hello) {
    this.target = hello.main_target;
    this.unit = hello.units[this.target] ?? "";
    this.range = hello.range[this.target] ?? null;
    this.angular = this.unit.startsWith("rad") || this.target.endsWith("_rad");
  }

  of(named) {
    return named?.[this.target] ?? null;
  }

  /** Degrees by which to turn a drawn wheel, positive to the left. */
  degrees(value) {
    if (this.angular) return (value * 180) / Math.PI;
    const lock = this.range ? Math.max(...this.range.map(Math.abs)) : 1;
    return (value / lock) * Steering.LOCK_DEG;
  }

  text(value) {
    if (value === null) return DASH;
    const size = this.angular ? `${figure(Math.abs(this.degrees(value)), 1)}\u00b0` : figure(Math.abs(value), 2);
    const side = /^0(\.0*)?\D*$/.test(size) ? "" : value > 0 ? " left" : " right";
    return size + side;
  }
}

export default class Wheels {
  /** @param {import("./page.mjs").Page} page */
  constructor(page) {
    this.page = page;
    this.every = 30;
    this.model = new Wheel("Model", "model");
    this.truth = new Wheel("True", "truth");
    this.driven = new Wheel("On the car", "third");
    $("wheels").append(...[this.model, this.truth, this.driven].map((wheel) => wheel.element));
  }

  begin(hello) {
    this.steering = new Steering(hello);
  }

  show(moment) {
    const { steering } = this;
    if (!moment || !steering) return;
    this.model.show(steering.of(moment.prediction), steering);
    this.truth.show(steering.of(moment.truth), steering);
    this.driven.show(steering.of(moment.driven), steering);
  }
}
