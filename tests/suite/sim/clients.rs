//! Who sits at the other end of a transport, and what it heard.

use std::net::SocketAddr;
use std::time::Instant;

use ringcast::engine::io::{Path, Protocol};
use ringcast::id::TransportId;

use super::adaptive::viewer::Viewer;
use super::media::{Codec, Packet, Source};
use super::network::Link;
use super::params::DESCRIPTOR;
use super::raw::{RawClient, RawPacket};
use super::stock::StockClient;
pub(crate) use super::stock::{Heard, SERVER};

pub(crate) enum Party {
    Stock(Box<StockClient>),
    Raw(Box<RawClient>),
    /// With installed keys, and the habits of a browser that receives.
    Viewer(Box<Viewer>),
}

/// True for a datagram that the network is to lose.
pub(crate) type Filter = Box<dyn FnMut(Instant, &[u8]) -> bool>;

/// One transport's client with its place in the network.
pub(crate) struct Seat {
    pub(crate) party: Party,
    pub(crate) transport: TransportId,
    /// As the server sees it; changes when a NAT binds anew.
    pub(crate) public: SocketAddr,
    /// To the server.
    pub(crate) up: Link,
    /// From the server.
    pub(crate) down: Link,
    pub(crate) lose_up: Option<Filter>,
    pub(crate) lose_down: Option<Filter>,
    /// Sends and receives nothing any more.
    pub(crate) gone: bool,
    pub(crate) sources: Vec<Source>,
    /// Key-frame requests already passed on to the sources.
    pub(crate) requests_seen: usize,
}

impl Seat {
    pub(crate) fn path(&self) -> Path {
        Path { protocol: Protocol::Udp, remote: self.public, local: SERVER.ip() }
    }

    pub(crate) fn stock(&self) -> &StockClient {
        match &self.party {
            Party::Stock(client) => client,
            Party::Raw(_) | Party::Viewer(_) => panic!("not a stock client"),
        }
    }

    pub(crate) fn stock_mut(&mut self) -> &mut StockClient {
        match &mut self.party {
            Party::Stock(client) => client,
            Party::Raw(_) | Party::Viewer(_) => panic!("not a stock client"),
        }
    }

    pub(crate) fn raw(&self) -> &RawClient {
        match &self.party {
            Party::Raw(client) => client,
            Party::Stock(_) | Party::Viewer(_) => panic!("not a raw client"),
        }
    }

    pub(crate) fn raw_mut(&mut self) -> &mut RawClient {
        match &mut self.party {
            Party::Raw(client) => client,
            Party::Stock(_) | Party::Viewer(_) => panic!("not a raw client"),
        }
    }

    pub(crate) fn viewer(&self) -> &Viewer {
        match &self.party {
            Party::Viewer(viewer) => viewer,
            Party::Stock(_) | Party::Raw(_) => panic!("not a viewer"),
        }
    }

    pub(crate) fn viewer_mut(&mut self) -> &mut Viewer {
        match &mut self.party {
            Party::Viewer(viewer) => viewer,
            Party::Stock(_) | Party::Raw(_) => panic!("not a viewer"),
        }
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        match &mut self.party {
            Party::Stock(client) => client.handle_datagram(now, bytes),
            Party::Raw(client) => client.handle_datagram(now, bytes),
            Party::Viewer(viewer) => viewer.handle_datagram(now, bytes),
        }
    }

    /// When its agent or one of its cameras wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.gone {
            return None;
        }
        let agent = match &self.party {
            Party::Stock(client) => client.poll_timeout(),
            Party::Raw(client) => client.poll_timeout(),
            Party::Viewer(viewer) => viewer.poll_timeout(),
        };
        self.sources.iter().filter_map(|source| source.next_at).chain(agent).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match &mut self.party {
            Party::Stock(client) => {
                if client.poll_timeout().is_some_and(|at| at <= now) {
                    client.handle_timeout(now);
                }
                for (_, mid, rid) in client.asked.iter().skip(self.requests_seen) {
                    for source in &mut self.sources {
                        if source.setup.mid == *mid && source.setup.rid == *rid {
                            source.hear_request();
                        }
                    }
                }
                self.requests_seen = client.asked.len();
            }
            Party::Raw(client) => {
                client.handle_timeout(now);
                for asked in client.take_key_frame_requests(&mut self.requests_seen) {
                    hear_request(&mut self.sources, asked);
                }
            }
            Party::Viewer(viewer) => viewer.handle_timeout(now),
        }
        for source in &mut self.sources {
            if source.next_at.is_none_or(|at| at > now) {
                continue;
            }
            for packet in source.take_frame(now) {
                match &mut self.party {
                    Party::Stock(client) => client.write(now, &source.setup, &packet),
                    Party::Raw(client) => {
                        let raw = raw_packet(source, &packet);
                        let sealed = match (&packet.descriptor[..], &source.extension) {
                            ([], None) => client.seal(&raw),
                            ([], Some((id, value))) => client.seal_with(&raw, *id, value),
                            (descriptor, _) => client.seal_with(&raw, DESCRIPTOR.1, descriptor),
                        };
                        client.send(sealed);
                    }
                    Party::Viewer(_) => panic!("a viewer publishes nothing"),
                }
            }
            if let Party::Raw(client) = &mut self.party
                && source.is_report_due(now)
            {
                client.send_report(now, source.setup.ssrc, source.timestamp());
            }
        }
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        match &mut self.party {
            Party::Stock(client) => client.poll_transmit(),
            Party::Raw(client) => client.poll_transmit(),
            Party::Viewer(viewer) => viewer.poll_transmit(),
        }
    }
}

/// A raw publisher is asked for a key frame of one encoding; like a browser it answers with key
/// frames of all that come from the same camera.
fn hear_request(sources: &mut [Source], asked: u32) {
    let Some(mid) = sources.iter().find(|source| source.setup.ssrc == asked) else { return };
    let mid = mid.setup.mid.clone();
    for source in sources.iter_mut().filter(|source| source.setup.mid == mid) {
        source.hear_request();
    }
}

fn raw_packet<'a>(source: &Source, packet: &'a Packet) -> RawPacket<'a> {
    RawPacket {
        ssrc: source.setup.ssrc,
        payload_type: source.setup.payload_type,
        marker: packet.marker,
        index: packet.seq,
        timestamp: packet.timestamp,
        mid: None,
        transport_seq: None,
        payload: &packet.payload,
        padding: 0,
    }
}

/// The numbers of a client that sends (its own) or receives (the room's).
pub(crate) fn codec_of_mime(mime: &str) -> Option<Codec> {
    match mime {
        "audio/opus" => Some(Codec::Opus),
        "video/VP8" => Some(Codec::Vp8),
        "video/VP9" => Some(Codec::Vp9),
        "video/H264" => Some(Codec::H264),
        "video/AV1" => Some(Codec::Av1),
        _ => None,
    }
}
