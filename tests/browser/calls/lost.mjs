// The page at `/` when its server goes away and comes back, refuses for a while, or answers when nobody waits any more.

import assert from 'node:assert/strict';
import { createServer, request as sendOn } from 'node:http';
import { CANVAS_AS_SCREEN, SEEN_MS, caller, complaints, enter, isSeenAndHeard, shows, tileOf } from '../harness/callpage.mjs';
import { scenario, until } from '../harness/stage.mjs';

/** Until a browser finds that nobody is there, and the page has asked for what is lost, was refused and has asked again. */
const BACK_MS = 45_000;

/**
 * What the page asks for goes through `meddle(method, url)`, which may wait, or answer in the server's place. Its
 * connections are in `made`, its answered requests in `answered`; its screen is a canvas.
 */
const MEDDLED = `(() => {
  const send = fetch;
  Object.assign(window, { made: [], answered: [], meddle: () => undefined });
  window.fetch = async (url, options = {}) => {
    try {
      return await meddle(options.method, String(url)) ?? await send(url, options);
    } finally {
      answered.push(options.method + ' ' + url);
    }
  };
  window.refused = (status, data) => new Response(JSON.stringify({ success: false, data }), { status });
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...given) {
      super(...given);
      made.push(this);
    }
  };
  window.failed = (pc) => {
    Object.defineProperty(pc, 'connectionState', { value: 'failed', configurable: true });
    pc.dispatchEvent(new Event('connectionstatechange'));
    delete pc.connectionState;
  };
  ${CANVAS_AS_SCREEN};
})()`;

async function meddled(call, name, room, at) {
  const page = await caller(call, name, room, at);
  await page.evaluate(MEDDLED);
  return page;
}

const noticeOf = (page) => page.evaluate("document.querySelector('#notice').textContent");
const pressed = (page, id) => page.evaluate(`document.querySelector('#${id}').getAttribute('aria-pressed')`);
const answers = (page, what) => page.evaluate(`answered.filter((one) => one.includes(${JSON.stringify(what)})).length`);
const hears = (page, what, times = 1) => until(`${what} is answered`, SEEN_MS, async () => await answers(page, what) >= times);
/** What the page does of itself upon an answer is done after some others. */
const turns = async (page) => {
  for (let turn = 0; turn < 5; turn += 1) await page.evaluate("fetch('healthz').then((answer) => answer.text())");
};

scenario('a camera and a shared screen come back after a server that was killed, though it refuses them at first', async (call) => {
  const room = call.room();
  const [alice, bob] = [await meddled(call, 'Alice', room), await meddled(call, 'Bob', room)];
  await enter(alice);
  await enter(bob);
  await shows(alice, 'Bob', isSeenAndHeard);
  await bob.click('#screen');
  await shows(alice, 'Bob: screen', ({ seen, moves }) => seen && moves);
  await bob.evaluate(`(() => {
    let times = 0;
    meddle = (method, url) => (method === 'POST' && url.includes('/whip/') && (times += 1) <= 3
      ? refused(503, 'too much to do') : undefined);
  })()`);
  await call.server.again();
  await until('Bob is told', BACK_MS, async () => /too much to do\. It is tried again/.test(await noticeOf(bob)));
  const back = (who, what) => until(`${who} is back`, BACK_MS, async () => {
    const tile = await tileOf(alice, who);
    return tile && what(tile);
  });
  await back('Bob', isSeenAndHeard);
  await back('Bob: screen', ({ seen, moves }) => seen && moves);
  await until('nothing is told any more', SEEN_MS, async () => (await noticeOf(bob)) === '');
  await bob.click('#camera');
  await shows(alice, 'Bob', ({ seen }) => !seen);

  // What is refused for good is given up.
  await bob.evaluate(`meddle = (method, url) => (method === 'PATCH' ? refused(404, 'no such session')
    : method === 'POST' && url.includes('source=screen') ? refused(403, 'not for you') : undefined)`);
  await bob.evaluate('failed(made.findLast((pc) => pc.getSenders().length === 1 && pc.connectionState === "connected"))');
  await until('the screen is given up', SEEN_MS, async () => await pressed(bob, 'screen') === 'false');
  assert.equal(await noticeOf(bob), 'Your screen is not shown any more: not for you');
  await until('the screen is gone', SEEN_MS, async () => !(await tileOf(alice, 'Bob: screen')));
  for (const page of [alice, bob]) assert.deepEqual(await complaints(page), []);
});

