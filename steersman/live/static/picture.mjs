// The picture, and over it where the model looked.

const SMALL = 300;

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

  /** Grey becomes how opaque a warm light is. */
  tint(bitmap) {
    const pen = draw(this.look, bitmap, { willReadFrequently: true });
    const pixels = pen.getImageData(0, 0, this.look.width, this.look.height), { data } = pixels;
    for (let i = 0; i < data.length; i += 4) {
      data[i + 3] = data[i] * 0.75;
      [data[i], data[i + 1], data[i + 2]] = [255, 214, 64];
    }
    pen.putImageData(pixels, 0, 0);
  }
}

function draw(canvas, bitmap, options) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  const pen = canvas.getContext("2d", options);
  pen.drawImage(bitmap, 0, 0);
  bitmap.close();
  return pen;
}
