//! SRTP and SRTCP with AES-GCM (RFC 7714) for one endpoint, as lean as a load generator needs.
//!
//! Made by a worker when a handshake completes and used on its thread. Seals with the local keys,
//! opens with the remote ones. It keeps no replay window (the receivers count duplicates
//! themselves) and no index of RTP: callers pass the 48-bit packet index. The HMAC-SHA1 profile is
//! deliberately not here: it costs the generator three times as much; a server that insists on it is
//! refused with a sentence.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

/// Bytes of an AES-GCM tag.
pub(crate) const TAG_BYTES: usize = 16;

/// Bytes of an AES-GCM salt and nonce.
const SALT_BYTES: usize = 12;

/// Bytes of the E bit and the SRTCP index at a packet's end.
const INDEX_BYTES: usize = 4;

/// Bytes of RTCP that stay readable: the first header and SSRC.
const RTCP_HEADER_BYTES: usize = 8;

/// The protection that a handshake agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// `AEAD_AES_128_GCM`.
    Gcm128,
    /// `AEAD_AES_256_GCM`.
    Gcm256,
}

impl Profile {
    /// The name in IANA's registry.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gcm128 => "AEAD_AES_128_GCM",
            Self::Gcm256 => "AEAD_AES_256_GCM",
        }
    }

    fn key_bytes(self) -> usize {
        match self {
            Self::Gcm128 => 16,
            Self::Gcm256 => 32,
        }
    }
}

/// What goes wrong with keys and packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SrtpError {
    /// The keying material has another length than the profile asks for.
    #[error("the keying material does not fit the profile")]
    Material,
    /// Too short, or the tag does not fit.
    #[error("the packet does not open")]
    Packet,
}

/// Session key and salt of one direction of RTP or RTCP.
struct SessionKey {
    key: LessSafeKey,
    salt: [u8; SALT_BYTES],
}

