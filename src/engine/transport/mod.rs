//! One WebRTC transport: its connection (ICE, DTLS), its SRTP keys, and what travels over it.
//!
//! Owned by the engine, on the shard's thread. [`connection`] is the only code that touches an
//! `Rtc`; media passes beside it. Invariants: nothing is sealed before DTLS gave keys and ICE
//! selected an address; an SRTP context exists only for an SSRC that was authenticated.

pub mod connection;
pub mod ice;
pub mod rtc;
pub mod stun;
pub mod tuples;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::control::command::{BitrateLimits, IceState};
use crate::engine::incoming_limit::IncomingLimit;
use crate::engine::listener::{Listener, Route};
use crate::engine::outgoing::Outgoing;
use crate::engine::report::Gauges;
use crate::engine::rtcp_queue::{ReportTurns, RtcpQueue};
use crate::engine::rtp::{ExtensionIds, Token};
use crate::engine::source_clock::SenderClock;
use crate::engine::srtp::{OpenContext, SrtpKeys, SrtpOpener, SrtpSealer};
use crate::engine::tally::TransportTally;
use crate::engine::transport::connection::Connection;
use crate::engine::twcc::TwccReceiver;
use crate::engine::{ConsumerKey, ProducerKey, StreamKey};
use crate::id::TransportId;
use crate::limits::{ADDRESS_NEWS_INTERVAL, SRTP_CONTEXTS_PER_TRANSPORT_MAX};

/// Both directions of a transport's SRTP.
#[derive(Debug)]
pub struct Srtp {
    /// What we receive.
    pub opener: SrtpOpener,
    /// What we send.
    pub sealer: SrtpSealer,
}

/// An incoming SSRC that was authenticated.
#[derive(Debug)]
pub struct Incoming {
    /// When it was last heard, as long as its packets go nowhere; else when its route was found, or
    /// when it was left.
    pub heard: Instant,
    /// Its rollover counter and replay window.
    pub context: OpenContext,
    /// Where its packets go; `None` while no producer claims it.
    pub route: Option<Route>,
    /// When its stream's sender took another SSRC; `None` while that has not happened.
    pub left: Option<Instant>,
    /// The MID it showed (senders stop showing it once their packets are acknowledged).
    pub mid: Option<Token>,
    /// The RID it showed.
    pub rid: Option<Token>,
    /// The repaired RID it showed.
    pub repaired_rid: Option<Token>,
}

impl Incoming {
    /// An SSRC of which nothing was opened yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            heard: now,
            context: OpenContext::default(),
            route: None,
            left: None,
            mid: None,
            rid: None,
            repaired_rid: None,
        }
    }
}

/// The SSRCs that a transport receives, bounded. When there is no room, the one that has gone
/// nowhere for longest makes it, or was left for another: a client that starts and stops its camera
/// for days takes new numbers each time, and must not go unheard.
#[derive(Debug, Default)]
pub struct IncomingTable(HashMap<u32, Incoming>);

impl IncomingTable {
    /// How many there are.
    pub(in crate::engine) fn len(&self) -> usize {
        self.0.len()
    }

    /// Where the packets of an SSRC go, as far as is known.
    pub(in crate::engine) fn stream_of(&self, ssrc: u32) -> Option<StreamKey> {
        Some(self.0.get(&ssrc)?.route?.stream)
    }

    /// A known SSRC.
    pub fn entry(&mut self, ssrc: u32) -> Option<&mut Incoming> {
        self.0.get_mut(&ssrc)
    }

    /// Remembers an authenticated SSRC; false when all there is room for are in use.
    pub fn insert(&mut self, ssrc: u32, incoming: Incoming) -> bool {
        if self.0.len() >= SRTP_CONTEXTS_PER_TRANSPORT_MAX {
            let unused = |other: &Incoming| other.route.is_none() || other.left.is_some();
            let unused = self.0.iter().filter(|(_, other)| unused(other));
            let oldest = unused.min_by_key(|(_, other)| other.heard).map(|(ssrc, _)| *ssrc);
            let Some(oldest) = oldest else { return false };
            self.0.remove(&oldest);
        }
        self.0.insert(ssrc, incoming);
        true
    }

    /// The sender of `stream` sends it as `ssrc` from now on: the SSRCs with which it did so before,
    /// and those of their repairs, may make room. Their routes stay, to know their stragglers by.
    pub(in crate::engine) fn leave_others(&mut self, now: Instant, stream: StreamKey, ssrc: u32) {
        for (other, incoming) in &mut self.0 {
            if *other == ssrc {
                incoming.left = None;
            } else if incoming.left.is_none() && incoming.route.is_some_and(|r| r.stream == stream)
            {
                incoming.left = Some(now);
                incoming.heard = now;
            }
        }
    }

