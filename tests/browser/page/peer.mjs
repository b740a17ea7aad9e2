// One peer of a call, written as an application of the seven routes writes it: REST calls, polling for producers, and
// mediasoup-client for everything WebRTC. Nothing here knows more about the server than its API.

import * as newest from 'mediasoup-client';
import * as older from 'mediasoup-client-3-16';
import { Camera, Microphone } from './publisher.mjs';
import { Loudspeaker, Screen } from './watcher.mjs';

const LIBRARIES = { newest, '3.16': older };
const POLL_MS = 150;

/** The three simulcast encodings of a camera, smallest first. */
const SIMULCAST = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 400_000 },
  { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 1_200_000 },
];

export class Peer {
  /** `path`: `{tcpOnly, udpPort}` changes which candidates the browser is told; `library`: `newest` or `3.16`. */
  static async join({ api, room, name, library = 'newest', path = {}, knowsRed = true }) {
    const peer = new Peer({ api, room, name, path });
    const { routerRtpCapabilities } = await peer.post('/media/room', { roomId: room, initiatorId: name });
    if (!knowsRed) {
      routerRtpCapabilities.codecs = routerRtpCapabilities.codecs.filter(({ mimeType }) => mimeType !== 'audio/red');
    }
    peer.device = new LIBRARIES[library].Device();
    await peer.device.load({ routerRtpCapabilities });
    return peer;
  }

  constructor({ api, room, name, path }) {
    Object.assign(this, { api, room, name, path });
    this.produced = new Map();
    this.consumed = new Map();
    this.states = { send: [], recv: [] };
    this.opening = {};
    this.failures = [];
  }

  async request(method, route, body) {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    const answer = await fetch(`${this.api}${route}`, {
      method, headers, credentials: 'include', body: body === undefined ? undefined : JSON.stringify(body),
    });
    const { success, data, code } = await answer.json();
    if (!success) throw new Error(`${method} ${route}: ${answer.status} ${code} ${data}`);
    return data;
  }

  post(route, body) {
    return this.request('POST', route, body);
  }

  /** The send or receive transport, made at its first use. */
  transport(direction) {
    this.opening[direction] ??= this.#open(direction);
    return this.opening[direction];
  }

  async #open(direction) {
    const made = await this.post(`/media/transport/${encodeURIComponent(this.room)}`, { peerId: this.name, direction });
    const options = { ...made, iceCandidates: this.#candidates(made.iceCandidates) };
    const transport = direction === 'send'
      ? this.device.createSendTransport(options)
      : this.device.createRecvTransport(options);
    transport.on('connectionstatechange', (state) => this.states[direction].push(state));
    transport.on('connect', ({ dtlsParameters }, done, failed) => {
      this.post(`/media/transport/${transport.id}/connect`, { dtlsParameters }).then(done, failed);
    });
    transport.on('produce', ({ kind, rtpParameters, appData }, done, failed) => {
      if (kind === 'audio' && this.redundant) addRed(rtpParameters);
      const { roomId, peerId, source } = { roomId: this.room, peerId: this.name, source: appData.source };
      this.post('/media/producer', { roomId, peerId, transportId: transport.id, kind, rtpParameters, source })
        .then(({ producerId }) => done({ id: producerId }), failed);
    });
    return transport;
  }

  /** Asks for new ICE parameters and uses them, as after a change of networks; what the server was told to use. */
  async restartIce(direction) {
    const transport = await this.transport(direction);
    const { iceParameters } = await this.post(`/media/transport/${transport.id}/restart-ice`);
    await transport.restartIce({ iceParameters });
    return { id: transport.id, ...iceParameters };
  }