scenario('who leaves or stops sharing while the server is slow leaves nothing behind', async (call) => {
  const [room, next] = [call.room(), call.room()];
  const path = `/media/room/${encodeURIComponent(room)}`;
  const ended = async () => (await call.request('GET', path)).status === 404;
  const bob = await meddled(call, 'Bob', room);
  const slowly = (method, what) => bob.evaluate(`(() => {
    const slow = new Promise((resolve) => { window.letGo = resolve; });
    window.waits = 0;
    meddle = (method, url) => (method === '${method}' && url.includes('${what}') ? (waits += 1, slow) : undefined);
  })()`);
  const waits = () => until('the page waits', SEEN_MS, () => bob.evaluate('waits > 0'));

  await slowly('POST', '/whip/');
  await enter(bob);
  await waits();
  await bob.click('#leave');
  await bob.evaluate('letGo()');
  await hears(bob, '/whip/');
  await hears(bob, 'DELETE ');
  await until('nobody is left', SEEN_MS, ended);
  assert.equal(await noticeOf(bob), '');

  await bob.click('#join .primary');
  await shows(bob, 'Bob (you)', ({ seen, moves }) => seen && moves);
  await slowly('POST', 'source=screen');
  await bob.click('#screen');
  await waits();
  await bob.click('#screen');
  await bob.evaluate('letGo()');
  await hears(bob, 'source=screen');
  await hears(bob, 'DELETE ', 2);
  const sources = async () => (await call.request('GET', path)).data.producers.map(({ source }) => source);
  await until('no screen is left', SEEN_MS, async () => !(await sources()).includes('screen'));
  assert.equal(await pressed(bob, 'screen'), 'false');
  assert.equal(await tileOf(bob, 'Bob (you): screen'), undefined);

  // That a session was lost is told in another room.
  await slowly('PATCH', '/session/');
  await bob.evaluate('failed(made.findLast((pc) => pc.connectionState === "connected"))');
  await waits();
  await bob.click('#leave');
  await until('nobody is left', SEEN_MS, ended);
  await bob.evaluate(`document.querySelector('#room').value = ${JSON.stringify(next)}`);
  await bob.click('#join .primary');
  await shows(bob, 'Bob (you)', ({ seen, moves }) => seen && moves);
  await until('it is connected', SEEN_MS, () => bob.evaluate('made.at(-1).connectionState === "connected"'));
  const before = await bob.evaluate('made.length');
  await bob.evaluate('letGo(refused(404, "no such session"))');
  await hears(bob, 'PATCH ');
  await turns(bob);
  assert.equal(await bob.evaluate('made.length'), before, 'nothing is published for who has left');
  assert.deepEqual(await complaints(bob), []);
});

/** The server below `/calls/`, as a reverse proxy that does not touch headers shows it; gives what was asked for. */
async function below(call) {
  const told = [];
  const server = createServer((request, response) => {
    const inside = /^\/calls(\/.*)$/.exec(request.url)?.[1];
    if (!inside) {
      told.push(`${request.method} ${request.url} 404`);
      response.writeHead(404).end();
      return;
    }
    const { method, headers } = request;
    const onward = sendOn(`${call.server.api}${inside}`, { method, headers }, (answer) => {
      told.push(`${method} ${request.url} ${answer.statusCode}`);
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  call.proxies.push({ close });
  return { at: `http://127.0.0.1:${server.address().port}/calls`, told };
}

scenario('sessions are restarted and ended behind a proxy that puts something before every path', async (call) => {
  const room = call.room();
  const { at, told } = await below(call);
  const [alice, bob] = [await meddled(call, 'Alice', room, at), await meddled(call, 'Bob', room, at)];
  await enter(alice);
  await enter(bob);
  await shows(alice, 'Bob', isSeenAndHeard);
  await alice.evaluate("made.filter(({ signalingState }) => signalingState === 'stable').forEach(failed)");
  const sessions = (verb) => told.filter((line) => line.startsWith(verb) && line.includes('/session/'));
  await until('both sessions of Alice are restarted', SEEN_MS, () => sessions('PATCH').length >= 2);
  await alice.click('#leave');
  await until('both sessions of Alice are ended', SEEN_MS, () => sessions('DELETE').length >= 2);
  for (const line of [...sessions('PATCH'), ...sessions('DELETE')]) {
    assert.match(line, /^(PATCH|DELETE) \/calls\/wh[ie]p\/session\/\S+ (200|404)$/);
  }
  for (const line of sessions('PATCH')) assert.match(line, / 200$/);
  for (const page of [alice, bob]) assert.deepEqual(await complaints(page), []);
});
