// The dashboard at `/admin`, by hand: looked at, searched, sorted, drained and called off. Its server is its own, since it
// drains. Screenshots go to RINGCAST_SCREENSHOTS where that names a folder.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after } from 'node:test';
import { Chromium } from '../harness/browser.mjs';
import { Server } from '../harness/server.mjs';
import { scenario, until } from '../harness/stage.mjs';

const OWN = ['--drain-timeout', '7200'];
const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 390, height: 844, mobile: true };
const SEEN_MS = 15_000;
const folder = process.env.RINGCAST_SCREENSHOTS;

let starting;
const browser = () => (starting ??= Chromium.start());
after(async () => (await starting)?.close());

const LISTEN = `window.complaints = [];
addEventListener('securitypolicyviolation', ({ blockedURI, violatedDirective }) => complaints.push(violatedDirective + ' ' + blockedURI));
addEventListener('error', ({ message }) => complaints.push(message));
addEventListener('unhandledrejection', ({ reason }) => complaints.push(String(reason)));`;

async function operator(call, { api } = call.server) {
  const page = await (await browser()).visit(`${api}/admin`, { before: LISTEN });
  call.peers.push({ close: () => page.close() });
  await page.look(DESKTOP);
  await says(page, '#state', 'Ready');
  return page;
}

const textOf = (page, selector) => page.evaluate(`document.querySelector(${JSON.stringify(selector)}).textContent`);
const says = (page, selector, words) => until(`${selector} says ${words}`, SEEN_MS,
  async () => (await textOf(page, selector)).includes(words));

/** The cells of a table, row by row, under their titles. */
const rows = (page, id) => page.evaluate(`(() => {
  const table = document.getElementById(${JSON.stringify(id)});
  const titles = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  return [...table.tBodies[0].rows].map((row) => Object.fromEntries([...row.cells].map((cell, place) => [titles[place], cell.textContent])));
})()`);
const row = (page, id, what, holds) => until(`${what} in ${id}`, SEEN_MS, async () => (await rows(page, id)).find(holds));

/** All of the page, in every look. */
async function pictures(page, name) {
  for (const [device, size] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
    for (const dark of [false, true]) {
      await page.look({ ...size, dark });
      const height = await page.evaluate('Math.min(4000, document.documentElement.scrollHeight)');
      await page.look({ ...size, height: Math.max(size.height, height), dark });
      assert.equal(await page.evaluate('document.documentElement.scrollWidth > innerWidth'), false, `${name} fits on a ${device}`);
      await page.evaluate('new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))');
      const png = await page.screenshot();
      assert.ok(png.length > 1_000, `${name} is a picture`);
      if (!folder) continue;
      mkdirSync(folder, { recursive: true });
      writeFileSync(path.join(folder, `admin-${name}-${device}-${dark ? 'dark' : 'light'}.png`), png);
    }
  }
  await page.look(DESKTOP);
}

/** What there is to read is told apart from what is behind it (WCAG 1.4.3), in the look of the moment. */
const faint = (page) => page.evaluate(`(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const shown = [...document.querySelectorAll('main *, header *')].filter((element) => element.checkVisibility()
    && !element.disabled && [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
  return shown.map((element) => {
    const [one, other] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    return [element.textContent.trim().slice(0, 30), (one + 0.05) / (other + 0.05)];
  }).filter(([, contrast]) => contrast < 4.5);
})()`);

