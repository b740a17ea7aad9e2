//! Room events to a webhook: a POST for up to [`WEBHOOK_BATCH`] events at a time, one after another.
//!
//! Owns two threads: one posts and waits for the answer, the other takes what happens meanwhile. The
//! body is `{"events": [{id, seq, time, roomId, type, data}, …]}`, all events of all rooms in the
//! order of happening. `ringcast-signature: t=<seconds since 1970>,v1=<hex>` is
//! the HMAC-SHA256, under the configured secret, of `<seconds>.<body>`: the receiver computes it
//! over the raw body, compares in constant time, and refuses old times. Any answer of 2xx within
//! [`WEBHOOK_TIMEOUT`] means taken. Everything else is tried again, for as long as it takes, with
//! growing pauses and jitter; so a receiver may see events twice, under the same ids. Only an event
//! that the receiver calls wrong by itself (400, 413, 415, 422) is given up. Redirects are not
//! followed, and neither URL nor secret is logged.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::outlet::{Intake, Message, Number, OutletCounts};
use crate::config::WebhookConfig;
use crate::limits::{
    OUTLET_FLUSH_TIMEOUT, WEBHOOK_ANSWER_BYTES_MAX, WEBHOOK_BATCH, WEBHOOK_BATCH_BYTES_MAX,
    WEBHOOK_LAST_TIMEOUT, WEBHOOK_RETRY, WEBHOOK_TIMEOUT,
};
use crate::roots;

/// The outlet to a webhook.
pub(crate) struct Webhook {
    agent: ureq::Agent,
    url: String,
    key: hmac::Key,
}

/// What the receiver made of a delivery.
enum Verdict {
    Taken,
    /// Not now, and why.
    Later(String),
    /// Never, and why.
    Never(String),
}

/// How long to wait before the next attempt, and how much to send then.
struct Patience {
    wait: Duration,
    batch: usize,
}

impl Patience {
    fn fresh() -> Self {
        Self { wait: WEBHOOK_RETRY.0, batch: WEBHOOK_BATCH }
    }

    /// The next pause: at least half of it passes, so that many nodes do not come back as one.
    fn next(&mut self) -> Duration {
        let wait = self.wait.mul_f64(rand::random_range(0.5..1.0));
        self.wait = WEBHOOK_RETRY.1.min(self.wait * 2);
        wait
    }
}

impl Webhook {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// When the certificates that the receiver is trusted by cannot be read.
    pub(crate) fn new(config: &WebhookConfig) -> io::Result<Self> {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::WebPki)
            .unversioned_rustls_crypto_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .build();
        let settings = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("ringcast/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        let agent = roots::agent(settings, config.ca.as_deref())
            .map_err(|why| io::Error::other(format!("--webhook-ca {why}")))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, config.secret.reveal().as_bytes());
        Ok(Self { agent, url: config.url.reveal().to_owned(), key })
    }

    /// Delivers until told to stop.
    pub(crate) fn run(self, mut intake: Intake) {
        std::thread::scope(|scope| {
            let (ask, asked) = bounded::<Batch>(1);
            let (tell, told) = bounded(1);
            let poster = std::thread::Builder::new().name("webhook-post".to_owned());
            let posting = poster.spawn_scoped(scope, move || {
                for (batch, timeout) in asked {
                    let verdict = self.deliver(&batch, timeout);
                    // Nobody hears it when the process ends.
                    let _ = tell.send((batch, verdict));
                }
            });
            match posting {
                Ok(_) => Turns { ask, told, patience: Patience::fresh() }.run(&mut intake),
                Err(error) => tracing::error!(%error, "no thread for webhooks"),
            }
        });
        intake.close();
    }

    fn deliver(&self, batch: &[(Number, Message)], timeout: Duration) -> Verdict {
        let body = body(batch);
        let signature = self.signature(now(), &body);
        let sent = self
            .agent
            .post(&self.url)
            .config()
            .timeout_global(Some(timeout))
            .build()
            .header("content-type", "application/json")
            .header("ringcast-signature", signature)
            .send(&body[..]);
        let mut answer = match sent {
            Ok(answer) => answer,
            Err(error) => return Verdict::Later(error.to_string()),
        };
        // Read, so that the connection is used again; what it says is not asked for.
        let _ = answer.body_mut().with_config().limit(WEBHOOK_ANSWER_BYTES_MAX).read_to_vec();
        match answer.status().as_u16() {
            200..=299 => Verdict::Taken,
            status @ (400 | 413 | 415 | 422) => Verdict::Never(format!("status {status}")),
            status => Verdict::Later(format!("status {status}")),
        }
    }

    /// `t=<seconds>,v1=<hex of HMAC-SHA256(<seconds>.<body>)>`.
    fn signature(&self, seconds: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(format!("{seconds}.").as_bytes());
        context.update(body);
        let hex: String =
            context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("t={seconds},v1={hex}")
    }
}

