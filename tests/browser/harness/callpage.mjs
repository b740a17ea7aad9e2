// The call page at `/` in a browser of its own, which has a camera and a microphone: opened, typed into, and what it shows.
// Screenshots go to RINGCAST_SCREENSHOTS where that names a folder.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after } from 'node:test';
import { Chromium, Firefox } from './browser.mjs';
import { until } from './stage.mjs';

export const DESKTOP = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 844, mobile: true };
export const SEEN_MS = 15_000;
const folder = process.env.RINGCAST_SCREENSHOTS;
/** A camera and a microphone that Chromium makes up, and nobody who asks whether they may be used. */
const FAKE = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];

let starting;
const browser = () => (starting ??= Chromium.start(FAKE));
/** The same in Firefox. */
const FAKED = { 'media.navigator.streams.fake': true, 'media.navigator.permission.disabled': true };
let startingFirefox;
after(async () => {
  await (await starting)?.close();
  await (await startingFirefox)?.close();
});

export async function picture(page, name, look) {
  await page.look(look);
  const png = await page.screenshot();
  assert.ok(png.length > 1_000, `${name} is a picture`);
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, `${name}.png`), png);
}

/** Opens a page of the server in that browser; the server is found `at` an address, where that is not its own. */
export async function opened(call, path, at = call.server.api) {
  const page = await (await browser()).visit(`${at}${path}`, { before: LISTEN });
  call.peers.push({ close: () => page.close() });
  await page.look(DESKTOP);
  return page;
}

/** A headless browser has no screen: run in a page, this gives it a moving canvas in its place. */
export const CANVAS_AS_SCREEN = `navigator.mediaDevices.getDisplayMedia = async () => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 360 });
  const context = canvas.getContext('2d');
  setInterval(() => {
    context.fillStyle = 'hsl(' + (Date.now() / 20) % 360 + ' 80% 50%)';
    context.fillRect(0, 0, 640, 360);
  }, 50);
  return canvas.captureStream(20);
}`;

/** The page of a freshly started server, a room and a name typed into it. */
export async function caller(call, name, room, at) {
  const page = await opened(call, '/', at);
  await until('the page is there', SEEN_MS, () => page.evaluate("document.activeElement?.id === 'room'"));
  await page.type(room);
  await page.press('Tab', 'Tab');
  await page.type(name);
  return page;
}

/** The same page in Firefox, with a room and a name put into it and sent off. */
export async function callerOfFirefox(call, name, room) {
  startingFirefox ??= Firefox.start(FAKED);
  const page = await (await startingFirefox).open(`${call.server.api}/`);
  call.peers.push({ close: () => page.close() });
  await page.evaluate(`(() => { ${LISTEN} })()`);
  await page.evaluate(`(() => {
    [document.querySelector('#room').value, document.querySelector('#name').value] = ${JSON.stringify([room, name])};
    document.querySelector('#join').requestSubmit();
  })()`);
  return page;
}

export const enter = (page) => page.press('Enter', 'Enter');

/** Name, whether its picture moves and has sound, and what is said of it, for each tile. */
const tiles = (page) => page.evaluate(`Promise.all([...document.querySelectorAll('#tiles figure')].map(async (figure) => {
  const video = figure.querySelector('video');
  const before = video.currentTime;
  await new Promise((resolve) => setTimeout(resolve, 300));
  return {
    who: figure.querySelector('.who').textContent,
    seen: figure.classList.contains('seen'),
    moves: video.currentTime > before && video.videoWidth > 0,
    tracks: (video.srcObject?.getTracks() ?? []).filter(({ muted }) => !muted).map(({ kind }) => kind).sort().join(),
    silent: !figure.querySelector('.muted').hidden,
    quality: figure.querySelector('.quality').getAttribute('aria-label'),
  };
}))`);

export const tileOf = async (page, who) => (await tiles(page)).find((tile) => tile.who === who);
export const shows = (page, who, what) => until(`${who} is shown`, SEEN_MS, async () => {
  const tile = await tileOf(page, who);
  return tile && what(tile) && tile;
});
export const isSeenAndHeard = ({ seen, moves, tracks }) => seen && moves && tracks === 'audio,video';

/** What the page did that its own policy forbids, and what it failed at. */
export const LISTEN = `window.complaints = [];
addEventListener('securitypolicyviolation', ({ blockedURI, violatedDirective }) => complaints.push(violatedDirective + ' ' + blockedURI));
addEventListener('error', ({ message }) => complaints.push(message));
addEventListener('unhandledrejection', ({ reason }) => complaints.push(String(reason)));`;
export const complaints = (page) => page.evaluate('window.complaints');

