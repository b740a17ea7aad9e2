// How soon a picture is there: for one who comes late, and after a pause.

import assert from 'node:assert/strict';
import { pause, scenario } from '../harness/stage.mjs';

const PICTURE_MS = 1_000;

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

/** Pauses by one route, sees that the picture stands, resumes by the other, and sees it move within a second. */
async function pausesAndResumes(call, { bob, alice, of, id }) {
  await bob.ask('request', 'POST', `/media/${of}/${id}/pause`, {});
  await pause(400);
  const still = await bob.watch(alice, 0.8);
  assert.equal(still.pictures, 0, `nothing moves while the ${of} is paused`);
  const since = await bob.page.call('now');
  await bob.ask('request', 'POST', `/media/${of}/${id}/resume`, {});
  const { afterMs } = await bob.sees(alice, { since });
  call.note(`picture ${afterMs} ms after the ${of} resumed`);
  assert.ok(afterMs <= PICTURE_MS, `a picture ${afterMs} ms after resume`);
  await bob.seesMotionOf(alice, { seconds: 1 });
}

scenario('who comes late sees a picture within a second of consuming', async (call) => {
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

scenario('a resumed consumer shows a picture within a second', async (call) => {
  const { alice, bob } = await watching(call);
  await pausesAndResumes(call, { alice, bob, of: 'consumer', id: await bob.consumerOf(alice) });
});

scenario('a resumed producer shows a picture within a second', async (call) => {
  const { alice, bob } = await watching(call);
  await pausesAndResumes(call, { alice, bob, of: 'producer', id: alice.video });
});
