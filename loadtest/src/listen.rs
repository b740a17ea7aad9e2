//! Listens to what the server says about itself while a window is measured: its `/metrics`, once a
//! second, on a thread of its own.
//!
//! Only where progress is shown: an answer costs the server a fraction of a millisecond of CPU that
//! the window then contains. A server without the route is asked all the same, and says nothing.

use std::thread::Scope;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::api::Api;
use crate::scrape::{Reading, ServerLatency};

/// Between two questions.
const EVERY: Duration = Duration::from_secs(1);

/// The thread that asks; it ends when this is dropped, after the answer it may be waiting for.
#[derive(Debug)]
pub(crate) struct Listening {
    _stop: Sender<()>,
    readings: Receiver<Reading>,
    last: Reading,
}

impl Listening {
    /// Begins to ask, and tells from then on what came after `last`.
    pub(crate) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        api: &'scope Api,
        last: Reading,
    ) -> Self {
        let (stop, stopped) = bounded::<()>(0);
        let (tell, readings) = unbounded();
        scope.spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let reading = api.metrics().and_then(|text| Reading::read(&text));
                if reading.is_some_and(|reading| tell.send(reading).is_err()) {
                    return;
                }
            }
        });
        Self { _stop: stop, readings, last }
    }

    /// The server's latency between the last two answers; `None` when none came since this was last
    /// asked, or nothing was forwarded in between.
    pub(crate) fn latency(&mut self) -> Option<ServerLatency> {
        let reading = self.readings.try_iter().last()?;
        let latency = reading.since(&self.last).latency_us;
        self.last = reading;
        latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_between_two_answers_is_told_once() {
        let (tell, readings) = unbounded();
        let mut listening = Listening { _stop: bounded(0).0, readings, last: Reading::default() };
        assert_eq!(listening.latency(), None);
        for (fast, all) in [(10, 10), (10, 1_000)] {
            let name = "ringcast_forward_latency_seconds_bucket";
            let text = format!("{name}{{le=\"0.001\"}} {fast}\n{name}{{le=\"0.01\"}} {all}\n");
            tell.send(Reading::read(&text).unwrap()).unwrap();
            let latency = listening.latency().unwrap();
            let bound = if all > fast { 10_000.0 } else { 1_000.0 };
            assert_eq!(
                (latency.p50, latency.count),
                (Some(bound), all - if all > 10 { 10 } else { 0 })
            );
            assert_eq!(listening.latency(), None);
        }
    }
}
