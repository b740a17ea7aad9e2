// Two people see and hear each other, codec by codec, with the newest client library and the one of the replaced service.

import assert from 'node:assert/strict';
import { timedScenario } from '../harness/stage.mjs';

/** The registry has no 3.16.4, which the replaced service's pages name; 3.16.5 is the next one that satisfies them. */
const LIBRARIES = { newest: 'mediasoup-client 3.24', '3.16': 'mediasoup-client 3.16' };

for (const [library, title] of Object.entries(LIBRARIES)) {
  for (const codec of ['VP8', 'VP9', 'H264', 'AV1']) {
    timedScenario(`${codec} and Opus play both ways between two peers with ${title}`, async (call) => {
      const room = call.room();
      const alice = await call.peer('alice', { room, library });
      const bob = await call.peer('bob', { room, library });
      await Promise.all([alice.publish({ codec }), bob.publish({ codec })]);
      await Promise.all([alice.follow(), bob.follow()]);
      await Promise.all([alice.seesMotionOf(bob), bob.seesMotionOf(alice), alice.hears(bob), bob.hears(alice)]);
      for (const [peer, other] of [[alice, bob], [bob, alice]]) {
        const { consumers } = await peer.ask('state');
        const codecs = consumers.map((consumer) => consumer.codec.toLowerCase()).sort();
        assert.deepEqual(codecs, ['audio/opus', `video/${codec.toLowerCase()}`]);
        const [inbound] = await peer.consumerStats(other, 'inbound-rtp');
        assert.ok(inbound.framesDecoded > 0, `${peer.name} decodes`);
      }
    });
  }
}
