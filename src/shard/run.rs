//! How a shard's turns follow each other: waiting, on a plain thread or as a task of glommio.
//!
//! Called by the node on the shard's thread. While traffic flows a shard waits with `ppoll` on its
//! descriptors (23–30 µs a cycle); on glommio (60–75 µs) it parks only after
//! [`IDLE_BEFORE_PARK`] without any, so that other tasks of the executor can run. Invariant: it
//! sleeps only after every lane was seen empty with the waker's flag up. The only file that reads
//! the clock.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use glommio::io::PollableFd;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::thread::set_current_timer_slack;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime,
    timerfd_create, timerfd_settime,
};

use super::Shard;
use crate::engine::machine::Machine;
use crate::limits::{IDLE_BEFORE_PARK, RECEIVE_AGE_MAX};

/// Where time enters a shard.
pub(crate) fn clock() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "time enters here and is an argument from here")]
    Instant::now()
}

/// CPU time of this thread so far.
pub(super) fn thread_cpu() -> Duration {
    duration(clock_gettime(ClockId::ThreadCPUTime))
}

fn duration(time: Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Both clocks at one moment, to tell when something happened by the one that knows only the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockPair {
    now: Instant,
    /// Since the Unix epoch.
    wall: Duration,
}

impl ClockPair {
    /// Both clocks now.
    pub(super) fn read() -> Self {
        // In this order: if the thread is held up in between, ages come out longer, never shorter.
        let now = clock();
        Self { now, wall: duration(clock_gettime(ClockId::Realtime)) }
    }

    /// When the kernel stamped what was read just before. A stamp that lies ahead or more than
    /// [`RECEIVE_AGE_MAX`] back is of a clock that was set since; then, and without a stamp, now is
    /// the best that is known.
    pub(super) fn instant_of(&self, stamp: Option<Duration>) -> Instant {
        let age = stamp.and_then(|stamp| self.wall.checked_sub(stamp));
        let age = age.filter(|age| *age <= RECEIVE_AGE_MAX);
        age.and_then(|age| self.now.checked_sub(age)).unwrap_or(self.now)
    }
}

/// Which descriptors the next turn looks at: asking one that has nothing is a system call as well.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    /// Datagrams may be waiting.
    pub(super) udp: bool,
    /// A connection, or bytes of one, may be waiting.
    pub(super) tcp: bool,
}

impl Ready {
    /// Nobody asked.
    pub(super) const ALL: Self = Self { udp: true, tcp: true };
    /// After a turn that did not wait: there were datagrams a moment ago, and TCP has its own turns
    /// ([`TCP_TURNS`](crate::limits::TCP_TURNS)).
    pub(super) const BUSY: Self = Self { udp: true, tcp: false };
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

impl<M: Machine> Shard<M> {
    /// Runs until the node stops it, on a plain thread.
    pub(crate) fn run_plain(mut self) {
        self.sharpen_sleep();
        let mut now = clock();
        while !self.is_stopping() {
            let more = self.turn(now);
            now = self.end_turn(now);
            if !more {
                let deadline = self.deadline();
                self.wait(now, deadline);
                now = clock();
            }
        }
        self.finish();
    }

    /// Runs until the node stops it, as a task of a glommio executor.
    ///
    /// # Errors
    /// When the process has no descriptor left to park on.
    pub(crate) async fn run_on_glommio(mut self) -> io::Result<()> {
        self.on_glommio = true;
        self.sharpen_sleep();
        let bed = Bed::new(&self)?;
        let park = PollableFd::new(Epoll(bed.epoll.as_raw_fd()))
            .map_err(|error| io::Error::other(error.to_string()))?;
        let mut now = clock();
        while !self.is_stopping() {
            let more = self.turn(now);
            now = self.end_turn(now);
            if !more {
                let deadline = self.deadline();
                // From the end of the turn: a long one is no sign of idleness.
                let idle = now + IDLE_BEFORE_PARK;
                if !self.wait(now, deadline.min(idle)) && idle < deadline {
                    self.park(&bed, &park, deadline).await;
                }
                now = clock();
            }
            glommio::executor().yield_if_needed().await;
        }
        self.finish();
        Ok(())
    }

    /// The last turn: what is due is still sent.
    fn finish(&mut self) {
        self.turn(clock());
    }

    /// Notes how long the turn took that began at `now`; the time at which it ends.
    fn end_turn(&mut self, now: Instant) -> Instant {
        let end = clock();
        let took = end.saturating_duration_since(now).as_nanos();
        self.turns.record(u64::try_from(took).unwrap_or(u64::MAX));
        end
    }

