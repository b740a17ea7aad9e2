//! A peer's side of one transport whose every byte is under control: one STUN request for ICE, SRTP
//! keys installed on both sides, packets written by hand.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use ringcast::control::command::TransportCreated;
use ringcast::engine::demux::PacketClass;
use ringcast::engine::rtcp::{RtcpItem, RtcpWriter, SenderInfo, parse};
use ringcast::engine::rtp::{NtpTime, RtpView};
use ringcast::engine::srtp::{
    OpenContext, Opened, RtpBody, SrtpKeys, SrtpOpener, SrtpProfile, SrtpSealer,
};
use ringcast::engine::transport::stun::{IntegrityKey, RequestOptions, request};

/// A packet as it came out of SRTP.
#[derive(Debug, Clone)]
pub(crate) struct RawHeard {
    pub(crate) at: Instant,
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
    pub(crate) seq: u16,
    pub(crate) timestamp: u32,
    /// Rollover counter and number.
    pub(crate) index: u64,
    pub(crate) payload: Vec<u8>,
    /// The datagram itself.
    pub(crate) wire: Vec<u8>,
}

pub(crate) struct RawClient {
    username: String,
    password: IntegrityKey,
    sealer: SrtpSealer,
    opener: SrtpOpener,
    contexts: HashMap<u32, OpenContext>,
    /// The server's half of the keys.
    pub(crate) server_keys: SrtpKeys,
    pub(crate) heard: Vec<RawHeard>,
    /// Compound packets in plaintext.
    pub(crate) rtcp: Vec<(Instant, Vec<u8>)>,
    /// Datagrams that our keys do not open.
    pub(crate) refused: usize,
    transmits: VecDeque<Vec<u8>>,
    next_check: Option<Instant>,
    born: Instant,
}

impl RawClient {
    pub(crate) fn new(
        now: Instant,
        profile: SrtpProfile,
        server: &TransportCreated,
        rng: &mut StdRng,
    ) -> Self {
        let material: Vec<u8> = (0..profile.material_bytes()).map(|_| rng.random()).collect();
        let keys = |is_client| SrtpKeys::from_dtls(profile, &material, is_client).unwrap();
        Self {
            username: format!("{}:raw", server.ice_ufrag),
            password: IntegrityKey::new(&server.ice_password),
            sealer: SrtpSealer::new(&keys(true)),
            opener: SrtpOpener::new(&keys(true)),
            contexts: HashMap::new(),
            server_keys: keys(false),
            heard: Vec::new(),
            rtcp: Vec::new(),
            refused: 0,
            transmits: VecDeque::new(),
            next_check: Some(now),
            born: now,
        }
    }

    /// Uses other ICE credentials from now on, and begins at once.
    pub(crate) fn restart(&mut self, now: Instant, ufrag: &str, password: &str) {
        self.username = format!("{ufrag}:raw");
        self.password = IntegrityKey::new(password);
        self.next_check = Some(now);
    }

    /// Checks no more, as clients without consent freshness do.
    pub(crate) fn check_no_more(&mut self) {
        self.next_check = None;
    }