    /// Forgets the routes that `gone` says lead nowhere any more; their contexts stay, because the
    /// sender's rollover counters go on.
    pub fn unroute(&mut self, now: Instant, gone: impl Fn(&Route) -> bool) {
        for incoming in self.0.values_mut() {
            if incoming.route.as_ref().is_some_and(&gone) {
                incoming.route = None;
                incoming.left = None;
                incoming.heard = now;
            }
        }
    }

    /// The SSRCs routed to streams, with their routes.
    pub fn routed(&self) -> impl Iterator<Item = (u32, Route)> + '_ {
        self.0.iter().filter_map(|(ssrc, incoming)| Some((*ssrc, incoming.route?)))
    }
}

/// Tells every change of ICE's state at once, and changes of the selected address alone at most once
/// in [`ADDRESS_NEWS_INTERVAL`]: a client may nominate another of its addresses with each packet,
/// and each telling is an event and a log line.
#[derive(Debug, Default)]
pub struct IceNews {
    last: Option<(IceState, Instant)>,
    /// When the address that was selected since is told.
    untold: Option<Instant>,
}

impl IceNews {
    /// True when a change is to be told now; otherwise it will be due.
    pub fn is_told(&mut self, now: Instant, state: IceState) -> bool {
        if let Some((last, at)) = self.last
            && last == state
            && now < at + ADDRESS_NEWS_INTERVAL
        {
            self.untold = Some(at + ADDRESS_NEWS_INTERVAL);
            return false;
        }
        self.last = Some((state, now));
        self.untold = None;
        true
    }

    /// True once when what was kept back is to be told.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = self.untold.take_if(|at| *at <= now).is_some();
        if let (true, Some((_, at))) = (due, &mut self.last) {
            *at = now;
        }
        due
    }
}

/// A transport.
#[derive(Debug)]
pub struct Transport {
    /// Its name.
    pub id: TransportId,
    /// ICE and DTLS.
    pub connection: Connection,
    /// SRTP, once DTLS is through.
    pub srtp: Option<Srtp>,
    /// What arrives, by SSRC.
    pub incoming: IncomingTable,
    /// How arriving SSRCs find their stream.
    pub listener: Listener,
    /// Extension ids of the client's packets (equal for all its producers, as BUNDLE demands).
    pub receive_ids: ExtensionIds,
    /// What arrives here.
    pub producers: Vec<ProducerKey>,
    /// What is sent here.
    pub consumers: Vec<ConsumerKey>,
    /// Consumers by their media and RTX SSRCs.
    pub out_ssrcs: HashMap<u32, ConsumerKey>,
    /// Consumers with packets to send, in the order of their due.
    pub due_consumers: VecDeque<ConsumerKey>,
    /// Media packets sealed since its turn began.
    pub served: usize,
    /// In the engine's list of transports with something to send.
    pub due: bool,
    /// RTCP that waits to be sealed.
    pub rtcp: RtcpQueue,
    /// Whose sender report is next.
    pub reports: ReportTurns,
    /// Arrival times for transport-wide feedback; `None` until a producer negotiates it.
    pub feedback: Option<TwccReceiver>,
    /// Counts the feedback packets told.
    pub feedback_count: u8,
    /// The publisher offers REMB and not transport-cc.
    pub wants_remb: bool,
    /// The last estimate for REMB, bits/s.
    pub remb_bps: u64,
    /// What its client was told of a limit.
    pub incoming_limit: IncomingLimit,
    /// The next transport-wide sequence number.
    pub transport_seq: u16,
    /// The SSRC of our reports and requests.
    pub rtcp_ssrc: u32,
    /// To a publisher and back, as its answers to our reference times tell (RFC 3611 §4.5); zero
    /// while unknown.
    pub round_trip: Duration,
    /// The client's wall clock against ours.
    pub clock: SenderClock,
    /// When reports are written next; `None` while there is nothing to report.
    pub next_report: Option<Instant>,
    /// A receiver reference time that the client wants answered (RFC 3611 §4.5): its SSRC, the
    /// middle of its NTP time, and when it came.
    pub reference_time: Option<(u32, u32, Instant)>,
    /// It has keys.
    pub connected: bool,
    /// When the control thread is told of another selected address.
    pub ice_news: IceNews,
    /// What its client may send and be sent.
    pub limits: BitrateLimits,
    /// What it can send and how that is shared, once that matters.
    pub outgoing: Option<Box<Outgoing>>,
    /// What is counted for statistics.
    pub tally: Box<TransportTally>,
}

