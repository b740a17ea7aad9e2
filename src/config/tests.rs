use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

type Texts = &'static [&'static str];
type Variables = &'static [(&'static str, &'static str)];

fn config_with(args: &[&str], env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let env: HashMap<_, _> = env.iter().copied().collect();
    let args = std::iter::once("ringcast").chain(args.iter().copied()).map(OsString::from);
    Config::from_args(args, |name| env.get(name).map(|value| (*value).to_owned()))
}

pub(super) fn config(args: &[&str], env: &[(&str, &str)]) -> Config {
    config_with(args, env).unwrap_or_else(|error| panic!("{args:?} {env:?}: {error}"))
}

pub(super) fn refusal(args: &[&str], env: &[(&str, &str)]) -> String {
    config_with(args, env).expect_err("must be refused").to_string()
}

/// A file of settings that goes when the test ends.
struct SettingsFile(PathBuf);

impl SettingsFile {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("ringcast-config-{}-{name}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for SettingsFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn nothing_said_gives_the_documented_defaults() {
    assert_eq!(
        config(&[], &[]),
        Config {
            api_listen: "127.0.0.1:6040".parse().unwrap(),
            media_port: 10_000,
            media_listen: vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()],
            announce: vec![],
            shards: None,
            pin: true,
            runtime: Runtime::Auto,
            steer: Steer::Auto,
            coalesce: Duration::from_micros(750),
            drain_timeout: Duration::from_secs(3600),
            media_udp: true,
            media_tcp: true,
            video_codecs: VideoCodec::ALL.to_vec(),
            docs_path: "docs".to_owned(),
            cors_origins: vec![],
            allow_anonymous: false,
            api_keys: ApiKeys::default(),
            api_keys_file: None,
            open_metrics: false,
            limits: Limits::default(),
            connections: connections(),
            ice: IceConfig::default(),
            outlets: OutletsConfig::default(),
            log_format: LogFormat::Text,
            log_filter: "info".to_owned(),
            warnings: vec![],
        }
    );
}

fn connections() -> ConnectionsConfig {
    let proxies = Proxies::default();
    ConnectionsConfig { tls: None, node: 20_000, address: Some(2_000), proxies }
}

fn limits(settings: &[&str]) -> Limits {
    let mut limits = Limits::default();
    settings.iter().for_each(|setting| limits.set(setting.parse().unwrap()));
    limits
}

/// As the flags of the test below say.
fn all_outlets() -> OutletsConfig {
    OutletsConfig {
        kafka: Some(KafkaConfig {
            brokers: vec!["a.example:9092".to_owned(), "[::1]:9093".to_owned()],
            credentials: Some(("ringcast".to_owned(), Secret::new("sesame"))),
            security: KafkaSecurity::default(),
            room_events_topic: Some("rooms".to_owned()),
        }),
        webhook: Some(WebhookConfig {
            url: Secret::new("https://hooks.example/in?token=1"),
            secret: Secret::new("s3cret"),
            ca: Some(PathBuf::from("/etc/our-ca.pem")),
        }),
        spool_dir: Some(PathBuf::from("/var/lib/ringcast")),
        warnings: vec![],
    }
}

