//! Where a setting's text comes from: the flag, else the first variable that is set, else the file.
//! Knows names and precedence; what a text means is [`super::values`]'.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::ConfigError;
use super::flags::Flags;

/// Every setting: its flag (and name in the file), and its variables in order of precedence.
pub(super) const SETTINGS: [(&str, &[&str]); 42] = [
    // FILES_SERVICE_APP_PORT gives only the port, and is read apart.
    ("api-listen", &["RINGCAST_API_LISTEN"]),
    ("allow-anonymous", &["RINGCAST_ALLOW_ANONYMOUS"]),
    ("api-keys", &["RINGCAST_API_KEYS"]),
    ("api-keys-file", &["RINGCAST_API_KEYS_FILE"]),
    ("open-metrics", &["RINGCAST_OPEN_METRICS"]),
    ("limits", &["RINGCAST_LIMITS"]),
    ("tls-cert", &["RINGCAST_TLS_CERT"]),
    ("tls-key", &["RINGCAST_TLS_KEY"]),
    ("api-connections", &["RINGCAST_API_CONNECTIONS"]),
    ("api-connections-per-address", &["RINGCAST_API_CONNECTIONS_PER_ADDRESS"]),
    ("trusted-proxies", &["RINGCAST_TRUSTED_PROXIES"]),
    ("docs-path", &["RINGCAST_DOCS_PATH", "SWAGGER_PATH"]),
    ("cors-origins", &["RINGCAST_CORS_ORIGINS"]),
    ("drain-timeout", &["RINGCAST_DRAIN_TIMEOUT"]),
    ("media-port", &["RINGCAST_MEDIA_PORT", "MEDIASOUP_RTC_MIN_PORT"]),
    ("media-listen", &["RINGCAST_MEDIA_LISTEN", "MEDIASOUP_LISTEN_IP"]),
    ("announce", &["RINGCAST_ANNOUNCE", "MEDIASOUP_ANNOUNCED_IP"]),
    ("video-codecs", &["RINGCAST_VIDEO_CODECS"]),
    ("ice-servers", &["RINGCAST_ICE_SERVERS"]),
    ("ice-servers-file", &["RINGCAST_ICE_SERVERS_FILE"]),
    ("media-udp", &["RINGCAST_MEDIA_UDP"]),
    ("media-tcp", &["RINGCAST_MEDIA_TCP"]),
    ("shards", &["RINGCAST_SHARDS", "MEDIASOUP_NUM_WORKERS"]),
    ("pin", &["RINGCAST_PIN"]),
    ("runtime", &["RINGCAST_RUNTIME"]),
    ("steer", &["RINGCAST_STEER"]),
    ("coalesce-us", &["RINGCAST_COALESCE_US"]),
    // KAFKA_HOST, KAFKA_EXTERNAL_PORT and KAFKA_IS_CONNECT are read apart.
    ("kafka-brokers", &["RINGCAST_KAFKA_BROKERS"]),
    ("kafka-tls", &["RINGCAST_KAFKA_TLS"]),
    ("kafka-ca", &["RINGCAST_KAFKA_CA"]),
    ("kafka-cert", &["RINGCAST_KAFKA_CERT"]),
    ("kafka-key", &["RINGCAST_KAFKA_KEY"]),
    ("kafka-mechanism", &["RINGCAST_KAFKA_MECHANISM"]),
    ("kafka-user", &["RINGCAST_KAFKA_USER", "KAFKA_CLIENT_USERS"]),
    ("kafka-password", &["RINGCAST_KAFKA_PASSWORD", "KAFKA_USER_PASSWORD"]),
    ("kafka-room-events-topic", &["RINGCAST_KAFKA_ROOM_EVENTS_TOPIC", "KAFKA_ROOM_EVENTS_TOPIC"]),
    ("webhook-url", &["RINGCAST_WEBHOOK_URL"]),
    ("webhook-secret", &["RINGCAST_WEBHOOK_SECRET"]),
    ("webhook-ca", &["RINGCAST_WEBHOOK_CA"]),
    ("spool-dir", &["RINGCAST_SPOOL_DIR", "STATE_DIRECTORY"]),
    ("log", &["RINGCAST_LOG"]),
    ("log-format", &["RINGCAST_LOG_FORMAT"]),
];

