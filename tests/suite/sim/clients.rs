//! Who sits at the other end of a transport, and what it heard.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use ringcast::engine::io::{Path, Protocol};
use ringcast::id::TransportId;

use super::media::{Codec, Packet, Source};
use super::network::Link;
use super::raw::{RawClient, RawPacket};
use super::stock::StockClient;

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
    pub(crate) payload: Vec<u8>,
}

pub(crate) enum Party {
    Stock(Box<StockClient>),
    Raw(Box<RawClient>),
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
            Party::Raw(_) => panic!("a raw client"),
        }
    }

    pub(crate) fn stock_mut(&mut self) -> &mut StockClient {
        match &mut self.party {
            Party::Stock(client) => client,
            Party::Raw(_) => panic!("a raw client"),
        }
    }

    pub(crate) fn raw(&self) -> &RawClient {
        match &self.party {
            Party::Raw(client) => client,
            Party::Stock(_) => panic!("a stock client"),
        }
    }

    pub(crate) fn raw_mut(&mut self) -> &mut RawClient {
        match &mut self.party {
            Party::Raw(client) => client,
            Party::Stock(_) => panic!("a stock client"),
        }
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        match &mut self.party {
            Party::Stock(client) => client.handle_datagram(now, bytes),
            Party::Raw(client) => client.handle_datagram(now, bytes),
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
            Party::Raw(client) => client.handle_timeout(now),
        }
        for source in &mut self.sources {
            if source.next_at.is_none_or(|at| at > now) {
                continue;
            }
            for packet in source.take_frame(now) {
                match &mut self.party {
                    Party::Stock(client) => client.write(now, &source.setup, &packet),
                    Party::Raw(client) => {
                        let sealed = client.seal(&raw_packet(source, &packet));
                        client.send(sealed);
                    }
                }
            }
        }
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        match &mut self.party {
            Party::Stock(client) => client.poll_transmit(),
            Party::Raw(client) => client.poll_transmit(),
        }
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
        _ => None,
    }
}
