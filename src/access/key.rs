//! API keys: an id that may be told, and a secret that may not.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::{DecodingKey, EncodingKey};

use crate::limits::{API_KEYS_MAX, KEY_ID_CHARS_MAX, KEY_SECRET_CHARS_MAX, KEY_SECRET_CHARS_MIN};

/// Why a text is no key, or keys do not go together. The text is not told: it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No colon.
    #[error("a key is written as id:secret")]
    NoColon,
    /// Its id.
    #[error("a key's id has 1 to {KEY_ID_CHARS_MAX} letters, digits, - . and _")]
    Id,
    /// Its secret is too short or too long.
    #[error(
        "a key's secret has {KEY_SECRET_CHARS_MIN} to {KEY_SECRET_CHARS_MAX} characters; `openssl \
         rand -hex 32` makes a good one"
    )]
    Length,
    /// Its secret could not stand in a header.
    #[error("a key's secret has letters, digits and - . _ ~ + / only, and = at its end")]
    Characters,
    /// Two with one id, or one secret.
    #[error("two keys have the same id or the same secret")]
    Twice,
    /// More than [`API_KEYS_MAX`].
    #[error("more than {API_KEYS_MAX} keys")]
    TooMany,
}

/// A key: whoever knows its secret may do everything, and sign room tokens.
#[derive(Clone)]
pub struct ApiKey {
    id: String,
    /// Of the secret: equal lengths, so that a comparison does not tell the secret's.
    digest: [u8; 32],
    secret: String,
}

impl ApiKey {
    /// What names it, in tokens and logs.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn decoding(&self) -> DecodingKey {
        DecodingKey::from_secret(self.secret.as_bytes())
    }

    pub(super) fn encoding(&self) -> EncodingKey {
        EncodingKey::from_secret(self.secret.as_bytes())
    }
}

impl FromStr for ApiKey {
    type Err = KeyError;

    /// `id:secret`. The secret is one that can stand behind `Bearer` (RFC 6750 §2.1), and at least as
    /// long as what HS256 makes of it (RFC 7518 §3.2).
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (id, secret) = text.split_once(':').ok_or(KeyError::NoColon)?;
        let of_id = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if !(1..=KEY_ID_CHARS_MAX).contains(&id.len()) || !id.bytes().all(of_id) {
            return Err(KeyError::Id);
        }
        if !(KEY_SECRET_CHARS_MIN..=KEY_SECRET_CHARS_MAX).contains(&secret.len()) {
            return Err(KeyError::Length);
        }
        let of_secret = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        if !secret.trim_end_matches('=').bytes().all(of_secret) {
            return Err(KeyError::Characters);
        }
        let (id, digest) = (id.to_owned(), digest_of(secret));
        Ok(Self { id, digest, secret: secret.to_owned() })
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:(hidden)", self.id)
    }
}

impl PartialEq for ApiKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.is(&other.digest)
    }
}

impl Eq for ApiKey {}

impl ApiKey {
    fn is(&self, digest: &[u8; 32]) -> bool {
        verify_slices_are_equal(&self.digest, digest).is_ok()
    }
}

fn digest_of(secret: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (byte, made) in bytes.iter_mut().zip(digest(&SHA256, secret.as_bytes()).as_ref()) {
        *byte = *made;
    }
    bytes
}

/// All keys of a node; none means that everybody may do everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiKeys(Vec<ApiKey>);

impl ApiKeys {
    /// Keys that differ in id and secret.
    ///
    /// # Errors
    /// [`KeyError::Twice`], [`KeyError::TooMany`].
    pub fn new(keys: Vec<ApiKey>) -> Result<Self, KeyError> {
        if keys.len() > API_KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let mut rest = keys.as_slice();
        while let [first, others @ ..] = rest {
            if others.iter().any(|other| other.id == first.id || other.is(&first.digest)) {
                return Err(KeyError::Twice);
            }
            rest = others;
        }
        Ok(Self(keys))
    }

    /// True when callers need no credentials.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &ApiKey> {
        self.0.iter()
    }

    /// The key of that id.
    #[must_use]
    pub fn named(&self, id: &str) -> Option<&ApiKey> {
        self.0.iter().find(|key| key.id == id)
    }

    /// The only key, where there is but one.
    #[must_use]
    pub fn only(&self) -> Option<&ApiKey> {
        match self.0.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The key with that secret. It takes the same time whichever it is, and if it is none.
    #[must_use]
    pub fn with_secret(&self, given: &str) -> Option<&ApiKey> {
        let given = digest_of(given);
        self.0.iter().fold(None, |found, key| if key.is(&given) { Some(key) } else { found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn key(text: &str) -> ApiKey {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_is_an_id_and_a_secret_that_no_error_and_no_log_shows() {
        let parsed = key(&format!("ops-1.eu:{SECRET}+/=="));
        assert_eq!(parsed.id(), "ops-1.eu");
        assert_eq!(format!("{parsed:?}"), "ops-1.eu:(hidden)");
        for (text, wrong) in [
            (SECRET.to_owned(), KeyError::NoColon),
            (format!(":{SECRET}"), KeyError::Id),
            (format!("a b:{SECRET}"), KeyError::Id),
            (format!("{}:{SECRET}", "i".repeat(KEY_ID_CHARS_MAX + 1)), KeyError::Id),
            ("ops:short".to_owned(), KeyError::Length),
            (format!("ops:{}", "s".repeat(KEY_SECRET_CHARS_MAX + 1)), KeyError::Length),
            (format!("ops:{SECRET} "), KeyError::Characters),
            (format!("ops:=={SECRET}"), KeyError::Characters),
            (format!("ops:{SECRET}:more"), KeyError::Characters),
        ] {
            let refused = text.parse::<ApiKey>().unwrap_err();
            assert_eq!(refused, wrong, "{text}");
            assert!(!refused.to_string().contains(SECRET));
        }
    }

    #[test]
    fn a_secret_is_found_whole_and_nothing_like_it() {
        let other = SECRET.to_uppercase();
        let keys =
            ApiKeys::new(vec![key(&format!("a:{SECRET}")), key(&format!("b:{other}"))]).unwrap();
        assert_eq!(keys.with_secret(SECRET).unwrap().id(), "a");
        assert_eq!(keys.with_secret(&other).unwrap().id(), "b");
        for wrong in
            ["", "a", SECRET.trim_start_matches('0'), &format!("{SECRET}0"), &format!("a:{SECRET}")]
        {
            assert_eq!(keys.with_secret(wrong), None, "{wrong}");
        }
        assert_eq!(keys.named("b").unwrap().id(), "b");
        assert_eq!((keys.named("c"), keys.only()), (None, None));
    }

    #[test]
    fn keys_differ_in_id_and_secret_and_are_not_without_number() {
        let [a, same_id, same_secret] =
            [format!("a:{SECRET}"), format!("a:{}", SECRET.to_uppercase()), format!("b:{SECRET}")];
        for twice in [same_id, same_secret] {
            assert_eq!(ApiKeys::new(vec![key(&a), key(&twice)]), Err(KeyError::Twice));
        }
        let many = (0..=API_KEYS_MAX).map(|n| key(&format!("k{n}:{n:0>32}"))).collect();
        assert_eq!(ApiKeys::new(many), Err(KeyError::TooMany));
    }
}
