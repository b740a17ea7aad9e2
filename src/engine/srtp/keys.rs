//! Keying material becomes master keys, master keys become session keys; neither is ever printed.
//!
//! Used when a handshake completes, on the shard's thread. Owns the layouts of RFC 5764 §4.2 and the
//! derivation of RFC 3711 §4.3. Does not decide which profile is used (DTLS does).

use std::fmt;

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

/// Bytes of a key at most (AES-256).
const KEY_BYTES_MAX: usize = 32;

/// Bytes of a salt at most (`AES_CM`; GCM's have 12).
pub(super) const SALT_BYTES_MAX: usize = 14;

/// Bytes of an HMAC-SHA1 key (RFC 3711 §5.2).
pub(super) const MAC_KEY_BYTES: usize = 20;

/// How a transport's media is protected; named by the DTLS `use_srtp` extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SrtpProfile {
    /// RFC 7714, 256-bit keys.
    AeadAes256Gcm,
    /// RFC 7714, 128-bit keys.
    AeadAes128Gcm,
    /// RFC 3711's mandatory one, with an 80-bit tag.
    Aes128CmSha1_80,
}

impl SrtpProfile {
    /// All profiles, strongest first.
    pub const ALL: [Self; 3] = [Self::AeadAes256Gcm, Self::AeadAes128Gcm, Self::Aes128CmSha1_80];

    /// The name in IANA's registry of DTLS-SRTP protection profiles.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::AeadAes256Gcm => "SRTP_AEAD_AES_256_GCM",
            Self::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            Self::Aes128CmSha1_80 => "SRTP_AES128_CM_HMAC_SHA1_80",
        }
    }

    /// Bytes of an encryption key, master and session alike.
    #[must_use]
    pub fn key_bytes(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 => 16,
        }
    }

    /// Bytes of a salt, master and session alike.
    #[must_use]
    pub fn salt_bytes(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 12,
            Self::Aes128CmSha1_80 => 14,
        }
    }

    /// Bytes of keying material to export from DTLS: two keys and two salts.
    #[must_use]
    pub fn material_bytes(self) -> usize {
        2 * (self.key_bytes() + self.salt_bytes())
    }

    /// Bytes that sealing adds to an RTP packet: the tag.
    #[must_use]
    pub fn rtp_overhead_bytes(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 16,
            Self::Aes128CmSha1_80 => 10,
        }
    }

    /// Bytes that sealing adds to a compound RTCP packet: the tag and the index.
    #[must_use]
    pub fn rtcp_overhead_bytes(self) -> usize {
        self.rtp_overhead_bytes() + 4
    }
}

/// What a session key is for: the labels of RFC 3711 §4.3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Label {
    RtpKey = 0,
    RtpMac = 1,
    RtpSalt = 2,
    RtcpKey = 3,
    RtcpMac = 4,
    RtcpSalt = 5,
}

/// One direction's master key and salt.
#[derive(Clone)]
pub(super) struct MasterKey {
    key: Zeroizing<[u8; KEY_BYTES_MAX]>,
    key_bytes: usize,
    /// Shorter salts stand at the left, zeros follow (RFC 7714 §11).
    salt: Zeroizing<[u8; SALT_BYTES_MAX]>,
}

impl MasterKey {
    /// Takes a key of 16 or 32 bytes and a salt of at most 14; `None` for other lengths.
    pub(super) fn new(key: &[u8], salt: &[u8]) -> Option<Self> {
        if !matches!(key.len(), 16 | 32) {
            return None;
        }
        let mut own = Self {
            key: Zeroizing::new([0; KEY_BYTES_MAX]),
            key_bytes: key.len(),
            salt: Zeroizing::new([0; SALT_BYTES_MAX]),
        };
        own.key.get_mut(..key.len())?.copy_from_slice(key);
        own.salt.get_mut(..salt.len())?.copy_from_slice(salt);
        Some(own)
    }

    /// Derives the session key for `label` into the whole of `out` (RFC 3711 §4.3.1 with a key
    /// derivation rate of 0; AES-256 masters use AES-256 as the function, RFC 7714 §11).
    pub(super) fn derive(&self, label: Label, out: &mut [u8]) {
        // The label is the top of the 56-bit key id, right-aligned in 112 bits: byte 7. The last two
        // of the block count AES blocks.
        let mut block = [0; 16];
        for (to, from) in block.iter_mut().zip(self.salt.iter()) {
            *to = *from;
        }
        if let Some(byte) = block.get_mut(7) {
            *byte ^= label as u8;
        }
        out.fill(0);
        let algorithm = if self.key_bytes == 32 { &AES_256 } else { &AES_128 };
        let key = self.key.get(..self.key_bytes).unwrap_or_default();
        UnboundCipherKey::new(algorithm, key)
            .and_then(EncryptingKey::ctr)
            .and_then(|cipher| {
                let context = EncryptionContext::Iv128(FixedLength::from(block));
                cipher.less_safe_encrypt(out, context)
            })
            .expect("the constructor admits only AES key lengths");
    }
}

