//! H264 `profile-level-id` (RFC 6184 §8.1): same profile or not, and the level of the answer.
//! Pure; called by codec matching only. Does not know `packetization-mode`, and invents nothing: an
//! id that names no known profile and level matches nothing.

use serde_json::{Map, Value};

/// Profiles that WebRTC tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    PredictiveHigh444,
}

/// `profile_idc`, mask and wanted bits of the flags byte, and the profile they name; first hit.
const PATTERNS: [(u8, u8, u8, Profile); 9] = [
    (0x42, 0b0100_1111, 0b0100_0000, Profile::ConstrainedBaseline),
    (0x4d, 0b1000_1111, 0b1000_0000, Profile::ConstrainedBaseline),
    (0x58, 0b1100_1111, 0b1100_0000, Profile::ConstrainedBaseline),
    (0x42, 0b0100_1111, 0b0000_0000, Profile::Baseline),
    (0x58, 0b1100_1111, 0b1000_0000, Profile::Baseline),
    (0x4d, 0b1010_1111, 0b0000_0000, Profile::Main),
    (0x64, 0b1111_1111, 0b0000_0000, Profile::High),
    (0x64, 0b1111_1111, 0b0000_1100, Profile::ConstrainedHigh),
    (0xf4, 0b1111_1111, 0b0000_0000, Profile::PredictiveHigh444),
];

/// A level, ordered: 1 < 1b < 1.1 < … < 5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Level 1, `level_idc` 10.
    One,
    /// Level 1b: `level_idc` 11 with constraint_set3.
    OneB,
    /// Any other level, by `level_idc`.
    Idc(u8),
}

/// `level_idc` above 1b that exist.
const LEVELS: [u8; 15] = [11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52];

/// The flag that turns level 1.1 into 1b.
const CONSTRAINT_SET3: u8 = 0x10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProfileLevelId {
    profile: Profile,
    level: Level,
}

/// RFC 6184's default profile with the level that browsers assume (3.1).
const DEFAULT: ProfileLevelId =
    ProfileLevelId { profile: Profile::ConstrainedBaseline, level: Level::Idc(31) };

impl ProfileLevelId {
    fn parse(text: &str) -> Option<Self> {
        if text.len() != 6 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let [_, idc, flags, level] = u32::from_str_radix(text, 16).ok()?.to_be_bytes();
        let profile = PATTERNS
            .iter()
            .find(|(pattern_idc, mask, bits, _)| *pattern_idc == idc && flags & mask == *bits)
            .map(|&(.., profile)| profile)?;
        let level = match level {
            10 => Level::One,
            11 if flags & CONSTRAINT_SET3 != 0 => Level::OneB,
            level if LEVELS.contains(&level) => Level::Idc(level),
            _ => return None,
        };
        Some(Self { profile, level })
    }

    /// The id in codec parameters; absent (or empty) means the default.
    fn of(parameters: &Map<String, Value>) -> Option<Self> {
        match parameters.get("profile-level-id") {
            None => Some(DEFAULT),
            Some(Value::String(text)) if text.is_empty() => Some(DEFAULT),
            Some(Value::String(text)) => Self::parse(text),
            Some(_) => None,
        }
    }

    /// Six hex digits; `None` for level 1b of a profile that has no such level.
    fn text(self) -> Option<String> {
        let level = match self.level {
            Level::One => 10,
            Level::Idc(level) => level,
            Level::OneB => {
                return match self.profile {
                    Profile::ConstrainedBaseline => Some("42f00b".to_owned()),
                    Profile::Baseline => Some("42100b".to_owned()),
                    Profile::Main => Some("4d100b".to_owned()),
                    _ => None,
                };
            }
        };
        let prefix = match self.profile {
            Profile::ConstrainedBaseline => "42e0",
            Profile::Baseline => "4200",
            Profile::Main => "4d00",
            Profile::ConstrainedHigh => "640c",
            Profile::High => "6400",
            Profile::PredictiveHigh444 => "f400",
        };
        Some(format!("{prefix}{level:02x}"))
    }
}

/// The `profile-level-id` that answers `remote` for `local`, when their profiles are the same.
///
/// `None`: they do not match. `Some(None)`: they match and neither names an id, so the answer has
/// none. The level is the local one when both allow asymmetry, else the lower of the two.
pub(super) fn answer(
    local: &Map<String, Value>,
    remote: &Map<String, Value>,
) -> Option<Option<String>> {
    let local_id = ProfileLevelId::of(local)?;
    let remote_id = ProfileLevelId::of(remote)?;
    if local_id.profile != remote_id.profile {
        return None;
    }
    if !has_id(local) && !has_id(remote) {
        return Some(None);
    }
    let asymmetric = allows_asymmetry(local) && allows_asymmetry(remote);
    let level = if asymmetric { local_id.level } else { local_id.level.min(remote_id.level) };
    Some(ProfileLevelId { profile: local_id.profile, level }.text())
}

fn has_id(parameters: &Map<String, Value>) -> bool {
    parameters.get("profile-level-id").is_some_and(|id| id.as_str() != Some(""))
}