  #candidates(offered) {
    const { tcpOnly, udpPort } = this.path;
    if (tcpOnly) return offered.filter(({ protocol }) => protocol === 'tcp');
    if (udpPort === undefined) return offered;
    return offered
      .filter(({ protocol }) => protocol === 'udp')
      .map((candidate) => ({ ...candidate, port: udpPort }));
  }

  /** Publishes numbered pictures; resolves with the producer id once the server has it. */
  async publishVideo({ codec, layers, maxBitrate, keepSize = false, ...picture }) {
    const transport = await this.transport('send');
    const camera = new Camera(picture);
    const producer = await transport.produce({
      track: camera.track,
      codec: codec && this.#codec(`video/${codec}`),
      encodings: encodings(layers, maxBitrate),
      appData: { source: 'camera' },
      disableTrackOnPause: false,
      zeroRtpOnPause: false,
    });
    if (keepSize) await keepsSize(producer.rtpSender);
    this.produced.set(producer.id, { producer, from: camera });
    return producer.id;
  }

  /** Publishes a tone, with copies of what came before in each packet (RED) if that is wished. */
  async publishAudio({ source, redundant = false }) {
    if (redundant) negotiateRed();
    const transport = await this.transport('send');
    const microphone = await Microphone.open({ source });
    this.redundant = redundant;
    const producer = await transport.produce({ track: microphone.track, appData: { source: 'microphone' } });
    this.produced.set(producer.id, { producer, from: microphone });
    return producer.id;
  }

  #codec(mimeType) {
    const { codecs } = this.device.sendRtpCapabilities ?? this.device.rtpCapabilities;
    const found = codecs.find((codec) => codec.mimeType.toLowerCase() === mimeType.toLowerCase());
    if (!found) throw new Error(`this browser does not send ${mimeType}`);
    return found;
  }

  async producers() {
    const others = `excludePeerId=${encodeURIComponent(this.name)}`;
    const list = await this.request('GET', `/media/room/${encodeURIComponent(this.room)}/producers?${others}`);
    return list.producers;
  }

  /** Consumes one producer and starts to watch it. */
  async consume({ producerId, peerId, paused }) {
    const askedAt = Date.now();
    const transport = await this.transport('recv');
    const { rtpCapabilities } = this.device;
    const { room: roomId, name } = this;
    const told = await this.post('/media/consumer', {
      roomId, peerId: name, transportId: transport.id, producerId, rtpCapabilities, paused,
    });
    const { id, kind, rtpParameters } = told;
    const consumer = await transport.consume({ id, producerId, kind, rtpParameters });
    const into = kind === 'video' ? new Screen(consumer.track) : new Loudspeaker(consumer.track);
    this.consumed.set(id, { consumer, into, of: peerId, producerId, askedAt });
    return id;
  }

  /** Polls the list of producers and consumes each new one, as clients of the seven routes must. */
  follow() {
    const known = new Set();
    const look = async () => {
      try {
        const fresh = (await this.producers()).filter(({ producerId }) => !known.has(producerId));
        fresh.forEach(({ producerId }) => known.add(producerId));
        await Promise.all(fresh.map((entry) => this.consume(entry)));
      } catch (error) {
        this.failures.push(String(error));
      }
      if (!this.left) this.polling = setTimeout(look, POLL_MS);
    };
    return look();
  }

  /** Tells the server, then closes what the page holds. */
  async leave() {
    this.left = true;
    clearTimeout(this.polling);
    const answer = await this.post(`/media/room/${encodeURIComponent(this.room)}/leave`, { peerId: this.name });
    await this.hangUp();
    return answer;
  }

  /** Closes what the page holds without a word to the server, as a page that is closed does. */
  async hangUp() {
    this.left = true;
    clearTimeout(this.polling);
    for (const opening of Object.values(this.opening)) (await opening).close();
    for (const { from } of this.produced.values()) await from.stop();
    for (const { into } of this.consumed.values()) await into.close();
  }
}

/** The payload type of RED in Chromium's offers, and of the Opus inside. */
const [RED, OPUS] = [63, 111];

/** mediasoup-client answers with one codec for each track; RED needs the Opus that it carries beside it. */
function negotiateRed() {
  const answer = RTCPeerConnection.prototype.setRemoteDescription;
  RTCPeerConnection.prototype.setRemoteDescription = function setRemoteDescription({ type, sdp }) {
    const red = `a=rtpmap:${RED} red/48000/2\r\na=fmtp:${RED} ${OPUS}/${OPUS}\r\n`;
    const preferred = new RegExp(`^(m=audio \\S+ \\S+) ${OPUS}(.*\\r\\n)`, 'm');
    const changed = type === 'answer'
      ? sdp.replace(preferred, `$1 ${RED} ${OPUS}$2`).replace(`a=rtpmap:${OPUS} `, `${red}a=rtpmap:${OPUS} `)
      : sdp;
    return answer.call(this, { type, sdp: changed });
  };
}

/** What the server is told of it. */
function addRed({ codecs }) {
  const [opus] = codecs;
  codecs.push({ ...opus, mimeType: 'audio/red', payloadType: RED, parameters: { '': `${opus.payloadType}/${opus.payloadType}` } });
}

/** Where bits or time are short, pictures are left out rather than made smaller: a width tells the layer. */
function keepsSize(sender) {
  return sender.setParameters({ ...sender.getParameters(), degradationPreference: 'maintain-resolution' });
}

function encodings(layers, maxBitrate) {
  if (layers === 'simulcast') return SIMULCAST;
  if (layers) return [{ scalabilityMode: layers, maxBitrate }];
  return maxBitrate ? [{ maxBitrate }] : undefined;
}
