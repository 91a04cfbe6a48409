//! How long a run takes, by the clock and of the processor.
#![allow(dead_code)]

use std::time::Instant;

/// Seconds that a run took.
#[derive(Clone, Copy)]
pub struct Time {
    /// By the clock, the shortest run.
    pub wall: f64,
    /// Of the processor, for each thread: the mean of all runs, and what the clock would show if
    /// nothing else ran. The clock's, where the system does not tell.
    pub cpu: f64,
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let (wall, cpu) = (self.wall * 1e3, self.cpu * 1e3);
        write!(
            f,
            "{wall:7.2} ms by the clock, {cpu:7.2} ms of CPU a thread"
        )
    }
}

/// Times `times` runs, after one that is not counted.
pub fn measure(times: usize, mut run: impl FnMut()) -> Time {
    run();
    let before = cpu_seconds();
    let mut wall = f64::INFINITY;
    for _ in 0..times {
        let start = Instant::now();
        run();
        wall = wall.min(start.elapsed().as_secs_f64());
    }
    let shares = (times * rayon::current_num_threads()) as f64;
    let cpu = before
        .zip(cpu_seconds())
        .map_or(wall, |(before, after)| (after - before) / shares);
    Time { wall, cpu }
}

/// What this process has used of the processor, as Linux tells: in hundredths, hence over many runs.
fn cpu_seconds() -> Option<f64> {
    let line = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before may hold spaces; of what follows it, user and system time are 12th and 13th.
    let fields = line.rsplit_once(") ")?.1.split(' ');
    let ticks = fields.skip(11).take(2).map(str::parse::<f64>);
    ticks
        .sum::<Result<f64, _>>()
        .ok()
        .map(|ticks| ticks / 100.0)
}
