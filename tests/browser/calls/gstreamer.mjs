// WHIP and WHEP with GStreamer, against browsers: encoders, decoders, ICE, DTLS and SRTP that no browser has.

import assert from 'node:assert/strict';
import { scenario, timedScenario, until, watched } from '../harness/stage.mjs';

const MOTION = { seconds: 3, picturesPerSecond: 5 };

for (const codec of ['VP8', 'H264']) {
  timedScenario(`GStreamer publishes ${codec} and Opus by WHIP, and mediasoup-client sees and hears it`, async (call) => {
    const room = call.room();
    const gstreamer = await call.gstreamer('gstreamer', { room, publish: codec });
    const bob = await call.peer('bob', { room });
    await bob.follow();
    await bob.seesMotionOf(gstreamer, MOTION);
    await bob.hears(gstreamer);
    const { peers } = (await call.request('GET', `/media/room/${encodeURIComponent(room)}`)).data;
    assert.deepEqual(peers.map(({ peerId }) => peerId).sort(), ['bob', 'gstreamer']);
    assert.equal(await gstreamer.close(), 0);
    const left = (await call.request('GET', `/media/room/${encodeURIComponent(room)}`)).data.peers;
    assert.deepEqual(left.map(({ peerId }) => peerId), ['bob'], 'who deletes their session has left');
  });
}

scenario('GStreamer plays by WHEP what mediasoup-client publishes', async (call) => {
  const room = call.room();
  const bob = await call.peer('bob', { room });
  await bob.publish({ codec: 'VP8' });
  const lines = [{ kind: 'video', codec: 'VP8' }, { kind: 'audio', codec: 'OPUS' }];
  const gstreamer = await call.gstreamer('gstreamer', { room, play: 'bob', lines });
  await until('GStreamer shows bob', 15_000, () => gstreamer.pictures.length > 0);
  const from = Date.now();
  await until('GStreamer shows 20 pictures more', 8_000, () => gstreamer.pictures.filter(({ at }) => at >= from).length >= 20);
  const shown = gstreamer.pictures.filter(({ at }) => at >= from);
  for (const { source } of shown) assert.equal(source, bob.source);
  const { advance, backward } = watched(shown, from, Date.now());
  assert.ok(advance >= 19 && backward === 0, `pictures in order: ${advance} on, ${backward} times back`);
  await until('GStreamer hears the tone of bob', 8_000, () =>
    gstreamer.pitches.some((pitch) => Math.abs(pitch - (400 + bob.source * 200)) < 60));
  assert.equal(await gstreamer.close(), 0);
});
