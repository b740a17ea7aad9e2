//! Settings of who may call the API, and how much of it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::sources::{Origin, Parsed, Sources};
use crate::access::{ApiKey, ApiKeys};
use crate::limits::{API_KEYS_FILE_BYTES_MAX, LimitSetting, Limits};

/// The file of keys, and those that are named beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysFile {
    /// One `id:secret` a line.
    pub path: PathBuf,
    beside: Vec<ApiKey>,
}

impl KeysFile {
    /// All keys, as at a start.
    ///
    /// # Errors
    /// One sentence without a secret.
    pub fn read(&self) -> Result<ApiKeys, String> {
        let mut keys = self.beside.clone();
        keys.extend(of_file(&self.path)?);
        ApiKeys::new(keys).map_err(|wrong| format!("{}: {wrong}", self.path.display()))
    }
}

/// The file that some of the keys come from.
pub(super) fn keys_file(sources: &Sources<'_>) -> Result<Option<KeysFile>, ConfigError> {
    let beside = sources.many("api-keys", key)?.unwrap_or_default();
    let path = sources.one("api-keys-file", |path| Ok(PathBuf::from(path)))?;
    Ok(path.map(|path| KeysFile { path, beside }))
}

/// What is to be said of a file of keys that every user of this host may read.
pub(super) fn open_keys(sources: &Sources<'_>) -> Result<Option<String>, ConfigError> {
    let path = sources.one("api-keys-file", |path| Ok(PathBuf::from(path)))?;
    let mode = |path: &PathBuf| std::fs::metadata(path).ok().map(|about| about.mode());
    let open = path.filter(|path| mode(path).is_some_and(|mode| mode & 0o004 != 0));
    Ok(open.map(|path| {
        let path = path.display();
        format!("every user of this host may read the API keys in {path}: chmod o-rwx {path}")
    }))
}

/// All keys, of the setting and of the file.
pub(super) fn keys(sources: &Sources<'_>) -> Result<ApiKeys, ConfigError> {
    let given = sources.many_with_origin("api-keys", key)?;
    let in_file = sources.one_with_origin("api-keys-file", |path| of_file(Path::new(path)))?;
    let origin = in_file.as_ref().map(|(_, origin)| origin.clone());
    let origin = origin.or_else(|| given.as_ref().map(|(_, origin)| origin.clone()));
    let Some(origin) = origin else { return Ok(ApiKeys::default()) };
    let mut keys = given.map(|(keys, _)| keys).unwrap_or_default();
    keys.extend(in_file.map(|(keys, _)| keys).unwrap_or_default());
    ApiKeys::new(keys).map_err(|wrong| invalid(origin, wrong.to_string()))
}

/// Whether nobody needs a key, which cannot be while there are some.
pub(super) fn allows_anonymous(sources: &Sources<'_>, keys: &ApiKeys) -> Result<bool, ConfigError> {
    match sources.one_with_origin("allow-anonymous", super::values::boolean)? {
        Some((true, origin)) if !keys.is_empty() => Err(ConfigError::NobodyNeedsKeys(origin)),
        Some((allowed, _)) => Ok(allowed),
        None => Ok(false),
    }
}

/// The default limits, and those that are set; of two for one thing the last counts.
pub(super) fn limits(sources: &Sources<'_>) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    let given = sources.many("limits", str::parse::<LimitSetting>)?;
    given.unwrap_or_default().into_iter().for_each(|setting| limits.set(setting));
    Ok(limits)
}

fn invalid(origin: Origin, reason: String) -> ConfigError {
    ConfigError::Invalid { origin, reason }
}

/// Not quoted when it is wrong: it may hold a secret.
fn key(text: &str) -> Parsed<ApiKey> {
    text.parse().map_err(|wrong: crate::access::KeyError| wrong.to_string())
}