scenario('an operator sees the node, its rooms and how each transport does', async (call) => {
  const room = call.room();
  const [alice, bob] = [await call.peer('alice', { room }), await call.peer('bob', { room })];
  await alice.publish({ codec: 'VP8', layers: 'simulcast', width: 640, height: 360, fps: 15 });
  await bob.follow();
  await bob.sees(alice);
  const page = await operator(call);
  await row(page, 'shards', 'what is forwarded', (shard) => /^[1-9][\d,]*\/s$/.test(shard['Packets out']) && /bit\/s$/.test(shard.In));
  assert.equal((await rows(page, 'shards')).length, 2);
  await row(page, 'shards', 'a latency', (shard) => /(µs|ms)$/.test(shard.p99));
  await says(page, '#quantiles', 'Half of');
  const listed = await row(page, 'list', 'the room', (found) => found.Room === room && /bit\/s$/.test(found.Out));
  assert.deepEqual([listed.Peers, listed.Producers], ['2', '2']);
  const told = await page.accessible();
  for (const [role, name] of [
    ['banner', ''], ['main', ''], ['region', 'Node'], ['region', 'Drain'], ['region', 'Rooms'], ['search', ''], ['status', ''],
    ['heading', 'Forwarding latency'], ['button', 'Drain…'], ['columnheader', 'Peers'], ['rowheader', room],
  ]) {
    assert.ok(told.some((found) => found.role === role && (name === '' || found.name === name)), `${role} ${name}`);
  }
  await pictures(page, 'node');

  await page.click('#list tbody button');
  assert.equal(await textOf(page, '#room-title'), `Room ${room}`);
  assert.equal(await page.evaluate('document.activeElement.id'), 'room-title');
  const producer = await row(page, 'producers', 'the camera', (found) => found.Peer === 'alice' && found.Codec === 'VP8' && /bit\/s/.test(found['Bitrate, by encoding']));
  assert.match(producer.What, /video/);
  const consumer = await row(page, 'consumers', 'what bob gets', (found) => found.Peer === 'bob' && /bit\/s$/.test(found.Bitrate)
    && /^\d\.\d( → \d\.\d)? of \d\.\d$/.test(found.Layers) && found.Why !== '–');
  assert.equal(consumer.Gets, 'camera of alice');
  call.note(`${consumer.Layers}: ${consumer.Why}`);
  await row(page, 'transports', 'the way to bob', (found) => found.Peer === 'bob' && found.State === 'ICE completed, DTLS connected'
    && /127\.0\.0\.1|::1/.test(found.Client) && /%$/.test(found.Loss) && /ms$/.test(found['Round trip']));
  await pictures(page, 'room');
  for (const dark of [false, true]) {
    await page.look({ ...DESKTOP, dark });
    assert.deepEqual(await faint(page), []);
  }
  await bob.leave();
  await until('bob is gone', SEEN_MS, async () => !(await rows(page, 'consumers')).some(({ Peer }) => Peer === 'bob'));
  await alice.leave();
  await says(page, '#room-text', 'This room has ended');
  await page.click('#back');
  assert.equal(await page.evaluate("document.querySelector('#room').hidden"), true);
  assert.deepEqual(await page.evaluate('window.complaints'), []);
  const others = await page.evaluate('performance.getEntriesByType("resource").map(({ name }) => name).filter((name) => !name.startsWith(location.origin))');
  assert.deepEqual(others, [], 'nothing comes from elsewhere');
}, OWN);

scenario('rooms are searched, sorted and paged', async (call) => {
  const name = (number) => `find ${String(number).padStart(2, '0')}`;
  for (let number = 0; number < 60; number += 1) await call.request('POST', '/media/room', { roomId: name(number) });
  await call.request('POST', `/media/transport/${encodeURIComponent(name(42))}`, { peerId: 'alice', direction: 'send' });
  const page = await operator(call);
  const names = async () => (await rows(page, 'list')).map(({ Room }) => Room);
  await page.click('#query');
  await page.type('FIND ');
  await says(page, '#range', '1–25 of 60');
  assert.equal((await names())[0], name(42), 'most peers first');
  await page.click('#list th button');
  await until('from A', SEEN_MS, async () => (await names())[0] === name(0));
  assert.equal(await page.evaluate("document.querySelector('#list th').getAttribute('aria-sort')"), 'ascending');
  await page.click('#next');
  await says(page, '#range', '26–50 of 60');
  await page.click('#next');
  await says(page, '#range', '51–60 of 60');
  assert.deepEqual((await names()).at(-1), name(59));
  assert.equal(await page.evaluate("document.querySelector('#next').disabled"), true);
  await page.click('#previous');
  await says(page, '#range', '26–50 of 60');
  await page.click('#list th button');
  await until('from Z', SEEN_MS, async () => (await names())[0] === name(59));
  await page.click('#query');
  await page.type('nowhere');
  await says(page, '#range', 'No rooms');
  assert.deepEqual(await page.evaluate('window.complaints'), []);
}, OWN);

