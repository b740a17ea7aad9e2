// A camera and a microphone that are made, not found: a canvas with numbered pictures and an oscillator of known pitch.

import { draw } from './picture.mjs';
import * as soundless from './soundless.mjs';

/** A video track of numbered pictures. */
export class Camera {
  constructor({ source, width = 320, height = 240, fps = 20, noise = 0 }) {
    this.canvas = document.createElement('canvas');
    this.canvas.width = width;
    this.canvas.height = height;
    document.body.append(this.canvas);
    const context = this.canvas.getContext('2d', { willReadFrequently: Boolean(noise) });
    this.counter = 0;
    const paint = () => {
      draw(context, { source, counter: this.counter, noise });
      this.counter += 1;
    };
    paint();
    this.timer = setInterval(paint, 1000 / fps);
    [this.track] = this.canvas.captureStream(fps).getVideoTracks();
  }

  stop() {
    clearInterval(this.timer);
    this.track.stop();
    this.canvas.remove();
  }
}

/** The pitch that belongs to a source: far enough apart for a coarse spectrum. */
export function pitchOf(source) {
  return 400 + source * 200;
}

/** An audio track with one steady tone. */
export class Microphone {
  static async open({ source }) {
    return new Microphone(await (soundless.needed ? soundless.tone : tone)(pitchOf(source)));
  }

  constructor({ track, stop }) {
    Object.assign(this, { track, end: stop });
  }

  async stop() {
    this.track.stop();
    await this.end();
  }
}

async function tone(hertz) {
  const sound = new AudioContext();
  const oscillator = sound.createOscillator();
  oscillator.frequency.value = hertz;
  const out = sound.createMediaStreamDestination();
  oscillator.connect(out);
  oscillator.start();
  const [track] = out.stream.getAudioTracks();
  return { track, stop: () => sound.close() };
}
