//! The CPU: which instruction sets are used, which are missing, and whether llama.cpp was compiled for it.

use xc2_edge::language::llama::{self, MatmulBackend};
use xc2_kernels::{Cpu, available};

use super::Finding;

/// Instruction sets and what each adds, narrowest first. Factors are for int8 matrix products, measured on
/// one Intel machine (benches/results) or, on Arm, counted in instructions.
#[cfg(target_arch = "x86_64")]
const LEVELS: [(Cpu, &str); 6] = [
    (
        Cpu::Avx2,
        "vector arithmetic, and our kernels in the decoder",
    ),
    (Cpu::AvxVnni, "int8 products twice as fast as with avx2"),
    (
        Cpu::Avx512Vnni,
        "int8 products four times as fast as with avx2, the decoder's twice as fast",
    ),
    (Cpu::Avx512Bf16, "bf16 products, which are fast on AMD"),
    (
        Cpu::Avx512Fp16,
        "attention in f16, 1.6 times as fast as in f32",
    ),
    (
        Cpu::Amx,
        "the decoder's products of K-quants in AMX, up to 1.8 times as fast as with avx512-vnni",
    ),
];
#[cfg(target_arch = "aarch64")]
const LEVELS: [(Cpu, &str); 2] = [
    (
        Cpu::NeonDotprod,
        "int8 products in 2.6 times fewer instructions than with plain NEON, and our kernels in the decoder",
    ),
    (
        Cpu::NeonI8mm,
        "int8 products in 22 to 32 % fewer instructions, and bf16",
    ),
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const LEVELS: [(Cpu, &str); 0] = [];

/// Which instruction sets are used.
pub fn kernels() -> Finding {
    let (chosen, found) = (Cpu::chosen(), available());
    let widest = found[found.len() - 1];
    if chosen != widest {
        return Finding::warning(
            "kernels",
            format!("{}, though this CPU has {}", chosen.name(), widest.name()),
        )
        .advice("unset XC2_SIMD");
    }
    let missing = LEVELS.iter().filter(|(cpu, _)| !found.contains(cpu));
    // A CPU with AVX-512 VNNI does not need AVX-VNNI.
    let missing = missing.filter(|(cpu, _)| *cpu > chosen);
    let missing: Vec<_> = missing
        .map(|(cpu, gives)| format!("{} ({gives})", cpu.name()))
        .collect();
    let mut text = format!(
        "{}, the widest supported instruction set of this CPU; decoder: {}",
        chosen.name(),
        llama::kernels(MatmulBackend::default())
    );
    if !missing.is_empty() {
        text += &format!("; missing on this CPU: {}", missing.join(", "));
    }
    match chosen {
        Cpu::Scalar => Finding::warning("kernels", text),
        _ => Finding::ok("kernels", text),
    }
}

/// A CPU feature by its name in llama.cpp's system information, and whether the CPU has it.
type Feature = (&'static str, bool);

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<Feature> {
    vec![
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("F16C", is_x86_feature_detected!("f16c")),
        ("AVX_VNNI", is_x86_feature_detected!("avxvnni")),
        ("AVX512", is_x86_feature_detected!("avx512f")),
        ("AVX512_VNNI", is_x86_feature_detected!("avx512vnni")),
        ("AVX512_BF16", is_x86_feature_detected!("avx512bf16")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<Feature> {
    use std::arch::is_aarch64_feature_detected as has;
    vec![
        ("NEON", true),
        ("DOTPROD", has!("dotprod")),
        ("FP16_VA", has!("fp16")),
        ("MATMUL_INT8", has!("i8mm")),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<Feature> {
    Vec::new()
}

/// Whether llama.cpp, which is compiled for one instruction set, was compiled for this CPU.
pub fn build() -> Finding {
    judge_build(&llama::system_info(), &features())
}

/// `info` is llama.cpp's line of compiled features: `CPU : AVX2 = 1 | FMA = 1 | …`.
fn judge_build(info: &str, features: &[Feature]) -> Finding {
    let entries = info
        .split(['|', ':'])
        .filter_map(|entry| entry.split_once('='));
    let compiled: Vec<&str> = entries
        .filter(|(_, value)| value.trim() == "1")
        .map(|(name, _)| name.trim())
        .collect();
    let unused: Vec<&str> = features
        .iter()
        .filter(|(name, has)| *has && !compiled.contains(name))
        .map(|(name, _)| *name)
        .collect();
    if unused.is_empty() {
        return Finding::ok("build", "llama.cpp was compiled for this CPU".to_owned());
    }
    let text = format!(
        "llama.cpp was compiled without {}, which this CPU has: this slows down the decoder",
        unused.join(", ")
    );
    Finding::warning("build", text).advice(
        "build in the repository's folder on this machine: its .cargo/config.toml selects a native build",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn a_build_without_features_of_the_cpu_is_a_warning() {
        let features = [("AVX2", true), ("FMA", true), ("AVX512", false)];
        let native = "CPU : SSE3 = 1 | AVX2 = 1 | FMA = 1 | OPENMP = 1 | ";
        assert_eq!(judge_build(native, &features).level, Level::Ok);
        let baseline = judge_build("CPU : SSE3 = 1 | OPENMP = 1 | ", &features);
        assert_eq!(baseline.level, Level::Warning);
        assert!(
            baseline.text.contains("without AVX2, FMA, which"),
            "{}",
            baseline.text
        );
        let off = judge_build("CPU : AVX2 = 0 | FMA = 1", &features);
        assert!(off.text.contains("without AVX2,"), "{}", off.text);
    }

    #[test]
    fn the_chosen_kernels_are_named() {
        assert!(kernels().text.contains(Cpu::chosen().name()));
    }
}
