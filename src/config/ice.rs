//! Settings of the STUN and TURN servers that clients are told of.
//!
//! URLs that need no credentials are a setting; whatever needs some is in a file, as the list that a
//! browser's `RTCPeerConnection` takes, so that no command line shows a secret.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::sources::{Parsed, Sources};
use super::{ConfigError, Secret, values};
use crate::limits::{
    ICE_SERVER_TEXT_CHARS_MAX, ICE_SERVER_URLS_MAX, ICE_SERVERS_FILE_BYTES_MAX, ICE_SERVERS_MAX,
};

/// A server that helps clients to be reached, or to reach this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:`, `stuns:`, `turn:` and `turns:` (RFC 7064, RFC 7065); never empty.
    pub urls: Vec<String>,
    /// There when one of them is TURN, which asks for some.
    pub credentials: Option<IceCredentials>,
}

/// What a TURN server asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IceCredentials {
    /// The same for everybody, for ever.
    Fixed {
        /// The name.
        username: String,
        /// Its password.
        credential: Secret,
    },
    /// Made for each client, from a secret that the TURN server shares (coturn's
    /// `static-auth-secret`).
    TimeLimited {
        /// What follows the time in the name, if anything.
        username: Option<String>,
        /// What names are signed with.
        secret: Secret,
    },
}

impl IceServer {
    /// Whether this URL asks for credentials.
    #[must_use]
    pub fn asks(url: &str) -> bool {
        let scheme = url.split(':').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case("turn") || scheme.eq_ignore_ascii_case("turns")
    }
}

/// Where the servers come from, and which they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IceConfig {
    /// URLs of the setting.
    pub(super) urls: Vec<String>,
    /// The file of the others.
    pub(super) file: Option<PathBuf>,
    /// All of them.
    pub servers: Vec<IceServer>,
}

impl IceConfig {
    /// Servers without credentials, by their URLs.
    pub(super) fn of_given(urls: Vec<String>) -> Self {
        let one = |url: &String| IceServer { urls: vec![url.clone()], credentials: None };
        let servers = urls.iter().map(one).collect();
        Self { urls, file: None, servers }
    }

    pub(super) fn of(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let given = sources.many_with_origin("ice-servers", free)?;
        let in_file =
            sources.one_with_origin("ice-servers-file", |path| of_file(Path::new(path)))?;
        let file = sources.one("ice-servers-file", |path| Ok(PathBuf::from(path)))?;
        let origin = given.as_ref().map(|(_, origin)| origin.clone());
        let origin = origin.or_else(|| in_file.as_ref().map(|(_, origin)| origin.clone()));
        let mut all = Self::of_given(given.map(|(urls, _)| urls).unwrap_or_default());
        all.file = file;
        let in_file = in_file.map(|(servers, _)| servers).unwrap_or_default();
        match (all.with(in_file), origin) {
            (Err(reason), Some(origin)) => return Err(ConfigError::Invalid { origin, reason }),
            (servers, _) => all.servers = servers.unwrap_or_default(),
        }
        Ok(all)
    }

    /// Those of the setting, and these.
    fn with(&self, in_file: Vec<IceServer>) -> Parsed<Vec<IceServer>> {
        let mut all = Self::of_given(self.urls.clone()).servers;
        all.extend(in_file);
        if all.len() > ICE_SERVERS_MAX {
            return Err(format!("more than {ICE_SERVERS_MAX} servers are too many"));
        }
        Ok(all)
    }

    /// Whether some come from a file, which may change.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// All servers again, as at a start.
    ///
    /// # Errors
    /// One sentence without a secret.
    pub fn read(&self) -> Result<Vec<IceServer>, String> {
        let in_file = self.file.as_deref().map(of_file).transpose()?;
        self.with(in_file.unwrap_or_default())
    }
}

/// A URL of a server that asks for nothing.
fn free(text: &str) -> Parsed<String> {
    let url = url(text)?;
    if IceServer::asks(&url) {
        let needs = "needs credentials: name it in the file of --ice-servers-file";
        return Err(format!("{text:?} {needs}"));
    }
    Ok(url)
}