impl Transport {
    /// A transport that nobody has reached yet.
    #[must_use]
    pub fn new(id: TransportId, connection: Connection, rtcp_ssrc: u32) -> Self {
        Self {
            id,
            connection,
            srtp: None,
            incoming: IncomingTable::default(),
            listener: Listener::default(),
            receive_ids: ExtensionIds::default(),
            producers: Vec::new(),
            consumers: Vec::new(),
            out_ssrcs: HashMap::new(),
            due_consumers: VecDeque::new(),
            served: 0,
            due: false,
            rtcp: RtcpQueue::default(),
            reports: ReportTurns::default(),
            feedback: None,
            feedback_count: 0,
            wants_remb: false,
            remb_bps: 0,
            incoming_limit: IncomingLimit::default(),
            transport_seq: 0,
            rtcp_ssrc,
            round_trip: Duration::ZERO,
            clock: SenderClock::default(),
            next_report: None,
            reference_time: None,
            connected: false,
            ice_news: IceNews::default(),
            limits: BitrateLimits::default(),
            outgoing: None,
            tally: Box::default(),
        }
    }

    /// Begins to carry media.
    pub fn key(&mut self, keys: &SrtpKeys) {
        self.srtp = Some(Srtp { opener: SrtpOpener::new(keys), sealer: SrtpSealer::new(keys) });
    }

    /// True when media can be sealed and has somewhere to go.
    #[must_use]
    pub fn can_send(&self) -> bool {
        self.srtp.is_some() && self.connection.selected().is_some()
    }

    /// The gauge of transports that are in the same state.
    pub fn state_among<'g>(&self, gauges: &'g mut Gauges) -> &'g mut usize {
        match (self.connection.ice_state(), self.connected) {
            (IceState::Disconnected, _) => &mut gauges.transports_disconnected,
            (_, true) => &mut gauges.transports_connected,
            (IceState::New, false) => &mut gauges.transports_new,
            (_, false) => &mut gauges.transports_connecting,
        }
    }

    /// What its client can be sent, bits/s; `None` where nothing is estimated.
    #[must_use]
    pub fn available_bps(&self) -> Option<u64> {
        self.outgoing.as_ref()?.available_bps()
    }

    /// When it next wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let feedback = self.feedback.as_ref().and_then(TwccReceiver::next_deadline);
        let reports = [self.next_report, self.reports.next_deadline()];
        [self.connection.poll_timeout(), feedback, self.ice_news.untold]
            .into_iter()
            .chain(reports)
            .flatten()
            .min()
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;
    use crate::engine::listener::Role;

    #[test]
    fn a_client_that_changes_its_address_with_each_packet_is_told_of_once_a_second() {
        let start = crate::engine::test_instant();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut news = IceNews::default();
        assert!(news.is_told(start, IceState::Connected));
        assert!(news.is_told(start, IceState::Completed), "another state is told at once");
        assert!(
            (1..900).all(|at| !news.is_told(ms(at), IceState::Completed) && !news.is_due(ms(at)))
        );
        assert!(news.is_due(ms(1_000)) && !news.is_due(ms(1_001)));
        assert!(!news.is_told(ms(1_500), IceState::Completed));
        assert!(news.is_due(ms(2_000)) && news.untold.is_none());
        assert!(news.is_told(ms(9_000), IceState::Completed));
    }

    #[test]
    fn a_new_ssrc_takes_the_place_of_the_one_that_went_nowhere_for_longest() {
        let mut streams: SlotMap<StreamKey, ()> = SlotMap::with_key();
        let route = Route { stream: streams.insert(()), role: Role::Media };
        let start = crate::engine::test_instant();
        let at = |ssrc: u32| start + Duration::from_millis(u64::from(ssrc));
        let mut table = IncomingTable::default();
        let last = u32::try_from(SRTP_CONTEXTS_PER_TRANSPORT_MAX).unwrap();
        for ssrc in 0..last {
            let routed = (ssrc != 5 && ssrc != 9).then_some(route);
            assert!(table.insert(ssrc, Incoming { route: routed, ..Incoming::new(at(ssrc)) }));
        }
        let newer = |table: &mut IncomingTable, ssrc: u32| {
            table.insert(ssrc, Incoming { route: Some(route), ..Incoming::new(at(ssrc)) })
        };
        assert!(newer(&mut table, last));
        assert!(table.entry(5).is_none() && table.entry(9).is_some());
        assert!(newer(&mut table, last + 1));
        assert!(table.entry(9).is_none());
        assert!(!newer(&mut table, last + 2), "all the others are in use");
        table.unroute(at(last + 3), |gone| *gone == route);
        assert!(newer(&mut table, last + 2));
        assert_eq!(table.0.len(), SRTP_CONTEXTS_PER_TRANSPORT_MAX);
    }
}