impl SessionKey {
    /// Derives key and salt (RFC 3711 §4.3.1; labels §4.3.2).
    fn derive(profile: Profile, master: &[u8], salt: &[u8], labels: [u8; 2]) -> Option<Self> {
        let [key_label, salt_label] = labels;
        let mut key = [0; 32];
        let key = key.get_mut(..profile.key_bytes())?;
        derive(master, salt, key_label, key)?;
        let mut session_salt = [0; SALT_BYTES];
        derive(master, salt, salt_label, &mut session_salt)?;
        let algorithm = match profile {
            Profile::Gcm128 => &AES_128_GCM,
            Profile::Gcm256 => &AES_256_GCM,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(Self { key, salt: session_salt })
    }

    /// The nonce (RFC 7714 §8.1): two zero bytes, SSRC and 48-bit index, over the salt. SRTCP's
    /// (§9.1) is the same with its 31-bit index.
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let [_, _, index @ ..] = index.to_be_bytes();
        let mut nonce = self.salt;
        let varying = [0; 2].into_iter().chain(ssrc.to_be_bytes()).chain(index);
        for (byte, mask) in nonce.iter_mut().zip(varying) {
            *byte ^= mask;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

fn derive(master: &[u8], salt: &[u8], label: u8, out: &mut [u8]) -> Option<()> {
    let mut block = [0; 16];
    for (to, from) in block.iter_mut().zip(salt) {
        *to = *from;
    }
    *block.get_mut(7)? ^= label;
    out.fill(0);
    let algorithm = if master.len() == 32 { &AES_256 } else { &AES_128 };
    let cipher = EncryptingKey::ctr(UnboundCipherKey::new(algorithm, master).ok()?).ok()?;
    cipher.less_safe_encrypt(out, EncryptionContext::Iv128(FixedLength::from(block))).ok()?;
    Some(())
}

/// Both directions of one endpoint.
pub(crate) struct Srtp {
    profile: Profile,
    rtp_out: SessionKey,
    rtp_in: SessionKey,
    rtcp_out: SessionKey,
    rtcp_in: SessionKey,
    rtcp_index: u32,
}

impl std::fmt::Debug for Srtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Srtp").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl Srtp {
    /// Splits DTLS keying material: client key, server key, client salt, server salt (RFC 5764
    /// §4.2).
    pub(crate) fn new(
        profile: Profile,
        material: &[u8],
        is_client: bool,
    ) -> Result<Self, SrtpError> {
        Self::split(profile, material, is_client).ok_or(SrtpError::Material)
    }

    fn split(profile: Profile, material: &[u8], is_client: bool) -> Option<Self> {
        let (client_key, rest) = material.split_at_checked(profile.key_bytes())?;
        let (server_key, rest) = rest.split_at_checked(profile.key_bytes())?;
        let (client_salt, server_salt) = rest.split_at_checked(SALT_BYTES)?;
        if server_salt.len() != SALT_BYTES {
            return None;
        }
        let (client, server) = ((client_key, client_salt), (server_key, server_salt));
        let (local, remote) = if is_client { (client, server) } else { (server, client) };
        let key = |(key, salt), labels| SessionKey::derive(profile, key, salt, labels);
        Some(Self {
            profile,
            rtp_out: key(local, [0, 2])?,
            rtp_in: key(remote, [0, 2])?,
            rtcp_out: key(local, [3, 5])?,
            rtcp_in: key(remote, [3, 5])?,
            rtcp_index: 0,
        })
    }

    /// What was agreed on.
    pub(crate) fn profile(&self) -> Profile {
        self.profile
    }

    /// Seals `header` and `body` in place; the last [`TAG_BYTES`] of `body` become the tag.
    pub(crate) fn seal_rtp(
        &self,
        ssrc: u32,
        index: u64,
        header: &[u8],
        body: &mut [u8],
    ) -> Result<(), SrtpError> {
        let length = body.len().checked_sub(TAG_BYTES).ok_or(SrtpError::Packet)?;
        let (plain, tag) = body.split_at_mut_checked(length).ok_or(SrtpError::Packet)?;
        let nonce = self.rtp_out.nonce(ssrc, index);
        let made = self
            .rtp_out
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(header), plain)
            .map_err(|_| SrtpError::Packet)?;
        tag.copy_from_slice(made.as_ref());
        Ok(())
    }

    /// Opens `body` (ciphertext and tag) in place and returns the plaintext.
    pub(crate) fn open_rtp<'a>(
        &self,
        ssrc: u32,
        index: u64,
        header: &[u8],
        body: &'a mut [u8],
    ) -> Result<&'a [u8], SrtpError> {
        let nonce = self.rtp_in.nonce(ssrc, index);
        let opened = self.rtp_in.key.open_in_place(nonce, Aad::from(header), body);
        opened.map(|plain| &*plain).map_err(|_| SrtpError::Packet)
    }

    /// Seals a compound RTCP packet in place (RFC 7714 §9): `packet` grows by tag and index.
    pub(crate) fn seal_rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        let index = 0x8000_0000 | self.rtcp_index;
        self.rtcp_index = (self.rtcp_index + 1) & 0x7FFF_FFFF;
        let (header, body) =
            packet.split_first_chunk_mut::<RTCP_HEADER_BYTES>().ok_or(SrtpError::Packet)?;
        let (aad, ssrc) = rtcp_aad(*header, index);
        let nonce = self.rtcp_out.nonce(ssrc, u64::from(index & 0x7FFF_FFFF));
        let tag = self
            .rtcp_out
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(aad), body)
            .map_err(|_| SrtpError::Packet)?;
        packet.extend_from_slice(tag.as_ref());
        packet.extend_from_slice(&index.to_be_bytes());
        Ok(())
    }

    /// Opens an SRTCP packet in place and returns the compound RTCP packet.
    pub(crate) fn open_rtcp<'a>(&self, packet: &'a mut [u8]) -> Result<&'a [u8], SrtpError> {
        let length = packet.len().checked_sub(INDEX_BYTES).ok_or(SrtpError::Packet)?;
        let (sealed, index) = packet.split_at_mut_checked(length).ok_or(SrtpError::Packet)?;
        let index = u32::from_be_bytes(*index.first_chunk().ok_or(SrtpError::Packet)?);
        let header = *sealed.first_chunk::<RTCP_HEADER_BYTES>().ok_or(SrtpError::Packet)?;
        let (aad, ssrc) = rtcp_aad(header, index);
        let nonce = self.rtcp_in.nonce(ssrc, u64::from(index & 0x7FFF_FFFF));
        let body = sealed.get_mut(RTCP_HEADER_BYTES..).ok_or(SrtpError::Packet)?;
        let plain = self
            .rtcp_in
            .key
            .open_in_place(nonce, Aad::from(aad), body)
            .map_err(|_| SrtpError::Packet)?
            .len();
        sealed.get(..RTCP_HEADER_BYTES + plain).ok_or(SrtpError::Packet)
    }
}

