// The page at `/` as people use it: devices come and go, somebody speaks, somebody only watches, somebody shares a screen.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import {
  CANVAS_AS_SCREEN, DESKTOP, PHONE, SEEN_MS, caller, callerOfFirefox, complaints, enter, isSeenAndHeard, picture, shows, tileOf,
} from '../harness/callpage.mjs';
import { scenario, timedScenario, until } from '../harness/stage.mjs';

const noticeOf = (page) => page.evaluate("document.querySelector('#notice').textContent");
const pressed = (page, id) => page.evaluate(`document.querySelector('#${id}').getAttribute('aria-pressed')`);

/** The page's devices, which can be unplugged: `unplug(kind)` ends their tracks, as the browser does. */
const UNPLUGGED = `(() => {
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  window.given = [];
  window.gone = [];
  navigator.mediaDevices.getUserMedia = async (wish) => {
    const stream = await ask(wish);
    given.push(...stream.getTracks());
    return stream;
  };
  window.unplug = (kind, { last = false } = {}) => {
    const track = given.findLast((one) => one.kind === kind && one.readyState === 'live');
    if (last) {
      const list = navigator.mediaDevices.enumerateDevices.bind(navigator.mediaDevices);
      navigator.mediaDevices.enumerateDevices = async () => (await list()).filter((one) => one.kind !== kind + 'input');
    }
    track.stop();
    track.dispatchEvent(new Event('ended'));
  };
})()`;

scenario('another microphone takes over from one that is unplugged, and an unplugged camera is off', async (call) => {
  const room = call.room();
  const [alice, bob] = [await caller(call, 'Alice', room), await caller(call, 'Bob', room)];
  await bob.evaluate(UNPLUGGED);
  await enter(alice);
  await enter(bob);
  await shows(alice, 'Bob', isSeenAndHeard);

  await bob.click('#microphone');
  await shows(alice, 'Bob', ({ silent }) => silent);
  await bob.evaluate("unplug('audio')");
  await until('Bob is told of the other one', SEEN_MS, async () => /^Microphone: .* Another one is used now: ./.test(await noticeOf(bob)));
  assert.equal(await pressed(bob, 'microphone'), 'false', 'who was muted stays muted');
  await bob.click('#microphone');
  await shows(alice, 'Bob', ({ silent }) => !silent);
  assert.deepEqual(await bob.evaluate("given.filter(({ kind }) => kind === 'audio').map(({ readyState }) => readyState)"), ['ended', 'live']);

  await bob.evaluate("unplug('video')");
  await shows(alice, 'Bob', ({ seen }) => !seen);
  assert.equal(await pressed(bob, 'camera'), 'false');
  await bob.click('#camera');
  await shows(alice, 'Bob', isSeenAndHeard);

  await bob.evaluate("unplug('audio', { last: true })");
  await shows(alice, 'Bob', ({ silent }) => silent);
  assert.equal(await pressed(bob, 'microphone'), 'false');
  assert.match(await noticeOf(bob), /^Microphone: it was unplugged/);
  for (const page of [alice, bob]) assert.deepEqual(await complaints(page), []);
});

scenario('who speaks is marked, and who is silent is not', async (call) => {
  const room = call.room();
  const [alice, bob] = [await caller(call, 'Alice', room), await caller(call, 'Bob', room)];
  await enter(alice);
  await enter(bob);
  await shows(alice, 'Bob', isSeenAndHeard);
  await alice.click('#microphone');
  const marked = (page, who) => page.evaluate(`[...document.querySelectorAll('#tiles figure.speaks .who')].some(({ textContent }) => textContent === '${who}')`);
  await until('Bob is marked', SEEN_MS, () => marked(alice, 'Bob'));
  await until('Bob sees that he is heard', SEEN_MS, () => marked(bob, 'Bob (you)'));
  await picture(alice, 'call-speaks-desktop-light', DESKTOP);
  await bob.click('#microphone');
  await until('Bob is not marked any more', SEEN_MS, async () => !(await marked(alice, 'Bob')));
  await until('nobody is marked', SEEN_MS, async () => !(await marked(bob, 'Alice')) && !(await marked(bob, 'Bob (you)')));
});

