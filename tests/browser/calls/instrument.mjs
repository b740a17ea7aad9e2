// Before any call: the instrument itself. These need no server.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSocket } from 'node:dgram';
import { setImmediate as turn } from 'node:timers/promises';
import { complains } from '../harness/gstreamer.mjs';
import { Load, isOverloaded, told } from '../harness/machine.mjs';
import { Proxy, hostile, seeded } from '../harness/proxy.mjs';
import { assertInOrder, watched } from '../harness/stage.mjs';
import { draw, read } from '../page/picture.mjs';

/** Enough of a canvas for `draw` and `read`: grey levels in a grid. */
function paper(width, height) {
  const data = new Uint8ClampedArray(width * height * 4);
  return {
    canvas: { width, height },
    fillRect(left, top, across, down) {
      const level = { '#fff': 255, '#000': 0, '#777': 119 }[this.fillStyle];
      for (let y = Math.round(top); y < Math.round(top + down); y += 1) {
        for (let x = Math.round(left); x < Math.min(width, Math.round(left + across)); x += 1) {
          data.fill(level, (y * width + x) * 4, (y * width + x) * 4 + 3);
        }
      }
    },
    getImageData: () => ({ data }),
    data,
  };
}

test('a numbered picture is read back, and a damaged one is not', () => {
  for (const [source, counter] of [[0, 0], [1, 1], [7, 12_345], [255, 65_535], [3, 65_536 + 9]]) {
    const sheet = paper(160, 120);
    draw(sheet, { source, counter });
    assert.deepEqual(read(sheet), { source, counter: counter & 0xffff });
    sheet.fillStyle = sheet.data[0] > 127 ? '#000' : '#fff';
    sheet.fillRect(0, 0, 20, 24);
    assert.equal(read(sheet), undefined, 'one wrong cell');
  }
});

test('the longest gap counts from the first moment to the last, and counters wrap', () => {
  const shown = [{ at: 100, counter: 65_534 }, { at: 150, counter: 65_535 }, { at: 700, counter: 1 }];
  assert.deepEqual(watched(shown, 0, 800), { pictures: 3, longestGapMs: 550, advance: 3, backward: 0, behind: 0 });
  assert.deepEqual(watched([], 0, 800), { pictures: 0, longestGapMs: 800, advance: 0, backward: 0, behind: 0 });
});

test('a picture that comes again is told, and apart from it what another size of it was behind', () => {
  const seen = (...pictures) => watched(pictures.map(([counter, width], at) => ({ at, counter, width })), 0, 9);
  const same = seen([5, 240], [4, 240]);
  assert.deepEqual([same.backward, same.behind], [1, 0]);
  assert.throws(() => assertInOrder(same, 'the same size'), /never go back/);
  const late = seen([5, 240], [3, 480], [4, 480], [2, 960]);
  assert.deepEqual([late.backward, late.behind], [0, 2]);
  assertInOrder(late, 'some pictures late');
  assert.throws(() => assertInOrder(seen([50, 240], [3, 480]), 'much too late'), /goes on where/);
});

test('of what GStreamer says on standard error only complaints are failures', () => {
  for (const line of [
    'Traceback (most recent call last):', 'urllib.error.URLError: <urlopen error timed out>', 'KeyError: \'location\'',
    '(gstreamer.py:7): GStreamer-CRITICAL **: 05:00:00.000: gst_pad_link: failed', '** ERROR **: out of memory',
  ]) assert.ok(complains(line), line);
  for (const line of [
    '', '(gstreamer.py:7): GLib-GIO-WARNING **: 05:00:00.000: no proxy', '** (process:7): WARNING **: slow', 'libva info: none',
    '[OpenH264] this = 0x7f, Warning:actual input framerate is below', 'pci id for fd 9: 1234:1111, driver (null)',
  ]) assert.ok(!complains(line), line);
});

test('seeded numbers repeat, and spread evenly', () => {
  const [one, again] = [seeded(7), seeded(7)];
  const numbers = Array.from({ length: 10_000 }, () => one());
  assert.deepEqual(numbers.slice(0, 100), Array.from({ length: 100 }, () => again()));
  const small = numbers.filter((number) => number < 0.05).length;
  assert.ok(small > 400 && small < 600, `${small} of 10,000 under 5 %`);
});

test('hostile datagrams are never a true copy of a sample', () => {
  const samples = [Buffer.from('0001000021 12a442 a whole connectivity check'), Buffer.from([128])];
  const stream = hostile(samples, 3);
  for (let times = 0; times < 2_000; times += 1) {
    const { value } = stream.next();
    if (value.length > 1) assert.ok(!samples.some((sample) => sample.equals(value)));
  }
});

