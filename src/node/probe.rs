//! Tries what a node would need, without starting one: for `ringcast doctor`.
//!
//! Invariants: nothing is left behind, and a node that runs beside is not disturbed: the sockets
//! have ports of their own, or are bound alone, which a port in use refuses.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{executor_named, ports};
use crate::config::Config;
use crate::shard::socket::UdpSocket;
use crate::shard::steer;

/// What the kernel lets a UDP socket do.
#[derive(Debug)]
pub(crate) struct UdpFeatures {
    /// Sends trains.
    pub(crate) gso: bool,
    /// Receives trains.
    pub(crate) gro: bool,
    /// The sysctls that keep its buffers small.
    pub(crate) small: Vec<&'static str>,
}

/// Whether a shard's executor can be made, on a thread of its own as a shard's is.
///
/// # Errors
/// Why not.
pub(crate) fn io_uring() -> Result<(), String> {
    let trial = std::thread::spawn(|| {
        let executor = executor_named("doctor").map_err(|error| error.to_string())?;
        executor.run(async {});
        Ok(())
    });
    let result = trial.join().unwrap_or_else(|_| Err("the executor panicked".to_owned()));
    result.map_err(|reason| format!("io_uring is refused: {reason}"))
}

/// Whether the kernel would steer, tried on two sockets.
///
/// # Errors
/// Why not.
pub(crate) fn steering() -> Result<(), String> {
    let try_it = || -> io::Result<_> {
        let first = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false)?;
        let second = UdpSocket::bind(first.local_addr()?, false)?;
        Ok([first, second])
    };
    let group = try_it().map_err(|error| error.to_string())?;
    steer::attach(&group).map(drop).map_err(|error| error.to_string())
}

/// What a socket gets here.
///
/// # Errors
/// When there is none.
pub(crate) fn udp(config: &Config) -> io::Result<UdpFeatures> {
    let (socket, _) = on_all_or(config, |ip| UdpSocket::bind(SocketAddr::new(ip, 0), true))?;
    let small = socket.grow_buffers();
    Ok(UdpFeatures { gso: socket.has_gso(), gro: socket.has_gro(), small })
}

/// Whether the media port is free, for UDP and for TCP where media uses that; when any port will do,
/// whether there is one, as a node finds it.
///
/// # Errors
/// What the kernel says.
pub(crate) fn media_port(config: &Config) -> io::Result<()> {
    let attempts = if config.media_port == 0 { ports::EPHEMERAL_ATTEMPTS } else { 0 };
    until_free(attempts, || try_media_port(config))
}

/// Binds, and as often again as there are more attempts while what it got is in use.
fn until_free(attempts: usize, mut bind: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 0..attempts {
        match bind() {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
    bind()
}

fn try_media_port(config: &Config) -> io::Result<()> {
    let at = |ip| SocketAddr::new(ip, config.media_port);
    let (socket, ip) = on_all_or(config, |ip| UdpSocket::bind(at(ip), true))?;
    let port = socket.local_addr()?.port();
    if config.media_tcp {
        ports::bind_tcp(SocketAddr::new(ip, port), true)?;
    }
    Ok(())
}

/// Binds to the one address that is listened on, or to all, of both families where the host has two.
fn on_all_or<T>(
    config: &Config,
    bind: impl Fn(IpAddr) -> io::Result<T>,
) -> io::Result<(T, IpAddr)> {
    let on = |ip| bind(ip).map(|bound| (bound, ip));
    match config.media_listen.as_slice() {
        [only] => on(*only),
        _ => match on(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) {
            Err(error) if ports::is_without_ipv6(&error) => on(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            bound => bound,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_port_is_looked_for_until_one_is_free_and_a_port_by_number_is_not() {
        let taken = |times: u32, kind: ErrorKind| {
            let mut left = times;
            move || {
                let free = left.checked_sub(1).map(|rest| left = rest).is_none();
                if free { Ok(()) } else { Err(io::Error::from(kind)) }
            }
        };
        let kind = |result: io::Result<()>| result.err().map(|error| error.kind());
        let in_use = ErrorKind::AddrInUse;
        for (attempts, times, result) in [(0, 0, None), (0, 1, Some(in_use)), (3, 3, None)] {
            assert_eq!(kind(until_free(attempts, taken(times, in_use))), result);
        }
        assert_eq!(kind(until_free(3, taken(4, in_use))), Some(in_use));
        let forbidden = ErrorKind::PermissionDenied;
        assert_eq!(kind(until_free(3, taken(1, forbidden))), Some(forbidden), "not asked again");
    }
}
