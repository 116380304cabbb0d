// The one WebSocket of the page: it comes back by itself, ever more slowly, and says so.

import { capital } from "./moments.mjs";

const FIRST_MS = 500, LONGEST_MS = 8000;

export class Connection {
  /** `on` has: event(object), moment(buffer), state(name, words, wait), where a state is connecting, live or lost. */
  constructor(on) {
    this.on = on;
    this.failures = 0;
    this.why = "";
    this.open();
  }

  open() {
    clearTimeout(this.timer);
    clearInterval(this.counter);
    this.on.state("connecting", "Connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = (this.socket = new WebSocket(`${scheme}://${location.host}/api/stage`));
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.hear(JSON.parse(data)) : this.on.moment(data));
    socket.onclose = () => socket === this.socket && this.lost();
  }

  hear(event) {
    if (event.type === "hello") {
      this.failures = 0;
      this.why = "";
      this.on.state("live", "Live");
    }
    if (event.type === "goodbye") this.why = capital(event.why);
    this.on.event(event);
  }

  /** False where there is no connection; nothing is kept for later: a wheel turned a second ago is stale. */
  send(message) {
    if (this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(message instanceof Blob ? message : JSON.stringify(message));
    return true;
  }

  async lost() {
    const wait = Math.min(LONGEST_MS, FIRST_MS * 2 ** this.failures++) * (0.75 + Math.random() / 2);
    const until = performance.now() + wait;
    this.timer = setTimeout(() => this.open(), wait);
    const tell = () => {
      const left = Math.max(1, Math.ceil((until - performance.now()) / 1000));
      this.on.state("lost", this.why || "Connection lost", `trying again in ${left} s`);
    };
    this.counter = setInterval(tell, 1000);
    tell();
    if (this.failures > 1) this.why = (await refusal()) || this.why;
  }
}

/** A browser hides why a WebSocket was refused, so the same is asked over HTTP. */
async function refusal() {
  const { status } = await fetch("/api/about").catch(() => ({ status: 0 }));
  return status === 401 || status === 403 ? "This page's token is no longer valid: open the address the server printed" : "";
}
