// Tones in Firefox on a machine without a sound device: its AudioContext waits for a device for ever, but a played file
// can be captured, and what arrives can be recorded and decoded. Other browsers need none of this.

const RATE = 48_000;
const RECORD_MS = 400;
const WINDOW = 4_096;
/** Hertz: the tones of sources are looked for here, in steps finer than the distance between two of them. */
const [LOWEST, HIGHEST, STEP] = [200, 4_000, 10];
/** Below this share of full scale is silence. */
const SILENCE = 0.005;

export const needed = 'mozCaptureStream' in HTMLMediaElement.prototype;

/** One second of a sine as a WAV file (RIFF, 16-bit PCM, mono): it loops without a seam at whole numbers of hertz. */
function wave(hertz) {
  const file = new DataView(new ArrayBuffer(44 + RATE * 2));
  const text = (at, word) => [...word].forEach((letter, index) => file.setUint8(at + index, letter.charCodeAt(0)));
  text(0, 'RIFF');
  file.setUint32(4, 36 + RATE * 2, true);
  text(8, 'WAVEfmt ');
  file.setUint32(16, 16, true);
  file.setUint16(20, 1, true);
  file.setUint16(22, 1, true);
  file.setUint32(24, RATE, true);
  file.setUint32(28, RATE * 2, true);
  file.setUint16(32, 2, true);
  file.setUint16(34, 16, true);
  text(36, 'data');
  file.setUint32(40, RATE * 2, true);
  for (let at = 0; at < RATE; at += 1) {
    file.setInt16(44 + at * 2, 16_000 * Math.sin((2 * Math.PI * hertz * at) / RATE), true);
  }
  return new Blob([file.buffer], { type: 'audio/wav' });
}

/** A steady tone as a track, and what ends it. */
export async function tone(hertz) {
  const player = new Audio(URL.createObjectURL(wave(hertz)));
  player.loop = true;
  await player.play();
  const [track] = player.mozCaptureStream().getAudioTracks();
  const stop = async () => {
    player.pause();
    URL.revokeObjectURL(player.src);
  };
  return { track, stop };
}

/** Hertz of the loudest tone in what the stream plays now, 0 in silence. */
export async function pitch(stream) {
  const recorder = new MediaRecorder(stream);
  const recorded = new Promise((resolve) => {
    recorder.ondataavailable = ({ data }) => resolve(data);
  });
  recorder.start();
  await new Promise((resolve) => setTimeout(resolve, RECORD_MS));
  recorder.stop();
  const file = await (await recorded).arrayBuffer();
  const sound = await new OfflineAudioContext(1, RATE, RATE).decodeAudioData(file);
  return loudest(sound.getChannelData(0).slice(-WINDOW));
}

function loudest(samples) {
  let best = { hertz: 0, loudness: SILENCE };
  for (let hertz = LOWEST; hertz <= HIGHEST; hertz += STEP) {
    const loudness = component(samples, hertz);
    if (loudness > best.loudness) best = { hertz, loudness };
  }
  return best.hertz;
}

/** How strong one frequency is in the samples: 1 for a sine of full scale. */
function component(samples, hertz) {
  const turn = (2 * Math.PI * hertz) / RATE;
  let [real, imaginary] = [0, 0];
  samples.forEach((sample, at) => {
    real += sample * Math.cos(turn * at);
    imaginary += sample * Math.sin(turn * at);
  });
  return (2 * Math.hypot(real, imaginary)) / samples.length;
}
