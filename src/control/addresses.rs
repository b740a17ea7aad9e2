//! Where clients reach the media port, as ICE candidates in mediasoup's shape.

use serde::Serialize;
use utoipa::ToSchema;

/// Type preference 64 as mediasoup gives to its host candidates.
const TYPE_PREFERENCE: u32 = 64;

/// Local preference of the first address.
const LOCAL_PREFERENCE: u32 = 10_000;

/// Taken off the local preference per further address and protocol.
const LOCAL_PREFERENCE_STEP: u32 = 100;

/// The addresses under which this node is announced to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaAddresses {
    /// IP addresses or host names, best first.
    pub addresses: Vec<String>,
    /// The media port, the same for UDP and TCP.
    pub port: u16,
    /// Announce UDP.
    pub udp: bool,
    /// Announce passive TCP.
    pub tcp: bool,
}

/// One ICE candidate as `mediasoup-client` reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IceCandidate {
    /// `udpcandidate` or `tcpcandidate`.
    pub foundation: &'static str,
    /// RFC 8445 §5.1.2, with mediasoup's preferences.
    pub priority: u32,
    /// The address, as older clients read it.
    pub ip: String,
    /// The address, as newer clients read it.
    pub address: String,
    /// `udp` or `tcp`.
    pub protocol: &'static str,
    /// The media port.
    pub port: u16,
    /// Always `host`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `passive` for TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_type: Option<&'static str>,
}

impl MediaAddresses {
    /// One candidate per address and protocol: all of UDP before all of TCP, best first.
    #[must_use]
    pub fn candidates(&self) -> Vec<IceCandidate> {
        let protocols = [(self.udp, "udp", None), (self.tcp, "tcp", Some("passive"))];
        protocols
            .into_iter()
            .filter(|(announced, ..)| *announced)
            .flat_map(|(_, protocol, tcp_type)| {
                self.addresses.iter().map(move |address| (address, protocol, tcp_type))
            })
            .zip(0_u32..)
            .map(|((address, protocol, tcp_type), position)| IceCandidate {
                foundation: if tcp_type.is_some() { "tcpcandidate" } else { "udpcandidate" },
                priority: priority(position),
                ip: address.clone(),
                address: address.clone(),
                protocol,
                port: self.port,
                kind: "host",
                tcp_type,
            })
            .collect()
    }
}

fn priority(position: u32) -> u32 {
    let step = position.saturating_mul(LOCAL_PREFERENCE_STEP);
    (TYPE_PREFERENCE << 24) + (LOCAL_PREFERENCE.saturating_sub(step) << 8) + 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_gives_a_udp_and_a_passive_tcp_candidate_with_falling_priority() {
        let addresses = MediaAddresses {
            addresses: vec!["192.0.2.1".to_owned(), "sfu.example".to_owned()],
            port: 10_000,
            udp: true,
            tcp: true,
        };
        let candidates = addresses.candidates();
        let shape: Vec<_> = candidates
            .iter()
            .map(|c| (c.address.as_str(), c.protocol, c.foundation, c.tcp_type, c.priority))
            .collect();
        let first = 64 * 16_777_216 + 10_000 * 256 + 255;
        assert_eq!(
            shape,
            [
                ("192.0.2.1", "udp", "udpcandidate", None, first),
                ("sfu.example", "udp", "udpcandidate", None, first - 25_600),
                ("192.0.2.1", "tcp", "tcpcandidate", Some("passive"), first - 51_200),
                ("sfu.example", "tcp", "tcpcandidate", Some("passive"), first - 76_800),
            ]
        );
        assert!(candidates.iter().all(|c| c.ip == c.address && c.kind == "host"));
    }

    #[test]
    fn only_announced_protocols_are_offered() {
        let mut addresses = MediaAddresses {
            addresses: vec!["192.0.2.1".to_owned()],
            port: 1,
            udp: false,
            tcp: true,
        };
        assert!(addresses.candidates().iter().all(|c| c.protocol == "tcp"));
        addresses.tcp = false;
        assert_eq!(addresses.candidates(), []);
    }
}
