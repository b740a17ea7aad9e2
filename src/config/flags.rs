//! The command line, as `--help` shows it. Values stay text here: flags, environment and file go
//! through the same parsers in [`super::values`].

use std::path::PathBuf;

// No doc comment: every command takes these flags, and would be described by it in its help.
#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Read settings from this JSON file: an object with the names of the flags below
    /// [env: RINGCAST_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Where the API listens [default: 127.0.0.1:6040] [env: RINGCAST_API_LISTEN,
    /// FILES_SERVICE_APP_PORT (port)]
    #[arg(long, value_name = "ADDRESS:PORT", help_heading = "API")]
    api_listen: Option<String>,

    /// Let everyone who reaches the API use it, also from other hosts
    /// [env: RINGCAST_ALLOW_ANONYMOUS]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = "API"
    )]
    allow_anonymous: Option<String>,

    /// API keys, as id:secret, comma-separated: who has none, nor a room token signed with one, may
    /// not call; the environment or a file hide them better [env: RINGCAST_API_KEYS]
    #[arg(long, value_name = "ID:SECRET", value_delimiter = ',', help_heading = "API")]
    api_keys: Vec<String>,

    /// File of API keys, one id:secret a line [env: RINGCAST_API_KEYS_FILE]
    #[arg(long, value_name = "FILE", help_heading = "API")]
    api_keys_file: Option<String>,

    /// Whether /metrics needs no key [default: false] [env: RINGCAST_OPEN_METRICS]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = "API"
    )]
    open_metrics: Option<String>,

    /// How much there may be of what, and how often callers may ask, as name=value, comma-separated;
    /// a wrong name is answered with all of them [env: RINGCAST_LIMITS]
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',', help_heading = "API")]
    limits: Vec<String>,
    /// Certificate chain for TLS on the API's address (PEM file, read again at SIGHUP)
    /// [default: no TLS] [env: RINGCAST_TLS_CERT]
    #[arg(long, value_name = "FILE", help_heading = "API")]
    tls_cert: Option<String>,

    /// Private key of that certificate (PEM file, read again at SIGHUP) [env: RINGCAST_TLS_KEY]
    #[arg(long, value_name = "FILE", help_heading = "API")]
    tls_key: Option<String>,

    /// Connections to the API at once [default: 20000] [env: RINGCAST_API_CONNECTIONS]
    #[arg(long, value_name = "NUMBER", help_heading = "API")]
    api_connections: Option<String>,

    /// Connections to the API at once from one address (an IPv6 /64) but loopback; 0: no limit
    /// [default: 2000] [env: RINGCAST_API_CONNECTIONS_PER_ADDRESS]
    #[arg(long, value_name = "NUMBER", help_heading = "API")]
    api_connections_per_address: Option<String>,

    /// Addresses and networks of proxies, comma-separated, that tell in X-Forwarded-For who asks:
    /// limits of an address hold for that one [default: none] [env: RINGCAST_TRUSTED_PROXIES]
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', help_heading = "API")]
    trusted_proxies: Vec<String>,

    /// Path of the Swagger UI [default: docs] [env: RINGCAST_DOCS_PATH, SWAGGER_PATH]
    #[arg(long, value_name = "PATH", help_heading = "API")]
    docs_path: Option<String>,

    /// Origins that browsers may call the API from, comma-separated [default: any]
    /// [env: RINGCAST_CORS_ORIGINS]
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', help_heading = "API")]
    cors_origins: Vec<String>,

    /// Seconds that calls may go on after the first SIGTERM, when no new rooms begin; 0 ends them at
    /// once [default: 3600] [env: RINGCAST_DRAIN_TIMEOUT]
    #[arg(long, value_name = "SECONDS", help_heading = "API")]
    drain_timeout: Option<String>,

    /// The one port of all media, UDP and TCP; 0 takes a free one [default: 10000]
    /// [env: RINGCAST_MEDIA_PORT, MEDIASOUP_RTC_MIN_PORT]
    #[arg(long, value_name = "PORT", help_heading = "Media")]
    media_port: Option<String>,

    /// Addresses to receive media on, comma-separated [default: 0.0.0.0,::]
    /// [env: RINGCAST_MEDIA_LISTEN, MEDIASOUP_LISTEN_IP]
    #[arg(long, value_name = "IP", value_delimiter = ',', help_heading = "Media")]
    media_listen: Vec<String>,

    /// IP addresses or host names told to clients, comma-separated [default: the host's addresses]
    /// [env: RINGCAST_ANNOUNCE, MEDIASOUP_ANNOUNCED_IP]
    #[arg(long, value_name = "IP|NAME", value_delimiter = ',', help_heading = "Media")]
    announce: Vec<String>,

    /// Codecs of video that rooms carry, comma-separated; clients send the first that they can, unless
    /// their page chooses [default: VP8,VP9,H264,AV1,H265] [env: RINGCAST_VIDEO_CODECS]
    #[arg(long, value_name = "CODEC", value_delimiter = ',', help_heading = "Media")]
    video_codecs: Vec<String>,

    /// STUN servers that clients are told of, comma-separated [default: none]
    /// [env: RINGCAST_ICE_SERVERS]
    #[arg(long, value_name = "URL", value_delimiter = ',', help_heading = "Media")]
    ice_servers: Vec<String>,

    /// The same and TURN servers, from a JSON file: the list of {urls, username, credential} that
    /// browsers take, or {urls, secret} for credentials of a day [env: RINGCAST_ICE_SERVERS_FILE]
    #[arg(long, value_name = "FILE", help_heading = "Media")]
    ice_servers_file: Option<String>,

    /// Whether media may use UDP [default: true] [env: RINGCAST_MEDIA_UDP]
    #[arg(long, value_name = "BOOL", help_heading = "Media")]
    media_udp: Option<String>,

    /// Whether media may use TCP [default: true] [env: RINGCAST_MEDIA_TCP]
    #[arg(long, value_name = "BOOL", help_heading = "Media")]
    media_tcp: Option<String>,

    /// Number of shards, or auto for one per usable core [default: auto]
    /// [env: RINGCAST_SHARDS, MEDIASOUP_NUM_WORKERS]
    #[arg(long, value_name = "NUMBER", help_heading = "Threads")]
    shards: Option<String>,

    /// Whether each shard is bound to a core [default: true] [env: RINGCAST_PIN]
    #[arg(long, value_name = "BOOL", help_heading = "Threads")]
    pin: Option<String>,

    /// What shards run on: auto, glommio or thread; auto takes a plain thread where io_uring is
    /// refused [default: auto] [env: RINGCAST_RUNTIME]
    #[arg(long, value_name = "RUNTIME", help_heading = "Threads")]
    runtime: Option<String>,

    /// Whether the kernel gives datagrams to their shard: auto where BPF is permitted, or off
    /// [default: auto] [env: RINGCAST_STEER]
    #[arg(long, value_name = "STEER", help_heading = "Threads")]
    steer: Option<String>,

    /// Microseconds in which a shard is woken for media once at most, up to 2000; 0 is each time.
    /// Saves CPU time where many clients send, costs half of it in latency there. A shard that sends
    /// the sound of many speakers to many listeners waits two thirds longer [default: 750]
    /// [env: RINGCAST_COALESCE_US]
    #[arg(long, value_name = "MICROSECONDS", help_heading = "Threads")]
    coalesce_us: Option<String>,

    /// Brokers of Kafka that room events go to, comma-separated [default: off]
    /// [env: RINGCAST_KAFKA_BROKERS; KAFKA_HOST and KAFKA_EXTERNAL_PORT where KAFKA_IS_CONNECT=true]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', help_heading = "Events")]
    kafka_brokers: Vec<String>,

    /// Whether brokers are spoken to over TLS [default: false] [env: RINGCAST_KAFKA_TLS]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = "Events"
    )]
    kafka_tls: Option<String>,

    /// Certificates that brokers are trusted by (PEM file) [default: the system's]
    /// [env: RINGCAST_KAFKA_CA]
    #[arg(long, value_name = "FILE", help_heading = "Events")]
    kafka_ca: Option<String>,

    /// Certificate, with its chain, that is shown to brokers over TLS (PEM file)
    /// [env: RINGCAST_KAFKA_CERT]
    #[arg(long, value_name = "FILE", help_heading = "Events")]
    kafka_cert: Option<String>,

    /// Its key (PEM file) [env: RINGCAST_KAFKA_KEY]
    #[arg(long, value_name = "FILE", help_heading = "Events")]
    kafka_key: Option<String>,

    /// How the password is proven: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 [default: PLAIN]
    /// [env: RINGCAST_KAFKA_MECHANISM]
    #[arg(long, value_name = "MECHANISM", help_heading = "Events")]
    kafka_mechanism: Option<String>,

    /// User for Kafka's SASL [env: RINGCAST_KAFKA_USER, KAFKA_CLIENT_USERS]
    #[arg(long, value_name = "NAME", help_heading = "Events")]
    kafka_user: Option<String>,

    /// Password for Kafka's SASL; the environment or the file hide it better
    /// [env: RINGCAST_KAFKA_PASSWORD, KAFKA_USER_PASSWORD]
    #[arg(long, value_name = "PASSWORD", help_heading = "Events")]
    kafka_password: Option<String>,

    /// Topic of Kafka for the whole log of every room, beside emit_to_chat [default: none]
    /// [env: RINGCAST_KAFKA_ROOM_EVENTS_TOPIC, KAFKA_ROOM_EVENTS_TOPIC]
    #[arg(long, value_name = "TOPIC", help_heading = "Events")]
    kafka_room_events_topic: Option<String>,

    /// Where room events are posted to [default: off] [env: RINGCAST_WEBHOOK_URL]
    #[arg(long, value_name = "URL", help_heading = "Events")]
    webhook_url: Option<String>,

    /// What these posts are signed with; the environment or the file hide it better
    /// [env: RINGCAST_WEBHOOK_SECRET]
    #[arg(long, value_name = "SECRET", help_heading = "Events")]
    webhook_secret: Option<String>,

    /// Certificates that the webhook is trusted by (PEM file) [default: the web's]
    /// [env: RINGCAST_WEBHOOK_CA]
    #[arg(long, value_name = "FILE", help_heading = "Events")]
    webhook_ca: Option<String>,

    /// Folder for events that cannot be delivered yet, for the next start to deliver [default: memory
    /// alone, which a restart or a crash loses]
    /// [env: RINGCAST_SPOOL_DIR, STATE_DIRECTORY]
    #[arg(long, value_name = "FOLDER", help_heading = "Events")]
    spool_dir: Option<String>,

    /// Which log lines, for instance info or ringcast=debug [default: info] [env: RINGCAST_LOG]
    #[arg(long, value_name = "FILTER", help_heading = "Logs")]
    log: Option<String>,

    /// Form of log lines: text or json [default: text] [env: RINGCAST_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT", help_heading = "Logs")]
    log_format: Option<String>,
}

