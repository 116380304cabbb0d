// @ts-check
// How far a training is.

import { figure } from "./moments.mjs";
import { $ } from "./page.mjs";

/**
 * `loss` is null while a training still gets ready.
 * @param {string} box @param {string} bar @param {number} step @param {number} steps @param {number | null} loss
 */
export function progress(box, bar, step, steps, loss) {
  $(box).hidden = false;
  Object.assign($(bar), { max: steps, value: step });
  const place = `step ${figure(step, 0)} of ${figure(steps, 0)}`;
  $(`${bar}-text`).textContent = loss === null ? "Getting ready" : `${place}, loss ${loss.toPrecision(3)}`;
}
