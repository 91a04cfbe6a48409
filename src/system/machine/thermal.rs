//! Temperature, and throttling by heat or a weak power supply, as far as the system reports them.
//!
//! Virtual machines report nothing, PCs count throttling per core, the Raspberry Pi has a word of flags.

use std::{fs, path::Path, process::Command};

/// Temperature and throttling.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Thermal {
    /// The hottest sensor: name and degrees Celsius.
    pub hottest: Option<(String, f64)>,
    /// How often cores were throttled since boot.
    pub n_throttled: Option<u64>,
    /// Descriptions of the Raspberry Pi's flags that are set.
    pub firmware: Option<Vec<&'static str>>,
    /// The lowest limit of a core's clock rate, as a share of its maximum; `None` without a limit.
    pub clock_limit: Option<f64>,
}

/// Bits of the Raspberry Pi's throttling flags.
const FLAGS: [(u32, &str); 8] = [
    (0, "the supply voltage is too low"),
    (1, "the clock rate is capped"),
    (2, "throttled now"),
    (3, "near the temperature limit"),
    (16, "the supply voltage was too low"),
    (17, "the clock rate was capped"),
    (18, "was throttled"),
    (19, "was near the temperature limit"),
];

impl Thermal {
    /// Reads the state of this machine.
    pub fn read() -> Self {
        let mut thermal = Self::under(Path::new("/"));
        if thermal.firmware.is_none() {
            thermal.firmware = vcgencmd().map(flag_names);
        }
        thermal
    }

    /// Reads the files under `root`.
    fn under(root: &Path) -> Self {
        Self {
            hottest: hottest(&root.join("sys/class/thermal")),
            n_throttled: throttle_counts(&root.join("sys/devices/system/cpu")),
            firmware: firmware(root).map(flag_names),
            clock_limit: clock_limit(&root.join("sys/devices/system/cpu")),
        }
    }

    /// Whether the system reports anything.
    pub fn is_known(&self) -> bool {
        *self != Self::default()
    }

    /// A sentence for each problem; empty if there is none.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = Vec::new();
        if let Some(n) = self.n_throttled.filter(|n| *n > 0) {
            warnings.push(format!("cores were throttled {n} times since boot"));
        }
        let flags = self.firmware.iter().flatten();
        warnings.extend(flags.map(|flag| (*flag).to_owned()));
        if let Some(limit) = self.clock_limit {
            let percent = 100.0 * limit;
            warnings.push(format!(
                "the clock rate is limited to {percent:.0} % of the maximum"
            ));
        }
        warnings
    }
}

fn flag_names(flags: u32) -> Vec<&'static str> {
    let set = FLAGS.iter().filter(|(bit, _)| flags & (1 << bit) != 0);
    set.map(|(_, name)| *name).collect()
}

fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// Directories in `dir` whose names are `prefix` and a number.
fn numbered(dir: &Path, prefix: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_numbered = |name: &str| {
        let number = name.strip_prefix(prefix);
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let matching = entries.filter(|e| e.file_name().to_str().is_some_and(is_numbered));
    matching.map(|e| e.path()).collect()
}

fn hottest(dir: &Path) -> Option<(String, f64)> {
    let zones = numbered(dir, "thermal_zone").into_iter();
    let sensor = |zone: std::path::PathBuf| {
        let millidegrees: f64 = number(&zone.join("temp"))?;
        let name = text(&zone.join("type")).unwrap_or_else(|| "sensor".to_owned());
        Some((name, millidegrees / 1000.0))
    };
    zones.filter_map(sensor).max_by(|a, b| a.1.total_cmp(&b.1))
}

fn throttle_counts(dir: &Path) -> Option<u64> {
    let cores = numbered(dir, "cpu").into_iter();
    let count =
        |core: std::path::PathBuf| number(&core.join("thermal_throttle/core_throttle_count"));
    let counts: Vec<u64> = cores.filter_map(count).collect();
    (!counts.is_empty()).then(|| counts.iter().sum())
}

fn clock_limit(dir: &Path) -> Option<f64> {
    let cores = numbered(dir, "cpu").into_iter();
    let share = |core: std::path::PathBuf| {
        let rate = |name: &str| number::<f64>(&core.join("cpufreq").join(name));
        Some(rate("scaling_max_freq")? / rate("cpuinfo_max_freq")?)
    };
    let least = cores.filter_map(share).fold(1.0, f64::min);
    (least < 0.99).then_some(least)
}

/// The Raspberry Pi's flags where its kernel exposes them.
fn firmware(root: &Path) -> Option<u32> {
    const PATHS: [&str; 2] = [
        "sys/devices/platform/soc/soc:firmware/get_throttled",
        "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled",
    ];
    PATHS.iter().find_map(|path| hex(&text(&root.join(path))?))
}

/// The same flags from the program `vcgencmd`, which prints `throttled=0x50000`.
fn vcgencmd() -> Option<u32> {
    let output = Command::new("vcgencmd")
        .arg("get_throttled")
        .output()
        .ok()?;
    hex(String::from_utf8(output.stdout)
        .ok()?
        .trim()
        .strip_prefix("throttled=")?)
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        root
    }

    #[test]
    fn a_system_that_reports_nothing_has_no_warnings() {
        let thermal = Thermal::under(system(&[]).path());
        assert!(!thermal.is_known() && thermal.warnings().is_empty());
    }

    #[test]
    fn the_hottest_sensor_is_selected_and_counts_are_summed() {
        let root = system(&[
            ("sys/class/thermal/thermal_zone0/temp", "41000\n"),
            ("sys/class/thermal/thermal_zone0/type", "acpitz\n"),
            ("sys/class/thermal/thermal_zone12/temp", "82500\n"),
            ("sys/class/thermal/thermal_zone12/type", "x86_pkg_temp\n"),
            ("sys/class/thermal/cooling_device0/type", "Processor\n"),
            (
                "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
                "2\n",
            ),
            (
                "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count",
                "3\n",
            ),
            ("sys/devices/system/cpu/cpuidle/current_driver", "none\n"),
            (
                "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq",
                "1200000\n",
            ),
            (
                "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
                "2400000\n",
            ),
        ]);
        let thermal = Thermal::under(root.path());
        assert_eq!(thermal.hottest, Some(("x86_pkg_temp".to_owned(), 82.5)));
        assert_eq!(
            (thermal.n_throttled, thermal.clock_limit),
            (Some(5), Some(0.5))
        );
        let warnings = thermal.warnings().join("; ");
        assert!(warnings.contains("throttled 5 times") && warnings.contains("50 %"));
    }

    #[test]
    fn raspberry_pi_flags_are_described() {
        let place = "sys/devices/platform/soc/soc:firmware/get_throttled";
        let well = Thermal::under(system(&[(place, "0\n")]).path());
        assert!(well.is_known() && well.warnings().is_empty());
        let weak = Thermal::under(system(&[(place, "50005\n")]).path());
        assert_eq!(
            weak.warnings(),
            [
                "the supply voltage is too low",
                "throttled now",
                "the supply voltage was too low",
                "was throttled",
            ]
        );
        assert_eq!(hex("0x50005"), Some(0x50005));
    }
}