/// RFC 7064 §3.1 and RFC 7065 §3.1.
fn url(text: &str) -> Parsed<String> {
    let (server, transport) = match text.split_once("?transport=") {
        Some((server, transport)) => (server, Some(transport.to_ascii_lowercase())),
        None => (text, None),
    };
    let (scheme, authority) = server.split_once(':').unwrap_or_default();
    let good = match scheme.to_ascii_lowercase().as_str() {
        "stun" | "stuns" => transport.is_none(),
        "turn" | "turns" => transport.is_none_or(|it| matches!(it.as_str(), "udp" | "tcp")),
        _ => false,
    };
    if good && text.len() <= ICE_SERVER_TEXT_CHARS_MAX && values::is_authority(authority) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is no STUN or TURN server, such as stun:stun.example.org:3478 or \
         turn:turn.example.org:3478?transport=udp"
    ))
}

/// One entry of the file, as a browser takes it, and `secret`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    urls: Urls,
    username: Option<String>,
    credential: Option<String>,
    credential_type: Option<String>,
    secret: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Urls {
    One(String),
    Many(Vec<String>),
}

fn of_file(path: &Path) -> Parsed<Vec<IceServer>> {
    let wrong = |why: String| format!("cannot use {}: {why}", path.display());
    let about = std::fs::metadata(path).map_err(|error| wrong(super::unread(&error)))?;
    if about.len() > ICE_SERVERS_FILE_BYTES_MAX {
        return Err(wrong(format!("it has more than {ICE_SERVERS_FILE_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(super::unread(&error)))?;
    // What the parser says may quote a secret that stands where it should not.
    let shape = "it must be a JSON list of {\"urls\", and for turn: \"username\" with \
                 \"credential\", or \"secret\"}";
    let entries: Vec<Entry> = serde_json::from_str(&text).map_err(|error| {
        wrong(format!("line {}, column {}: {shape}", error.line(), error.column()))
    })?;
    let numbered = entries.into_iter().zip(1..);
    numbered
        .map(|(entry, number)| {
            server(entry).map_err(|why| wrong(format!("server {number}: {why}")))
        })
        .collect()
}

fn server(entry: Entry) -> Parsed<IceServer> {
    let urls = match entry.urls {
        Urls::One(url) => vec![url],
        Urls::Many(urls) => urls,
    };
    if !(1..=ICE_SERVER_URLS_MAX).contains(&urls.len()) {
        return Err(format!("urls: must be 1 to {ICE_SERVER_URLS_MAX}"));
    }
    let urls: Parsed<Vec<String>> =
        urls.iter().map(|text| url(text).map_err(|why| format!("urls: {why}"))).collect();
    let urls = urls?;
    if entry.credential_type.is_some_and(|kind| kind != "password") {
        return Err("credentialType: only password is known".to_owned());
    }
    let username = entry.username.map(|text| printable("username", text)).transpose()?;
    let credential = entry.credential.map(|text| printable("credential", text)).transpose()?;
    let secret = entry.secret.map(|text| printable("secret", text)).transpose()?;
    let credentials = match (username, credential, secret) {
        (Some(username), Some(credential), None) => {
            let credential = Secret::new(credential);
            Some(IceCredentials::Fixed { username, credential })
        }
        (username, None, Some(secret)) => {
            Some(IceCredentials::TimeLimited { username, secret: Secret::new(secret) })
        }
        (None, None, None) => None,
        (_, Some(_), Some(_)) => return Err("has both credential and secret".to_owned()),
        (None, Some(_), None) => return Err("credential: needs username as well".to_owned()),
        (Some(_), None, None) => {
            return Err("username: needs credential or secret as well".to_owned());
        }
    };
    let asks = urls.iter().any(|url| IceServer::asks(url));
    match (asks, &credentials) {
        (true, None) => Err("a turn: URL needs username and credential, or secret".to_owned()),
        (false, Some(_)) => Err("has credentials, and no turn: URL that asks for any".to_owned()),
        _ => Ok(IceServer { urls, credentials }),
    }
}

/// It travels in a header. Not quoted when it is wrong: it may be secret.
fn printable(name: &str, text: String) -> Parsed<String> {
    let good = (1..=ICE_SERVER_TEXT_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let must =
        format!("{name}: must be 1 to {ICE_SERVER_TEXT_CHARS_MAX} printable ASCII characters");
    if good { Ok(text) } else { Err(must) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct IceFile(PathBuf);

    impl IceFile {
        fn new(name: &str, text: &str) -> Self {
            let name = format!("ringcast-ice-{}-{name}.json", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).unwrap();
            Self(path)
        }
    }

    impl Drop for IceFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn urls_are_those_of_the_two_rfcs() {
        for good in [
            "stun:stun.example.org",
            "stun:192.0.2.1:3478",
            "stuns:[2001:db8::1]:5349",
            "turn:turn.example.org?transport=tcp",
            "TURNS:turn.example.org:443?transport=udp",
        ] {
            assert_eq!(url(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "stun.example.org",
            "stun:",
            "stun:a b",
            "stun://stun.example.org",
            "stun:user@host",
            "stun:h:0",
            "stun:h?transport=udp",
            "turn:h?transport=sctp",
            "turn:h?x=y",
            "http:h",
            "stun:h>; rel=x",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
        assert!(free("turn:h").unwrap_err().contains("--ice-servers-file"));
    }

    #[test]
    fn the_file_is_the_list_that_browsers_take() {
        let file = IceFile::new(
            "good",
            r#"[{"urls": "stun:a"}, {"urls": ["turn:b", "stun:b"], "username": "u",
                "credential": "p", "credentialType": "password"}, {"urls": "turns:c",
                "secret": "s"}]"#,
        );
        let servers = of_file(&file.0).unwrap();
        assert_eq!(servers.len(), 3);
        assert_eq!(servers[0], IceServer { urls: vec!["stun:a".to_owned()], credentials: None });
        let (username, credential) = ("u".to_owned(), Secret::new("p"));
        let fixed = IceCredentials::Fixed { username, credential };
        assert_eq!(servers[1].credentials, Some(fixed));
        let limited = IceCredentials::TimeLimited { username: None, secret: Secret::new("s") };
        assert_eq!(servers[2].credentials, Some(limited));
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_with_the_entry_and_without_its_secrets() {
        for (number, (text, words)) in [
            ("[", "line 1"),
            ("{}", "JSON list"),
            (r#"[{"urls": "stun:a", "password": "sesame"}]"#, "JSON list"),
            (r#"[{"urls": []}]"#, "server 1: urls"),
            (r#"[{"urls": "stun:a"}, {"urls": "nonsense"}]"#, "server 2: urls: \"nonsense\""),
            (r#"[{"urls": "turn:a"}]"#, "needs username and credential, or secret"),
            (r#"[{"urls": "stun:a", "secret": "sesame"}]"#, "no turn: URL"),
            (r#"[{"urls": "turn:a", "credential": "sesame"}]"#, "credential: needs username"),
            (r#"[{"urls": "turn:a", "username": "u"}]"#, "username: needs credential"),
            (
                r#"[{"urls": "turn:a", "username": "u", "credential": "sesame", "secret": "x"}]"#,
                "both credential and secret",
            ),
            (r#"[{"urls": "turn:a", "secret": "sesame\n"}]"#, "secret: must be"),
            (
                r#"[{"urls": "turn:a", "username": "u", "credential": "sesame",
                "credentialType": "oauth"}]"#,
                "credentialType",
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let file = IceFile::new(&format!("bad{number}"), text);
            let why = of_file(&file.0).unwrap_err();
            assert!(why.contains(words) && !why.contains("sesame"), "{why} / {words}");
        }
    }
}
