// The words the tests are written in: a scenario has rooms, a room has peers, a peer publishes, follows, sees and hears.
// One server for each way to start it and one process of each browser serve all scenarios; every scenario has rooms and
// pages of its own.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Chromium, Firefox } from './browser.mjs';
import { GStreamer } from './gstreamer.mjs';
import { Load, isOverloaded, told } from './machine.mjs';
import { Proxy } from './proxy.mjs';
import { Server } from './server.mjs';
import { Site } from './site.mjs';

const SCENARIO_MS = 90_000;
/** Of a scenario that measures time, while the machine has none to give. */
const ATTEMPTS_MAX = 3;
const LOG_LINES_SHOWN = 120;
/** How long a call may take to stand, where no scenario says otherwise; a loaded machine needs some of it. */
const CALL_STANDS_MS = 10_000;
/** How long what is under way may still be shown after it was paused or has left. */
const STILL_MS = 5_000;
/** Pictures by which a busy publisher's encoder of one size may be behind that of another: a third of a second. */
const LAYERS_APART_MAX = 10;

const shared = {};
const servers = new Map();
const BROWSERS = { chromium: Chromium, firefox: Firefox };

async function browser(name) {
  const last = shared[name];
  const started = await last?.catch(() => undefined);
  // Whoever asked at the same time may have started it meanwhile.
  if (!started?.running && shared[name] === last) shared[name] = BROWSERS[name].start();
  return shared[name];
}

async function server({ key, start }) {
  const last = servers.get(key);
  const started = await last?.catch(() => undefined);
  if (!started?.running && servers.get(key) === last) servers.set(key, start());
  return servers.get(key);
}

async function site() {
  shared.site ??= Site.start();
  return shared.site;
}

after(async () => {
  const started = await Promise.allSettled([shared.chromium, shared.firefox, shared.site]);
  await Promise.allSettled(started.map(({ value }) => value?.close()));
  const running = await Promise.allSettled(servers.values());
  await Promise.allSettled(running.map(({ value }) => value?.stop()));
});

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What needed more than half of its time: a machine that is half as fast would have failed there. */
const late = [];

/** Asks again until `probe` gives something, or fails with the sentence. */
export async function until(sentence, ms, probe) {
  const begun = Date.now();
  for (;;) {
    const found = await probe();
    const took = Date.now() - begun;
    if (found) {
      if (took > ms / 2) late.push(`late: ${sentence}, after ${took} of ${ms} ms`);
      return found;
    }
    assert.ok(took < ms, `${sentence} within ${ms} ms`);
    await pause(40);
  }
}

export function median(numbers) {
  assert.ok(numbers.length > 0, 'something to take the median of');
  return [...numbers].sort((one, other) => one - other)[Math.floor(numbers.length / 2)];
}

/**
 * One test, with a server of some flags. On failure the server's log of its time is printed; in any case its pages and
 * proxies are closed.
 */
export function scenario(name, body, flags = []) {
  return performed(name, body, { goesOn: true, key: flags.join(' '), start: () => Server.start(flags) });
}

/**
 * The same of what has to be in time. An encoder, a decoder or a server that waits for a processor is late whatever the
 * server decides: where that failed on a machine that was overloaded meanwhile, it is tried again, and all is told.
 */
export function timedScenario(name, body, flags = []) {
  const start = () => Server.start(flags);
  return performed(name, body, { goesOn: true, key: flags.join(' '), start, attempts: ATTEMPTS_MAX });
}

/** A timed scenario with a server in the environment of the service that it replaces. */
export function scenarioInPlace(name, body) {
  return performed(name, body, { goesOn: true, key: 'in place', start: () => Server.startInPlace(), attempts: ATTEMPTS_MAX });
}

/** A scenario at whose end the server has ended. */
export function scenarioOfTheEnd(name, body) {
  return performed(name, body, { goesOn: false, key: '', start: () => Server.start() });
}

