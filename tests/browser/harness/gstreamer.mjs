// A peer made of GStreamer: WHIP and WHEP from outside the world of browsers.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const PROGRAM = fileURLToPath(new URL('gstreamer.py', import.meta.url));
/** Debian's own interpreter: its GStreamer modules are there for no other. */
const PYTHON = '/usr/bin/python3';
const END_MS = 10_000;
/** What GLib's libraries tell about the machine they are on, and go on. */
const REMARK = /^$|-(?:WARNING|Message|INFO|DEBUG) \*\*: /;

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
    this.child = spawn(PYTHON, [PROGRAM, ...words], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.ended = new Promise((resolve) => this.child.once('exit', resolve));
    createInterface({ input: this.child.stdout }).on('line', (line) => this.#note(JSON.parse(line)));
    createInterface({ input: this.child.stderr }).on('line', (line) => {
      if (!REMARK.test(line)) this.failures.push(line);
    });
    this.child.once('error', (error) => this.failures.push(String(error)));
  }

  #note({ answer, picture, pitch, damaged, failure }) {
    if (answer) this.answer = answer;
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
    assert.deepEqual(this.failures, [], 'GStreamer has nothing to complain about');
    return code;
  }
}
