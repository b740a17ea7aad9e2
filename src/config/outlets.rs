//! Settings of what goes out of the node beside media: Kafka and webhooks.

use std::fmt;
use std::path::PathBuf;

use super::sources::{Origin, Parsed, Sources};
use super::{ConfigError, values};

/// Kafka's port when the replaced service's variables name none.
const KAFKA_PORT: u16 = 9092;

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one who needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// How a user's password is proven to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KafkaMechanism {
    /// It is told (RFC 4616).
    #[default]
    Plain,
    /// It is not (RFC 7677).
    ScramSha256,
    /// The same with a longer hash.
    ScramSha512,
}

impl KafkaMechanism {
    /// As Kafka calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// How the way to Kafka is secured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KafkaSecurity {
    /// By TLS, with the names of brokers checked.
    pub tls: bool,
    /// PEM file of the roots that brokers are trusted by; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of a certificate that is shown to brokers, with its chain, and of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// How the password is proven, where there is a user.
    pub mechanism: KafkaMechanism,
}

/// Where Kafka is, and as whom to write to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port` of the first brokers to ask; never empty.
    pub brokers: Vec<String>,
    /// Name and password for SASL, where brokers ask for them.
    pub credentials: Option<(String, Secret)>,
    /// How the way there is secured.
    pub security: KafkaSecurity,
    /// Topic of the whole log of every room; `None` sends only the replaced service's messages.
    pub room_events_topic: Option<String>,
}

/// Where room events are posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// `http` or `https`; hidden, because receivers put tokens into paths.
    pub url: Secret,
    /// What deliveries are signed with.
    pub secret: Secret,
    /// The file of certificates that it is trusted by; `None`: the web's.
    pub ca: Option<PathBuf>,
}

/// All outlets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutletsConfig {
    /// Kafka, if wanted.
    pub kafka: Option<KafkaConfig>,
    /// A webhook, if wanted.
    pub webhook: Option<WebhookConfig>,
    /// Folder for what cannot be delivered yet; `None` keeps it in memory alone.
    pub spool_dir: Option<PathBuf>,
    /// Sentences to log at start.
    pub(super) warnings: Vec<String>,
}

impl OutletsConfig {
    pub(super) fn of(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let mut warnings = Vec::new();
        let kafka = kafka(sources, &mut warnings)?;
        let webhook = webhook(sources)?;
        let spool_dir = sources.one("spool-dir", |text| Ok(PathBuf::from(text)))?;
        if (kafka.is_some() || webhook.is_some()) && spool_dir.is_none() {
            warnings.push(
                "without --spool-dir, events that cannot be delivered wait in memory alone: they \
                 are lost beyond 10,000, and at a restart or a crash"
                    .to_owned(),
            );
        }
        Ok(Self { kafka, webhook, spool_dir, warnings })
    }
}

