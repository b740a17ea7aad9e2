// What a publisher's browser says of its encodings.

import { pause } from './stage.mjs';

/** How far the encodings of a camera are, and how large their pictures. */
export async function encodings(alice) {
  const rows = await alice.producerStats('outbound-rtp');
  return rows.map(({ rid, active, framesSent, frameWidth, frameHeight, qualityLimitationReason: limit }) => {
    const size = frameWidth ? `${frameWidth}x${frameHeight}` : 'nothing';
    return { rid, active, framesSent: framesSent ?? 0, pixels: (frameWidth ?? 0) * (frameHeight ?? 0), size, limit };
  });
}

/** The encodings that are sent at present, seen over a second, largest first. */
export async function flowing(alice) {
  const before = new Map((await encodings(alice)).map(({ rid, framesSent }) => [rid, framesSent]));
  await pause(1_000);
  const rows = await encodings(alice);
  return rows
    .filter(({ rid, framesSent }) => framesSent > (before.get(rid) ?? 0))
    .sort((one, other) => other.pixels - one.pixels);
}
