//! Reading fields of untrusted JSON with errors that name them: `rtpParameters.codecs[0].clockRate
//! must be a number`. Pure; used by [`super::parse`] only. A path costs nothing until an error
//! prints it. Knows JavaScript's idea of absence, and nothing of RTP.

use std::fmt;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::codec_match::is_falsy;
use super::error::OrtcError;

/// Where in the document a value stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    pub(super) fn root(name: &'a str) -> Self {
        Self { parent: None, step: Step::Key(name) }
    }

    pub(super) fn key<'b>(&'b self, name: &'b str) -> At<'b> {
        At { parent: Some(self), step: Step::Key(name) }
    }

    pub(super) fn index(&self, index: usize) -> At<'_> {
        At { parent: Some(self), step: Step::Index(index) }
    }

    /// The refusal of the value that stands here.
    pub(super) fn must(&self, be: impl fmt::Display) -> OrtcError {
        OrtcError::Invalid(format!("{self} must {be}"))
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match (self.step, self.parent.is_some()) {
            (Step::Key(name), true) => write!(f, ".{name}"),
            (Step::Key(name), false) => f.write_str(name),
            (Step::Index(index), _) => write!(f, "[{index}]"),
        }
    }
}

/// A JSON object and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) at: At<'a>,
    pub(super) map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    pub(super) fn of(at: At<'a>, value: &'a Value) -> Result<Self, OrtcError> {
        match value {
            Value::Object(map) => Ok(Self { at, map }),
            _ => Err(at.must("be an object")),
        }
    }

    /// The field, unless it is missing, `null`, `false`, `0` or `""`.
    pub(super) fn truthy(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !is_falsy(value))
    }

    /// A whole number in `range`; mandatory.
    pub(super) fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<u64, OrtcError> {
        number(&self.at.key(name), self.map.get(name).unwrap_or(&Value::Null), range)
    }

    /// A string of at most `max` characters; `None` when absent or empty.
    pub(super) fn string(&self, name: &str, max: usize) -> Result<Option<String>, OrtcError> {
        self.truthy(name).map(|value| string(&self.at.key(name), value, max)).transpose()
    }

    /// A string that must be there and not empty.
    pub(super) fn mandatory_string(&self, name: &str, max: usize) -> Result<String, OrtcError> {
        match self.map.get(name) {
            Some(Value::String(text)) if text.is_empty() => {
                Err(self.at.key(name).must("not be empty"))
            }
            found => string(&self.at.key(name), found.unwrap_or(&Value::Null), max),
        }
    }

    /// `true` or `false`; false when absent.
    pub(super) fn boolean(&self, name: &str) -> Result<bool, OrtcError> {
        match self.truthy(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(self.at.key(name).must("be a boolean")),
        }
    }

    /// A list of at most `max` objects, each read by `read`; empty when absent.
    pub(super) fn list<T>(
        &self,
        name: &str,
        max: usize,
        read: impl Fn(&Object<'_>) -> Result<T, OrtcError>,
    ) -> Result<Vec<T>, OrtcError> {
        let at = self.at.key(name);
        match self.truthy(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => objects(&at, values, max, read),
            Some(_) => Err(at.must("be an array")),
        }
    }

    /// As [`Self::list`], but must be there.
    pub(super) fn mandatory_list<T>(
        &self,
        name: &str,
        max: usize,
        read: impl Fn(&Object<'_>) -> Result<T, OrtcError>,
    ) -> Result<Vec<T>, OrtcError> {
        let at = self.at.key(name);
        match self.map.get(name) {
            Some(Value::Array(values)) => objects(&at, values, max, read),
            _ => Err(at.must("be an array")),
        }
    }
}

fn objects<T>(
    at: &At<'_>,
    values: &[Value],
    max: usize,
    read: impl Fn(&Object<'_>) -> Result<T, OrtcError>,
) -> Result<Vec<T>, OrtcError> {
    if values.len() > max {
        return Err(at.must(format_args!("have at most {max} elements")));
    }
    values
        .iter()
        .enumerate()
        .map(|(index, value)| read(&Object::of(at.index(index), value)?))
        .collect()
}

/// A whole number in `range`, whatever type of number JSON made of it but a fraction.
pub(super) fn number(
    at: &At<'_>,
    value: &Value,
    range: RangeInclusive<u64>,
) -> Result<u64, OrtcError> {
    let Value::Number(number) = value else { return Err(at.must("be a number")) };
    number.as_u64().filter(|number| range.contains(number)).ok_or_else(|| {
        at.must(format_args!("be a whole number from {} to {}", range.start(), range.end()))
    })
}

/// A string of at most `max` characters.
pub(super) fn string(at: &At<'_>, value: &Value, max: usize) -> Result<String, OrtcError> {
    let Value::String(text) = value else { return Err(at.must("be a string")) };
    if text.chars().nth(max).is_some() {
        return Err(at.must(format_args!("have at most {max} characters")));
    }
    Ok(text.clone())
}