/// Names of variables that look like settings of this program and are none. Kubernetes gives each
/// container some for every service, and one may be named `ringcast`: those are nobody's mistake.
pub(crate) fn unknown_variables(
    names: impl IntoIterator<Item = String>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Vec<String> {
    let is_known = |name: &str| {
        name == "RINGCAST_CONFIG" || SETTINGS.iter().any(|(_, known)| known.contains(&name))
    };
    let ours = names.into_iter().filter(|name| name.starts_with("RINGCAST_"));
    let unknown = ours.filter(|name| !is_known(name) && !is_of_a_service(name, env(name)));
    let mut unknown: Vec<String> = unknown.collect();
    unknown.sort_unstable();
    unknown
}

/// `X_SERVICE_HOST`, `X_SERVICE_PORT…`, `X_PORT=tcp://…` and `X_PORT_6040_TCP…`.
fn is_of_a_service(name: &str, value: Option<String>) -> bool {
    let is_url = |text: String| text.split_once("://").is_some();
    let mut words = name.split('_').skip_while(|word| *word != "PORT").skip(1);
    let has_number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT") && value.is_some_and(is_url)
        || has_number && words.next().is_some_and(|word| matches!(word, "TCP" | "UDP" | "SCTP"))
}

/// What a file may say under this name means nothing: JSON has no comments.
pub(super) const COMMENT: &str = "//";

/// Where the value of a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line; the flag's name without dashes.
    Flag(&'static str),
    /// The environment; the variable's name.
    Variable(&'static str),
    /// A file; its path and the name in it.
    File(PathBuf, String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path, name) => write!(f, "{name} in {}", path.display()),
        }
    }
}

/// What a parser of one text says is wrong.
pub(super) type Parsed<T> = Result<T, String>;

/// All places that settings are looked up in.
pub(super) struct Sources<'a> {
    flags: Flags,
    env: &'a dyn Fn(&str) -> Option<String>,
    file: Option<(PathBuf, Map<String, Value>)>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(
        flags: Flags,
        env: &'a dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let path = flags.config.clone().or_else(|| env("RINGCAST_CONFIG").map(PathBuf::from));
        let file = match path.filter(|path| !path.as_os_str().is_empty()) {
            None => None,
            Some(path) => {
                let settings = read_file(&path)?;
                Some((path, settings))
            }
        };
        Ok(Self { flags, env, file })
    }

    /// True when the variable is set to anything but nothing.
    pub(super) fn has_variable(&self, name: &str) -> bool {
        self.text_of(name).is_some()
    }

    /// A setting with one value.
    pub(super) fn one<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Result<Option<T>, ConfigError> {
        Ok(self.one_with_origin(name, parse)?.map(|(value, _)| value))
    }

    /// A setting with one value, and where it came from.
    pub(super) fn one_with_origin<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Result<Option<(T, Origin)>, ConfigError> {
        let Some((texts, origin)) = self.texts(name)? else { return Ok(None) };
        let [text] = texts.as_slice() else {
            return Err(ConfigError::Invalid { origin, reason: "takes one value".to_owned() });
        };
        match parse(text.trim()) {
            Ok(value) => Ok(Some((value, origin))),
            Err(reason) => Err(ConfigError::Invalid { origin, reason }),
        }
    }

    /// A setting with several values, comma-separated in one text; repetitions are dropped. `None`
    /// when none is left.
    pub(super) fn many<T: PartialEq>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        Ok(self.many_with_origin(name, parse)?.map(|(values, _)| values))
    }

    /// The same, and where they came from.
    pub(super) fn many_with_origin<T: PartialEq>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Result<Option<(Vec<T>, Origin)>, ConfigError> {
        let Some((texts, origin)) = self.texts(name)? else { return Ok(None) };
        let mut values = Vec::new();
        for text in texts.iter().flat_map(|text| text.split(',')).map(str::trim) {
            if text.is_empty() {
                continue;
            }
            match parse(text) {
                Ok(value) if values.contains(&value) => {}
                Ok(value) => values.push(value),
                Err(reason) => return Err(ConfigError::Invalid { origin, reason }),
            }
        }
        Ok((!values.is_empty()).then_some((values, origin)))
    }

    /// One variable of the environment, outside the table of settings.
    pub(super) fn variable<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Result<Option<T>, ConfigError> {
        self.text_of(name)
            .map(|text| parse(text.trim()))
            .transpose()
            .map_err(|reason| ConfigError::Invalid { origin: Origin::Variable(name), reason })
    }

    /// Where the value of a setting of the table comes from; `None` when it is the default.
    ///
    /// # Errors
    /// When the file has something else than a value.
    pub(super) fn origin(&self, name: &'static str) -> Result<Option<Origin>, ConfigError> {
        Ok(self.texts(name)?.map(|(_, origin)| origin))
    }

    fn text_of(&self, variable: &str) -> Option<String> {
        (self.env)(variable).filter(|text| !text.trim().is_empty())
    }

    fn texts(&self, name: &'static str) -> Result<Option<(Vec<String>, Origin)>, ConfigError> {
        if let Some(texts) = self.flags.given(name) {
            return Ok(Some((texts, Origin::Flag(name))));
        }
        let variables = SETTINGS
            .iter()
            .find(|(setting, _)| *setting == name)
            .map_or(&[] as &[&str], |(_, variables)| variables);
        for variable in variables {
            if let Some(text) = self.text_of(variable) {
                return Ok(Some((vec![text], Origin::Variable(variable))));
            }
        }
        let Some((path, settings)) = &self.file else { return Ok(None) };
        let Some(value) = settings.get(name) else { return Ok(None) };
        let origin = Origin::File(path.clone(), name.to_owned());
        match texts_of(value) {
            Some(texts) => Ok(Some((texts, origin))),
            None => Err(ConfigError::Invalid {
                origin,
                reason: "must be a string, number, boolean or a list of them".to_owned(),
            }),
        }
    }
}

