//! Protected packets become plaintext, in place in a producer's ring, each of them once.
//!
//! Owned by a transport, called on its shard's thread for every RTP and RTCP datagram. Invariants:
//! see the parent module. Windows of RTCP senders are held here, at most
//! [`SRTP_CONTEXTS_PER_TRANSPORT_MAX`], made by authenticated packets only. Does not parse headers
//! beyond SSRC and sequence number.

use thiserror::Error;

use super::cipher::{CM_TAG_BYTES, Cipher, GCM_TAG_BYTES, Kind};
use super::context::{OpenContext, ReplayWindow};
use super::keys::{SrtpKeys, SrtpProfile};
use super::seal::{rollover, rtcp_aad};
use super::{PACKET_INDEX_MAX, RTCP_CLEAR_BYTES, RTCP_ENCRYPTED, RTP_HEADER_BYTES, read_u32};
use crate::limits::{SRTCP_REPLAY_PACKETS, SRTP_CONTEXTS_PER_TRANSPORT_MAX};

/// Why a packet was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The tag is not the one our keys give, or RTCP came unencrypted.
    #[error("authentication failed")]
    Authentication,
    /// Seen before, or too old to tell.
    #[error("replayed")]
    Replayed,
    /// Shorter than its header and tag.
    #[error("too short")]
    TooShort,
    /// The plaintext does not fit.
    #[error("output too small")]
    OutputTooSmall,
}

/// An RTP packet that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Its extended sequence number: rollover counter and sequence number.
    pub index: u64,
    /// Bytes of what follows the header, padding included.
    pub len: usize,
}

/// What is known of one RTCP sender.
struct RtcpSender {
    ssrc: u32,
    /// The opener's count of RTCP packets when this sender was last heard.
    heard: u64,
    window: ReplayWindow<{ SRTCP_REPLAY_PACKETS / 64 }>,
}

/// Opens what one transport receives.
pub struct SrtpOpener {
    profile: SrtpProfile,
    rtp: Cipher,
    rtcp: Cipher,
    senders: Vec<RtcpSender>,
    /// RTCP packets opened.
    heard: u64,
}

impl SrtpOpener {
    /// Derives the session keys of what we receive.
    #[must_use]
    pub fn new(keys: &SrtpKeys) -> Self {
        let profile = keys.profile();
        Self {
            profile,
            rtp: Cipher::derive(profile, keys.remote(), Kind::Rtp),
            rtcp: Cipher::derive(profile, keys.remote(), Kind::Rtcp),
            senders: Vec::new(),
            heard: 0,
        }
    }

    /// A value of it, to read it ahead of time.
    pub(in crate::engine) fn warm(&self) -> usize {
        self.senders.len() + self.rtp.warm()
    }

    /// Which profile it opens.
    #[must_use]
    pub fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// Opens the RTP packet `packet`, whose header (with CSRCs and extensions) takes `header_len`
    /// bytes, and writes what follows the header to the start of `out`. `context` is that of the
    /// packet's SSRC; it changes only when the packet is authentic. After an error, what `out` holds
    /// is unspecified.
    ///
    /// # Errors
    /// See [`OpenError`]; a replay from within the window is told before any cipher runs.
    pub fn open_rtp(
        &self,
        context: &mut OpenContext,
        packet: &[u8],
        header_len: usize,
        out: &mut [u8],
    ) -> Result<Opened, OpenError> {
        let (header, sealed) = packet.split_at_checked(header_len).ok_or(OpenError::TooShort)?;
        let [_, _, seq_high, seq_low, _, _, _, _, ssrc @ ..] =
            header.first_chunk::<RTP_HEADER_BYTES>().ok_or(OpenError::TooShort)?;
        let ssrc = u32::from_be_bytes(*ssrc);
        let len = sealed
            .len()
            .checked_sub(self.profile.rtp_overhead_bytes())
            .ok_or(OpenError::TooShort)?;
        let out = out.get_mut(..len).ok_or(OpenError::OutputTooSmall)?;

        let (first, second) = context.guess(u16::from_be_bytes([*seq_high, *seq_low]));
        let mut result = Err(OpenError::Authentication);
        for index in [Some(first), second].into_iter().flatten() {
            if index > PACKET_INDEX_MAX {
                break;
            }
            if !context.window.is_fresh(index) {
                result = Err(OpenError::Replayed);
                continue;
            }
            if self.open_rtp_as((ssrc, index), header, sealed, out).is_some() {
                context.window.accept(index);
                result = Ok(Opened { index, len });
                break;
            }
        }
        result
    }

