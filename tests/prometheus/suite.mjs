// The committed dashboard and alerts against Prometheus itself (Debian's package): every expression of both has data under
// load, and nothing is wrong where nothing is. Run with `node --test suite.mjs` after `cargo build --workspace`.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Server } from '../kafka/server.mjs';
import { DEPLOY, Prometheus, promtool, until } from './prometheus.mjs';

const LOADTEST = join(dirname(process.env.RINGCAST_BIN ?? fileURLToPath(new URL('../../target/debug/ringcast', import.meta.url))), 'loadtest');
const RULES = join(DEPLOY, 'prometheus/ringcast.rules.yml');
/** Alerts about too little CPU: true of any server while the machine that tests it does something else. */
const OF_SPEED = ['RingcastShardBusy', 'RingcastShedsMedia', 'RingcastSlow', 'RingcastKernelDrops', 'RingcastNotReady'];
/** The one whose metric only a node with TLS has; `rules.test.yml` tests it alone. */
const OF_TLS = 'RingcastCertificate';

let webhook;
let node;
let cutOff;
let prometheus;

const instance = (server) => new URL(server.api).host;

/** A receiver of webhooks that is content with everything. */
async function listen() {
  const server = createServer((request, answer) => {
    request.resume();
    request.on('end', () => answer.writeHead(204).end());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

/** Plays a load. Its verdict is about this machine's speed, so that only its having run counts. */
async function load(...args) {
  const process = spawn(LOADTEST, [...args, '--url', node.api], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  process.stderr.on('data', (text) => { said += text; });
  const [code] = await once(process, 'exit');
  assert.ok([0, 1, 4].includes(code), `${args}: ${code} ${said}`);
}

/** The rules, as Prometheus knows them. */
const rules = async () => (await prometheus.ask('rules')).groups.flatMap((group) => group.rules);

/** Every expression of the dashboard, with the variables as Grafana would fill them in. */
function* dashboard() {
  const { panels } = JSON.parse(readFileSync(join(DEPLOY, 'grafana/ringcast.json'), 'utf8'));
  for (const { title, targets = [] } of panels) {
    for (const { expr, legendFormat } of targets) {
      const filled = expr.replaceAll('$instance', '.+').replaceAll('$__rate_interval', '1m');
      assert.ok(!filled.includes('$'), `${title}: a variable in ${filled}`);
      yield { title, expr: filled, legendFormat };
    }
  }
}

before(async () => {
  webhook = await listen();
  const hook = { RINGCAST_WEBHOOK_URL: `http://127.0.0.1:${webhook.address().port}/`, RINGCAST_WEBHOOK_SECRET: 'a secret of thirty-two characters' };
  // Without steering datagrams arrive at either shard, and are handed over.
  const shards = { RINGCAST_SHARDS: '2', RINGCAST_STEER: 'off', RINGCAST_ANNOUNCE: '127.0.0.1' };
  node = await Server.start({ ...shards, ...hook });
  cutOff = await Server.start({ RINGCAST_ANNOUNCE: '127.0.0.1', RINGCAST_KAFKA_BROKERS: '127.0.0.1:1' });
  prometheus = await Prometheus.start([instance(node), instance(cutOff)]);
  await until('the first scrapes', async () => (await prometheus.query('sum(up)'))[0]?.value === 2);
  await cutOff.call('nobody is told');
  // The first has more transports than one shard takes of a room; the second loses packets.
  await Promise.all([
    load('livestream', '--subscribers', '52', '--pps', '10', '--burst', '2', '--size', '300', '--duration', '8', '--ramp', '3'),
    load('lossy', '--subscribers', '3', '--pps', '50', '--size', '300', '--duration', '8'),
  ]);
});

after(async () => {
  await prometheus?.stop();
  await node?.stop();
  await cutOff?.stop();
  webhook?.close();
});

test('promtool finds nothing to say about the metrics of a server under load', async () => {
  for (const server of [node, cutOff]) {
    const text = await (await fetch(`${server.api}/metrics`)).text();
    assert.equal(promtool(['check', 'metrics'], text), '');
  }
});

test('promtool takes settings and rules, and each alert fires when it should and only then', () => {
  promtool(['check', 'config', join(DEPLOY, 'prometheus/prometheus.yml')]);
  promtool(['check', 'rules', '--lint-fatal', RULES]);
  promtool(['test', 'rules', fileURLToPath(new URL('rules.test.yml', import.meta.url))]);
});

test('the panels of the dashboard have their own names and places', () => {
  const { panels } = JSON.parse(readFileSync(join(DEPLOY, 'grafana/ringcast.json'), 'utf8'));
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
  const taken = new Set();
  for (const { title, gridPos: { x, y, w, h } } of panels) {
    assert.ok(x + w <= 24, title);
    for (let cell = 0; cell < w * h; cell += 1) {
      const place = `${x + (cell % w)} ${y + Math.floor(cell / w)}`;
      assert.ok(!taken.has(place), `${title} lies over another at ${place}`);
      taken.add(place);
    }
  }
});

test('every expression of the dashboard has data, and every legend its labels', async () => {
  const found = [...dashboard()];
  assert.ok(found.length > 80, `${found.length} expressions`);
  const empty = [];
  for (const { title, expr, legendFormat } of found) {
    const series = await prometheus.query(expr);
    if (!series.some(({ value }) => Number.isFinite(value))) empty.push(`${title}: ${expr}`);
    for (const [, label] of legendFormat.matchAll(/{{(\w+)}}/g)) {
      if (label !== 'le' && !series.every(({ labels }) => label in labels)) empty.push(`${title}: no ${label} in ${expr}`);
    }
  }
  assert.deepEqual(empty, []);
});

test('the load was one: two shards, hand-offs, relayed packets, losses and repair', async () => {
  for (const name of ['handed_off', 'relayed_in', 'packets_lost_out', 'packets_lost_in', 'nacks_received', 'retransmitted', 'plis_sent']) {
    const [total] = await prometheus.query(`sum(ringcast_shard_${name}_total)`);
    assert.ok(total.value > 0, name);
  }
  const busy = await prometheus.query(`ringcast_shard_packets_out_total{instance="${instance(node)}"} > 0`);
  assert.equal(busy.length, 2, 'both shards send');
});

test('every alert has data, and none is raised but of the node that is cut off', async () => {
  const known = await rules();
  assert.ok(known.length >= 15, `${known.length} rules`);
  for (const { name, query, health, labels, annotations } of known) {
    assert.equal(health, 'ok', name);
    assert.ok(['critical', 'warning'].includes(labels.severity), name);
    assert.ok(annotations.summary && annotations.runbook, name);
    const compared = query.replaceAll(/ (?:[<>]=?|[!=]=) [0-9.]+/g, '');
    assert.notEqual(compared, query, `${name} compares with something`);
    assert.equal((await prometheus.query(compared)).length > 0, name !== OF_TLS, `${name} has data: ${compared}`);
    const expected = name === 'RingcastKafkaAway' ? instance(cutOff) : '';
    const raised = async () => String((await prometheus.query(query)).map((series) => series.labels.instance));
    // One scrape that a busy machine does not finish in its second is none of what these wait for.
    if (!OF_SPEED.includes(name)) await until(`${name} of ${expected || 'nobody'}: ${query}`, async () => await raised() === expected);
  }
  const firing = await prometheus.query('ALERTS{alertstate="firing"}');
  assert.deepEqual(firing, []);
});
