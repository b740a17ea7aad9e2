//! A peer's side of one transport: an unchanged str0m client with a full ICE agent, real DTLS, and
//! str0m's own SRTP, RTCP, NACK and RTX.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ringcast::control::command::TransportCreated;
use str0m::config::Fingerprint;
use str0m::format::{Codec as RtcCodec, FormatParams};
use str0m::ice::IceCreds;
use str0m::media::{Frequency, MediaKind as RtcKind};
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::rtp::rtcp::{Rtcp, SenderInfo};
use str0m::rtp::{Extension, ExtensionMap, RawPacket, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::media::{Codec, Packet, SourceSetup};

/// Where the server is.
pub(crate) const SERVER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 4000);

/// A packet as it arrived at a client, out of SRTP.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
    pub(crate) seq: u16,
    pub(crate) timestamp: u32,
    pub(crate) mid: Option<String>,
    pub(crate) abs_send_time: bool,
    pub(crate) transport_seq: Option<u16>,
    pub(crate) header_len: usize,
    pub(crate) payload: Vec<u8>,
}

/// Which numbers a client uses: its own when it sends, the room's when it receives.
#[derive(Debug, Clone)]
pub(crate) struct Numbers {
    /// Codec, payload type, payload type of its RTX.
    pub(crate) codecs: Vec<(Codec, u8, Option<u8>)>,
    /// URI and id.
    pub(crate) extensions: Vec<(String, u8)>,
}

pub(crate) struct StockClient {
    rtc: Rtc,
    home: SocketAddr,
    pub(crate) connected: bool,
    pub(crate) closed: bool,
    /// RTP as it came out of SRTP, duplicates and retransmissions included.
    pub(crate) heard: Vec<Heard>,
    /// RTP as str0m gives it to an application: repaired, without duplicates.
    pub(crate) played: Vec<(Instant, u32, u64, u32, Vec<u8>)>,
    pub(crate) rtcp: Vec<(Instant, Rtcp)>,
    /// Sender reports that left, with the time of leaving.
    pub(crate) reported: Vec<(Instant, SenderInfo)>,
    /// Key-frame requests: MID and RID.
    pub(crate) asked: Vec<(Instant, String, Option<String>)>,
    timeout: Instant,
    transmits: std::collections::VecDeque<Vec<u8>>,
    now: Instant,
}

