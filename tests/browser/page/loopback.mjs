// The instrument's own check: one RTCPeerConnection to another inside the page, without any server, so that a failing
// call can be told from a browser that cannot encode, or a picture that cannot be read.

import { Camera } from './publisher.mjs';
import { Screen } from './watcher.mjs';

/** Codecs this browser sends, as `VP8`, `H264`, …, without helpers such as `rtx`. */
export function sendableCodecs() {
  const { codecs } = RTCRtpSender.getCapabilities('video');
  const names = codecs.map(({ mimeType }) => mimeType.split('/')[1].toUpperCase());
  return [...new Set(names)].filter((name) => !['RTX', 'RED', 'ULPFEC', 'FLEXFEC-03'].includes(name));
}

/** Sends `picture` with one codec for `seconds`, and gives back what was shown. */
export async function loopback({ codec, seconds, ...picture }) {
  const [from, to] = [new RTCPeerConnection(), new RTCPeerConnection()];
  from.onicecandidate = ({ candidate }) => to.addIceCandidate(candidate);
  to.onicecandidate = ({ candidate }) => from.addIceCandidate(candidate);
  const camera = new Camera(picture);
  const transceiver = from.addTransceiver(camera.track, { direction: 'sendonly' });
  const { codecs } = RTCRtpSender.getCapabilities('video');
  transceiver.setCodecPreferences(codecs.filter(({ mimeType }) => mimeType.toUpperCase() === `VIDEO/${codec}`));
  const shown = new Promise((resolve) => {
    to.ontrack = ({ track }) => resolve(new Screen(track));
  });
  await from.setLocalDescription();
  await to.setRemoteDescription(from.localDescription);
  await to.setLocalDescription();
  await from.setRemoteDescription(to.localDescription);
  const screen = await shown;
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const result = { shown: screen.shown, damaged: screen.damaged };
  screen.close();
  camera.stop();
  from.close();
  to.close();
  return result;
}