scenario('who only watches is counted, and a name of nothing but a number is shown', async (call) => {
  const room = call.room();
  const alice = await caller(call, 'Alice', room);
  await enter(alice);
  await shows(alice, 'Alice (you)', ({ seen }) => seen);
  const count = () => alice.evaluate("document.querySelector('#count').textContent");
  assert.equal(await count(), 'Nobody else is here yet');
  const viewer = await call.bare('#1234', { room });
  await viewer.ask('play', {});
  await until('the viewer is counted', SEEN_MS, async () => await count() === '2 people');
  await viewer.ask('publish', { source: viewer.source });
  await shows(alice, '#1234', isSeenAndHeard);
  assert.deepEqual(await complaints(alice), []);
});

timedScenario('what plays goes on until what comes next does, when somebody begins to share a screen', async (call) => {
  const room = call.room();
  const [alice, bob] = [await caller(call, 'Alice', room), await caller(call, 'Bob', room)];
  await alice.evaluate(`(() => {
    const send = fetch;
    Object.assign(window, { made: [], ended: [] });
    window.fetch = (url, options = {}) => {
      const live = ({ receiver }) => !receiver.track.muted;
      const { connectionState } = made.at(-1) ?? {};
      if (options.method === 'DELETE') ended.push({ connectionState, live: made.at(-1).getTransceivers().filter(live).length });
      return send(url, options);
    };
    window.RTCPeerConnection = class extends RTCPeerConnection {
      constructor(...given) {
        super(...given);
        made.push(this);
      }
    };
  })()`);
  await bob.evaluate(CANVAS_AS_SCREEN);
  await enter(alice);
  await enter(bob);
  await shows(alice, 'Bob', isSeenAndHeard);
  await until('nothing is renewed', SEEN_MS, () => alice.evaluate("made.at(-1).connectionState === 'connected'"));
  const before = await alice.evaluate('ended.length');
  await bob.click('#screen');
  await shows(alice, 'Bob: screen', ({ seen, moves }) => seen && moves);
  const [last] = await alice.evaluate(`ended.slice(${before})`);
  assert.deepEqual(last, { connectionState: 'connected', live: 3 }, 'the old session ends when all of the new one flows');
  assert.ok(await tileOf(alice, 'Bob'));
  assert.deepEqual(await complaints(alice), []);
});

scenario('no more is asked for of a picture than its tile shows, nor sent than anybody asks for', async (call) => {
  const room = call.room();
  const [alice, bob] = [await caller(call, 'Alice', room), await caller(call, 'Bob', room)];
  await bob.evaluate(`window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...given) {
      super(...given);
      (window.made ??= []).push(this);
    }
  }`);
  await enter(alice);
  await enter(bob);
  await shows(alice, 'Bob', isSeenAndHeard);
  /** Which of Bob's sizes anybody wants, as the server and then Bob's own page have it. */
  const wanted = async () => {
    const { producers } = (await call.request('GET', `/media/room/${encodeURIComponent(room)}`)).data;
    const camera = producers.find(({ peerId, kind }) => peerId.startsWith('Bob') && kind === 'video');
    return (camera.demand ?? []).map((one) => one.wanted).join();
  };
  const sent = () => bob.evaluate(`made.flatMap((pc) => pc.getSenders()).map((sender) => sender.getParameters().encodings)
    .find(({ length }) => length === 3).map(({ active }) => active).join()`);
  const isMeant = (what) => until(`${what} is asked for`, 2 * SEEN_MS, async () => await wanted() === what);
  const isSent = (what) => until(`${what} is sent`, 2 * SEEN_MS, async () => await sent() === what);
  await isMeant('true,true,false');
  await isSent('true,true,false');
  await alice.look({ ...DESKTOP, width: 320, height: 600 });
  await isMeant('true,false,false');
  await isSent('true,false,false');
  await alice.look({ width: 1900, height: 1200 });
  await isMeant('true,true,true');
  await isSent('true,true,true');
  await shows(alice, 'Bob', isSeenAndHeard);

  const see = (state) => alice.evaluate(`Object.defineProperty(document, 'visibilityState', { value: '${state}', configurable: true });
    document.dispatchEvent(new Event('visibilitychange'))`);
  await see('hidden');
  await isMeant('false,false,false');
  await isSent('true,false,false');
  await see('visible');
  await isMeant('true,true,true');
  await shows(alice, 'Bob', isSeenAndHeard);
  for (const page of [alice, bob]) assert.deepEqual(await complaints(page), []);
});

