// What the README says is so: its first call by hand, its settings, its metrics.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { BINARY } from '../harness/server.mjs';
import { scenario, until } from '../harness/stage.mjs';

const README = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
const SHELL_MS = 20_000;
const run = promisify(execFile);

/** Every different match of `pattern`, sorted. */
const words = (text, pattern) => [...new Set(text.match(pattern))].sort();

/** A page whose user has a camera: this Chromium has none, so that a drawn one and a tone take its place. */
async function pageWithCamera(call) {
  const page = await call.page('chromium');
  await page.evaluate(`(() => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 320, height: 240 });
    const context = canvas.getContext('2d');
    setInterval(() => { context.fillStyle = \`hsl(\${Date.now() % 360} 80% 50%)\`; context.fillRect(0, 0, 320, 240); }, 50);
    const audio = new AudioContext();
    const tone = audio.createMediaStreamDestination();
    const oscillator = audio.createOscillator();
    oscillator.connect(tone);
    oscillator.start();
    const tracks = [...canvas.captureStream(20).getTracks(), ...tone.stream.getTracks()];
    navigator.mediaDevices.getUserMedia = async () => new MediaStream(tracks);
  })()`);
  return page;
}

scenario('the first call by hand in the README calls every route, and makes, plays and ends a call', async (call) => {
  const [section] = /## A first call by hand\n[^]*?\n## /.exec(README);
  const blocks = [...section.matchAll(/```sh\n([^]*?)```/g)].map(([, script]) => script);
  assert.equal(blocks.length, 3);
  const here = blocks.join('').replaceAll('http://127.0.0.1:6040', call.server.api);
  assert.notEqual(here, blocks.join(''), 'the block names the default address');
  const { stdout } = await run('bash', ['-c', `set -euo pipefail\n${here}`], { timeout: SHELL_MS });
  const lines = stdout.split('\n').filter(Boolean);
  const answers = lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
  assert.deepEqual(answers.map(({ success }) => success), Array(20).fill(true), stdout);
  const { data: { producers: [listed] } } = answers[1];
  assert.deepEqual([listed.peerId, listed.kind, listed.type], ['alice', 'video', 'svc']);
  const told = lines.filter((line) => line.startsWith('data:')).map((line) => JSON.parse(line.slice('data:'.length)));
  const types = told.map(({ type }) => type);
  for (const type of ['room-created', 'producer-paused', 'producer-resumed', 'consumer-closed']) {
    assert.ok(types.includes(type), `${type} in ${types}`);
  }
});

scenario('the example with mediasoup-client in the README is a call of two who poll for nothing', async (call) => {
  const [, script] = /With \[`mediasoup-client`\][^]*?```js\n([^]*?)```/.exec(README);
  const here = script.replace('http://127.0.0.1:6040', call.server.api);
  assert.notEqual(here, script, 'the block names the default address');
  const stdin = { contents: here, resolveDir: fileURLToPath(new URL('..', import.meta.url)) };
  const { outputFiles: [{ text }] } = await build({ stdin, bundle: true, write: false, format: 'esm', logLevel: 'error' });
  const opened = async () => {
    const page = await pageWithCamera(call);
    await page.evaluate(`import(URL.createObjectURL(new Blob([${JSON.stringify(text)}], { type: 'text/javascript' }))).then(() => undefined)`);
    return page;
  };
  /** Pictures that move, pictures, and sounds that play. */
  const shown = (page) => page.evaluate(`[
    [...document.querySelectorAll('video')].filter(({ videoWidth, currentTime }) => videoWidth > 0 && currentTime > 1).length,
    document.querySelectorAll('video').length,
    [...document.querySelectorAll('audio')].filter(({ currentTime }) => currentTime > 1).length,
  ].join()`);
  const [alice, bob] = [await opened(), await opened()];
  for (const page of [alice, bob]) await until('both are seen, the other heard', 15_000, async () => await shown(page) === '2,2,1');
  const asked = "performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/producers')).length";
  for (const page of [alice, bob]) assert.equal(await page.evaluate(asked), 0, 'events alone tell who is there');
  await bob.evaluate("dispatchEvent(new Event('pagehide'))");
  await until('bob is gone', 10_000, async () => await shown(alice) === '1,1,0');
  const { data } = await call.request('GET', '/media/room/tea');
  assert.equal(data.peers.length, 1);
  await alice.evaluate('window.before = true');
  await call.server.again();
  await until('the page begins anew', 20_000, async () => await alice.evaluate('window.before').catch(() => true) === undefined);
});

scenario('the example without a library in the README publishes a camera and shows it', async (call) => {
  const [, script] = /Without any library[^]*?```js\n([^]*?)```/.exec(README);
  const here = script.replace('http://127.0.0.1:6040', call.server.api);
  assert.notEqual(here, script, 'the block names the default address');
  const page = await pageWithCamera(call);
  await page.evaluate("document.body.append(Object.assign(document.createElement('video'), { muted: true, autoplay: true }))");
  await page.evaluate(`(async () => { ${here}; window.sessions = [published, played]; })()`);
  await until('the video plays', 10_000, () => page.evaluate(
    '(({ videoWidth, currentTime }) => videoWidth > 0 && currentTime > 1)(document.querySelector("video"))'));
  await page.evaluate('Promise.all(window.sessions.map(({ end }) => end())).then(() => undefined)');
  const { status } = await call.request('GET', '/media/room/tea');
  assert.equal(status, 404, 'with its last session the room has ended');
});

test('the settings in the README are those of --help', async () => {
  const [, table] = /\| Setting \|[^\n]*\n([^]*?)\n\n/.exec(README);
  const { stdout: help } = await run(BINARY, ['--help'], { timeout: SHELL_MS });
  // From the first setting on (`--drain` is a command); what a long one does stands on lines of its own.
  const options = help.slice(help.indexOf('  --config')).replaceAll(/-[hV], --\w+/g, '');
  assert.deepEqual(words(table, /--[a-z][a-z-]*/g), words(options, /--[a-z][a-z-]*/g));
  const variable = /\b(?:RINGCAST|MEDIASOUP|FILES_SERVICE|SWAGGER)_[A-Z_]+/g;
  assert.deepEqual(words(table, variable), words(options, variable));
});

scenario('the metrics that the README names are there', async (call) => {
  const metrics = await (await fetch(`${call.server.api}/metrics`)).text();
  const named = words(README, /\bringcast_[a-z_]+/g);
  assert.ok(named.length > 0);
  for (const name of named) assert.match(metrics, new RegExp(`^# TYPE ${name} `, 'm'));
});
