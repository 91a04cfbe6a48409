//! Waiting for other threads: spin while the wait is likely to be short, then sleep.
//!
//! On an idle machine, threads that spin briefly are a third faster than threads that sleep at once. Beside a busy
//! program the opposite holds: the scheduler runs a woken thread before a program that is always busy, while a spinning
//! thread uses up its time slice and is then scheduled last. So the threads measure how long they wait for members that
//! are not running, and sleep at once while that time is long.

use std::{
    hint::spin_loop,
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, SeqCst},
    },
    time::{Duration, Instant},
};

use super::contention;

/// How long a thread spins at a barrier before it sleeps. Sleeping and waking cost 50 µs, in virtual machines several
/// times as much, and nearly all waits are shorter.
const AT_BARRIER: Duration = Duration::from_micros(200);

/// How long an idle thread spins. The next graph of an answer follows when a token has been sampled from the logits,
/// after a millisecond or two.
const BETWEEN_GRAPHS: Duration = Duration::from_millis(4);

/// Spins between two readings of the clock.
const SPINS_PER_CLOCK_READ: u32 = 32;

/// A counter that threads can wait for.
#[derive(Debug, Default)]
pub struct Counter {
    value: AtomicU32,
    sleepers: AtomicU32,
}

impl Counter {
    /// The present value (acquire): other threads' writes before their [`Self::add`] are visible.
    pub fn get(&self) -> u32 {
        self.value.load(Acquire)
    }

    /// Adds `n`, wrapping around, wakes waiting threads, and returns the previous value.
    pub fn add(&self, n: u32) -> u32 {
        // Sequentially consistent, as in `sleep_at`: either the sleeper sees the new value, or this thread sees the
        // sleeper.
        let before = self.value.fetch_add(n, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            atomic_wait::wake_all(&self.value);
        }
        before
    }

    /// Waits until `reached` accepts the value, which running threads are about to change. Returns the duration; zero
    /// if a few spins were sufficient.
    pub fn wait_until(&self, reached: impl Fn(u32) -> bool) -> Duration {
        self.wait(AT_BARRIER, reached)
    }

    /// Waits until `reached` accepts the value, in a thread that has no work until then.
    pub fn idle_until(&self, reached: impl Fn(u32) -> bool) {
        self.wait(BETWEEN_GRAPHS, reached);
    }

    fn wait(&self, spin: Duration, reached: impl Fn(u32) -> bool) -> Duration {
        let mut spins = 0_u32;
        let mut start = None;
        loop {
            let value = self.get();
            if reached(value) {
                return start.map_or(Duration::ZERO, |start: Instant| start.elapsed());
            }
            spins += 1;
            if !spins.is_multiple_of(SPINS_PER_CLOCK_READ) && !contention::is_high() {
                spin_loop();
                continue;
            }
            let waited = start.get_or_insert_with(Instant::now).elapsed();
            if waited >= spin || contention::is_high() {
                self.sleep_at(value);
            }
        }
    }

    /// Sleeps while the value is `value`.
    fn sleep_at(&self, value: u32) {
        self.sleepers.fetch_add(1, SeqCst);
        if self.value.load(SeqCst) == value {
            atomic_wait::wait(&self.value, value);
        }
        self.sleepers.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, thread};

    #[test]
    fn waiting_ends_when_the_value_is_reached_after_any_delay() {
        for pause in [Duration::ZERO, AT_BARRIER / 2, 20 * AT_BARRIER] {
            let counter = Arc::new(Counter::default());
            let waiting: Vec<_> = (0..3)
                .map(|_| {
                    let counter = Arc::clone(&counter);
                    thread::spawn(move || counter.wait_until(|value| value >= 2))
                })
                .collect();
            for before in 0..2 {
                thread::sleep(pause);
                assert_eq!(counter.add(1), before);
            }
            for thread in waiting {
                thread.join().unwrap();
            }
            assert_eq!(counter.sleepers.load(SeqCst), 0);
        }
    }

    #[test]
    fn two_threads_alternate_without_losing_a_wake_up() {
        let counter = Arc::new(Counter::default());
        let other = Arc::clone(&counter);
        let turns = 20_000;
        let play = move |counter: &Counter, parity: u32| {
            for _ in 0..turns {
                counter.wait_until(|value| value % 2 == parity);
                counter.add(1);
            }
        };
        let odd = thread::spawn(move || play(&other, 1));
        play(&counter, 0);
        odd.join().unwrap();
        assert_eq!(counter.get(), 2 * turns);
    }
}
