// Prometheus as one process on loopback, with the committed settings and rules: only the targets and the pace are the
// test's own.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { freePort } from '../kafka/server.mjs';

export const DEPLOY = fileURLToPath(new URL('../../.deploy/', import.meta.url));
/** Between two looks at a condition. */
const LOOK_MS = 100;
const PATIENCE_MS = 30_000;

/** Runs Debian's `promtool`; what it printed, which is nothing when all is well but for the names of files. */
export function promtool(args, input = '') {
  return execFileSync('promtool', args, { input, encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] });
}

export async function until(what, holds) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`waited for ${what}`);
    await pause(LOOK_MS);
  }
}

export class Prometheus {
  #process;
  #folder = mkdtempSync(join(tmpdir(), 'ringcast-prometheus-'));
  #url;
  #said = '';

  static async start(targets) {
    const prometheus = new Prometheus();
    const at = `127.0.0.1:${await freePort()}`;
    prometheus.#url = `http://${at}/api/v1`;
    const config = prometheus.#configure(targets);
    const data = join(prometheus.#folder, 'data');
    const args = [`--config.file=${config}`, `--storage.tsdb.path=${data}`, `--web.listen-address=${at}`, '--log.level=warn'];
    prometheus.#process = spawn('prometheus', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    prometheus.#process.stderr.on('data', (text) => { prometheus.#said += text; });
    await until('Prometheus', async () => {
      if (prometheus.#process.exitCode !== null) throw new Error(`Prometheus ended: ${prometheus.#said}`);
      return (await fetch(`http://${at}/-/ready`).catch(() => ({}))).ok;
    });
    return prometheus;
  }

  #configure(targets) {
    const folder = join(DEPLOY, 'prometheus');
    copyFileSync(join(folder, 'ringcast.rules.yml'), join(this.#folder, 'ringcast.rules.yml'));
    const committed = readFileSync(join(folder, 'prometheus.yml'), 'utf8');
    const own = committed.replaceAll('_interval: 15s', '_interval: 1s').replace(/- targets: .*/, `- targets: ${JSON.stringify(targets)}`);
    if (own.split('1s').length !== 3 || !own.includes(targets[0])) throw new Error(`not the settings expected:\n${own}`);
    const config = join(this.#folder, 'prometheus.yml');
    writeFileSync(config, own);
    return config;
  }

  /** `data` of an answer of the HTTP API. */
  async ask(path, parameters = {}) {
    const answer = await (await fetch(`${this.#url}/${path}?${new URLSearchParams(parameters)}`)).json();
    if (answer.status !== 'success') throw new Error(`${path} ${JSON.stringify(parameters)}: ${answer.error}`);
    return answer.data;
  }

  /** An expression now: labels and value of each series. */
  async query(expression) {
    const { result } = await this.ask('query', { query: expression });
    return result.map(({ metric, value: [, value] }) => ({ labels: metric, value: Number(value) }));
  }

  async stop() {
    const ended = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await ended;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
