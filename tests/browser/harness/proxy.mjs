// A UDP path with faults between browsers and the server: seeded loss, delay, a narrow way down, a change of address, and
// datagrams put in by a stranger or by the peer's own address. Each browser socket gets an upstream socket of its own, as
// behind a NAT.

import { createSocket } from 'node:dgram';

const HOST = '127.0.0.1';
const SAMPLES_MAX = 512;

/** Seeded numbers in [0, 1): mulberry32. */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

export class Proxy {
  /**
   * `loss` is a share of the datagrams each way, `delay` milliseconds each way. `rate` is what goes down to the browsers,
   * in bit/s; what comes faster waits for up to `queue` milliseconds and is dropped beyond that. Both may be set anew at
   * any time.
   */
  static async start({ to, loss = 0, delay = 0, rate = Infinity, queue = 300, seed = 1 }) {
    const proxy = new Proxy({ to, loss, delay, rate, queue, random: seeded(seed) });
    proxy.front = await bound();
    proxy.front.on('message', (datagram, from) => proxy.#handleUp(datagram, from));
    proxy.port = proxy.front.address().port;
    return proxy;
  }

  constructor(options) {
    Object.assign(this, options);
    this.upstreams = new Map();
    this.toMove = new Set();
    this.samples = [];
    this.counts = { up: 0, down: 0, lost: 0, dropped: 0, moved: 0 };
    this.waiting = [];
    this.busyUntil = 0;
    this.closed = false;
  }

  #handleUp(datagram, from) {
    this.counts.up += 1;
    if (this.samples.length < SAMPLES_MAX && this.counts.up % 5 === 0) this.samples.push(Buffer.from(datagram));
    const key = `${from.address}:${from.port}`;
    if (!this.upstreams.has(key)) this.upstreams.set(key, this.#upstream(from));
    if (this.toMove.has(key) && isCheck(datagram)) this.#rebind(key, from);
    this.#carry(() => this.upstreams.get(key)?.send(datagram, this.to, HOST));
  }

  /** Sends are queued by the socket until it is bound. */
  #upstream(client) {
    const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
    socket.on('error', () => {});
    socket.on('message', (datagram) => {
      this.counts.down += 1;
      this.#queueUp(datagram.length, () => this.#carry(() => this.front.send(datagram, client.port, client.address)));
    });
    socket.bind(0, HOST);
    return socket;
  }

  /** The narrow way: each datagram leaves when it and those before it have had their time. */
  #queueUp(bytes, send) {
    const now = performance.now();
    const begins = Math.max(now, this.busyUntil);
    if (begins - now > this.queue) {
      this.counts.dropped += 1;
      return;
    }
    this.busyUntil = begins + (bytes * 8_000) / this.rate;
    this.waiting.push({ at: this.busyUntil, send });
    if (this.waiting.length === 1) this.#drain();
  }

  /** One timer for all that wait keeps them in order. */
  #drain() {
    while (this.waiting.length > 0 && this.waiting[0].at <= performance.now()) {
      const { send } = this.waiting.shift();
      if (!this.closed) send();
    }
    if (this.waiting.length > 0) setTimeout(() => this.#drain(), this.waiting[0].at - performance.now());
  }

  #carry(send) {
    if (this.random() < this.loss) {
      this.counts.lost += 1;
      return;
    }
    if (this.delay === 0) send();
    else setTimeout(() => !this.closed && send(), this.delay);
  }

  /**
   * Gives every browser socket behind this proxy a new address, each when its next connectivity check passes, so that a
   * check is the first thing the server sees from there, as it is when a device changes networks. (After a silent change
   * by a NAT, Chromium's next check may be 2.5 s away, and nothing but a check says whose address it is.) `counts.moved`
   * tells how many have; a socket that its browser no longer uses never does.
   */
  rebindAtNextChecks() {
    this.toMove = new Set(this.upstreams.keys());
  }

  /** Gives every browser socket behind this proxy a new address now, without a word, as a NAT that restarts does. */
  rebindNow() {
    for (const key of [...this.upstreams.keys()]) {
      const [address, port] = key.split(':');
      this.#rebind(key, { address, port: Number(port) });
    }
  }

  /** The old address is gone at once: what the server still sends there is lost. */
  #rebind(key, from) {
    this.upstreams.get(key).close();
    this.upstreams.set(key, this.#upstream(from));
    this.toMove.delete(key);
    this.counts.moved += 1;
  }

  /** Sends to the server from the very address of a peer behind this proxy. */
  inject(datagram) {
    const sockets = [...this.upstreams.values()];
    sockets[datagram.length % sockets.length].send(datagram, this.to, HOST);
  }

  async close() {
    this.closed = true;
    for (const socket of this.upstreams.values()) socket.close();
    await new Promise((resolve) => this.front.close(resolve));
  }
}

/** A STUN binding request (RFC 8489 section 5: type 0x0001, then the magic cookie after the length). */
function isCheck(datagram) {
  return datagram.length >= 20 && datagram.readUInt16BE(0) === 1 && datagram.readUInt32BE(4) === 0x2112a442;
}

function bound() {
  return new Promise((resolve, reject) => {
    const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
    socket.once('error', reject);
    socket.bind(0, HOST, () => resolve(socket));
  });
}

/**
 * Endless hostile datagrams: random bytes, and `samples` of a real call cut short, lengthened or changed. Never one of
 * them unchanged: a true copy of a connectivity check is one, and ICE has to follow it.
 */
export function* hostile(samples, seed) {
  const random = seeded(seed);
  const below = (limit) => Math.floor(random() * limit);
  const noise = (length) => Buffer.from(Array.from({ length }, () => below(256)));
  const kinds = [
    () => noise(below(1_400)),
    // The first byte decides where a datagram goes (RFC 7983): visit every range.
    () => Buffer.concat([Buffer.from([below(256)]), noise(1 + below(200))]),
    (sample) => sample.subarray(0, below(sample.length)),
    (sample) => changed(sample, below),
    (sample) => Buffer.concat([sample, noise(1 + below(64))]),
  ];
  for (;;) yield kinds[below(kinds.length)](samples[below(samples.length)]);
}

/** Between one and four bytes in a row, each given another value. */
function changed(sample, below) {
  const copy = Buffer.from(sample);
  const from = below(copy.length);
  const until = Math.min(copy.length, from + 1 + below(4));
  for (let at = from; at < until; at += 1) copy[at] ^= 1 + below(255);
  return copy;
}
