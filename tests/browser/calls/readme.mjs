// The README's first call by hand does what the README says.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { scenario } from '../harness/stage.mjs';

const README = new URL('../../../README.md', import.meta.url);
const SHELL_MS = 20_000;

scenario('the first call by hand in the README makes, plays and ends a call', async (call) => {
  const [, script] = /## A first call by hand\n[^]*?```sh\n([^]*?)```/.exec(readFileSync(README, 'utf8'));
  const here = script.replaceAll('http://127.0.0.1:6040', call.server.api);
  assert.notEqual(here, script, 'the block names the default address');
  const strict = `set -euo pipefail\n${here}`;
  const { stdout } = await promisify(execFile)('bash', ['-c', strict], { timeout: SHELL_MS });
  const answers = stdout.replaceAll('}{', '}\n{').split('\n').map((line) => JSON.parse(line));
  assert.equal(answers.length, 5, 'connect, producers, consumer, and two who leave');
  for (const { success } of answers) assert.equal(success, true);
  const [, { data: { producers } }, { data: consumer }] = answers;
  assert.deepEqual(producers.map(({ peerId, kind }) => [peerId, kind]), [['alice', 'audio']]);
  assert.equal(consumer.producerId, producers[0].producerId);
});
