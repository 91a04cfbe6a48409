//! How much memory a run takes, and how much there is.
//!
//! Too little memory is told before anything is computed, with what would help, because the
//! alternatives are the kernel's out-of-memory killer or a board that swaps for hours.

use crate::{
    container::{Container, View},
    llama::KvType,
    quant::GgmlType,
};

/// What a run needs, in bytes by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryNeed {
    /// The decoder's weights. They are mapped: the pages count, but the system may drop them.
    pub decoder: u64,
    /// Partial-LoRA, which llama.cpp copies.
    pub plora: u64,
    /// Tower and projector, mapped like the decoder.
    pub vision: u64,
    /// Keys and values of the whole context.
    pub kv_cache: u64,
    /// Scratch of the tower and of the decoder's graphs; they never work at the same time.
    pub work: u64,
}

impl MemoryNeed {
    /// What running `container` with this context takes. `vision_work` is the tower's scratch.
    pub fn of(
        container: &Container,
        n_ctx: usize,
        kv_type: KvType,
        n_batch: usize,
        vision_work: usize,
    ) -> Self {
        let mut need = Self::weights(container);
        let decoder = &container.info().decoder;
        let per_position = decoder.kv_elements_per_position();
        need.kv_cache = kv_type.bytes(n_ctx * per_position) as u64;
        need.work = vision_work.max(decode_work(decoder.n_embd, decoder.n_ff, n_batch)) as u64;
        need
    }

    fn weights(container: &Container) -> Self {
        let mut need = Self::default();
        let mut part = &mut need.vision;
        for tensor in container.file().tensors() {
            if tensor.name == View::Adapter.tensor_name() {
                part = &mut need.plora;
            } else if tensor.name == View::Decoder.tensor_name() {
                part = &mut need.decoder;
            }
            *part += tensor.n_bytes().unwrap_or(0) as u64;
        }
        need
    }

    /// All parts together.
    pub fn total(&self) -> u64 {
        self.decoder + self.plora + self.vision + self.kv_cache + self.work
    }
}

/// The decoder's graphs hold a handful of activations of a batch at a time.
fn decode_work(n_embd: usize, n_ff: usize, n_batch: usize) -> usize {
    const ACTIVATIONS: usize = 4;
    let floats = n_batch * (ACTIVATIONS * n_embd + 3 * n_ff);
    floats * size_of::<f32>()
}

/// Memory that this process may still take, in bytes: what the system can give without swapping,
/// or what is left of the control group's limit if that is less. `None` where the system does not
/// tell.
pub fn available() -> Option<u64> {
    let system = meminfo("MemAvailable:");
    match (system, cgroup_left()) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The most memory that this process ever held (peak resident set), in bytes.
pub fn peak() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

fn meminfo(name: &str) -> Option<u64> {
    field("/proc/meminfo", name)
}

/// A line `name  1234 kB` of a file under `/proc`.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|l| l.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn cgroup_left() -> Option<u64> {
    let number = |file: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/sys/fs/cgroup/{file}"))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    number("memory.max")?.checked_sub(number("memory.current")?)
}

/// Bytes as a person reads them: `1.9 GB`.
pub fn human(bytes: u64) -> String {
    const UNITS: [(&str, f64); 3] = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let bytes = bytes as f64;
    match UNITS.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", bytes / size),
        None => format!("{bytes:.0} B"),
    }
}

/// Bytes of all tensors by element type, the largest first.
pub fn by_type(container: &Container) -> Vec<(GgmlType, u64)> {
    let mut sums: Vec<(GgmlType, u64)> = Vec::new();
    for tensor in container.file().tensors() {
        let bytes = tensor.n_bytes().unwrap_or(0) as u64;
        match sums.iter_mut().find(|(ty, _)| *ty == tensor.ty) {
            Some((_, sum)) => *sum += bytes,
            None => sums.push((tensor.ty, bytes)),
        }
    }
    sums.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(human(512), "512 B");
        assert_eq!(human(2_048), "2.0 kB");
        assert_eq!(human(1_234_567_890), "1.2 GB");
    }

    #[test]
    fn this_process_has_a_peak_and_the_system_has_memory() {
        assert!(peak().is_some_and(|bytes| bytes > 1 << 20));
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