function performed(name, body, { goesOn, key, start, attempts = 1 }) {
  test(name, { timeout: SCENARIO_MS * attempts }, async (context) => {
    for (let attempt = 1; ; attempt += 1) {
      const load = new Load();
      try {
        await attempted(context, body, { goesOn, running: await server({ key, start }) });
        return;
      } catch (error) {
        const measured = load.read();
        context.diagnostic(`attempt ${attempt}, ${told(measured)}: ${error.message}`);
        const again = attempt < attempts && error.code === 'ERR_ASSERTION' && isOverloaded(measured);
        if (!again) throw error;
      }
    }
  });
}

async function attempted(context, body, { goesOn, running }) {
  const from = running.log.length;
  const call = new Scenario(running, context);
  try {
    await body(call);
    assert.equal(running.running, goesOn, 'the server runs on, or has ended as asked');
  } catch (error) {
    const lines = running.log.slice(Math.max(from, running.log.length - LOG_LINES_SHOWN));
    context.diagnostic(`server log:\n${lines.join('\n')}`);
    for (const room of call.rooms) context.diagnostic(`${room} then: ${await call.statsOf(room)}`);
    throw error;
  } finally {
    for (const line of late.splice(0)) context.diagnostic(line);
    await call.close();
  }
}

let rooms = 0;

class Scenario {
  constructor(running, context) {
    this.server = running;
    this.note = (line) => context.diagnostic(line);
    this.rooms = [];
    this.peers = [];
    this.proxies = [];
    this.sources = 0;
  }

  room() {
    rooms += 1;
    const name = `room ${rooms}`;
    this.rooms.push(name);
    return name;
  }

  /** What the server says of the transports and streams of a room, in its own words. */
  async statsOf(room) {
    const answer = await fetch(`${this.server.api}/media/room/${encodeURIComponent(room)}/stats`).catch(() => undefined);
    return answer?.text() ?? 'no answer';
  }

  /** A peer on a page of its own. */
  async peer(name, { room, on = 'chromium', ...options }) {
    const page = await (await browser(on)).open((await site()).url);
    this.sources += 1;
    const peer = new Peer({ page, name, room, source: this.sources });
    this.peers.push(peer);
    await page.call('join', name, { api: this.server.api, room, name, ...options });
    return peer;
  }

  /** A peer without any library, on a page of its own. */
  async bare(name, { room, on = 'chromium' }) {
    const page = await (await browser(on)).open((await site()).url);
    this.sources += 1;
    const peer = new Peer({ page, name, room, source: this.sources });
    this.peers.push(peer);
    await page.call('joinBare', name, { api: this.server.api, room, name });
    return peer;
  }

  /** A peer of GStreamer that publishes a codec by WHIP, or plays another peer by WHEP; ends with the scenario. */
  async gstreamer(name, { room, publish, play, lines }) {
    this.sources += 1;
    const source = this.sources;
    const [verb, peerId] = publish ? ['whip', name] : ['whep', play];
    const url = `${this.server.api}/${verb}/${encodeURIComponent(room)}?peerId=${encodeURIComponent(peerId)}`;
    const made = publish ? GStreamer.publish({ url, source, codec: publish }) : GStreamer.play({ url, lines });
    this.proxies.push(made);
    // A picture that waited for its way is shown in its own time, with a standstill behind it: who comes next comes later.
    await until(`${name} is connected`, CALL_STANDS_MS, () => made.connected || made.failures[0]);
    assert.deepEqual(made.failures, [], `${name} ${verb}: ${made.said.join('\n')}`);
    return Object.assign(made, { name, source });
  }

  /** A faulty path to the media port; give its `port` to a peer as `path: {udpPort}`. */
  async proxy(faults) {
    const proxy = await Proxy.start({ to: this.server.mediaPort, ...faults });
    this.proxies.push(proxy);
    return proxy;
  }

  /** A page without a peer. */
  async page(on) {
    const page = await (await browser(on)).open((await site()).url);
    this.peers.push({ close: () => page.close() });
    return page;
  }

