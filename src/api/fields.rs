//! A JSON object whose fields are taken out one by one, so that a refusal names the field.

use serde_json::{Map, Value};

use super::error::ApiError;
use crate::id::{PeerId, RoomId};
use crate::limits::SOURCE_CHARS_MAX;

/// A JSON object of a client. Fields that nobody asks for are ignored; `null` is absent.
#[derive(Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn new(map: Map<String, Value>) -> Self {
        Self(map)
    }

    /// A field that may be absent.
    pub(super) fn optional(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// A field that must be there.
    pub(super) fn required(&mut self, name: &str) -> Result<Value, ApiError> {
        self.optional(name).ok_or_else(|| ApiError::missing(name))
    }

    pub(super) fn string(&mut self, name: &str) -> Result<String, ApiError> {
        string(name, self.required(name)?)
    }

    pub(super) fn optional_string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.optional(name).map(|value| string(name, value)).transpose()
    }

    pub(super) fn optional_bool(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.optional(name)
            .map(|value| {
                value.as_bool().ok_or_else(|| ApiError::invalid(name, "must be a boolean"))
            })
            .transpose()
    }

    pub(super) fn optional_u64(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        self.optional(name)
            .map(|value| {
                value
                    .as_u64()
                    .ok_or_else(|| ApiError::invalid(name, "must be an integer, 0 or more"))
            })
            .transpose()
    }

    /// A layer's number. Those beyond 255 are as good as the highest.
    pub(super) fn optional_layer(&mut self, name: &str) -> Result<Option<u8>, ApiError> {
        let layer = self.optional_u64(name)?;
        Ok(layer.map(|layer| u8::try_from(layer).unwrap_or(u8::MAX)))
    }

    pub(super) fn room(&mut self) -> Result<RoomId, ApiError> {
        room_id("roomId", &self.string("roomId")?)
    }

    pub(super) fn peer(&mut self) -> Result<PeerId, ApiError> {
        peer_id("peerId", &self.string("peerId")?)
    }
}

fn string(name: &str, value: Value) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(ApiError::invalid(name, "must be a string")),
    }
}

/// A room's name, given in `field`.
pub(super) fn room_id(field: &str, text: &str) -> Result<RoomId, ApiError> {
    RoomId::try_from(text).map_err(|error| ApiError::invalid(field, &error.to_string()))
}

/// A peer's name, given in `field`.
pub(super) fn peer_id(field: &str, text: &str) -> Result<PeerId, ApiError> {
    PeerId::try_from(text).map_err(|error| ApiError::invalid(field, &error.to_string()))
}

/// What a producer is called besides its kind.
pub(super) fn source(text: String) -> Result<String, ApiError> {
    let printable = !text.chars().any(char::is_control);
    if text.is_empty() || !printable || text.chars().nth(SOURCE_CHARS_MAX).is_some() {
        let must = format!("must be 1 to {SOURCE_CHARS_MAX} printable characters");
        return Err(ApiError::invalid("source", &must));
    }
    Ok(text)
}
