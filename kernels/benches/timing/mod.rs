//! Measures a run in wall time and in CPU time.
#![allow(dead_code)]

use std::time::Instant;

/// Seconds that a run took.
#[derive(Clone, Copy)]
pub struct Time {
    /// Wall time of the fastest run.
    pub wall: f64,
    /// CPU time per thread, the mean of all runs: the wall time if nothing else ran. Equal to the
    /// wall time if the system does not report it.
    pub cpu: f64,
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let (wall, cpu) = (self.wall * 1e3, self.cpu * 1e3);
        write!(f, "{wall:7.2} ms wall, {cpu:7.2} ms CPU per thread")
    }
}

/// Measures `times` runs, after one that does not count.
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

/// CPU time of this process. Linux reports it in hundredths of a second, so it takes many runs.
fn cpu_seconds() -> Option<f64> {
    let line = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The process name may contain spaces. After it, user and system time are the 12th and 13th
    // fields.
    let fields = line.rsplit_once(") ")?.1.split(' ');
    let ticks = fields.skip(11).take(2).map(str::parse::<f64>);
    ticks
        .sum::<Result<f64, _>>()
        .ok()
        .map(|ticks| ticks / 100.0)
}
