// Who speaks, how loud, and sound with redundancy.

import assert from 'node:assert/strict';
import { pause, scenario, until } from '../harness/stage.mjs';

/** A speaker takes over within a second; a busy machine needs some more until it is heard. */
const TAKES_OVER_MS = 15_000;

scenario('the room is told who speaks, how loud, and that nobody does', async (call) => {
  const room = call.room();
  const alice = await call.peer('alice', { room });
  const bob = await call.peer('bob', { room });
  await Promise.all([alice.publishAudio(), bob.publishAudio()]);
  const events = await call.events(room);
  const heard = () => events.filter(({ type }) => type === 'audio-levels').at(-1)?.data.levels;
  for (const [silent, speaks] of [[alice, bob], [bob, alice]]) {
    await silent.ask('pauseSending', silent.audio);
    await speaks.ask('resumeSending', speaks.audio);
    await until(`${speaks.name} is heard alone, and loud`, TAKES_OVER_MS, () => {
      const levels = heard() ?? [];
      const [{ peerId, producerId, level }] = levels.length === 1 ? levels : [{}];
      return peerId === speaks.name && producerId === speaks.audio && level > -60 && level < 0;
    });
    await until(`${speaks.name} is the speaker`, TAKES_OVER_MS, async () => {
      const { data } = await call.request('GET', `/media/room/${encodeURIComponent(room)}`);
      return data.activeSpeaker === speaks.audio;
    });
  }
  const told = events.filter(({ type }) => type === 'active-speaker').at(-1);
  assert.deepEqual(told.data, { producerId: alice.audio, peerId: 'alice' });
  await alice.ask('pauseSending', alice.audio);
  await until('silence is told', TAKES_OVER_MS, () => heard().length === 0);
});

scenario('RED reaches who knows it, and others hear the Opus inside', async (call) => {
  const room = call.room();
  const alice = await call.peer('alice', { room });
  await alice.publishAudio({ redundant: true });
  const bob = await call.peer('bob', { room });
  const carol = await call.peer('carol', { room, knowsRed: false });
  await Promise.all([bob.follow(), carol.follow()]);
  await Promise.all([bob.hears(alice), carol.hears(alice)]);
  // Browsers name the codec inside in their statistics, so sizes tell: a packet with a copy has two blocks of Opus. All
  // three are measured over the same time: the first packets of a sender carry no copy.
  const totals = async () => {
    const [sent, ...got] = await Promise.all([
      alice.ask('producerStats', alice.audio),
      ...[bob, carol].map(async (peer) => peer.ask('consumerStats', await peer.consumerOf(alice, 'audio'))),
    ]);
    const { bytesSent: bytes, packetsSent: packets } = sent.find(({ type }) => type === 'outbound-rtp');
    const inbound = got.map((rows) => rows.find(({ type }) => type === 'inbound-rtp'));
    return [{ bytes, packets }, ...inbound.map((row) => ({ bytes: row.bytesReceived, packets: row.packetsReceived }))];
  };
  const before = await totals();
  await pause(2_000);
  const after = await totals();
  const [sent, redundant, plain] = after.map(({ bytes, packets }, at) => {
    const more = packets - before[at].packets;
    assert.ok(more > 20, `${more} packets are enough to tell`);
    return (bytes - before[at].bytes) / more;
  });
  call.note(`bytes of a packet: ${sent} from alice, ${redundant} to bob, ${plain} to carol`);
  assert.ok(Math.abs(redundant - sent) < sent / 4, 'bob gets what alice sends');
  assert.ok(plain < redundant * 0.7, 'carol gets the newest block alone');
});