/// Events to deliver together, and how long that may take.
type Batch = (Vec<(Number, Message)>, Duration);

/// What the outlet's thread does while another posts: it takes what happens, however long the
/// receiver thinks.
struct Turns {
    ask: Sender<Batch>,
    told: Receiver<(Vec<(Number, Message)>, Verdict)>,
    patience: Patience,
}

impl Turns {
    fn run(&mut self, intake: &mut Intake) {
        let mut is_posting = false;
        let mut pause: Option<Receiver<_>> = None;
        loop {
            if !is_posting && pause.is_none() {
                is_posting = self.post(intake, WEBHOOK_TIMEOUT);
            }
            // With room for it nowhere else, what happens meanwhile stays in the queue.
            let holds = is_posting && !intake.backlog.has_room();
            let queue = if holds { never() } else { intake.queue.clone() };
            select! {
                recv(queue) -> given => if !intake.take(given) { break },
                recv(intake.stop) -> _ => break,
                recv(intake.keep) -> _ => intake.keep(),
                recv(self.told) -> told => {
                    let Ok((batch, verdict)) = told else { break };
                    is_posting = false;
                    pause = self.judge(intake, &batch, verdict).map(after);
                }
                recv(pause.clone().unwrap_or_else(never)) -> _ => pause = None,
            }
            intake.tell_backlog();
        }
        if is_posting && let Ok((batch, verdict)) = self.told.recv() {
            self.judge(intake, &batch, verdict);
        }
        // A receiver that does not answer now will not in the last moment.
        if intake.counts.up.load(Ordering::Relaxed) {
            self.finish(intake);
        }
    }

    /// Has what waits longest posted; false when nothing waits.
    fn post(&self, intake: &mut Intake, timeout: Duration) -> bool {
        let batch = take(intake, self.patience.batch);
        !batch.is_empty() && self.ask.send((batch, timeout)).is_ok()
    }

    /// Goes by what became of a batch; answers how long to wait when that failed.
    fn judge(
        &mut self,
        intake: &mut Intake,
        batch: &[(Number, Message)],
        verdict: Verdict,
    ) -> Option<Duration> {
        match (verdict, batch) {
            (Verdict::Taken, _) => {
                batch.iter().for_each(|(number, _)| intake.delivered(*number));
                intake.is_up(true, "");
                self.patience = Patience::fresh();
                None
            }
            (Verdict::Never(reason), [(number, _)]) => {
                intake.failed(*number, &reason);
                self.patience = Patience::fresh();
                None
            }
            (Verdict::Never(_), several) => {
                // One of them is to blame: find it.
                self.patience.batch = several.len() / 2;
                intake.backlog.rewind();
                None
            }
            (Verdict::Later(reason), _) => {
                intake.backlog.rewind();
                intake.is_up(false, &reason);
                OutletCounts::add(&intake.counts.retries, 1);
                Some(self.patience.next())
            }
        }
    }

