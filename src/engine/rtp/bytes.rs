//! Cursors over borrowed bytes: every read and write is checked and none can panic.
//!
//! Shared by the RTP and RTCP formats. All numbers are big-endian, as in every RFC cited there.

/// Takes values from the front of some bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

/// Puts values one behind the other; `None` as soon as one does not fit.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    /// Writes into `out`, behind its first `at` bytes.
    pub(crate) fn at(out: &'a mut [u8], at: usize) -> Self {
        Self { out, at }
    }

    pub(crate) fn len(&self) -> usize {
        self.at
    }

    /// Bytes that still fit.
    pub(crate) fn room(&self) -> usize {
        self.out.len().saturating_sub(self.at)
    }

    /// Forgets what was written from `at` on.
    pub(crate) fn rewind(&mut self, at: usize) {
        self.at = self.at.min(at);
    }

    pub(crate) fn written(&self) -> &[u8] {
        self.out.get(..self.at).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Option<()> {
        *self.out.get_mut(self.at..)?.first_chunk_mut::<N>()? = bytes;
        self.at += N;
        Some(())
    }

    pub(crate) fn put_slice(&mut self, bytes: &[u8]) -> Option<()> {
        self.out.get_mut(self.at..)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
        self.at += bytes.len();
        Some(())
    }

    pub(crate) fn put_u16(&mut self, value: u16) -> Option<()> {
        self.put(value.to_be_bytes())
    }

    pub(crate) fn put_u32(&mut self, value: u32) -> Option<()> {
        self.put(value.to_be_bytes())
    }

    pub(crate) fn put_u64(&mut self, value: u64) -> Option<()> {
        self.put(value.to_be_bytes())
    }

    /// Zeroes up to the next multiple of four.
    #[inline]
    pub(crate) fn align(&mut self) -> Option<()> {
        while !self.at.is_multiple_of(4) {
            self.put([0])?;
        }
        Some(())
    }

    /// Overwrites bytes already written at `at`.
    #[inline]
    pub(crate) fn patch<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        *self.out.get_mut(at..)?.first_chunk_mut::<N>()? = bytes;
        Some(())
    }
}

/// The low 24 bits, big-endian.
pub(crate) fn low_24(value: u32) -> [u8; 3] {
    let [_, a, b, c] = value.to_be_bytes();
    [a, b, c]
}

/// 24 bits, unsigned.
pub(crate) fn unsigned_24([a, b, c]: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, a, b, c])
}

/// 24 bits, two's complement.
pub(crate) fn signed_24([a, b, c]: [u8; 3]) -> i32 {
    i32::from_be_bytes([a, b, c, 0]) >> 8
}
