// The picture, and over it where the model looked.

const SMALL = 300;
const COARSE = 24; // Spots across where it looked.

export class Picture {
  constructor(canvas, look) {
    this.canvas = canvas;
    this.look = look;
    this.lookOn = true;
    this.skipped = 0; // Frames that came while one was being decoded.
    this.busy = false;
    this.next = null;
  }

  /** Draws the moment's picture; while one is being decoded only the newest waits. */
  async show(moment) {
    if (this.busy) {
      if (this.next) this.skipped++;
      this.next = moment;
      return;
    }
    this.busy = true;
    try {
      for (let now = moment; now; now = this.next) {
        this.next = null;
        if (now.picture) {
          draw(this.canvas, await createImageBitmap(now.picture));
          this.canvas.classList.toggle("small", this.canvas.width < SMALL); // Shown with its pixels sharp.
        }
        if (now.look && this.lookOn) this.tint(await createImageBitmap(now.look));
      }
    } finally {
      this.busy = false;
    }
  }

  setLook(on) {
    this.lookOn = on;
    this.look.hidden = !on;
    this.clearLook();
  }

  clearLook() {
    this.look.getContext("2d").clearRect(0, 0, this.look.width, this.look.height);
  }

  /** A warm light, the more opaque the more the prediction hung on what is there: means over a few pixels each. */
  tint(bitmap) {
    const pen = draw(this.look, bitmap, COARSE, Math.max(1, Math.round((COARSE * bitmap.height) / bitmap.width)));
    const pixels = pen.getImageData(0, 0, this.look.width, this.look.height), { data } = pixels;
    const most = data.reduce((high, value, i) => (i % 4 === 0 && value > high ? value : high), 1);
    for (let i = 0; i < data.length; i += 4) {
      const share = data[i] / most;
      data.set([255, 214, 64, 210 * share ** 1.5], i);
    }
    pen.putImageData(pixels, 0, 0);
  }
}

function draw(canvas, bitmap, width = bitmap.width, height = bitmap.height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d", { willReadFrequently: width < bitmap.width });
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return pen;
}
