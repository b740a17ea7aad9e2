// Whether the machine had time for what was measured on it.

import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { monitorEventLoopDelay } from 'node:perf_hooks';

/** With less of all its processors left, somebody waited for one all the time. */
const IDLE_MIN = 0.15;
/** Processors that were kept from us for a larger share of the time: by the machine's host, or because a quota was used up. */
const KEPT_MAX = 0.1;
/** This process works for some milliseconds at a time: for so long it is only kept from it. */
const LAG_MAX_MS = 250;

/** The place of time that the host gave to others, in the first line of `/proc/stat`. */
const STOLEN = 8;
/** Where a quota says how long it stopped us: cgroups of the second version, in microseconds, and of the first, in nanoseconds. */
const QUOTAS = [
  { file: '/sys/fs/cgroup/cpu.stat', line: /^throttled_usec (\d+)$/m, aMs: 1e3 },
  { file: '/sys/fs/cgroup/cpu/cpu.stat', line: /^throttled_time (\d+)$/m, aMs: 1e6 },
];

function text(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** Milliseconds for which a quota stopped us, all processors together. */
function throttledMs() {
  const told = QUOTAS.map(({ file, line, aMs }) => Number(line.exec(text(file))?.[1] ?? 0) / aMs);
  return Math.max(...told);
}

/** What has passed: milliseconds by the clock and, of all processors together, with nothing to do and stolen. */
function passed() {
  const times = cpus().map(({ times: { user, nice, sys, idle, irq } }) => ({ idle, all: user + nice + sys + idle + irq }));
  // In hundredths of a second.
  const stolen = Number(text('/proc/stat').split('\n')[0].split(/\s+/)[STOLEN] ?? 0) * 10;
  const sum = (name) => times.reduce((total, { [name]: part }) => total + part, 0);
  return { idle: sum('idle'), all: sum('all') + stolen, stolen, throttled: throttledMs(), clock: performance.now() };
}

const share = (part, of) => Math.min(1, Math.max(0, of > 0 ? part / of : 0));

/** How busy the machine is from now on. */
export class Load {
  constructor() {
    this.from = passed();
    this.delay = monitorEventLoopDelay({ resolution: 10 });
    this.delay.enable();
  }

  /**
   * The shares of time in which processors had nothing to do and were kept from us, and the longest that this process was
   * kept waiting.
   */
  read() {
    this.delay.disable();
    const [now, from] = [passed(), this.from];
    const all = now.all - from.all;
    const kept = Math.max(share(now.stolen - from.stolen, all), share(now.throttled - from.throttled, now.clock - from.clock));
    return { idle: all > 0 ? share(now.idle - from.idle, all) : 1, kept, lagMs: Math.round(this.delay.max / 1e6) };
  }
}

/** True where a late picture says nothing of the server. */
export const isOverloaded = ({ idle, kept, lagMs }) => idle < IDLE_MIN || kept > KEPT_MAX || lagMs > LAG_MAX_MS;

const percent = (part) => `${Math.round(part * 100)} %`;

export const told = ({ idle, kept, lagMs }) =>
  `${percent(idle)} of the processors left, ${percent(kept)} kept from us, ${lagMs} ms without a turn`;
