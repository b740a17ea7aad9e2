//! Lines of SDP, read and written (RFC 8866 §5 and §9).

use std::fmt::{Arguments, Write};

use super::error::SdpError;

/// One line: its letter, what stands behind `=`, and its number from 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextLine<'a> {
    pub(super) letter: char,
    pub(super) value: &'a str,
    number: usize,
}

impl<'a> TextLine<'a> {
    /// An attribute's name and value, which is empty for a property.
    pub(super) fn attribute(&self) -> Option<(&'a str, &'a str)> {
        (self.letter == 'a').then(|| self.value.split_once(':').unwrap_or((self.value, "")))
    }

    /// A refusal that names this line.
    pub(super) fn malformed(&self, what: &str) -> SdpError {
        SdpError::malformed(format!("line {}: {what}", self.number))
    }
}

/// The lines of a text; empty ones are passed over.
///
/// # Errors
/// `Malformed` at the first line that is no letter with a value, or has control characters.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Result<TextLine<'_>, SdpError>> {
    let numbered = text.split('\n').zip(1..);
    numbered.map(|(line, number)| (line.strip_suffix('\r').unwrap_or(line), number)).filter_map(
        |(line, number)| {
            if line.is_empty() {
                return None;
            }
            let mut characters = line.chars();
            let (letter, equals) = (characters.next(), characters.next());
            let value = characters.as_str();
            let (Some(letter), Some('=')) = (letter, equals) else {
                let what = format!("line {number}: is not a letter, = and a value");
                return Some(Err(SdpError::malformed(what)));
            };
            let line = TextLine { letter, value, number };
            if value.chars().any(char::is_control) {
                return Some(Err(line.malformed("has control characters")));
            }
            Some(Ok(line))
        },
    )
}

/// Writes lines; what would break one is left out, whoever said it.
#[derive(Debug, Default)]
pub(super) struct Writer(String);

impl Writer {
    pub(super) fn line(&mut self, text: Arguments<'_>) {
        let mut line = String::new();
        // A string takes whatever is written to it.
        let _ = line.write_fmt(text);
        self.0.extend(line.chars().filter(|character| !character.is_control()));
        self.0.push_str("\r\n");
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn nothing_written_into_a_line_begins_another() {
        let mut writer = Writer::default();
        writer.line(format_args!("a=ssrc:1 cname:{}", "x\r\na=evil\n\u{85}"));
        assert_eq!(writer.finish(), "a=ssrc:1 cname:xa=evil\r\n");
    }

    #[test]
    fn lines_end_with_or_without_carriage_return() {
        let read: Vec<_> = lines("v=0\r\n\na=mid:x\n").map(Result::unwrap).collect();
        let shape: Vec<_> = read.iter().map(|line| (line.letter, line.value)).collect();
        assert_eq!(shape, [('v', "0"), ('a', "mid:x")]);
        assert_eq!(read[1].attribute(), Some(("mid", "x")));
        assert_eq!(read[1].malformed("is wrong").to_string(), "line 3: is wrong");
        for bad in ["v", "ab=c", "a=x\ry", "=x"] {
            assert!(lines(bad).any(|line| line.is_err()), "{bad:?}");
        }
    }
}
