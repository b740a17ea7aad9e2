//! STUN as an ICE-lite agent needs it: reads binding requests and writes their answers.
//!
//! RFC 8489, RFC 8445 §7.3. Pure functions over bytes, called on the shard's thread by
//! [`ice`](super::ice) and by the demultiplexer. Nothing here allocates but the answers. The
//! library under DTLS has a STUN parser of its own, but that one indexes past the end of some
//! malformed messages, knows no NOMINATION and refuses what must be answered with 400; so it never
//! sees a byte of STUN from the network.
//!
//! Invariant: any bytes survive. Deliberately not here: which user name is alive (`ice`), other
//! methods than Binding, long-term credentials, comprehension-required refusals (420): browsers
//! send none, and mediasoup ignores unknown attributes too.

use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, Mac};
use sha1::Sha1;

/// Bytes of a STUN header (RFC 8489 §5).
pub const HEADER_BYTES: usize = 20;

const MAGIC_COOKIE: u32 = 0x2112_A442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;
/// Renomination (draft-thatcher-ice-renomination): a counter; the highest wins.
const NOMINATION: u16 = 0xc001;

/// What FINGERPRINT is XORed with: "STUN" (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;
const INTEGRITY_BYTES: usize = 20;

/// The 96 bits that pair an answer with its request.
pub type TransactionId = [u8; 12];

/// HMAC-SHA1 keyed with an ICE password once, so that each message costs only its own blocks.
#[derive(Clone)]
pub struct IntegrityKey(Hmac<Sha1>);

impl std::fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IntegrityKey")
    }
}

impl IntegrityKey {
    /// The key of a short-term credential: the password's bytes (RFC 8489 §9.1.1).
    #[must_use]
    pub fn new(password: &str) -> Self {
        Self(Hmac::new_from_slice(password.as_bytes()).expect("HMAC takes keys of any length"))
    }

    /// The MAC over a message up to its MESSAGE-INTEGRITY attribute, as if the message ended with
    /// it.
    fn mac(&self, before: &[u8]) -> Hmac<Sha1> {
        let mut mac = self.0.clone();
        let length = before.len() + 4 + INTEGRITY_BYTES - HEADER_BYTES.min(before.len());
        mac.update(before.get(..2).unwrap_or_default());
        mac.update(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        mac.update(before.get(4..).unwrap_or_default());
        mac
    }
}

/// Why bytes are no binding request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StunError {
    /// Not STUN, or STUN that contradicts itself.
    #[error("malformed STUN message")]
    Malformed,
    /// A well-formed STUN header that is no binding request.
    #[error("not a binding request")]
    NotABindingRequest,
}

/// The attributes of a message in order: type, value, offset of the attribute in the message.
struct Attributes<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8], usize), StunError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let taken = take_attribute(self.rest);
        let Some((kind, value, rest)) = taken else {
            self.rest = &[];
            return Some(Err(StunError::Malformed));
        };
        let offset = self.offset;
        self.offset += self.rest.len() - rest.len();
        self.rest = rest;
        Some(Ok((kind, value, offset)))
    }
}

fn take_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (&[k0, k1, l0, l1], rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let value = rest.get(..length)?;
    Some((u16::from_be_bytes([k0, k1]), value, rest.get(length.next_multiple_of(4)..)?))
}

/// Splits a message into its type, transaction and attributes.
fn open(bytes: &[u8]) -> Result<(u16, TransactionId, Attributes<'_>), StunError> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(StunError::Malformed)?;
    let &[t0, t1, l0, l1, c0, c1, c2, c3, ref transaction @ ..] = header;
    let kind = u16::from_be_bytes([t0, t1]);
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let well_formed = kind & 0xc000 == 0
        && length == rest.len()
        && length.is_multiple_of(4)
        && u32::from_be_bytes([c0, c1, c2, c3]) == MAGIC_COOKIE;
    if !well_formed {
        return Err(StunError::Malformed);
    }
    Ok((kind, *transaction, Attributes { rest, offset: HEADER_BYTES }))
}

