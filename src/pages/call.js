// A whole client in one file. It publishes by WHIP, plays each other peer by WHEP, and learns from
// the room's event stream who is there. No library, and nothing that the API documents do not say.

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.hash.slice(1)).get('token');
const claims = claimsOf(token);
const base = new URL('.', location.href);
const RESTART_AFTER_MS = 3000;
const RETRY_MAX_MS = 30_000;
const FLOWING_MAX_MS = 4000;
const FIT_AFTER_MS = 300;
/** Who looks into another tab for a moment finds the pictures moving. */
const UNSEEN_AFTER_MS = 5000;
/** The heights, in pixels, that the layers below the best one fill, of what this page sends. */
const FILLED = [200, 400];
/** Of the finest screens, phones', nobody sees each pixel of a face. */
const FINEST = 1.5;
/** What is as loud as that, in dB below the loudest there is, is a voice. */
const AUDIBLE_DB = -50;
const SERVERS_KNOWN_MS = 3_600_000;
const SIMULCAST = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: 'f', maxBitrate: 1_500_000 },
];

/** What a room token says of itself; the server alone knows whether it is true. */
function claimsOf(text) {
  try {
    const bytes = atob(text.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0))));
  } catch {
    return {};
  }
}

/** One request; a refusal is thrown as the server's own sentence. */
async function ask(method, path, { body, type, headers = {}, keepalive } = {}) {
  if (token) headers.authorization = `Bearer ${token}`;
  if (type) headers['content-type'] = type;
  const answer = await fetch(new URL(path, base), { method, body, headers, keepalive }).catch(() => {
    throw Object.assign(new Error('the server does not answer'), { status: 0 });
  });
  if (answer.ok) return answer;
  const { data, code } = await answer.json().catch(() => ({ data: answer.statusText }));
  throw Object.assign(new Error(data), { code, status: answer.status });
}
/** It closed just now, or has not begun, or the server or its proxy is busy: not for long. */
const isPassing = ({ status }) => [0, 404, 409, 429, 502, 503, 504].includes(status);
const post = (path, value, more) =>
  ask('POST', path, { body: JSON.stringify(value), type: 'application/json', ...more });

/** The STUN and TURN servers that an endpoint names in its links, if any (RFC 9725, 4.6); asked for once in a while. */
const known = new Map();
function iceServers(path) {
  const endpoint = path.split('?')[0];
  const { at, servers } = known.get(endpoint) ?? {};
  if (servers && performance.now() - at < SERVERS_KNOWN_MS) return servers;
  const link = /<([^>]+)>; rel="ice-server"(?:; username="((?:[^"\\]|\\.)*)"; credential="((?:[^"\\]|\\.)*)")?/g;
  const asked = ask('OPTIONS', endpoint).then(({ headers }) => [...(headers.get('link') ?? '').matchAll(link)].map(([, urls, ...secrets]) => {
    const [username, credential] = secrets.map((text) => text?.replace(/\\(.)/g, '$1'));
    return username === undefined ? { urls } : { urls, username, credential };
  }));
  // Who is not told may be reached all the same, and asks again next time.
  const told = asked.catch(() => {
    known.delete(endpoint);
    return [];
  });
  known.set(endpoint, { at: performance.now(), servers: told });
  return told;
}

/**
 * Where a Location leads. The server does not know of what a proxy puts before its paths: they are below this page, unless
 * the proxy has seen to that.
 */
function ledTo(location, from) {
  const isOfServer = /^\/(?!\/)/.test(location) && !location.startsWith(base.pathname);
  return isOfServer ? new URL(location.slice(1), base) : new URL(location, from);
}

/** A WHIP or WHEP session: an offer is posted, the answer applied, and the Location is its handle. */
class Session {
  static async open(path, pc) {
    const session = new Session(pc);
    try {
      const servers = await iceServers(path);
      if (servers.length > 0) pc.setConfiguration({ ...pc.getConfiguration(), iceServers: servers });
      await pc.setLocalDescription();
      const { sdp } = pc.localDescription;
      const answer = await ask('POST', path, { body: sdp, type: 'application/sdp' });
      session.url = ledTo(answer.headers.get('location'), answer.url);
      session.answer = await answer.text();
      await pc.setRemoteDescription({ type: 'answer', sdp: session.answer });
      return session;
    } catch (error) {
      session.close();
      throw error;
    }
  }

  constructor(pc) {
    this.pc = pc;
    pc.addEventListener('connectionstatechange', () => this.#watch());
  }

  /** After a change of networks the browser finds a new way with a new ICE session. */
  #watch() {
    clearTimeout(this.late);
    const { connectionState } = this.pc;
    if (connectionState === 'failed') this.restart();
    if (connectionState === 'disconnected') this.late = setTimeout(() => this.restart(), RESTART_AFTER_MS);
  }

  async restart() {
    const { pc } = this;
    if (!this.url || pc.signalingState !== 'stable') return;
    pc.restartIce();
    await pc.setLocalDescription();
    const [ufrag, pwd] = credentials(pc.localDescription.sdp);
    const mid = /^a=mid:(\S+)/m.exec(pc.localDescription.sdp)[1];
    const body = `a=ice-ufrag:${ufrag}\r\na=ice-pwd:${pwd}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:${mid}\r\n`;
    try {
      const answer = await ask('PATCH', this.url, {
        body, type: 'application/trickle-ice-sdpfrag', headers: { 'if-match': '*' },
      });
      const [theirUfrag, theirPwd] = credentials(await answer.text());
      this.answer = this.answer
        .replace(/^a=ice-ufrag:.*$/gm, `a=ice-ufrag:${theirUfrag}`)
        .replace(/^a=ice-pwd:.*$/gm, `a=ice-pwd:${theirPwd}`);
      await pc.setRemoteDescription({ type: 'answer', sdp: this.answer });
    } catch (error) {
      if (pc.signalingState !== 'closed') await pc.setLocalDescription({ type: 'rollback' });
      if (error.status === 404) this.#lose();
      else this.late = setTimeout(() => this.restart(), RESTART_AFTER_MS);
    }
  }

  /** There is nothing to restart or to end any more; its connection stays until there is another one. */
  #lose() {
    clearTimeout(this.late);
    this.url = undefined;
    this.onlost?.();
  }

  /** The producer that each m-line carries, by its mid: an answer names it as the track. */
  producers() {
    return this.#told(/^a=mid:(\S+)/m, /^a=msid:\S+ (\S+)/m);
  }

  /** The consumer of each producer: an answer labels its m-line with it. */
  consumers() {
    return this.#told(/^a=msid:\S+ (\S+)/m, /^a=label:(\S+)/m);
  }

  #told(...lines) {
    const sections = this.answer.split(/^m=/m).slice(1);
    return new Map(sections.map((text) => lines.map((line) => line.exec(text)?.[1])));
  }

  close() {
    clearTimeout(this.late);
    this.onlost = undefined;
    // A connection that is closed before ends the session as well.
    if (this.url) ask('DELETE', this.url, { keepalive: true }).catch(() => {});
    this.pc.close();
  }
}

