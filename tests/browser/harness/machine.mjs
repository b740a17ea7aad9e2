// Whether the machine had time for what was measured on it.

import { cpus } from 'node:os';
import { monitorEventLoopDelay } from 'node:perf_hooks';

/** With less of all its processors left, somebody waited for one all the time. */
const IDLE_MIN = 0.15;
/** This process works for some milliseconds at a time: for so long it is only kept from it. */
const LAG_MAX_MS = 250;

/** Milliseconds that all processors together have passed, and how much of it with nothing to do. */
function passed() {
  const times = cpus().map(({ times: { user, nice, sys, idle, irq } }) => ({ idle, all: user + nice + sys + idle + irq }));
  return { idle: times.reduce((sum, { idle }) => sum + idle, 0), all: times.reduce((sum, { all }) => sum + all, 0) };
}

/** How busy the machine is from now on. */
export class Load {
  constructor() {
    this.from = passed();
    this.delay = monitorEventLoopDelay({ resolution: 10 });
    this.delay.enable();
  }

  /** The share of time in which processors had nothing to do, and the longest that this process was kept waiting. */
  read() {
    this.delay.disable();
    const { idle, all } = passed();
    const took = all - this.from.all;
    return { idle: took > 0 ? (idle - this.from.idle) / took : 1, lagMs: Math.round(this.delay.max / 1e6) };
  }
}

/** True where a late picture says nothing of the server. */
export const isOverloaded = ({ idle, lagMs }) => idle < IDLE_MIN || lagMs > LAG_MAX_MS;

export const told = ({ idle, lagMs }) => `${Math.round(idle * 100)} % of the processors left, ${lagMs} ms without a turn`;