scenario('a drain is begun with a confirmation, watched and called off, by keys alone', async (call) => {
  const room = call.room();
  await call.request('POST', '/media/room', { roomId: room });
  await call.request('POST', `/media/transport/${encodeURIComponent(room)}`, { peerId: 'alice', direction: 'send' });
  const page = await operator(call);
  const focused = () => page.evaluate('document.activeElement.id');
  const tabTo = (id) => until(`the tab key reaches ${id}`, SEEN_MS, async () => {
    if (await focused() === id) return true;
    await page.press('Tab', 'Tab');
    return false;
  });
  await tabTo('drain');
  await page.press('Enter', 'Enter');
  assert.equal(await page.evaluate("document.querySelector('#drain-dialog').open"), true);
  await pictures(page, 'confirm');
  await page.press('Escape', 'Escape');
  await until('nothing was confirmed', SEEN_MS, async () => await page.evaluate("!document.querySelector('#drain-dialog').open"));
  assert.equal((await fetch(`${call.server.api}/readyz`)).status, 200);

  await tabTo('drain');
  await page.press('Enter', 'Enter');
  await tabTo('minutes');
  await page.evaluate("document.querySelector('#minutes').select()");
  await page.type('30');
  await page.press('Enter', 'Enter');
  await says(page, '#state', 'Draining');
  await says(page, '#drain-text', 'what is left is cut off');
  assert.match(await textOf(page, '#drain-text'), /(30 min|29 min \d+ s), then the node stays without rooms/);
  assert.equal((await fetch(`${call.server.api}/readyz`)).status, 503);
  await pictures(page, 'draining');
  await call.request('POST', `/media/room/${encodeURIComponent(room)}/leave`, { peerId: 'alice' });
  await until('the room is gone', SEEN_MS, async () => (await textOf(page, '#drain-text')).startsWith('Drained')
    || page.evaluate("document.querySelector('#drain-progress').value > 0"));
  await tabTo('undrain');
  await page.press('Enter', 'Enter');
  await says(page, '#drain-text', 'New rooms begin here');
  await says(page, '#state', 'Ready');
  assert.equal((await fetch(`${call.server.api}/readyz`)).status, 200);
  assert.deepEqual(await page.evaluate('window.complaints'), []);
}, OWN);

scenario('a drain that ends the process is told to the end, and to whoever looks', async (call) => {
  const server = await Server.start();
  try {
    const post = (route, body) => fetch(`${server.api}/media/${route}`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
    });
    await post('room', { roomId: 'cut' });
    await post('transport/cut', { peerId: 'alice', direction: 'send' });
    const page = await operator(call, server);
    await page.click('#drain');
    await page.click('#exit');
    await page.evaluate("document.querySelector('#minutes').select()");
    await page.type('0');
    await page.click('#drain-confirm');
    assert.deepEqual(await server.ended, { code: 0, signal: null });
    await says(page, '#state', 'Ended');
    await says(page, '#notice', 'The server does not answer');
    assert.ok(server.log.some((line) => line.includes('room closed') && line.includes('draining')));
  } finally {
    await server.stop();
  }
}, OWN);