scenario('two people call each other from the page, one of them in Firefox', async (call) => {
  const room = call.room();
  const alice = await caller(call, 'Alice', room);
  await enter(alice);
  const bob = await callerOfFirefox(call, 'Bob', room);
  await shows(bob, 'Bob (you)', ({ seen, moves }) => seen && moves);
  await Promise.all([shows(alice, 'Bob', isSeenAndHeard), shows(bob, 'Alice', isSeenAndHeard)]);
  await bob.evaluate("document.querySelector('#camera').click()");
  await shows(alice, 'Bob', ({ seen }) => !seen);
  await bob.evaluate("document.querySelector('#camera').click()");
  await shows(alice, 'Bob', isSeenAndHeard);
  await alice.click('#microphone');
  await shows(bob, 'Alice', ({ silent }) => silent);
  await bob.evaluate("document.querySelector('#leave').click()");
  await until('Bob is gone', SEEN_MS, async () => !(await tileOf(alice, 'Bob')));
  for (const page of [alice, bob]) assert.deepEqual(await complaints(page), []);
});

const OFFER = readFileSync(new URL('../../data/offers/ffmpeg.sdp', import.meta.url), 'utf8');
const NAMES = ['Al', 'Maximiliane-Charlotte von Hohenstein-Wolfenbüttel (Marketing)', '李小龍', '👩‍👩‍👧 family'];

scenario('the tiles of fifty people stand side by side, in any size of window, and none needs another page', async (call) => {
  const room = call.room();
  const alice = await caller(call, 'Alice', room);
  await enter(alice);
  await shows(alice, 'Alice (you)', ({ seen }) => seen);
  const joins = Array.from({ length: 49 }, (_, number) => {
    const query = new URLSearchParams({ peerId: `${NAMES[number % NAMES.length]} ${number}` });
    const url = `${call.server.api}/whip/${encodeURIComponent(room)}?${query}`;
    return fetch(url, { method: 'POST', headers: { 'content-type': 'application/sdp' }, body: OFFER });
  });
  for (const { status } of await Promise.all(joins)) assert.equal(status, 201);
  const places = () => alice.evaluate(`[...document.querySelectorAll('#tiles figure')].map((tile) => {
    const { left, top, right, bottom } = tile.getBoundingClientRect();
    return { left, top, right, bottom };
  })`);
  await until('all are there', SEEN_MS, async () => (await places()).length === 50);
  assert.equal(await alice.evaluate("document.querySelector('#count').textContent"), '50 people');
  for (const look of [DESKTOP, PHONE, { width: 1900, height: 1000, dark: true }]) {
    await picture(alice, `call-fifty-${look.width}`, look);
    const tiles = await places();
    const top = await alice.evaluate("document.querySelector('#tiles').getBoundingClientRect().top");
    assert.ok(Math.min(...tiles.map((tile) => tile.top)) >= top - 1, 'the first can be scrolled to');
    for (const [number, one] of tiles.entries()) {
      const [width, height] = [one.right - one.left, one.bottom - one.top];
      assert.ok(Math.abs(height - (width * 9) / 16) < 2, `${width} by ${height}`);
      const over = tiles.slice(number + 1).filter((other) => one.left < other.right - 1 && other.left < one.right - 1
        && one.top < other.bottom - 1 && other.top < one.bottom - 1);
      assert.deepEqual(over, [], `tile ${number} at ${look.width}`);
    }
    assert.equal(await alice.evaluate('document.documentElement.scrollWidth > innerWidth'), false);
  }
  assert.deepEqual(await complaints(alice), []);
});