/// Below the flags in `--help`.
pub(crate) const AFTER_HELP: &str = "\
A flag wins over the environment, the environment over the file. Without API keys and \
--allow-anonymous the API listens on loopback only, unless a variable of the replaced service (MEDIASOUP_…, \
FILES_SERVICE_APP_PORT, SWAGGER_PATH) is set: then it listens on all addresses.";

impl Flags {
    /// The values given for a flag; `None` when it was not given.
    pub(super) fn given(&self, name: &str) -> Option<Vec<String>> {
        let one = |value: &Option<String>| value.clone().map(|value| vec![value]);
        let many = |values: &Vec<String>| (!values.is_empty()).then(|| values.clone());
        match name {
            "api-listen" => one(&self.api_listen),
            "allow-anonymous" => one(&self.allow_anonymous),
            "api-keys" => many(&self.api_keys),
            "api-keys-file" => one(&self.api_keys_file),
            "open-metrics" => one(&self.open_metrics),
            "limits" => many(&self.limits),
            "tls-cert" => one(&self.tls_cert),
            "tls-key" => one(&self.tls_key),
            "api-connections" => one(&self.api_connections),
            "api-connections-per-address" => one(&self.api_connections_per_address),
            "trusted-proxies" => many(&self.trusted_proxies),
            "docs-path" => one(&self.docs_path),
            "cors-origins" => many(&self.cors_origins),
            "drain-timeout" => one(&self.drain_timeout),
            "media-port" => one(&self.media_port),
            "media-listen" => many(&self.media_listen),
            "announce" => many(&self.announce),
            "video-codecs" => many(&self.video_codecs),
            "ice-servers" => many(&self.ice_servers),
            "ice-servers-file" => one(&self.ice_servers_file),
            "media-udp" => one(&self.media_udp),
            "media-tcp" => one(&self.media_tcp),
            "shards" => one(&self.shards),
            "pin" => one(&self.pin),
            "runtime" => one(&self.runtime),
            "steer" => one(&self.steer),
            "coalesce-us" => one(&self.coalesce_us),
            "kafka-brokers" => many(&self.kafka_brokers),
            "kafka-tls" => one(&self.kafka_tls),
            "kafka-ca" => one(&self.kafka_ca),
            "kafka-cert" => one(&self.kafka_cert),
            "kafka-key" => one(&self.kafka_key),
            "kafka-mechanism" => one(&self.kafka_mechanism),
            "kafka-user" => one(&self.kafka_user),
            "kafka-password" => one(&self.kafka_password),
            "kafka-room-events-topic" => one(&self.kafka_room_events_topic),
            "webhook-url" => one(&self.webhook_url),
            "webhook-secret" => one(&self.webhook_secret),
            "webhook-ca" => one(&self.webhook_ca),
            "spool-dir" => one(&self.spool_dir),
            "log" => one(&self.log),
            "log-format" => one(&self.log_format),
            _ => None,
        }
    }
}