  /** A page that the server itself serves. */
  async visit(path) {
    const page = await (await browser('chromium')).visit(`${this.server.api}${path}`);
    this.peers.push({ close: () => page.close() });
    return page;
  }

  async request(method, route, body) {
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(`${this.server.api}${route}`, { method, headers, body: body && JSON.stringify(body) });
    return { status: answer.status, ...(await answer.json()) };
  }

  /** Follows a room's events from now on: all that came so far is in the list that this gives. */
  async events(room) {
    const leaving = new AbortController();
    this.proxies.push({ close: () => leaving.abort() });
    const route = `${this.server.api}/media/room/${encodeURIComponent(room)}/events`;
    const { body } = await fetch(route, { signal: leaving.signal });
    const told = [];
    const read = async () => {
      let text = '';
      for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
        const blocks = (text + chunk).split('\n\n');
        text = blocks.pop();
        const data = blocks.map((block) => block.split('\n').find((line) => line.startsWith('data:')));
        told.push(...data.filter(Boolean).map((line) => JSON.parse(line.slice('data:'.length))));
      }
    };
    read().catch(() => undefined);
    return told;
  }

  /** What each shard says of itself, in order of their ids; told anew every second. */
  async shards() {
    return (await this.request('GET', '/admin/status')).data.shards;
  }

  /** A counter or gauge of each shard, in order of their ids. */
  async metric(name) {
    const text = await (await fetch(`${this.server.api}/metrics`)).text();
    const line = new RegExp(`^ringcast_shard_${name}\\{shard="(\\d+)"\\} (\\S+)$`, 'gm');
    const values = [];
    for (const [, shard, value] of text.matchAll(line)) values[shard] = Number(value);
    assert.ok(values.length > 0, `there is a metric ringcast_shard_${name}`);
    return values;
  }

  async close() {
    await Promise.allSettled(this.peers.map((peer) => peer.close()));
    await Promise.allSettled(this.proxies.map((proxy) => proxy.close()));
  }
}

class Peer {
  constructor(fields) {
    Object.assign(this, fields);
  }

  ask(method, ...values) {
    return this.page.call(method, this.name, ...values);
  }

  /** Publishes numbered pictures and a tone of this peer's own. */
  async publish(picture = {}) {
    this.video = await this.ask('publishVideo', { source: this.source, ...picture });
    this.audio = await this.ask('publishAudio', { source: this.source });
  }

  async publishAudio(sound = {}) {
    this.audio = await this.ask('publishAudio', { source: this.source, ...sound });
  }

  async publishVideo(picture = {}) {
    this.video = await this.ask('publishVideo', { source: this.source, ...picture });
  }

  follow() {
    return this.ask('follow');
  }

  /** The id of this peer's consumer of `other`, once there is one. */
  consumerOf(other, kind = 'video') {
    return until(`${this.name} consumes the ${kind} of ${other.name}`, CALL_STANDS_MS, async () => {
      const { consumers, failures } = await this.ask('state');
      assert.deepEqual(failures, [], `${this.name} polls and consumes without failure`);
      return consumers.find((consumer) => consumer.of === other.name && consumer.kind === kind)?.id;
    });
  }

  /** Every picture of `other` shown here since `since`. */
  async shown(other, since = 0) {
    const { shown } = await this.ask('shown', await this.consumerOf(other), since);
    for (const { source } of shown) assert.equal(source, other.source, `${this.name} sees ${other.name} and nobody else`);
    return shown;
  }

  /** The first picture of `other` shown at or after `since`, within `ms` of it. */
  async sees(other, { since = 0, ms = CALL_STANDS_MS } = {}) {
    const id = await this.consumerOf(other);
    return until(`${this.name} sees ${other.name}`, ms, async () => {
      const { shown, askedAt } = await this.ask('shown', id, since);
      const [first] = shown;
      return first && { ...first, afterMs: first.at - (since || askedAt) };
    });
  }

