//! One session key set: seals and opens bytes for a given SSRC and index, and knows nothing else.
//!
//! Owned by the sealer (two: RTP, RTCP) and the opener (two), called on the shard's thread.
//! Invariant: nothing is allocated per call; key schedules and the HMAC's keyed state are built once.
//! Does not know where tags and indices stand in a packet.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use zeroize::Zeroizing;

use super::RtpBody;
use super::keys::{Label, MAC_KEY_BYTES, MasterKey, SALT_BYTES_MAX, SrtpProfile};

/// Bytes of GCM's tag (RFC 7714 §13.1 has no shorter one).
pub(super) const GCM_TAG_BYTES: usize = 16;

/// Bytes of the truncated HMAC-SHA1 (RFC 3711 §5.2).
pub(super) const CM_TAG_BYTES: usize = 10;

/// Whether session keys are for RTP or for RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Rtp,
    Rtcp,
}

/// The session keys of one direction and kind.
pub(super) enum Cipher {
    Gcm(Gcm),
    /// Boxed: a key schedule and two SHA-1 states, in the rarer profile.
    Cm(Box<Cm>),
}

impl Cipher {
    /// A value of it, to read it ahead of time (a key's schedule is out of reach).
    pub(super) fn warm(&self) -> usize {
        match self {
            Self::Gcm(Gcm { salt: [first, ..], .. }) => usize::from(*first),
            Self::Cm(_) => 0,
        }
    }

    /// Derives the session keys of `kind` from a master key of `profile`.
    pub(super) fn derive(profile: SrtpProfile, master: &MasterKey, kind: Kind) -> Self {
        let (key_label, mac_label, salt_label) = match kind {
            Kind::Rtp => (Label::RtpKey, Label::RtpMac, Label::RtpSalt),
            Kind::Rtcp => (Label::RtcpKey, Label::RtcpMac, Label::RtcpSalt),
        };
        match profile {
            SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm => {
                let mut key = Zeroizing::new([0; 32]);
                let key = key.get_mut(..profile.key_bytes()).unwrap_or_default();
                master.derive(key_label, key);
                let mut salt = [0; 12];
                master.derive(salt_label, &mut salt);
                Self::Gcm(Gcm::new(key, salt))
            }
            SrtpProfile::Aes128CmSha1_80 => {
                let mut key = Zeroizing::new([0; 16]);
                master.derive(key_label, key.as_mut());
                let mut mac_key = Zeroizing::new([0; MAC_KEY_BYTES]);
                master.derive(mac_label, mac_key.as_mut());
                let mut salt = [0; SALT_BYTES_MAX];
                master.derive(salt_label, &mut salt);
                Self::Cm(Box::new(Cm::new(&key, &mac_key, salt)))
            }
        }
    }
}

/// AES-GCM with a salt (RFC 7714).
pub(super) struct Gcm {
    key: LessSafeKey,
    salt: [u8; 12],
}

impl Gcm {
    /// Takes a session key of 16 or 32 bytes.
    pub(super) fn new(key: &[u8], salt: [u8; 12]) -> Self {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        let key = UnboundKey::new(algorithm, key).expect("GCM profiles have AES key lengths");
        Self { key: LessSafeKey::new(key), salt }
    }

    /// Seals `body` into `out`, which is exactly the body's length and the tag's.
    ///
    /// Without a prefix the payload goes from where it is into `out` in one pass (RTX's prefix
    /// costs a copy: a number of bytes that is no multiple of AES's block would cost more).
    pub(super) fn seal(
        &self,
        (ssrc, index): (u32, u64),
        aad: &[u8],
        body: &RtpBody<'_>,
        out: &mut [u8],
    ) -> Option<()> {
        let nonce = self.nonce(ssrc, index);
        let mut space = [0; 255];
        let padding = body.padding_bytes(&mut space);
        let prefix = body.prefix.len();
        let (cipher, rest) = out.split_at_mut_checked(prefix + body.payload.len())?;
        let sealed = if prefix == 0 {
            self.key.seal_out_of_place_scatter(
                nonce,
                Aad::from(aad),
                body.payload,
                cipher,
                padding,
                rest,
            )
        } else {
            let (front, back) = cipher.split_at_mut_checked(prefix)?;
            front.copy_from_slice(body.prefix);
            back.copy_from_slice(body.payload);
            self.key.seal_in_place_scatter(nonce, Aad::from(aad), cipher, padding, rest)
        };
        sealed.ok()
    }

