// Publishers that send several qualities at once: each receiver gets one clean stream.

import assert from 'node:assert/strict';
import { encodings, flowing } from '../harness/encodings.mjs';
import { timedScenario, until } from '../harness/stage.mjs';

/** Chromium sends three sizes of a picture from 960x540 on, and fewer of smaller ones, whatever it is asked for. */
const LAYERED = [
  { title: 'a simulcast VP8 camera of three sizes', codec: 'VP8', layers: 'simulcast', width: 960, height: 540 },
  { title: 'a simulcast H264 camera of three sizes', codec: 'H264', layers: 'simulcast', width: 960, height: 540 },
  { title: 'a scalable VP9 camera (L3T3_KEY)', codec: 'VP9', layers: 'L3T3_KEY', width: 640, height: 360, maxBitrate: 1_500_000 },
];

/** The browser sends what it believes its way to carry; on a busy machine it takes its time to believe. */
const LARGEST_MS = 30_000;

for (const { title, ...picture } of LAYERED) {
  timedScenario(`${title} is seen without a damaged picture`, async (call) => {
    const room = call.room();
    const alice = await call.peer('alice', { room });
    await alice.publish({ fps: 15, ...picture });
    const bob = await call.peer('bob', { room });
    await bob.follow();
    await bob.seesMotionOf(alice, { seconds: 3, picturesPerSecond: 4 });
    const count = picture.layers === 'simulcast' ? 3 : 1;
    await until('all sizes are sent, and bob sees the largest', LARGEST_MS, async () => {
      const sent = await flowing(alice);
      const { width, height } = (await bob.shown(alice)).at(-1) ?? {};
      return sent.length === count && sent[0].size === `${width}x${height}`;
    });
    const { damaged, shown } = await bob.ask('shown', await bob.consumerOf(alice));
    const sizes = [...new Set(shown.map(({ width, height }) => `${width}x${height}`))];
    call.note(`sizes seen: ${sizes.join(', ')}`);
    assert.ok(damaged <= shown.length / 50, `${damaged} of ${shown.length} pictures damaged`);
    for (const { rid = '-', active, size, framesSent, limit } of await encodings(alice)) {
      call.note(`encoding ${rid}: ${active ? 'active' : 'inactive'}, ${size}, ${framesSent} pictures, limited by ${limit}`);
    }
  });
}
