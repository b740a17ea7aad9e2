// Starts the server under test as an operator would, on free loopback ports, and stops it with SIGINT.

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';

export const BINARY = process.env.RINGCAST_BIN ?? fileURLToPath(new URL('../../../target/debug/ringcast', import.meta.url));
/** The environment file of the service that is replaced. */
const REPLACED = new URL('../../data/replaced-service.env', import.meta.url);
const READY_MS = 20_000;
/** Shards, rooms and outlets each have their time; a server that hangs still ends. */
const STOP_MS = 20_000;
const LOG_LINES_MAX = 5_000;

/** Nothing of the caller's environment may configure the server under test. */
function cleanEnvironment() {
  const own = /^(RINGCAST|MEDIASOUP|KAFKA|FILES_SERVICE|SWAGGER)_/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !own.test(name)));
}

function listenTcp(port) {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}

function bindUdp(port) {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4');
    socket.once('error', reject);
    socket.bind(port, '127.0.0.1', () => resolve(socket));
  });
}

/** Above what the server and others take by default. */
const LOWEST_PORT = 11_000;

/**
 * One that the kernel gives to nobody who asks for any, nor to connections that begin here: it stays free while a server
 * that had it is away, also where pages try to reach it there.
 */
function quietPort() {
  const range = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8');
  const count = Math.max(1_000, Number(range.trim().split(/\s+/)[0]) - LOWEST_PORT);
  return LOWEST_PORT + Math.floor(Math.random() * count);
}

/** A quiet port of UDP and TCP alike (the media port is both), which nobody else has until it is let go. */
async function holdPort() {
  for (;;) {
    const port = quietPort();
    const tcp = await listenTcp(port).catch(() => undefined);
    const udp = tcp && await bindUdp(port).catch(() => undefined);
    const letGo = async () => {
      if (tcp) await new Promise((resolve) => tcp.close(resolve));
      if (udp) await new Promise((resolve) => udp.close(resolve));
    };
    if (udp) return { port, letGo };
    await letGo();
  }
}

/** A port at which nobody answers until it is let go: a connection begins there, and so nobody else can listen. */
async function holdNobodys() {
  const other = await listenTcp(0);
  const socket = connect({ port: other.address().port, host: '127.0.0.1' });
  socket.on('error', () => {});
  await once(socket, 'connect');
  const letGo = async () => {
    socket.destroy();
    await new Promise((resolve) => other.close(resolve));
  };
  other.on('connection', (accepted) => accepted.on('error', () => {}).unref());
  return { port: socket.localPort, letGo };
}

export class Server {
  /** `more` flags come after the usual ones. */
  static async start(more = []) {
    return Server.#onPorts(({ apiPort, mediaPort }) => ({
      flags: [
        '--api-listen', `127.0.0.1:${apiPort}`, '--media-port', String(mediaPort), '--announce', '127.0.0.1', '--shards', '2',
        ...more,
      ],
    }));
  }

  /** With nothing but the replaced service's environment file, its ports changed to free ones. Nobody is at its broker's. */
  static async startInPlace() {
    const lines = readFileSync(REPLACED, 'utf8').split('\n').filter((line) => line && !line.startsWith('#'));
    const variables = Object.fromEntries(lines.map((line) => line.split(/=(.*)/)));
    const nobodys = await holdNobodys();
    try {
      const server = await Server.#onPorts(({ apiPort, mediaPort }) => {
        const ports = { FILES_SERVICE_APP_PORT: apiPort, MEDIASOUP_RTC_MIN_PORT: mediaPort, KAFKA_EXTERNAL_PORT: nobodys.port };
        for (const name of Object.keys(ports)) if (!(name in variables)) throw new Error(`${name} is not in ${REPLACED}`);
        return { flags: [], variables: { ...variables, ...ports } };
      });
      server.ended.then(nobodys.letGo);
      return server;
    } catch (error) {
      await nobodys.letGo();
      throw error;
    }
  }

  /**
   * With what `settings` makes of its ports. Between their being let go and the server's having them somebody may be
   * faster: then once more, with others.
   */
  static async #onPorts(settings, again = true) {
    const [api, media] = [await holdPort(), await holdPort()];
    const [apiPort, mediaPort] = [api.port, media.port];
    const { flags, variables } = settings({ apiPort, mediaPort });
    await Promise.all([api.letGo(), media.letGo()]);
    try {
      return await Server.#run({ apiPort, mediaPort, flags, variables });
    } catch (error) {
      if (again && /in use/.test(error.message)) return Server.#onPorts(settings, false);
      throw error;
    }
  }

  static async #run({ apiPort, mediaPort, flags, variables }) {
    if (!existsSync(BINARY)) throw new Error(`no server at ${BINARY}: build it, or set RINGCAST_BIN`);
    const server = new Server({ flags, variables });
    server.mediaPort = mediaPort;
    server.api = `http://127.0.0.1:${apiPort}`;
    try {
      await server.#ready();
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  }

  constructor(how) {
    this.how = how;
    this.log = [];
    this.#spawn();
  }

  #spawn() {
    const env = { ...cleanEnvironment(), ...this.how.variables };
    const child = spawn(BINARY, this.how.flags, { stdio: ['ignore', 'pipe', 'pipe'], env });
    this.child = child;
    this.ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })));
    child.once('error', (error) => this.log.push(String(error)));
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => this.#note(chunk));
  }

  #note(chunk) {
    this.log.push(...chunk.toString().split('\n').filter(Boolean));
    if (this.log.length > LOG_LINES_MAX) this.log.splice(0, this.log.length - LOG_LINES_MAX);
  }

  get running() {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  async #ready() {
    const deadline = Date.now() + READY_MS;
    while (Date.now() < deadline) {
      if (!this.running) throw new Error(`the server ended at once:\n${this.log.join('\n')}`);
      const answer = await fetch(`${this.api}/readyz`).catch(() => undefined);
      if (answer?.ok) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`/readyz was not ok within ${READY_MS} ms:\n${this.log.join('\n')}`);
  }

  /** Kills it, and starts it as it was, on the same ports. */
  async again() {
    await this.stop('SIGKILL');
    this.#spawn();
    await this.#ready();
  }

  /** Ends calls too; gives the exit code, or the signal that was needed when that took too long. */
  async stop(signalled = 'SIGINT') {
    const kill = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS);
    if (this.running) this.child.kill(signalled);
    const { code, signal } = await this.ended;
    clearTimeout(kill);
    return { code, signal };
  }
}
