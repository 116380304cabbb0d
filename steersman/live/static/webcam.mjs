// A camera's pictures on their way to the model: one at a time, the next when the last was answered.

const ANSWER_MS = 2000; // Without an answer for so long the next is sent all the same.
const QUALITY = 0.85;

export class Webcam {
  /** `size` is [height, width] of what the model takes; `send` takes a Blob; `failed` a message for the person. */
  constructor({ size, rate, send, failed }) {
    Object.assign(this, { rate, send, failed });
    this.canvas = document.createElement("canvas");
    [this.canvas.height, this.canvas.width] = size;
    this.video = document.createElement("video");
    this.video.muted = this.video.playsInline = true;
    this.waiting = false;
  }

  async start() {
    if (!navigator.mediaDevices) return this.failed("This browser gives a camera to https:// and localhost only");
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      const why = { NotAllowedError: "The camera was refused: allow it for this page", NotFoundError: "No camera was found" };
      return this.failed(why[error.name] ?? `The camera could not be started: ${error.message}`);
    }
    this.video.srcObject = this.stream;
    await this.video.play();
    this.timer = setInterval(() => this.take(), 1000 / this.rate);
    return true;
  }

  stop() {
    clearInterval(this.timer);
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
  }

  answered() {
    this.waiting = false;
  }

  take() {
    const now = performance.now();
    if (!this.stream || (this.waiting && now - this.sentAt < ANSWER_MS)) return;
    this.waiting = true;
    this.sentAt = now;
    this.cut();
    this.canvas.toBlob((jpeg) => this.send(jpeg) || this.answered(), "image/jpeg", QUALITY);
  }

  /** The middle of the camera's picture, of the shape the model was trained on. */
  cut() {
    const { videoWidth: width, videoHeight: height } = this.video, { canvas } = this;
    const scale = Math.min(width / canvas.width, height / canvas.height);
    const [w, h] = [canvas.width * scale, canvas.height * scale];
    canvas.getContext("2d").drawImage(this.video, (width - w) / 2, (height - h) / 2, w, h, 0, 0, canvas.width, canvas.height);
  }
}
