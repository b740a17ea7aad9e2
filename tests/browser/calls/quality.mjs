// What the browser itself says of the call in `getStats`.

import assert from 'node:assert/strict';
import { median, pause, timedScenario, until } from '../harness/stage.mjs';

const LIP_SYNC_MS = 80;

async function onTheAir(call, picture = {}) {
  const room = call.room();
  const alice = await call.peer('alice', { room });
  await alice.publish({ codec: 'VP8', ...picture });
  const bob = await call.peer('bob', { room });
  await bob.follow();
  await bob.sees(alice);
  await bob.hears(alice);
  return { alice, bob };
}

/** Milliseconds by which the sound played out at this moment is ahead of the picture; `undefined` before it is known. */
async function soundAhead(bob, alice) {
  const [[sound], [picture]] = await Promise.all([
    bob.consumerStats(alice, 'inbound-rtp', 'audio'), bob.consumerStats(alice, 'inbound-rtp', 'video'),
  ]);
  const [heard, seen] = [sound.estimatedPlayoutTimestamp, picture.estimatedPlayoutTimestamp];
  return heard && seen ? heard - seen : undefined;
}

timedScenario('sound and picture stay within 80 ms of each other', async (call) => {
  const { alice, bob } = await onTheAir(call);
  await until('both playout times are known', 20_000, async () => (await soundAhead(bob, alice)) !== undefined);
  const samples = [];
  for (const end = Date.now() + 6_000; Date.now() < end; await pause(150)) {
    const ahead = await soundAhead(bob, alice);
    if (ahead !== undefined) samples.push(ahead);
  }
  call.note(`median ${Math.round(median(samples))} ms of ${samples.length} samples`);
  assert.ok(Math.abs(median(samples)) <= LIP_SYNC_MS, `sound is ${median(samples)} ms ahead of the picture`);
});

timedScenario('round-trip times are known to publishers and receivers', async (call) => {
  const { alice, bob } = await onTheAir(call);
  for (const id of [alice.video, alice.audio]) {
    const report = await until('the publisher hears how its stream arrives', 10_000, async () => {
      const rows = await alice.producerStats('remote-inbound-rtp', id);
      return rows.find(({ roundTripTime }) => roundTripTime !== undefined);
    });
    assert.ok(report.roundTripTime >= 0 && report.roundTripTime < 0.5, `${report.roundTripTime} s`);
    assert.ok(report.fractionLost <= 0.05, `${report.fractionLost} of a loopback stream lost`);
  }
  for (const [peer, direction] of [[alice, 'send'], [bob, 'recv']]) {
    // Chromium counts whole milliseconds: an answer within half of one reads 0.
    const { currentRoundTripTime, responsesReceived } = await peer.pair(direction);
    assert.ok(responsesReceived > 0, `${peer.name}: the server answers checks`);
    assert.ok(currentRoundTripTime >= 0 && currentRoundTripTime < 0.5, `${peer.name}: ${currentRoundTripTime} s`);
  }
});

const ENOUGH_BPS = 2_000_000;
const ENOUGH_MS = 5_000;

/** Milliseconds from the start of a 720p camera to an estimate of 2 Mbit/s. */
async function timeToEnough(call) {
  const alice = await call.peer('alice', { room: call.room() });
  const picture = { codec: 'VP8', width: 1280, height: 720, fps: 24, noise: 1, maxBitrate: 3_000_000 };
  await alice.publishVideo(picture);
  const from = Date.now();
  await until('the browser dares to send 2 Mbit/s', 3 * ENOUGH_MS, async () => {
    const pair = await alice.pair('send');
    return pair?.availableOutgoingBitrate > ENOUGH_BPS;
  });
  const took = Date.now() - from;
  await alice.close();
  return took;
}

timedScenario('the publisher’s own estimate passes 2 Mbit/s within 5 s', async (call) => {
  const times = [];
  for (let run = 0; run < 3; run += 1) times.push(await timeToEnough(call));
  call.note(`${times.join(', ')} ms`);
  assert.ok(median(times) <= ENOUGH_MS, `median of ${times.join(', ')} ms`);
});