/// What SRTCP authenticates besides the body (RFC 7714 §9.2), and the SSRC in it.
fn rtcp_aad(header: [u8; RTCP_HEADER_BYTES], index: u32) -> ([u8; 12], u32) {
    let [a, b, c, d, e, f, g, h] = header;
    let [i, j, k, l] = index.to_be_bytes();
    ([a, b, c, d, e, f, g, h, i, j, k, l], u32::from_be_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(profile: Profile) -> (Srtp, Srtp) {
        let material: Vec<u8> = (0..).take(2 * (profile.key_bytes() + SALT_BYTES)).collect();
        let [a, b] = [true, false].map(|client| Srtp::new(profile, &material, client).unwrap());
        (a, b)
    }

    #[test]
    fn session_keys_are_those_of_rfc_3711_appendix_b_3() {
        let master = 0xE1F9_7A0D_3E01_8BE0_D64F_A32C_06DE_4139_u128.to_be_bytes();
        let salt = &0x0EC6_75AD_498A_FEEB_B696_0B3A_ABE6_u128.to_be_bytes()[2..];
        let mut key = [0; 16];
        derive(&master, salt, 0, &mut key).unwrap();
        assert_eq!(key, 0xC61E_7A93_744F_39EE_1073_4AFE_3FF7_A087_u128.to_be_bytes());
        let mut session_salt = [0; 14];
        derive(&master, salt, 2, &mut session_salt).unwrap();
        assert_eq!(session_salt, 0x30CB_BC08_863D_8C85_D49D_B34A_9AE1_u128.to_be_bytes()[2..]);
    }

    #[test]
    fn what_one_side_seals_the_other_opens() {
        for profile in [Profile::Gcm128, Profile::Gcm256] {
            let (mut client, server) = pair(profile);
            for index in [0, 1, 0xFFFF, 0x1_0000, 0xFFFF_FFFF_FFFF] {
                let header = [0x80, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
                let mut body = vec![5; 100 + TAG_BYTES];
                client.seal_rtp(3, index, &header, &mut body).unwrap();
                assert_ne!(body[..100], [5; 100]);
                assert!(server.open_rtp(3, index + 1, &header, &mut body.clone()).is_err());
                assert!(client.open_rtp(3, index, &header, &mut body.clone()).is_err());
                assert_eq!(server.open_rtp(3, index, &header, &mut body).unwrap(), [5; 100]);
                let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
                let mut packet = [report, [7; 8]].concat();
                client.seal_rtcp(&mut packet).unwrap();
                assert_eq!(packet.len(), 16 + TAG_BYTES + INDEX_BYTES);
                assert_eq!(server.open_rtcp(&mut packet).unwrap(), [report, [7; 8]].concat());
            }
        }
    }

    #[test]
    fn material_of_another_length_and_short_packets_are_refused() {
        assert!(Srtp::new(Profile::Gcm256, &[0; 56], true).is_err());
        assert!(Srtp::new(Profile::Gcm128, &[0; 57], true).is_err());
        let (mut client, server) = pair(Profile::Gcm128);
        for length in 0..30 {
            assert!(server.open_rtcp(&mut vec![0x80; length]).is_err());
        }
        assert!(client.seal_rtcp(&mut vec![0; 7]).is_err());
        assert!(client.seal_rtp(1, 1, &[], &mut [0; 15]).is_err());
    }
}
