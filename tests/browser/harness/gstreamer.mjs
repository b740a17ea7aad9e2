// A peer made of GStreamer: WHIP and WHEP from outside the world of browsers.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const PROGRAM = fileURLToPath(new URL('gstreamer.py', import.meta.url));
/** Debian's own interpreter: its GStreamer modules are there for no other. */
const PYTHON = '/usr/bin/python3';
const END_MS = 10_000;
/**
 * How Python and GLib tell that something has gone wrong. What else libraries say on standard error is about the machine
 * they are on (no graphics, a slow clock, a codec that drops a picture), and they go on.
 */
const COMPLAINT = /^Traceback |^[\w.]*(?:Error|Exception)\b|(?:^|[-\s])(?:CRITICAL|ERROR) \*\*|Segmentation fault/;

export const complains = (line) => COMPLAINT.test(line);

export class GStreamer {
  static publish({ url, source, codec }) {
    return new GStreamer(['publish', url, String(source), codec]);
  }

  /** `lines` as `{ kind, codec }`, one for each m-line of the offer. */
  static play({ url, lines }) {
    return new GStreamer(['play', url, ...lines.map(({ kind, codec }) => `${kind}=${codec}`)]);
  }

  constructor(words) {
    this.pictures = [];
    this.pitches = [];
    this.damaged = 0;
    this.failures = [];
    this.said = [];
    this.connected = false;
    this.child = spawn(PYTHON, [PROGRAM, ...words], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.ended = new Promise((resolve) => this.child.once('exit', resolve));
    createInterface({ input: this.child.stdout }).on('line', (line) => this.#note(JSON.parse(line)));
    createInterface({ input: this.child.stderr }).on('line', (line) => {
      this.said.push(line);
      if (complains(line)) this.failures.push(line);
    });
    this.child.once('error', (error) => this.failures.push(String(error)));
  }

  #note({ answer, connected, picture, pitch, damaged, failure }) {
    if (answer) this.answer = answer;
    if (connected) this.connected = true;
    if (picture) this.pictures.push(picture);
    if (pitch !== undefined) this.pitches.push(pitch);
    if (damaged) this.damaged += 1;
    if (failure) this.failures.push(failure);
  }

  /** Ends the session as a well-behaved client does, and gives the exit code. */
  async close() {
    const kill = setTimeout(() => this.child.kill('SIGKILL'), END_MS);
    this.child.stdin.end();
    const code = await this.ended;
    clearTimeout(kill);
    assert.deepEqual(this.failures, [], `GStreamer has nothing to complain about: ${this.said.join('\n')}`);
    return code;
  }
}
