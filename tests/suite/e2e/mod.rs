//! Whole servers over real sockets: REST in, stock str0m clients on 127.0.0.1 and ::1 around.
//!
//! [`servers`] starts a server inside this process or as the built binary, [`call`] drives the
//! clients of one room in one poll loop. Nothing sleeps: what is waited for is a descriptor or a
//! condition, with [`servers::PATIENCE`] as its end.

mod call;
mod http;
mod media;
mod secure;
mod servers;
mod stock;

mod deployed;
mod drain;
mod floods;
mod leaks;
mod load;
mod logs;
mod paths;
mod process;
mod readers;
mod refusals;
mod replaced;
mod restart;
mod shards;
mod slow;
mod strangers;
mod supervised;
mod tls;
