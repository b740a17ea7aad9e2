//! Ancillary data and socket addresses as bytes: what `recvmmsg` and `sendmmsg` carry beside the
//! payload, read and written without `unsafe`.
//!
//! Called by the socket, on the shard's thread. Invariants: the layouts are those of Linux with
//! glibc's `cmsghdr`; reading survives any bytes. It makes no system call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

/// Bytes of the largest address of an internet socket (`sockaddr_in6`).
pub(super) const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();

/// [`NAME_BYTES`] as the kernel counts names.
pub(super) const NAME_LENGTH: libc::socklen_t = 28;
const _: () = assert!(NAME_LENGTH as usize == NAME_BYTES);

/// Bytes of a control message's header.
const HEADER: usize = size_of::<libc::cmsghdr>();

/// Alignment of control messages.
const ALIGN: usize = size_of::<usize>();

/// Bytes of control data received with one message: packet info (40), time (32), GRO size (24),
/// overflow counter (24), rounded up.
pub(super) const RECEIVE_CONTROL_BYTES: usize = 128;

/// Bytes of control data sent with one message: packet info (40) and segment size (24).
pub(super) const SEND_CONTROL_BYTES: usize = 64;

/// What the kernel tells beside a received payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ancillary {
    /// Where the datagram was sent to.
    pub(super) local: Option<IpAddr>,
    /// Bytes of each datagram but the last, when the kernel joined several (`UDP_GRO`).
    pub(super) segment: Option<usize>,
    /// Datagrams this socket lost so far because its buffer was full (`SO_RXQ_OVFL`).
    pub(super) dropped: Option<u32>,
    /// When the kernel received it, since the Unix epoch by the host's wall clock
    /// (`SO_TIMESTAMPNS`); of the first one when it joined several.
    pub(super) stamp: Option<Duration>,
}

/// Reads the control data of a received message; what is unknown or malformed is skipped.
pub(super) fn read_ancillary(mut control: &[u8]) -> Ancillary {
    let mut found = Ancillary::default();
    while let Some((message, rest)) = split_message(control) {
        let (level, kind, data) = message;
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // ifindex, the address the kernel answered for, the address in the header.
                found.local = data
                    .get(8..)
                    .and_then(|data| data.first_chunk::<4>())
                    .map(|ip| IpAddr::V4(Ipv4Addr::from(*ip)));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                found.local = data.first_chunk::<16>().map(|ip| Ipv6Addr::from(*ip).to_canonical());
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                found.segment = data
                    .first_chunk::<4>()
                    .and_then(|size| usize::try_from(i32::from_ne_bytes(*size)).ok())
                    .filter(|size| *size > 0);
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => found.stamp = read_stamp(data),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                found.dropped = data.first_chunk::<4>().map(|count| u32::from_ne_bytes(*count));
            }
            _ => {}
        }
        control = rest;
    }
    found
}

/// A `timespec` of 64-bit fields; `None` for one that is before the epoch or no time at all.
fn read_stamp(data: &[u8]) -> Option<Duration> {
    let (seconds, rest) = data.split_first_chunk::<8>()?;
    let nanoseconds = i64::from_ne_bytes(*rest.first_chunk::<8>()?);
    let nanoseconds = u32::try_from(nanoseconds).ok().filter(|n| *n < 1_000_000_000)?;
    let seconds = u64::try_from(i64::from_ne_bytes(*seconds)).ok()?;
    Some(Duration::new(seconds, nanoseconds))
}

/// Level, type and data of one control message.
type Message<'a> = (i32, i32, &'a [u8]);

/// The first control message and what follows it.
fn split_message(control: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let (length, rest) = control.split_first_chunk::<{ size_of::<usize>() }>()?;
    let (level, rest) = rest.split_first_chunk::<4>()?;
    let (kind, _) = rest.split_first_chunk::<4>()?;
    let length = usize::from_ne_bytes(*length);
    let data = control.get(HEADER..length)?;
    let next = length.checked_next_multiple_of(ALIGN)?;
    let message = (i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind), data);
    Some((message, control.get(next..).unwrap_or_default()))
}

/// Control data of one message to send; returns how many bytes of `control` are used.
///
/// `v6` says whether the *socket* is an IPv6 one: there even IPv4 addresses travel mapped.
pub(super) fn write_ancillary(
    control: &mut [u8; SEND_CONTROL_BYTES],
    v6: bool,
    local: IpAddr,
    segment: Option<u16>,
) -> usize {
    let mut used = 0;
    if !local.is_unspecified() {
        match (v6, local) {
            (true, local) => {
                let mut info = [0; 20];
                if let Some(ip) = info.first_chunk_mut::<16>() {
                    *ip = mapped(local).octets();
                }
                used =
                    write_message(control, used, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), &info);
            }
            (false, IpAddr::V4(local)) => {
                let mut info = [0; 12];
                // The middle field is the source address on send.
                if let Some(ip) = info.get_mut(4..8) {
                    ip.copy_from_slice(&local.octets());
                }
                used = write_message(control, used, (libc::IPPROTO_IP, libc::IP_PKTINFO), &info);
            }
            (false, IpAddr::V6(_)) => {}
        }
    }
    if let Some(segment) = segment {
        let kind = (libc::SOL_UDP, libc::UDP_SEGMENT);
        used = write_message(control, used, kind, &segment.to_ne_bytes());
    }
    used
}

