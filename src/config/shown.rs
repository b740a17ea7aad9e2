//! The checked configuration as text: what `ringcast config` prints, and what a file of settings
//! may say word for word.
//!
//! Invariants: every setting is there, or said to be unset or hidden; no secret is. Taking the
//! configuration apart by name makes the compiler ask for a setting that is new.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::sources::{COMMENT, SETTINGS, Sources};
use super::{
    Config, ConfigError, ConnectionsConfig, KafkaConfig, LogFormat, OutletsConfig, Runtime, Steer,
    TlsConfig,
};

/// Settings whose values are nobody's business.
const HIDDEN: [&str; 4] = ["api-keys", "kafka-password", "webhook-secret", "webhook-url"];

/// All settings with their values; `Null` for one that is unset or hidden.
fn values(config: &Config) -> Vec<(&'static str, Value)> {
    let Config {
        api_listen,
        media_port,
        media_listen,
        announce,
        shards,
        pin,
        runtime,
        steer,
        coalesce,
        media_udp,
        media_tcp,
        video_codecs,
        docs_path,
        cors_origins,
        drain_timeout,
        allow_anonymous,
        api_keys,
        api_keys_file,
        open_metrics,
        limits,
        connections,
        ice,
        outlets,
        log_format,
        log_filter,
        warnings: _,
    } = config;
    // Whatever let the API be open: given back, the file must say so itself. Keys do not open it, and
    // a file without them must not do so in their place.
    let open = api_keys.is_empty() && (*allow_anonymous || !api_listen.ip().is_loopback());
    let mut values = vec![
        ("api-listen", json!(api_listen)),
        ("allow-anonymous", json!(open)),
        ("api-keys", Value::Null),
        ("api-keys-file", api_keys_file.as_ref().map_or(Value::Null, |file| json!(file.path))),
        ("open-metrics", json!(open_metrics)),
        ("limits", limits.settings().collect()),
        ("docs-path", json!(docs_path)),
        ("cors-origins", json!(cors_origins)),
        ("drain-timeout", json!(drain_timeout.as_secs())),
        ("media-port", json!(media_port)),
        ("media-listen", json!(media_listen)),
        ("announce", json!(announce)),
        ("video-codecs", video_codecs.iter().map(|codec| codec.name()).collect()),
        ("ice-servers", json!(ice.urls)),
        ("ice-servers-file", ice.file.as_ref().map_or(Value::Null, |path| json!(path))),
        ("media-udp", json!(media_udp)),
        ("media-tcp", json!(media_tcp)),
        ("shards", shards.map_or_else(|| json!("auto"), |shards| json!(shards))),
        ("pin", json!(pin)),
        ("runtime", json!(runtime_name(*runtime))),
        ("steer", json!(steer_name(*steer))),
        ("coalesce-us", json!(u64::try_from(coalesce.as_micros()).unwrap_or(u64::MAX))),
        ("log", json!(log_filter)),
        ("log-format", json!(log_format_name(*log_format))),
    ];
    values.extend(connection_values(connections));
    values.extend(outlet_values(outlets));
    values
}

fn connection_values(connections: &ConnectionsConfig) -> [(&'static str, Value); 5] {
    let ConnectionsConfig { tls, node, address, proxies } = connections;
    let tls = tls.as_ref();
    [
        ("tls-cert", tls.map_or(Value::Null, |TlsConfig { cert, .. }| json!(cert))),
        ("tls-key", tls.map_or(Value::Null, |TlsConfig { key, .. }| json!(key))),
        ("api-connections", json!(node)),
        ("api-connections-per-address", json!(address.unwrap_or(0))),
        ("trusted-proxies", proxies.texts().collect()),
    ]
}

fn outlet_values(outlets: &OutletsConfig) -> [(&'static str, Value); 13] {
    let OutletsConfig { kafka, webhook, spool_dir, warnings: _ } = outlets;
    let webhook_ca = webhook.as_ref().and_then(|webhook| webhook.ca.as_ref());
    let kafka = kafka.as_ref();
    let ca = kafka.and_then(|kafka| kafka.security.ca.as_ref());
    let identity = kafka.and_then(|kafka| kafka.security.identity.as_ref());
    let user = kafka.and_then(|KafkaConfig { credentials, .. }| credentials.as_ref());
    [
        ("kafka-brokers", kafka.map_or(Value::Null, |kafka| json!(kafka.brokers))),
        ("kafka-tls", kafka.map_or(Value::Null, |kafka| json!(kafka.security.tls))),
        ("kafka-ca", ca.map_or(Value::Null, |path| json!(path))),
        ("kafka-cert", identity.map_or(Value::Null, |(cert, _)| json!(cert))),
        ("kafka-key", identity.map_or(Value::Null, |(_, key)| json!(key))),
        (
            "kafka-mechanism",
            kafka.map_or(Value::Null, |kafka| json!(kafka.security.mechanism.name())),
        ),
        ("kafka-user", user.map_or(Value::Null, |(user, _)| json!(user))),
        ("kafka-password", Value::Null),
        (
            "kafka-room-events-topic",
            kafka.map_or(Value::Null, |kafka| json!(kafka.room_events_topic)),
        ),
        ("webhook-url", Value::Null),
        ("webhook-secret", Value::Null),
        ("webhook-ca", webhook_ca.map_or(Value::Null, |path| json!(path))),
        ("spool-dir", spool_dir.as_deref().map_or(Value::Null, |path: &Path| json!(path))),
    ]
}

fn runtime_name(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Auto => "auto",
        Runtime::Glommio => "glommio",
        Runtime::Thread => "thread",
    }
}

fn steer_name(steer: Steer) -> &'static str {
    match steer {
        Steer::Auto => "auto",
        Steer::Off => "off",
    }
}