#[test]
fn every_flag_sets_its_setting() {
    let config = config(
        &[
            "--api-listen=[::1]:0",
            "--media-port=0",
            "--media-listen=127.0.0.1,[::1]",
            "--media-listen=127.0.0.1",
            "--announce=203.0.113.7",
            "--announce=Media.Example.org",
            "--ice-servers=stun:a.example",
            "--shards=3",
            "--pin=false",
            "--runtime=thread",
            "--steer=off",
            "--coalesce-us=150",
            "--drain-timeout=90",
            "--media-udp=true",
            "--media-tcp=no",
            "--video-codecs=h264,VP8,H264",
            "--docs-path=/api/docs/",
            "--cors-origins=https://A.example,http://localhost:5173",
            "--allow-anonymous",
            "--open-metrics",
            "--limits=rooms=4,key-requests=9",
            "--limits=rooms=5",
            "--kafka-brokers=a.example:9092,[::1]:9093",
            "--kafka-user=ringcast",
            "--kafka-password=sesame",
            "--kafka-room-events-topic=rooms",
            "--webhook-url=https://hooks.example/in?token=1",
            "--webhook-secret=s3cret",
            "--webhook-ca=/etc/our-ca.pem",
            "--spool-dir=/var/lib/ringcast",
            "--log-format=json",
            "--log=ringcast=debug,warn",
        ],
        &[],
    );
    assert_eq!(
        config,
        Config {
            api_listen: "[::1]:0".parse().unwrap(),
            media_port: 0,
            media_listen: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
            announce: vec!["203.0.113.7".to_owned(), "media.example.org".to_owned()],
            shards: Some(3),
            pin: false,
            runtime: Runtime::Thread,
            steer: Steer::Off,
            coalesce: Duration::from_micros(150),
            drain_timeout: Duration::from_secs(90),
            media_udp: true,
            media_tcp: false,
            video_codecs: vec![VideoCodec::H264, VideoCodec::Vp8],
            docs_path: "api/docs".to_owned(),
            cors_origins: vec!["https://a.example".to_owned(), "http://localhost:5173".to_owned()],
            allow_anonymous: true,
            connections: connections(),
            ice: IceConfig::of_given(vec!["stun:a.example".to_owned()]),
            api_keys: ApiKeys::default(),
            api_keys_file: None,
            open_metrics: true,
            limits: limits(&["rooms=5", "key-requests=9"]),
            outlets: all_outlets(),
            log_format: LogFormat::Json,
            log_filter: "ringcast=debug,warn".to_owned(),
            warnings: vec![],
        }
    );
}

#[test]
fn every_setting_has_a_variable_and_a_name_in_the_file() {
    let text = r#"{
        "api-listen": "127.0.0.1:1", "allow-anonymous": true, "docs-path": "d",
        "open-metrics": true, "limits": ["rooms=7", "peer-producers=2"],
        "cors-origins": ["https://a.example"], "media-port": 2, "media-listen": "127.0.0.1",
        "announce": ["a.example", "b.example"], "ice-servers": "stun:a", "media-udp": false, "media-tcp": true,
        "video-codecs": ["AV1", "VP9"],
        "shards": 4, "pin": false, "runtime": "glommio", "steer": "off", "coalesce-us": 2000,
        "kafka-brokers": ["k:1"], "kafka-tls": true, "kafka-user": "u", "kafka-password": "p",
        "kafka-room-events-topic": "t", "webhook-url": "http://h/", "webhook-secret": "s",
        "webhook-ca": "/c",
        "spool-dir": "/s", "log": "debug", "log-format": "json"
    }"#;
    let file = SettingsFile::new("all", text);
    let env = [
        ("RINGCAST_API_LISTEN", "127.0.0.1:1"),
        ("RINGCAST_ALLOW_ANONYMOUS", "1"),
        ("RINGCAST_OPEN_METRICS", "1"),
        ("RINGCAST_LIMITS", "rooms=7, peer-producers=2"),
        ("RINGCAST_DOCS_PATH", "d"),
        ("RINGCAST_CORS_ORIGINS", "https://a.example"),
        ("RINGCAST_MEDIA_PORT", "2"),
        ("RINGCAST_MEDIA_LISTEN", "127.0.0.1"),
        ("RINGCAST_ANNOUNCE", "a.example, b.example,"),
        ("RINGCAST_ICE_SERVERS", "stun:a"),
        ("RINGCAST_MEDIA_UDP", "false"),
        ("RINGCAST_MEDIA_TCP", "true"),
        ("RINGCAST_VIDEO_CODECS", "AV1,VP9"),
        ("RINGCAST_SHARDS", "4"),
        ("RINGCAST_PIN", "false"),
        ("RINGCAST_RUNTIME", "glommio"),
        ("RINGCAST_STEER", "off"),
        ("RINGCAST_COALESCE_US", "2000"),
        ("RINGCAST_KAFKA_BROKERS", "k:1"),
        ("RINGCAST_KAFKA_TLS", "true"),
        ("RINGCAST_KAFKA_USER", "u"),
        ("RINGCAST_KAFKA_PASSWORD", "p"),
        ("RINGCAST_KAFKA_ROOM_EVENTS_TOPIC", "t"),
        ("RINGCAST_WEBHOOK_URL", "http://h/"),
        ("RINGCAST_WEBHOOK_SECRET", "s"),
        ("RINGCAST_WEBHOOK_CA", "/c"),
        ("RINGCAST_SPOOL_DIR", "/s"),
        ("RINGCAST_LOG", "debug"),
        ("RINGCAST_LOG_FORMAT", "json"),
    ];
    let from_file = config(&["--config", file.path()], &[]);
    assert_eq!(from_file.shards, Some(4));
    assert_eq!(from_file.announce, ["a.example", "b.example"]);
    assert_eq!(config(&[], &env), from_file);
    assert_eq!(config(&[], &[("RINGCAST_CONFIG", file.path())]), from_file);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file =
        SettingsFile::new("precedence", r#"{"media-port": 3, "announce": ["file.example"]}"#);
    let legacy = ("MEDIASOUP_RTC_MIN_PORT", "4");
    let own = ("RINGCAST_MEDIA_PORT", "5");
    let path = file.path();
    let media_port = |args: &[&str], env: &[(&str, &str)]| config(args, env).media_port;
    assert_eq!(media_port(&["--config", path], &[]), 3);
    assert_eq!(media_port(&["--config", path], &[legacy]), 4);
    assert_eq!(media_port(&["--config", path], &[legacy, own]), 5);
    assert_eq!(media_port(&["--config", path, "--media-port=6"], &[legacy, own]), 6);
    assert_eq!(
        media_port(&["--config", path], &[("RINGCAST_MEDIA_PORT", "")]),
        3,
        "empty is absent"
    );
    let announce = config(&["--config", path, "--announce=flag.example"], &[]).announce;
    assert_eq!(announce, ["flag.example"], "lists replace each other");
}

