//! Load average and number of cores.

use std::fs;

/// How busy the cores are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Load average of one minute: threads that ran or waited for a core or the disk.
    pub last_minute: f64,
    /// Cores that are online.
    pub n_cores: usize,
}

impl Load {
    /// Reads `/proc`; `None` on other systems than Linux.
    pub fn read() -> Option<Self> {
        let of = |file| fs::read_to_string(file).ok();
        Self::parse(&of("/proc/loadavg")?, &of("/proc/stat")?)
    }

    fn parse(loadavg: &str, stat: &str) -> Option<Self> {
        let last_minute = loadavg.split_whitespace().next()?.parse().ok()?;
        let is_core = |line: &&str| {
            let number = line.strip_prefix("cpu");
            number.is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        };
        let n_cores = stat.lines().filter(is_core).count();
        (n_cores > 0).then_some(Self {
            last_minute,
            n_cores,
        })
    }

    /// Whether `n_threads` cores are free. Half a core of background load is tolerated.
    pub fn has_free_cores(&self, n_threads: usize) -> bool {
        self.last_minute + n_threads as f64 <= self.n_cores as f64 + 0.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_and_the_one_minute_load_are_parsed() {
        let stat = "cpu  1 2 3\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
        let load = Load::parse("8.87 8.03 5.51 3/120 4242\n", stat).unwrap();
        assert_eq!((load.last_minute, load.n_cores), (8.87, 2));
        assert!(!load.has_free_cores(1));
        let quiet = Load::parse("0.42 1 1 1/1 1", stat).unwrap();
        assert!(quiet.has_free_cores(2) && !quiet.has_free_cores(3));
        assert_eq!(Load::parse("", stat), None);
        assert_eq!(Load::parse("1 1 1", "cpu 1"), None);
    }
}
