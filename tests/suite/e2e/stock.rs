//! One transport's client: an unchanged str0m with a full ICE agent over a real socket.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use serde_json::Value;
use str0m::config::Fingerprint;
use str0m::format::{Codec, FormatParams};
use str0m::ice::IceCreds;
use str0m::media::{Frequency, MediaKind};
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::rtp::{Extension, ExtensionMap, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::media::{Kind, Source, mark};
use super::servers::clock;

/// Datagrams said last that are remembered, for those who want to mutate them.
const SAID_MAX: usize = 64;

/// How a client reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Net {
    Udp4,
    Udp6,
    Tcp4,
}

impl Net {
    /// The server's address for it among the candidates it announces.
    fn pick(self, candidates: &Value) -> SocketAddr {
        let protocol = if self == Self::Tcp4 { "tcp" } else { "udp" };
        let fits = |ip: IpAddr| ip.is_ipv6() == (self == Self::Udp6);
        let address = |candidate: &Value| {
            let ip: IpAddr = candidate["ip"].as_str()?.parse().ok()?;
            let port = u16::try_from(candidate["port"].as_u64()?).ok()?;
            (candidate["protocol"] == protocol && fits(ip)).then_some(SocketAddr::new(ip, port))
        };
        let found = candidates.as_array().unwrap().iter().find_map(address);
        found.unwrap_or_else(|| panic!("nothing for {self:?} in {candidates}"))
    }
}

enum Wire {
    Udp(UdpSocket),
    /// Frames of RFC 4571; what was read and is no whole frame yet, what was not taken yet.
    Tcp {
        stream: TcpStream,
        partial: Vec<u8>,
        unsent: Vec<u8>,
    },
}

/// Codec numbers: payload type and its RTX.
pub(crate) struct Numbers {
    pub(crate) opus: u8,
    pub(crate) vp8: (u8, Option<u8>),
    pub(crate) mid_extension: u8,
}

/// A publisher's own.
pub(crate) const OWN_NUMBERS: Numbers =
    Numbers { opus: 111, vp8: (96, Some(97)), mid_extension: 4 };

impl Numbers {
    /// The room's, which its consumers get.
    pub(crate) fn of_room(capabilities: &Value) -> Self {
        let codecs = capabilities["codecs"].as_array().unwrap();
        let number =
            |codec: &Value, name: &str| u8::try_from(codec[name].as_u64().unwrap()).unwrap();
        let of = |mime: &str| {
            let found = codecs.iter().find(|codec| codec["mimeType"] == mime);
            number(found.unwrap_or_else(|| panic!("no {mime}")), "preferredPayloadType")
        };
        let vp8 = of("video/VP8");
        let repair = codecs.iter().find(|codec| codec["parameters"]["apt"] == vp8);
        let extensions = capabilities["headerExtensions"].as_array().unwrap();
        let is_mid = |extension: &&Value| extension["uri"] == "urn:ietf:params:rtp-hdrext:sdes:mid";
        Self {
            opus: of("audio/opus"),
            vp8: (vp8, repair.map(|codec| number(codec, "preferredPayloadType"))),
            mid_extension: number(extensions.iter().find(is_mid).unwrap(), "preferredId"),
        }
    }
}

/// A client with its socket and, when it publishes, its sources.
pub(crate) struct Stock {
    rtc: Rtc,
    wire: Wire,
    net: Net,
    home: SocketAddr,
    server: SocketAddr,
    timeout: Instant,
    pub(crate) peer: String,
    pub(crate) transport: String,
    pub(crate) connected: bool,
    pub(crate) closed: bool,
    pub(crate) sources: Vec<Source>,
    /// SSRC of the source and number of each packet as an application gets it.
    pub(crate) heard: Vec<(u32, u64)>,
    pub(crate) said: VecDeque<Vec<u8>>,
    /// Every so many media datagrams, one is lost on its way here.
    pub(crate) loses_in: Option<usize>,
    /// Every so many media datagrams, one is lost on its way to the server.
    pub(crate) loses_out: Option<usize>,
    media_in: usize,
    media_out: usize,
}

/// True for the n-th media datagram of a wire that loses every so many; others never are.
fn is_lost(bytes: &[u8], loses: Option<usize>, count: &mut usize) -> bool {
    // RTP and no RTCP (RFC 5761).
    let is_media = matches!(bytes, [128..=191, kind, ..] if !(64..=95).contains(&(kind & 0x7f)));
    *count += usize::from(is_media);
    is_media && loses.is_some_and(|every| count.is_multiple_of(every))
}