/// The USERNAME of a binding request, wherever it stands among the attributes; nothing is verified.
#[must_use]
pub fn username(bytes: &[u8]) -> Option<&str> {
    let (BINDING_REQUEST, _, attributes) = open(bytes).ok()? else { return None };
    let value = attributes.map_while(Result::ok).find(|(kind, ..)| *kind == USERNAME)?.1;
    std::str::from_utf8(value).ok()
}

/// A binding request, read but not yet verified.
#[derive(Debug, Clone, Copy)]
pub struct BindingRequest<'a> {
    /// Pairs the answer with it.
    pub transaction: TransactionId,
    /// `local:remote` as the receiver of the request sees it.
    pub username: Option<&'a str>,
    /// PRIORITY, absent or zero when the sender is no ICE agent.
    pub priority: u32,
    /// USE-CANDIDATE: the controlling agent selects this address.
    pub use_candidate: bool,
    /// NOMINATION: the same with a counter.
    pub nomination: Option<u32>,
    /// ICE-CONTROLLED: the sender believes that we are controlling.
    pub controlled: bool,
    /// FINGERPRINT is there (and right, else the message is malformed).
    pub has_fingerprint: bool,
    /// The bytes before MESSAGE-INTEGRITY and its value.
    integrity: Option<(&'a [u8], &'a [u8; INTEGRITY_BYTES])>,
}

impl<'a> BindingRequest<'a> {
    /// Reads a binding request.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, StunError> {
        let (kind, transaction, attributes) = open(bytes)?;
        if kind != BINDING_REQUEST {
            return Err(StunError::NotABindingRequest);
        }
        let mut request = Self {
            transaction,
            username: None,
            priority: 0,
            use_candidate: false,
            nomination: None,
            controlled: false,
            has_fingerprint: false,
            integrity: None,
        };
        for attribute in attributes {
            let (kind, value, offset) = attribute?;
            if request.has_fingerprint {
                return Err(StunError::Malformed); // FINGERPRINT is the last one (RFC 8489 §14.7)
            }
            // All that follows MESSAGE-INTEGRITY but FINGERPRINT is ignored (RFC 8489 §14.5).
            if request.integrity.is_none() || kind == FINGERPRINT {
                request.take(bytes, kind, value, offset)?;
            }
        }
        Ok(request)
    }

    fn take(
        &mut self,
        bytes: &'a [u8],
        kind: u16,
        value: &'a [u8],
        offset: usize,
    ) -> Result<(), StunError> {
        let before = bytes.get(..offset).ok_or(StunError::Malformed)?;
        match kind {
            USERNAME => {
                let text = std::str::from_utf8(value).map_err(|_| StunError::Malformed)?;
                self.username = Some(text);
            }
            MESSAGE_INTEGRITY => {
                let mac = value.try_into().map_err(|_| StunError::Malformed)?;
                self.integrity = Some((before, mac));
            }
            PRIORITY => self.priority = word(value)?,
            USE_CANDIDATE => self.use_candidate = true,
            NOMINATION => self.nomination = Some(word(value)?),
            ICE_CONTROLLED => self.controlled = true,
            FINGERPRINT => {
                if word(value)? != crc32(before) ^ FINGERPRINT_XOR {
                    return Err(StunError::Malformed);
                }
                self.has_fingerprint = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// The part of USERNAME before the colon: our user name fragment.
    #[must_use]
    pub fn local_ufrag(&self) -> Option<&'a str> {
        Some(self.username?.split_once(':')?.0)
    }

    /// True when it carries MESSAGE-INTEGRITY at all.
    #[must_use]
    pub fn has_integrity(&self) -> bool {
        self.integrity.is_some()
    }

    /// True when MESSAGE-INTEGRITY was made with `key`; takes the same time whatever differs.
    #[must_use]
    pub fn is_signed_with(&self, key: &IntegrityKey) -> bool {
        self.integrity.is_some_and(|(before, mac)| key.mac(before).verify_slice(mac).is_ok())
    }
}

fn word(value: &[u8]) -> Result<u32, StunError> {
    value.try_into().map(u32::from_be_bytes).map_err(|_| StunError::Malformed)
}

/// The error answers of a controlled ICE agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// A required attribute is missing.
    BadRequest,
    /// USERNAME or MESSAGE-INTEGRITY is not ours.
    Unauthorized,
    /// Both sides claim the same role (RFC 8445 §7.3.1.1).
    RoleConflict,
}

