// The last scenario: the server is told to end in the middle of a call, which goes on, and told again.

import assert from 'node:assert/strict';
import { scenarioOfTheEnd, until } from '../harness/stage.mjs';

scenarioOfTheEnd('the first SIGTERM leaves a call alone, the second ends the server cleanly', async (call) => {
  const room = call.room();
  const alice = await call.peer('alice', { room });
  const bob = await call.peer('bob', { room });
  await alice.publish({ codec: 'VP8' });
  await bob.follow();
  await bob.sees(alice);
  call.server.child.kill('SIGTERM');
  await until('no new room begins', 5_000, async () => (await fetch(`${call.server.api}/readyz`)).status === 503);
  const carol = await call.peer('carol', { room });
  await carol.follow();
  await carol.sees(alice);
  await bob.sees(alice);
  const startedAt = Date.now();
  assert.deepEqual(await call.server.stop('SIGTERM'), { code: 0, signal: null });
  call.note(`stopped in ${Date.now() - startedAt} ms`);
});
