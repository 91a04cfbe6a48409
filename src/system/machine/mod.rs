//! Information about this machine, as Linux reports it.

mod load;
mod thermal;

use std::path::Path;

pub use load::Load;
pub use thermal::Thermal;

/// Model name of the CPU, or of the board where the CPU has no name (most Arm machines).
pub fn cpu_name() -> Option<String> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let model = field(&cpuinfo, "model name");
    model.or_else(|| board(Path::new("/proc/device-tree/model")))
}

/// The value of a line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    });
    value.filter(|v| !v.is_empty())
}

/// A string of the device tree; it ends with NUL.
fn board(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim_end_matches('\0').trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_and_board_names_are_parsed() {
        let x86 = "processor\t: 0\nmodel\t\t: 207\nmodel name\t: A CPU @ 2 GHz\n";
        assert_eq!(field(x86, "model name").as_deref(), Some("A CPU @ 2 GHz"));
        assert_eq!(
            field("processor\t: 0\nFeatures\t: fp asimd\n", "model name"),
            None
        );
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        std::fs::write(&model, "Raspberry Pi 5 Model B Rev 1.0\0").unwrap();
        assert_eq!(
            board(&model).as_deref(),
            Some("Raspberry Pi 5 Model B Rev 1.0")
        );
    }
}
