//! How much memory a run takes, and how much there is.
//!
//! Too little memory is told before anything is computed, with what would help, because the
//! alternatives are the kernel's out-of-memory killer or a board that swaps for hours.

mod remedy;

use std::path::Path;

pub use remedy::{Remedy, Shape, remedies, smaller_model};

use crate::{
    container::{Container, View},
    gguf::TensorInfo,
    llama::KvType,
    quant::GgmlType,
};

/// What a run is, as far as its memory goes.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Positions of the context.
    pub n_ctx: usize,
    /// Positions computed at once.
    pub n_batch: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// Whether llama.cpp rearranges weights for its kernels.
    pub repack: bool,
    /// What pictures take, if any come. Without them neither tower nor adapter is touched.
    pub pictures: Option<PictureLoad>,
}

/// What pictures take besides weights and positions.
#[derive(Clone, Copy, Debug, Default)]
pub struct PictureLoad {
    /// Bytes of the tower's scratch, a picture's embeddings among them.
    pub work: usize,
    /// Bytes of further embeddings that are kept.
    pub embeddings: usize,
    /// Positions whose keys and values are copied on their way to or from the cache on disk.
    pub n_copied: usize,
}

/// What a run needs, in bytes by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryNeed {
    /// The decoder's weights. They are mapped: the pages count, but the system may drop them.
    pub decoder: u64,
    /// llama.cpp's second copy of those that it rearranges.
    pub repacked: u64,
    /// Partial-LoRA, which llama.cpp copies.
    pub plora: u64,
    /// Tower and projector, mapped like the decoder.
    pub vision: u64,
    /// The program itself.
    pub program: u64,
    /// llama.cpp's tables of the vocabulary.
    pub vocabulary: u64,
    /// Keys and values of the whole context.
    pub kv_cache: u64,
    /// Scratch of the tower and of the decoder's graphs; they never work at the same time.
    pub work: u64,
    /// Embeddings of pictures that are kept, and the copy of keys and values that goes to the cache on
    /// disk or comes from there.
    pub kept: u64,
}

impl MemoryNeed {
    /// What running `container` takes.
    pub fn of(container: &Container, load: Workload) -> Self {
        let mut need = Self::weights(container, load.repack);
        let decoder = &container.info().decoder;
        let n_cells = load.n_ctx.next_multiple_of(KV_CELLS);
        let per_cell = decoder.kv_elements_per_position();
        let decode_work = decode_work(decoder.n_embd, decoder.n_ff, load.n_batch);
        need.program = PROGRAM_BYTES;
        need.vocabulary = (decoder.n_vocab * PIECE_BYTES) as u64;
        need.kv_cache = load.kv_type.bytes(n_cells * per_cell) as u64;
        need.work = decode_work as u64;
        match load.pictures {
            Some(pictures) => {
                let copy = load.kv_type.bytes(pictures.n_copied * per_cell);
                need.work = need.work.max(pictures.work as u64);
                need.kept = (pictures.embeddings + copy) as u64;
            }
            None => (need.vision, need.plora) = (0, 0),
        }
        need
    }

    fn weights(container: &Container, repack: bool) -> Self {
        let mut need = Self::default();
        let mut view = None;
        for tensor in container.file().tensors() {
            let begins = |v: &View| v.tensor_name() == tensor.name;
            view = [View::Adapter, View::Decoder]
                .into_iter()
                .find(begins)
                .or(view);
            let bytes = tensor.n_bytes().unwrap_or(0) as u64;
            match view {
                None => need.vision += bytes,
                Some(View::Adapter) => need.plora += bytes,
                Some(View::Decoder) => {
                    need.decoder += bytes;
                    need.repacked += if repack && is_repacked(tensor) {
                        bytes
                    } else {
                        0
                    };
                }
            }
        }
        need
    }

    /// The weights in all their forms.
    pub fn all_weights(&self) -> u64 {
        self.decoder + self.repacked + self.plora + self.vision
    }

    /// What is neither weights nor keys and values.
    pub fn rest(&self) -> u64 {
        self.program + self.vocabulary + self.work + self.kept
    }

    /// All parts together.
    pub fn total(&self) -> u64 {
        self.all_weights() + self.kv_cache + self.rest()
    }

    /// What [`peak`] will tell of a run with a mapped file of `file_bytes`. llama.cpp touches the whole
    /// file while it loads, tower and adapter included, and then lets go of them: pages that the
    /// system may drop, so they are not needed, but it counts them.
    pub fn peak_resident(&self, file_bytes: u64) -> u64 {
        let loading = file_bytes + self.repacked + self.vocabulary + self.program;
        loading.max(self.total())
    }
}

/// llama.cpp rounds a context up to a multiple of this.
const KV_CELLS: usize = 256;

/// What a run takes whatever the model, measured on x86-64: 14.7 MB of this program's file and of the
/// libraries under it (code and tables that are used, mapped), 0.9 MB of data that are relocated or written
/// when it starts, 0.9 MB of llama.cpp's and our own tables of models, tensors and threads.
const PROGRAM_BYTES: u64 = 16_500_000;

/// What llama.cpp keeps for a piece of the vocabulary, measured: its text, twice, in two hash
/// tables.
const PIECE_BYTES: usize = 550;

