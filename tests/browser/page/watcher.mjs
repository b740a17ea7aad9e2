// Watches what a consumer really shows: every decoded picture is read back from the <video> element, and the loudest
// pitch of the sound is measured.

import { read } from './picture.mjs';
import * as soundless from './soundless.mjs';

const SHOWN_MAX = 20_000;

/** Reads the numbered pictures of one video track, with the moment each was presented. */
export class Screen {
  constructor(track) {
    this.video = document.createElement('video');
    Object.assign(this.video, { muted: true, autoplay: true, playsInline: true });
    this.video.srcObject = new MediaStream([track]);
    document.body.append(this.video);
    this.canvas = document.createElement('canvas');
    this.context = this.canvas.getContext('2d', { willReadFrequently: true });
    this.shown = [];
    this.damaged = 0;
    this.closed = false;
    this.video.play().catch(() => {});
    this.#await();
  }

  #await() {
    this.video.requestVideoFrameCallback((now, frame) => {
      if (this.closed) return;
      this.#look(frame);
      this.#await();
    });
  }

  #look(frame) {
    // A fixed small size: the cells stay readable, and reading costs the same for every encoding.
    this.canvas.width = Math.min(frame.width, 160);
    this.canvas.height = Math.min(frame.height, 120);
    this.context.drawImage(this.video, 0, 0, this.canvas.width, this.canvas.height);
    const stamp = read(this.context);
    if (!stamp) this.damaged += 1;
    else if (this.shown.length < SHOWN_MAX) {
      this.shown.push({ at: Date.now(), ...stamp, width: frame.width, height: frame.height });
    }
  }

  close() {
    this.closed = true;
    this.video.srcObject = null;
    this.video.remove();
  }
}

/** Plays one audio track and measures its loudest pitch. */
export class Loudspeaker {
  constructor(track) {
    this.stream = new MediaStream([track]);
    this.audio = document.createElement('audio');
    this.audio.autoplay = true;
    this.audio.srcObject = this.stream;
    document.body.append(this.audio);
    this.audio.play().catch(() => {});
    if (soundless.needed) return;
    this.sound = new AudioContext();
    this.spectrum = this.sound.createAnalyser();
    this.spectrum.fftSize = 4096;
    this.sound.createMediaStreamSource(this.stream).connect(this.spectrum);
  }

  /** Hertz of the loudest component, 0 in silence. */
  pitch() {
    if (soundless.needed) return soundless.pitch(this.stream);
    const loudness = new Float32Array(this.spectrum.frequencyBinCount);
    this.spectrum.getFloatFrequencyData(loudness);
    let loudest = 0;
    for (let at = 1; at < loudness.length; at += 1) if (loudness[at] > loudness[loudest]) loudest = at;
    const silent = !(loudness[loudest] > -70);
    return silent ? 0 : (loudest * this.sound.sampleRate) / this.spectrum.fftSize;
  }

  async close() {
    this.audio.srcObject = null;
    this.audio.remove();
    await this.sound?.close();
  }
}
