// In place of the service that is replaced: its environment file and nothing else, and pages with mediasoup-client that
// poll for producers as they did there.

import assert from 'node:assert/strict';
import { scenarioInPlace, until } from '../harness/stage.mjs';

scenarioInPlace('under the replaced service\'s environment file its pages call each other, and its Swagger page is there', async (call) => {
  const room = call.room();
  const [alice, bob] = [await call.peer('alice', { room }), await call.peer('bob', { room, library: '3.16' })];
  await Promise.all([alice.publish({ codec: 'VP8' }), bob.publish({ codec: 'VP8' })]);
  await Promise.all([alice.follow(), bob.follow()]);
  await Promise.all([alice.seesMotionOf(bob), bob.seesMotionOf(alice)]);
  await Promise.all([alice.hears(bob), bob.hears(alice)]);
  const docs = await call.visit('/swagger/');
  await until('Swagger lists the room\'s route', 20_000, () => docs.evaluate(
    "[...document.querySelectorAll('.opblock-summary-path')].some(({ textContent }) => textContent.replaceAll('\\u200b', '') === '/media/room')"));
  for (const peer of [alice, bob]) assert.equal((await peer.leave()).success, true);
  const { data } = await call.request('GET', `/media/room/${encodeURIComponent(room)}/producers`);
  assert.deepEqual(data, { producers: [] });
});
