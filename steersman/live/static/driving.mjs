// @ts-check
// Hands on the controls of a world: arrow keys, a gamepad, a drag. While they are on, the server is told again and again.

const TICK_MS = 40, REPEAT_MS = 200, GIVEN_BACK_MS = 1500;
const TURN = 2.5, BACK = 5, PEDAL = 3; // Per second, of a half range: outwards with a key, back to the middle, one-sided.
const DEAD = 0.12; // A stick at rest is never quite at 0.
const DRAG = { across: 2.5, along: 3 }; // How far a drag goes: the whole range in less than half of the picture.

const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };

/** How far each way is asked for, from 0 to 1. @typedef {{ left: number, right: number, up: number, down: number }} Ways */
/** A control and the ways that raise and lower it. @typedef {{ name: string, low: number, high: number, plus: string, minus?: string }} Axis */

/** Moves a value towards another by at most so much. */
export const towards = (value, goal, most) => value + Math.max(-most, Math.min(most, goal - value));

const share = (value) => Math.max(0, Math.min(1, value));

/**
 * Controls that go both ways: the first left and right (a steering wheel is positive to the left), the second up and
 * down. One-sided ones: up, then down, where those are free.
 * @param {Record<string, [number, number]>} controls @param {string} wheel The control that is a steering wheel, or none.
 * @returns {Axis[]}
 */
export function axes(controls, wheel) {
  const all = Object.entries(controls).map(([name, [low, high]]) => ({ name, low, high }));
  const [first, second] = all.filter(({ low }) => low < 0), alone = all.filter(({ low }) => low >= 0);
  const found = [];
  if (first) found.push({ ...first, ...(first.name === wheel ? { plus: "left", minus: "right" } : { plus: "right", minus: "left" }) });
  if (second) found.push({ ...second, plus: "up", minus: "down" });
  else alone.slice(0, 2).forEach((axis, i) => found.push({ ...axis, plus: i ? "down" : "up" }));
  return found;
}

export class Driving {
  /**
   * @param {(message: object) => boolean} send
   * @param {() => void} changed Called when the controls are held by a button, or no longer.
   */
  constructor(send, changed) {
    this.send = send;
    this.changed = changed;
    this.allowed = this.held = this.on = false;
    /** @type {Axis[]} */
    this.axes = [];
    /** @type {Record<string, [number, number]>} */
    this.controls = {};
    /** Of each control, as a share of its range from 0: -1 to 1. @type {Record<string, number>} */
    this.shares = {};
    /** @type {Set<string>} */
    this.down = new Set();
    /** @type {[number, number] | null} */
    this.drag = null;
    this.told = "";
    this.toldAt = -Infinity;
    setInterval(() => this.tick(), TICK_MS);
  }

  /** Whether the person who drives, or did a moment ago, is the one before this page. */
  get recent() {
    return this.on || performance.now() - this.toldAt < GIVEN_BACK_MS;
  }

  /** @param {Record<string, [number, number]>} controls @param {string} wheel */
  allow(controls, wheel) {
    this.controls = controls;
    this.axes = axes(controls, wheel);
    this.allowed = this.axes.length > 0;
    this.letGo();
  }

  /** True where the key is one that drives. @param {string} name @param {boolean} down */
  key(name, down) {
    if (!this.allowed || !KEYS[name]) return false;
    if (down) this.down.add(KEYS[name]);
    else this.down.delete(KEYS[name]);
    return true;
  }

  /** Fractions of the picture from where the drag began: right and down are positive; null at its end. */
  dragged(place) {
    this.drag = this.allowed ? place : null;
  }

  /** @param {boolean} held */
  hold(held) {
    if (!held) return this.letGo();
    this.held = this.allowed;
    this.changed();
  }

  /** The model drives again at once, rather than a second after the last key. */
  letGo() {
    this.down.clear();
    this.drag = null;
    this.held = false;
    this.shares = Object.fromEntries(this.axes.map(({ name }) => [name, 0]));
    if (this.recent) this.send({ type: "release" });
    this.told = "";
    this.on = false;
    this.changed();
  }

  tick() {
    if (!this.allowed) return;
    const direct = this.dragWays() ?? this.padWays(), ways = direct ?? this.keyWays();
    for (const { name, plus, minus } of this.axes) {
      const goal = ways[plus] - (minus ? ways[minus] : 0), now = this.shares[name];
      const outwards = goal !== 0 && goal * now >= 0, speed = !minus ? PEDAL : outwards ? TURN : BACK;
      this.shares[name] = direct ? goal : towards(now, goal, (speed * TICK_MS) / 1000);
    }
    const turned = this.axes.some(({ name, minus }) => minus && this.shares[name] !== 0);
    this.on = this.held || direct !== null || this.down.size > 0 || turned;
    if (this.on) this.tell();
  }

  tell() {
    const values = Object.fromEntries(Object.keys(this.controls).map((name) => [name, this.value(name)]));
    const text = JSON.stringify(values), now = performance.now();
    if (text === this.told && now - this.toldAt < REPEAT_MS) return;
    if (this.send({ type: "control", values })) [this.told, this.toldAt] = [text, now];
  }

  /** @param {string} name */
  value(name) {
    const [low, high] = this.controls[name], at = this.shares[name] ?? 0;
    const value = low >= 0 ? low + at * (high - low) : at * (at > 0 ? high : -low);
    return Math.round(value * 1000) / 1000;
  }

  /** @returns {Ways} */
  keyWays() {
    const has = (way) => (this.down.has(way) ? 1 : 0);
    return { left: has("left"), right: has("right"), up: has("up"), down: has("down") };
  }

  /** @returns {Ways | null} */
  dragWays() {
    if (!this.drag) return null;
    const [x, y] = [this.drag[0] * DRAG.across, this.drag[1] * DRAG.along];
    return { left: share(-x), right: share(x), up: share(-y), down: share(y) };
  }

  /** @returns {Ways | null} */
  padWays() {
    const pad = navigator.getGamepads?.().find((one) => one?.mapping === "standard");
    if (!pad) return null;
    const stick = pad.axes[0], size = share((Math.abs(stick) - DEAD) / (1 - DEAD));
    const [up, down] = [pad.buttons[7].value, pad.buttons[6].value];
    const ways = { left: stick < 0 ? size : 0, right: stick > 0 ? size : 0, up, down };
    return size || up > 0.02 || down > 0.02 ? ways : null;
  }
}
