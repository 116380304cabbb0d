// What the server says of one frame, and numbers as they are read.

/** A binary message: 4 bytes of length (little-endian), a JSON header, a JPEG, perhaps a PNG of where it looked. */
export function parseMoment(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const picture = 4 + length, look = picture + header.picture_bytes;
  header.picture = header.picture_bytes ? new Blob([new Uint8Array(buffer, picture, header.picture_bytes)]) : null;
  header.look = header.look_bytes ? new Blob([new Uint8Array(buffer, look, header.look_bytes)]) : null;
  return header;
}

const DASH = "\u2013";
export const MINUS = "\u2212";

/** Three digits of a number; a dash for none. */
export function figure(value, digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  const size = Math.abs(value);
  const places = digits ?? (size >= 100 ? 0 : size >= 10 ? 1 : 2);
  return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places })
    .replace(/^-(?=0(\.0*)?$)/, "").replace("-", MINUS);
}

/** A target's value in a table: three places, or what it names: a class by its number, a character. */
export function named(target, value, hello) {
  if (/^next_character$/.test(target) && value > 0) return JSON.stringify(String.fromCodePoint(value));
  return figure(value, hello.range?.[target] ? 3 : 0);
}

export const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);

/** Which target turns a wheel, how far it goes, and how it is read. */
export class Steering {
  static LOCK_DEG = 135; // How far a drawn wheel turns at full lock.

  constructor(hello) {
    const named = (word) => hello.targets.find((name) => name.split("_").includes(word));
    this.target = named("steer") ?? named("steering") ?? named("angle");
    this.unit = hello.units?.[this.target] ?? "";
    this.range = hello.range?.[this.target] ?? null;
    this.angular = this.unit.startsWith("rad") || (this.target ?? "").endsWith("_rad");
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
