//! Waiting for other threads: spin while the wait is likely to be short, then sleep.
//!
//! On a quiet machine threads that spin for a moment are a third faster than threads that sleep at once. Beside a
//! busy program it is the other way round: a thread that sleeps is run soon after it is woken, before the program
//! that is always busy, while one that spins uses up its time slice and is then behind. So the threads measure how
//! long they wait for members that do not run, and sleep at once while that is much.

use std::{
    hint::spin_loop,
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, SeqCst},
    },
    time::{Duration, Instant},
};

use super::contention;

/// How long a thread spins at a barrier before it sleeps. To sleep and be woken costs 50 µs, in virtual machines several
/// times as much, and nearly all waits are shorter.
const AT_BARRIER: Duration = Duration::from_micros(200);

/// How long a thread spins that has nothing to do. The next graph of an answer comes when a token has been chosen from
/// the logits, in a millisecond or two.
const BETWEEN_GRAPHS: Duration = Duration::from_millis(4);

/// Spins between two looks at the clock.
const SPINS_PER_LOOK: u32 = 32;

/// A counter that threads can wait for.
#[derive(Debug, Default)]
pub struct Counter {
    value: AtomicU32,
    sleepers: AtomicU32,
}

impl Counter {
    /// The present value; what other threads wrote before they added to it is visible.
    pub fn get(&self) -> u32 {
        self.value.load(Acquire)
    }

    /// Adds `n`, wrapping around, wakes those that wait, and returns the value before.
    pub fn add(&self, n: u32) -> u32 {
        // Sequentially consistent, as in `sleep_at`: either the sleeper sees the new value, or this sees the sleeper.
        let before = self.value.fetch_add(n, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            atomic_wait::wake_all(&self.value);
        }
        before
    }

    /// Returns when the value is one that `reached` accepts, which threads that are at work bring about, and how long
    /// that took; zero if a few spins were enough.
    pub fn wait_until(&self, reached: impl Fn(u32) -> bool) -> Duration {
        self.wait(AT_BARRIER, reached)
    }

    /// Returns when the value is one that `reached` accepts, for a thread that has nothing to do until then.
    pub fn idle_until(&self, reached: impl Fn(u32) -> bool) {
        self.wait(BETWEEN_GRAPHS, reached);
    }

    fn wait(&self, spin: Duration, reached: impl Fn(u32) -> bool) -> Duration {
        let mut spins = 0_u32;
        let mut begun = None;
        loop {
            let value = self.get();
            if reached(value) {
                return begun.map_or(Duration::ZERO, |begun: Instant| begun.elapsed());
            }
            spins += 1;
            if !spins.is_multiple_of(SPINS_PER_LOOK) && !contention::is_high() {
                spin_loop();
                continue;
            }
            let waited = begun.get_or_insert_with(Instant::now).elapsed();
            if waited >= spin || contention::is_high() {
                self.sleep_at(value);
            }
        }
    }

    /// Sleeps while the value is this one.
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
    fn waiting_ends_when_the_value_is_reached_however_late() {
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
    fn two_threads_take_turns_without_losing_a_wake_up() {
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
