// WHIP and WHEP with a bare browser, against each other and against mediasoup-client.

import assert from 'node:assert/strict';
import { scenario, timedScenario, until } from '../harness/stage.mjs';

const MOTION = { seconds: 2, picturesPerSecond: 4 };

timedScenario('a WHIP publisher is seen and heard through mediasoup-client, and the other way round by WHEP', async (call) => {
  const room = call.room();
  const alice = await call.bare('alice', { room });
  await alice.ask('publish', { source: alice.source });
  const bob = await call.peer('bob', { room });
  await bob.publish({ codec: 'VP8' });
  await bob.follow();
  assert.deepEqual(await alice.ask('play', { of: 'bob' }), ['recvonly', 'recvonly']);
  await Promise.all([alice.seesMotionOf(bob, MOTION), bob.seesMotionOf(alice, MOTION)]);
  await Promise.all([alice.hears(bob), bob.hears(alice)]);
});

for (const codec of ['H264', 'VP9']) {
  timedScenario(`a ${codec} camera of mediasoup-client plays by WHEP in the viewer's own numbers`, async (call) => {
    const room = call.room();
    const bob = await call.peer('bob', { room });
    await bob.publishVideo({ codec });
    const alice = await call.bare('alice', { room });
    await alice.ask('play', { of: 'bob', kinds: ['video'] });
    await alice.seesMotionOf(bob, MOTION);
  });
}

timedScenario('a WHIP simulcast is seen in its largest size without a damaged picture', async (call) => {
  const room = call.room();
  const alice = await call.bare('alice', { room });
  await alice.ask('publish', { source: alice.source, simulcast: true, width: 960, height: 540, fps: 15 });
  const listed = (await call.request('GET', `/media/room/${encodeURIComponent(room)}/producers`)).data.producers;
  assert.deepEqual(listed.map(({ kind, type }) => [kind, type]), [['audio', 'simple'], ['video', 'simulcast']]);
  const bob = await call.peer('bob', { room });
  await bob.follow();
  await bob.seesMotionOf(alice, { seconds: 3, picturesPerSecond: 4 });
  await until('bob sees the largest', 30_000, async () => (await bob.shown(alice)).at(-1)?.width === 960);
  const { damaged, shown } = await bob.ask('shown', await bob.consumerOf(alice));
  assert.ok(damaged <= shown.length / 50, `${damaged} of ${shown.length} pictures damaged`);
});

for (const codec of ['VP9', 'AV1']) {
  timedScenario(`of a single ${codec} stream by WHIP, whose three layers no SDP tells, each viewer has the layer it asks for`, async (call) => {
    const room = call.room();
    const alice = await call.bare('alice', { room });
    // Of smaller pictures Chromium sends fewer layers.
    const size = { width: 960, height: 540, fps: 12 };
    await alice.ask('publish', { source: alice.source, codec, scalabilityMode: 'L3T3_KEY', maxBitrate: 1_500_000, ...size });
    const [bob, carol] = [await call.peer('bob', { room }), await call.bare('carol', { room })];
    await bob.follow();
    await carol.ask('play', { of: 'alice' });
    const seen = async (peer) => (await peer.shown(alice)).at(-1)?.width;
    const sees = (peer, width) => until(`${peer.name} sees ${width} pixels`, 30_000, async () => await seen(peer) === width);
    await Promise.all([sees(bob, 960), sees(carol, 960)]);
    const id = await bob.consumerOf(alice);
    for (const [spatialLayer, width] of [[0, 240], [1, 480], [2, 960]]) {
      const { preferredLayers } = await bob.ask('request', 'PUT', `/media/consumer/${id}/layers`, { spatialLayer });
      assert.deepEqual(preferredLayers, { spatialLayer, temporalLayer: 2 });
      await sees(bob, width);
      await sees(carol, 960);
    }
    for (const peer of [bob, carol]) {
      const { damaged, shown } = await peer.ask('shown', await peer.consumerOf(alice));
      assert.ok(damaged <= shown.length / 50, `${peer.name}: ${damaged} of ${shown.length} pictures damaged`);
    }
  });
}

