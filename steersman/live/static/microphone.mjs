// @ts-check
// The panel of the microphone: its sound on its way to the model, at the model's rate, and how loud it is.

import { $ } from "./page.mjs";

const SENT_S = 0.05; // Sound in a message.
const QUIETEST_DB = -60;
const WHY = {
  NotAllowedError: "The microphone was refused: allow it for this page",
  NotFoundError: "No microphone was found: plug one in and start it again",
  NotReadableError: "The microphone is taken by another program: close that and start it again",
};

export default class Microphone {
  /** @param {import("./page.mjs").Page} page */
  constructor(page) {
    this.page = page;
    this.every = 50;
    /** @type {MediaStream | null} */
    this.stream = null;
    /** @type {AudioContext | null} */
    this.context = null;
    this.loudness = 0;
    /** @type {number[]} */
    this.waiting = [];
    $("microphone").onclick = () => (this.stream ? this.stop() : this.start());
  }

  begin() {
    $("microphone").hidden = false;
    $("listening").textContent = "The model waits for your microphone: say one word after another, with a pause between them.";
    $("listening").hidden = false;
  }

  async start() {
    const { sound_hz: hz } = this.page.hello;
    if (!navigator.mediaDevices) return this.page.notice("This browser gives a microphone to https:// and localhost only");
    try {
      const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false };
      this.stream = await navigator.mediaDevices.getUserMedia({ audio });
      this.context = new AudioContext({ sampleRate: hz });
      await this.context.audioWorklet.addModule("/static/tap.mjs");
      const tap = new AudioWorkletNode(this.context, "tap", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
      tap.port.onmessage = ({ data }) => this.heard(data, hz);
      this.context.createMediaStreamSource(this.stream).connect(tap);
    } catch (error) {
      this.stop();
      const rate = `This browser doesn't bring the microphone to ${hz} samples a second: try another one`;
      const why = this.context ? rate : WHY[error.name] ?? `The microphone could not be started: ${error.message}`;
      this.context = null;
      return this.page.notice(why);
    }
    this.stream.getTracks()[0].onended = () => {
      this.stop();
      this.page.notice("The microphone is gone: plug it in and start it again");
    };
    $("level").hidden = false;
    $("microphone").textContent = "Stop the microphone";
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    if (this.context?.state !== "closed") this.context?.close();
    this.stream = null;
    this.waiting = [];
    $("level").hidden = true;
    $("microphone").textContent = "Start the microphone";
  }

  /** @param {Float32Array} samples @param {number} hz */
  heard(samples, hz) {
    if (!this.stream) return;
    this.waiting.push(...samples);
    if (this.waiting.length < SENT_S * hz) return;
    const power = this.waiting.reduce((sum, x) => sum + x * x, 0) / this.waiting.length;
    this.loudness = 1 - Math.min(1, (10 * Math.log10(power + 1e-12)) / QUIETEST_DB);
    const message = new DataView(new ArrayBuffer(4 + 2 * this.waiting.length));
    message.setUint32(0, hz, true);
    this.waiting.forEach((x, i) => message.setInt16(4 + 2 * i, Math.max(-1, Math.min(1, x)) * 32767, true));
    this.waiting = [];
    this.page.send(new Blob([message]));
  }

  show() {
    if (this.stream) $("level").value = this.loudness;
  }
}
