// One peer of a call with nothing but what the browser has: WHIP to publish and WHEP to play, as RFC 9725 and its draft
// for playing describe them. It offers the same verbs as the peer that uses mediasoup-client.

import { Camera, Microphone } from './publisher.mjs';
import { Loudspeaker, Screen } from './watcher.mjs';

const SDP = 'application/sdp';
const FRAGMENT = 'application/trickle-ice-sdpfrag';
const line = (sdp, name) => new RegExp(`^a=${name}:(\\S+)`, 'm').exec(sdp)?.[1];

/** A codec of this browser's, with its retransmissions. */
function only(codec) {
  const wanted = [`video/${codec}`, 'video/rtx'].map((name) => name.toLowerCase());
  return RTCRtpSender.getCapabilities('video').codecs.filter(({ mimeType }) => wanted.includes(mimeType.toLowerCase()));
}

/** A WHIP or WHEP session and its connection. */
class Session {
  static async open(url) {
    const session = new Session();
    session.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    session.endpoint = url;
    return session;
  }

  async negotiate() {
    await this.pc.setLocalDescription();
    const { sdp } = this.pc.localDescription;
    const answer = await fetch(this.endpoint, { method: 'POST', headers: { 'content-type': SDP }, body: sdp });
    const text = await answer.text();
    if (answer.status !== 201) throw new Error(`${answer.status} ${text}`);
    this.answer = text;
    this.tag = answer.headers.get('etag');
    this.patchable = answer.headers.get('accept-patch');
    this.url = new URL(answer.headers.get('location'), this.endpoint).href;
    await this.pc.setRemoteDescription({ type: 'answer', sdp: text });
  }

  async patch(tag, body) {
    const headers = { 'content-type': FRAGMENT, ...(tag && { 'if-match': tag }) };
    const answer = await fetch(this.url, { method: 'PATCH', headers, body });
    return { status: answer.status, tag: answer.headers.get('etag'), text: await answer.text() };
  }

  /** What the server was told to use, and what became of the tag that was. */
  async restart() {
    const before = this.tag;
    this.pc.restartIce();
    await this.pc.setLocalDescription();
    const { sdp } = this.pc.localDescription;
    const mid = line(sdp, 'mid');
    const ours = `a=ice-ufrag:${line(sdp, 'ice-ufrag')}\r\na=ice-pwd:${line(sdp, 'ice-pwd')}\r\n`;
    const { status, tag, text } = await this.patch('*', `${ours}m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:${mid}\r\n`);
    if (status !== 200) throw new Error(`${status} ${text}`);
    const ufrag = line(text, 'ice-ufrag');
    this.answer = this.answer
      .replace(/^a=ice-ufrag:.*$/gm, `a=ice-ufrag:${ufrag}`)
      .replace(/^a=ice-pwd:.*$/gm, `a=ice-pwd:${line(text, 'ice-pwd')}`);
    this.tag = tag;
    await this.pc.setRemoteDescription({ type: 'answer', sdp: this.answer });
    const candidate = `a=ice-ufrag:${line(sdp, 'ice-ufrag')}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:${mid}\r\na=end-of-candidates\r\n`;
    const [stale, fresh, none] = [await this.patch(before, candidate), await this.patch(tag, candidate), await this.patch('', candidate)];
    return { usernameFragment: ufrag, before, tag, stale: stale.status, fresh: fresh.status, none: none.status };
  }

  /** In this order: a connection that is closed first ends the session by itself. */
  async end() {
    const { status } = await fetch(this.url, { method: 'DELETE' });
    this.pc.close();
    return status;
  }
}

export class Bare {
  static async join({ api, room, name }) {
    return new Bare({ api, room, name });
  }

  constructor({ api, room, name }) {
    Object.assign(this, { api, room, name, sessions: {}, consumed: new Map(), produced: new Map() });
    this.states = { send: [], recv: [] };
    this.failures = [];
  }

  endpoint(kind, query) {
    return `${this.api}/${kind}/${encodeURIComponent(this.room)}?${new URLSearchParams(query)}`;
  }

  /** Publishes numbered pictures and a tone in one session; a scalability mode is set when all is negotiated. */
  async publish({ source, simulcast, codec, scalabilityMode, maxBitrate, ...picture }) {
    const [camera, microphone] = [new Camera({ source, ...picture }), await Microphone.open({ source })];
    const session = await Session.open(this.endpoint('whip', { peerId: this.name }));
    const streams = [new MediaStream([camera.track, microphone.track])];
    session.pc.addTransceiver(microphone.track, { direction: 'sendonly', streams });
    const sendEncodings = simulcast && [
      { rid: 'q', scaleResolutionDownBy: 4 }, { rid: 'h', scaleResolutionDownBy: 2 }, { rid: 'f' },
    ];
    const line = session.pc.addTransceiver(camera.track, { direction: 'sendonly', streams, ...(sendEncodings && { sendEncodings }) });
    if (codec) line.setCodecPreferences(only(codec));
    await session.negotiate();
    if (scalabilityMode) {
      const parameters = line.sender.getParameters();
      Object.assign(parameters.encodings[0], { scalabilityMode, maxBitrate });
      // Of smaller pictures there are fewer layers: where time is short, pictures are left out instead.
      parameters.degradationPreference = 'maintain-resolution';
      await line.sender.setParameters(parameters);
    }
    this.sessions.send = session;
    this.produced.set('camera', { producer: session.pc.getSenders()[1], from: camera });
    this.produced.set('microphone', { producer: session.pc.getSenders()[0], from: microphone });
  }

  /** Plays a peer, or the room; gives the directions of the m-lines. */
  async play({ of, kinds = ['audio', 'video'] }) {
    const askedAt = Date.now();
    const session = await Session.open(this.endpoint('whep', { viewerId: this.name, ...(of && { peerId: of }) }));
    for (const kind of kinds) session.pc.addTransceiver(kind, { direction: 'recvonly' });
    await session.negotiate();
    this.sessions.recv = session;
    const lines = session.pc.getTransceivers();
    for (const { mid, receiver, currentDirection } of lines) {
      if (currentDirection !== 'recvonly') continue;
      const { track } = receiver;
      const into = track.kind === 'video' ? new Screen(track) : new Loudspeaker(track);
      const consumer = { kind: track.kind, track, rtpParameters: { codecs: [{}] }, getStats: () => receiver.getStats() };
      this.consumed.set(mid, { consumer, into, of: of ?? mid, producerId: mid, askedAt });
    }
    return lines.map(({ currentDirection }) => currentDirection);
  }

  async transport(direction) {
    return this.sessions[direction].pc;
  }

  restartIce(direction) {
    return this.sessions[direction].restart();
  }

  end(direction) {
    return this.sessions[direction].end();
  }

  async leave() {
    const body = JSON.stringify({ peerId: this.name });
    const url = `${this.api}/media/room/${encodeURIComponent(this.room)}/leave`;
    const answer = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    await this.hangUp();
    return (await answer.json()).data;
  }

  async hangUp() {
    for (const { pc } of Object.values(this.sessions)) pc.close();
    for (const { from } of this.produced.values()) await from.stop();
    for (const { into } of this.consumed.values()) await into.close();
  }
}
