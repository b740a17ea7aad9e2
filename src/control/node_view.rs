//! The whole node at one moment, for health checks, metrics and operators.

use std::time::Duration;

use super::addresses::MediaAddresses;
use super::counts::ControlCounts;
use super::dispatcher::CallCounts;
use super::drain::{DrainView, Phase};
use super::registry::{Census, Totals};
use super::service::{Control, State, now};
use crate::engine::report::Report;
use crate::events::outlet::OutletView;
use crate::id::ShardId;
use crate::limits::{BUSY_MAX, REPORT_AGE_MAX};
use crate::metrics::latency::LatencyCounts;

/// One shard, as it last told about itself.
#[derive(Debug, Clone)]
pub struct ShardView {
    /// Which one.
    pub shard: ShardId,
    /// True while it turns: its last report is recent.
    pub alive: bool,
    /// Its last report.
    pub report: Option<Box<Report>>,
    /// What was placed on it.
    pub census: Census,
}

/// The whole node.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// Of this program.
    pub version: &'static str,
    /// Since the control plane started.
    pub uptime: Duration,
    /// What the wall clock says, ISO 8601.
    pub time: String,
    /// How much is alive.
    pub totals: Totals,
    /// Live readers of events.
    pub event_readers: usize,
    /// Readers of events disconnected because they were too slow, since start.
    pub event_readers_dropped: u64,
    /// What became of the events that go elsewhere, by outlet.
    pub outlets: Vec<OutletView>,
    /// All shards.
    pub shards: Vec<ShardView>,
    /// What happened in rooms, and how far clients came that joined.
    pub counts: ControlCounts,
    /// Calls of the control thread to the shards.
    pub calls: CallCounts,
    /// Whether it takes new calls, and how far a drain is.
    pub drain: DrainView,
    /// Where clients reach the media port.
    pub media: MediaAddresses,
}

/// How long forwarded packets took through one shard or all of them.
#[derive(Debug, Clone, Default)]
pub struct LatencyView {
    /// In the last [`LATENCY_WINDOW`](crate::limits::LATENCY_WINDOW).
    pub recent: LatencyCounts,
    /// Since the start.
    pub total: LatencyCounts,
}

impl LatencyView {
    /// All shards' together.
    #[must_use]
    pub fn merged(shards: &[Self]) -> Self {
        let mut all = Self::default();
        for shard in shards {
            all.recent.merge(&shard.recent);
            all.total.merge(&shard.total);
        }
        all
    }
}

impl NodeView {
    /// Every shard turns.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.shards.is_empty() && self.shards.iter().all(|shard| shard.alive)
    }

    /// Healthy, neither draining nor stopping, and at least one shard has room for more.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let has_room = |shard: &ShardView| shard.report.as_ref().is_some_and(|r| r.busy < BUSY_MAX);
        self.is_healthy() && self.drain.state == Phase::Serving && self.shards.iter().any(has_room)
    }
}

impl Control {
    /// How long forwarded packets took, by shard.
    #[must_use]
    pub fn latencies(&self) -> Vec<LatencyView> {
        let now = now();
        self.inner.state.with(|state| {
            let histories = state.shards.iter().map(|shard| &shard.latency);
            histories
                .map(|history| LatencyView {
                    recent: history.recent(now),
                    total: history.total().clone(),
                })
                .collect()
        })
    }

    /// Since the start alone, by shard: what machines ask for, time and again.
    #[must_use]
    pub fn latency_totals(&self) -> Vec<LatencyCounts> {
        let totals = |state: &mut State| {
            state.shards.iter().map(|shard| shard.latency.total().clone()).collect()
        };
        self.inner.state.with(totals)
    }

    /// For how long the shard that was silent longest has not reported a turn; `None` while one
    /// never has. Between reports, made once a second, it grows.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        let now = now();
        self.inner.state.with(|state| {
            let silences = state.shards.iter().map(|shard| {
                let (at, _) = shard.report.as_ref()?;
                Some(now.saturating_duration_since(*at))
            });
            silences.collect::<Option<Vec<_>>>()?.into_iter().max()
        })
    }

    /// The whole node now.
    #[must_use]
    pub fn node(&self) -> NodeView {
        let now = now();
        let readers = &self.inner.readers;
        self.inner.state.with(|state| NodeView {
            version: env!("CARGO_PKG_VERSION"),
            uptime: self.uptime(),
            time: self.inner.clock.iso(now),
            totals: state.registry.totals(),
            event_readers: readers.count(),
            event_readers_dropped: readers.dropped(),
            outlets: self.inner.outlets.views(),
            counts: state.counts.clone(),
            calls: self.inner.dispatcher.counts(),
            drain: self.drain_view(state, now),
            media: self.inner.media.clone(),
            shards: state
                .shards
                .iter()
                .zip((0_u16..).map(ShardId))
                .map(|(shard, id)| ShardView {
                    shard: id,
                    alive: shard.report.as_ref().is_some_and(|(at, _)| {
                        now.saturating_duration_since(*at) <= REPORT_AGE_MAX
                    }),
                    report: shard.report.as_ref().map(|(_, report)| report.clone()),
                    census: state.registry.census(id),
                })
                .collect(),
        })
    }
}