impl Stock {
    /// A client of the transport that the API made.
    pub(crate) fn new(net: Net, peer: &str, made: &Value, numbers: &Numbers) -> Self {
        let now = clock();
        let server = net.pick(&made["iceCandidates"]);
        let (wire, home) = dial(net, server);
        let mut extensions = ExtensionMap::empty();
        extensions.set(numbers.mid_extension, Extension::RtpMid);
        let mut config =
            Rtc::builder().set_rtp_mode(true).clear_codecs().set_extension_map(extensions);
        let (vp8, repair) = numbers.vp8;
        for (pt, repair, codec, clock_rate, channels) in [
            (numbers.opus, None, Codec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2)),
            (vp8, repair, Codec::Vp8, Frequency::NINETY_KHZ, None),
        ] {
            let repair = repair.map(Into::into);
            let format = FormatParams::default();
            config.codec_config().add_config(
                pt.into(),
                repair,
                codec,
                clock_rate,
                channels,
                format,
            );
        }
        let mut rtc = config.build(now);
        let protocol = if net == Net::Tcp4 { "tcp" } else { "udp" };
        rtc.add_local_candidate(Candidate::host(home, protocol).unwrap());
        rtc.add_remote_candidate(Candidate::host(server, protocol).unwrap());
        Self {
            rtc,
            wire,
            net,
            home,
            server,
            timeout: now,
            peer: peer.to_owned(),
            transport: text(&made["id"]),
            connected: false,
            closed: false,
            sources: Vec::new(),
            heard: Vec::new(),
            said: VecDeque::new(),
            loses_in: None,
            loses_out: None,
            media_in: 0,
            media_out: 0,
        }
    }

    /// Its certificate, as `connect` is told it.
    pub(crate) fn fingerprint(&mut self) -> String {
        let fingerprint = self.rtc.direct_api().local_dtls_fingerprint().bytes.clone();
        let bytes: Vec<String> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
        bytes.join(":")
    }

    /// Begins ICE and DTLS towards the transport that the API made.
    pub(crate) fn call(&mut self, made: &Value) {
        let sha256 = made["dtlsParameters"]["fingerprints"].as_array().unwrap().iter();
        let sha256 = sha256.clone().find(|entry| entry["algorithm"] == "sha-256").unwrap();
        let value = text(&sha256["value"]);
        let bytes = value.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let ice = &made["iceParameters"];
        let mut api = self.rtc.direct_api();
        api.set_ice_controlling(true);
        api.set_remote_ice_credentials(IceCreds {
            ufrag: text(&ice["usernameFragment"]),
            pass: text(&ice["password"]),
        });
        api.set_remote_fingerprint(Fingerprint { hash_func: "sha-256".into(), bytes });
        api.start_dtls(true).unwrap();
        self.begin();
    }

    /// Comes from another port with other ICE parameters, as after a change of networks.
    pub(crate) fn restart(&mut self, ice: &Value) {
        (self.wire, _) = dial(self.net, self.server);
        self.rtc.direct_api().set_remote_ice_credentials(IceCreds {
            ufrag: text(&ice["usernameFragment"]),
            pass: text(&ice["password"]),
        });
        self.begin();
    }

    /// Its port, as the server sees it.
    pub(crate) fn port(&self) -> u16 {
        match &self.wire {
            Wire::Udp(socket) => socket.local_addr().unwrap().port(),
            Wire::Tcp { stream, .. } => stream.local_addr().unwrap().port(),
        }
    }

    /// Starts to send a source.
    pub(crate) fn send(&mut self, source: Source) {
        let mid = source.mid.as_str().into();
        let repair = (source.kind == Kind::Video).then(|| (source.ssrc + 1).into());
        let mut api = self.rtc.direct_api();
        api.declare_media(mid, media_kind(source.kind));
        api.declare_stream_tx(source.ssrc.into(), repair, mid, None);
        self.sources.push(source);
        self.begin();
    }

    /// Expects what the API says a consumer gets.
    pub(crate) fn expect(&mut self, consumer: &Value) {
        let rtp = &consumer["rtpParameters"];
        let number = |value: &Value| value.as_u64().map(|ssrc| u32::try_from(ssrc).unwrap());
        let encoding = &rtp["encodings"][0];
        let ssrc = number(&encoding["ssrc"]).unwrap();
        let repair = number(&encoding["rtx"]["ssrc"]).map(Into::into);
        let mid = text(&rtp["mid"]);
        let kind = if consumer["kind"] == "audio" { Kind::Audio } else { Kind::Video };
        let mut api = self.rtc.direct_api();
        api.declare_media(mid.as_str().into(), media_kind(kind));
        api.expect_stream_rx(ssrc.into(), repair, mid.as_str().into(), None);
        self.begin();
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let sources = self.sources.iter().filter(|_| self.connected);
        let sources = sources.filter_map(|source| source.next_at);
        (!self.closed).then(|| sources.chain([self.timeout]).min()).flatten()
    }

    /// Reads all there is, sends what is due.
    pub(crate) fn turn(&mut self) {
        while let Some(bytes) = self.wire.read() {
            if is_lost(&bytes, self.loses_in, &mut self.media_in) {
                continue;
            }
            let Ok(contents) = DatagramRecv::try_from(bytes.as_slice()) else { continue };
            let proto = if self.net == Net::Tcp4 { Protocol::Tcp } else { Protocol::Udp };
            let receive = Receive { proto, source: self.server, destination: self.home, contents };
            self.input(Input::Receive(clock(), receive));
        }
        let now = clock();
        if self.timeout <= now {
            self.input(Input::Timeout(now));
        }
        for index in 0..self.sources.len() {
            let source = &mut self.sources[index];
            if self.connected && source.next_at.is_some_and(|at| at <= now) {
                let packet = source.take(now);
                let write = RtpWrite::new(
                    source.payload_type().into(),
                    packet.number.into(),
                    packet.timestamp,
                    now,
                    std::sync::Arc::<[u8]>::from(packet.payload),
                );
                let write = write.marker(true).nackable(source.kind == Kind::Video);
                let ssrc = source.ssrc.into();
                let mut api = self.rtc.direct_api();
                api.stream_tx(&ssrc).unwrap().write_rtp(write);
                // One packet leaves for each poll after a timeout.
                self.input(Input::Timeout(now));
            }
        }
        self.wire.flush();
    }

    /// Lets what was just changed begin: str0m's own deadline knows nothing of it yet.
    fn begin(&mut self) {
        self.input(Input::Timeout(clock()));
    }

    fn input(&mut self, input: Input<'_>) {
        if self.closed || self.rtc.handle_input(input).is_err() {
            self.closed = true;
            return;
        }
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.timeout = at;
                    return;
                }
                Ok(Output::Transmit(out)) => {
                    if !is_lost(&out.contents, self.loses_out, &mut self.media_out) {
                        self.say(&out.contents);
                    }
                }
                Ok(Output::Event(event)) => self.handle_event(event),
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    /// Sends any bytes from its address.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.wire.write(bytes);
        if self.said.len() == SAID_MAX {
            self.said.pop_front();
        }
        self.said.push_back(bytes.to_vec());
    }

    /// Sends any bytes from its address, and does not remember them.
    pub(crate) fn babble(&mut self, bytes: &[u8]) {
        self.wire.write(bytes);
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Connected => self.connected = true,
            Event::Closed => self.closed = true,
            Event::KeyframeRequest(wish) => {
                for source in &mut self.sources {
                    source.wants_key |= source.mid == wish.mid.to_string();
                }
            }
            Event::RtpPacket(packet) => self.heard.push(mark(&packet.payload)),
            _ => {}
        }
    }
}