const credentials = (sdp) => ['ice-ufrag', 'ice-pwd'].map((name) => new RegExp(`^a=${name}:(\\S+)`, 'm').exec(sdp)[1]);

/* What is not seen is not asked for, nor more lines than a tile has. */

const inView = new Set();
let isUnseen = false;
function fitSoon() {
  clearTimeout(fitSoon.due);
  fitSoon.due = setTimeout(() => others.forEach((other) => other.fit()), FIT_AFTER_MS);
}
const tileSizes = new ResizeObserver(fitSoon);
const tilesInView = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) inView[isIntersecting ? 'add' : 'delete'](target);
  fitSoon();
});
document.addEventListener('visibilitychange', () => {
  const see = (unseen) => {
    isUnseen = unseen;
    fitSoon();
  };
  clearTimeout(fitSoon.unseen);
  if (document.visibilityState === 'visible') see(false);
  else fitSoon.unseen = setTimeout(see, UNSEEN_AFTER_MS, true);
});

/** What is shown of one source of one peer. */
class Tile {
  constructor(peerId, { screen = false, own = false } = {}) {
    this.figure = $('tile').content.cloneNode(true).firstElementChild;
    this.video = this.figure.querySelector('video');
    this.video.muted = own;
    this.figure.classList.toggle('screen', screen);
    this.figure.classList.toggle('mirrored', own && !screen);
    const name = shown(peerId) + (own ? ' (you)' : '') + (screen ? ': screen' : '');
    this.figure.querySelector('.who').textContent = name;
    this.figure.querySelector('.initial').textContent = [...shown(peerId)][0].toUpperCase();
    this.video.setAttribute('aria-label', name);
    this.video.addEventListener('resize', () => this.refresh());
    $('tiles').append(this.figure);
    if (own) return;
    tilesInView.observe(this.figure);
    tileSizes.observe(this.figure);
  }

  /** Shows these tracks; a picture that is switched off is shown as the name's first letter. */
  show(tracks, { dark = false, silent = false } = {}) {
    const now = this.video.srcObject?.getTracks() ?? [];
    if (now.length !== tracks.length || tracks.some((track) => !now.includes(track))) {
      this.video.srcObject = tracks.length ? new MediaStream(tracks) : null;
      if (speaker && this.video.setSinkId) this.video.setSinkId(speaker).catch(() => {});
      this.play();
    }
    this.dark = dark || !tracks.some(({ kind }) => kind === 'video');
    this.figure.querySelector('.muted').hidden = !silent;
    this.refresh();
  }

