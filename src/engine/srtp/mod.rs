//! Media is opened once and sealed once per receiver: SRTP and SRTCP (RFC 3711, RFC 7714) over keys
//! that DTLS agreed on (RFC 5764).
//!
//! Owns the session keys of one transport ([`SrtpSealer`] outgoing, [`SrtpOpener`] incoming) and the
//! rules of indices and replays ([`OpenContext`]). Called by the transport, on its shard's thread.
//!
//! Invariants:
//! * No key material is ever printed, and master keys are wiped when dropped.
//! * Egress never guesses: the caller names the 48-bit packet index, and never twice for one SSRC
//!   except to send the very same bytes again (a repeated nonce with other bytes breaks GCM).
//! * Ingress changes a context only after authentication.
//! * Sealing and opening a packet allocate nothing; GCM reads the shared plaintext and writes the
//!   send slot in one pass.
//!
//! Not here: MKI, key derivation rates, `UNENCRYPTED_SRTCP` (WebRTC negotiates none of them), and
//! finding the context of an SSRC (the transport's business, since it bounds their number).
//! A gap of 32,768 packets or more loses the rollover counter, as RFC 3711 §3.3.1 says; consent
//! ends the transport before that.

mod cipher;
mod context;
mod keys;
mod open;
mod seal;
#[cfg(test)]
mod vectors;

pub use context::OpenContext;
pub use keys::{SrtpKeys, SrtpProfile};
pub use open::{OpenError, Opened, SrtpOpener};
pub use seal::{RtpBody, SrtpSealer};

/// Packet indices have 48 bits: rollover counter and sequence number.
pub const PACKET_INDEX_MAX: u64 = (1 << 48) - 1;

/// Bytes of an RTP header without CSRCs and extensions.
const RTP_HEADER_BYTES: usize = 12;

/// Bytes of a compound RTCP packet that stay in the clear: the first header and the sender's SSRC.
const RTCP_CLEAR_BYTES: usize = 8;

/// The E flag before the 31-bit SRTCP index.
const RTCP_ENCRYPTED: u32 = 1 << 31;

/// Reads a big-endian `u32` at `offset`.
fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}
