//! # ringcast
//!
//! A WebRTC selective forwarding unit: one binary, one UDP port, every core. It keeps the REST
//! contract of the call service that it replaces, so `mediasoup-client` works unchanged.
//!
//! This page is the map; each module's page says what it owns, who calls it and what always holds.
//!
//! ## Threads and lanes
//!
//! ```text
//!   REST · WHIP · pages        SSE · WebSocket · metrics        Kafka, webhook (own threads)
//!            │           (threads that come after all others)
//!              control thread (tokio): api, control, events
//!                   │ Command                ▲ answers, Event, Report
//!                   ▼  (lanes: bounded, lock-free, eventfd wake)
//!        ┌────── shard 0 ──────┐     ┌────── shard 1 ──────┐ … one per core, pinned
//!        │ UDP + TCP sockets   │◄───►│ UDP + TCP sockets   │    the same port for all
//!        │ Engine (sans-I/O)   │     │ Engine              │    ◄─► misdirected datagrams,
//!        └─────────────────────┘     └─────────────────────┘        packets for mirrors
//!             ▲ the kernel gives each datagram to its owner's socket ▲
//! ```
//!
//! * A **shard** is one pinned thread on a glommio executor (a plain thread where io_uring is
//!   refused) with one socket in a `SO_REUSEPORT` group and one [`Engine`](engine::Engine). It
//!   shares no mutable state and waits for no other thread.
//! * The kernel **steers** where it may ([`steer`](shard::steer), by the shard's characters in the
//!   ufrag and a map of validated addresses); what still reaches a wrong shard is handed over
//!   ([`handoff`](shard::handoff)).
//! * An **engine** does no I/O: datagrams, commands and `now` go in; datagrams, events and the next
//!   deadline come out ([`Machine`](engine::machine::Machine)). Production, simulation and benches
//!   run the same one.
//! * A **room** starts on one shard and uses more when it is big or they are busy
//!   ([`placement`](control::placement)). A producer's packets then cross once to each shard that
//!   watches it, in plaintext, to a *mirror* of it ([`relay`](engine::relay)); they are sealed where
//!   the receiver lives.
//! * Shards tell the control thread, as values, who is [heard](engine::voice) and which layers anybody
//!   [wants](engine::demand); it chooses the [speaker](control::speakers) of a room, which may live on
//!   several shards.
//! * The **control thread** decides everything that is not per packet and is never on a packet's way.
//!   A process that is told to end [drains](control::drain) first: no new rooms, and those there are
//!   go on until they end or a deadline.
//! * A **[lane]** full of commands refuses with 503; full of misdirected datagrams or relayed packets
//!   it drops and counts (video goes on with its next key frame); full of what shards tell each other
//!   it is tried again; full of events it counts what is lost, and the control thread asks for an
//!   inventory.
//!
//! ## The life of a packet
//!
//! [`Shard::turn`](shard::Shard::turn) (wait, read `now` once, receive, route, send) →
//! [`handle_datagrams`](engine::machine::Machine::handle_datagrams) →
//! [`Demux::transport_at`](engine::demux::Demux::transport_at) →
//! [`SrtpOpener::open_rtp`](engine::srtp::SrtpOpener::open_rtp), straight into a slot of the stream's
//! [`PacketRing`](engine::ring::PacketRing) → `router`: every consumer of a stream that brought
//! something becomes due, and its new packets are padded to
//! [equal sizes](engine::equalise) → [`poll_transmit`](engine::machine::Machine::poll_transmit), receiver by
//! receiver: [`Selector::verdict`](engine::select::Selector::verdict) (which layers, and with what
//! numbers in the payload descriptor),
//! [`SeqRewriter::forward`](engine::rewrite::SeqRewriter::forward),
//! [`EgressHeader::write`](engine::rtp::EgressHeader::write) →
//! [`SrtpSealer::seal_rtp`](engine::srtp::SrtpSealer::seal_rtp) from the ring into the
//! [`TransmitBatch`](engine::io::TransmitBatch): the only copy of the payload → one `sendmmsg` whose
//! messages are trains. How long that took since the kernel received the packet goes into the shard's
//! [`LatencyRecorder`](metrics::latency::LatencyRecorder). Where datagrams come close together the
//! shard lets some gather before it wakes (`shard::gather`), and what the next receivers need is
//! read ahead, several at once, because else each misses the cache by itself (`engine::warm`).
//!
//! Consumers on other shards: behind all input, [`poll_relay`](engine::machine::Machine::poll_relay)
//! copies what their shards demand into boxes and
//! [`RelayLanes::send`](engine::relay::RelayLanes::send)s them; over there
//! [`handle_relay`](engine::machine::Machine::handle_relay) copies them into the mirror's ring, from
//! where they go on as if they had just arrived, and the boxes go back. NACKs are answered from that
//! ring; only demand and key-frame requests go the other way.
//!
//! ## What a receiver gets
//!
//! A transport whose client tells what arrives (transport-wide feedback, else REMB) has an
//! [`Outgoing`](engine::outgoing::Outgoing): each numbered packet is noted in its
//! [`Estimator`](engine::bwe::Estimator), feedback moves the estimate, and probes of repeats or
//! padding prove room above what is sent. A few times a second, and at once when the estimate falls
//! below it, the [`Allocator`](engine::allocation::Allocator) shares the estimate among the
//! transport's videos by what their streams' layers really cost
//! ([`StreamLayers`](engine::select::StreamLayers)), preferences and priorities; what it grants is the
//! [`LayerTarget`](engine::select::LayerTarget) that `router` aims at, stream by stream with key
//! frames, and the selector inside a stream. Why a consumer gets what it gets stays with it, for its
//! statistics. For a link that has shown to be slow a burst of pictures is spread over time
//! ([`pacing`](engine::pacing)), and sound passes it. Over all consumers and shards the wishes of one
//! producer are its *demand*, told to its publisher's application as an event.
//!
//! ## The life of a command
//!
//! A connection is taken, secured and bounded in number and time by [`api::serving`]. A gate before
//! all routes asks [`access`] who calls, and what the route wants of them, as long as they do not ask
//! too often. A handler of [`api`] parses into domain types and calls one method of
//! [`Control`](control::Control) → [`placement`](control::placement) names the shard of a new room or
//! transport (all else goes where its transport is) →
//! [`Dispatcher::call`](control::dispatcher::Dispatcher::call) → lane → the shard's turn →
//! [`handle_command`](engine::machine::Machine::handle_command) →
//! [`Reply`](control::command::Reply) or [`Refusal`](control::command::Refusal) → status and body.
//! WHIP and WHEP speak [`sdp`] instead of JSON, and then take the same steps
//! ([`Control::publish`](control::Control::publish), [`Control::play`](control::Control::play)).
//! What a shard tells by itself, an [`Event`](control::command::Event), changes the registry and goes
//! into the room's log ([`events`]): readers follow it over Server-Sent Events and WebSockets, on a
//! [thread](events::ReaderThread) that comes after all others, and [`outlet`](events::outlet)s carry
//! it to Kafka and a webhook.
//!
//! ## The program around it
//!
//! `main` hands arguments and environment to [`cli`], which has a file for each command: to serve is
//! [`Config`](config::Config) → [`Server::start`](server::Server::start) →
//! [`Server::run`](server::Server::run), with [`systemd`] told of it; `ringcast config` prints the
//! settings, `doctor` tries what a start would need on this host ([`doctor`]), `health`
//! asks a running server how it is ([`health`]), `drain` tells it to take no new calls and waits
//! ([`remote`]), and `token` signs a room token ([`access`]).
//!
//! ## What always holds
//!
//! 1. Nothing but STUN is taken from an address that ICE has not validated.
//! 2. `str0m` sees neither STUN nor media nor keys: it does DTLS. One function touches an `Rtc`, and
//!    a panic inside ends that transport alone; any other panic on a shard ends the process.
//! 3. One SRTP packet index is never used for two different packets.
//! 4. A video consumer starts, and resumes after any switch, with a key frame; its sequence numbers
//!    have no gap but for packets lost on their way to us.
//! 5. Nothing is allocated between receiving and sending a media packet.
//! 6. Everything that grows has a bound in [`limits`].
//! 7. Each part of a turn is bounded. What waits too long for its turn is left out, of all rooms
//!    alike and without a gap in its numbers (`engine::shed`).
//!
//! ## Where this differs from the first design
//!
//! * Clients that speak SDP may have RSA certificates (GStreamer makes them), which the DTLS under
//!   `str0m` refuses: their handshakes are OpenSSL's ([`dtls`](engine::dtls)), on the same terms.
//! * STUN is answered by our own code: `str0m`'s parser indexes past the end of malformed messages
//!   and does not know renomination. `str0m` gets one synthetic address pair and no SRTP keys at all
//!   (instead of random ones), so it can neither seal nor open media.
//! * The median latency at half load may exceed 200 µs where many clients send: media wakes a shard
//!   once in 750 µs at most, which saves a quarter of the CPU there; and a shard that sends single
//!   datagrams to many receivers lets whatever wakes it wait 1.25 ms for more, which saves as much
//!   there (`--coalesce-us=0` for the other choice).
//! * Answers, events and reports of a shard share one lane, so that their order is the order of
//!   happening; a command is taken only while its answer has room.

pub mod access;
pub mod api;
pub mod cli;
pub mod config;
pub mod control;
mod doctor;
pub mod engine;
pub mod events;
mod health;
pub mod id;
pub mod lane;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod node;
pub mod ortc;
mod remote;
mod roots;
pub mod sdp;
pub mod server;
pub mod shard;
pub mod systemd;