scenario('a server that asks for a key is given one, which is kept for the tab and sent each time', async (call) => {
  // Stands before the server, which has no keys of its own here.
  const gate = `const behind = window.fetch;
    window.fetch = (url, options) => (options.headers.authorization === 'Bearer sesame' ? behind(url, options)
      : Promise.resolve(new Response(JSON.stringify({ success: false, data: 'a key is missing or wrong', code: 'unauthorized' }), { status: 401 })));`;
  const page = await (await browser()).visit(`${call.server.api}/admin`, { before: LISTEN + gate });
  call.peers.push({ close: () => page.close() });
  await page.look(DESKTOP);
  const asks = () => until('the page asks for a key', SEEN_MS, () => page.evaluate("document.querySelector('#key-dialog').open"));
  await asks();
  assert.equal(await page.evaluate('document.activeElement.id'), 'key');
  await page.press('Escape', 'Escape');
  await says(page, '#notice', 'asks for a key');
  await page.press('Enter', 'Enter');
  await asks();
  await page.type('wrong');
  await page.press('Enter', 'Enter');
  await says(page, '#key-text', 'The key is not taken');
  await asks();
  await page.type('sesame');
  await page.press('Enter', 'Enter');
  await says(page, '#state', 'Ready');
  assert.equal(await textOf(page, '#notice'), '');
  assert.equal(await page.evaluate('Object.values({ ...sessionStorage }).join() + Object.values({ ...localStorage }).join() + document.cookie'), 'sesame');
  await page.click('#forget');
  await asks();
  assert.deepEqual(await page.evaluate('window.complaints'), []);
}, OWN);

scenario('a room of hundreds is shown page by page, and never asked for as a whole', async (call) => {
  const room = call.room();
  const peers = Array.from({ length: 300 }, (_, number) => `peer-${number}`);
  await call.request('POST', '/media/room', { roomId: room });
  for (const peerId of peers) await call.request('POST', `/media/transport/${encodeURIComponent(room)}`, { peerId, direction: 'send' });
  const page = await operator(call);
  await until('the room is listed', SEEN_MS, () => page.evaluate(`(() => {
    const button = [...document.querySelectorAll('#list button')].find(({ textContent }) => textContent === ${JSON.stringify(room)});
    button?.click();
    return Boolean(button);
  })()`));
  await says(page, '#room-text', '300 peers, 0 producers');
  const shown = () => rows(page, 'transports');
  await until('the first page', SEEN_MS, async () => (await shown()).length === 250);
  const first = new Set((await shown()).map(({ Peer: peer }) => peer));
  assert.ok([...(await shown())].every(({ Direction: direction, Shard: shard }) => direction === 'from the client' && shard !== ''));
  await page.click('#more-page');
  await until('the second page', SEEN_MS, async () => (await shown()).length === 50);
  for (const { Peer: peer } of await shown()) first.add(peer);
  assert.equal(first.size, 300, 'everybody is on one page');
  assert.equal(await page.evaluate("document.querySelector('#more-page').hidden"), true);
  await page.click('#first-page');
  await until('the first page again', SEEN_MS, async () => (await shown()).length === 250);
  const asked = await page.evaluate("performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname)");
  const whole = asked.filter((path) => path.startsWith('/media/room/') && !path.endsWith('/stats'));
  assert.deepEqual(whole, []);
  assert.deepEqual(await page.evaluate('window.complaints'), []);
}, OWN);

scenario('a refusal that passes is told until the next answer, and one of what was done until something else is', async (call) => {
  const page = await operator(call);
  await page.evaluate(`(() => {
    const behind = window.fetch;
    window.refusing = '';
    window.asked = 0;
    window.fetch = (url, options) => {
      if (String(url).includes('admin/rooms')) asked += 1;
      const answer = JSON.stringify({ success: false, data: 'too many requests', code: 'too_many_requests' });
      return refusing && String(url).includes(refusing) ? Promise.resolve(new Response(answer, { status: 429 })) : behind(url, options);
    };
  })()`);
  for (const route of ['admin/rooms', 'admin/status']) {
    await page.evaluate(`refusing = ${JSON.stringify(route)}`);
    await says(page, '#notice', 'too many requests');
    await page.evaluate("refusing = ''");
    await until('nothing is told any more', SEEN_MS, async () => (await textOf(page, '#notice')) === '');
  }
  await page.evaluate("refusing = 'admin/drain'");
  await page.click('#drain');
  await page.click('#drain-confirm');
  await says(page, '#notice', 'too many requests');
  const before = await page.evaluate('asked');
  await until('the page has asked again', SEEN_MS, async () => await page.evaluate('asked') > before);
  await says(page, '#notice', 'too many requests');
  assert.deepEqual(await page.evaluate('window.complaints'), []);
}, OWN);
