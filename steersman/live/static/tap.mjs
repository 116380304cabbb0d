// What runs beside the page's sound: hands every block of samples on.


class Tap extends globalThis.AudioWorkletProcessor {
  process([[samples]]) {
    if (samples) this.port.postMessage(samples.slice());
    return true;
  }
}

globalThis.registerProcessor("tap", Tap);
