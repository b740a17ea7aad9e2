// What the tests may ask of a page: every function here is called by name, with JSON in and JSON out. A page may hold
// several peers, each under its key.

import { Bare } from './bare.mjs';
import { loopback, sendableCodecs } from './loopback.mjs';
import { Peer } from './peer.mjs';

const peers = new Map();

function peer(key) {
  const found = peers.get(key);
  if (!found) throw new Error(`no peer ${key} on this page`);
  return found;
}

function consumed(key, id) {
  const found = peer(key).consumed.get(id);
  if (!found) throw new Error(`${key} has no consumer ${id}`);
  return found;
}

/** A stats report as plain objects. */
async function stats(of) {
  return [...(await of.getStats()).values()];
}

window.stage = {
  loopback,
  sendableCodecs,

  async join(key, options) {
    peers.set(key, await Peer.join(options));
  },
  async joinBare(key, options) {
    peers.set(key, await Bare.join(options));
  },
  publish: (key, options) => peer(key).publish(options),
  play: (key, options) => peer(key).play(options),
  end: (key, direction) => peer(key).end(direction),
  async open(key, direction) {
    await peer(key).transport(direction);
  },
  restartIce: (key, direction) => peer(key).restartIce(direction),
  publishVideo: (key, options) => peer(key).publishVideo(options),
  publishAudio: (key, options) => peer(key).publishAudio(options),
  producers: (key) => peer(key).producers(),
  consume: (key, entry) => peer(key).consume(entry),
  follow: (key) => peer(key).follow(),
  request: (key, method, route, body) => peer(key).request(method, route, body),
  async leave(key) {
    const answer = await peer(key).leave();
    peers.delete(key);
    return answer;
  },
  async hangUp(key) {
    await peer(key).hangUp();
    peers.delete(key);
  },

  /** Stops or restarts a producer on the browser's side only. */
  pauseSending: (key, id) => peer(key).produced.get(id).producer.pause(),
  resumeSending: (key, id) => peer(key).produced.get(id).producer.resume(),

  /** How the peer is: connection states, failures of its polling, and its consumers. */
  state(key) {
    const { states, failures, consumed: all } = peer(key);
    const consumers = [...all].map(([id, { consumer, of, producerId }]) => ({
      id, of, producerId, kind: consumer.kind, muted: consumer.track.muted, codec: consumer.rtpParameters.codecs[0].mimeType,
    }));
    return { states, failures, consumers };
  },

  /** What a video consumer has shown since `since` (milliseconds of `Date.now()`). */
  shown(key, id, since = 0) {
    const { into, askedAt, of } = consumed(key, id);
    return { askedAt, of, damaged: into.damaged, shown: into.shown.filter(({ at }) => at >= since) };
  },
  pitch: (key, id) => consumed(key, id).into.pitch(),

  producerStats: (key, id) => stats(peer(key).produced.get(id).producer),
  consumerStats: (key, id) => stats(consumed(key, id).consumer),
  transportStats: async (key, direction) => stats(await peer(key).transport(direction)),
  now: () => Date.now(),
};
