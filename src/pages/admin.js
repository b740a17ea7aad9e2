// A dashboard over what the API tells operators: `admin/status` every second while the page is seen, the rooms shown or
// the room that is open every other one. Rates are differences of counters between two answers.

const $ = (id) => document.getElementById(id);
const base = new URL('.', location.href);
const POLL_MS = 1000;
const HISTORY = 120;
const PAGE = 25;
const OBJECTS = 250;
const KEY = 'ringcast-key';

/** One request; a refusal is thrown as the server's own sentence. */
async function ask(method, path, body) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.authorization = `Bearer ${key}`;
  if (body) headers['content-type'] = 'application/json';
  const answer = await fetch(new URL(path, base), { method, headers, body: body && JSON.stringify(body), cache: 'no-store' });
  const { success, data, code } = await answer.json();
  if (success) return data;
  throw Object.assign(new Error(data), { code, status: answer.status });
}

/* What is shown is changed only where it differs, so that focus, selection and screen readers are left alone. */

function write(element, text) {
  const now = String(text);
  if (element.textContent !== now) element.textContent = now;
}

function make(tag, options = {}, ...children) {
  const element = Object.assign(document.createElement(tag), options);
  element.append(...children);
  return element;
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * A table whose rows live as long as what they are about. A column is a title and what it shows: text, or an element
 * that it made for this row and keeps.
 */
class Table {
  constructor(id, columns) {
    this.table = $(id);
    this.columns = columns;
    this.rows = new Map();
    for (const column of columns) {
      const cell = make('th', { scope: 'col', className: column.className ?? '' });
      cell.append(column.head?.() ?? column.title);
      this.table.tHead.rows[0].append(cell);
    }
  }

  show(items, keyOf) {
    const body = this.table.tBodies[0];
    const kept = new Set(items.map(keyOf));
    for (const [key, row] of this.rows) {
      if (kept.has(key)) continue;
      row.remove();
      this.rows.delete(key);
    }
    items.forEach((item, place) => {
      const key = keyOf(item);
      if (!this.rows.has(key)) this.rows.set(key, this.#row());
      const row = this.rows.get(key);
      if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] ?? null);
      this.columns.forEach((column, index) => this.#fill(row.cells[index], column, item));
    });
  }

  #row() {
    return make('tr', {}, ...this.columns.map((column, index) => {
      const cell = make(index === 0 ? 'th' : 'td', { className: column.className ?? '' });
      if (index === 0) cell.scope = 'row';
      return cell;
    }));
  }

  #fill(cell, { show, element }, item) {
    if (element) {
      const kept = cell.firstElementChild ?? element(item);
      if (!cell.firstElementChild) cell.append(kept);
      show(item, kept);
      return;
    }
    const told = show(item);
    const { text, bad } = typeof told === 'object' && told ? told : { text: told, bad: false };
    write(cell, text ?? '–');
    cell.classList.toggle('bad', Boolean(bad));
  }
}

const number = (title, show) => ({ title, show, className: 'number' });
const text = (title, show, className) => ({ title, show, className });

/* Numbers as people read them. */

const whole = new Intl.NumberFormat('en');
const count = (value) => (value === undefined ? undefined : whole.format(Math.round(value)));
const some = (value, one) => `${count(value)} ${one}${value === 1 ? '' : 's'}`;
const percent = (share) => (share === undefined ? undefined : `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`);

