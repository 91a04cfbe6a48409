//! Whether other programs keep threads that are waited for from running.

use std::{
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A wait of this length is one for a thread that does not run: time slices of the scheduler are 1.5 ms and more.
const TIME_SLICE: Duration = Duration::from_millis(1);

/// Contention is high when such waits have been this much more than [`TOLERATED`].
const HIGH: Duration = Duration::from_millis(10);

/// One part in so many of the time that may be lost in such waits: all machines do something now and then, and a
/// virtual one loses its core to others.
const TOLERATED: u32 = 5;

/// How long it counts as high after it was.
const LASTS: Duration = Duration::from_secs(1);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Waits of the teams so far.
static LOST: Mutex<Lost> = Mutex::new(Lost::NONE);

/// Microseconds after the start until which contention counts as high; 0 if it does not.
static HIGH_UNTIL: AtomicU64 = AtomicU64::new(0);

/// Time lost in long waits, above what is tolerated.
struct Lost {
    time: Duration,
    /// When it was last reckoned.
    at: Duration,
}

impl Lost {
    const NONE: Self = Self {
        time: Duration::ZERO,
        at: Duration::ZERO,
    };

    /// Adds a wait that ended at `now`, and says whether contention is high.
    fn add(&mut self, wait: Duration, now: Duration) -> bool {
        let tolerated = now.saturating_sub(self.at) / TOLERATED;
        let time = wait + self.time.saturating_sub(tolerated);
        (self.time, self.at) = (time.min(HIGH), now);
        time > HIGH
    }
}

/// Takes note of how long one thread of a team waited for the others.
pub fn waited(wait: Duration) {
    if wait < TIME_SLICE {
        return;
    }
    let now = START.elapsed();
    let mut lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
    if lost.add(wait, now) {
        HIGH_UNTIL.store((now + LASTS).as_micros() as u64, Relaxed);
    }
}

/// Whether other programs want the cores as well.
pub fn is_high() -> bool {
    let until = HIGH_UNTIL.load(Relaxed);
    if until == 0 {
        return false;
    }
    let is_high = START.elapsed().as_micros() as u64 <= until;
    if !is_high {
        // Unless another thread found it high again.
        let _ = HIGH_UNTIL.compare_exchange(until, 0, Relaxed, Relaxed);
    }
    is_high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_many_long_waits() {
        // Waits of this length that end every 5 ms.
        let is_high_after = |waits: u32, wait| {
            let mut lost = Lost::NONE;
            (1..=waits).any(|i| lost.add(wait, i * Duration::from_millis(5)))
        };
        assert!(!is_high_after(2, 2 * TIME_SLICE), "now and then");
        assert!(!is_high_after(1000, TIME_SLICE), "a fifth is tolerated");
        assert!(is_high_after(10, 4 * TIME_SLICE));
    }
}
