// @ts-check
// What all panels share: the elements of the page, what the server said last, and how the person is spoken to.

/**
 * A part of the page; it has those of these that it needs.
 * @typedef {object} Panel
 * @property {(hello: any) => void} [begin] The server said hello, the first time or again.
 * @property {(moment: any, before: any) => void} [moment] A step was shown; `before` is the last one, or null.
 * @property {Record<string, (event: any) => void>} [events] What else the server says, by its type.
 * @property {(moment: any) => void} [show] Time to draw; the moment is null where there was none yet.
 * @property {number} [every] Milliseconds between two drawings, at least.
 * @property {() => void} [lost] The connection was lost.
 */

const SAID_MS = 5000;

/** @param {string} id @returns {any} */
export const $ = (id) => document.getElementById(id);

/** @param {string} tag @param {string} [content] @param {string} [kind] Classes. */
export function element(tag, content = "", kind = "") {
  const made = document.createElement(tag);
  made.textContent = content;
  if (kind) made.className = kind;
  return made;
}

export class Page {
  constructor() {
    /** @type {any} */
    this.hello = null;
    /** @type {any} */
    this.moment = null;
    this.skipped = 0; // Frames that came and were not drawn.
    /** Sends a message to the server; false where there is no connection. @type {(message: object | Blob) => boolean} */
    this.send = () => false;
  }

  /** @param {string} panel */
  has(panel) {
    return Boolean(this.hello?.panels.includes(panel));
  }

  /** Shown for a while over the picture, and read aloud. @param {string} words */
  say(words) {
    $("said").textContent = words;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => ($("said").textContent = ""), SAID_MS);
  }

  /** Shown until the person has read it. @param {string} words */
  notice(words) {
    $("notice-text").textContent = words;
    $("notice").hidden = false;
  }
}