/// The master keys of one transport's two directions, from a completed handshake.
#[derive(Clone)]
pub struct SrtpKeys {
    profile: SrtpProfile,
    local: MasterKey,
    remote: MasterKey,
}

impl SrtpKeys {
    /// Splits DTLS keying material (client key, server key, client salt, server salt; RFC 5764
    /// §4.2); `local_is_client` tells which half is ours. `None` when the length is not
    /// [`SrtpProfile::material_bytes`]. The caller wipes its own copy of `material`.
    #[must_use]
    pub fn from_dtls(profile: SrtpProfile, material: &[u8], local_is_client: bool) -> Option<Self> {
        if material.len() != profile.material_bytes() {
            return None;
        }
        let (client_key, rest) = material.split_at_checked(profile.key_bytes())?;
        let (server_key, rest) = rest.split_at_checked(profile.key_bytes())?;
        let (client_salt, server_salt) = rest.split_at_checked(profile.salt_bytes())?;
        let client = MasterKey::new(client_key, client_salt)?;
        let server = MasterKey::new(server_key, server_salt)?;
        let (local, remote) = if local_is_client { (client, server) } else { (server, client) };
        Some(Self { profile, local, remote })
    }

    /// Which profile the keys are for.
    #[must_use]
    pub fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// The key of what we send.
    pub(super) fn local(&self) -> &MasterKey {
        &self.local
    }

    /// The key of what we receive.
    pub(super) fn remote(&self) -> &MasterKey {
        &self.remote
    }
}

impl fmt::Debug for SrtpKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpKeys").field("profile", &self.profile).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::vectors::hex;
    use super::*;

    #[test]
    fn session_keys_are_those_of_rfc_3711_appendix_b_3() {
        let master = MasterKey::new(
            &hex("E1F97A0D3E018BE0D64FA32C06DE4139"),
            &hex("0EC675AD498AFEEBB6960B3AABE6"),
        )
        .unwrap();
        for (label, expected) in [
            (Label::RtpKey, "C61E7A93744F39EE10734AFE3FF7A087"),
            (Label::RtpSalt, "30CBBC08863D8C85D49DB34A9AE1"),
            (Label::RtpMac, "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"),
        ] {
            let mut out = vec![0; expected.len() / 2];
            master.derive(label, &mut out);
            assert_eq!(out, hex(expected), "{label:?}");
        }
    }

    #[test]
    fn session_keys_of_a_256_bit_master_are_those_of_rfc_6188_7_1() {
        let master = MasterKey::new(
            &hex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6"),
            &hex("3b04803de51ee7c96423ab5b78d2"),
        )
        .unwrap();
        for (label, expected) in [
            (Label::RtpKey, "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4"),
            (Label::RtpSalt, "fa31791685ca444a9e07c6c64e93"),
        ] {
            let mut out = vec![0; expected.len() / 2];
            master.derive(label, &mut out);
            assert_eq!(out, hex(expected), "{label:?}");
        }
    }

    #[test]
    fn dtls_material_is_client_key_server_key_client_salt_server_salt() {
        for profile in SrtpProfile::ALL {
            let (key, salt) = (profile.key_bytes(), profile.salt_bytes());
            let mut material = vec![1; key];
            material.extend(vec![2; key]);
            material.extend(vec![3; salt]);
            material.extend(vec![4; salt]);
            for local_is_client in [true, false] {
                let keys = SrtpKeys::from_dtls(profile, &material, local_is_client).unwrap();
                let (client, server) = if local_is_client {
                    (keys.local(), keys.remote())
                } else {
                    (keys.remote(), keys.local())
                };
                assert_eq!(client.key[..key], vec![1; key]);
                assert_eq!(client.salt[..salt], vec![3; salt]);
                assert_eq!(server.key[..key], vec![2; key]);
                assert_eq!(server.salt[..salt], vec![4; salt]);
                assert_eq!(client.salt[salt..], vec![0; 14 - salt]);
            }
            material.push(0);
            assert!(SrtpKeys::from_dtls(profile, &material, true).is_none());
            material.truncate(material.len() - 2);
            assert!(SrtpKeys::from_dtls(profile, &material, true).is_none());
        }
    }

    #[test]
    fn keys_do_not_print_their_bytes() {
        let material = [0xAB; 56];
        let keys = SrtpKeys::from_dtls(SrtpProfile::AeadAes128Gcm, &material, true).unwrap();
        assert_eq!(format!("{keys:?}"), "SrtpKeys { profile: AeadAes128Gcm, .. }");
    }
}