#[test]
fn the_replaced_services_variables_are_understood() {
    let config = config(
        &[],
        &[
            ("FILES_SERVICE_APP_PORT", "7000"),
            ("MEDIASOUP_LISTEN_IP", "0.0.0.0"),
            ("MEDIASOUP_ANNOUNCED_IP", "203.0.113.7"),
            ("MEDIASOUP_RTC_MIN_PORT", "20000"),
            ("MEDIASOUP_RTC_MAX_PORT", "20100"),
            ("MEDIASOUP_NUM_WORKERS", "2"),
            ("SWAGGER_PATH", "swagger"),
            ("KAFKA_IS_CONNECT", "true"),
            ("KAFKA_HOST", "kafka"),
            ("KAFKA_EXTERNAL_PORT", "9094"),
            ("KAFKA_CLIENT_USERS", "calls"),
            ("KAFKA_USER_PASSWORD", "sesame"),
            ("KAFKA_ROOM_EVENTS_TOPIC", "room_events"),
        ],
    );
    assert_eq!(config.api_listen, "[::]:7000".parse().unwrap());
    assert_eq!(config.media_listen, ["0.0.0.0".parse::<IpAddr>().unwrap()]);
    assert_eq!(config.announce, ["203.0.113.7"]);
    assert_eq!(config.media_port, 20_000);
    assert_eq!(config.shards, Some(2));
    assert_eq!(config.docs_path, "swagger");
    let kafka = config.outlets.kafka.as_ref().unwrap();
    assert_eq!(kafka.brokers, ["kafka:9094"]);
    assert_eq!(kafka.credentials, Some(("calls".to_owned(), Secret::new("sesame"))));
    assert_eq!(kafka.room_events_topic.as_deref(), Some("room_events"));
    let [exposed, ports, memory] = config.warnings.as_slice() else {
        panic!("{:?}", config.warnings)
    };
    assert!(exposed.contains("[::]:7000") && exposed.contains("MEDIASOUP_LISTEN_IP"), "{exposed}");
    assert!(ports.contains("MEDIASOUP_RTC_MAX_PORT"), "{ports}");
    assert!(memory.contains("--spool-dir"), "{memory}");
}