/// One key a line; empty lines and those that begin with `#` say nothing. A file without any key
/// would open the API to everybody, which nobody means who names one.
fn of_file(path: &Path) -> Parsed<Vec<ApiKey>> {
    let cannot = |why: String| format!("cannot read {}: {why}", path.display());
    let length = std::fs::metadata(path).map_err(|error| cannot(super::unread(&error)))?.len();
    if length > API_KEYS_FILE_BYTES_MAX {
        return Err(cannot(format!("it has more than {API_KEYS_FILE_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| cannot(super::unread(&error)))?;
    let mut keys = Vec::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        keys.push(key(line).map_err(|why| format!("line {number} of {}: {why}", path.display()))?);
    }
    if keys.is_empty() {
        return Err(format!("{} has no key", path.display()));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use crate::config::{Config, ConfigError};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn config(args: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let args = std::iter::once("ringcast").chain(args.iter().copied()).map(OsString::from);
        let given = |name: &str| env.iter().find(|(known, _)| *known == name);
        Config::from_args(args, |name| given(name).map(|(_, value)| (*value).to_owned()))
    }

    /// A file that goes when the test ends.
    struct KeyFile(std::path::PathBuf);

    impl KeyFile {
        fn new(name: &str, text: &str) -> Self {
            let name = format!("ringcast-keys-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).unwrap();
            Self(path)
        }

        fn flag(&self) -> String {
            format!("--api-keys-file={}", self.0.display())
        }
    }

    impl Drop for KeyFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn keys_come_from_flags_the_environment_and_a_file_and_are_never_shown() {
        let (upper, digits) = (SECRET.to_uppercase(), "1".repeat(32));
        let file = KeyFile::new("all", &format!("# of the backend\n\n  b:{upper}  \nc:{digits}\n"));
        let flag = format!("--api-keys=a:{SECRET}");
        let configured = config(&[&flag, &file.flag()], &[]).unwrap();
        let ids: Vec<&str> = configured.api_keys.iter().map(|key| key.id()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(configured.api_keys.with_secret(&upper).unwrap().id(), "b");
        let shown = format!("{configured:?}");
        assert!(!shown.contains(SECRET) && !shown.contains(&upper), "{shown}");
        let path = file.0.to_str().unwrap();
        let several = format!("a:{SECRET}, d:{}", "2".repeat(32));
        let env = [("RINGCAST_API_KEYS", several.as_str()), ("RINGCAST_API_KEYS_FILE", path)];
        assert_eq!(config(&[], &env).unwrap().api_keys.iter().count(), 4);
    }

    #[test]
    fn an_open_api_must_be_asked_for() {
        for address in ["0.0.0.0:6040", "[::]:6040", "192.0.2.1:80", "[2001:db8::1]:80"] {
            let flag = format!("--api-listen={address}");
            let error = config(&[&flag], &[]).unwrap_err();
            assert!(matches!(error, ConfigError::Exposed(..)));
            let sentence = error.to_string();
            assert!(
                sentence.contains(address) && sentence.contains("--allow-anonymous"),
                "{sentence}"
            );
            let open = config(&[&flag, "--allow-anonymous"], &[]).unwrap();
            assert_eq!(open.api_listen, address.parse().unwrap());
            assert!(open.warnings[0].contains("--allow-anonymous"));
            assert!(config(&[&flag, "--allow-anonymous=false"], &[]).is_err());
            config(&[&flag], &[("MEDIASOUP_ANNOUNCED_IP", "192.0.2.1")]).unwrap();
        }
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1"] {
            assert_eq!(config(&["--api-listen", address], &[]).unwrap().warnings, [""; 0]);
        }
        let variable =
            config(&[], &[("RINGCAST_API_LISTEN", "0.0.0.0:1")]).unwrap_err().to_string();
        assert!(variable.contains("from RINGCAST_API_LISTEN"), "{variable}");
    }

    #[test]
    fn an_api_with_keys_may_listen_anywhere() {
        let keys = format!("--api-keys=a:{SECRET}");
        let anywhere = config(&[&keys, "--api-listen=0.0.0.0:6040"], &[]).unwrap();
        assert_eq!(anywhere.api_listen, "0.0.0.0:6040".parse().unwrap());
        let [clear] = anywhere.warnings.as_slice() else { panic!("{:?}", anywhere.warnings) };
        assert!(clear.contains("without TLS") && clear.contains("--tls-cert"), "{clear}");
        for near in ["127.0.0.1:1", "10.0.0.7:1", "[fd00::1]:1"] {
            let near = config(&[&keys, "--api-listen", near], &[]).unwrap();
            assert_eq!(near.warnings, [""; 0], "{near:?}");
        }
        let tls = ["--tls-cert=/c", "--tls-key=/k", "--api-listen=[::]:1", &keys];
        assert_eq!(config(&tls, &[]).unwrap().warnings, [""; 0]);
        let replacing = config(&[&keys], &[("FILES_SERVICE_APP_PORT", "1")]).unwrap();
        assert_eq!(replacing.api_listen, "[::]:1".parse().unwrap());
        assert_eq!(replacing.warnings.len(), 1, "it has credentials, in the clear");
        assert!(config(&[&keys], &[]).unwrap().api_listen.ip().is_loopback());
        let both = config(&[&keys, "--allow-anonymous"], &[]).unwrap_err().to_string();
        assert!(both.contains("--allow-anonymous says that nobody needs an API key"), "{both}");
        config(&[&keys, "--allow-anonymous=false"], &[]).unwrap();
    }

    #[test]
    fn wrong_keys_are_refused_by_place_and_without_their_text() {
        let line = KeyFile::new("line", &format!("a:{SECRET}\nb:tooshort{SECRET}!\n"));
        let none = KeyFile::new("none", "# to come\n");
        let twice = KeyFile::new("twice", &format!("a:{SECRET}\nb:{SECRET}\n"));
        for (args, words) in [
            (vec!["--api-keys=sesame".to_owned()], "--api-keys: a key is written as id:secret"),
            (vec![format!("--api-keys=a:{SECRET},a:{}", "x".repeat(32))], "the same id"),
            (vec![line.flag()], "line 2 of "),
            (vec![none.flag()], "has no key"),
            (vec![twice.flag()], "the same secret"),
            (vec![format!("--api-keys=z:{SECRET}"), line.flag()], "--api-keys-file: line 2"),
            (vec!["--api-keys-file=/nowhere/keys".to_owned()], "cannot read /nowhere/keys"),
        ] {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let sentence = config(&args, &[]).unwrap_err().to_string();
            assert!(sentence.contains(words), "{args:?}: {sentence}");
            assert!(!sentence.contains(SECRET) && !sentence.contains("sesame"), "{sentence}");
        }
    }
}
