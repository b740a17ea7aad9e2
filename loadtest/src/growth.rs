//! How a process grows over a long run: resident memory and descriptors, with the slope of each.
//!
//! Fed by `main` now and then; least squares kept as sums, so that an hour costs no more memory than
//! a minute.

use std::fs;

use serde::Serialize;

/// Bytes of a page: 4 KiB on every machine this was run on; `statm` counts in pages.
const PAGE_BYTES: f64 = 4_096.0;

/// One look at a process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size {
    /// Resident memory, bytes.
    pub(crate) resident_bytes: f64,
    /// Open descriptors.
    pub(crate) descriptors: f64,
}

impl Size {
    /// A process as it is; `None` when there is none, or it is another user's.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let pages: u32 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        Some(Self {
            resident_bytes: f64::from(pages) * PAGE_BYTES,
            descriptors: f64::from(u32::try_from(descriptors).unwrap_or(u32::MAX)),
        })
    }
}

/// A straight line through points, as sums.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    count: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Line {
    fn add(&mut self, x: f64, y: f64) {
        self.count += 1.0;
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.xy += x * y;
    }

    /// Rise of `y` for each one of `x`; zero for fewer than two points.
    fn slope(&self) -> f64 {
        let spread = self.count * self.xx - self.x * self.x;
        if spread > 0.0 { (self.count * self.xy - self.x * self.y) / spread } else { 0.0 }
    }
}

/// The growth of one process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Growth {
    memory: Line,
    descriptors: Line,
    first: Option<Size>,
    last: Option<Size>,
}

/// What is told about it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Grown {
    /// Resident memory at the first and the last look, bytes.
    pub(crate) resident_bytes: [f64; 2],
    /// Its slope over all looks, bytes per hour.
    pub(crate) resident_bytes_per_hour: f64,
    /// Descriptors at the first and the last look.
    pub(crate) descriptors: [f64; 2],
    /// Their slope over all looks, per hour.
    pub(crate) descriptors_per_hour: f64,
}

impl Growth {
    /// Notes a look, this many seconds into the run.
    pub(crate) fn note(&mut self, seconds: f64, size: Size) {
        self.memory.add(seconds, size.resident_bytes);
        self.descriptors.add(seconds, size.descriptors);
        self.first = self.first.or(Some(size));
        self.last = Some(size);
    }

    /// What it comes to; `None` before the first look.
    pub(crate) fn grown(&self) -> Option<Grown> {
        let (first, last) = self.first.zip(self.last)?;
        Some(Grown {
            resident_bytes: [first.resident_bytes, last.resident_bytes],
            resident_bytes_per_hour: self.memory.slope() * 3_600.0,
            descriptors: [first.descriptors, last.descriptors],
            descriptors_per_hour: self.descriptors.slope() * 3_600.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_line_through_the_noise() {
        let mut growth = Growth::default();
        assert_eq!(growth.grown(), None);
        for second in 0..3_600 {
            let noise = if second % 2 == 0 { 5_000.0 } else { -5_000.0 };
            let resident_bytes = 1e8 + 10.0 * f64::from(second) + noise;
            growth.note(f64::from(second), Size { resident_bytes, descriptors: 40.0 });
        }
        let grown = growth.grown().unwrap();
        assert!((grown.resident_bytes_per_hour / 36_000.0 - 1.0).abs() < 0.01);
        assert!(grown.descriptors_per_hour.abs() < 1e-6);
        assert!((grown.descriptors[1] - 40.0).abs() < 1e-9);
    }

    #[test]
    fn this_process_has_a_size_and_nobody_has_none() {
        let size = Size::of(std::process::id()).unwrap();
        assert!(size.resident_bytes > 0.0 && size.descriptors > 2.0);
        assert_eq!(Size::of(u32::MAX), None);
    }
}
