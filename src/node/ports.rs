//! The one media port: every shard's sockets on it, and the kernel's steering between them.
//!
//! Called by [`Node::start`](super::Node::start) before any shard runs. Invariants: all sockets have
//! the same address; a port that another node serves is never shared with it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use rustix::event::Timespec;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::{NodeError, NodeSetup};
use crate::limits::{BIND_PATIENCE, BIND_RETRY};
use crate::shard::run::clock;
use crate::shard::socket::UdpSocket;
use crate::shard::steer::{self, FlowMap};

/// Ports tried when any will do: one may be free for UDP and taken for TCP.
pub(super) const EPHEMERAL_ATTEMPTS: usize = 16;

/// Waiting connections of one listener.
const TCP_BACKLOG: i32 = 256;

/// Each shard's socket and listener, in order of their ids.
pub(super) type Sockets = Vec<(UdpSocket, Option<TcpListener>)>;

/// Has the kernel steer datagrams to the shards' sockets, if it may.
pub(super) fn steer<F>(setup: &NodeSetup<F>, sockets: &Sockets) -> Option<FlowMap> {
    if !setup.steer {
        return None;
    }
    let group: Vec<&UdpSocket> = sockets.iter().map(|(udp, _)| udp).collect();
    match steer::attach(&group) {
        Ok(flows) => Some(flows),
        Err(reason) => {
            tracing::info!(%reason, "datagrams are not steered by the kernel");
            None
        }
    }
}

/// Binds every shard's sockets, in order of their ids, to one port.
pub(super) fn bind_group<F>(setup: &NodeSetup<F>) -> Result<(SocketAddr, Sockets), NodeError> {
    let any = setup.listen.is_none();
    let mut ip = setup.listen.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let deadline = clock() + BIND_PATIENCE;
    let mut attempts = EPHEMERAL_ATTEMPTS;
    loop {
        let address = SocketAddr::new(ip, setup.media_port);
        let error = match try_bind_group(address, setup) {
            Ok(group) => return Ok(group),
            Err(error) => error,
        };
        let in_use = error.kind() == ErrorKind::AddrInUse;
        if any && ip.is_ipv6() && is_without_ipv6(&error) {
            ip = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        } else if in_use && setup.media_port == 0 && attempts > 0 {
            attempts -= 1;
        } else if in_use && setup.media_port != 0 && clock() < deadline {
            pause();
        } else {
            return Err(NodeError::Bind { address, error });
        }
    }
}

pub(super) fn is_without_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT) || error.kind() == ErrorKind::AddrNotAvailable
}

fn pause() {
    let nanoseconds = i64::from(BIND_RETRY.subsec_nanos());
    // A signal shortens it; the deadline is checked by the caller.
    let _ = rustix::event::poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: nanoseconds }));
}

fn try_bind_group<F>(
    mut address: SocketAddr,
    setup: &NodeSetup<F>,
) -> io::Result<(SocketAddr, Sockets)> {
    // First alone: in a `SO_REUSEPORT` group, a second node of the same user on the same port would
    // silently get half of the first one's datagrams.
    address.set_port(UdpSocket::bind(address, true)?.local_addr()?.port());
    if setup.tcp {
        drop(bind_tcp(address, true)?);
    }
    let sockets = (0..setup.shards)
        .map(|_| {
            let udp = UdpSocket::bind(address, false)?;
            let tcp = if setup.tcp { Some(bind_tcp(address, false)?) } else { None };
            Ok((udp, tcp))
        })
        .collect::<io::Result<Sockets>>()?;
    for sysctl in sockets.first().map(|(udp, _)| udp.grow_buffers()).unwrap_or_default() {
        tracing::warn!(sysctl, "UDP buffers are smaller than asked: raise this sysctl to 8388608");
    }
    for (udp, _) in sockets.iter().skip(1) {
        udp.grow_buffers();
    }
    Ok((address, sockets))
}

pub(super) fn bind_tcp(address: SocketAddr, exclusive: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, !address.ip().is_unspecified())?;
    }
    // Connections of a predecessor that linger must not keep the port.
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if !exclusive {
        sockopt::set_socket_reuseport(&fd, true)?;
    }
    rustix::net::bind(&fd, &address)?;
    rustix::net::listen(&fd, TCP_BACKLOG)?;
    Ok(TcpListener::from(fd))
}