  /** Some browsers play nothing aloud before the page was touched. */
  play() {
    this.video.play().catch(({ name }) => {
      if (name === 'NotAllowedError') notice('Your browser waits for a click or a key before it lets you hear others.', { about: 'playing' });
    });
  }

  refresh() {
    this.figure.classList.toggle('seen', !this.dark && this.video.videoWidth > 0);
  }

  grade(grade) {
    const sign = this.figure.querySelector('.quality');
    sign.dataset.grade = grade;
    sign.setAttribute('aria-label', ['Connecting', 'Poor connection', 'Fair connection', 'Good connection'][grade]);
  }

  /** How many lines of a picture can be seen in it. */
  get lines() {
    const elsewhere = document.pictureInPictureElement === this.video;
    if (!elsewhere && (isUnseen || !inView.has(this.figure))) return 0;
    return this.figure.clientHeight * Math.min(devicePixelRatio, FINEST);
  }

  speaks(now) {
    this.figure.classList.toggle('speaks', now);
  }

  remove() {
    tilesInView.unobserve(this.figure);
    tileSizes.unobserve(this.figure);
    inView.delete(this.figure);
    this.video.srcObject = null;
    this.figure.remove();
  }
}

/** Waits until something has come of each track, or for as long as nobody wants to wait longer. */
async function flowing(tracks) {
  const first = (target, event) => new Promise((resolve) => { target.addEventListener(event, resolve, { once: true }); });
  const all = Promise.all(tracks.map((track) => track.muted && first(track, 'unmute')));
  await Promise.race([all, new Promise((resolve) => { setTimeout(resolve, FLOWING_MAX_MS); })]);
}

/** Somebody else: one WHEP session for all that they send, renewed when that changes. */
class Other {
  constructor(peerId) {
    this.peerId = peerId;
    this.producers = new Map();
    this.tracks = new Map();
    this.tiles = new Map();
    this.consumers = new Map();
    this.asked = new Map();
  }

  /** Producers of one publisher come one after the other: one session for all of them is enough. */
  change() {
    clearTimeout(this.due);
    this.due = setTimeout(() => {
      this.turn = (this.turn ?? Promise.resolve()).then(() => this.#renew()).catch((error) => this.#failed(error));
    }, 100);
  }

  async #renew() {
    const wanted = [...this.producers.keys()];
    if (this.gone || wanted.every((id) => this.tracks.has(id))) return this.draw();
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    for (const { kind } of this.producers.values()) pc.addTransceiver(kind, { direction: 'recvonly' });
    const query = new URLSearchParams({ peerId: this.peerId, viewerId: me.peerId });
    const session = await Session.open(`whep/${me.path}?${query}`, pc);
    if (this.gone) return session.close();
    // What plays goes on until the next one does.
    if (this.session?.pc.connectionState === 'connected') {
      this.next = session;
      const news = session.producers();
      const live = pc.getTransceivers().filter(({ mid }) => this.producers.get(news.get(mid))?.paused === false);
      await flowing(live.map(({ receiver }) => receiver.track));
      this.next = undefined;
      if (this.gone) return undefined;
      if (!session.url) throw Object.assign(new Error('the connection was lost'), { status: 0 });
    }
    session.onlost = () => {
      this.tracks.clear();
      this.change();
    };
    this.wait = undefined;
    this.session?.close();
    this.session = session;
    const carried = session.producers();
    [this.consumers, this.asked] = [session.consumers(), new Map()];
    fitSoon();
    this.tracks.clear();
    for (const { mid, receiver } of pc.getTransceivers()) {
      if (carried.get(mid)) this.tracks.set(carried.get(mid), receiver.track);
    }
    // What closed or came while the session was made is seen to by another one.
    if ([...this.producers.keys()].some((id) => !wanted.includes(id))) this.change();
    return this.draw();
  }

  /** Asks for what can be seen, one request after the other: what is right by then. */
  fit() {
    this.fitting = (this.fitting ?? Promise.resolve()).then(() => this.#fit()).catch(() => {});
  }

  async #fit() {
    for (const [id, { kind, source, type }] of [...this.producers]) {
      const consumer = this.consumers.get(id);
      const isScreen = source.startsWith('screen');
      const tile = this.tiles.get(String(isScreen));
      if (kind !== 'video' || !consumer || !tile || this.gone) continue;
      const { lines } = tile;
      const above = FILLED.findIndex((most) => lines <= most);
      const layer = isScreen || type === 'simple' || above < 0 ? FILLED.length : above;
      await this.#ask(consumer, lines === 0, layer);
    }
  }

