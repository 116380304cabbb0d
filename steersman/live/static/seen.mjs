// @ts-check
// The panel of the picture: what the model sees, where it looked, and the camera that may send it.

import { $ } from "./page.mjs";
import { Picture } from "./picture.mjs";

const WAITING = { webcam: "The model waits for your camera", training: "The next lap is driven soon" };

export default class Seen {
  /** @param {import("./page.mjs").Page} page */
  constructor(page) {
    this.page = page;
    this.picture = new Picture($("picture"), $("look"));
    /** @type {any} */
    this.webcam = null;
    $("look-on").onchange = () => this.picture.setLook($("look-on").checked);
    $("camera").onclick = () => this.toggleCamera();
  }

  begin({ source, size: [height, width] }) {
    $("screen").hidden = $("look-on").parentElement.hidden = false;
    $("camera").hidden = source !== "webcam";
    $("waiting").textContent = WAITING[source] ?? "Waiting for the first picture";
    if (!$("waiting").hidden) Object.assign($("picture"), { height, width });
  }

  moment(moment) {
    this.picture.show(moment);
    this.page.skipped = this.picture.skipped;
    this.webcam?.answered();
    $("waiting").hidden = true;
  }

  async toggleCamera() {
    if (this.webcam?.stream) {
      this.webcam.stop();
      $("camera").textContent = "Start the camera";
      return;
    }
    const { Webcam } = await import("./webcam.mjs");
    const { size, rate_hz: rate } = this.page.hello;
    const send = (jpeg) => this.page.send(jpeg), failed = (words) => this.page.notice(words);
    this.webcam = new Webcam({ size, rate, send, failed });
    if (await this.webcam.start()) $("camera").textContent = "Stop the camera";
  }
}