impl ErrorCode {
    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::RoleConflict => 487,
        }
    }

    fn reason(self) -> &'static [u8] {
        match self {
            Self::BadRequest => b"Bad Request",
            Self::Unauthorized => b"Unauthorized",
            Self::RoleConflict => b"Role Conflict",
        }
    }
}

/// A message under construction.
struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u16, transaction: &TransactionId) -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        bytes.extend_from_slice(transaction);
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len()).expect("attributes we write are short");
        self.0.extend_from_slice(&kind.to_be_bytes());
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Sets the length in the header to what is there and `more` bytes.
    fn length(&mut self, more: usize) {
        let length = self.0.len() + more - HEADER_BYTES;
        let length = u16::try_from(length).expect("messages we write are short");
        if let Some(field) = self.0.get_mut(2..4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }

    fn sign(&mut self, key: &IntegrityKey) {
        let mac = key.mac(&self.0).finalize().into_bytes();
        self.attribute(MESSAGE_INTEGRITY, &mac);
    }

    fn finish(mut self) -> Vec<u8> {
        self.length(8);
        let crc = crc32(&self.0) ^ FINGERPRINT_XOR;
        self.attribute(FINGERPRINT, &crc.to_be_bytes());
        self.0
    }
}

/// The answer to a verified request: it tells the client the address it was seen at.
#[must_use]
pub fn success(transaction: &TransactionId, seen_at: SocketAddr, key: &IntegrityKey) -> Vec<u8> {
    let mut writer = Writer::new(BINDING_SUCCESS, transaction);
    let (value, length) = xor_address(transaction, seen_at);
    writer.attribute(XOR_MAPPED_ADDRESS, value.get(..length).unwrap_or_default());
    writer.sign(key);
    writer.finish()
}

/// An error answer. Only an answer to a request that was authentic is signed (RFC 8489 §9.1.3).
#[must_use]
pub fn error(transaction: &TransactionId, code: ErrorCode, key: Option<&IntegrityKey>) -> Vec<u8> {
    let mut writer = Writer::new(BINDING_ERROR, transaction);
    let [hundreds, units] = [code.code() / 100, code.code() % 100]
        .map(|part| u8::try_from(part).expect("both parts are under 100"));
    let mut value = vec![0, 0, hundreds, units];
    value.extend_from_slice(code.reason());
    writer.attribute(ERROR_CODE, &value);
    if let Some(key) = key {
        writer.sign(key);
    }
    writer.finish()
}

/// XOR-MAPPED-ADDRESS (RFC 8489 §14.2): its value and how much of it counts.
fn xor_address(transaction: &TransactionId, address: SocketAddr) -> ([u8; HEADER_BYTES], usize) {
    let mut value = [0; HEADER_BYTES];
    let mask = MAGIC_COOKIE.to_be_bytes().into_iter().chain(*transaction);
    let port = address.port().to_be_bytes();
    let (family, octets, length) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.to_ipv6_mapped().octets(), 4),
        IpAddr::V6(ip) => (2, ip.octets(), 16),
    };
    let address = octets.into_iter().skip(16 - length).zip(mask.clone()).map(|(b, m)| b ^ m);
    let port = port.into_iter().zip(mask).map(|(b, m)| b ^ m);
    let bytes = [0, family].into_iter().chain(port).chain(address);
    for (to, byte) in value.iter_mut().zip(bytes) {
        *to = byte;
    }
    (value, 4 + length)
}

/// A binding request to write. The server itself needs one only to tell its `Rtc` that the client
/// has been heard; tests write all kinds.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestOptions<'a> {
    /// `receiver:sender`.
    pub username: Option<&'a str>,
    /// PRIORITY.
    pub priority: Option<u32>,
    /// USE-CANDIDATE.
    pub use_candidate: bool,
    /// NOMINATION.
    pub nomination: Option<u32>,
    /// ICE-CONTROLLED instead of ICE-CONTROLLING.
    pub controlled: bool,
    /// Leaves FINGERPRINT out.
    pub without_fingerprint: bool,
}

