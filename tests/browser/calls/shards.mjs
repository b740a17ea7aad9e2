// One room on both shards of a node: who publishes on one of them is seen and heard on the other, as on the same one.

import assert from 'node:assert/strict';
import { PICTURE_MS, pausesAndResumes } from '../harness/prompt.mjs';
import { pause, timedScenario, until } from '../harness/stage.mjs';

/** More transports than one shard keeps of a room while the other has nothing to do. */
const CROWD_MAX = 100;
/** Transports that one peer may have. */
const EACH = 8;
/** A shard less busy than this takes a room, and more of a room that it has. */
const AT_REST = 0.1;
const AT_REST_MS = 20_000;
/** Shards report every second. */
const REPORTED_MS = 10_000;
/** Longer than from one report to the next. */
const NEXT_REPORT_MS = 1_200;
/** The browser sends what it believes its way to carry; on a busy machine it takes its time to believe. */
const LARGEST_MS = 30_000;
/** Of one camera and one microphone. */
const PRODUCERS = 2;

/** A room that has outgrown a shard: alice has both her transports on one, bob and carol theirs on the other. */
class Spread {
  constructor(call) {
    this.call = call;
    this.name = call.room();
    this.route = encodeURIComponent(this.name);
  }

  static async over(call) {
    const room = new Spread(call);
    call.peers.push({ close: () => room.delete() });
    await until('the shards are at rest', AT_REST_MS, async () => {
      return (await call.shards()).every(({ busy }) => busy < AT_REST);
    });
    const names = ['alice', 'bob', 'carol'];
    const [alice, bob, carol] = await Promise.all(names.map((name) => call.peer(name, { room: room.name })));
    Object.assign(room, { alice, bob, carol });
    await room.#enters(alice);
    [room.home] = await room.shardsOf('alice');
    room.away = 1 - room.home;
    await room.#fill();
    await room.#enters(bob);
    await room.#enters(carol);
    for (const [name, shard] of [['alice', room.home], ['bob', room.away], ['carol', room.away]]) {
      assert.deepEqual(await room.shardsOf(name), [shard, shard], `both transports of ${name} are on shard ${shard}`);
    }
    return room;
  }

  /** The transports are made before any media flows, so that no measured load has a say in where. */
  async #enters(peer) {
    for (const direction of ['send', 'recv']) await peer.ask('open', direction);
  }

  /** Peers that never connect join, until one is sent to the other shard; the next ones follow it there. */
  async #fill() {
    for (let crowd = 0; ; crowd += 1) {
      assert.ok(crowd < CROWD_MAX, 'a big room is spread over shards');
      const name = `idle ${Math.floor(crowd / EACH)}`;
      const body = { peerId: name, direction: 'recv' };
      assert.equal((await this.call.request('POST', `/media/transport/${this.route}`, body)).status, 201);
      if ((await this.shardsOf(name)).includes(this.away)) return;
    }
  }

  async shardsOf(name) {
    const { data } = await this.call.request('GET', `/media/room/${this.route}`);
    return data.peers.find(({ peerId }) => peerId === name).transports.map(({ shard }) => shard);
  }

  delete() {
    return this.call.request('DELETE', `/media/room/${this.route}`);
  }

  /** It is deleted, and nothing of it is left on any shard. */
  async ends() {
    assert.equal((await this.delete()).status, 200);
    await until('nothing is left on any shard', REPORTED_MS, async () => {
      return (await this.call.shards()).every(({ mirrors, streams, producers, consumers, transports, ringBytes }) => {
        return [mirrors, streams, producers, consumers, transports, ringBytes].every((left) => left === 0);
      });
    });
  }

  /** The shards have so many mirrors, at home and away. */
  mirrors({ home, away }) {
    return until(`${home} mirrors at home and ${away} on the other shard`, REPORTED_MS, async () => {
      const mirrors = await this.call.metric('mirrors');
      return mirrors[this.home] === home && mirrors[this.away] === away;
    });
  }

  /** Media goes over from a shard to the other one. */
  async relays(from) {
    const [out, into] = await this.#relayed(from);
    await until(`shard ${from} relays`, REPORTED_MS, async () => {
      const [outNow, intoNow] = await this.#relayed(from);
      return outNow > out && intoNow > into;
    });
  }

  /** Nothing goes over from that shard any more. */
  async relaysNothing(from) {
    await until(`shard ${from} relays nothing`, REPORTED_MS, async () => {
      const [before] = await this.#relayed(from);
      await pause(NEXT_REPORT_MS);
      return (await this.#relayed(from))[0] === before;
    });
  }

  async #relayed(from) {
    const [out, into] = [await this.call.metric('relayed_out_total'), await this.call.metric('relayed_in_total')];
    return [out[from], into[1 - from]];
  }
}

/** One who has not followed consumes what `other` publishes, and sees it within a second. */
async function comesLate(call, peer, other) {
  const published = (await peer.ask('producers')).filter(({ peerId }) => peerId === other.name);
  assert.equal(published.length, PRODUCERS);
  await Promise.all(published.map((entry) => peer.ask('consume', entry)));
  const { afterMs } = await peer.sees(other);
  call.note(`first picture ${afterMs} ms after consume`);
  assert.ok(afterMs <= PICTURE_MS, `a first picture ${afterMs} ms after consume`);
  await Promise.all([peer.seesMotionOf(other, { seconds: 1 }), peer.hears(other)]);
}