  async #ask(consumer, paused, layer) {
    const before = this.asked.get(consumer) ?? { paused: false, layer: FILLED.length };
    const { asked } = this;
    const wish = { paused, layer: paused ? before.layer : layer };
    asked.set(consumer, wish);
    try {
      if (wish.layer !== before.layer) {
        const body = JSON.stringify({ spatialLayer: wish.layer });
        await ask('PUT', `media/consumer/${consumer}/layers`, { body, type: 'application/json' });
      }
      if (wish.paused !== before.paused) await post(`media/consumer/${consumer}/${paused ? 'pause' : 'resume'}`, {});
    } catch {
      // Asked for again with the next change.
      asked.set(consumer, before);
    }
  }

  #failed(error) {
    if (this.gone) return;
    this.wait = Math.min((this.wait ?? 500) * 2, RETRY_MAX_MS);
    if (isPassing(error)) setTimeout(() => this.change(), this.wait);
    else notice(`${shown(this.peerId)} cannot be shown: ${error.message}`);
  }

  draw() {
    const sides = { false: [], true: [] };
    for (const [id, producer] of this.producers) sides[producer.source.startsWith('screen')].push({ id, ...producer });
    for (const [screen, list] of Object.entries(sides)) {
      const wanted = screen === 'false' || list.length > 0;
      if (!wanted) {
        this.tiles.get(screen)?.remove();
        this.tiles.delete(screen);
        continue;
      }
      if (!this.tiles.has(screen)) this.tiles.set(screen, new Tile(this.peerId, { screen: screen === 'true' }));
      const tracks = list.map(({ id }) => this.tracks.get(id)).filter(Boolean);
      const off = (kind) => list.filter((producer) => producer.kind === kind).every(({ paused }) => paused);
      this.tiles.get(screen).show(tracks, { dark: off('video'), silent: screen === 'false' && off('audio') });
    }
  }

  close() {
    this.gone = true;
    clearTimeout(this.due);
    this.session?.close();
    this.next?.close();
    this.tiles.forEach((tile) => tile.remove());
  }
}