impl StockClient {
    pub(crate) fn new(now: Instant, home: SocketAddr, numbers: &Numbers) -> Self {
        let mut config = Rtc::builder()
            .set_rtp_mode(true)
            .enable_raw_packets(true)
            .clear_codecs()
            .set_extension_map(extension_map(numbers));
        for (codec, payload_type, rtx) in &numbers.codecs {
            let (codec, clock, channels) = match codec {
                Codec::Opus => (RtcCodec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2)),
                Codec::Vp8 | Codec::Vp8T3 => (RtcCodec::Vp8, Frequency::NINETY_KHZ, None),
                Codec::Vp9 | Codec::Vp9Svc | Codec::Vp9L3T3 | Codec::Vp9L3T3Key => {
                    (RtcCodec::Vp9, Frequency::NINETY_KHZ, None)
                }
                Codec::Av1 => (RtcCodec::Av1, Frequency::NINETY_KHZ, None),
                Codec::H264 => (RtcCodec::H264, Frequency::NINETY_KHZ, None),
            };
            config.codec_config().add_config(
                (*payload_type).into(),
                rtx.map(Into::into),
                codec,
                clock,
                channels,
                FormatParams::default(),
            );
        }
        let mut rtc = config.build(now);
        rtc.add_local_candidate(Candidate::host(home, "udp").unwrap());
        rtc.add_remote_candidate(Candidate::host(SERVER, "udp").unwrap());
        Self {
            rtc,
            home,
            connected: false,
            closed: false,
            heard: Vec::new(),
            played: Vec::new(),
            rtcp: Vec::new(),
            reported: Vec::new(),
            asked: Vec::new(),
            timeout: now,
            transmits: std::collections::VecDeque::new(),
            now,
        }
    }

    pub(crate) fn fingerprint(&mut self) -> [u8; 32] {
        let fingerprint = self.rtc.direct_api().local_dtls_fingerprint().bytes.clone();
        fingerprint.try_into().unwrap()
    }

    pub(crate) fn connect(&mut self, server: &TransportCreated) {
        let mut api = self.rtc.direct_api();
        api.set_ice_controlling(true);
        api.set_remote_ice_credentials(IceCreds {
            ufrag: server.ice_ufrag.clone(),
            pass: server.ice_password.clone(),
        });
        api.set_remote_fingerprint(Fingerprint {
            hash_func: "sha-256".into(),
            bytes: server.fingerprint.to_vec(),
        });
        api.start_dtls(true).unwrap();
        self.drain();
    }

    /// Declares a stream to send.
    pub(crate) fn send_stream(&mut self, setup: &SourceSetup, rtx_ssrc: Option<u32>) {
        let mid = setup.mid.as_str().into();
        let mut api = self.rtc.direct_api();
        api.declare_media(mid, kind(setup.codec));
        let rid = setup.rid.as_deref().map(Into::into);
        let stream = api.declare_stream_tx(setup.ssrc.into(), rtx_ssrc.map(Into::into), mid, rid);
        // As much repair as is asked for; str0m's own cap would hide who failed.
        stream.set_rtx_cache(2048, Duration::from_secs(3), None);
        self.drain();
    }

    /// Declares a stream to receive.
    pub(crate) fn expect_stream(&mut self, codec: Codec, mid: &str, ssrc: u32, rtx: Option<u32>) {
        let mut api = self.rtc.direct_api();
        api.declare_media(mid.into(), kind(codec));
        api.expect_stream_rx(ssrc.into(), rtx.map(Into::into), mid.into(), None);
        self.drain();
    }

    /// Asks for a key frame, as a decoder that lost its way.
    pub(crate) fn request_key_frame(&mut self, ssrc: u32) {
        let mut api = self.rtc.direct_api();
        let stream = api.stream_rx(&ssrc.into()).unwrap();
        stream.request_keyframe(str0m::media::KeyframeRequestKind::Pli);
        self.drain();
    }

    pub(crate) fn write(&mut self, now: Instant, setup: &SourceSetup, packet: &Packet) {
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx(&setup.ssrc.into()).unwrap();
        let payload = std::sync::Arc::clone(&packet.payload);
        let pt = setup.payload_type.into();
        let nackable = setup.codec != Codec::Opus;
        stream.write_rtp(
            RtpWrite::new(pt, packet.seq.into(), packet.timestamp, packet.at, payload)
                .marker(packet.marker)
                .nackable(nackable),
        );
        // One packet leaves for each poll after a timeout.
        self.handle_timeout(now);
    }

    pub(crate) fn say_good_bye(&mut self) {
        self.rtc.close().unwrap();
        self.drain();
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        self.now = now;
        let Ok(contents) = DatagramRecv::try_from(bytes) else { return };
        let receive =
            Receive { proto: Protocol::Udp, source: SERVER, destination: self.home, contents };
        if self.rtc.handle_input(Input::Receive(now, receive)).is_err() {
            self.closed = true;
            return;
        }
        self.drain();
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.closed || self.rtc.handle_input(Input::Timeout(now)).is_err() {
            self.closed = true;
            return;
        }
        self.drain();
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (!self.closed).then_some(self.timeout)
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    fn drain(&mut self) {
        loop {
            let output = match self.rtc.poll_output() {
                Ok(output) => output,
                Err(_) => {
                    self.closed = true;
                    return;
                }
            };
            match output {
                Output::Timeout(at) => {
                    self.timeout = at;
                    return;
                }
                Output::Transmit(out) => self.transmits.push_back(out.contents.to_vec()),
                Output::Event(event) => self.handle_event(event),
            }
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Connected => self.connected = true,
            Event::Closed => self.closed = true,
            Event::KeyframeRequest(wish) => {
                let rid = wish.rid.map(|rid| rid.to_string());
                self.asked.push((self.now, wish.mid.to_string(), rid));
            }
            Event::RtpPacket(packet) => self.played.push((
                self.now,
                *packet.header.ssrc,
                *packet.seq_no,
                packet.header.timestamp,
                packet.payload.to_vec(),
            )),
            Event::RawPacket(raw) => match *raw {
                RawPacket::RtpRx(header, payload) => self.heard.push(Heard {
                    at: self.now,
                    ssrc: *header.ssrc,
                    payload_type: *header.payload_type,
                    marker: header.marker,
                    seq: header.sequence_number,
                    timestamp: header.timestamp,
                    mid: header.ext_vals.mid.map(|mid| mid.to_string()),
                    abs_send_time: header.ext_vals.abs_send_time.is_some(),
                    transport_seq: header.ext_vals.transport_cc,
                    header_len: header.header_len,
                    payload,
                }),
                RawPacket::RtcpRx(rtcp) => self.rtcp.push((self.now, rtcp)),
                RawPacket::RtcpTx(Rtcp::SenderReport(report)) => {
                    self.reported.push((self.now, report.sender_info));
                }
                RawPacket::RtpTx(..) | RawPacket::RtcpTx(_) => {}
            },
            _ => {}
        }
    }
}

fn kind(codec: Codec) -> RtcKind {
    if codec == Codec::Opus { RtcKind::Audio } else { RtcKind::Video }
}

fn extension_map(numbers: &Numbers) -> ExtensionMap {
    use ringcast::ortc::uri;
    let mut map = ExtensionMap::empty();
    for (uri, id) in &numbers.extensions {
        let extension = match uri.as_str() {
            uri::MID => Extension::RtpMid,
            uri::RID => Extension::RtpStreamId,
            uri::RRID => Extension::RepairedRtpStreamId,
            uri::ABS_SEND_TIME => Extension::AbsoluteSendTime,
            uri::TRANSPORT_CC => Extension::TransportSequenceNumber,
            uri::AUDIO_LEVEL => Extension::AudioLevel,
            uri::VIDEO_ORIENTATION => Extension::VideoOrientation,
            uri::TOFFSET => Extension::TransmissionTimeOffset,
            _ => continue,
        };
        map.set(*id, extension);
    }
    map
}