/// Writes a binding request.
#[must_use]
pub fn request(
    transaction: &TransactionId,
    options: &RequestOptions<'_>,
    key: Option<&IntegrityKey>,
) -> Vec<u8> {
    let mut writer = Writer::new(BINDING_REQUEST, transaction);
    if let Some(username) = options.username {
        writer.attribute(USERNAME, username.as_bytes());
    }
    let role = if options.controlled { ICE_CONTROLLED } else { ICE_CONTROLLING };
    writer.attribute(role, &[1; 8]);
    if let Some(priority) = options.priority {
        writer.attribute(PRIORITY, &priority.to_be_bytes());
    }
    if options.use_candidate {
        writer.attribute(USE_CANDIDATE, &[]);
    }
    if let Some(nomination) = options.nomination {
        writer.attribute(NOMINATION, &nomination.to_be_bytes());
    }
    if let Some(key) = key {
        writer.sign(key);
    }
    if options.without_fingerprint {
        writer.length(0);
        return writer.0;
    }
    writer.finish()
}

/// CRC-32 as in ISO 3309 (RFC 8489 §14.7), a byte at a time: messages have about 100 bytes.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        let [low, ..] = crc.to_le_bytes();
        let entry = CRC_TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default();
        (crc >> 8) ^ entry
    })
}