/** Each sees the other move and hears its tone. */
async function seeAndHear(one, other) {
  const [there, back] = [one.seesMotionOf(other, { seconds: 1 }), other.seesMotionOf(one, { seconds: 1 })];
  await Promise.all([there, back, one.hears(other), other.hears(one)]);
}

/** Its pictures are decoded, and more of them all the time. */
async function decodes(peer, other) {
  const decoded = async () => (await peer.consumerStats(other, 'inbound-rtp'))[0].framesDecoded;
  const before = await decoded();
  await until(`${peer.name} decodes more of ${other.name}`, REPORTED_MS, async () => (await decoded()) > before);
}

/** Closing what `other` publishes ends it for `peer`, whose consumers are gone with it. */
async function endsFor(call, peer, other) {
  const consumers = [await peer.consumerOf(other), await peer.consumerOf(other, 'audio')];
  for (const producer of [other.video, other.audio]) {
    assert.equal((await call.request('DELETE', `/media/producer/${producer}`)).status, 200);
  }
  const listed = (await peer.ask('producers')).filter(({ peerId }) => peerId === other.name);
  assert.deepEqual(listed, [], `nothing of ${other.name} is listed`);
  for (const consumer of consumers) {
    const { status, code } = await call.request('POST', `/media/consumer/${consumer}/resume`, {});
    assert.deepEqual([status, code], [404, 'consumer_not_found']);
  }
  await pause(500);
  assert.equal((await peer.watch(other, 0.8)).pictures, 0, `no picture of ${other.name} comes any more`);
}

timedScenario('a call across shards is as one on one shard: both ways, late, through pauses, to its end', async (call) => {
  const room = await Spread.over(call);
  const { alice, bob, carol } = room;
  await Promise.all([alice.publish({ codec: 'VP8' }), bob.publish({ codec: 'VP8' })]);
  await Promise.all([alice.follow(), bob.follow()]);
  await seeAndHear(alice, bob);
  const crossed = [room.relays(room.home), room.relays(room.away), decodes(alice, bob), decodes(bob, alice)];
  await Promise.all([comesLate(call, carol, alice), ...crossed]);
  // Two who watch on one shard share what comes over.
  const mirrored = room.mirrors({ home: PRODUCERS, away: PRODUCERS });
  const id = await bob.consumerOf(alice);
  await Promise.all([mirrored, pausesAndResumes(call, { alice, bob, of: 'consumer', id })]);
  await pausesAndResumes(call, { alice, bob, of: 'producer', id: alice.video });
  await endsFor(call, bob, alice);
  await Promise.all([room.mirrors({ home: PRODUCERS, away: 0 }), alice.seesMotionOf(bob, { seconds: 1 })]);
  await bob.leave();
  await room.mirrors({ home: 0, away: 0 });
  await room.ends();
});

timedScenario('a simulcast camera of three sizes is seen on the other shard at its largest, also late', async (call) => {
  const room = await Spread.over(call);
  const { alice, bob, carol } = room;
  await alice.publish({ codec: 'VP8', layers: 'simulcast', fps: 15, width: 960, height: 540 });
  await bob.follow();
  await Promise.all([bob.seesMotionOf(alice, { picturesPerSecond: 4 }), bob.hears(alice)]);
  await until('all three sizes are sent, and bob sees the largest', LARGEST_MS, async () => {
    const sent = (await alice.producerStats('outbound-rtp')).filter(({ framesSent }) => framesSent > 0);
    return sent.length === 3 && (await bob.shown(alice)).at(-1).width === 960;
  });
  const mirrored = room.mirrors({ home: 0, away: PRODUCERS });
  await Promise.all([comesLate(call, carol, alice), room.relays(room.home), mirrored]);
  await pausesAndResumes(call, { alice, bob, of: 'consumer', id: await bob.consumerOf(alice) });
  const { damaged, shown } = await bob.ask('shown', await bob.consumerOf(alice));
  call.note(`sizes seen: ${[...new Set(shown.map(({ width, height }) => `${width}x${height}`))].join(', ')}`);
  assert.ok(damaged <= shown.length / 50, `${damaged} of ${shown.length} pictures damaged`);
  await Promise.all([bob.leave(), carol.leave()]);
  await room.relaysNothing(room.home);
  await room.ends();
});

timedScenario('a call across shards needs no steering by the kernel', async (call) => {
  assert.deepEqual((await call.shards()).map(({ steering }) => steering), [false, false]);
  const room = await Spread.over(call);
  const { alice, bob, carol } = room;
  await Promise.all([alice.publish({ codec: 'VP8' }), bob.publish({ codec: 'VP8' })]);
  await Promise.all([alice.follow(), bob.follow()]);
  await seeAndHear(alice, bob);
  await Promise.all([comesLate(call, carol, alice), room.relays(room.home), room.relays(room.away)]);
  await room.ends();
}, ['--steer', 'off']);