/// Appends one control message at `used`, which is aligned; returns the end, aligned.
fn write_message(control: &mut [u8], used: usize, kind: (i32, i32), data: &[u8]) -> usize {
    let length = HEADER + data.len();
    let end = used + length.next_multiple_of(ALIGN);
    let Some(space) = control.get_mut(used..end) else {
        debug_assert!(false, "SEND_CONTROL_BYTES holds both messages");
        return used;
    };
    space.fill(0);
    let fields = length.to_ne_bytes().into_iter().chain(kind.0.to_ne_bytes());
    let bytes = fields.chain(kind.1.to_ne_bytes()).chain(data.iter().copied());
    for (slot, byte) in space.iter_mut().zip(bytes) {
        *slot = byte;
    }
    end
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// An address as the kernel takes it; returns how many bytes of `name` are used.
pub(super) fn write_name(name: &mut [u8; NAME_BYTES], v6: bool, address: SocketAddr) -> u32 {
    let port = address.port().to_be_bytes();
    *name = [0; NAME_BYTES];
    let (family, ip, scope, used) = match (v6, address) {
        (false, SocketAddr::V4(address)) => {
            let mut ip = [0; 20];
            if let Some(start) = ip.first_chunk_mut::<4>() {
                *start = address.ip().octets();
            }
            (libc::AF_INET, ip, 0, size_of::<libc::sockaddr_in>())
        }
        (_, address) => {
            // Four bytes of flow information, then the address.
            let mut ip = [0; 20];
            if let Some(end) = ip.last_chunk_mut::<16>() {
                *end = mapped(address.ip()).octets();
            }
            let scope = if let SocketAddr::V6(address) = address { address.scope_id() } else { 0 };
            (libc::AF_INET6, ip, scope, NAME_BYTES)
        }
    };
    let family = u16::try_from(family).unwrap_or_default().to_ne_bytes();
    let bytes = family.into_iter().chain(port).chain(ip).chain(scope.to_ne_bytes());
    for (slot, byte) in name.iter_mut().zip(bytes) {
        *slot = byte;
    }
    u32::try_from(used).unwrap_or_default()
}

/// The address a message came from, in its own family.
pub(super) fn read_name(name: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = name.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let ip = Ipv4Addr::from(*rest.first_chunk::<4>()?);
            Some(SocketAddr::V4(SocketAddrV4::new(ip, port)))
        }
        libc::AF_INET6 => {
            let (_flow, rest) = rest.split_first_chunk::<4>()?;
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            let ip = Ipv6Addr::from(*ip);
            if let Some(ip) = ip.to_ipv4_mapped() {
                return Some(SocketAddr::V4(SocketAddrV4::new(ip, port)));
            }
            let scope = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_comes_back_as_it_went_in() {
        for (v6, text, bytes) in [
            (false, "192.0.2.7:5000", 16),
            (true, "192.0.2.7:5000", 28),
            (true, "[2001:db8::7]:65535", 28),
            (true, "[::1]:1", 28),
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let mut name = [0xff; NAME_BYTES];
            assert_eq!(write_name(&mut name, v6, address), bytes);
            assert_eq!(read_name(&name[..bytes as usize]), Some(address), "{text}");
        }
    }

    #[test]
    fn a_mapped_destination_is_read_in_its_own_family() {
        let local: IpAddr = "192.0.2.1".parse().unwrap();
        let mut control = [0; SEND_CONTROL_BYTES];
        let used = write_ancillary(&mut control, true, local, Some(1200));
        assert_eq!(used, SEND_CONTROL_BYTES);
        assert_eq!(read_ancillary(&control[..used]).local, Some(local));
    }

    #[test]
    fn no_source_is_set_when_none_is_known() {
        let mut control = [0; SEND_CONTROL_BYTES];
        for v6 in [false, true] {
            assert_eq!(write_ancillary(&mut control, v6, IpAddr::from([0; 4]), None), 0);
        }
    }

    #[test]
    fn a_time_is_read_when_it_is_one() {
        for (seconds, nanoseconds, expected) in [
            (1_700_000_000_i64, 5_i64, Some(Duration::new(1_700_000_000, 5))),
            (0, 999_999_999, Some(Duration::from_nanos(999_999_999))),
            (-1, 5, None),
            (1, -1, None),
            (1, 1_000_000_000, None),
        ] {
            let data = [seconds.to_ne_bytes(), nanoseconds.to_ne_bytes()].concat();
            let mut control = [0; 32];
            let kind = (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS);
            let used = write_message(&mut control, 0, kind, &data);
            assert_eq!(read_ancillary(&control[..used]).stamp, expected, "{seconds} {nanoseconds}");
            assert_eq!(read_ancillary(&control[..used - 1]).stamp, None, "cut short");
        }
    }

    proptest! {
        #[test]
        fn reading_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_ancillary(&bytes);
            let _ = read_name(&bytes);
        }

        #[test]
        fn reading_survives_any_length(length in any::<usize>(), rest in any::<[u8; 40]>()) {
            let bytes: Vec<u8> = length.to_ne_bytes().into_iter().chain(rest).collect();
            let _ = read_ancillary(&bytes);
        }
    }
}