    /// Opens `sealed` (ciphertext and tag) into `out`, which is exactly the plaintext's length.
    /// What `out` holds after a failure is unspecified.
    pub(super) fn open(
        &self,
        (ssrc, index): (u32, u64),
        aad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Option<()> {
        let (cipher, tag) = sealed.split_at_checked(sealed.len().checked_sub(GCM_TAG_BYTES)?)?;
        let nonce = self.nonce(ssrc, index);
        self.key.open_separate_gather(nonce, Aad::from(aad), cipher, tag, out).ok()
    }

    /// Two zero bytes, SSRC, 48-bit index, all over the salt (RFC 7714 §8.1; an SRTCP index read as
    /// 48 bits gives §9.1).
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut nonce = self.salt;
        over_salt(&mut nonce, 2, ssrc, index);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// AES counter mode with HMAC-SHA1 (RFC 3711).
pub(super) struct Cm {
    cipher: EncryptingKey,
    /// Keyed once; cloned on the stack for each packet.
    mac: Hmac<Sha1>,
    salt: [u8; SALT_BYTES_MAX],
}

impl Cm {
    pub(super) fn new(
        key: &[u8; 16],
        mac_key: &[u8; MAC_KEY_BYTES],
        salt: [u8; SALT_BYTES_MAX],
    ) -> Self {
        let cipher = UnboundCipherKey::new(&AES_128, key)
            .and_then(EncryptingKey::ctr)
            .expect("16 bytes are an AES-128 key");
        let mac = Hmac::new_from_slice(mac_key).expect("HMAC takes keys of any length");
        Self { cipher, mac, salt }
    }

    /// Encrypts `body` into `out`, which is exactly its length.
    pub(super) fn encrypt(&self, id: (u32, u64), body: &RtpBody<'_>, out: &mut [u8]) -> Option<()> {
        let (front, rest) = out.split_at_mut_checked(body.prefix.len())?;
        let (middle, back) = rest.split_at_mut_checked(body.payload.len())?;
        front.copy_from_slice(body.prefix);
        middle.copy_from_slice(body.payload);
        let mut space = [0; 255];
        let padding = body.padding_bytes(&mut space);
        if back.len() != padding.len() {
            return None;
        }
        back.copy_from_slice(padding);
        self.apply(id, out)
    }

    /// Encrypts or decrypts in place (counter mode is its own inverse; RFC 3711 §4.1.1).
    pub(super) fn apply(&self, (ssrc, index): (u32, u64), bytes: &mut [u8]) -> Option<()> {
        let mut iv = [0; 16];
        for (to, from) in iv.iter_mut().zip(self.salt) {
            *to = from;
        }
        over_salt(&mut iv, 4, ssrc, index);
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        self.cipher.less_safe_encrypt(bytes, context).ok().map(|_| ())
    }

    /// The tag over a packet's clear and encrypted parts and a trailing `word` (RTP: the rollover
    /// counter; RTCP: E flag and index; RFC 3711 §4.2).
    pub(super) fn tag(&self, clear: &[u8], cipher: &[u8], word: [u8; 4]) -> [u8; CM_TAG_BYTES] {
        let digest = self.keyed(clear, cipher, word).finalize().into_bytes();
        let mut tag = [0; CM_TAG_BYTES];
        for (to, from) in tag.iter_mut().zip(digest) {
            *to = from;
        }
        tag
    }

    /// True when `tag` is the one over the parts; takes the same time whatever it holds.
    pub(super) fn is_tag(
        &self,
        clear: &[u8],
        cipher: &[u8],
        word: [u8; 4],
        tag: &[u8; CM_TAG_BYTES],
    ) -> bool {
        self.keyed(clear, cipher, word).verify_truncated_left(tag).is_ok()
    }

    fn keyed(&self, clear: &[u8], cipher: &[u8], word: [u8; 4]) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        mac.update(clear);
        mac.update(cipher);
        mac.update(&word);
        mac
    }
}

/// Lays SSRC and the 48-bit index over a salt, beginning at byte `at`.
fn over_salt(salt: &mut [u8], at: usize, ssrc: u32, index: u64) {
    let [_, _, index @ ..] = index.to_be_bytes();
    let laid = ssrc.to_be_bytes().into_iter().chain(index);
    for (to, from) in salt.iter_mut().skip(at).zip(laid) {
        *to ^= from;
    }
}