timedScenario('Firefox publishes and plays by WHIP and WHEP, and so does Chromium at the other end', async (call) => {
  const room = call.room();
  const [alice, bob] = [await call.bare('alice', { room, on: 'firefox' }), await call.bare('bob', { room })];
  for (const peer of [alice, bob]) await peer.ask('publish', { source: peer.source });
  for (const [peer, of] of [[alice, 'bob'], [bob, 'alice']]) {
    assert.deepEqual(await peer.ask('play', { of }), ['recvonly', 'recvonly']);
  }
  await Promise.all([alice.seesMotionOf(bob, MOTION), bob.seesMotionOf(alice, MOTION)]);
  await Promise.all([alice.hears(bob), bob.hears(alice)]);
  for (const peer of [alice, bob]) for (const way of ['recv', 'send']) assert.equal(await peer.ask('end', way), 200);
  assert.equal((await call.request('GET', `/media/room/${encodeURIComponent(room)}`)).status, 404, 'the room has ended');
});

timedScenario('PATCH restarts ICE of a publisher and of a viewer, and media goes on', async (call) => {
  const room = call.room();
  const alice = await call.bare('alice', { room });
  await alice.ask('publish', { source: alice.source });
  const bob = await call.bare('bob', { room });
  await bob.ask('play', { of: 'alice' });
  await bob.seesMotionOf(alice, MOTION);
  for (const [peer, direction] of [[alice, 'send'], [bob, 'recv']]) {
    const told = await peer.ask('restartIce', direction);
    assert.notEqual(told.tag, told.before);
    assert.equal(told.tag, `"${told.usernameFragment}"`);
    assert.deepEqual([told.stale, told.fresh, told.none], [412, 204, 428]);
    await until('the pair in use is one of the new ICE session', 10_000, async () => {
      const rows = await peer.ask('transportStats', direction);
      const transport = rows.find(({ type }) => type === 'transport');
      const pair = rows.find(({ id }) => id === transport.selectedCandidatePairId);
      return rows.find(({ id }) => id === pair?.remoteCandidateId)?.usernameFragment === told.usernameFragment;
    });
    await bob.seesMotionOf(alice, MOTION);
  }
});

scenario('WHEP plays the room in the order of its producers, and what is left over is inactive', async (call) => {
  const room = call.room();
  const [alice, bob] = [await call.bare('alice', { room }), await call.bare('bob', { room })];
  await alice.ask('publish', { source: alice.source });
  await bob.ask('publish', { source: bob.source });
  const carol = await call.bare('carol', { room });
  const kinds = ['video', 'audio', 'video', 'video', 'audio'];
  const directions = await carol.ask('play', { kinds });
  assert.deepEqual(directions, ['recvonly', 'recvonly', 'recvonly', 'inactive', 'recvonly']);
  for (const [mid, { source }] of [['0', alice], ['2', bob]]) {
    await until(`line ${mid} shows source ${source}`, 10_000, async () => {
      const { shown } = await carol.ask('shown', mid);
      return shown.length > 5 && shown.every((picture) => picture.source === source);
    });
  }
  assert.equal(await alice.ask('end', 'send'), 200);
  const { peers } = (await call.request('GET', `/media/room/${encodeURIComponent(room)}`)).data;
  assert.deepEqual(peers.map(({ peerId }) => peerId), ['bob', 'carol'], 'who ends their last session has left');
});

scenario('the player of a viewer whom nothing is left to play is told so, and the room ends', async (call) => {
  const room = call.room();
  const [alice, bob] = [await call.bare('alice', { room }), await call.bare('bob', { room })];
  await alice.ask('publish', { source: alice.source });
  await bob.ask('play', { of: 'alice' });
  const dtls = async () => (await bob.ask('transportStats', 'recv')).find(({ type }) => type === 'transport').dtlsState;
  await until('bob is connected', 10_000, async () => await dtls() === 'connected');
  assert.equal(await alice.ask('end', 'send'), 200);
  assert.equal(await dtls(), 'connected', 'alice may be back at once');
  await until('bob is told', 30_000, async () => await dtls() === 'closed');
  assert.equal((await call.request('GET', `/media/room/${encodeURIComponent(room)}`)).status, 404, 'nobody is left');
});
