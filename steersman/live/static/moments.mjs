// @ts-check
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

export const DASH = "\u2013";
const MINUS = "\u2212";

/** Three digits of a number; a dash for none. */
export function figure(value, digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  const size = Math.abs(value);
  const places = digits ?? (size >= 100 ? 0 : size >= 10 ? 1 : 2);
  return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places })
    .replace(/^-(?=0(\.0*)?$)/, "").replace("-", MINUS);
}

export const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);

/** What a target is measured in. */
export const unit = (hello, target) => (hello.units[target] ?? "").replace(/-(?=\d)/g, MINUS);