    /// Waits from `start` for a descriptor, a lane or the deadline; false when nothing but time
    /// came.
    fn wait(&mut self, start: Instant, deadline: Instant) -> bool {
        self.waker.prepare_sleep();
        if self.is_wanted() {
            self.waker.awake();
            return true;
        }
        self.io.sleeps += 1;
        let gathering = self.gathering.take_until(start);
        let until = gathering.map_or(deadline, |until| until.min(deadline));
        let timeout = timespec(until.saturating_duration_since(start));
        let mut fds = [
            PollFd::new(&self.waker, PollFlags::IN),
            PollFd::new(&self.tcp, PollFlags::IN),
            PollFd::new(&self.udp, PollFlags::IN),
        ];
        let heard = if gathering.is_some() { &mut fds[..2] } else { &mut fds[..] };
        // A signal ends the wait early; the turn that follows finds nothing.
        let ready = poll(heard, Some(&timeout)).unwrap_or(1);
        let mut end = clock();
        let heard_udp = !fds[2].revents().is_empty();
        let hold = if heard_udp { self.gathering.hold(start, end) } else { None };
        if let Some(hold) = hold {
            let timeout = timespec(hold.min(deadline).saturating_duration_since(end));
            let _ = poll(&mut fds[..2], Some(&timeout));
            end = clock();
        }
        let [lane, tcp, _] = fds;
        // Awake for whatever reason, it takes the datagrams along that have gathered.
        let has_gathered = gathering.is_some() || heard_udp;
        self.ready = Ready { udp: has_gathered, tcp: !tcp.revents().is_empty() };
        self.waker.awake();
        if !lane.revents().is_empty() {
            self.waker.drain();
        }
        self.waited += end.saturating_duration_since(start);
        match hold {
            Some(_) => self.gathering.note_held(end),
            None => self.gathering.note_wake(end, gathering.is_some()),
        }
        ready > 0 || gathering.is_some()
    }

    /// Sleeps no longer than it is to: by default the kernel may add 50 µs.
    fn sharpen_sleep(&self) {
        if !self.gathering.span().is_zero() {
            // Refused, the sleeps are longer, and nothing else changes.
            let _ = set_current_timer_slack(NonZeroU64::new(1));
        }
    }

    /// Gives the thread to the executor until a descriptor, a lane or the deadline.
    async fn park(&mut self, bed: &Bed, park: &PollableFd<Epoll>, deadline: Instant) {
        let start = clock();
        self.waker.prepare_sleep();
        if self.is_wanted() {
            self.waker.awake();
            return;
        }
        self.io.sleeps += 1;
        self.ready = Ready::ALL;
        // At least a nanosecond: zero would disarm the timer.
        let left = deadline.saturating_duration_since(start).max(Duration::from_nanos(1));
        let parked = match bed.set_timer(left) {
            Ok(()) => park.readable().await.is_ok(),
            Err(_) => false,
        };
        self.waker.awake();
        self.waker.drain();
        // Also makes the timer unreadable. Failing to park costs speed, not correctness: `wait`
        // is next.
        let _ = bed.set_timer(Duration::ZERO);
        debug_assert!(parked, "the reactor outlives its task, and the timer its shard");
        self.waited += clock().saturating_duration_since(start);
    }
}

/// What a parked shard sleeps on: its descriptors and a timer behind one descriptor.
struct Bed {
    epoll: OwnedFd,
    timer: OwnedFd,
}

impl Bed {
    fn new<M>(shard: &Shard<M>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let fds = [shard.udp.as_fd(), shard.waker.as_fd(), shard.tcp.as_fd(), timer.as_fd()];
        for fd in fds {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        Ok(Self { epoll, timer })
    }

    fn set_timer(&self, left: Duration) -> io::Result<()> {
        let once = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(left) };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

/// The descriptor glommio polls; owned by the [`Bed`], which outlives the wait.
struct Epoll(RawFd);

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_believed_unless_the_clock_was_set() {
        let pair = ClockPair { now: clock(), wall: Duration::from_secs(1_700_000_000) };
        let back = |age| pair.instant_of(Some(pair.wall - age));
        assert_eq!(back(Duration::ZERO), pair.now);
        assert_eq!(back(Duration::from_micros(70)), pair.now - Duration::from_micros(70));
        assert_eq!(back(RECEIVE_AGE_MAX), pair.now - RECEIVE_AGE_MAX);
        assert_eq!(back(RECEIVE_AGE_MAX + Duration::from_nanos(1)), pair.now, "too old");
        assert_eq!(pair.instant_of(Some(pair.wall + Duration::from_nanos(1))), pair.now, "ahead");
        assert_eq!(pair.instant_of(Some(Duration::ZERO)), pair.now);
        assert_eq!(pair.instant_of(None), pair.now);
    }
}
