// Firefox with Chromium, and Firefox with Firefox. (Debian's Firefox has no H264 encoder; VP8 and Opus are common ground.)

import { timedScenario } from '../harness/stage.mjs';

const PAIRS = [['firefox', 'chromium'], ['firefox', 'firefox']];

for (const [one, other] of PAIRS) {
  timedScenario(`VP8 and Opus play both ways between ${one} and ${other}`, async (call) => {
    const room = call.room();
    const alice = await call.peer('alice', { room, on: one });
    const bob = await call.peer('bob', { room, on: other });
    await Promise.all([alice.publish({ codec: 'VP8' }), bob.publish({ codec: 'VP8' })]);
    await Promise.all([alice.follow(), bob.follow()]);
    const watch = { seconds: 3, picturesPerSecond: 4 };
    await Promise.all([alice.seesMotionOf(bob, watch), bob.seesMotionOf(alice, watch)]);
    await Promise.all([alice.hears(bob), bob.hears(alice)]);
  });
}