test('a machine is overloaded when nothing of it is left or is given to us, or this process is not let run', async () => {
  const load = new Load();
  const pause = () => new Promise((resolve) => setTimeout(resolve, 50));
  await pause();
  const end = performance.now() + 300;
  while (performance.now() < end);
  await pause();
  const measured = load.read();
  assert.ok(measured.lagMs >= 290 && isOverloaded(measured), told(measured));
  for (const share of [measured.idle, measured.kept]) assert.ok(share >= 0 && share <= 1, told(measured));
  const rested = { idle: 0.5, kept: 0, lagMs: 50 };
  assert.ok(!isOverloaded(rested));
  for (const why of [{ idle: 0.1 }, { kept: 0.2 }, { lagMs: 300 }]) assert.ok(isOverloaded({ ...rested, ...why }), JSON.stringify(why));
});

/** A server that notes who sends, and answers with the same bytes. */
async function echo() {
  const socket = createSocket('udp4');
  const heard = [];
  socket.on('message', (datagram, { port, address }) => {
    heard.push({ port, datagram });
    socket.send(datagram, port, address);
  });
  await new Promise((resolve) => socket.bind(0, '127.0.0.1', resolve));
  return { heard, port: socket.address().port, close: () => socket.close() };
}

/** That server, a proxy before it, and a client, all of them open until the test ends. */
async function proxied(context, faults = {}) {
  const far = await echo();
  const proxy = await Proxy.start({ to: far.port, ...faults });
  const near = createSocket('udp4');
  // A socket that a failed test left open would keep the whole process.
  context.after(async () => {
    near.close();
    far.close();
    await proxy.close();
  });
  return { far, proxy, near };
}

const CHECK = Buffer.from('0001000c2112a442000102030405060708090a0b', 'hex');

/** A datagram that the kernel loses is not waited for without end. */
const LIMITED = { timeout: 30_000 };

test('the proxy carries both ways, and moves a peer to another address when a check passes, or at once', LIMITED, async (context) => {
  const { far, proxy, near } = await proxied(context);
  const send = (datagram) => new Promise((resolve) => {
    near.once('message', resolve);
    near.send(datagram, proxy.port, '127.0.0.1');
  });
  assert.equal((await send(Buffer.from('media'))).toString(), 'media');
  proxy.rebindAtNextChecks();
  await send(Buffer.from('more media'));
  await send(CHECK);
  assert.equal(proxy.counts.moved, 1);
  proxy.rebindNow();
  await send(Buffer.from('media from elsewhere'));
  assert.equal(proxy.counts.moved, 2);
  const [first, second, third, fourth] = far.heard.map(({ port }) => port);
  assert.equal(first, second, 'nothing moves before the check');
  assert.notEqual(second, third, 'the check comes from the new address');
  assert.notEqual(third, fourth, 'the next datagram comes from the newest address');
});

test('the proxy loses the share it is told to lose', LIMITED, async (context) => {
  const { proxy, near } = await proxied(context, { loss: 0.05, seed: 11 });
  let back = 0;
  near.on('message', () => { back += 1; });
  for (let sent = 0; sent < 2_000; sent += 1) {
    near.send(Buffer.from([sent & 0xff]), proxy.port, '127.0.0.1');
    if (sent % 50 === 49) await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const settled = () => proxy.counts.lost + back;
  while (settled() < 2_000) await new Promise((resolve) => setTimeout(resolve, 20));
  // Each way loses 5 %: 9.75 % of 2,000 is 195.
  assert.ok(proxy.counts.lost > 140 && proxy.counts.lost < 250, `${proxy.counts.lost} lost`);
});

test('the proxy lets pass what its rate allows, in order, delays what waits and drops the rest', LIMITED, async (context) => {
  const { proxy, near } = await proxied(context, { rate: 800_000, queue: 100 });
  const back = [];
  near.on('message', (datagram) => back.push({ number: datagram.readUInt16BE(0), at: performance.now() }));
  // 10 ms each: eleven fit at once, ten of them behind the one that leaves.
  const begun = performance.now();
  for (let number = 0; number < 30; number += 1) {
    const datagram = Buffer.alloc(1_000);
    datagram.writeUInt16BE(number);
    near.send(datagram, proxy.port, '127.0.0.1');
  }
  while (proxy.counts.down < 30) await turn();
  // While they came some of those before have left, and made room for others.
  const left = Math.ceil((performance.now() - begun) / 10);
  while (proxy.counts.dropped + back.length < 30) await turn();
  assert.ok(back.length >= 11 && back.length <= 11 + left, `${back.length} passed, ${left} of them while they came`);
  const numbers = back.map(({ number }) => number);
  assert.deepEqual(numbers, [...new Set(numbers)].sort((one, other) => one - other), 'in order');
  const [last] = back.slice(-1);
  assert.ok(last.at - begun >= back.length * 10 - 5, `the last after ${last.at - begun} ms`);
  proxy.rate = Infinity;
  const passed = back.length;
  for (let number = 0; number < 30; number += 1) near.send(Buffer.alloc(1_000), proxy.port, '127.0.0.1');
  while (back.length < passed + 30) await new Promise((resolve) => setTimeout(resolve, 10));
});