    fn open_rtp_as(
        &self,
        id: (u32, u64),
        header: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Option<()> {
        match &self.rtp {
            Cipher::Gcm(gcm) => gcm.open(id, header, sealed, out),
            Cipher::Cm(cm) => {
                let (cipher, tag) = sealed.split_last_chunk::<CM_TAG_BYTES>()?;
                if !cm.is_tag(header, cipher, rollover(id.1), tag) {
                    return None;
                }
                out.copy_from_slice(cipher);
                cm.apply(id, out)
            }
        }
    }

    /// Opens the compound RTCP packet `packet` into `out`; returns its length. The replay window is
    /// that of the first packet's SSRC.
    ///
    /// # Errors
    /// See [`OpenError`]. An unencrypted packet (E flag 0) is refused as not authentic: WebRTC never
    /// agrees on one.
    pub fn open_rtcp(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, OpenError> {
        let len = packet
            .len()
            .checked_sub(self.profile.rtcp_overhead_bytes())
            .filter(|len| *len >= RTCP_CLEAR_BYTES)
            .ok_or(OpenError::TooShort)?;
        let out = out.get_mut(..len).ok_or(OpenError::OutputTooSmall)?;
        let word_at = match &self.rtcp {
            Cipher::Gcm(_) => len + GCM_TAG_BYTES,
            Cipher::Cm(_) => len,
        };
        let ssrc = read_u32(packet, 4).ok_or(OpenError::TooShort)?;
        let word = read_u32(packet, word_at).ok_or(OpenError::TooShort)?;
        if word & RTCP_ENCRYPTED == 0 {
            return Err(OpenError::Authentication);
        }
        let index = u64::from(word & !RTCP_ENCRYPTED);
        let sender = self.senders.iter().find(|sender| sender.ssrc == ssrc);
        if sender.is_some_and(|sender| !sender.window.is_fresh(index)) {
            return Err(OpenError::Replayed);
        }
        self.open_rtcp_as((ssrc, index), packet, word.to_be_bytes(), out)
            .ok_or(OpenError::Authentication)?;
        self.note_rtcp(ssrc, index);
        Ok(len)
    }

    fn open_rtcp_as(
        &self,
        id: (u32, u64),
        packet: &[u8],
        word: [u8; 4],
        out: &mut [u8],
    ) -> Option<()> {
        let (clear, rest) = packet.split_at_checked(RTCP_CLEAR_BYTES)?;
        let (out_clear, out_rest) = out.split_at_mut_checked(RTCP_CLEAR_BYTES)?;
        out_clear.copy_from_slice(clear);
        match &self.rtcp {
            Cipher::Gcm(gcm) => {
                let sealed = rest.get(..out_rest.len() + GCM_TAG_BYTES)?;
                gcm.open(id, &rtcp_aad(clear, word), sealed, out_rest)
            }
            Cipher::Cm(cm) => {
                let (rest, tag) = rest.split_last_chunk::<CM_TAG_BYTES>()?;
                let cipher = rest.get(..out_rest.len())?;
                if !cm.is_tag(clear, cipher, word, tag) {
                    return None;
                }
                out_rest.copy_from_slice(cipher);
                cm.apply(id, out_rest)
            }
        }
    }

    /// Moves a sender's window. A new sender takes the place of the one unheard for longest when
    /// there are too many: a transport that lives for days must not go deaf, and what could be
    /// replayed then is the RTCP of a stream long gone.
    fn note_rtcp(&mut self, ssrc: u32, index: u64) {
        self.heard += 1;
        let heard = self.heard;
        if let Some(sender) = self.senders.iter_mut().find(|sender| sender.ssrc == ssrc) {
            sender.heard = heard;
            sender.window.accept(index);
            return;
        }
        let mut sender = RtcpSender { ssrc, heard, window: ReplayWindow::default() };
        sender.window.accept(index);
        if self.senders.len() < SRTP_CONTEXTS_PER_TRANSPORT_MAX {
            self.senders.push(sender);
        } else if let Some(oldest) = self.senders.iter_mut().min_by_key(|sender| sender.heard) {
            *oldest = sender;
        }
    }
}

impl std::fmt::Debug for SrtpOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SrtpOpener").field("profile", &self.profile).finish_non_exhaustive()
    }
}
