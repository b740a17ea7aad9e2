// Publishers that send several qualities at once: each receiver gets one clean stream.

import assert from 'node:assert/strict';
import { pause, scenario, until } from '../harness/stage.mjs';

/** Chromium sends three sizes of a picture from 960x540 on, and fewer of smaller ones, whatever it is asked for. */
const LAYERED = [
  { title: 'a simulcast VP8 camera of three sizes', codec: 'VP8', layers: 'simulcast', width: 960, height: 540 },
  { title: 'a simulcast H264 camera of three sizes', codec: 'H264', layers: 'simulcast', width: 960, height: 540 },
  { title: 'a scalable VP9 camera (L3T3_KEY)', codec: 'VP9', layers: 'L3T3_KEY', width: 640, height: 360, maxBitrate: 1_500_000 },
];

/** How far the encodings of a camera are, and how large their pictures. */
async function encodings(alice) {
  const rows = await alice.producerStats('outbound-rtp');
  return rows.map(({ rid, active, framesSent, frameWidth, frameHeight, qualityLimitationReason: limit }) => {
    const size = frameWidth ? `${frameWidth}x${frameHeight}` : 'nothing';
    return { rid, active, framesSent: framesSent ?? 0, pixels: (frameWidth ?? 0) * (frameHeight ?? 0), size, limit };
  });
}

/** The encodings that are sent at present, seen over a second, largest first. */
async function flowing(alice) {
  const before = new Map((await encodings(alice)).map(({ rid, framesSent }) => [rid, framesSent]));
  await pause(1_000);
  const rows = await encodings(alice);
  return rows
    .filter(({ rid, framesSent }) => framesSent > (before.get(rid) ?? 0))
    .sort((one, other) => other.pixels - one.pixels);
}

/** The browser sends what it believes its way to carry; on a busy machine it takes its time to believe. */
const LARGEST_MS = 30_000;

for (const { title, ...picture } of LAYERED) {
  scenario(`${title} is seen without a damaged picture`, async (call) => {
    const room = call.room();
    const alice = await call.peer('alice', { room });
    await alice.publish({ fps: 15, ...picture });
    const bob = await call.peer('bob', { room });
    await bob.follow();
    await bob.seesMotionOf(alice, { seconds: 6, picturesPerSecond: 4 });
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