#[test]
fn any_of_those_variables_opens_the_api_and_says_so() {
    for name in REPLACED_SERVICE {
        let value = if name.ends_with("IP") { "192.0.2.1" } else { "6" };
        let config = config(&[], &[(name, value)]);
        assert!(config.api_listen.ip().is_unspecified(), "{name}");
        assert!(config.warnings[0].contains(name), "{name}: {:?}", config.warnings);
    }
    let told = config(&["--api-listen=127.0.0.1:1"], &[("MEDIASOUP_LISTEN_IP", "192.0.2.1")]);
    assert_eq!(told.api_listen, "127.0.0.1:1".parse().unwrap(), "what is told is done");
    assert_eq!(told.warnings, [""; 0]);
}

#[test]
fn kafka_is_off_unless_it_is_asked_for() {
    let host = ("KAFKA_HOST", "kafka");
    for env in [
        &[host][..],
        &[host, ("KAFKA_IS_CONNECT", "false")],
        &[host, ("KAFKA_USER_PASSWORD", "x"), ("KAFKA_CLIENT_USERS", "y")],
        &[("STATE_DIRECTORY", "/var/lib/ringcast")],
    ] {
        let config = config(&[], env);
        assert_eq!(config.outlets.kafka, None, "{env:?}");
        assert_eq!(config.warnings, [""; 0]);
    }
    let odd = config(&[], &[host, ("KAFKA_IS_CONNECT", "maybe")]);
    assert_eq!(odd.outlets.kafka, None);
    assert!(odd.warnings[0].contains("KAFKA_IS_CONNECT"), "{:?}", odd.warnings);
    let brokers = |env: &[(&str, &str)]| config(&[], env).outlets.kafka.unwrap().brokers;
    let on = ("KAFKA_IS_CONNECT", "true");
    assert_eq!(brokers(&[host, on]), ["kafka:9092"]);
    assert_eq!(brokers(&[("KAFKA_HOST", "kafka:1"), on]), ["kafka:1"]);
    assert_eq!(brokers(&[host, on, ("RINGCAST_KAFKA_BROKERS", "other:2")]), ["other:2"]);
    let kept = config(&[], &[host, on, ("STATE_DIRECTORY", "/s")]);
    assert_eq!((kept.outlets.spool_dir, kept.warnings), (Some("/s".into()), vec![]));
}

#[test]
fn secrets_are_neither_shown_nor_quoted() {
    let config = config(
        &[
            "--kafka-brokers=k:1",
            "--kafka-user=u",
            "--kafka-password=sesame",
            "--webhook-url=https://h/sesame",
            "--webhook-secret=sesame",
            "--spool-dir=/s",
        ],
        &[],
    );
    assert!(!format!("{config:?}").contains("sesame"));
    for arg in ["--webhook-url=ftp://sesame", "--webhook-url=http://a@sesame/"] {
        let sentence = refusal(&[arg, "--webhook-secret=s"], &[]);
        assert!(sentence.contains("--webhook-url") && !sentence.contains("sesame"), "{sentence}");
    }
}

