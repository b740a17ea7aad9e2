//! Room events to a webhook: a POST for up to [`WEBHOOK_BATCH`] events at a time, one after another.
//!
//! Owns one thread. The body is `{"events": [{id, seq, time, roomId, type, data}, …]}`, all events
//! of all rooms in the order of happening. `ringcast-signature: t=<seconds since 1970>,v1=<hex>` is
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
use crossbeam_channel::{after, select};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::outlet::{Intake, Message, Number, OutletCounts};
use crate::config::WebhookConfig;
use crate::limits::{
    OUTLET_FLUSH_TIMEOUT, OUTLET_IDLE_POLL, WEBHOOK_ANSWER_BYTES_MAX, WEBHOOK_BATCH,
    WEBHOOK_BATCH_BYTES_MAX, WEBHOOK_LAST_TIMEOUT, WEBHOOK_RETRY, WEBHOOK_TIMEOUT,
};

/// The outlet to a webhook.
pub(crate) struct Webhook {
    agent: ureq::Agent,
    url: String,
    key: hmac::Key,
    /// For one answer.
    timeout: Duration,
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
    /// When the URL cannot be used.
    pub(crate) fn new(config: &WebhookConfig) -> io::Result<Self> {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::WebPki)
            .unversioned_rustls_crypto_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .build();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("ringcast/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build()
            .into();
        let key = hmac::Key::new(hmac::HMAC_SHA256, config.secret.reveal().as_bytes());
        Ok(Self { agent, url: config.url.reveal().to_owned(), key, timeout: WEBHOOK_TIMEOUT })
    }

    /// Delivers until told to stop.
    pub(crate) fn run(mut self, mut intake: Intake) {
        let mut patience = Patience::fresh();
        let mut pause = None;
        loop {
            // A pause after a failure goes on while events come in.
            let wait = pause.clone().unwrap_or_else(|| {
                let idle =
                    if intake.backlog.is_empty() { OUTLET_IDLE_POLL } else { Duration::ZERO };
                after(idle)
            });
            select! {
                recv(intake.queue) -> given => if !intake.take(given) { break },
                recv(intake.stop) -> _ => break,
                recv(wait) -> _ => pause = None,
            }
            if pause.is_none()
                && let Some(wait) = self.attempt(&mut intake, &mut patience)
            {
                pause = Some(after(wait));
            }
            intake.tell_backlog();
        }
        // A receiver that does not answer now will not in the last moment.
        if intake.counts.up.load(Ordering::Relaxed) {
            self.timeout = WEBHOOK_LAST_TIMEOUT;
            self.finish(&mut intake);
        }
        intake.close();
    }

    /// Delivers one batch; answers how long to wait when that failed.
    fn attempt(&self, intake: &mut Intake, patience: &mut Patience) -> Option<Duration> {
        let batch = take(intake, patience.batch);
        if batch.is_empty() {
            return None;
        }
        match (self.deliver(&batch), batch.as_slice()) {
            (Verdict::Taken, _) => {
                batch.iter().for_each(|(number, _)| intake.delivered(*number));
                intake.is_up(true, "");
                *patience = Patience::fresh();
                None
            }
            (Verdict::Never(reason), [(number, _)]) => {
                intake.failed(*number, &reason);
                *patience = Patience::fresh();
                None
            }
            (Verdict::Never(_), several) => {
                // One of them is to blame: find it.
                patience.batch = several.len() / 2;
                intake.backlog.rewind();
                None
            }
            (Verdict::Later(reason), _) => {
                intake.backlog.rewind();
                intake.is_up(false, &reason);
                OutletCounts::add(&intake.counts.retries, 1);
                Some(patience.next())
            }
        }
    }

    fn deliver(&self, batch: &[(Number, Message)]) -> Verdict {
        let body = body(batch);
        let signature = self.signature(now(), &body);
        let sent = self
            .agent
            .post(&self.url)
            .config()
            .timeout_global(Some(self.timeout))
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

    /// Delivers what is left for as long as the receiver takes it and there is time.
    fn finish(&self, intake: &mut Intake) {
        let end = after(OUTLET_FLUSH_TIMEOUT);
        let mut patience = Patience::fresh();
        loop {
            while intake.fill() {}
            let failed = self.attempt(intake, &mut patience).is_some();
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

    #[test]
    fn a_signature_is_of_time_and_body() {
        let config = WebhookConfig {
            url: Secret::new("http://127.0.0.1:1/"),
            secret: Secret::new("It's a secret"),
        };
        let webhook = Webhook::new(&config).unwrap();
        // printf '1700000000.{"events":[]}' | openssl dgst -sha256 -hmac "It's a secret"
        let expected =
            "t=1700000000,v1=50cd0aa5de0aa9addc4e07406f573c88703e6a4b0dba76d3b8759704db7aef7d";
        assert_eq!(webhook.signature(1_700_000_000, br#"{"events":[]}"#), expected);
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