    /// Delivers what is left for as long as the receiver takes it and there is time.
    fn finish(&mut self, intake: &mut Intake) {
        let end = after(OUTLET_FLUSH_TIMEOUT);
        self.patience = Patience::fresh();
        loop {
            while intake.fill() {}
            if !self.post(intake, WEBHOOK_LAST_TIMEOUT) {
                return;
            }
            let Ok((batch, verdict)) = self.told.recv() else { return };
            let failed = self.judge(intake, &batch, verdict).is_some();
            if failed || intake.backlog.is_empty() || end.try_recv().is_ok() {
                return;
            }
        }
    }
}

fn take(intake: &mut Intake, most: usize) -> Vec<(Number, Message)> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while batch.len() < most.max(1)
        && let Some((number, message)) = intake.backlog.take()
    {
        bytes += message.body.len();
        if bytes > WEBHOOK_BATCH_BYTES_MAX && !batch.is_empty() {
            intake.backlog.untake();
            break;
        }
        batch.push((number, message));
    }
    batch
}

fn body(batch: &[(Number, Message)]) -> Vec<u8> {
    let mut body = br#"{"events":["#.to_vec();
    for (position, (_, message)) in batch.iter().enumerate() {
        if position > 0 {
            body.push(b',');
        }
        body.extend(&message.body);
    }
    body.extend(b"]}");
    body
}

#[expect(clippy::disallowed_methods, reason = "a signature is of a moment of the receiver's clock")]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::engine::test_instant;
    use crate::events::outlet::tests::running;
    use crate::events::timestamp::WallAnchor;
    use crate::events::{RoomEvent, RoomLog};
    use crate::id::RoomId;
    use crate::limits::OUTLET_QUEUE;

    #[test]
    fn a_signature_is_of_time_and_body() {
        let config = WebhookConfig {
            url: Secret::new("http://127.0.0.1:1/"),
            secret: Secret::new("It's a secret"),
            ca: None,
        };
        let webhook = Webhook::new(&config).unwrap();
        // printf '1700000000.{"events":[]}' | openssl dgst -sha256 -hmac "It's a secret"
        let expected =
            "t=1700000000,v1=50cd0aa5de0aa9addc4e07406f573c88703e6a4b0dba76d3b8759704db7aef7d";
        assert_eq!(webhook.signature(1_700_000_000, br#"{"events":[]}"#), expected);
    }

    #[test]
    fn what_happens_while_a_receiver_thinks_is_taken() {
        let (ask, asked) = bounded::<Batch>(1);
        let (tell, told) = bounded(1);
        let (outlets, threads) = running(move |mut intake| {
            Turns { ask, told, patience: Patience::fresh() }.run(&mut intake);
            intake.close();
        });
        let counts = outlets.views().remove(0).counts;
        let mut log = RoomLog::new(RoomId::try_from("tea").unwrap(), 1);
        let clock = WallAnchor { wall: SystemTime::UNIX_EPOCH, at: test_instant() };
        let event = RoomEvent::RoomClosed { reason: "deleted" };
        let mut happen = |times: usize| {
            for _ in 0..times {
                let entry = log.append(test_instant(), clock, &event);
                outlets.offer(&RoomId::try_from("tea").unwrap(), &entry, &event, None);
            }
        };
        happen(1);
        let (batch, _) = asked.recv().unwrap();
        assert_eq!(batch.len(), 1);
        happen(OUTLET_QUEUE / 2 + 100);
        while outlets.are_behind() {
            std::thread::yield_now();
        }
        tell.send((batch, Verdict::Taken)).unwrap();
        let (batch, _) = asked.recv().unwrap();
        assert_eq!((batch.len(), OutletCounts::of(&counts.refused)), (WEBHOOK_BATCH, 0));
        drop((tell, asked));
        threads.stop();
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_never_the_same_for_all() {
        let mut patience = Patience::fresh();
        let mut most = WEBHOOK_RETRY.0;
        for _ in 0..12 {
            let wait = patience.next();
            assert!(wait >= most / 2 && wait < most, "{wait:?} of {most:?}");
            most = WEBHOOK_RETRY.1.min(most * 2);
        }
        assert_eq!(most, WEBHOOK_RETRY.1);
    }
}