fn kafka(
    sources: &Sources<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<KafkaConfig>, ConfigError> {
    let brokers = match sources.many("kafka-brokers", broker)? {
        Some(brokers) => Some(brokers),
        None => replaced_services_broker(sources, warnings)?.map(|broker| vec![broker]),
    };
    // Read in any case, so that a mistake is told at once.
    let user = sources.one("kafka-user", text)?;
    let password = sources.secret("kafka-password", text)?;
    let security = kafka_security(sources)?;
    let room_events_topic = sources.one("kafka-room-events-topic", topic)?;
    let Some(brokers) = brokers else { return Ok(None) };
    let credentials = match (user, password) {
        (Some(user), Some((password, _))) => Some((user, password)),
        (None, None) => None,
        (Some(_), None) => {
            let password =
                "kafka-password (which `ringcast config` does not print: RINGCAST_KAFKA_PASSWORD)";
            return Err(ConfigError::Missing("kafka-user", password));
        }
        (None, Some((_, origin))) => {
            let reason = "needs --kafka-user as well".to_owned();
            return Err(ConfigError::Invalid { origin, reason });
        }
    };
    Ok(Some(KafkaConfig { brokers, credentials, security, room_events_topic }))
}

fn kafka_security(sources: &Sources<'_>) -> Result<KafkaSecurity, ConfigError> {
    let tls = sources.one("kafka-tls", values::boolean)?.unwrap_or_default();
    let ca = sources.one("kafka-ca", |path| Ok(PathBuf::from(path)))?;
    if ca.is_some() && !tls {
        return Err(ConfigError::Missing("kafka-ca", "kafka-tls"));
    }
    let cert = sources.one("kafka-cert", |path| Ok(PathBuf::from(path)))?;
    let key = sources.one("kafka-key", |path| Ok(PathBuf::from(path)))?;
    let identity = match (cert, key) {
        (Some(_), None) => return Err(ConfigError::Missing("kafka-cert", "kafka-key")),
        (None, Some(_)) => return Err(ConfigError::Missing("kafka-key", "kafka-cert")),
        (Some(_), Some(_)) if !tls => return Err(ConfigError::Missing("kafka-cert", "kafka-tls")),
        (cert, key) => cert.zip(key),
    };
    let mechanism = sources.one("kafka-mechanism", mechanism)?.unwrap_or_default();
    Ok(KafkaSecurity { tls, ca, identity, mechanism })
}

fn mechanism(text: &str) -> Parsed<KafkaMechanism> {
    use KafkaMechanism::{Plain, ScramSha256, ScramSha512};
    let all = [Plain, ScramSha256, ScramSha512];
    let found = all.into_iter().find(|known| known.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("{text:?} is none of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512"))
}

/// `KAFKA_HOST:KAFKA_EXTERNAL_PORT`, where `KAFKA_IS_CONNECT` says so.
fn replaced_services_broker(
    sources: &Sources<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<String>, ConfigError> {
    // That service took anything but `true` for no; so must not fail here what ran there.
    let connect = sources.variable("KAFKA_IS_CONNECT", |text| {
        Ok(values::boolean(text).map_err(|_| text.to_owned()))
    })?;
    match connect {
        None | Some(Ok(false)) => return Ok(None),
        Some(Err(odd)) => {
            warnings.push(format!(
                "KAFKA_IS_CONNECT is neither true nor false ({odd:?}): Kafka is off"
            ));
            return Ok(None);
        }
        Some(Ok(true)) => {}
    }
    let port = sources.variable("KAFKA_EXTERNAL_PORT", values::port)?.unwrap_or(KAFKA_PORT);
    let with_port = |host: &str| match broker(host) {
        Ok(broker) => Ok(broker),
        Err(_) => broker(&format!("{host}:{port}")),
    };
    match sources.variable("KAFKA_HOST", with_port)? {
        Some(broker) => Ok(Some(broker)),
        None => Err(ConfigError::Missing("KAFKA_IS_CONNECT", "KAFKA_HOST")),
    }
}

fn webhook(sources: &Sources<'_>) -> Result<Option<WebhookConfig>, ConfigError> {
    let url = sources.secret("webhook-url", webhook_url)?;
    let secret = sources.secret("webhook-secret", text)?;
    let ca = sources.one("webhook-ca", |text| Ok(PathBuf::from(text)))?;
    match (url, secret) {
        (Some((url, _)), Some((secret, _))) => Ok(Some(WebhookConfig { url, secret, ca })),
        (None, _) => Ok(None),
        (Some(_), None) => Err(ConfigError::Missing("webhook-url", "webhook-secret")),
    }
}

/// Not quoted when it is wrong: it may be secret.
fn text(text: &str) -> Parsed<String> {
    match text {
        "" => Err("must not be empty".to_owned()),
        odd if odd.chars().any(char::is_control) => Err("has control characters".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// Host and port.
fn broker(text: &str) -> Parsed<String> {
    let good = text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare = !host.is_empty() && (!host.contains(':') || host.starts_with('['));
        let name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        bare && host.bytes().all(name) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if good { Ok(text.to_owned()) } else { Err(format!("{text:?} is no host and port")) }
}

/// A name that Kafka takes: up to 249 letters, digits, `.`, `_` and `-`.
fn topic(text: &str) -> Parsed<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let good =
        (1..=249).contains(&text.len()) && text.bytes().all(legal) && !matches!(text, "." | "..");
    if good { Ok(text.to_owned()) } else { Err(format!("{text:?} is no topic of Kafka")) }
}

/// Not quoted when it is wrong: it may hold a token.
fn webhook_url(text: &str) -> Parsed<String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let good = !authority.is_empty()
        && !authority.contains('@')
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    let wrong = "is no http or https URL (without a user in it)";
    if good { Ok(text.to_owned()) } else { Err(wrong.to_owned()) }
}

impl Sources<'_> {
    /// A setting that is hidden.
    fn secret(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Parsed<String>,
    ) -> Result<Option<(Secret, Origin)>, ConfigError> {
        let given = self.one_with_origin(name, parse)?;
        Ok(given.map(|(text, origin)| (Secret(text), origin)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn security(args: &[&str]) -> Result<KafkaSecurity, String> {
        let args = ["ringcast", "--kafka-brokers=k:1"].iter().chain(args);
        let config = Config::from_args(args.map(Into::into), |_| None);
        Ok(config.map_err(|error| error.to_string())?.outlets.kafka.unwrap().security)
    }

    #[test]
    fn the_way_to_kafka_is_secured_as_told() {
        assert_eq!(security(&[]), Ok(KafkaSecurity::default()));
        let told = security(&["--kafka-tls", "--kafka-ca=/c", "--kafka-mechanism=scram-sha-256"]);
        let (ca, mechanism) = (Some(PathBuf::from("/c")), KafkaMechanism::ScramSha256);
        assert_eq!(told, Ok(KafkaSecurity { tls: true, ca, identity: None, mechanism }));
        let told = security(&["--kafka-tls", "--kafka-cert=/c", "--kafka-key=/k"]).unwrap();
        assert_eq!(told.identity, Some((PathBuf::from("/c"), PathBuf::from("/k"))));
        for (args, words) in [
            (&["--kafka-ca=/c"][..], "kafka-ca needs kafka-tls"),
            (&["--kafka-tls", "--kafka-cert=/c"], "kafka-cert needs kafka-key"),
            (&["--kafka-tls", "--kafka-key=/k"], "kafka-key needs kafka-cert"),
            (&["--kafka-cert=/c", "--kafka-key=/k"], "kafka-cert needs kafka-tls"),
            (&["--kafka-tls=maybe"], "--kafka-tls"),
            (&["--kafka-mechanism=GSSAPI"], "none of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512"),
        ] {
            let refused = security(args).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
