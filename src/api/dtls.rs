//! `dtlsParameters` of a client → the one fingerprint that counts.

use serde_json::{Map, Value};

use super::error::{ApiError, Code};
use crate::control::{DtlsRequest, PeerCertificate};
use crate::limits::FINGERPRINTS_MAX;
use crate::sdp::fingerprint_bytes;

/// Reads `dtlsParameters`: of its fingerprints the first SHA-256 one.
pub(super) fn read(parameters: &Value) -> Result<DtlsRequest, ApiError> {
    let object = parameters
        .as_object()
        .ok_or_else(|| ApiError::invalid("dtlsParameters", "must be an object"))?;
    let remote_is_client = match object.get("role") {
        None | Some(Value::Null) => false,
        Some(Value::String(role)) if role == "client" => true,
        Some(Value::String(role)) if role == "auto" || role == "server" => false,
        Some(_) => {
            let must = "must be auto, client or server";
            return Err(ApiError::invalid("dtlsParameters.role", must));
        }
    };
    let fingerprints = match object.get("fingerprints") {
        None | Some(Value::Null) => return Err(ApiError::missing("dtlsParameters.fingerprints")),
        Some(Value::Array(list)) if (1..=FINGERPRINTS_MAX).contains(&list.len()) => list,
        Some(_) => {
            let must = format!("must be a list of 1 to {FINGERPRINTS_MAX} fingerprints");
            return Err(ApiError::invalid("dtlsParameters.fingerprints", &must));
        }
    };
    let mut chosen = None;
    for (index, fingerprint) in fingerprints.iter().enumerate() {
        let at = format!("dtlsParameters.fingerprints[{index}]");
        let object =
            fingerprint.as_object().ok_or_else(|| ApiError::invalid(&at, "must be an object"))?;
        let algorithm = text(object, &at, "algorithm")?;
        let value = text(object, &at, "value")?;
        if chosen.is_none() && algorithm.eq_ignore_ascii_case("sha-256") {
            let must = "must be 32 hexadecimal pairs with colons between them";
            let bytes = fingerprint_bytes(value)
                .ok_or_else(|| ApiError::invalid(&format!("{at}.value"), must))?;
            chosen = Some(bytes);
        }
    }
    let fingerprint = chosen.ok_or_else(|| {
        ApiError::new(Code::NotSupported, "dtlsParameters.fingerprints must contain a sha-256 one")
    })?;
    // Whoever speaks ORTC is a browser, or a library made of one.
    Ok(DtlsRequest { fingerprint, remote_is_client, certificate: PeerCertificate::Ecdsa })
}

fn text<'a>(object: &'a Map<String, Value>, at: &str, name: &str) -> Result<&'a str, ApiError> {
    match object.get(name) {
        None | Some(Value::Null) => Err(ApiError::missing(&format!("{at}.{name}"))),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(ApiError::invalid(&format!("{at}.{name}"), "must be a string")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pairs(byte: &str) -> String {
        vec![byte; 32].join(":")
    }

    #[test]
    fn the_first_sha_256_fingerprint_counts_and_the_role_says_who_begins() {
        let parameters = json!({ "role": "client", "fingerprints": [
            { "algorithm": "sha-1", "value": "whatever" },
            { "algorithm": "SHA-256", "value": pairs("aB") },
            { "algorithm": "sha-256", "value": pairs("00") },
        ]});
        let read = read(&parameters).unwrap();
        assert_eq!(
            read,
            DtlsRequest {
                fingerprint: [0xab; 32],
                remote_is_client: true,
                certificate: PeerCertificate::Ecdsa,
            }
        );
    }

    #[test]
    fn what_is_missing_or_mistyped_is_refused_by_name() {
        let good = json!({ "algorithm": "sha-256", "value": pairs("AA") });
        let too_many = vec![good.clone(); FINGERPRINTS_MAX + 1];
        for (parameters, code, names) in [
            (json!(7), Code::InvalidParameter, "dtlsParameters must"),
            (json!({}), Code::MissingParameter, "dtlsParameters.fingerprints"),
            (json!({ "fingerprints": [] }), Code::InvalidParameter, "fingerprints must"),
            (json!({ "fingerprints": too_many }), Code::InvalidParameter, "fingerprints must"),
            (json!({ "fingerprints": [1] }), Code::InvalidParameter, "fingerprints[0] must"),
            (
                json!({ "fingerprints": [good, { "algorithm": 5 }] }),
                Code::InvalidParameter,
                "fingerprints[1].algorithm",
            ),
            (
                json!({ "fingerprints": [{ "algorithm": "sha-256" }] }),
                Code::MissingParameter,
                "fingerprints[0].value",
            ),
            (
                json!({ "fingerprints": [{ "algorithm": "sha-256", "value": pairs("+A") }] }),
                Code::InvalidParameter,
                "fingerprints[0].value",
            ),
            (
                json!({ "fingerprints": [{ "algorithm": "sha-512", "value": "AA" }] }),
                Code::NotSupported,
                "sha-256",
            ),
            (json!({ "role": "boss" }), Code::InvalidParameter, "dtlsParameters.role"),
        ] {
            let error = read(&parameters).unwrap_err();
            assert_eq!(error.code, code, "{parameters}");
            assert!(error.message.contains(names), "{parameters}: {}", error.message);
        }
    }

    proptest! {
        #[test]
        fn fingerprints_survive_any_text(text in ".{0,120}") {
            let _ = fingerprint_bytes(&text);
        }
    }
}
