//! What the network gives: addresses that clients can reach, free ports, and the services that
//! events go to.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};

use super::{Finding, in_time};
use crate::config::Config;
use crate::health;
use crate::limits::DOCTOR_PATIENCE;
use crate::node::probe;
use crate::roots;
use crate::server::{announced_addresses, is_private, own_addresses};

pub(super) fn announced(config: &Config) -> Vec<Finding> {
    let told = announced_addresses(config);
    let mut ips = Vec::new();
    let mut findings = Vec::new();
    for name in &told {
        match name.parse() {
            Ok(ip) => ips.push(ip),
            Err(_) => match resolve(name.clone()) {
                Some(found) => ips.extend(found),
                None => findings.push(Finding::fail(
                    "announce",
                    format!("{name} has no address in the DNS: its candidates lead nowhere"),
                    "mend the record, or --announce an address",
                )),
            },
        }
    }
    // Of names that lead nowhere alone there is nothing good to say.
    if findings.is_empty() || !ips.is_empty() {
        findings.insert(0, judge_announced(config, &told, &ips, &own_addresses()));
    }
    findings
}

fn resolve(name: String) -> Option<Vec<IpAddr>> {
    let found = in_time(move || (name, 0).to_socket_addrs())?.ok()?;
    Some(found.map(|address| address.ip()).collect::<Vec<_>>()).filter(|found| !found.is_empty())
}

fn judge_announced(config: &Config, told: &[String], ips: &[IpAddr], own: &[IpAddr]) -> Finding {
    const CHECK: &str = "announce";
    if told.is_empty() {
        return Finding::fail(CHECK, "no address to tell clients", "--announce ADDRESS");
    }
    let list = told.join(", ");
    let (v4, v6) = listened_families(config);
    if let Some(ip) = ips.iter().find(|ip| if ip.is_ipv6() { !v6 } else { !v4 }) {
        return Finding::fail(
            CHECK,
            format!("{ip} is announced, and media is not received over its family"),
            "--media-listen 0.0.0.0,:: (or announce addresses of the other family only)",
        );
    }
    if !ips.is_empty() && ips.iter().all(is_private) {
        return Finding::warn(
            CHECK,
            format!("only private addresses are announced ({list}): clients elsewhere cannot call"),
            "--announce ADDRESS, under which clients reach this host",
        );
    }
    let elsewhere: Vec<String> =
        ips.iter().filter(|ip| !own.contains(ip)).map(IpAddr::to_string).collect();
    let mut says = format!("clients are told {list}");
    if !elsewhere.is_empty() {
        says.push_str(&format!(
            "; {} is not on this host: where it is translated, port {} must stay the same, UDP and \
             TCP",
            elsewhere.join(", "),
            config.media_port
        ));
    }
    let has_public_v6 = own.iter().any(|ip| ip.is_ipv6() && !is_private(ip));
    if has_public_v6 && !ips.iter().any(IpAddr::is_ipv6) {
        says.push_str("; this host has IPv6, which is not announced");
    }
    Finding::ok(CHECK, says)
}

/// Whether media is received over IPv4, and over IPv6.
fn listened_families(config: &Config) -> (bool, bool) {
    let v6 = config.media_listen.iter().any(IpAddr::is_ipv6);
    // `::` takes both.
    let both = config.media_listen.iter().any(|ip| ip.is_ipv6() && ip.is_unspecified());
    (both || config.media_listen.iter().any(IpAddr::is_ipv4), v6)
}

pub(super) fn ports(config: &Config) -> Vec<Finding> {
    let media = probe::media_port(config);
    let api = api_port(config.api_listen, |address| TcpListener::bind(address).map(drop));
    // Held by the server that is being looked after, they are as they should be.
    let taken = [&media, &api].into_iter().any(is_taken);
    let ours = taken && health::ask(config, health::Question::Alive).is_ok();
    let mut findings = Vec::new();
    if config.media_udp || config.media_tcp {
        let port = config.media_port;
        let which = format!("{port} for media");
        let who = format!("ss -lntup 'sport = :{port}' (who has it), or --media-port");
        findings.push(judge_port("media-port", &which, media, ours, &who));
    }
    let port = config.api_listen.port();
    let who = format!("ss -lntp 'sport = :{port}' (who has it), or --api-listen");
    findings.push(judge_port("api-port", &config.api_listen.to_string(), api, ours, &who));
    findings
}