    /// A nominating binding request.
    pub(crate) fn ice_check(&self) -> Vec<u8> {
        let options = RequestOptions {
            username: Some(&self.username),
            priority: Some(1),
            use_candidate: true,
            ..RequestOptions::default()
        };
        request(&[3; 12], &options, Some(&self.password))
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.next_check.is_some_and(|at| at <= now) {
            self.next_check = Some(now + Duration::from_secs(5));
            self.transmits.push_back(self.ice_check());
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.next_check
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// Seals a packet; `index` is its extended sequence number.
    pub(crate) fn seal(&self, packet: &RawPacket<'_>) -> Vec<u8> {
        let mut out = vec![0; 1600];
        let [.., high, low] = packet.index.to_be_bytes();
        let marker = u8::from(packet.marker) << 7;
        out[..4].copy_from_slice(&[0x80, marker | packet.payload_type, high, low]);
        out[4..8].copy_from_slice(&packet.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&packet.ssrc.to_be_bytes());
        let mut header = 12;
        if let Some(mid) = packet.mid {
            out[0] |= 0x10;
            out[12..20].copy_from_slice(&[0xbe, 0xde, 0, 1, 4 << 4, mid, 0, 0]);
            header = 20;
        }
        if let Some((id, number)) = packet.transport_seq {
            out[0] |= 0x10;
            let [high, low] = number.to_be_bytes();
            out[12..20].copy_from_slice(&[0xbe, 0xde, 0, 1, id << 4 | 1, high, low, 0]);
            header = 20;
        }
        self.seal_body(packet, header, out)
    }

    /// The same with one header extension of that id, in the two-byte form; not beside others.
    pub(crate) fn seal_with(&self, packet: &RawPacket<'_>, id: u8, data: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 1600];
        let [.., high, low] = packet.index.to_be_bytes();
        let marker = u8::from(packet.marker) << 7;
        out[..4].copy_from_slice(&[0x90, marker | packet.payload_type, high, low]);
        out[4..8].copy_from_slice(&packet.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&packet.ssrc.to_be_bytes());
        let words = (2 + data.len()).div_ceil(4);
        let len = u8::try_from(data.len()).unwrap();
        out[12..18].copy_from_slice(&[0x10, 0, 0, u8::try_from(words).unwrap(), id, len]);
        out[18..18 + data.len()].copy_from_slice(data);
        self.seal_body(packet, 16 + 4 * words, out)
    }

    fn seal_body(&self, packet: &RawPacket<'_>, header: usize, mut out: Vec<u8>) -> Vec<u8> {
        let body =
            RtpBody { payload: packet.payload, padding: packet.padding, ..RtpBody::default() };
        let len = self.sealer.seal_rtp(packet.index, header, &body, &mut out).unwrap();
        out.truncate(len);
        out
    }

    /// Seals a packet with these header extensions (ids and values, one-byte form) and no others.
    pub(crate) fn seal_extended(
        &self,
        packet: &RawPacket<'_>,
        extensions: &[(u8, &[u8])],
    ) -> Vec<u8> {
        let mut out = vec![0; 1600];
        let [.., high, low] = packet.index.to_be_bytes();
        let marker = u8::from(packet.marker) << 7;
        out[..4].copy_from_slice(&[0x90, marker | packet.payload_type, high, low]);
        out[4..8].copy_from_slice(&packet.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&packet.ssrc.to_be_bytes());
        let mut block = Vec::new();
        for (id, value) in extensions {
            block.push(id << 4 | u8::try_from(value.len() - 1).unwrap());
            block.extend_from_slice(value);
        }
        block.resize(block.len().next_multiple_of(4), 0);
        let words = u8::try_from(block.len() / 4).unwrap();
        out[12..16].copy_from_slice(&[0xbe, 0xde, 0, words]);
        let header = 16 + block.len();
        out[16..header].copy_from_slice(&block);
        let body = RtpBody { payload: packet.payload, ..RtpBody::default() };
        let len = self.sealer.seal_rtp(packet.index, header, &body, &mut out).unwrap();
        out.truncate(len);
        out
    }

    pub(crate) fn seal_rtcp(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 1600];
        let len = self.sealer.seal_rtcp(packet, &mut out).unwrap();
        out.truncate(len);
        out
    }

    /// A sender report for the picture of that timestamp, which is taken now.
    pub(crate) fn send_report(&mut self, now: Instant, ssrc: u32, timestamp: u32) {
        let wall = NtpTime::from_unix(Duration::from_secs(1_700_000_000));
        let ntp = wall + (now - self.born);
        let info = SenderInfo { ssrc, ntp, rtp_timestamp: timestamp, packets: 0, octets: 0 };
        let mut space = [0; 64];
        let mut writer = RtcpWriter::new(&mut space);
        assert!(writer.sender_report(&info, &[]));
        let len = writer.len();
        let sealed = self.seal_rtcp(&space[..len]);
        self.send(sealed);
    }

    /// SSRCs for which key frames were asked for since `seen` compound packets.
    pub(crate) fn take_key_frame_requests(&self, seen: &mut usize) -> Vec<u32> {
        let mut asked = Vec::new();
        for (_, compound) in self.rtcp.iter().skip(*seen) {
            for item in parse(compound) {
                match item {
                    RtcpItem::Pli { media_ssrc, .. } => asked.push(media_ssrc),
                    RtcpItem::Fir(fir) => asked.extend(fir.entries.map(|entry| entry.ssrc)),
                    _ => {}
                }
            }
        }
        *seen = self.rtcp.len();
        asked
    }

    pub(crate) fn send(&mut self, datagram: Vec<u8>) {
        self.transmits.push_back(datagram);
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        let mut plain = [0; 1600];
        match self.open(bytes, &mut plain) {
            Some(Opening::Rtcp(len)) => self.rtcp.push((now, plain[..len].to_vec())),
            Some(Opening::Rtp(view, opened)) => self.heard.push(RawHeard {
                at: now,
                ssrc: view.ssrc,
                payload_type: view.payload_type,
                marker: view.marker,
                seq: view.seq,
                timestamp: view.timestamp,
                index: opened.index,
                payload: plain[..opened.len].to_vec(),
                wire: bytes.to_vec(),
            }),
            None => {}
        }
    }

    /// Takes a datagram out of SRTP into `plain`; `None` for what is no media, and for what our keys
    /// do not open (which is counted).
    pub(crate) fn open<'a>(&mut self, bytes: &'a [u8], plain: &mut [u8]) -> Option<Opening<'a>> {
        let first = bytes.first().filter(|first| **first >= 128)?;
        assert!(*first < 192, "neither STUN nor media");
        let opening = if PacketClass::of(bytes) == PacketClass::Rtcp {
            self.opener.open_rtcp(bytes, plain).map(Opening::Rtcp)
        } else {
            let view = RtpView::parse(bytes).unwrap();
            let context = self.contexts.entry(view.ssrc).or_default();
            let opened = self.opener.open_rtp(context, bytes, view.header_len(), plain);
            opened.map(|opened| Opening::Rtp(view, opened))
        };
        self.refused += usize::from(opening.is_err());
        opening.ok()
    }
}

/// What was taken out of SRTP: a packet's view with what is known of its payload, or the length of a
/// compound packet.
pub(crate) enum Opening<'a> {
    Rtp(RtpView<'a>, Opened),
    Rtcp(usize),
}

/// A packet to seal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawPacket<'a> {
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
    pub(crate) index: u64,
    pub(crate) timestamp: u32,
    /// A MID of one character, in a browser's extension id.
    pub(crate) mid: Option<u8>,
    /// Extension id and number; not beside a MID.
    pub(crate) transport_seq: Option<(u8, u16)>,
    pub(crate) payload: &'a [u8],
    /// Bytes of RTP padding.
    pub(crate) padding: u8,
}