/// Whether llama.cpp has kernels for a rearranged form of a decoder's tensor. The embeddings are
/// looked up, not multiplied, and stay as they are.
fn is_repacked(tensor: &TensorInfo) -> bool {
    let everywhere = matches!(tensor.ty, GgmlType::Q4_0 | GgmlType::Q4_K);
    let here = if cfg!(target_arch = "x86_64") {
        tensor.ty == GgmlType::Q2_K
    } else {
        matches!(tensor.ty, GgmlType::Q5_K | GgmlType::Q6_K | GgmlType::Q8_0)
    };
    (everywhere || here) && tensor.shape.len() == 2 && tensor.name != "token_embd.weight"
}

/// The decoder's graphs hold a handful of activations of a batch at a time, and in int8 with their scales
/// and sums (11 bytes for 8) those of one wide product or of a narrow one in two formats.
fn decode_work(n_embd: usize, n_ff: usize, n_batch: usize) -> usize {
    const ACTIVATIONS: usize = 4;
    let floats = n_batch * (ACTIVATIONS * n_embd + 3 * n_ff);
    floats * size_of::<f32>() + n_batch * n_ff.max(2 * n_embd) * 11 / 8
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

/// Memory of the whole machine, in bytes.
pub fn installed() -> Option<u64> {
    meminfo("MemTotal:")
}

/// The most memory that this process ever held (peak resident set), in bytes.
pub fn peak() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// What this process holds now (resident set), in bytes.
pub fn resident() -> Option<u64> {
    field("/proc/self/status", "VmRSS:")
}

/// Makes [`peak`] begin again from what is held now. Where the system refuses, it goes on as it was.
pub fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
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

/// What is left of the tightest limit of this process's control group (version 2) or of those above
/// it. File pages that the group may drop count as left.
fn cgroup_left() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = Path::new("/sys/fs/cgroup").join(own);
    let up_to_root = own
        .ancestors()
        .take_while(|dir| dir.starts_with("/sys/fs/cgroup"));
    up_to_root.filter_map(group_left).min()
}

fn group_left(group: &Path) -> Option<u64> {
    let number = |file: &str| -> Option<u64> {
        std::fs::read_to_string(group.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let stat = group.join("memory.stat");
    let pages = |name: &str| {
        let text = std::fs::read_to_string(&stat).ok()?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse::<u64>().ok()
    };
    let file_pages = pages("inactive_file").unwrap_or(0) + pages("active_file").unwrap_or(0);
    let used = number("memory.current")?.saturating_sub(file_pages);
    Some(number("memory.max")?.saturating_sub(used)) // "max", no limit, is no number
}

/// Bytes as a person writes them: `1.9GB`, `500 MB`, `2GiB`, or a plain number.
///
/// # Errors
/// Says what is expected.
pub fn parse(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 7] = [
        ("GiB", 1073741824.0),
        ("MiB", 1048576.0),
        ("GB", 1e9),
        ("MB", 1e6),
        ("G", 1e9),
        ("M", 1e6),
        ("B", 1.0),
    ];
    let text = text.trim();
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, size) = unit.map_or((text, 1.0), |(unit, size)| {
        (text.trim_end_matches(unit).trim_end(), *size)
    });
    let number = number
        .parse()
        .ok()
        .filter(|n: &f64| n.is_finite() && *n >= 0.0);
    let bytes = number.map(|n| (n * size) as u64);
    bytes.ok_or_else(|| "expected a size, for example 1.5GB or 800MB".to_owned())
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

/// Bytes of the tensors that `which` names by element type, the largest first.
pub fn by_type(container: &Container, which: impl Fn(&str) -> bool) -> Vec<(GgmlType, u64)> {
    let mut sums: Vec<(GgmlType, u64)> = Vec::new();
    for tensor in container.file().tensors() {
        let bytes = tensor.n_bytes().unwrap_or(0) as u64;
        match sums.iter_mut().find(|(ty, _)| *ty == tensor.ty) {
            _ if !which(&tensor.name) => {}
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
    fn only_products_of_some_types_are_repacked() {
        let matrix = |name: &str, ty| TensorInfo::new(name, ty, [256, 8]);
        assert!(is_repacked(&matrix("blk.0.ffn_up.weight", GgmlType::Q4_K)));
        assert!(!is_repacked(&matrix("blk.0.ffn_up.weight", GgmlType::F16)));
        assert!(!is_repacked(&matrix("token_embd.weight", GgmlType::Q4_K)));
        let norm = TensorInfo::new("blk.0.attn_norm.weight", GgmlType::F32, [256]);
        assert!(!is_repacked(&norm));
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(human(512), "512 B");
        assert_eq!(human(2_048), "2.0 kB");
        assert_eq!(human(1_234_567_890), "1.2 GB");
    }

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in [
            ("1.5GB", 1_500_000_000),
            ("800 MB", 800_000_000),
            ("2GiB", 2 << 30),
            ("3G", 3_000_000_000),
            ("512", 512),
            ("64B", 64),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "-1GB", "much", "1.5XB", "infGB"] {
            assert!(parse(text).unwrap_err().contains("1.5GB"), "{text}");
        }
    }

    #[test]
    fn this_process_has_a_peak_and_the_system_has_memory() {
        assert!(peak().is_some_and(|bytes| bytes > 1 << 20));
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
