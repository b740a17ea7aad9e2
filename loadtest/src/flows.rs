//! What `main` knows to be due from the plan alone, for the window's single seconds and for searches.
//!
//! Owned by the session. It serves progress, plots and the names of a search's steps; the loss of a
//! window is not counted by it but by the publishers' own marks ([`crate::marks`]). Where what is due
//! depends on more than the plan (frames of uneven size, encodings that change, transports that come
//! and go) it says nothing rather than something wrong.

use crate::frames::Frames;
use crate::payload::Kind;
use crate::plan::{Plan, Publication};
use crate::schedule::{Pace, Timetable};

/// One publication as `main` follows it.
#[derive(Debug)]
struct Flow {
    timetable: Timetable,
    kind: Kind,
    planned_pps: u64,
    receivers: u64,
}

/// All publications of a plan.
#[derive(Debug)]
pub(crate) struct Flows {
    all: Vec<Flow>,
    steady: bool,
}

/// Packets that are due in a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// From publishers.
    pub(crate) offered: u64,
    /// At subscribers.
    pub(crate) expected: u64,
}

impl Flows {
    /// Those of a plan, at its rates.
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut all = Vec::new();
        let mut steady = plan.churn.is_none();
        for room in &plan.rooms {
            let subscribers = room.peers.iter().filter(|peer| peer.subscribes).count();
            for peer in &room.peers {
                let others = subscribers - usize::from(peer.subscribes);
                for publication in &peer.publications {
                    steady &= is_steady(publication);
                    all.push(Flow {
                        timetable: publication.schedule.into(),
                        kind: publication.kind,
                        planned_pps: publication.schedule.pps,
                        receivers: u64::try_from(others).unwrap_or(u64::MAX),
                    });
                }
            }
        }
        steady &= !all.is_empty();
        Self { all, steady }
    }

    /// The kind of media whose rate a search changes: video, where there is any.
    pub(crate) fn paced_kind(&self) -> Kind {
        let video = self.all.iter().any(|flow| flow.kind == Kind::Video);
        if video { Kind::Video } else { Kind::Audio }
    }

    /// Packets per second due at subscribers of a kind at the plan's rates; with uneven frames about
    /// so many.
    pub(crate) fn planned_pps(&self, kind: Kind) -> u64 {
        let of_kind = self.all.iter().filter(|flow| flow.kind == kind);
        of_kind.map(|flow| flow.planned_pps * flow.receivers).sum()
    }

    /// Changes rates, as the publishers do.
    pub(crate) fn pace(&mut self, pace: Pace) {
        for flow in self.all.iter_mut().filter(|flow| flow.kind == pace.kind) {
            flow.timetable = flow.timetable.paced(pace, flow.planned_pps);
        }
    }

    /// What is due in `[from, until)`, ns of the run; `None` where the plan does not tell.
    pub(crate) fn due(&self, from: u64, until: u64) -> Option<Due> {
        let sum = |mut sum: Due, flow: &Flow| {
            let counters = flow.timetable.counters(from, until);
            let packets = counters.end - counters.start;
            sum.offered += packets;
            sum.expected += packets * flow.receivers;
            sum
        };
        self.steady.then(|| self.all.iter().fold(Due::default(), sum))
    }
}

/// True when every frame has as many packets as the last, and every receiver gets all of them.
fn is_steady(publication: &Publication) -> bool {
    matches!(
        publication.encodings.as_slice(),
        [encoding] if matches!(encoding.frames, Frames::Fixed { .. })
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;
    use crate::clock::SECOND;

    fn flows(line: &str) -> (Plan, Flows) {
        let plan = Plan::new(&Args::parse_from(line.split(' ')), "x");
        let flows = Flows::new(&plan);
        (plan, flows)
    }

    #[test]
    fn what_main_expects_is_what_the_plan_promises() {
        for (line, offered) in [
            ("loadtest livestream", 500),
            ("loadtest rooms", 100 * (50 + 125)),
            ("loadtest audio --publishers 3", 150),
            ("loadtest lossy", 125),
        ] {
            let (plan, flows) = flows(line);
            let streams: u64 = flows.all.iter().map(|flow| flow.receivers).sum();
            assert_eq!(usize::try_from(streams).unwrap(), plan.subscriptions(), "{line}");
            let due = flows.due(SECOND, 11 * SECOND).unwrap();
            assert_eq!(due.offered, 10 * offered, "{line}");
        }
    }

    #[test]
    fn a_change_of_pace_changes_what_is_due_of_its_kind() {
        let (_, mut flows) = flows("loadtest meeting --publishers 2");
        assert_eq!((flows.paced_kind(), flows.planned_pps(Kind::Video)), (Kind::Video, 250));
        flows.pace(Pace { at: SECOND, kind: Kind::Video, millionths: 3_000_000 });
        let due = flows.due(2 * SECOND, 12 * SECOND).unwrap();
        assert_eq!(due, Due { offered: 8_500, expected: 8_500 });
    }

    #[test]
    fn where_the_plan_does_not_tell_nothing_is_said() {
        for line in ["churn", "soak", "simulcast", "idle", "livestream --frame-sizes libwebrtc"] {
            assert_eq!(flows(&format!("loadtest {line}")).1.due(0, SECOND), None, "{line}");
        }
    }
}
