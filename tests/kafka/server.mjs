// The server under test, with the environment of the service that it replaces.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const BINARY = process.env.RINGCAST_BIN ?? fileURLToPath(new URL('../../target/debug/ringcast', import.meta.url));

/** Above what the server and others take by default. */
const LOWEST_PORT = 11_000;
const given = new Set();

/** The first port that the kernel gives to who asks for any, and to connections that begin here. */
function lowestOfAny() {
  const range = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8');
  return Number(range.trim().split(/\s+/)[0]);
}

async function isFree(port) {
  const server = createServer();
  server.listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch {
    return false;
  }
  server.close();
  await once(server, 'close');
  return true;
}

/**
 * A port of loopback that nobody has and that the kernel gives to nobody, so that it stays free until it is used, and again
 * while who used it is away: not even a client that tries to reach it there can get it for its own end.
 */
export async function freePort() {
  const count = Math.max(1_000, lowestOfAny() - LOWEST_PORT);
  for (;;) {
    const port = LOWEST_PORT + Math.floor(Math.random() * count);
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    return port;
  }
}

export class Server {
  #process;
  log = [];

  static async start(environment) {
    const server = new Server();
    const own = { RINGCAST_API_LISTEN: '127.0.0.1:0', RINGCAST_MEDIA_PORT: '0', RINGCAST_SHARDS: '1', RINGCAST_LOG_FORMAT: 'json' };
    server.#process = spawn(BINARY, [], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { PATH: process.env.PATH, ...own, ...environment },
    });
    const lines = createInterface({ input: server.#process.stderr });
    await new Promise((resolve, reject) => {
      server.#process.once('exit', (code) => reject(new Error(`ended with ${code}: ${server.log.join('\n')}`)));
      lines.on('line', (line) => {
        server.log.push(line);
        const address = line.includes('API open') && JSON.parse(line).address;
        if (address) {
          server.api = `http://${address}`;
          resolve();
        }
      });
    });
    return server;
  }

  async post(path, body) {
    const answer = await fetch(`${this.api}/media/${path}`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
    });
    const { success, data } = await answer.json();
    if (!success) throw new Error(`${path}: ${data}`);
    return data;
  }

  /** Two people call each other and leave; answers the room's log, as its event stream told it. */
  async call(room) {
    await this.post('room', { roomId: room, initiatorId: 'alice' });
    const stream = await fetch(`${this.api}/media/room/${room}/events?after=0`);
    for (const peerId of ['alice', 'bob']) await this.post(`transport/${room}`, { peerId, direction: 'send' });
    for (const peerId of ['alice', 'bob']) await this.post(`room/${room}/leave`, { peerId });
    const text = await stream.text();
    return text.split('\n').filter((line) => line.startsWith('data: ')).map((line) => JSON.parse(line.slice(6)));
  }

  /** A metric without labels. */
  async metric(name) {
    const text = await (await fetch(`${this.api}/metrics`)).text();
    return Number(text.match(new RegExp(`^ringcast_${name} (\\S+)$`, 'm'))[1]);
  }

  async stop() {
    const ended = once(this.#process, 'exit');
    this.#process.kill('SIGTERM');
    const [code] = await ended;
    return code;
  }
}
