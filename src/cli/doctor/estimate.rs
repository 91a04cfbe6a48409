//! Estimates the time per picture from the speed of a few small kernels on this machine.
//!
//! The shares below say how much of those kernels' speed the 1.8B model reached: a value between those of one
//! Intel and one AMD machine with AVX-512 VNNI, or that of one Intel machine where noted (group `doctor` in
//! benches/results). Other work on the machine, heat and long answers change the result. `xc2-edge bench`
//! measures the model itself.

use std::time::{Duration, Instant};

use half::f16;
use ndarray::Array2;
use xc2_edge::{
    engine::EngineOptions,
    engine::memory::MemoryNeed,
    language::llama::{self, MatmulBackend},
    model::{container::Container, quant::GgmlType},
    vision::Precision,
};
use xc2_kernels::{
    Cpu,
    float::{self, Float16Slice, FloatKernel, FloatMatrix},
    peak,
    quantized::{self, QuantFormat, QuantizedKernel, QuantizedMatrix},
};

use crate::cli::arithmetic::{Arithmetic, decoder_operations, decoder_type, plora_operations};

/// Share of the product rate that the whole tower reaches; attention and norms take the rest.
const TOWER_SHARE: f64 = 0.78;
/// Share of the product rate that prefill reaches with our kernels.
const PREFILL_SHARE: f64 = 0.8;
/// The same with AMX, which the tower does not use; one Intel machine.
const PREFILL_SHARE_AMX: f64 = 1.05;
/// The same with weights of 16 or 32 bits; one Intel machine.
const PREFILL_SHARE_FLOAT: f64 = 0.56;
/// The same with AVX2, where products with 4-bit weights are faster than the tower's; one Intel machine.
const PREFILL_SHARE_AVX2: f64 = 1.07;
/// Share that prefill reaches with llama.cpp's kernels, of the rate of our kernel for [`llama_cpp_like`] with
/// the tower's Q8_0; one Intel machine.
const LLAMA_CPP_SHARE: f64 = 1.36;
/// Share of the memory read rate that decoding reaches.
const DECODE_SHARE: f64 = 0.75;
/// Additional seconds per layer and token in decoding, measured with the bundled model.
const DECODE_LAYER_S: f64 = 1e-4;

/// Rows, inputs and outputs of the measured product, similar to the tower's.
const SHAPE: (usize, usize, usize) = (512, 1024, 1024);
/// Duration of a measurement of `doctor`.
const TIME: Duration = Duration::from_millis(800);

/// Expected speed of a model on this machine.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Estimate {
    /// Operations per second of a product in the tower's arithmetic, all threads.
    pub product_ops_per_s: f64,
    /// Bytes per second read from memory, all threads.
    pub memory_bytes_per_s: f64,
    /// Seconds to encode a picture.
    pub encode_s: f64,
    /// Seconds of prefill for a picture's positions.
    pub prefill_s: f64,
    /// Decoded tokens per second.
    pub decode_tokens_per_s: f64,
}

impl Estimate {
    /// Measures for about a second on rayon's pool of `n_threads`. A picture in tiles has as many as the published
    /// code allows.
    pub fn new(container: &Container, precision: Precision, n_threads: usize) -> Self {
        let rates = PictureRates::measure(container, precision, TIME);
        let memory_bytes_per_s = peak::memory_read(n_threads);
        let vision = &container.info().vision;
        let n_inputs = vision.tiling.map_or(1, |t| t.default_hd_num() as usize + 1);
        Self {
            product_ops_per_s: rates.product_ops_per_s,
            memory_bytes_per_s,
            encode_s: rates.encode_s(container, n_inputs),
            prefill_s: rates.prefill_s(container, vision.n_usual_embeddings()),
            decode_tokens_per_s: 1.0 / decode_s(container, memory_bytes_per_s),
        }
    }
}

/// Rates of the two stages that a picture takes.
#[derive(Clone, Copy, Debug)]
pub struct PictureRates {
    product_ops_per_s: f64,
    prefill_ops_per_s: f64,
}

impl PictureRates {
    /// Measures each product that differs for `time`.
    pub fn measure(container: &Container, precision: Precision, time: Duration) -> Self {
        let tower = Arithmetic::of_tower(container, precision);
        let product_ops_per_s = product_rate(tower, Cpu::chosen(), time);
        Self {
            product_ops_per_s,
            prefill_ops_per_s: prefill_rate(container, tower, product_ops_per_s, time),
        }
    }