#[test]
fn a_wrong_value_is_refused_with_the_setting_and_its_source() {
    let table: [(Texts, Variables, &str); 43] = [
        (&["--api-listen=6040"], &[], "--api-listen: \"6040\" is no address and port"),
        (&["--api-listen=localhost:1"], &[], "--api-listen: \"localhost:1\" is no address"),
        (&["--media-port=65536"], &[], "--media-port: \"65536\" is no port (0 to 65535)"),
        (&["--media-port=-1"], &[], "--media-port: \"-1\" is no port"),
        (&["--media-port="], &[], "--media-port: \"\" is no port"),
        (&[], &[("RINGCAST_MEDIA_PORT", "x")], "RINGCAST_MEDIA_PORT: \"x\" is no port"),
        (&[], &[("MEDIASOUP_RTC_MIN_PORT", "1e4")], "MEDIASOUP_RTC_MIN_PORT: \"1e4\" is no port"),
        (&[], &[("FILES_SERVICE_APP_PORT", "web")], "FILES_SERVICE_APP_PORT: \"web\" is no port"),
        (&["--media-listen=eth0"], &[], "--media-listen: \"eth0\" is no IP address"),
        (&["--media-listen=[127.0.0.1]"], &[], "--media-listen: \"[127.0.0.1]\" is no IP"),
        (&[], &[("MEDIASOUP_LISTEN_IP", "host")], "MEDIASOUP_LISTEN_IP: \"host\" is no IP address"),
        (&["--video-codecs=VP8,opus"], &[], "--video-codecs: \"opus\" is none of VP8, VP9, H264"),
        (&["--announce=0.0.0.0"], &[], "--announce: \"0.0.0.0\" is no address that a client"),
        (&["--announce=224.0.0.1"], &[], "--announce: \"224.0.0.1\" is a multicast address"),
        (&["--announce=1.2.3"], &[], "--announce: \"1.2.3\" is neither an IP address nor a host"),
        (&["--announce=1.2.3.400"], &[], "--announce: \"1.2.3.400\" is neither"),
        (&["--announce=a_b.example"], &[], "--announce: \"a_b.example\" is neither"),
        (&["--announce=-a.example"], &[], "--announce: \"-a.example\" is neither"),
        (&["--drain-timeout=1h"], &[], "--drain-timeout: \"1h\" is no number of seconds"),
        (&["--drain-timeout=86401"], &[], "--drain-timeout: \"86401\" is no number of seconds"),
        (&["--shards=0"], &[], "--shards: \"0\" is no number from 1 to 1024"),
        (&["--shards=1025"], &[], "--shards: \"1025\" is no number from 1 to 1024"),
        (&[], &[("MEDIASOUP_NUM_WORKERS", "two")], "MEDIASOUP_NUM_WORKERS: \"two\" is no number"),
        (&["--pin=maybe"], &[], "--pin: \"maybe\" is neither true nor false"),
        (&["--steer=on"], &[], "--steer: \"on\" is neither auto nor off"),
        (&["--coalesce-us=2001"], &[], "--coalesce-us: \"2001\" is no number of microseconds"),
        (&["--coalesce-us=-1"], &[], "--coalesce-us: \"-1\" is no number of microseconds"),
        (&["--runtime=tokio"], &[], "--runtime: \"tokio\" is none of auto, glommio and thread"),
        (&["--log-format=xml"], &[], "--log-format: \"xml\" is neither text nor json"),
        (&["--log=a=b=c"], &[], "--log: \"a=b=c\" is no log filter"),
        (&["--docs-path=media/docs"], &[], "--docs-path: \"media/docs\" is taken"),
        (&["--docs-path=a/{b}"], &[], "--docs-path: \"a/{b}\" is no path"),
        (&["--docs-path=/"], &[], "--docs-path: \"/\" is no path"),
        (&["--cors-origins=*"], &[], "--cors-origins: \"*\" is no origin"),
        (&["--kafka-brokers=kafka"], &[], "--kafka-brokers: \"kafka\" is no host and port"),
        (&["--kafka-brokers=k:0"], &[], "--kafka-brokers: \"k:0\" is no host and port"),
        (&["--kafka-brokers=k:1", "--kafka-user=u"], &[], "kafka-user needs kafka-password"),
        (&["--kafka-brokers=k:1", "--kafka-password=p"], &[], "--kafka-password: needs"),
        (&["--webhook-secret=a\0b"], &[], "--webhook-secret: has control characters"),
        (&["--kafka-room-events-topic=a b"], &[], "--kafka-room-events-topic: \"a b\" is no"),
        (&["--webhook-url=http://h/"], &[], "webhook-url needs webhook-secret"),
        (&[], &[("KAFKA_IS_CONNECT", "true")], "KAFKA_IS_CONNECT needs KAFKA_HOST"),
        (&["--media-udp=false", "--media-tcp=false"], &[], "media needs a way in"),
    ];
    for (args, env, expected) in table {
        let sentence = refusal(args, env);
        assert!(sentence.starts_with(expected), "{sentence} / {expected}");
    }
    let long_label = format!("{}.example", "a".repeat(64));
    let long_name = ["a"; 128].join(".");
    for name in [long_label, long_name] {
        assert!(values::announced(&name).is_err(), "{name}");
    }
}

