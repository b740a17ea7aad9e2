//! A peer's side of one transport whose every byte is under control: one STUN request for ICE, SRTP
//! keys installed on both sides, packets written by hand.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use ringcast::control::command::TransportCreated;
use ringcast::engine::demux::PacketClass;
use ringcast::engine::rtp::RtpView;
use ringcast::engine::srtp::{OpenContext, RtpBody, SrtpKeys, SrtpOpener, SrtpProfile, SrtpSealer};
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
        }
    }

    /// Uses other ICE credentials from now on, and begins at once.
    pub(crate) fn restart(&mut self, now: Instant, ufrag: &str, password: &str) {
        self.username = format!("{ufrag}:raw");
        self.password = IntegrityKey::new(password);
        self.next_check = Some(now);
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
        let body =
            RtpBody { payload: packet.payload, padding: packet.padding, ..RtpBody::default() };
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

    pub(crate) fn send(&mut self, datagram: Vec<u8>) {
        self.transmits.push_back(datagram);
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        let Some(first) = bytes.first().filter(|first| **first >= 128) else { return };
        assert!(*first < 192, "neither STUN nor media");
        let mut plain = [0; 1600];
        if PacketClass::of(bytes) == PacketClass::Rtcp {
            match self.opener.open_rtcp(bytes, &mut plain) {
                Ok(len) => self.rtcp.push((now, plain[..len].to_vec())),
                Err(_) => self.refused += 1,
            }
            return;
        }
        let view = RtpView::parse(bytes).unwrap();
        let context = self.contexts.entry(view.ssrc).or_default();
        match self.opener.open_rtp(context, bytes, view.header_len(), &mut plain) {
            Ok(opened) => self.heard.push(RawHeard {
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
            Err(_) => self.refused += 1,
        }
    }
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
