//! Plaintext becomes protected packets for one receiver, straight in the send slot.
//!
//! Owned by a transport, called on its shard's thread when trains are filled. Invariants: see the
//! parent module; the SRTCP index is counted here (one sequence for all SSRCs of the transport:
//! each SSRC's own still only grows). Does not write headers.

use super::cipher::{CM_TAG_BYTES, Cipher, GCM_TAG_BYTES, Kind};
use super::keys::{SrtpKeys, SrtpProfile};
use super::{PACKET_INDEX_MAX, RTCP_CLEAR_BYTES, RTCP_ENCRYPTED, RTP_HEADER_BYTES, read_u32};

/// Bit of an RTP header's first byte: padding follows the payload.
const RTP_PADDING_BIT: u8 = 0x20;

/// What follows an RTP header, in pieces that lie apart.
#[derive(Debug, Clone, Copy, Default)]
pub struct RtpBody<'a> {
    /// Bytes before the payload: RTX's original sequence number (RFC 4588 §4).
    pub prefix: &'a [u8],
    /// The shared payload.
    pub payload: &'a [u8],
    /// Bytes of RTP padding to append, their count included (RFC 3550 §5.1).
    pub padding: u8,
    /// The payload ends with padding already.
    pub padded: bool,
}

impl RtpBody<'_> {
    /// Bytes of all pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.prefix.len() + self.payload.len() + usize::from(self.padding)
    }

    /// True when nothing follows the header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The padding, written into `space`, which must be zeros.
    pub(super) fn padding_bytes<'a>(&self, space: &'a mut [u8; 255]) -> &'a [u8] {
        let padding = space.get_mut(..usize::from(self.padding)).unwrap_or_default();
        if let Some(last) = padding.last_mut() {
            *last = self.padding;
        }
        padding
    }
}

/// Seals what one transport sends.
pub struct SrtpSealer {
    profile: SrtpProfile,
    rtp: Cipher,
    rtcp: Cipher,
    /// The index of the next SRTCP packet.
    rtcp_index: u32,
}

impl SrtpSealer {
    /// Derives the session keys of what we send.
    #[must_use]
    pub fn new(keys: &SrtpKeys) -> Self {
        let profile = keys.profile();
        Self {
            profile,
            rtp: Cipher::derive(profile, keys.local(), Kind::Rtp),
            rtcp: Cipher::derive(profile, keys.local(), Kind::Rtcp),
            // libsrtp's first one: a receiver whose window starts at 0 takes it too.
            rtcp_index: 1,
        }
    }

    /// A value of each line of it, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        self.rtp.warm() + usize::from(self.profile == SrtpProfile::AeadAes256Gcm)
    }

    /// Which profile it seals with.
    #[must_use]
    pub fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// Seals an RTP packet whose complete header stands in `out[..header_len]`; returns the packet's
    /// length. Sets the header's P bit when `body` has padding.
    ///
    /// `index` is the SSRC's extended sequence number from 0 (rollover counter and sequence number);
    /// it must never be used again for other bytes. `None`, with nothing worth sending in `out`, when
    /// the header's sequence number is not the index's, `out` is too small for header, body and
    /// [`SrtpProfile::rtp_overhead_bytes`], or the index is above [`PACKET_INDEX_MAX`].
    pub fn seal_rtp(
        &self,
        index: u64,
        header_len: usize,
        body: &RtpBody<'_>,
        out: &mut [u8],
    ) -> Option<usize> {
        let (header, out) = out.split_at_mut_checked(header_len)?;
        let [first, _, seq_high, seq_low, _, _, _, _, ssrc @ ..] =
            header.first_chunk_mut::<RTP_HEADER_BYTES>()?;
        let [.., index_high, index_low] = index.to_be_bytes();
        if index > PACKET_INDEX_MAX || (*seq_high, *seq_low) != (index_high, index_low) {
            return None;
        }
        if body.padding > 0 || body.padded {
            *first |= RTP_PADDING_BIT;
        }
        let id = (u32::from_be_bytes(*ssrc), index);
        match &self.rtp {
            Cipher::Gcm(gcm) => {
                let out = out.get_mut(..body.len() + GCM_TAG_BYTES)?;
                gcm.seal(id, header, body, out)?;
                Some(header_len + out.len())
            }
            Cipher::Cm(cm) => {
                let (cipher, rest) = out.split_at_mut_checked(body.len())?;
                let tag = rest.first_chunk_mut::<CM_TAG_BYTES>()?;
                cm.encrypt(id, body, cipher)?;
                *tag = cm.tag(header, cipher, rollover(index));
                Some(header_len + body.len() + CM_TAG_BYTES)
            }
        }
    }

    /// Seals the compound RTCP packet `packet` into `out`; returns its length. `None` when `packet`
    /// has less than 8 bytes, `out` is too small for it and
    /// [`SrtpProfile::rtcp_overhead_bytes`], or all 2³¹ indices are used.
    pub fn seal_rtcp(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        let index = self.rtcp_index;
        if index >= RTCP_ENCRYPTED {
            return None;
        }
        let ssrc = read_u32(packet, 4)?;
        let (clear, payload) = packet.split_at_checked(RTCP_CLEAR_BYTES)?;
        let len = packet.len() + self.profile.rtcp_overhead_bytes();
        let out = out.get_mut(..len)?;
        // Counted before anything is written: no index is ever used twice.
        self.rtcp_index += 1;
        let word = (RTCP_ENCRYPTED | index).to_be_bytes();
        let id = (ssrc, u64::from(index));
        let body = RtpBody { payload, ..RtpBody::default() };
        let (header, rest) = out.split_at_mut_checked(RTCP_CLEAR_BYTES)?;
        header.copy_from_slice(clear);
        match &self.rtcp {
            Cipher::Gcm(gcm) => {
                let (sealed, trailer) = rest.split_at_mut_checked(payload.len() + GCM_TAG_BYTES)?;
                gcm.seal(id, &rtcp_aad(clear, word), &body, sealed)?;
                trailer.copy_from_slice(&word);
            }
            Cipher::Cm(cm) => {
                let (cipher, trailer) = rest.split_at_mut_checked(payload.len())?;
                cm.encrypt(id, &body, cipher)?;
                let tag = cm.tag(clear, cipher, word);
                let (at_word, at_tag) = trailer.split_at_mut_checked(word.len())?;
                at_word.copy_from_slice(&word);
                at_tag.copy_from_slice(&tag);
            }
        }
        Some(len)
    }
}

impl std::fmt::Debug for SrtpSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SrtpSealer").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// The rollover counter of a packet index, as HMAC takes it.
pub(super) fn rollover(index: u64) -> [u8; 4] {
    let [_, _, a, b, c, d, _, _] = index.to_be_bytes();
    [a, b, c, d]
}

/// What GCM authenticates of an SRTCP packet besides its ciphertext (RFC 7714 §9.2).
pub(super) fn rtcp_aad(clear: &[u8], word: [u8; 4]) -> [u8; RTCP_CLEAR_BYTES + 4] {
    let mut aad = [0; RTCP_CLEAR_BYTES + 4];
    for (to, from) in aad.iter_mut().zip(clear.iter().chain(&word)) {
        *to = *from;
    }
    aad
}