#[test]
fn an_origin_is_a_scheme_a_host_and_maybe_a_port() {
    let table = [
        ("https://example.org", true),
        ("http://localhost:3000", true),
        ("http://127.0.0.1:3000", true),
        ("http://[::1]:3000", true),
        ("http://[::1]", true),
        ("https://example.org/", false),
        ("https://example.org/path", false),
        ("https://", false),
        ("https://:80", false),
        ("https://example.org:0", false),
        ("https://example.org:x", false),
        ("http://::1", false),
        ("ftp://example.org", false),
        ("example.org", false),
        ("null", false),
    ];
    for (text, good) in table {
        assert_eq!(values::web_origin(text).is_ok(), good, "{text}");
    }
}

#[test]
fn a_bad_file_is_refused_with_its_path() {
    let table = [
        ("syntax", "{", "EOF while parsing"),
        ("list", "[]", "must be a JSON object"),
        ("unknown", r#"{"media-prot": 1}"#, "\"media-prot\" is no setting"),
        ("type", r#"{"media-port": {}}"#, "media-port in"),
        ("null", r#"{"media-port": null}"#, "media-port in"),
        ("value", r#"{"media-port": 70000}"#, "\"70000\" is no port"),
        ("several", r#"{"media-port": [1, 2]}"#, "takes one value"),
        ("nested", r#"{"announce": [["a.example"]]}"#, "announce in"),
    ];
    for (name, text, expected) in table {
        let file = SettingsFile::new(name, text);
        let sentence = refusal(&["--config", file.path()], &[]);
        assert!(sentence.contains(expected), "{sentence} / {expected}");
        assert!(sentence.contains(file.path()), "{sentence}");
    }
    let missing = refusal(&["--config=/nonexistent/ringcast.json"], &[]);
    assert!(missing.contains("/nonexistent/ringcast.json"), "{missing}");
}

#[test]
fn help_and_version_are_answers_and_mistakes_are_not() {
    let help = config_with(&["--help"], &[]).unwrap_err();
    assert!(help.is_answer());
    let text = help.to_string();
    for name in ["--api-listen", "--media-port", "RINGCAST_SHARDS", "MEDIASOUP_ANNOUNCED_IP"] {
        assert!(text.contains(name), "{name} in {text}");
    }
    let version = config_with(&["--version"], &[]).unwrap_err();
    assert!(version.is_answer());
    assert!(version.to_string().contains(env!("CARGO_PKG_VERSION")));
    for args in [&["--nonsense"][..], &["room"], &["--media-port"]] {
        let error = config_with(args, &[]).unwrap_err();
        assert!(!error.is_answer() && matches!(error, ConfigError::Flags(_)), "{args:?}");
    }
}

proptest! {
    #[test]
    fn any_values_are_taken_or_refused(
        setting in 0usize..6, text in "\\PC{0,40}|[a-z0-9.:/\\[\\]-]{0,40}",
    ) {
        let names = [
            "RINGCAST_API_LISTEN", "RINGCAST_ANNOUNCE", "RINGCAST_DOCS_PATH",
            "RINGCAST_CORS_ORIGINS", "RINGCAST_LOG", "RINGCAST_MEDIA_LISTEN",
        ];
        if let Ok(config) = config_with(&[], &[(names[setting], &text)]) {
            prop_assert!(config.api_listen.ip().is_loopback());
            prop_assert!(!config.media_listen.is_empty());
            prop_assert!(!config.docs_path.is_empty() && !config.docs_path.starts_with('/'));
        }
    }
}