fn read_file(path: &Path) -> Result<Map<String, Value>, ConfigError> {
    let wrong = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let settings = match serde_json::from_str(&text) {
        Ok(Value::Object(settings)) => settings,
        Ok(_) => return Err(wrong("must be a JSON object".to_owned())),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let known =
        |name: &&String| *name == COMMENT || SETTINGS.iter().any(|(setting, _)| setting == name);
    match settings.keys().find(|name| !known(name)) {
        None => Ok(settings),
        Some(unknown) => {
            let known: Vec<&str> = SETTINGS.iter().map(|(setting, _)| *setting).collect();
            Err(wrong(format!("{unknown:?} is no setting; there are {}", known.join(", "))))
        }
    }
}

fn texts_of(value: &Value) -> Option<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    match value {
        Value::Array(values) => values.iter().map(one).collect(),
        value => one(value).map(|text| vec![text]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_means_nothing_is_found_and_those_of_kubernetes_are_not() {
        let names = [
            "RINGCAST_MEDIA_PROT",
            "RINGCAST_CONFIG",
            "RINGCAST_API_KEYS",
            "RINGCAST_SERVICE_HOST",
            "RINGCAST_SERVICE_PORT",
            "RINGCAST_SERVICE_PORT_API",
            "RINGCAST_PORT",
            "RINGCAST_PORT_6040_TCP",
            "RINGCAST_PORT_6040_TCP_ADDR",
            "RINGCAST_PORT_10000_UDP_PORT",
            "RINGCAST_METRICS_PORT",
            "RINGCAST_API_PORT",
            "RINGCAST_ANOUNCE",
            "MEDIASOUP_OTHER",
            "PATH",
        ];
        let env = |name: &str| match name {
            "RINGCAST_PORT" | "RINGCAST_METRICS_PORT" => Some("tcp://10.0.0.1:6040".to_owned()),
            _ => Some("6040".to_owned()),
        };
        let unknown = unknown_variables(names.map(str::to_owned), &env);
        assert_eq!(unknown, ["RINGCAST_ANOUNCE", "RINGCAST_API_PORT", "RINGCAST_MEDIA_PROT"]);
    }
}
