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

/** The size of the largest encoding that is sent at present, seen over a second. */
async function largestSent(alice) {
  const before = await encodings(alice);
  await pause(1_000);
  const flowing = (await encodings(alice))
    .filter(({ rid, framesSent }) => framesSent > (before.find((row) => row.rid === rid)?.framesSent ?? 0));
  return flowing.sort((one, other) => other.pixels - one.pixels)[0]?.size;
}

const LARGEST_MS = 20_000;

for (const { title, ...picture } of LAYERED) {
  scenario(`${title} is seen without a damaged picture`, async (call) => {
    const room = call.room();
    const alice = await call.peer('alice', { room });
    await alice.publish({ fps: 15, ...picture });
    const bob = await call.peer('bob', { room });
    await bob.follow();
    await bob.seesMotionOf(alice, { seconds: 6, picturesPerSecond: 4 });
    await until('bob sees the largest picture that alice sends', LARGEST_MS, async () => {
      const [size, { width, height } = {}] = [await largestSent(alice), (await bob.shown(alice)).at(-1)];
      return size === `${width}x${height}`;
    });
    const { damaged, shown } = await bob.ask('shown', await bob.consumerOf(alice));
    const sizes = [...new Set(shown.map(({ width, height }) => `${width}x${height}`))];
    call.note(`sizes seen: ${sizes.join(', ')}`);
    assert.ok(damaged <= shown.length / 50, `${damaged} of ${shown.length} pictures damaged`);
    const layers = await encodings(alice);
    for (const { rid = '-', active, size, framesSent, limit } of layers) {
      call.note(`encoding ${rid}: ${active ? 'active' : 'inactive'}, ${size}, ${framesSent} pictures, limited by ${limit}`);
    }
    const sent = layers.filter(({ framesSent }) => framesSent > 0).length;
    if (picture.layers === 'simulcast') assert.equal(sent, 3, 'encodings really sent');
  });
}