const others = new Map();
let me;
let speaker = '';
/** A name without what keeps it apart from others, of which something must be left. */
const shown = (peerId) => peerId.replace(/(.)#[0-9a-f]{4}$/s, '$1');

/** What is told until it is taken back, whatever else is told for a moment; by what it is about. */
const standing = new Map();
function show(text) {
  clearTimeout(notice.end);
  if ($('notice').textContent !== text) $('notice').textContent = text;
}
const showStanding = () => show([...standing.values()].at(-1) ?? '');

function notice(text, { about } = {}) {
  if (about) standing.set(about, text);
  show(text);
  if (!about) notice.end = setTimeout(showStanding, 6000);
}

function takeBack(about) {
  const told = standing.get(about);
  standing.delete(about);
  if ($('notice').textContent === told) showStanding();
}

/** Why somebody is not let in, in words for whoever opened the page. */
const refusal = ({ status, message }) => (status === 401 && !token
  ? 'This server lets in who is invited: open the whole link that you were given, with what follows its #.'
  : `You are not let in: ${message}.`);

/** Why a device cannot be used, in words for whoever it belongs to. */
const refusedBy = ({ name, message }) => ({
  NotAllowedError: 'this page may not use it; allow it beside the address',
  NotFoundError: 'there is none',
  NotReadableError: 'another program uses it',
  OverconstrainedError: 'it is gone',
})[name] ?? message;

/** The microphone and the camera, or what of them there is; nothing is no reason not to join. */
async function capture() {
  const media = navigator.mediaDevices;
  if (!media) {
    notice('Camera and microphone need https or localhost: you can watch only.');
    return [];
  }
  const video = { width: { ideal: 1280 }, height: { ideal: 720 } };
  const audio = { echoCancellation: true, noiseSuppression: true };
  for (const wish of [{ audio, video }, { audio }, { video }]) {
    try {
      return (await media.getUserMedia(wish)).getTracks();
    } catch (error) {
      if (wish.video && !wish.audio) notice(`No camera and no microphone: ${refusedBy(error)}. You can watch and listen.`);
    }
  }
  return [];
}

/** Who one is in a room; whatever takes time looks afterwards whether `me` is still the same. */
function person(room, name) {
  const suffix = crypto.getRandomValues(new Uint16Array(1))[0].toString(16).padStart(4, '0');
  // A token is for one name; without one, two people may type the same.
  const peerId = claims.sub ?? `${name}#${suffix}`;
  return { room, peerId, path: encodeURIComponent(room), own: new Map(), people: new Set() };
}

async function join(mine) {
  const { room } = mine;
  await post('media/room', { roomId: room, initiatorId: mine.peerId });
  if (me !== mine) return;
  // A token may be for watching alone.
  const publishes = !token || Boolean(claims.publish || claims.admin || claims.node);
  takeBack('door');
  const tracks = publishes ? await capture() : [];
  if (me !== mine) {
    tracks.forEach((track) => track.stop());
    return;
  }
  for (const id of ['microphone', 'camera', 'devices']) $(id).hidden = !publishes;
  $('screen').hidden = !publishes || !navigator.mediaDevices?.getDisplayMedia;
  $('door').hidden = true;
  $('call').hidden = false;
  document.body.dataset.state = 'inside';
  $('title').textContent = room;
  document.title = `${room}: call`;
  history.replaceState(null, '', `?${new URLSearchParams({ room })}${location.hash}`);
  if (publishes) {
    mine.tile = new Tile(mine.peerId, { own: true });
    await publish(mine, tracks);
    if (me !== mine) return;
  }
  follow();
  mine.timer = setInterval(measure, 2000);
  stayAwake();
  $(publishes ? 'microphone' : 'leave').focus();
}

/** One session for microphone and camera; each has its m-line, so that it can be switched on later. */
async function publish(mine, tracks) {
  const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  const stream = new MediaStream(tracks);
  for (const track of tracks) mind(mine, track);
  const line = (kind, more) => {
    const track = tracks.find((one) => one.kind === kind);
    return pc.addTransceiver(track ?? kind, { direction: 'sendonly', streams: [stream], ...more }).sender;
  };
  const senders = { audio: line('audio'), video: line('video', { sendEncodings: SIMULCAST }) };
  // Where a session was before, its senders are switched until there is another one.
  if (!mine.audio) Object.assign(mine, senders);
  const query = new URLSearchParams({ peerId: mine.peerId });
  const session = await Session.open(`whip/${mine.path}?${query}`, pc);
  if (me !== mine) return session.close();
  const current = Object.keys(senders).map((kind) => [senders[kind], mine[kind].track]);
  mine.session?.close();
  Object.assign(mine, senders, { session });
  session.onlost = () => renew({
    about: 'publishing',
    what: 'You are not seen or heard',
    isWanted: () => me === mine,
    gaveUp: (words) => notice(words, { about: 'publishing' }),
    open: () => publish(mine, [mine.audio.track, mine.video.track].filter(Boolean)),
  });
  await Promise.all(current.map(([sender, track]) => sender.track === track || sender.replaceTrack(track)));
  if (me === mine) refreshOwn();
  return undefined;
}

/** Encodes no size of the camera above those that anybody wants; the smallest is there for whoever comes. */
function meet(mine, producerId, demand) {
  const { kind, source } = mine.own.get(producerId) ?? {};
  if (kind !== 'video' || source.startsWith('screen') || demand.length !== SIMULCAST.length) return;
  const highest = demand.findLastIndex(({ wanted }) => wanted);
  mine.meeting = (mine.meeting ?? Promise.resolve()).then(async () => {
    const parameters = mine.video.getParameters();
    const wanted = parameters.encodings.map((_, size) => size <= Math.max(0, highest));
    if (parameters.encodings.every(({ active }, size) => active === wanted[size])) return;
    parameters.encodings.forEach((encoding, size) => { encoding.active = wanted[size]; });
    await mine.video.setParameters(parameters);
  }).catch(() => {});
}

/** Publishes what was lost anew: at once and then ever less often, until that works or is not wanted any more. */
async function renew({ about, what, isWanted, open, gaveUp }) {
  for (let wait = 1000; isWanted(); wait = Math.min(wait * 2, RETRY_MAX_MS)) {
    try {
      await open();
      return takeBack(about);
    } catch (error) {
      if (!isWanted()) return undefined;
      if (!isPassing(error)) return gaveUp(`${what} any more: ${error.message}`);
      notice(`${what} at the moment: ${error.message}. It is tried again.`, { about });
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  return undefined;
}

/** What the buttons say, what one's own tile shows, and what the server is told to pause. */
function refreshOwn() {
  if (!me.audio) return;
  const [audible, visible] = [me.audio, me.video].map(({ track }) => Boolean(track?.enabled));
  $('microphone').setAttribute('aria-pressed', audible);
  $('camera').setAttribute('aria-pressed', visible);
  $('screen').setAttribute('aria-pressed', Boolean(me.sharing));
  me.tile.show(me.video.track ? [me.video.track] : [], { dark: !visible, silent: !audible });
  for (const [id, { kind, source, paused }] of me.own) {
    if (source.startsWith('screen')) continue;
    const wanted = kind === 'audio' ? !audible : !visible;
    if (wanted !== paused) {
      me.own.get(id).paused = wanted;
      post(`media/producer/${id}/${wanted ? 'pause' : 'resume'}`, {}).catch(() => {});
    }
  }
}

/** The room's log: first a snapshot, then what happens; the browser reconnects where it was. */
function follow() {
  const query = token ? `?${new URLSearchParams({ access_token: token })}` : '';
  const events = new EventSource(new URL(`media/room/${me.path}/events${query}`, base));
  me.events = events;
  const on = (type, act) => events.addEventListener(type, ({ data }) => { act(JSON.parse(data).data); count(); });
  const mine = (peerId) => peerId === me.peerId;
  const add = ({ producerId, peerId, kind, source, type, paused, demand }) => {
    const producer = { kind, source, type, paused };
    if (mine(peerId)) {
      me.own.set(producerId, producer);
      if (demand) meet(me, producerId, demand);
      return refreshOwn();
    }
    if (!others.has(peerId)) others.set(peerId, new Other(peerId));
    others.get(peerId).producers.set(producerId, producer);
    return others.get(peerId).change();
  };
  const drop = (peerId) => {
    others.get(peerId)?.close();
    others.delete(peerId);
  };
  const pausing = (paused) => ({ producerId, peerId }) => {
    const producer = (mine(peerId) ? me.own : others.get(peerId)?.producers)?.get(producerId);
    if (producer) producer.paused = paused;
    others.get(peerId)?.draw();
  };
  on('snapshot', ({ peers, producers }) => {
    me.own.clear();
    me.people = new Set(peers.map(({ peerId }) => peerId));
    const ids = new Set(producers.map(({ producerId }) => producerId));
    for (const [peerId, other] of others) {
      for (const id of other.producers.keys()) if (!ids.has(id)) other.producers.delete(id);
      if (other.producers.size === 0) drop(peerId);
    }
    producers.forEach(add);
  });
  on('producer-added', add);
  on('producer-closed', ({ producerId, peerId }) => {
    me.own.delete(producerId);
    const other = others.get(peerId);
    if (!other) return;
    other.producers.delete(producerId);
    other.tracks.delete(producerId);
    other.draw();
  });
  on('producer-demand', ({ producerId, peerId, encodings }) => { if (mine(peerId)) meet(me, producerId, encodings); });
  on('producer-paused', pausing(true));
  on('producer-resumed', pausing(false));
  on('peer-joined', ({ peerId }) => {
    me.people.add(peerId);
    if (!mine(peerId)) notice(`${shown(peerId)} joined`);
  });
  on('peer-left', ({ peerId }) => {
    if (me.people.delete(peerId) && !mine(peerId)) notice(`${shown(peerId)} left`);
    drop(peerId);
  });
  on('audio-levels', ({ levels }) => {
    const heard = new Set(levels.filter(({ level }) => level >= AUDIBLE_DB).map(({ producerId }) => producerId));
    const speaks = (producers) => [...producers.keys()].some((id) => heard.has(id));
    me.tile?.speaks(speaks(me.own));
    others.forEach((other) => other.tiles.get('false')?.speaks(speaks(other.producers)));
  });
  events.addEventListener('error', () => {
    if (events.readyState !== EventSource.CLOSED || me?.events !== events) return;
    // The room is gone, or the server was away: it is made anew.
    setTimeout(async () => {
      if (me?.events !== events) return;
      try {
        await post('media/room', { roomId: me.room, initiatorId: me.peerId });
      } catch (error) {
        // Asking again does not make a token valid.
        if ([401, 403].includes(error.status)) return notice(`Who comes and goes is no longer told: ${error.message}`, { about: 'events' });
      }
      return me?.events === events && follow();
    }, 1000);
  });
}

function count() {
  // Who only watches is there as well.
  const people = new Set([...me.people, ...others.keys(), me.peerId]).size;
  $('count').textContent = people === 1 ? 'Nobody else is here yet' : `${people} people`;
}

/** 3 good, 2 fair, 1 poor, 0 not connected: by loss since the last look, and by round-trip time. */
async function grade(session) {
  if (session.pc.connectionState !== 'connected') return 0;
  let [lost, all, roundTrip] = [0, 0, 0];
  for (const row of (await session.pc.getStats()).values()) {
    if (row.type === 'inbound-rtp') {
      lost += row.packetsLost ?? 0;
      all += row.packetsReceived ?? 0;
    }
    if (row.type === 'outbound-rtp') all += row.packetsSent ?? 0;
    if (row.type === 'remote-inbound-rtp') lost += row.packetsLost ?? 0;
    if (row.type === 'candidate-pair' && row.nominated) roundTrip = row.currentRoundTripTime ?? 0;
  }
  const [lostNow, allNow] = [lost - (session.lost ?? 0), all - (session.all ?? 0)];
  Object.assign(session, { lost, all });
  const share = lostNow > 0 ? lostNow / Math.max(1, lostNow + allNow) : 0;
  if (share > 0.08 || roundTrip > 0.6) return 1;
  return share > 0.02 || roundTrip > 0.3 ? 2 : 3;
}

async function measure() {
  const looked = [[me.session, [me.tile]], ...[...others.values()].map(({ session, tiles }) => [session, [...tiles.values()]])];
  for (const [session, tiles] of looked) {
    if (!session) continue;
    const found = await grade(session).catch(() => 0);
    tiles.forEach((tile) => tile.grade(found));
  }
}

/** Switches one's microphone or camera; a camera that is off is let go, so that its light goes out. */
async function toggle(kind) {
  const mine = me;
  const { track } = mine[kind];
  try {
    if (track && kind === 'audio') track.enabled = !track.enabled;
    else if (track) await put(mine, kind, null);
    else await choose(kind, $(`${kind}input`).value);
  } catch (error) {
    notice(`${DEVICE[kind]}: ${refusedBy(error)}.`);
  }
  if (me === mine) refreshOwn();
}

const DEVICE = { audio: 'Microphone', video: 'Camera' };

/**
 * A device that is unplugged, or taken from the page, ends its track. Another microphone takes over, as the system decides;
 * another camera may show what nobody meant to show.
 */
function mind(mine, track) {
  if (track.minded) return;
  track.minded = true;
  const { kind } = track;
  track.addEventListener('ended', async () => {
    if (me !== mine || mine[kind]?.track !== track) return;
    const { enabled } = track;
    await put(mine, kind, null);
    const gone = `${DEVICE[kind]}: it was unplugged, or taken from this page.`;
    try {
      if (kind === 'video' || !(await another(kind))) throw new Error('');
      await choose(kind, '');
      if (me !== mine) return;
      mine[kind].track.enabled = enabled;
      notice(`${gone} Another one is used now: ${mine[kind].track.label}.`);
    } catch {
      if (me === mine) notice(gone);
    }
    if (me === mine) refreshOwn();
  });
}

const another = async (kind) => (await navigator.mediaDevices.enumerateDevices()).some((device) => device.kind === `${kind}input`);

async function put(mine, kind, track) {
  const sender = mine[kind];
  sender.track?.stop();
  await sender.replaceTrack(track);
  // Its session was made anew meanwhile.
  if (mine[kind] !== sender) await mine[kind].replaceTrack(track);
}

async function choose(kind, deviceId) {
  const mine = me;
  const size = kind === 'video' ? { width: { ideal: 1280 }, height: { ideal: 720 } } : {};
  const wish = { ...size, ...(deviceId && { deviceId: { exact: deviceId } }) };
  const stream = await navigator.mediaDevices.getUserMedia({ [kind]: wish });
  const [track] = stream.getTracks();
  if (me !== mine) return track.stop();
  mind(mine, track);
  return put(mine, kind, track);
}

/** A screen is a session of its own, with `source=screen`. */
async function toggleScreen() {
  const mine = me;
  if (mine.sharing) return stopSharing();
  const stream = await navigator.mediaDevices.getDisplayMedia({ video: true, audio: true }).catch(() => undefined);
  if (!stream) return undefined;
  const sharing = { stream };
  if (me !== mine || mine.sharing) return stream.getTracks().forEach((track) => track.stop());
  mine.sharing = sharing;
  stream.getVideoTracks()[0].addEventListener('ended', () => { if (me?.sharing === sharing) stopSharing(); });
  try {
    await share(mine, sharing);
  } catch (error) {
    if (me?.sharing !== sharing) return undefined;
    notice(error.message);
    stopSharing();
  }
  return undefined;
}

async function share(mine, sharing) {
  const { stream } = sharing;
  const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  for (const track of stream.getTracks()) pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
  const query = new URLSearchParams({ peerId: mine.peerId, source: 'screen' });
  const session = await Session.open(`whip/${mine.path}?${query}`, pc);
  if (me?.sharing !== sharing) return session.close();
  sharing.session?.close();
  sharing.session = session;
  session.onlost = () => renew({
    about: 'screen',
    what: 'Your screen is not shown',
    isWanted: () => me?.sharing === sharing,
    open: () => share(mine, sharing),
    gaveUp: (words) => {
      stopSharing();
      notice(words);
    },
  });
  sharing.tile ??= new Tile(mine.peerId, { own: true, screen: true });
  sharing.tile.show(stream.getVideoTracks());
  return refreshOwn();
}

function stopSharing() {
  if (!me?.sharing) return;
  const { stream, session, tile } = me.sharing;
  delete me.sharing;
  takeBack('screen');
  stream.getTracks().forEach((track) => track.stop());
  session?.close();
  tile?.remove();
  refreshOwn();
}

async function listDevices() {
  const devices = await navigator.mediaDevices?.enumerateDevices() ?? [];
  if (!me) return;
  const current = {
    audioinput: me.audio.track?.getSettings().deviceId,
    videoinput: me.video.track?.getSettings().deviceId,
    audiooutput: speaker,
  };
  for (const [kind, chosen] of Object.entries(current)) {
    const options = devices.filter((device) => device.kind === kind && device.deviceId)
      .map(({ deviceId, label }, index) => new Option(label || `Device ${index + 1}`, deviceId, false, deviceId === chosen));
    $(kind).replaceChildren(...(options.length ? options : [new Option('As the system decides', '')]));
    $(kind).disabled = options.length === 0;
  }
}

async function openDevices() {
  await listDevices();
  if (me) $('chooser').showModal();
}

function leave() {
  if (!me) return;
  const { path, peerId, events, session, timer, awake } = me;
  clearInterval(timer);
  awake?.release();
  events?.close();
  stopSharing();
  others.forEach((other) => other.close());
  others.clear();
  [me.audio, me.video].forEach((sender) => sender?.track?.stop());
  session?.close();
  me.tile?.remove();
  me = undefined;
  standing.clear();
  showStanding();
  post(`media/room/${path}/leave`, { peerId }, { keepalive: true }).catch(() => {});
  $('call').hidden = true;
  $('door').hidden = false;
  document.body.dataset.state = 'outside';
  $('room').focus();
}

$('join').addEventListener('submit', async (event) => {
  event.preventDefault();
  const [room, name] = [$('room').value.trim(), $('name').value.trim()];
  if (!room || !name || me) return;
  const mine = person(room, name);
  me = mine;
  try {
    await join(mine);
  } catch (error) {
    if (me !== mine) return;
    leave();
    notice(refusal(error), { about: 'door' });
  }
});
$('microphone').addEventListener('click', () => toggle('audio'));
$('camera').addEventListener('click', () => toggle('video'));
$('screen').addEventListener('click', toggleScreen);
$('devices').addEventListener('click', openDevices);
$('leave').addEventListener('click', leave);
$('invite').addEventListener('click', async () => {
  const link = new URL(`?${new URLSearchParams({ room: me.room })}`, base);
  await navigator.clipboard.writeText(link).then(() => notice('Link copied'), () => notice(String(link)));
});
for (const kind of ['audio', 'video']) {
  $(`${kind}input`).addEventListener('change', async ({ target }) => {
    const mine = me;
    const enabled = mine[kind].track?.enabled ?? true;
    await choose(kind, target.value).catch((error) => notice(`${DEVICE[kind]}: ${refusedBy(error)}.`));
    if (me !== mine) return;
    if (mine[kind].track) mine[kind].track.enabled = enabled;
    refreshOwn();
  });
}
$('audiooutput').addEventListener('change', ({ target }) => {
  speaker = target.value;
  document.querySelectorAll('#tiles video').forEach((video) => video.setSinkId?.(speaker).catch(() => {}));
});
document.addEventListener('keydown', ({ key, target, ctrlKey, metaKey, altKey }) => {
  const typing = target.closest('input, select, dialog');
  if (!me || typing || ctrlKey || metaKey || altKey) return;
  const button = { m: 'microphone', v: 'camera', s: 'screen' }[key.toLowerCase()];
  if (button && !$(button).hidden) $(button).click();
});
navigator.mediaDevices?.addEventListener('devicechange', () => { if (me && $('chooser').open) listDevices(); });
for (const touch of ['pointerup', 'keyup']) {
  addEventListener(touch, () => {
    if (!standing.has('playing')) return;
    takeBack('playing');
    document.querySelectorAll('#tiles video').forEach((video) => video.play().catch(() => {}));
  });
}
/** A phone's screen stays on during a call. */
async function stayAwake() {
  const mine = me;
  if (!mine || document.visibilityState !== 'visible') return;
  mine.awake = await navigator.wakeLock?.request('screen').catch(() => undefined);
  if (me !== mine) mine.awake?.release();
}
document.addEventListener('visibilitychange', stayAwake);
addEventListener('pagehide', leave);

// Without a token of their own nobody could follow the link.
$('invite').hidden = Boolean(token);
const asked = new URLSearchParams(location.search);
$('room').value = asked.get('room') ?? '';
$('name').value = asked.get('name') ?? '';
if (claims.room) document.querySelector('#join .hint').textContent = 'You were invited: the room and your name came with the link.';
for (const [id, claim] of [['room', claims.room], ['name', claims.sub]]) {
  if (!claim) continue;
  $(id).value = claim;
  $(id).readOnly = true;
}
($('room').value ? $('name') : $('room')).focus();
