// The page at `/`, by hand: typed into, clicked, looked at and listened to.

import assert from 'node:assert/strict';
import {
  CANVAS_AS_SCREEN, DESKTOP, PHONE, SEEN_MS, caller, complaints, enter, isSeenAndHeard, picture, shows, tileOf,
} from '../harness/callpage.mjs';
import { scenario, until } from '../harness/stage.mjs';

scenario('two people call each other from the page by typing and clicking', async (call) => {
  const room = call.room();
  const alice = await caller(call, 'Alice', room);
  await picture(alice, 'door-desktop-light', DESKTOP);
  await picture(alice, 'door-phone-dark', { ...PHONE, dark: true });
  await alice.look(DESKTOP);
  await enter(alice);
  await shows(alice, 'Alice (you)', ({ seen, moves }) => seen && moves);
  const bob = await caller(call, 'Bob', room);
  await bob.click('#join .primary');
  await Promise.all([shows(alice, 'Bob', isSeenAndHeard), shows(bob, 'Alice', isSeenAndHeard)]);
  await shows(alice, 'Bob', ({ quality }) => quality === 'Good connection' || quality === 'Fair connection');
  assert.equal(await alice.evaluate("document.querySelector('#count').textContent"), '2 people');
  await picture(alice, 'call-desktop-light', DESKTOP);
  await picture(alice, 'call-desktop-dark', { ...DESKTOP, dark: true });
  await picture(bob, 'call-phone-light', PHONE);
  await picture(bob, 'call-phone-dark', { ...PHONE, dark: true });
  assert.deepEqual(await complaints(alice), []);

  await bob.click('#microphone');
  await shows(alice, 'Bob', ({ silent }) => silent);
  await bob.press('m');
  await shows(alice, 'Bob', ({ silent }) => !silent);
  await bob.click('#camera');
  await shows(alice, 'Bob', ({ seen }) => !seen);
  await picture(alice, 'call-camera-off-desktop-dark', { ...DESKTOP, dark: true });
  await bob.click('#camera');
  await shows(alice, 'Bob', isSeenAndHeard);

  await bob.click('#leave');
  await until('Bob is gone', SEEN_MS, async () => !(await tileOf(alice, 'Bob')));
  await alice.click('#leave');
  const gone = await fetch(`${call.server.api}/media/room/${encodeURIComponent(room)}`);
  await until('the room has ended', SEEN_MS, async () => gone.status === 404
    || (await fetch(`${call.server.api}/media/room/${encodeURIComponent(room)}`)).status === 404);
});

scenario('the page shows and hears a peer of mediasoup-client, and is seen by it', async (call) => {
  const room = call.room();
  const bob = await call.peer('bob', { room });
  await bob.publish({ codec: 'VP8' });
  await bob.follow();
  const alice = await caller(call, 'Alice', room);
  await enter(alice);
  await shows(alice, 'bob', isSeenAndHeard);
  const peers = async () => (await call.request('GET', `/media/room/${encodeURIComponent(room)}`)).data.peers;
  const name = (await peers()).map(({ peerId }) => peerId).find((peerId) => peerId.startsWith('Alice#'));
  await until('bob receives pictures of alice', SEEN_MS, async () => {
    const rows = await bob.consumerStats({ name }, 'inbound-rtp');
    return rows.some(({ framesDecoded }) => framesDecoded > 10);
  });
  await bob.leave();
  await until('bob is gone', SEEN_MS, async () => !(await tileOf(alice, 'bob')));
});

scenario('a screen is shared beside the camera, and devices can be chosen', async (call) => {
  const room = call.room();
  const [alice, bob] = [await caller(call, 'Alice', room), await caller(call, 'Bob', room)];
  await enter(alice);
  await enter(bob);
  await shows(alice, 'Bob', isSeenAndHeard);
  await bob.evaluate(CANVAS_AS_SCREEN);
  await bob.click('#screen');
  await shows(alice, 'Bob: screen', ({ seen, moves }) => seen && moves);
  await shows(alice, 'Bob', isSeenAndHeard);
  await picture(alice, 'call-screen-desktop-light', DESKTOP);
  await picture(alice, 'call-screen-phone-dark', { ...PHONE, dark: true });
  await alice.look(DESKTOP);
  await bob.click('#screen');
  await until('the screen is gone', SEEN_MS, async () => !(await tileOf(alice, 'Bob: screen')));

  await alice.click('#devices');
  await until('devices are listed', SEEN_MS, () => alice.evaluate("document.querySelector('#videoinput').options.length > 0"));
  await picture(alice, 'call-devices-desktop-light', DESKTOP);
  const cameras = await alice.evaluate("document.querySelector('#videoinput').options.length");
  await alice.evaluate(`(() => {
    const list = document.querySelector('#videoinput');
    list.selectedIndex = list.options.length - 1;
    list.dispatchEvent(new Event('change'));
  })()`);
  call.note(`${cameras} cameras`);
  await alice.click('#chooser .primary');
  await shows(bob, 'Alice', isSeenAndHeard);
});

scenario('every control has a name that a screen reader says, and the tab key reaches it', async (call) => {
  const room = call.room();
  const alice = await caller(call, 'Alice', room);
  await enter(alice);
  await shows(alice, 'Alice (you)', ({ seen }) => seen);
  const told = await alice.accessible();
  const buttons = told.filter(({ role }) => role === 'button').map(({ name }) => name);
  assert.deepEqual(buttons, ['Copy link', 'Microphone', 'Camera', 'Screen', 'Devices', 'Leave']);
  assert.ok(told.some(({ role, name }) => role === 'region' && name === 'People in the call'));
  const reached = [];
  for (let press = 0; press < 8; press += 1) {
    reached.push(await alice.evaluate('document.activeElement.id'));
    await alice.press('Tab', 'Tab');
  }
  for (const id of ['microphone', 'camera', 'screen', 'devices', 'leave']) assert.ok(reached.includes(id), `${id}: ${reached}`);
  const overflow = async (look) => {
    await alice.look(look);
    return alice.evaluate('document.documentElement.scrollWidth > innerWidth');
  };
  for (const look of [PHONE, { width: 320, height: 568, mobile: true }, DESKTOP]) assert.equal(await overflow(look), false);
});

scenario('the page uses the STUN and TURN servers that the server names', async (call) => {
  const room = call.room();
  const page = await caller(call, 'Alice', room);
  await page.evaluate(`window.made = [];
    window.RTCPeerConnection = class extends RTCPeerConnection {
      constructor(...given) {
        super(...given);
        made.push(this);
      }
    };`);
  await enter(page);
  await shows(page, 'Alice (you)', ({ seen, moves }) => seen && moves);
  const told = () => page.evaluate('made[0]?.getConfiguration().iceServers.map(({ urls }) => [urls].flat()[0]) ?? []');
  await until('the connection knows them', SEEN_MS, async () => (await told()).length === 2);
  assert.deepEqual(await told(), ['stun:127.0.0.1:9', 'stun:[::1]:9']);
  await until('it connects all the same', SEEN_MS, () => page.evaluate("made[0].connectionState === 'connected'"));
  assert.deepEqual(await complaints(page), []);
}, ['--ice-servers', 'stun:127.0.0.1:9,stun:[::1]:9']);
