// A server with keys: people who were given tokens call each other from its page, others are told in words why they are not
// let in, and an operator gives the dashboard a key.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import { promisify } from 'node:util';
import {
  DESKTOP, PHONE, SEEN_MS, complaints, enter, isSeenAndHeard, opened, picture, shows, tileOf,
} from '../harness/callpage.mjs';
import { BINARY } from '../harness/server.mjs';
import { scenario, until } from '../harness/stage.mjs';

const KEY = 'a-secret-of-the-backend-0123456789';
const folder = mkdtempSync(path.join(tmpdir(), 'ringcast-keys-'));
const file = path.join(folder, 'keys');
writeFileSync(file, `# of the backend\nbackend:${KEY}\n`);
after(() => rmSync(folder, { recursive: true }));
const FLAGS = ['--api-keys-file', file];

/** What `ringcast token` prints, as a backend or an operator would use it. */
async function token(room, peer, ...grants) {
  const words = ['token', '--api-keys-file', file, '--room', room, '--peer', peer, ...grants, '--ttl', '15m'];
  return (await promisify(execFile)(BINARY, words)).stdout.trim();
}
const talks = (room, peer) => token(room, peer, '--publish', '--subscribe');

/** A token that no `ringcast token` makes. */
function forged(claims, { secret = KEY, kid = 'backend' } = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'HS256', typ: 'JWT', kid })}.${part({ exp: Math.floor(Date.now() / 1000) + 900, ...claims })}`;
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

const valueOf = (page, id) => page.evaluate(`[document.getElementById('${id}').value, document.getElementById('${id}').readOnly].join()`);
const says = (page, words) => until(`the page says ${words}`, SEEN_MS,
  async () => (await page.evaluate("document.querySelector('#notice').textContent")).includes(words));
const withKey = (call, route) => fetch(`${call.server.api}${route}`, { headers: { authorization: `Bearer ${KEY}` } });

scenario('two people who were each given a token call each other from the page', async (call) => {
  const room = 'Tee & Gebäck';
  const invited = async (name) => {
    const page = await opened(call, `/#token=${await talks(room, name)}`);
    await until('room and name stand there', SEEN_MS, async () => await valueOf(page, 'room') === `${room},true`
      && await valueOf(page, 'name') === `${name},true`);
    return page;
  };
  const alice = await invited('Alice');
  await picture(alice, 'keys-door-phone-light', PHONE);
  await alice.look(DESKTOP);
  await enter(alice);
  await shows(alice, 'Alice (you)', ({ seen, moves }) => seen && moves);
  const bob = await invited('Bob');
  await bob.click('#join .primary');
  await Promise.all([shows(alice, 'Bob', isSeenAndHeard), shows(bob, 'Alice', isSeenAndHeard)]);
  await picture(alice, 'keys-call-desktop-light', DESKTOP);
  await bob.click('#microphone');
  await shows(alice, 'Bob', ({ silent }) => silent);
  const { data } = await (await withKey(call, `/media/room/${encodeURIComponent(room)}`)).json();
  assert.ok(['Alice', 'Bob'].every((name) => data.peers.some(({ peerId }) => peerId === name)), JSON.stringify(data.peers));
  await bob.click('#leave');
  await until('Bob is gone', SEEN_MS, async () => !(await tileOf(alice, 'Bob')));
  for (const page of [alice, bob]) assert.deepEqual(await complaints(page), []);
}, FLAGS);