/// Whether the API's address can be had, as a server would ask for it: `[::]` means `0.0.0.0` on a
/// host without IPv6.
fn api_port(listen: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<()>) -> io::Result<()> {
    bind(listen).or_else(|error| {
        if listen.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED) || error.kind() == ErrorKind::AddrInUse
        {
            return Err(error);
        }
        bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port()))).map_err(|_| error)
    })
}

fn is_taken(result: &io::Result<()>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

fn judge_port(
    check: &'static str,
    which: &str,
    result: io::Result<()>,
    ours: bool,
    who: &str,
) -> Finding {
    let Err(error) = result else { return Finding::ok(check, format!("{which} is free")) };
    match error.kind() {
        ErrorKind::AddrInUse if ours => {
            Finding::ok(check, format!("{which} is in use by a server that answers"))
        }
        ErrorKind::AddrInUse => Finding::fail(check, format!("{which} is in use"), who),
        ErrorKind::PermissionDenied => Finding::fail(
            check,
            format!("{which} is not permitted to this user"),
            "a port from 1024 on, or AmbientCapabilities=CAP_NET_BIND_SERVICE (systemd)",
        ),
        ErrorKind::AddrNotAvailable => Finding::fail(
            check,
            format!("{which}: this host has no such address"),
            "ip address (which there are), then --api-listen or --media-listen",
        ),
        _ => Finding::fail(check, format!("{which}: {error}"), who),
    }
}

pub(super) fn kafka(config: &Config) -> Option<Finding> {
    const CHECK: &str = "kafka";
    let brokers = &config.outlets.kafka.as_ref()?.brokers;
    let (up, down): (Vec<_>, Vec<_>) =
        brokers.iter().cloned().partition(|broker| is_reachable(broker.clone()));
    if up.is_empty() {
        return Some(Finding::warn(
            CHECK,
            format!("no broker accepts a connection ({}): events wait", down.join(", ")),
            "start Kafka, open its port, or mend --kafka-brokers",
        ));
    }
    let mut says = format!("{} accept connections", up.join(", "));
    if !down.is_empty() {
        says.push_str(&format!("; {} do not", down.join(", ")));
    }
    Some(Finding::ok(CHECK, says))
}

pub(super) fn webhook(config: &Config) -> Option<Finding> {
    const CHECK: &str = "webhook";
    let webhook = config.outlets.webhook.as_ref()?;
    if let Some(Err(why)) = webhook.ca.as_deref().map(roots::check) {
        return Some(Finding::fail(CHECK, why, "mend the file, or --webhook-ca"));
    }
    let url = webhook.url.reveal();
    // Not even the host is told: the URL is a secret.
    if authority(url).is_some_and(is_reachable) {
        return Some(Finding::ok(CHECK, "its host accepts connections"));
    }
    Some(Finding::warn(
        CHECK,
        "its host accepts no connection: events wait",
        "start the receiver, open its port, or mend --webhook-url",
    ))
}

/// Host and port of an `http` or `https` URL.
fn authority(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let default = if scheme == "https" { 443 } else { 80 };
    Some(if has_port { authority.to_owned() } else { format!("{authority}:{default}") })
}

/// Whether something accepts a connection at host and port, in time.
fn is_reachable(authority: String) -> bool {
    in_time(move || {
        let Ok(addresses) = authority.to_socket_addrs() else { return false };
        let connect = |address: SocketAddr| TcpStream::connect_timeout(&address, DOCTOR_PATIENCE);
        addresses.into_iter().any(|address| connect(address).is_ok())
    })
    .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn config(args: &[&str]) -> Config {
        let args = std::iter::once("ringcast").chain(args.iter().copied());
        Config::from_args(args.map(Into::into), |_| None).unwrap()
    }

    #[test]
    fn without_ipv6_all_addresses_are_those_of_ipv4() {
        let without = |address: SocketAddr| match address {
            SocketAddr::V4(_) => Ok(()),
            // EAFNOSUPPORT, which has no name in the standard library.
            SocketAddr::V6(_) => Err(io::Error::from_raw_os_error(97)),
        };
        assert!(api_port("[::]:6040".parse().unwrap(), without).is_ok());
        assert!(api_port("[::1]:6040".parse().unwrap(), without).is_err());
        let taken = |_| Err(io::Error::from(ErrorKind::AddrInUse));
        assert!(is_taken(&api_port("[::]:6040".parse().unwrap(), taken)));
    }

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn announced_addresses_are_judged_by_who_can_reach_them() {
        for (args, announced, own, level, word) in [
            (&[][..], "198.51.100.7", "198.51.100.7", Level::Ok, "clients are told"),
            (&[], "10.0.0.7 192.168.1.2", "10.0.0.7", Level::Warn, "private"),
            (&[], "100.64.9.1", "100.64.9.1", Level::Warn, "private"),
            (&[], "127.0.0.1", "127.0.0.1", Level::Warn, "private"),
            (&[], "198.51.100.7", "10.0.0.7", Level::Ok, "port 10000 must stay the same"),
            (&[], "198.51.100.7", "198.51.100.7 2001:db8::1", Level::Ok, "has IPv6"),
            (&[], "198.51.100.7 2001:db8::1", "10.0.0.7", Level::Ok, "clients are told"),
            (&["--media-listen=0.0.0.0"], "2001:db8::1", "", Level::Fail, "its family"),
            (&["--media-listen=2001:db8::1"], "198.51.100.7", "", Level::Fail, "its family"),
            (&["--media-listen=::"], "198.51.100.7", "198.51.100.7", Level::Ok, "told"),
            (&[], "", "", Level::Fail, "no address"),
        ] {
            let (announced, own) = (ips(announced), ips(own));
            let told: Vec<String> = announced.iter().map(IpAddr::to_string).collect();
            let finding = judge_announced(&config(args), &told, &announced, &own);
            assert_eq!(finding.level, level, "{args:?} {finding:?}");
            assert!(finding.says.contains(word), "{finding:?}");
        }
    }

    #[test]
    fn a_name_that_leads_nowhere_is_a_failure_and_nothing_else() {
        let levels = |args: &[&str]| -> Vec<Level> {
            announced(&config(args)).into_iter().map(|finding| finding.level).collect()
        };
        assert_eq!(levels(&["--announce=no-such-host.invalid"]), [Level::Fail]);
        let both = levels(&["--announce=no-such-host.invalid,203.0.113.7"]);
        assert_eq!(both, [Level::Ok, Level::Fail]);
    }

    #[test]
    fn a_port_in_use_is_no_failure_of_the_server_that_uses_it() {
        let taken = || Err(ErrorKind::AddrInUse.into());
        assert_eq!(judge_port("api-port", "1", Ok(()), false, "ss").level, Level::Ok);
        assert_eq!(judge_port("api-port", "1", taken(), true, "ss").level, Level::Ok);
        let finding = judge_port("api-port", "1", taken(), false, "ss");
        assert_eq!((finding.level, finding.mend.as_deref()), (Level::Fail, Some("ss")));
        for kind in [ErrorKind::PermissionDenied, ErrorKind::AddrNotAvailable, ErrorKind::Other] {
            let finding = judge_port("api-port", "1", Err(kind.into()), true, "ss");
            assert_eq!(finding.level, Level::Fail, "{finding:?}");
        }
    }

    #[test]
    fn the_host_and_port_of_a_webhook_are_found() {
        for (url, expected) in [
            ("https://a.example/in?token=1", "a.example:443"),
            ("http://a.example", "a.example:80"),
            ("http://a.example:8080/x:9", "a.example:8080"),
            ("https://[2001:db8::1]/", "[2001:db8::1]:443"),
            ("https://[2001:db8::1]:1/", "[2001:db8::1]:1"),
        ] {
            assert_eq!(authority(url).as_deref(), Some(expected), "{url}");
        }
    }

    #[test]
    fn kafka_and_webhook_are_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (at, level) in [(open, Level::Ok), (free, Level::Warn)] {
            let config = config(&[
                &format!("--kafka-brokers={at}"),
                &format!("--webhook-url=http://{at}/sesame"),
                "--webhook-secret=sesame",
            ]);
            let (kafka, webhook) = (kafka(&config).unwrap(), webhook(&config).unwrap());
            assert_eq!((kafka.level, webhook.level), (level, level));
            assert!(kafka.says.contains(&at.to_string()), "{kafka:?}");
            assert!(!format!("{webhook:?}").contains("sesame"));
        }
        assert!(kafka(&config(&[])).is_none() && webhook(&config(&[])).is_none());
    }
}
