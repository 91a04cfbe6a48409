//! Instruction sets: which this CPU has, and which one the kernels use.
//!
//! All detection is here. A [`Cpu`] is the widest set found, or a narrower one that `XC2_SIMD`
//! names. Kernels take their decisions from it alone.

use std::sync::LazyLock;

/// A level of instructions. Within an architecture the levels are ordered by width, and `tile`
/// relies on it: all from [`Self::Avx2`] on have AVX2, all from [`Self::Avx512`] on AVX-512, and
/// all from [`Self::Neon`] on NEON. Levels of another architecture are never available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cpu {
    /// Plain Rust: the reference, and the fallback.
    Scalar,
    /// x86-64: AVX2, FMA and F16C.
    Avx2,
    /// x86-64: AVX2 with 256-bit VNNI (`vpdpbusd`).
    AvxVnni,
    /// x86-64: AVX-512 F, BW, VL, DQ.
    Avx512,
    /// x86-64: AVX-512 with VNNI.
    Avx512Vnni,
    /// x86-64: AVX-512 with VNNI and BF16.
    Avx512Bf16,
    /// x86-64: AVX-512 with VNNI, BF16 and FP16.
    Avx512Fp16,
    /// x86-64: the same with AMX for int8 and bf16.
    Amx,
    /// AArch64: NEON, which every such CPU has.
    Neon,
    /// AArch64: with `sdot` (Cortex-A76, A78AE).
    NeonDotprod,
    /// AArch64: with `sdot`, `smmla` and `bfdot`.
    NeonI8mm,
}

/// All levels that this CPU has, narrowest first. [`Cpu::Scalar`] is always one of them.
pub fn available() -> Vec<Cpu> {
    FOUND.clone()
}

/// Detected once per process.
static FOUND: LazyLock<Vec<Cpu>> = LazyLock::new(|| {
    let mut found = vec![Cpu::Scalar];
    found.extend(arch::detect());
    found
});

static CHOSEN: LazyLock<Cpu> = LazyLock::new(|| {
    let found = available();
    let widest = found[found.len() - 1];
    match std::env::var("XC2_SIMD") {
        Ok(name) => found
            .iter()
            .copied()
            .find(|cpu| cpu.name() == name)
            .unwrap_or(widest),
        Err(_) => widest,
    }
});

impl Cpu {
    /// Every level.
    pub const ALL: [Self; 11] = [
        Self::Scalar,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Avx512Bf16,
        Self::Avx512Fp16,
        Self::Amx,
        Self::Neon,
        Self::NeonDotprod,
        Self::NeonI8mm,
    ];

    /// The level that the kernels of this process use: the widest, or the one that `XC2_SIMD`
    /// names.
    pub fn chosen() -> Self {
        *CHOSEN
    }

    /// Whether this CPU has it.
    pub(crate) fn is_available(self) -> bool {
        FOUND.contains(&self)
    }

    /// Whether one instruction computes bf16 dot products.
    pub fn has_bf16(self) -> bool {
        matches!(
            self,
            Self::Avx512Bf16 | Self::Avx512Fp16 | Self::Amx | Self::NeonI8mm
        )
    }

    /// Whether it has f16 multiply-add.
    pub fn has_f16(self) -> bool {
        matches!(self, Self::Avx512Fp16 | Self::Amx)
    }

    /// The name that `XC2_SIMD` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Avx512Fp16 => "avx512-fp16",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::NeonDotprod => "neon-dotprod",
            Self::NeonI8mm => "neon-i8mm",
        }
    }
}

/// Whether `cpu` multiplies bf16 faster than f32.
///
/// AMD's cores (Zen 4 and 5) do so at twice the speed. Intel's start `vdpbf16ps` only every fourth
/// cycle, which is half the rate of two FMAs per cycle (Emerald Rapids: 86 against 176 GFLOP/s),
/// and leave bf16 to AMX. Arm's cores start `bfdot` as often as `fmla`, for twice as many products.
pub(crate) fn bf16_is_fast(cpu: Cpu) -> bool {
    match cpu {
        Cpu::Avx512Bf16 | Cpu::Avx512Fp16 | Cpu::Amx => *IS_AMD,
        _ => cpu.has_bf16(),
    }
}

static IS_AMD: LazyLock<bool> = LazyLock::new(arch::is_amd);

/// Checks that `XC2_SIMD`, if it is set, names a level that this CPU has.
///
/// # Errors
/// Says what is wrong with the name, and lists the levels that this CPU has.
pub fn check_environment() -> Result<(), String> {
    let Ok(name) = std::env::var("XC2_SIMD") else {
        return Ok(());
    };
    let found = available();
    if found.iter().any(|cpu| cpu.name() == name) {
        return Ok(());
    }
    let names: Vec<_> = found.iter().map(|cpu| cpu.name()).collect();
    let known = Cpu::ALL.iter().any(|cpu| cpu.name() == name);
    let why = if known {
        "this CPU does not have it"
    } else {
        "there is no instruction set of this name"
    };
    Err(format!(
        "XC2_SIMD={name}: {why}; this CPU has {}",
        names.join(", ")
    ))
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use super::Cpu;

    pub fn is_amd() -> bool {
        // SAFETY: every x86-64 CPU has CPUID. (It is a safe function in newer standard libraries.)
        #[allow(unsafe_code, unused_unsafe)]
        let vendor = unsafe { std::arch::x86_64::__cpuid(0) };
        [vendor.ebx, vendor.edx, vendor.ecx]
            == [b"Auth", b"enti", b"cAMD"].map(|s| u32::from_le_bytes(*s))
    }

    pub fn detect() -> impl Iterator<Item = Cpu> {
        macro_rules! has { ($($f:tt),+) => { $(is_x86_feature_detected!($f))&&+ } }
        let avx2 = has!("avx2", "fma", "f16c");
        let avx512 = avx2 && has!("avx512f", "avx512bw", "avx512vl", "avx512dq");
        let vnni = avx512 && has!("avx512vnni");
        let bf16 = vnni && has!("avx512bf16");
        let fp16 = bf16 && has!("avx512fp16");
        [
            (avx2, Cpu::Avx2),
            (avx2 && has!("avxvnni"), Cpu::AvxVnni),
            (avx512, Cpu::Avx512),
            (vnni, Cpu::Avx512Vnni),
            (bf16, Cpu::Avx512Bf16),
            (fp16, Cpu::Avx512Fp16),
            (fp16 && crate::amx::is_available(), Cpu::Amx),
        ]
        .into_iter()
        .filter_map(|(has, cpu)| has.then_some(cpu))
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use super::Cpu;

    pub fn is_amd() -> bool {
        false
    }

    pub fn detect() -> impl Iterator<Item = Cpu> {
        macro_rules! has { ($($f:tt),+) => { $(std::arch::is_aarch64_feature_detected!($f))&&+ } }
        let dotprod = has!("dotprod");
        [
            (true, Cpu::Neon),
            (dotprod, Cpu::NeonDotprod),
            (dotprod && has!("i8mm", "bf16"), Cpu::NeonI8mm),
        ]
        .into_iter()
        .filter_map(|(has, cpu)| has.then_some(cpu))
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    pub fn is_amd() -> bool {
        false
    }

    pub fn detect() -> impl Iterator<Item = super::Cpu> {
        std::iter::empty()
    }
}
