// How a call ends.

import assert from 'node:assert/strict';
import { timedScenario, until } from '../harness/stage.mjs';

const NAMES = ['alice', 'bob'];

async function callOf(call, room) {
  const [alice, bob] = [await call.peer(NAMES[0], { room }), await call.peer(NAMES[1], { room })];
  await Promise.all([alice.publish({ codec: 'VP8' }), bob.publish({ codec: 'VP8' })]);
  await Promise.all([alice.follow(), bob.follow()]);
  await Promise.all([alice.seesMotionOf(bob, { seconds: 1 }), bob.seesMotionOf(alice, { seconds: 1 })]);
  return { alice, bob };
}

timedScenario('who leaves is gone at once, the last one ends the room, and the names are free again', async (call) => {
  const room = call.room();
  const { alice, bob } = await callOf(call, room);
  assert.equal((await bob.ask('producers')).length, 2, 'a picture and a sound of alice');
  assert.equal((await alice.leave()).success, true);
  assert.deepEqual(await bob.ask('producers'), [], 'nothing of alice is listed');
  await bob.seesStandstillOf(alice);
  assert.equal((await bob.leave()).success, true);
  const gone = await call.request('GET', `/media/room/${encodeURIComponent(room)}`);
  assert.deepEqual([gone.status, gone.code], [404, 'room_not_found']);
  const again = await callOf(call, room);
  await Promise.all([again.alice.leave(), again.bob.leave()]);
});

timedScenario('a page that vanishes without a word can come back under its name', async (call) => {
  const room = call.room();
  const { alice, bob } = await callOf(call, room);
  await alice.ask('hangUp');
  const back = await call.peer('alice', { room });
  await back.publish({ codec: 'VP8' });
  await until('only the new picture and sound of alice are listed', 5_000, async () => {
    const listed = (await bob.ask('producers')).map(({ producerId }) => producerId).sort();
    return String(listed) === String([back.video, back.audio].sort());
  });
});