scenario('who has a token for watching alone watches, with neither camera nor microphone', async (call) => {
  const room = 'lecture';
  const alice = await opened(call, `/#token=${await talks(room, 'Alice')}`);
  await until('the room stands there', SEEN_MS, async () => await valueOf(alice, 'room') === `${room},true`);
  await enter(alice);
  await shows(alice, 'Alice (you)', ({ seen }) => seen);
  const bob = await opened(call, `/#token=${await token(room, 'Bob', '--subscribe')}`);
  await bob.evaluate("navigator.mediaDevices.getUserMedia = () => { throw new Error('the camera was asked for'); }");
  await until('the room stands there', SEEN_MS, async () => await valueOf(bob, 'room') === `${room},true`);
  await enter(bob);
  await shows(bob, 'Alice', isSeenAndHeard);
  await picture(bob, 'keys-watching-phone-dark', { ...PHONE, dark: true });
  await bob.look(DESKTOP);
  const told = (await bob.accessible()).filter(({ role }) => role === 'button').map(({ name }) => name);
  assert.deepEqual(told, ['Leave']);
  await bob.press('m');
  assert.equal(await tileOf(bob, 'Bob (you)'), undefined);
  for (const page of [alice, bob]) assert.deepEqual(await complaints(page), []);
}, FLAGS);

scenario('who has no token, or a wrong one, is told why and stays at the door', async (call) => {
  const claims = { room: 'tea', sub: 'Mallory', join: true, publish: true, subscribe: true };
  const cases = [
    ['none', '/?room=tea&name=Mallory', 'lets in who is invited'],
    ['expired', `/#token=${forged({ ...claims, exp: 1_000_000_000 })}`, 'the token has expired'],
    ['foreign', `/#token=${forged(claims, { secret: 'another-secret-of-nobody-0123456789' })}`, "the token's signature is wrong"],
    ['unknown', `/#token=${forged(claims, { kid: 'stranger' })}`, 'names no key that is known here'],
    ['useless', `/#token=${forged({ ...claims, join: false })}`, 'the token does not grant `join`'],
    ['garbled', '/?room=tea&name=Mallory#token=garbled', 'neither a known key nor a well-formed token'],
  ];
  for (const [name, at, words] of cases) {
    const page = await opened(call, at);
    await until('the form is there', SEEN_MS, async () => (await valueOf(page, 'room')).startsWith('tea,'));
    await page.click('#join .primary');
    await says(page, words);
    assert.equal(await page.evaluate('document.body.dataset.state'), 'outside', name);
    if (name === 'none') await picture(page, 'keys-refused-phone-light', PHONE);
    if (name === 'expired') await picture(page, 'keys-refused-desktop-dark', { ...DESKTOP, dark: true });
    assert.deepEqual(await complaints(page), [], name);
  }
  assert.equal((await withKey(call, '/media/room/tea')).status, 404, 'nobody opened the room');
}, FLAGS);

scenario('an operator gives the dashboard a key, and sees the rooms', async (call) => {
  const room = 'looked at';
  const body = JSON.stringify({ roomId: room });
  const headers = { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' };
  assert.equal((await fetch(`${call.server.api}/media/room`, { method: 'POST', headers, body })).status, 201);
  const page = await opened(call, '/admin');
  const asks = () => until('the page asks for a key', SEEN_MS, () => page.evaluate("document.querySelector('#key-dialog').open"));
  const textOf = (selector) => page.evaluate(`document.querySelector('${selector}').textContent`);
  await asks();
  await picture(page, 'keys-admin-asks-desktop-light', DESKTOP);
  await page.type(await talks(room, 'Alice'));
  await page.press('Enter', 'Enter');
  await until('a room token is not enough', SEEN_MS, async () => (await textOf('#key-text')).includes('this needs an API key'));
  await asks();
  await picture(page, 'keys-admin-token-desktop-light', DESKTOP);
  await page.type('wrong');
  await page.press('Enter', 'Enter');
  await until('a wrong key is told', SEEN_MS, async () => (await textOf('#key-text')).includes('neither a known key'));
  await asks();
  await page.type(KEY);
  await page.press('Enter', 'Enter');
  await until('the node is ready', SEEN_MS, async () => (await textOf('#state')).includes('Ready'));
  await until('the room is listed', SEEN_MS, async () => (await textOf('#list')).includes(room));
  await picture(page, 'keys-admin-desktop-light', DESKTOP);
  assert.deepEqual(await complaints(page), []);
}, FLAGS);