impl AsFd for Stock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.wire {
            Wire::Udp(socket) => socket.as_fd(),
            Wire::Tcp { stream, .. } => stream.as_fd(),
        }
    }
}

impl Wire {
    /// The next datagram or frame, if there is one.
    fn read(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        match self {
            Self::Udp(socket) => {
                // A refusal is told once for a datagram that found nobody: nothing to read.
                let count = socket.recv(&mut buffer).ok()?;
                Some(buffer[..count].to_vec())
            }
            Self::Tcp { stream, partial, .. } => loop {
                if let Some((length, rest)) = partial.split_first_chunk::<2>() {
                    let length = usize::from(u16::from_be_bytes(*length));
                    if let Some(frame) = rest.get(..length) {
                        let frame = frame.to_vec();
                        partial.drain(..2 + length);
                        return Some(frame);
                    }
                }
                match stream.read(&mut buffer) {
                    Ok(count) if count > 0 => partial.extend_from_slice(&buffer[..count]),
                    _ => return None,
                }
            },
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        match self {
            // A full or refusing socket loses it, as networks do.
            Self::Udp(socket) => drop(socket.send(bytes)),
            Self::Tcp { unsent, .. } => {
                unsent.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
                unsent.extend_from_slice(bytes);
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        let Self::Tcp { stream, unsent, .. } = self else { return };
        while !unsent.is_empty() {
            match stream.write(unsent) {
                Ok(count) => drop(unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => unsent.clear(),
            }
        }
    }
}

fn dial(net: Net, server: SocketAddr) -> (Wire, SocketAddr) {
    if net == Net::Tcp4 {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        let home = stream.local_addr().unwrap();
        return (Wire::Tcp { stream, partial: Vec::new(), unsent: Vec::new() }, home);
    }
    let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_nonblocking(true).unwrap();
    let home = socket.local_addr().unwrap();
    (Wire::Udp(socket), home)
}

fn media_kind(kind: Kind) -> MediaKind {
    if kind == Kind::Audio { MediaKind::Audio } else { MediaKind::Video }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
