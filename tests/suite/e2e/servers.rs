//! Servers: inside this process, or the built binary with its log.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringcast::config::Config;
use ringcast::server::{Server, ServerError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::disable_transparent_huge_pages;
use tokio::sync::oneshot;

use super::http::Api;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "end-to-end tests live in real time")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

/// A port of UDP and TCP that nobody has and that the kernel gives to nobody who asks for any: it
/// stays free until it is used, and when whoever had it is gone.
pub(crate) fn quiet_port() -> u16 {
    /// Above what the server and others take by default.
    const LOWEST: u32 = 11_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let given_to_any = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let above: u32 = given_to_any.split_whitespace().next().unwrap().parse().unwrap();
    let count = above.saturating_sub(LOWEST).max(1_000);
    loop {
        // Other runs of the tests begin elsewhere.
        let next = GIVEN.fetch_add(1, Ordering::Relaxed) + std::process::id() % 1_000 * 16;
        let port = u16::try_from(LOWEST + next % count).unwrap();
        let at = (Ipv4Addr::UNSPECIFIED, port);
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            return port;
        }
    }
}

/// Loopback of both families, any ports.
const ARGS: [&str; 7] = [
    "ringcast",
    "--api-listen=127.0.0.1:0",
    "--media-port=0",
    "--announce=127.0.0.1",
    "--announce=::1",
    "--pin=false",
    "--log=info",
];

fn with_defaults(args: &[&str]) -> Vec<String> {
    // The last of a flag that is given twice is refused by the parser: leave ours out.
    let name = |arg: &str| arg.split('=').next().unwrap_or_default().to_owned();
    let ours = ARGS.iter().filter(|ours| !args.iter().any(|arg| name(arg) == name(ours)));
    ours.chain(args).map(|arg| (*arg).to_owned()).collect()
}

/// A server on a thread of this process.
pub(crate) struct Hosted {
    pub(crate) api: Api,
    pub(crate) media: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

impl Hosted {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::try_start(args).unwrap()
    }

    pub(crate) fn try_start(args: &[&str]) -> Result<Self, ServerError> {
        let args = with_defaults(args);
        let config = Config::from_args(args.into_iter().map(Into::into), |_| None).unwrap();
        let (tell, told) = channel();
        let (stop, stopping) = oneshot::channel();
        let thread = std::thread::spawn(move || serve(&config, &tell, stopping));
        match told.recv_timeout(PATIENCE) {
            Ok((api, media)) => {
                Ok(Self { api: Api(api), media, stop: Some(stop), thread: Some(thread) })
            }
            Err(_) => Err(thread.join().unwrap().unwrap_err()),
        }
    }

    pub(crate) fn stop(mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

fn serve(
    config: &Config,
    tell: &Sender<(SocketAddr, SocketAddr)>,
    stopping: oneshot::Receiver<()>,
) -> Result<(), ServerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::start(config).await?;
        tell.send((server.api_address().unwrap(), server.media_address())).unwrap();
        let stopping = async {
            let _ = stopping.await;
        };
        server.run(stopping).await
    })
}

/// The built binary; killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    reader: Option<JoinHandle<BufReader<ChildStderr>>>,
    /// The log, when it is not read any more.
    unread: Option<BufReader<ChildStderr>>,
    seen: Vec<String>,
}

impl Process {
    /// Starts it with the arguments of [`ARGS`] where others are not given.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_ringcast")).args(&with_defaults(args)[1..]))
    }

    /// Starts any command, in an environment without settings.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        for name in ["RINGCAST_CONFIG", "RINGCAST_LOG", "RINGCAST_LOG_FORMAT"] {
            command.env_remove(name);
        }
        // Inherited: where the kernel gives huge pages to all, memory would grow by 2 MiB for a byte. A
        // kernel without them refuses.
        let _ = disable_transparent_huge_pages(true);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (tell, lines) = channel();
        let reader = std::thread::spawn(move || {
            let mut log = BufReader::new(stderr);
            for line in log.by_ref().lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
            log
        });
        Self { child, lines, reader: Some(reader), unread: None, seen: Vec::new() }
    }

    /// The API's address, as the log tells it.
    pub(crate) fn api(&mut self) -> Api {
        let line = self.line_with(&["API open"]);
        let digits = |text: &str| -> String {
            text.chars().take_while(|c| !matches!(c, ' ' | '"' | ',')).collect()
        };
        let at = line.split_once("127.0.0.1:").map(|(_, rest)| digits(rest));
        let port: u16 = at.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        Api(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// The media port, as the log tells it.
    pub(crate) fn media_port(&mut self) -> u16 {
        let line = self.line_with(&["media port open"]);
        let at = line.split_once("[::]:").or_else(|| line.split_once("0.0.0.0:"));
        let (_, rest) = at.unwrap_or_else(|| panic!("{line}"));
        let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
        port.parse().unwrap()
    }

    /// The first log line with all of these words, waiting for it.
    pub(crate) fn line_with(&mut self, words: &[&str]) -> String {
        self.find_line(words)
            .unwrap_or_else(|error| panic!("no line with {words:?} ({error}) in {:#?}", self.seen))
    }

    /// The same, or why there is none: the log has ended, or it took too long.
    pub(crate) fn find_line(&mut self, words: &[&str]) -> Result<String, RecvTimeoutError> {
        let has_all = |line: &&String| words.iter().all(|word| line.contains(word));
        if let Some(line) = self.seen.iter().find(has_all) {
            return Ok(line.clone());
        }
        let deadline = clock() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(clock()))?;
            self.seen.push(line.clone());
            if has_all(&&line) {
                return Ok(line);
            }
        }
    }

    /// Leaves its log without a reader once `provoke` has made it write a line.
    pub(crate) fn lose_log_reader(&mut self, provoke: impl FnOnce()) {
        self.leave_log_unread(provoke);
        self.unread = None;
    }

    /// Leaves its log open and unread once `provoke` has made it write a line.
    pub(crate) fn leave_log_unread(&mut self, provoke: impl FnOnce()) {
        drop(std::mem::replace(&mut self.lines, channel().1));
        provoke();
        self.unread = Some(self.reader.take().unwrap().join().unwrap());
    }

    /// Ends without calls, drains with them.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    pub(crate) fn hangup(&self) {
        self.signal("-HUP");
    }

    /// Ends at once.
    pub(crate) fn interrupt(&self) {
        self.signal("-INT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, which closes its log; the log and how it ended.
    pub(crate) fn ended(mut self, within: Duration) -> (Vec<String>, ExitStatus) {
        let deadline = clock() + within;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(clock())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("still running: {:#?}", self.seen),
            }
        }
        let left = deadline.saturating_duration_since(clock());
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        let mut ends = [PollFd::new(&process, PollFlags::IN)];
        let ended = poll(&mut ends, Some(&left.try_into().unwrap())).unwrap();
        assert_eq!(ended, 1, "still running, its log left alone: {:#?}", self.seen);
        let status = self.child.wait().unwrap();
        (std::mem::take(&mut self.seen), status)
    }

    /// True until it ends by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone, where a test waited for its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
