// More than two.

import { timedScenario } from '../harness/stage.mjs';

timedScenario('four peers all see each other: twelve video consumers all advance', async (call) => {
  const room = call.room();
  const peers = [];
  for (const name of ['alice', 'bob', 'carol', 'dave']) peers.push(await call.peer(name, { room }));
  await Promise.all(peers.map((peer) => peer.publish({ codec: 'VP8', fps: 12, width: 160, height: 120 })));
  await Promise.all(peers.map((peer) => peer.follow()));
  const pairs = peers.flatMap((peer) => peers.filter((other) => other !== peer).map((other) => [peer, other]));
  // Four cameras and twelve decoders share this machine: what counts is that none of them stands still.
  await Promise.all(pairs.map(([peer, other]) => peer.seesMotionOf(other, { seconds: 4, picturesPerSecond: 2 })));
});
