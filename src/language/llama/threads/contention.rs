//! Detects contention: other programs that keep the threads of a team from running.

use std::{
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A wait of this length means that a thread is not running: time slices of the scheduler are 1.5 ms and more.
const TIME_SLICE: Duration = Duration::from_millis(1);

/// Contention is high when the time lost in such waits exceeds the tolerated part by this much.
const HIGH: Duration = Duration::from_millis(10);

/// One part in this many of the time may be lost in such waits: every machine has background work, and a virtual one
/// loses its core to others.
const TOLERATED: u32 = 5;

/// How long contention counts as high after it was detected. Threads that sleep at once rarely see long waits, so after
/// this time they spin again to probe. Beside a busy program a probe costs a tenth of a second, so the next period is
/// twice as long each time contention is soon detected again.
const LASTS: Duration = Duration::from_secs(1);
const LASTS_AT_MOST: Duration = Duration::from_secs(8);

/// Contention detected within this time after the last period doubles the next one.
const SOON: Duration = Duration::from_secs(1);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The waits of all teams so far.
static HISTORY: Mutex<History> = Mutex::new(History {
    lost: Lost::NONE,
    period: Period::NONE,
});

/// Microseconds after [`START`] until which contention counts as high; 0 if it does not.
static HIGH_UNTIL: AtomicU64 = AtomicU64::new(0);

/// Time lost in long waits above the tolerated part.
struct Lost {
    time: Duration,
    /// When it was last updated.
    at: Duration,
}

impl Lost {
    const NONE: Self = Self {
        time: Duration::ZERO,
        at: Duration::ZERO,
    };

    /// Adds a wait that ended at `now` and returns whether contention is high.
    fn add(&mut self, wait: Duration, now: Duration) -> bool {
        let tolerated = now.saturating_sub(self.at) / TOLERATED;
        let time = wait + self.time.saturating_sub(tolerated);
        (self.time, self.at) = (time.min(HIGH), now);
        time > HIGH
    }
}

struct History {
    lost: Lost,
    period: Period,
}

/// The last period of high contention.
struct Period {
    end: Duration,
    lasts: Duration,
}

impl Period {
    const NONE: Self = Self {
        end: Duration::ZERO,
        lasts: Duration::ZERO,
    };

    /// Records that contention was high at `now`. Returns until when it counts as high.
    fn extend(&mut self, now: Duration) -> Duration {
        if now > self.end + SOON || self.lasts.is_zero() {
            self.lasts = LASTS;
        } else if now > self.end {
            self.lasts = (2 * self.lasts).min(LASTS_AT_MOST);
        }
        self.end = now + self.lasts;
        self.end
    }
}

/// Records how long one thread of a team waited for the others.
pub fn record_wait(wait: Duration) {
    if wait < TIME_SLICE {
        return;
    }
    let now = START.elapsed();
    let mut history = HISTORY.lock().unwrap_or_else(PoisonError::into_inner);
    if history.lost.add(wait, now) {
        let until = history.period.extend(now);
        HIGH_UNTIL.store(until.as_micros() as u64, Relaxed);
    }
}

/// Whether contention is high.
pub fn is_high() -> bool {
    let until = HIGH_UNTIL.load(Relaxed);
    if until == 0 {
        return false;
    }
    let is_high = START.elapsed().as_micros() as u64 <= until;
    if !is_high {
        // Fails if another thread has detected contention again.
        let _ = HIGH_UNTIL.compare_exchange(until, 0, Relaxed, Relaxed);
    }
    is_high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_grow_while_contention_returns_at_once() {
        let mut period = Period::NONE;
        let mut now = Duration::from_secs(5);
        let mut found_after = |pause: Duration| {
            now += pause;
            let until = period.extend(now);
            let lasts = until - now;
            now = until;
            lasts.as_secs()
        };
        let probe = Duration::from_millis(100);
        assert_eq!([probe; 5].map(&mut found_after), [1, 2, 4, 8, 8]);
        assert_eq!(found_after(2 * SOON), 1, "the machine was idle in between");
    }

    #[test]
    fn contention_detected_within_a_period_extends_it() {
        let mut period = Period::NONE;
        let start = Duration::from_secs(5);
        assert_eq!(period.extend(start), start + LASTS);
        assert_eq!(period.extend(start + LASTS / 2), start + LASTS / 2 + LASTS);
    }

    #[test]
    fn contention_is_high_only_after_many_long_waits() {
        // Waits of this length that end every 5 ms.
        let is_high_after = |waits: u32, wait| {
            let mut lost = Lost::NONE;
            (1..=waits).any(|i| lost.add(wait, i * Duration::from_millis(5)))
        };
        assert!(!is_high_after(2, 2 * TIME_SLICE), "occasional waits");
        assert!(!is_high_after(1000, TIME_SLICE), "a fifth is tolerated");
        assert!(is_high_after(10, 4 * TIME_SLICE));
    }
}
