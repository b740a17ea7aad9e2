// Publishers that send several qualities at once: each receiver gets one clean stream.

import assert from 'node:assert/strict';
import { scenario } from '../harness/stage.mjs';

const LAYERED = [
  { title: 'a simulcast VP8 camera of three sizes', codec: 'VP8', layers: 'simulcast', width: 960, height: 540 },
  { title: 'a simulcast H264 camera of several sizes', codec: 'H264', layers: 'simulcast', width: 640, height: 360 },
  { title: 'a scalable VP9 camera (L3T3_KEY)', codec: 'VP9', layers: 'L3T3_KEY', width: 640, height: 360, maxBitrate: 1_500_000 },
];

for (const { title, ...picture } of LAYERED) {
  scenario(`${title} is seen without a damaged picture`, async (call) => {
    const room = call.room();
    const alice = await call.peer('alice', { room });
    await alice.publish({ fps: 15, ...picture });
    const bob = await call.peer('bob', { room });
    await bob.follow();
    await bob.seesMotionOf(alice, { seconds: 6, picturesPerSecond: 4 });
    const { damaged, shown } = await bob.ask('shown', await bob.consumerOf(alice));
    const sizes = [...new Set(shown.map(({ width, height }) => `${width}x${height}`))];
    call.note(`sizes seen: ${sizes.join(', ')}`);
    assert.ok(damaged <= shown.length / 50, `${damaged} of ${shown.length} pictures damaged`);
    const layers = await alice.producerStats('outbound-rtp');
    const sent = layers.filter(({ packetsSent }) => packetsSent > 0).length;
    if (picture.layers === 'simulcast') assert.ok(sent >= 2, `${sent} encodings are really sent`);
  });
}