function scaled(value, units, step) {
  let [left, place] = [value, 0];
  while (left >= step && place < units.length - 1) {
    left /= step;
    place += 1;
  }
  const exact = left >= 100 || place === 0 || Number.isInteger(left);
  return `${exact ? Math.round(left) : left.toFixed(1)} ${units[place]}`;
}
const bits = (value) => (value === undefined ? undefined : scaled(value, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s'], 1000));
const bytes = (value) => scaled(value, ['B', 'KiB', 'MiB', 'GiB'], 1024);
const micros = (value) => scaled(value, ['µs', 'ms', 's'], 1000);

function duration(seconds) {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${Math.floor(seconds) % 60} s` : `${Math.floor(seconds)} s`;
}

/* The node and its shards. */

let before;
let now;
/** Busy shares of each shard, oldest first. */
const shares = new Map();

/** How much a shard's counter has grown per second since the last answer. */
function rate(shard, name) {
  const earlier = before?.shards.find((one) => one.shard === shard.shard);
  const seconds = before ? (now.at - before.at) / 1000 : 0;
  if (!earlier || seconds <= 0) return undefined;
  return Math.max(0, shard[name] - earlier[name]) / seconds;
}
const perSecond = (value) => (value === undefined ? undefined : `${count(value)}/s`);
const times = (value, factor) => (value === undefined ? undefined : value * factor);
const sum = (pick) => now.shards.reduce((all, shard) => all + (pick(shard) ?? 0), 0);

/** What part of the time a turn took that did something: how long, on average. */
function turn(shard) {
  const turns = rate(shard, 'turns');
  return turns ? micros((rate(shard, 'cpuNs') / turns) / 1000) : undefined;
}

function plot() {
  return svg('svg', { class: 'plot', viewBox: `0 0 ${HISTORY - 1} 1`, preserveAspectRatio: 'none', role: 'img' }, svg('path', {}));
}

function draw({ shard, busy }, element) {
  const points = shares.get(shard) ?? [];
  const from = HISTORY - points.length;
  const line = points.map((share, place) => `${from + place} ${(1 - Math.min(1, share)).toFixed(3)}`).join('L');
  element.firstElementChild.setAttribute('d', `M${from} 1L${line}L${HISTORY - 1} 1Z`);
  element.setAttribute('aria-label', `Busy ${percent(busy)}, at most ${percent(Math.max(...points, 0))} while this page was open`);
}

const shards = new Table('shards', [
  text('Shard', ({ shard, alive }) => ({ text: alive ? shard : `${shard}: does not turn`, bad: !alive })),
  number('Busy', ({ busy }) => ({ text: percent(busy), bad: busy > 0.9 })),
  { title: 'Busy, plotted', show: draw, element: plot },
  number('Packets in', (shard) => perSecond(rate(shard, 'packetsIn'))),
  number('Packets out', (shard) => perSecond(rate(shard, 'packetsOut'))),
  number('In', (shard) => bits(times(rate(shard, 'bytesIn'), 8))),
  number('Out', (shard) => bits(times(rate(shard, 'bytesOut'), 8))),
  number('Turn', turn),
  number('p50', ({ forwardLatency }) => latencyOf(forwardLatency, 'p50Us')),
  number('p99', ({ forwardLatency }) => latencyOf(forwardLatency, 'p99Us')),
  number('Transports', ({ transportsConnected, transports }) => `${count(transportsConnected)} of ${count(transports)}`),
  number('Producers', ({ producers, mirrors }) => (mirrors ? `${count(producers)} + ${count(mirrors)} mirrored` : count(producers))),
  number('Consumers', ({ consumers, consumersStopped }) => (consumersStopped ? `${count(consumers)}, ${count(consumersStopped)} stopped` : count(consumers))),
  number('Rooms', ({ rooms }) => count(rooms)),
  number('Handed over', (shard) => perSecond(rate(shard, 'handedOff'))),
  number('Let go', ({ discarded }) => count(discarded)),
  number('Shed', ({ shed }) => ({ text: count(shed), bad: shed > 0 })),
  number('Kernel drops', ({ kernelDropped }) => ({ text: count(kernelDropped), bad: kernelDropped > 0 })),
  number('Packet memory', ({ ringBytes }) => bytes(ringBytes)),
]);
const latencyOf = ({ last10Seconds }, name) => (last10Seconds.count ? micros(last10Seconds[name]) : undefined);

const FACTS = {
  'Media addresses': () => now.media.addresses.join(', ') || 'none',
  'Media port': () => `${now.media.port} (${[now.media.udp && 'UDP', now.media.tcp && 'TCP'].filter(Boolean).join(', ')})`,
  Runtime: () => (now.shards.every(({ onGlommio }) => onGlommio) ? 'io_uring' : 'plain threads'),
  Steering: () => (now.shards.some(({ steering }) => steering) ? 'by the kernel' : now.shards.length > 1 ? 'by the shards' : 'not needed'),
  Rooms: () => count(now.rooms),
  Peers: () => count(now.peers),
  Transports: () => count(now.transports),
  Producers: () => count(now.producers),
  Consumers: () => count(now.consumers),
  'Busiest shard': () => percent(Math.max(0, ...now.shards.map(({ busy }) => busy))),
  'Packets in': () => `${count(sum((shard) => rate(shard, 'packetsIn')))}/s`,
  'Packets out': () => `${count(sum((shard) => rate(shard, 'packetsOut')))}/s`,
  In: () => bits(sum((shard) => rate(shard, 'bytesIn')) * 8),
  Out: () => bits(sum((shard) => rate(shard, 'bytesOut')) * 8),
  'Estimated for all clients': () => bits(sum(({ estimateBps }) => estimateBps)),
};

function showFacts() {
  const list = $('facts');
  for (const [name, value] of Object.entries(FACTS)) {
    let place = list.querySelector(`[data-fact="${name}"]`);
    if (!place) {
      place = make('dd');
      place.dataset.fact = name;
      list.append(make('div', {}, make('dt', { textContent: name }), place));
    }
    write(place, value());
  }
}

function showState() {
  const [state, words] = (() => {
    if (!now.healthy) return ['bad', 'A shard does not turn'];
    if (now.drain.state === 'stopping') return ['warn', 'Stopping'];
    if (now.drain.state === 'draining') return ['warn', 'Draining'];
    return now.ready ? ['good', 'Ready'] : ['warn', 'Busy: not ready for more'];
  })();
  $('state').dataset.state = state;
  write($('state'), words);
  write($('version'), `version ${now.version}, up ${duration(now.uptimeSeconds)}`);
  write($('readers'), `${some(now.eventReaders, 'reader')} of room events connected.`);
  showKey();
}

/* Draining. */

let mostRooms = 0;

function showDrain() {
  const { state, rooms, peers, secondsLeft, exits, signalled } = now.drain;
  const draining = state !== 'serving';
  mostRooms = draining ? Math.max(mostRooms, rooms) : 0;
  const left = `${some(rooms, 'room')} with ${some(peers, 'peer')} ${rooms === 1 ? 'is' : 'are'} left`;
  const end = exits ? 'then the process ends' : 'then the node stays without rooms';
  const words = {
    serving: 'New rooms begin here.',
    stopping: 'The process ends.',
    draining: rooms === 0 ? 'Drained: no rooms are left, and no new ones begin.'
      : `No new rooms begin. ${left}; what is left is cut off in ${duration(secondsLeft)}, ${end}.`,
  };
  write($('drain-text'), words[state]);
  $('drain-progress').hidden = !draining || mostRooms === 0;
  $('drain-progress').max = Math.max(1, mostRooms);
  $('drain-progress').value = mostRooms - rooms;
  write($('drain'), draining ? 'Change…' : 'Drain…');
  $('drain').hidden = state === 'stopping';
  $('undrain').hidden = state !== 'draining' || signalled;
}

$('drain').addEventListener('click', () => {
  const { state, secondsLeft, exits } = now?.drain ?? {};
  $('minutes').value = state === 'draining' ? Math.ceil(secondsLeft / 60) : 60;
  $('exit').checked = Boolean(exits);
  $('drain-dialog').showModal();
});
$('drain-dialog').addEventListener('close', async () => {
  if ($('drain-dialog').returnValue !== 'drain') return;
  const passed = now.drain.since ? (Date.now() + now.skew - Date.parse(now.drain.since)) / 1000 : 0;
  const seconds = Math.round(Math.max(0, passed) + Number($('minutes').value) * 60);
  await act('POST', { deadlineSeconds: Math.min(86400, seconds), exit: $('exit').checked });
});
$('undrain').addEventListener('click', () => act('DELETE'));

async function act(method, body) {
  try {
    const drain = await ask(method, 'admin/drain', body);
    now = { ...now, drain };
    notice('');
    showDrain();
    $('drain').focus();
    turns = 0;
    look();
  } catch (error) {
    refused(error);
  }
}

/* Latencies, what is let go, outlets. */

function bar() {
  return svg('svg', { class: 'bar', viewBox: '0 0 100 10', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, svg('rect', { height: 10 }));
}

function showLatency() {
  const { boundsUs, last10Seconds, sinceStart } = now.latencyHistogram;
  const most = Math.max(...last10Seconds);
  const body = $('latency').tBodies[0];
  last10Seconds.forEach((few, place) => {
    const row = body.rows[place] ?? body.appendChild(make('tr', {},
      make('th', { scope: 'row', textContent: boundsUs[place] ? micros(boundsUs[place]) : 'longer' }),
      make('td', { className: 'number' }), make('td', {}, bar()), make('td', { className: 'number' })));
    write(row.cells[1], count(few));
    row.querySelector('rect').setAttribute('width', most ? (few / most) * 100 : 0);
    write(row.cells[3], count(sinceStart[place]));
  });
  const { count: packets, p50Us, p90Us, p99Us, p999Us, maxUs } = now.forwardLatency.last10Seconds;
  write($('quantiles'), packets === 0 ? 'Nothing was forwarded in the last ten seconds.'
    : `Half of ${count(packets)} packets within ${micros(p50Us)}, 90 % within ${micros(p90Us)}, 99 % within ${micros(p99Us)}, `
      + `99.9 % within ${micros(p999Us)}, the longest ${micros(maxUs)}.`);
}

const outlets = new Table('outlets', [
  text('Outlet', ({ name }) => name),
  text('State', ({ up }) => ({ text: up ? 'takes messages' : 'takes none', bad: !up })),
  number('Waiting', ({ waiting }) => count(waiting)),
  number('Delivered', ({ delivered }) => count(delivered)),
  number('Failed', ({ failed }) => ({ text: count(failed), bad: failed > 0 })),
  number('Lost', ({ lost }) => ({ text: count(lost), bad: lost > 0 })),
  number('Refused', ({ refused }) => ({ text: count(refused), bad: refused > 0 })),
  number('On disk', ({ spooledBytes }) => bytes(spooledBytes)),
]);

function showOutlets() {
  outlets.show(now.outlets, ({ name }) => name);
  $('outlets').parentElement.hidden = now.outlets.length === 0;
  $('no-outlets').hidden = now.outlets.length > 0;
}

function showDiscards() {
  const found = Object.entries(now.discards);
  $('discards').hidden = found.length === 0;
  $('no-discards').hidden = found.length > 0;
  const body = $('discards').tBodies[0];
  body.replaceChildren(...found.map(([reason, times]) => make('tr', {},
    make('th', { scope: 'row', textContent: reason.replaceAll('_', ' ') }), make('td', { className: 'number', textContent: count(times) }))));
}

/* The list of rooms. */

const sorting = { by: 'peers', descending: true, offset: 0 };

/** A title that sorts: numbers the greatest first, names from A. */
function sortable(title, by, show, more = {}) {
  const head = () => {
    const button = make('button', { type: 'button', textContent: title });
    button.addEventListener('click', () => {
      sorting.descending = sorting.by === by ? !sorting.descending : by !== 'name';
      Object.assign(sorting, { by, offset: 0 });
      askRooms();
    });
    return button;
  };
  return { title, by, show, head, ...more };
}

const list = new Table('list', [
  sortable('Room', 'name', ({ roomId }, button) => {
    write(button, roomId);
    button.onclick = () => open(roomId);
  }, { element: () => make('button', { type: 'button' }) }),
  sortable('Peers', 'peers', ({ peers }) => count(peers), { className: 'number' }),
  sortable('Producers', 'producers', ({ producers }) => count(producers), { className: 'number' }),
  sortable('Consumers', 'consumers', ({ consumers }) => count(consumers), { className: 'number' }),
  number('In', ({ recvBitrate }) => bits(recvBitrate)),
  number('Out', ({ sendBitrate }) => bits(sendBitrate)),
  sortable('Age', 'age', ({ ageSeconds }) => duration(ageSeconds), { className: 'number' }),
  text('Shards', ({ shards: of }) => of.join(', ')),
]);

function showRooms({ rooms, total }) {
  list.show(rooms, ({ roomId }) => roomId);
  [...$('list').tHead.rows[0].cells].forEach((cell, place) => {
    const { by } = list.columns[place];
    if (!by) return;
    const order = sorting.descending ? 'descending' : 'ascending';
    cell.setAttribute('aria-sort', by === sorting.by ? order : 'none');
  });
  const last = sorting.offset + rooms.length;
  write($('range'), total === 0 ? 'No rooms' : `${count(sorting.offset + 1)}–${count(last)} of ${count(total)}`);
  $('previous').disabled = sorting.offset === 0;
  $('next').disabled = last >= total;
  // Rooms have ended behind one's back.
  if (rooms.length === 0 && sorting.offset > 0) sorting.offset = 0;
}

let asked = 0;
async function askRooms() {
  const query = new URLSearchParams({
    sort: sorting.by, order: sorting.descending ? 'desc' : 'asc', offset: sorting.offset, limit: PAGE,
  });
  if ($('query').value) query.set('query', $('query').value);
  asked += 1;
  const own = asked;
  try {
    const told = await ask('GET', `admin/rooms?${query}`);
    answered('rooms');
    if (own === asked) showRooms(told);
  } catch (error) {
    refused(error, 'rooms');
  }
}

$('find').addEventListener('submit', (event) => event.preventDefault());
$('query').addEventListener('input', () => {
  sorting.offset = 0;
  clearTimeout(askRooms.late);
  askRooms.late = setTimeout(askRooms, 200);
});
$('previous').addEventListener('click', () => {
  sorting.offset = Math.max(0, sorting.offset - PAGE);
  askRooms();
});
$('next').addEventListener('click', () => {
  sorting.offset += PAGE;
  askRooms();
});

/* One room. */

let shown;

const layers = (of) => (of ? `${of.spatialLayer}.${of.temporalLayer ?? 0}` : 'none');
const lossOf = ({ fractionLost }) => ({ text: percent(fractionLost / 256), bad: fractionLost / 256 > 0.05 });
const worst = (rows, pick) => rows.map(pick).filter((value) => value !== undefined).reduce((a, b) => Math.max(a ?? b, b), undefined);
const scored = (score) => ({ text: `${score} of 10`, bad: score < 5 });

/** Streams to or from the client of a transport, as far as they are on this page. */
const streamsOf = (transportId) => [...shown.stats.producers, ...shown.stats.consumers]
  .filter((one) => one.transportId === transportId).flatMap(({ stats }) => stats.slice());

const transports = new Table('transports', [
  text('Peer', ({ peerId }) => peerId),
  text('Direction', ({ direction }) => (direction === 'send' ? 'from the client' : 'to the client')),
  text('State', ({ iceState, dtlsState }) => ({ text: `ICE ${iceState}, DTLS ${dtlsState}`, bad: iceState === 'disconnected' || dtlsState === 'failed' })),
  text('Client', ({ iceSelectedTuple: at }) => (at ? `${at.remoteIp}:${at.remotePort} ${at.protocol.toUpperCase()}` : undefined)),
  number('In', ({ recvBitrate }) => bits(recvBitrate)),
  number('Out', ({ sendBitrate }) => bits(sendBitrate)),
  number('Can be sent', ({ availableOutgoingBitrate }) => bits(availableOutgoingBitrate)),
  number('May send', ({ availableIncomingBitrate }) => bits(availableIncomingBitrate)),
  number('Loss', ({ transportId }) => {
    const lost = worst(streamsOf(transportId), ({ fractionLost }) => fractionLost);
    return lost === undefined ? undefined : lossOf({ fractionLost: lost });
  }),
  number('Round trip', ({ transportId }) => {
    const time = worst(streamsOf(transportId), ({ roundTripTime }) => roundTripTime);
    return time === undefined ? undefined : { text: `${Math.round(time)} ms`, bad: time > 400 };
  }),
  number('Shard', ({ shard }) => shard),
]);

const producers = new Table('producers', [
  text('Peer', ({ peerId }) => peerId),
  text('What', ({ source, kind, type, paused }) => `${source} (${kind}, ${type})${paused ? ', paused' : ''}`),
  text('Codec', ({ stats }) => stats[0]?.mimeType.split('/')[1]),
  text('Score', ({ score }) => (score.length ? { text: score.map((one) => one.score).join(', '), bad: score.every((one) => one.score < 5) } : undefined)),
  text('Bitrate, by encoding', ({ stats }) => stats.map(({ bitrate, rid }) => (rid ? `${rid}: ${bits(bitrate)}` : bits(bitrate))).join(', ') || undefined),
  number('Loss', ({ stats }) => (stats.length ? lossOf({ fractionLost: worst(stats, ({ fractionLost }) => fractionLost) }) : undefined)),
  number('Asked again', ({ stats }) => count(stats.reduce((all, one) => all + one.nackPacketCount, 0))),
  number('Key frames asked', ({ stats }) => count(stats.reduce((all, one) => all + one.pliCount + one.firCount, 0))),
]);

const WHY = {
  preferred: 'all that it wants', bandwidth: 'the next step does not fit', settling: 'the next step did not fit a moment ago',
  'not-arriving': 'more does not arrive', young: 'more has only just begun to arrive', paused: 'paused', 'not-connected': 'not connected',
};

const consumers = new Table('consumers', [
  text('Peer', ({ peerId }) => peerId),
  text('Gets', ({ source, producerPeerId }) => `${source} of ${producerPeerId}`),
  text('Layers', ({ currentLayers, targetLayers, preferredLayers }) => {
    if (!currentLayers && !targetLayers && !preferredLayers) return undefined;
    const to = targetLayers && layers(targetLayers) !== layers(currentLayers) ? ` → ${layers(targetLayers)}` : '';
    return `${layers(currentLayers)}${to} of ${layers(preferredLayers)}`;
  }),
  text('Why', ({ why, paused, producerPaused }) => {
    if (paused || producerPaused) return paused ? 'paused' : 'its producer is paused';
    if (!why) return undefined;
    const needs = why.neededBitrate && why.availableBitrate ? `: ${bits(why.neededBitrate)} wanted, ${bits(why.availableBitrate)} there` : '';
    return `${WHY[why.reason] ?? why.reason}${why.reason === 'bandwidth' ? needs : ''}`;
  }, 'wide'),
  number('Score', ({ score }) => scored(score.score)),
  number('Bitrate', ({ stats }) => bits(stats[0]?.bitrate)),
  number('Loss', ({ stats }) => (stats[0] ? lossOf(stats[0]) : undefined)),
  number('Round trip', ({ stats }) => (stats[0]?.roundTripTime === undefined ? undefined : `${Math.round(stats[0].roundTripTime)} ms`)),
  number('Sent again', ({ stats }) => count(stats[0]?.packetsRetransmitted)),
  number('Priority', ({ priority }) => priority),
]);

function open(roomId) {
  shown = { roomId, cursor: undefined };
  location.hash = new URLSearchParams({ room: roomId });
  $('room').hidden = false;
  write($('room-title'), `Room ${roomId}`);
  write($('room-text'), 'Asking');
  for (const table of [transports, producers, consumers]) table.show([], () => '');
  for (const button of ['first-page', 'more-page']) $(button).hidden = true;
  $('room-title').focus();
  $('room').scrollIntoView({ block: 'start' });
  askRoom();
}

function close() {
  shown = undefined;
  $('room').hidden = true;
  history.replaceState(null, '', location.pathname);
  $('rooms').focus();
}

async function askRoom() {
  const room = shown;
  if (!room) return;
  const path = `media/room/${encodeURIComponent(room.roomId)}`;
  const query = new URLSearchParams({ limit: OBJECTS, ...(room.cursor && { cursor: room.cursor }) });
  try {
    // One page of it, however big it is.
    const stats = await ask('GET', `${path}/stats?${query}`);
    answered('rooms');
    if (room !== shown) return;
    room.stats = stats;
    const { room: { peers, producers: sent, createdAt, shard }, speaker } = stats;
    write($('room-text'), `${some(peers, 'peer')}, ${some(sent, 'producer')}, since `
      + `${new Date(createdAt).toLocaleString()}; began on shard ${shard}${speaker ? `; ${speaker} spoke last` : ''}.`);
    transports.show(stats.transports, ({ transportId }) => transportId);
    producers.show(stats.producers, ({ producerId }) => producerId);
    consumers.show(stats.consumers, ({ consumerId }) => consumerId);
    $('first-page').hidden = !room.cursor;
    $('more-page').hidden = !stats.nextCursor;
  } catch (error) {
    if (room !== shown) return;
    if (error.status !== 404) return refused(error, 'rooms');
    answered('rooms');
    write($('room-text'), 'This room has ended.');
  }
}

/** Another page; an answer about the one before comes too late. */
function turnTo(cursor) {
  if (!shown) return;
  shown = { roomId: shown.roomId, stats: shown.stats, cursor };
  askRoom();
}
$('back').addEventListener('click', close);
$('first-page').addEventListener('click', () => {
  turnTo(undefined);
});
$('more-page').addEventListener('click', () => {
  if (shown?.stats?.nextCursor) turnTo(shown.stats.nextCursor);
});

/* Asking, over and over. */

/** Words that stay until others come; what is asked over and over takes back its own when it is answered. */
function notice(words, by) {
  notice.by = by;
  write($('notice'), words);
}

function answered(by) {
  if (notice.by !== by) return;
  notice('');
  showKey();
}

/** A refusal, and by what it was met, where that asks again of itself. */
function refused(error, by) {
  // A room token is one, but not for this page.
  const useless = error.status === 403 && sessionStorage.getItem(KEY);
  if (error.status === 401 || useless) return askForKey(error.message);
  return error.status ? notice(error.message, by) : notice('The server does not answer.', 'status');
}

function askForKey(why) {
  if ($('key-dialog').open) return;
  const wrong = sessionStorage.getItem(KEY);
  write($('key-text'), wrong && why ? `The key is not taken: ${why}.` : 'This server asks for a key. It is kept in this tab alone, until that closes.');
  $('key').value = '';
  $('key-dialog').showModal();
}
$('key-dialog').addEventListener('close', () => {
  const given = $('key-dialog').returnValue === 'key' && $('key').value.trim();
  $('key').value = '';
  $('key-dialog').returnValue = '';
  if (given) {
    sessionStorage.setItem(KEY, given);
    notice('');
    look();
    return;
  }
  // Whoever has none is not asked again and again.
  notice('This server asks for a key.');
  showKey();
  $('forget').focus();
});
$('forget').addEventListener('click', () => {
  if (!sessionStorage.getItem(KEY)) return askForKey();
  sessionStorage.removeItem(KEY);
  return look();
});

/** With a key it may be forgotten; where one is asked for it may be entered. */
function showKey() {
  const known = Boolean(sessionStorage.getItem(KEY));
  write($('forget'), known ? 'Forget key' : 'Enter a key');
  $('forget').hidden = !known && $('notice').textContent === '';
}

function take(status) {
  const at = performance.now();
  before = now;
  now = { ...status, at, skew: Date.parse(status.time) - Date.now() };
  for (const { shard, busy } of now.shards) {
    const points = shares.get(shard) ?? [];
    points.push(busy);
    shares.set(shard, points.slice(-HISTORY));
  }
  showState();
  showFacts();
  showDrain();
  shards.show(now.shards, ({ shard }) => shard);
  showLatency();
  showOutlets();
  showDiscards();
}

let turns = 0;
async function look() {
  clearTimeout(look.next);
  if (document.hidden || $('key-dialog').open) return;
  try {
    take(await ask('GET', 'admin/status'));
    answered('status');
    document.body.classList.remove('stale');
    if (turns % 2 === 0) await (shown ? askRoom() : askRooms());
    turns += 1;
  } catch (error) {
    document.body.classList.add('stale');
    if (!error.status) {
      const ended = now?.drain.exits;
      $('state').dataset.state = 'bad';
      write($('state'), ended ? 'Ended' : 'No answer');
    }
    refused(error, 'status');
  }
  clearTimeout(look.next);
  look.next = setTimeout(look, POLL_MS);
}
document.addEventListener('visibilitychange', look);

const wanted = new URLSearchParams(location.hash.slice(1)).get('room');
look();
if (wanted) open(wanted);