  /** Watches `other` from now on: how many pictures, the longest time without one, and how far the counter went. */
  async watch(other, seconds) {
    const from = await this.page.call('now');
    await pause(seconds * 1000);
    const shown = await this.shown(other, from);
    return watched(shown, from, await this.page.call('now'));
  }

  /** Fails unless `other` is seen to move for some seconds without a standstill of `freezeMs`. */
  async seesMotionOf(other, { seconds = 2, freezeMs = 1_000, picturesPerSecond = 5 } = {}) {
    await this.sees(other);
    const seen = await this.watch(other, seconds);
    const sentence = `${this.name} sees ${other.name} move: ${JSON.stringify(seen)}`;
    assert.ok(seen.pictures >= seconds * picturesPerSecond, sentence);
    assert.ok(seen.advance >= seconds * picturesPerSecond, sentence);
    assertInOrder(seen, sentence);
    assert.ok(seen.longestGapMs <= freezeMs, `no standstill over ${freezeMs} ms: ${sentence}`);
    return seen;
  }

  /** Fails unless `other` comes to a standstill that lasts. */
  async seesStandstillOf(other, seconds = 0.8) {
    await until(`${this.name} sees ${other.name} stand still`, STILL_MS, async () => {
      return (await this.watch(other, seconds)).pictures === 0;
    });
  }

  /** Fails unless the tone of `other` comes out of this peer's loudspeaker. */
  async hears(other) {
    const id = await this.consumerOf(other, 'audio');
    const expected = 400 + other.source * 200;
    await until(`${this.name} hears the ${expected} Hz of ${other.name}`, CALL_STANDS_MS, async () => {
      const pitch = await this.ask('pitch', id);
      return Math.abs(pitch - expected) < 60;
    });
  }

  /** The rows of one type out of a stats report. */
  async consumerStats(other, type, kind = 'video') {
    const rows = await this.ask('consumerStats', await this.consumerOf(other, kind));
    return rows.filter((row) => row.type === type);
  }

  async producerStats(type, id = this.video) {
    return (await this.ask('producerStats', id)).filter((row) => row.type === type);
  }

  /** The candidate pair in use. */
  async pair(direction) {
    const rows = await this.ask('transportStats', direction);
    const transport = rows.find((row) => row.type === 'transport');
    const chosen = transport?.selectedCandidatePairId;
    return rows.find((row) => row.type === 'candidate-pair' && (chosen ? row.id === chosen : row.selected || row.nominated));
  }

  leave() {
    return this.ask('leave');
  }

  /** Leaves if it has not yet, and closes the page. */
  async close() {
    await this.ask('leave').catch(() => undefined);
    await this.page.close();
  }
}

/**
 * What a list of shown pictures says about `[from, until]`. Counters are modulo 65,536. A publisher's encoders may be some
 * pictures apart, the larger one behind: where the size changes, `behind` tells the most that it went back; `backward`
 * counts elsewhere.
 */
export function watched(shown, from, until) {
  const moments = [from, ...shown.map(({ at }) => at), until];
  const gaps = moments.slice(1).map((at, index) => at - moments[index]);
  const steps = shown.slice(1).map(({ counter, width }, index) => ({
    by: ((counter - shown[index].counter + 0x8000) & 0xffff) - 0x8000, switches: width !== shown[index].width,
  }));
  return {
    pictures: shown.length,
    longestGapMs: Math.max(...gaps),
    advance: steps.reduce((sum, { by }) => sum + by, 0),
    backward: steps.filter(({ by, switches }) => by < 0 && !switches).length,
    behind: Math.max(0, ...steps.filter(({ switches }) => switches).map(({ by }) => -by)),
  };
}

/** Fails where what was shown was not in order. */
export function assertInOrder({ backward, behind }, sentence) {
  assert.equal(backward, 0, `counters never go back: ${sentence}`);
  assert.ok(behind <= LAYERS_APART_MAX, `a new size goes on where the last one was: ${sentence}`);
}
