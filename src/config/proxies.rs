//! Proxies whose word is taken for who a request is from.
//!
//! A proxy appends the address that it was asked from to `X-Forwarded-For`, behind whatever its
//! client claimed. So the list is read from its end, and no further than proxies are trusted:
//! nothing that a client writes into it counts.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::FORWARDED_HOPS_MAX;

/// Addresses that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    base: IpAddr,
    bits: u8,
}

impl Network {
    fn has(self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(v4)) => {
                (u32::from(base) ^ u32::from(v4)).leading_zeros() >= self.bits.into()
            }
            (IpAddr::V6(base), IpAddr::V6(v6)) => {
                (u128::from(base) ^ u128::from(v6)).leading_zeros() >= self.bits.into()
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

/// The text names no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no IP address or network, such as 10.0.0.0/8 or fd00::1")]
pub struct NoNetwork;

impl FromStr for Network {
    type Err = NoNetwork;

    /// `10.0.0.0/8`, or one address; IPv4 within IPv6 is IPv4.
    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let base: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let of_bits = |most: u8| match bits {
            None => Ok(most),
            Some(text) => text.parse().ok().filter(|bits| *bits <= most).ok_or(NoNetwork),
        };
        match base {
            IpAddr::V4(_) => Ok(Self { base, bits: of_bits(32)? }),
            IpAddr::V6(v6) => match (v6.to_ipv4_mapped(), of_bits(128)?) {
                (Some(v4), bits @ 96..) => Ok(Self { base: IpAddr::V4(v4), bits: bits - 96 }),
                (_, bits) => Ok(Self { base, bits }),
            },
        }
    }
}

/// All proxies that are trusted; clones share them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(Arc<[Network]>);

impl Proxies {
    /// The addresses and networks of a list.
    ///
    /// # Errors
    /// [`NoNetwork`] for the first text that is none.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, NoNetwork> {
        let networks: Result<Vec<Network>, NoNetwork> = texts.into_iter().map(str::parse).collect();
        Ok(Self(networks?.into()))
    }

    /// As a setting says them.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(Network::to_string)
    }

    /// Whether it is a trusted proxy's.
    #[must_use]
    pub fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.has(address))
    }

    /// Who asks, where the connection is from `from` and the request brings these values of
    /// `X-Forwarded-For`, in order: the last address that no trusted proxy has. What cannot be read
    /// ends the search, and so does a list without end.
    #[must_use]
    pub fn client<'a>(
        &self,
        from: IpAddr,
        told: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> IpAddr {
        let mut client = from.to_canonical();
        // Bytes: what a client wrote in front of them must not make the proxy's own unreadable.
        let told = told.rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
        for entry in told.take(FORWARDED_HOPS_MAX) {
            if !self.trust(client) {
                break;
            }
            let text = std::str::from_utf8(entry).ok();
            let Some(before) = text.and_then(|text| address(text.trim())) else { break };
            // Nobody reaches another host from the loopback of their own, and ours is not counted.
            if before.is_loopback() && !client.is_loopback() {
                break;
            }
            client = before;
        }
        client
    }
}

/// An entry of the list: an address, which some proxies write with a port or in brackets.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    let alone = bare.parse::<IpAddr>().ok();
    let address =
        alone.or_else(|| entry.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(proxies: &str, from: &str, told: &[&str]) -> String {
        let proxies = Proxies::of(proxies.split(',').filter(|text| !text.is_empty())).unwrap();
        proxies.client(from.parse().unwrap(), told.iter().map(|it| it.as_bytes())).to_string()
    }

    #[test]
    fn a_client_is_whom_the_last_trusted_proxy_was_asked_by() {
        let near = "10.0.0.0/8,fd00::/8";
        for (proxies, from, told, is) in [
            ("", "192.0.2.1", vec!["198.51.100.1"], "192.0.2.1"),
            (near, "192.0.2.1", vec!["198.51.100.1"], "192.0.2.1"),
            (near, "10.1.2.3", vec![], "10.1.2.3"),
            (near, "::ffff:10.1.2.3", vec!["198.51.100.1"], "198.51.100.1"),
            (near, "10.1.2.3", vec!["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            (near, "10.1.2.3", vec!["1.1.1.1", "198.51.100.1 ,10.9.9.9"], "198.51.100.1"),
            (near, "fd00::5", vec!["10.0.0.1, 2001:db8::7,fd00::6"], "2001:db8::7"),
            (near, "10.1.2.3", vec!["::ffff:198.51.100.1"], "198.51.100.1"),
            (near, "10.1.2.3", vec!["198.51.100.1:5000"], "198.51.100.1"),
            (near, "10.1.2.3", vec!["[2001:db8::7]:5000"], "2001:db8::7"),
            (near, "10.1.2.3", vec!["[2001:db8::7]"], "2001:db8::7"),
            (near, "10.1.2.3", vec!["198.51.100.1, unknown"], "10.1.2.3"),
            (near, "10.1.2.3", vec!["198.51.100.1,,10.0.0.7"], "10.0.0.7"),
            (near, "10.1.2.3", vec!["\u{e9}, 198.51.100.1"], "198.51.100.1"),
            (near, "10.1.2.3", vec!["127.0.0.1"], "10.1.2.3"),
            (near, "10.1.2.3", vec!["127.0.0.1, 10.5.5.5"], "10.5.5.5"),
            ("127.0.0.1", "127.0.0.1", vec!["127.0.0.1"], "127.0.0.1"),
            ("10.1.2.3", "10.1.2.4", vec!["198.51.100.1"], "10.1.2.4"),
            ("::ffff:10.1.2.0/120", "10.1.2.4", vec!["198.51.100.1"], "198.51.100.1"),
            ("0.0.0.0/0", "10.1.2.4", vec!["198.51.100.1"], "198.51.100.1"),
        ] {
            assert_eq!(client(proxies, from, &told), is, "{proxies} {from} {told:?}");
        }
    }

    #[test]
    fn a_list_without_end_is_not_read_to_its_end() {
        let long = ["10.0.0.1"; 10_000].join(",");
        assert_eq!(client("10.0.0.0/8", "10.0.0.2", &[&format!("192.0.2.1,{long}")]), "10.0.0.1");
    }

    #[test]
    fn what_names_no_network_is_refused() {
        for text in ["", "proxy", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "::/129", "10.0.0/8"] {
            assert_eq!(Proxies::of([text]), Err(NoNetwork), "{text:?}");
        }
        let read = Proxies::of(["10.0.0.0/8", "::1", "::ffff:192.0.2.1"]).unwrap();
        let texts: Vec<String> = read.texts().collect();
        assert_eq!(texts, ["10.0.0.0/8", "::1/128", "192.0.2.1/32"]);
    }
}
