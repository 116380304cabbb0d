// Hands on the wheel: arrow keys, a gamepad, a drag. While they are on, the server is told again and again.

const TICK_MS = 40, REPEAT_MS = 200, GIVEN_BACK_MS = 1500;
const TURN = 2.5, BACK = 5, PEDAL = 3; // Per second: of the wheel with a key and back to the middle, of a pedal.
const DEAD = 0.12; // A stick at rest is never quite at 0.

const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "gas", ArrowDown: "brake" };

/** Moves a value towards another by at most so much. */
export const towards = (value, goal, most) => value + Math.max(-most, Math.min(most, goal - value));

export class Driving {
  /** `send` takes a message; `changed` is called when the wheel is held by a button, or no longer. */
  constructor(send, changed) {
    Object.assign(this, { send, changed });
    this.allowed = this.held = this.on = false;
    this.down = new Set();
    this.drag = null;
    this.steer = this.gas = this.brake = 0;
    setInterval(() => this.tick(), TICK_MS);
  }

  /** Whether the person who drives, or did a moment ago, is the one before this page. */
  get recent() {
    return this.on || performance.now() - this.toldAt < GIVEN_BACK_MS;
  }

  allow(allowed) {
    this.allowed = allowed;
    if (!allowed) this.letGo();
  }

  /** True where the key is one that drives. */
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
    this.steer = this.gas = this.brake = 0;
    if (this.recent) this.send({ type: "release" });
    this.told = "";
    this.on = false;
    this.changed();
  }

  tick() {
    if (!this.allowed) return;
    const goal = this.dragGoal() ?? this.padGoal() ?? this.keyGoal();
    const seconds = TICK_MS / 1000, direct = goal.direct;
    const outwards = goal.steer !== 0 && goal.steer * this.steer >= 0;
    this.steer = direct ? goal.steer : towards(this.steer, goal.steer, (outwards ? TURN : BACK) * seconds);
    this.gas = direct ? goal.gas : towards(this.gas, goal.gas, PEDAL * seconds);
    this.brake = direct ? goal.brake : towards(this.brake, goal.brake, PEDAL * seconds);
    const active = this.held || goal.active || this.steer !== 0;
    this.on = active;
    if (active) this.tell();
  }

  tell() {
    const round = (value) => Math.round(value * 1000) / 1000;
    const message = { type: "wheel", steer: round(this.steer), gas: round(this.gas), brake: round(this.brake) };
    const text = JSON.stringify(message), now = performance.now();
    if (text === this.told && now - this.toldAt < REPEAT_MS) return;
    if (this.send(message)) [this.told, this.toldAt] = [text, now];
  }

  keyGoal() {
    const has = (name) => (this.down.has(name) ? 1 : 0);
    return { steer: has("left") - has("right"), gas: has("gas"), brake: has("brake"), active: this.down.size > 0 };
  }

  dragGoal() {
    if (!this.drag) return null;
    const clip = (value, low) => Math.max(low, Math.min(1, value));
    const [x, y] = this.drag;
    return { steer: clip(-2.5 * x, -1), gas: clip(-3 * y, 0), brake: clip(3 * y, 0), active: true, direct: true };
  }

  padGoal() {
    const pad = navigator.getGamepads?.().find((one) => one?.mapping === "standard");
    if (!pad) return null;
    const stick = pad.axes[0], size = Math.abs(stick);
    const steer = size < DEAD ? 0 : (-Math.sign(stick) * (size - DEAD)) / (1 - DEAD);
    const [gas, brake] = [pad.buttons[7].value, pad.buttons[6].value];
    return steer || gas > 0.02 || brake > 0.02 ? { steer, gas, brake, active: true, direct: true } : null;
  }
}