/// True for the number 1, the string `1` and `true`.
fn allows_asymmetry(parameters: &Map<String, Value>) -> bool {
    match parameters.get("level-asymmetry-allowed") {
        Some(Value::Number(number)) => number.as_f64() == Some(1.0),
        Some(Value::String(text)) => text == "1",
        Some(Value::Bool(allowed)) => *allowed,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parameters(id: &str, asymmetry: Value) -> Map<String, Value> {
        let mut parameters = Map::new();
        if !id.is_empty() {
            parameters.insert("profile-level-id".to_owned(), json!(id));
        }
        parameters.insert("level-asymmetry-allowed".to_owned(), asymmetry);
        parameters
    }

    #[test]
    fn an_id_names_its_profile_and_level() {
        use Profile::{
            Baseline, ConstrainedBaseline, ConstrainedHigh, High, Main, PredictiveHigh444,
        };
        let table = [
            ("42e01f", Some((ConstrainedBaseline, Level::Idc(31)))),
            ("42E01F", Some((ConstrainedBaseline, Level::Idc(31)))),
            ("42f00b", Some((ConstrainedBaseline, Level::OneB))),
            ("42c02a", Some((ConstrainedBaseline, Level::Idc(42)))),
            ("4de01f", Some((ConstrainedBaseline, Level::Idc(31)))),
            ("58f01f", Some((ConstrainedBaseline, Level::Idc(31)))),
            ("42a01f", Some((Baseline, Level::Idc(31)))),
            ("42100b", Some((Baseline, Level::OneB))),
            ("42000b", Some((Baseline, Level::Idc(11)))),
            ("58a01f", Some((Baseline, Level::Idc(31)))),
            ("4d401f", Some((Main, Level::Idc(31)))),
            ("4d100b", Some((Main, Level::OneB))),
            ("64001f", Some((High, Level::Idc(31)))),
            ("640c34", Some((ConstrainedHigh, Level::Idc(52)))),
            ("f4000a", Some((PredictiveHigh444, Level::One))),
            ("64100b", None),
            ("42e00f", None),
            ("42e01", None),
            ("42e01f0", None),
            ("42e01g", None),
            ("+42e01", None),
            ("000000", None),
            ("65001f", None),
        ];
        for (text, expected) in table {
            let parsed = ProfileLevelId::parse(text).map(|id| (id.profile, id.level));
            assert_eq!(parsed, expected, "{text}");
        }
    }

    #[test]
    fn the_answer_has_the_lower_level_unless_both_allow_asymmetry() {
        let yes = json!(1);
        let no = json!(0);
        let table = [
            ("42e01f", &yes, "42e034", &yes, Some(Some("42e01f"))),
            ("42e034", &yes, "42e01f", &yes, Some(Some("42e034"))),
            ("42e034", &yes, "42e01f", &no, Some(Some("42e01f"))),
            ("42e034", &no, "42e01f", &yes, Some(Some("42e01f"))),
            ("42f00b", &no, "42e00b", &no, Some(Some("42f00b"))),
            ("42f00b", &no, "42e00a", &no, Some(Some("42e00a"))),
            ("42c01f", &no, "42e01f", &no, Some(Some("42e01f"))),
            ("", &no, "42e034", &no, Some(Some("42e01f"))),
            ("", &yes, "", &yes, Some(None)),
            ("", &yes, "64001f", &yes, None),
            ("640c1f", &yes, "64001f", &yes, None),
            ("42001f", &yes, "42e01f", &yes, None),
            ("nonsens", &yes, "42e01f", &yes, None),
            ("42e01f", &yes, "zzzzzz", &yes, None),
        ];
        for (local, local_asymmetry, remote, remote_asymmetry, expected) in table {
            let answer = answer(
                &parameters(local, local_asymmetry.clone()),
                &parameters(remote, remote_asymmetry.clone()),
            );
            assert_eq!(
                answer,
                expected.map(|id| id.map(str::to_owned)),
                "{local} {local_asymmetry} / {remote} {remote_asymmetry}"
            );
        }
    }

    #[test]
    fn asymmetry_may_be_a_number_or_a_string_or_true() {
        let table = [
            (json!(1), true),
            (json!("1"), true),
            (json!(true), true),
            (json!(0), false),
            (json!("true"), false),
            (json!(2), false),
        ];
        for (value, expected) in table {
            assert_eq!(allows_asymmetry(&parameters("", value.clone())), expected, "{value}");
        }
    }

    #[test]
    fn an_id_that_is_a_number_matches_nothing() {
        let mut number = Map::new();
        number.insert("profile-level-id".to_owned(), json!(420_029));
        assert_eq!(answer(&number, &Map::new()), None);
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_round_trips(text in "[0-9a-f]{6}|\\PC{0,8}") {
            if let Some(id) = ProfileLevelId::parse(&text) {
                let text = id.text().expect("a parsed id has a text");
                prop_assert_eq!(ProfileLevelId::parse(&text), Some(id));
            }
        }
    }
}
