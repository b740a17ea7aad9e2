//! Consent of a transport that does nothing else (RFC 7675): one binding request now and then.
//!
//! Takes the place of an [`Agent`](crate::agent::Agent) whose ICE and DTLS are done, so that ten
//! thousand idle transports cost the generator little. It checks nothing of an answer but that it is
//! a success, and answers nothing: an ICE-lite server asks nothing. Pure; times are ns of the run.

use aws_lc_rs::hmac::{Context, HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key};
use str0m::ice::{StunMessage, TransId};

use crate::agent::Remote;
use crate::clock::{MILLISECOND, SECOND};
use crate::rng::Rng;

/// Browsers check a working pair each 2.5 s (Chrome) to 5 s (RFC 7675 §5.1).
const CHECK_MIN: u64 = 2_500 * MILLISECOND;
const CHECK_SPREAD: u64 = 2_500 * MILLISECOND;

/// Without an answer for this long, consent is gone (RFC 7675 §5.1).
const CONSENT_MAX: u64 = 30 * SECOND;

/// Bytes of a request at most: header, user name, priority, role, integrity, fingerprint.
const REQUEST_BYTES_MAX: usize = 1_024;

/// The priority of a host candidate's pair (RFC 8445 §5.1.2.1).
const PRIORITY: u32 = 0x6EFF_FFFF;

/// One transport's consent.
#[derive(Debug)]
pub(crate) struct Consent {
    username: String,
    password: String,
    tie_breaker: u64,
    check_at: u64,
    answered: u64,
}

impl Consent {
    /// Consent that was just given, by a server to a client with this user name fragment.
    pub(crate) fn new(remote: &Remote, local_ufrag: &str, now: u64, rng: &mut Rng) -> Self {
        Self {
            username: format!("{}:{local_ufrag}", remote.ufrag),
            password: remote.password.clone(),
            tie_breaker: rng.next_u64(),
            check_at: now + rng.below(CHECK_MIN + CHECK_SPREAD),
            answered: now,
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn poll_timeout(&self) -> u64 {
        self.check_at
    }

    /// Lets time pass: the next request, when one is due; `Err` when consent is gone.
    pub(crate) fn handle_timeout(
        &mut self,
        now: u64,
        rng: &mut Rng,
    ) -> Result<Option<Vec<u8>>, String> {
        if now < self.check_at {
            return Ok(None);
        }
        if now > self.answered + CONSENT_MAX {
            return Err("no answer to consent checks".into());
        }
        self.check_at = now + CHECK_MIN + rng.below(CHECK_SPREAD);
        let request = StunMessage::binding_request(
            &self.username,
            TransId::new(),
            true,
            self.tie_breaker,
            PRIORITY,
            true,
        );
        let mut bytes = vec![0; REQUEST_BYTES_MAX];
        let password = Some(self.password.as_bytes());
        let length = request.to_bytes(password, &mut bytes, sha1_hmac);
        bytes.truncate(length.map_err(|error| error.to_string())?);
        Ok(Some(bytes))
    }

    /// Takes a datagram of the server.
    pub(crate) fn handle_datagram(&mut self, datagram: &[u8], now: u64) {
        // Class success, method binding (RFC 8489 §5).
        if datagram.starts_with(&[0x01, 0x01]) {
            self.answered = now;
        }
    }
}

fn sha1_hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let mut context = Context::with_key(&Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
    parts.iter().for_each(|part| context.update(part));
    let tag = context.sign();
    tag.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consent(rng: &mut Rng) -> Consent {
        let remote = Remote {
            ufrag: "server".into(),
            password: "secret-of-the-server".into(),
            address: "127.0.0.1:1".parse().unwrap(),
            fingerprint: String::new(),
        };
        Consent::new(&remote, "client", 0, rng)
    }

    #[test]
    fn requests_carry_the_servers_integrity_and_come_at_a_browsers_pace() {
        let mut rng = Rng::new(1);
        let mut consent = consent(&mut rng);
        let mut before = None;
        for _ in 0..50 {
            let now = consent.poll_timeout();
            assert_eq!(consent.handle_timeout(now - 1, &mut rng), Ok(None));
            let request = consent.handle_timeout(now, &mut rng).unwrap().unwrap();
            let message = StunMessage::parse(&request).unwrap();
            assert!(message.is_binding_request() && message.use_candidate());
            assert_eq!(message.split_username(), Some(("server", "client")));
            assert!(message.verify(b"secret-of-the-server", sha1_hmac));
            assert!(!message.verify(b"another", sha1_hmac));
            if let Some(before) = before {
                assert!((CHECK_MIN..=CHECK_MIN + CHECK_SPREAD).contains(&(now - before)));
            }
            before = Some(now);
            consent.handle_datagram(&[0x01, 0x01, 0, 0], now);
        }
    }

    #[test]
    fn consent_ends_when_nobody_answers() {
        let mut rng = Rng::new(2);
        let mut consent = consent(&mut rng);
        let mut requests = 0;
        let ended = loop {
            let now = consent.poll_timeout();
            match consent.handle_timeout(now, &mut rng) {
                Ok(sent) => requests += usize::from(sent.is_some()),
                Err(_) => break now,
            }
        };
        assert!(ended > CONSENT_MAX && requests >= 6);
    }
}
