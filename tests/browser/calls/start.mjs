// How soon a picture is there: for one who comes late, and after a pause.

import assert from 'node:assert/strict';
import { PICTURE_MS, pausesAndResumes } from '../harness/prompt.mjs';
import { pause, timedScenario } from '../harness/stage.mjs';

/** Alice is on the air; bob sees her. */
async function watching(call) {
  const room = call.room();
  const alice = await call.peer('alice', { room });
  await alice.publish({ codec: 'VP8' });
  const bob = await call.peer('bob', { room });
  await bob.follow();
  await bob.seesMotionOf(alice, { seconds: 1 });
  return { alice, bob };
}

timedScenario('who comes late sees a picture within a second of consuming', async (call) => {
  const room = call.room();
  const alice = await call.peer('alice', { room });
  await alice.publish({ codec: 'VP8' });
  await pause(2_500);
  const bob = await call.peer('bob', { room });
  const entry = (await bob.ask('producers')).find(({ kind }) => kind === 'video');
  await bob.ask('consume', entry);
  const { afterMs } = await bob.sees(alice);
  call.note(`first picture ${afterMs} ms after consume`);
  assert.ok(afterMs <= PICTURE_MS, `a first picture ${afterMs} ms after consume`);
});

timedScenario('a resumed consumer shows a picture within a second', async (call) => {
  const { alice, bob } = await watching(call);
  await pausesAndResumes(call, { alice, bob, of: 'consumer', id: await bob.consumerOf(alice) });
});

timedScenario('a resumed producer shows a picture within a second', async (call) => {
  const { alice, bob } = await watching(call);
  await pausesAndResumes(call, { alice, bob, of: 'producer', id: alice.video });
});