const CRC_TABLE: [u32; 256] = crc_table();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which checks the index")]
const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    let mut byte: u32 = 0;
    while index < table.len() {
        let mut crc = byte;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use str0m::ice::StunMessage;

    use super::*;

    const TRANSACTION: TransactionId = *b"abcdefghijkl";

    fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
        let mut mac = Hmac::<Sha1>::new_from_slice(key).unwrap();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }

    fn full() -> RequestOptions<'static> {
        RequestOptions {
            username: Some("us:them"),
            priority: Some(7),
            use_candidate: true,
            nomination: Some(3),
            ..RequestOptions::default()
        }
    }

    /// RFC 5769 §2.1: the published sample request.
    #[test]
    fn the_sample_request_of_rfc_5769_verifies() {
        let words: [u32; 26] = [
            0x0001_0058,
            0x2112_a442,
            0xb7e7_a701,
            0xbc34_d686,
            0xfa87_dfae,
            0x8022_0010,
            0x5354_554e,
            0x2074_6573,
            0x7420_636c,
            0x6965_6e74,
            0x0024_0004,
            0x6e00_01ff,
            0x8029_0008,
            0x932f_f9b1,
            0x5126_3b36,
            0x0006_0009,
            0x6576_746a,
            0x3a68_3676,
            0x5920_2020,
            0x0008_0014,
            0x9aea_a70c,
            0xbfd8_cb56,
            0x781e_f2b5,
            0xb2d3_f249,
            0xc1b5_71a2,
            0x8028_0004,
        ];
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
        bytes.extend([0xe5, 0x7a, 0x3b, 0xcf]);
        let request = BindingRequest::parse(&bytes).unwrap();
        assert_eq!(request.username, Some("evtj:h6vY"));
        assert_eq!(username(&bytes), Some("evtj:h6vY"));
        assert_eq!(request.priority, 0x6e00_01ff);
        assert!(request.controlled && request.has_fingerprint);
        assert!(request.is_signed_with(&IntegrityKey::new("VOkJxbRl1RmTxUk/WvJxBt")));
        assert!(!request.is_signed_with(&IntegrityKey::new("VOkJxbRl1RmTxUk/WvJxBu")));
    }

    #[test]
    fn what_we_write_we_read_back() {
        let key = IntegrityKey::new("secret");
        let bytes = request(&TRANSACTION, &full(), Some(&key));
        let read = BindingRequest::parse(&bytes).unwrap();
        assert_eq!(read.transaction, TRANSACTION);
        assert_eq!((read.local_ufrag(), read.priority), (Some("us"), 7));
        assert_eq!((read.use_candidate, read.nomination), (true, Some(3)));
        assert!(read.is_signed_with(&key) && read.has_fingerprint && !read.controlled);
    }

    #[test]
    fn answers_are_understood_by_another_implementation() {
        let key = IntegrityKey::new("secret");
        for address in ["192.0.2.1:4321", "[2001:db8::1:2]:65535"] {
            let address: SocketAddr = address.parse().unwrap();
            let bytes = success(&TRANSACTION, address, &key);
            let message = StunMessage::parse(&bytes).unwrap();
            assert!(message.is_successful_binding_response());
            assert_eq!(message.mapped_address(), Some(address));
            assert!(message.verify(b"secret", hmac));
        }
        for code in [ErrorCode::BadRequest, ErrorCode::Unauthorized, ErrorCode::RoleConflict] {
            let bytes = error(&TRANSACTION, code, Some(&key));
            let message = StunMessage::parse(&bytes).unwrap();
            assert_eq!(message.error_code().map(|e| e.0), Some(code.code()));
            assert!(message.verify(b"secret", hmac));
        }
    }

    #[test]
    fn an_error_answer_is_never_longer_than_the_request_it_can_answer() {
        let ufrag = "a".repeat(32) + ":x";
        let options = RequestOptions { username: Some(&ufrag), ..RequestOptions::default() };
        let least = request(&TRANSACTION, &options, None).len();
        for code in [ErrorCode::BadRequest, ErrorCode::Unauthorized] {
            assert!(error(&TRANSACTION, code, None).len() <= least);
        }
    }

    #[test]
    fn malformed_messages_are_told_from_messages_of_another_kind() {
        let key = IntegrityKey::new("secret");
        let good = request(&TRANSACTION, &full(), Some(&key));
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            bytes
        };
        let answer = success(&TRANSACTION, "127.0.0.1:1".parse().unwrap(), &key);
        for (bytes, error) in [
            (Vec::new(), StunError::Malformed),
            (good[..19].to_vec(), StunError::Malformed),
            (good[..good.len() - 1].to_vec(), StunError::Malformed),
            (changed(4, 0), StunError::Malformed),
            (changed(0, 0xc0), StunError::Malformed),
            (changed(23, 255), StunError::Malformed),
            (changed(good.len() - 1, !good[good.len() - 1]), StunError::Malformed),
            (answer, StunError::NotABindingRequest),
        ] {
            assert_eq!(BindingRequest::parse(&bytes).err(), Some(error), "{bytes:?}");
            assert_eq!(
                username(&bytes).is_some(),
                bytes.len() == good.len()
                    && bytes[4] == 0x21
                    && bytes[0] == 0
                    && bytes[23] == good[23]
                    && bytes[1] == 1
            );
        }
    }

    #[test]
    fn what_follows_message_integrity_is_ignored() {
        let key = IntegrityKey::new("secret");
        let mut writer = Writer::new(BINDING_REQUEST, &TRANSACTION);
        writer.attribute(USERNAME, b"us:them");
        writer.sign(&key);
        writer.attribute(USE_CANDIDATE, &[]);
        writer.attribute(NOMINATION, &[0, 0, 0, 9]);
        let bytes = writer.finish();
        let read = BindingRequest::parse(&bytes).unwrap();
        assert!(read.is_signed_with(&key) && read.has_fingerprint);
        assert!(!read.use_candidate && read.nomination.is_none());
    }

    proptest! {
        #[test]
        fn the_parser_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = username(&bytes);
            if let Ok(request) = BindingRequest::parse(&bytes) {
                prop_assert!(!request.is_signed_with(&IntegrityKey::new("secret")));
            }
        }

        #[test]
        fn no_changed_request_is_authentic(at in 0..1000_usize, flip in 1..=255_u8) {
            let key = IntegrityKey::new("secret");
            let mut bytes = request(&TRANSACTION, &full(), Some(&key));
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert!(BindingRequest::parse(&bytes)
                .map_or(true, |r| !r.has_fingerprint || !r.is_signed_with(&key)));
        }

        #[test]
        fn the_parser_survives_truncation(len in 0..200_usize) {
            let bytes = request(&TRANSACTION, &full(), Some(&IntegrityKey::new("secret")));
            let cut = &bytes[..len.min(bytes.len())];
            prop_assert_eq!(BindingRequest::parse(cut).is_ok(), cut.len() == bytes.len());
        }
    }
}