fn log_format_name(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

/// Where a setting's value came from, in a word.
fn source(name: &'static str, value: &Value, sources: &Sources<'_>) -> Result<String, ConfigError> {
    let apart: &[&str] = match name {
        "api-listen" => &["FILES_SERVICE_APP_PORT"],
        "kafka-brokers" if !value.is_null() => &["KAFKA_HOST"],
        _ => &[],
    };
    let apart = apart.iter().find(|variable| sources.has_variable(variable));
    let source = match (sources.origin(name)?, apart) {
        (Some(origin), _) => origin.to_string(),
        (None, Some(variable)) => (*variable).to_owned(),
        (None, None) if opened_by_the_replaced_service(name, value) => {
            "the replaced service's environment".to_owned()
        }
        (None, None) if value.is_null() => "unset".to_owned(),
        (None, None) => "default".to_owned(),
    };
    let hidden = HIDDEN.contains(&name) && source != "unset";
    Ok(if hidden { format!("{source} (hidden)") } else { source })
}

/// Nothing else makes these two differ from their defaults while nobody set them.
fn opened_by_the_replaced_service(name: &str, value: &Value) -> bool {
    match name {
        "allow-anonymous" => value == true,
        "api-listen" => value.as_str().is_some_and(|address| !address.starts_with("127.")),
        _ => false,
    }
}

/// How a server that is given this file gets what is not in it.
fn again(name: &str) -> String {
    let variables = SETTINGS.iter().find(|(setting, _)| *setting == name).map(|(_, names)| *names);
    let variable = variables.and_then(|names| names.first()).copied().unwrap_or_default();
    format!("not printed: say it again, as {variable} or in this file")
}

pub(super) fn shown(
    config: &Config,
    sources: &Sources<'_>,
) -> Result<Map<String, Value>, ConfigError> {
    let mut shown = Map::new();
    let mut from = Map::new();
    for (name, value) in values(config) {
        from.insert(name.to_owned(), source(name, &value, sources)?.into());
        if !value.is_null() {
            shown.insert(name.to_owned(), value);
        }
    }
    debug_assert!(SETTINGS.iter().all(|(name, _)| from.contains_key(*name)), "one is not shown");
    let mut comment = Map::new();
    comment.insert("from".to_owned(), from.into());
    comment.insert("warnings".to_owned(), json!(config.warnings));
    let hidden: Map<String, Value> = HIDDEN
        .iter()
        .filter(|name| matches!(sources.origin(name), Ok(Some(_))))
        .map(|name| ((*name).to_owned(), again(name).into()))
        .collect();
    if !hidden.is_empty() {
        comment.insert("hidden".to_owned(), hidden.into());
    }
    shown.insert(COMMENT.to_owned(), comment.into());
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::ffi::OsString;

    use clap::Parser as _;

    use super::super::Serve;
    use super::*;

    type Pairs = &'static [(&'static str, &'static str)];

    fn variables(env: Pairs) -> impl Fn(&str) -> Option<String> {
        let env: HashMap<_, _> = env.iter().copied().collect();
        move |name| env.get(name).map(|value| (*value).to_owned())
    }

    fn arguments(args: &[&str]) -> Vec<OsString> {
        std::iter::once("ringcast").chain(args.iter().copied()).map(OsString::from).collect()
    }

    fn shown_with(args: &[&str], env: Pairs) -> Map<String, Value> {
        let flags = Serve::try_parse_from(arguments(args)).unwrap().settings;
        Config::shown(flags, &variables(env)).unwrap()
    }

    #[test]
    fn every_setting_is_shown_with_where_it_came_from() {
        let file = std::env::temp_dir().join(format!("ringcast-shown-{}.json", std::process::id()));
        std::fs::write(&file, r#"{"shards": 3, "//": "ours"}"#).unwrap();
        let config = format!("--config={}", file.display());
        let shown = shown_with(
            &[&config, "--media-port=7"],
            &[("MEDIASOUP_ANNOUNCED_IP", "192.0.2.1"), ("RINGCAST_KAFKA_PASSWORD", "sesame")],
        );
        std::fs::remove_file(&file).unwrap();
        let from = &shown[COMMENT]["from"];
        for (name, source) in [
            ("media-port", "--media-port"),
            ("announce", "MEDIASOUP_ANNOUNCED_IP"),
            ("shards", &*format!("shards in {}", file.display())),
            ("pin", "default"),
            ("webhook-url", "unset"),
            ("kafka-password", "RINGCAST_KAFKA_PASSWORD (hidden)"),
            ("api-listen", "the replaced service's environment"),
        ] {
            assert_eq!(from[name], source, "{name}");
        }
        for (name, _) in SETTINGS {
            assert!(from[name].is_string(), "{name}");
            assert_eq!(shown.contains_key(name), from[name] != "unset" && !HIDDEN.contains(&name));
        }
        assert_eq!((&shown["shards"], &shown["announce"]), (&json!(3), &json!(["192.0.2.1"])));
        assert!(shown[COMMENT]["warnings"][0].as_str().unwrap().contains("without credentials"));
    }

    #[test]
    fn what_is_shown_is_a_file_that_means_the_same() {
        let cases: [(&[&str], Pairs); 5] = [
            (&[], &[]),
            (
                &[
                    "--api-listen=[::1]:0",
                    "--media-port=0",
                    "--media-listen=127.0.0.1",
                    "--announce=203.0.113.7,a.example",
                    "--ice-servers=stun:a.example,stun:[2001:db8::1]:3478",
                    "--shards=3",
                    "--pin=false",
                    "--runtime=thread",
                    "--steer=off",
                    "--coalesce-us=150",
                    "--media-tcp=no",
                    "--drain-timeout=77",
                    "--open-metrics",
                    "--limits=rooms=5,key-requests=7",
                    "--docs-path=/api/docs/",
                    "--cors-origins=https://A.example",
                    "--kafka-brokers=k:1",
                    "--kafka-tls",
                    "--kafka-ca=/ca.pem",
                    "--kafka-cert=/cert.pem",
                    "--kafka-key=/key.pem",
                    "--kafka-mechanism=scram-sha-512",
                    "--kafka-room-events-topic=rooms",
                    "--spool-dir=/s",
                    "--log-format=json",
                    "--log=ringcast=debug,warn",
                ],
                &[],
            ),
            (&["--runtime=glommio", "--media-udp=0", "--allow-anonymous"], &[]),
            (&[], &[("FILES_SERVICE_APP_PORT", "1"), ("MEDIASOUP_NUM_WORKERS", "2")]),
            (&[], &[("KAFKA_IS_CONNECT", "true"), ("KAFKA_HOST", "k")]),
        ];
        for (number, (args, env)) in cases.into_iter().enumerate() {
            let first = Config::from_args(arguments(args), variables(env)).unwrap();
            let name = format!("ringcast-given-back-{}-{number}.json", std::process::id());
            let file = std::env::temp_dir().join(name);
            std::fs::write(&file, Value::from(shown_with(args, env)).to_string()).unwrap();
            let again = arguments(&["--config", file.to_str().unwrap()]);
            let mut again = Config::from_args(again, |_| None).unwrap();
            std::fs::remove_file(&file).unwrap();
            again.allow_anonymous = first.allow_anonymous;
            again.warnings.clone_from(&first.warnings);
            assert_eq!(again, first, "{args:?} {env:?}");
        }
    }

    #[test]
    fn what_is_hidden_is_named_and_the_file_is_whole_with_it() {
        let args = ["--kafka-brokers=k:1", "--kafka-user=u", "--kafka-password=sesame"];
        let shown = shown_with(&args, &[]);
        let hidden = shown[COMMENT]["hidden"].as_object().unwrap();
        assert_eq!(hidden.len(), 1);
        assert!(hidden["kafka-password"].as_str().unwrap().contains("RINGCAST_KAFKA_PASSWORD"));
        let file = std::env::temp_dir().join(format!("ringcast-hidden-{}", std::process::id()));
        std::fs::write(&file, Value::from(shown).to_string()).unwrap();
        let again = || arguments(&["--config", file.to_str().unwrap()]);
        let lacking = Config::from_args(again(), |_| None).unwrap_err().to_string();
        assert!(lacking.contains("RINGCAST_KAFKA_PASSWORD"), "{lacking}");
        let env = variables(&[("RINGCAST_KAFKA_PASSWORD", "sesame")]);
        let whole = Config::from_args(again(), env).unwrap();
        std::fs::remove_file(&file).unwrap();
        let first = Config::from_args(arguments(&args), |_| None).unwrap();
        assert_eq!(whole.outlets.kafka, first.outlets.kafka);
    }

    #[test]
    fn no_secret_is_shown() {
        let shown = shown_with(
            &[
                "--api-keys=a:sesame-sesame-sesame-sesame-sesame",
                "--kafka-brokers=k:1",
                "--kafka-user=u",
                "--kafka-password=sesame",
                "--webhook-url=https://h/sesame",
                "--webhook-secret=sesame",
            ],
            &[],
        );
        assert_eq!(shown["kafka-user"], "u");
        assert!(!Value::from(shown).to_string().contains("sesame"));
    }
}
