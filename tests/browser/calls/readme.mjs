// What the README says is so: its first call by hand, its settings, its metrics.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { BINARY } from '../harness/server.mjs';
import { scenario, until } from '../harness/stage.mjs';

const README = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
const SHELL_MS = 20_000;
const run = promisify(execFile);

/** Every different match of `pattern`, sorted. */
const words = (text, pattern) => [...new Set(text.match(pattern))].sort();

scenario('the first call by hand in the README makes, plays and ends a call', async (call) => {
  const [, script] = /## A first call by hand\n[^]*?```sh\n([^]*?)```/.exec(README);
  const here = script.replaceAll('http://127.0.0.1:6040', call.server.api);
  assert.notEqual(here, script, 'the block names the default address');
  const strict = `set -euo pipefail\n${here}`;
  const { stdout } = await run('bash', ['-c', strict], { timeout: SHELL_MS });
  const answers = stdout.replaceAll('}{', '}\n{').split('\n').map((line) => JSON.parse(line));
  assert.equal(answers.length, 5, 'connect, producers, consumer, and two who leave');
  for (const { success } of answers) assert.equal(success, true);
  const [, { data: { producers } }, { data: consumer }] = answers;
  assert.deepEqual(producers.map(({ peerId, kind }) => [peerId, kind]), [['alice', 'audio']]);
  assert.equal(consumer.producerId, producers[0].producerId);
});

scenario('the example without a library in the README publishes a camera and shows it', async (call) => {
  const [, script] = /Without any library[^]*?```js\n([^]*?)```/.exec(README);
  const here = script.replace('http://127.0.0.1:6040', call.server.api);
  assert.notEqual(here, script, 'the block names the default address');
  const page = await call.page('chromium');
  // This Chromium has no camera: a drawn one and a tone take its place.
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
  // From the first setting on; what a long one does stands on lines of its own.
  const options = help.slice(help.indexOf('  --')).replaceAll(/-[hV], --\w+/g, '');
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
