// The last scenario: the server ends when it is told to, in the middle of a call.

import assert from 'node:assert/strict';
import { scenarioOfTheEnd } from '../harness/stage.mjs';

scenarioOfTheEnd('SIGTERM ends the server cleanly within two seconds, in the middle of a call', async (call) => {
  const room = call.room();
  const alice = await call.peer('alice', { room });
  const bob = await call.peer('bob', { room });
  await alice.publish({ codec: 'VP8' });
  await bob.follow();
  await bob.sees(alice);
  const startedAt = Date.now();
  assert.deepEqual(await call.server.stop(), { code: 0, signal: null });
  call.note(`stopped in ${Date.now() - startedAt} ms`);
});