    /// Seconds for `n` inputs of the tower.
    pub fn encode_s(&self, container: &Container, n: usize) -> f64 {
        n as f64 * container.info().vision.flops() / (TOWER_SHARE * self.product_ops_per_s)
    }

    /// Seconds for `n` positions of pictures in the decoder.
    pub fn prefill_s(&self, container: &Container, n: usize) -> f64 {
        let operations = decoder_operations(container) + plora_operations(container);
        n as f64 * operations / self.prefill_ops_per_s
    }
}

/// Operations per second of prefill, if the tower's products reach `tower_rate`.
fn prefill_rate(container: &Container, tower: Arithmetic, tower_rate: f64, time: Duration) -> f64 {
    let arithmetic = Arithmetic::of_decoder(container);
    let is_ours = llama::available_backend(MatmulBackend::default()) == MatmulBackend::Xc2;
    let (share, cpu) = match arithmetic {
        Arithmetic::Int8 if !is_ours => (LLAMA_CPP_SHARE, llama_cpp_like()),
        Arithmetic::Int8 if matches!(Cpu::chosen(), Cpu::Avx2 | Cpu::Avx512) => {
            (PREFILL_SHARE_AVX2, Cpu::chosen())
        }
        Arithmetic::Int8 if is_in_tiles(container) => (PREFILL_SHARE_AMX, Cpu::chosen()),
        Arithmetic::Int8 => (PREFILL_SHARE, Cpu::chosen()),
        _ => (PREFILL_SHARE_FLOAT, Cpu::chosen()),
    };
    let rate = match (arithmetic, cpu) == (tower, Cpu::chosen()) {
        true => tower_rate,
        false => product_rate(arithmetic, cpu, time),
    };
    share * rate
}

/// Whether AMX computes most of the decoder's products.
fn is_in_tiles(container: &Container) -> bool {
    use GgmlType::{Q4_K, Q5_K, Q6_K};
    Cpu::chosen() == Cpu::Amx && matches!(decoder_type(container), Some(Q4_K | Q5_K | Q6_K))
}

/// The instruction set that llama.cpp uses for quantized matrices: on x86-64 without VNNI.
fn llama_cpp_like() -> Cpu {
    match Cpu::chosen() {
        chosen if cfg!(target_arch = "x86_64") => chosen.min(Cpu::Avx2),
        chosen => chosen,
    }
}

/// Seconds per token.
fn decode_s(container: &Container, memory_bytes_per_s: f64) -> f64 {
    let layers = DECODE_LAYER_S * container.info().decoder.n_layer as f64;
    layers + decoder_bytes(container) / (DECODE_SHARE * memory_bytes_per_s)
}

fn decoder_bytes(container: &Container) -> f64 {
    MemoryNeed::of(container, EngineOptions::default().workload(1, 1, None)).decoder as f64
}

/// Operations per second of a product; BF16 without fast instructions is multiplied in f32.
fn product_rate(arithmetic: Arithmetic, cpu: Cpu, time: Duration) -> f64 {
    let (m, k, n) = SHAPE;
    let x = Array2::from_shape_fn((m, k), |(i, j)| ((i * 7 + j * 3) % 17) as f32 / 17.0 - 0.5);
    let mut out = Array2::zeros((m, n));
    let operations = 2.0 * (m * k * n) as f64;
    if arithmetic == Arithmetic::Int8 {
        // Scales near 0.01, arbitrary values.
        let format = QuantFormat::Q8_0;
        let byte = |i: usize| match i % format.block_bytes() {
            0 => 0x00,
            1 => 0x21,
            _ => (i * 31) as u8,
        };
        let weights: Vec<u8> = (0..n * k / format.block_len() * format.block_bytes())
            .map(byte)
            .collect();
        let matrix = QuantizedMatrix::new(format, &weights, n, k).expect("the shape's bytes");
        let kernel = QuantizedKernel::for_cpu(cpu);
        return operations
            / best(time, || {
                quantized::matmul(&x.view(), matrix, kernel, out.view_mut());
            });
    }
    let weights = vec![f16::from_f32(0.5); n * k];
    let matrix = FloatMatrix::new(Float16Slice::F16(&weights), n, k).expect("the shape's numbers");
    let kernel = FloatKernel::in_f32(cpu);
    operations
        / best(time, || {
            float::matmul(&x.view(), matrix, kernel, out.view_mut());
        })
}

/// Seconds of the fastest run.
fn best(time: Duration, mut run: impl FnMut()) -> f64 {
    let measuring = Instant::now();
    let mut best = f64::INFINITY;
    while measuring.elapsed() < time {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}
