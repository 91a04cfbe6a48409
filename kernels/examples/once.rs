//! Runs one operation several times, for tools that count or record the instructions that it
//! executes, and prints the number of multiply-adds of one run.
//!
//! `cargo run --release -p xc2-kernels --example once -- q8_0 neon-dotprod 2`. The operations are
//! `bf16` and `f32` (F16 weights) with 48 of the tower's 1226 rows, 1024 inputs and 1024 outputs;
//! `q4_k` and the other formats in the same size; `q4_k-row` and so on with one row; and
//! `attention-f32` and `attention-bf16` with one of the tower's 16 heads. The sizes are small
//! because this runs under emulation. Quantizing, packing and epilogues are included, as in the
//! tower.

use std::hint::black_box;

use ndarray::Array2;
use xc2_kernels::attention::{Precision, attention_on};
use xc2_kernels::float::{self, Float16Slice, FloatKernel, FloatMatrix};
use xc2_kernels::quantized::{self, QuantFormat, QuantizedKernel, QuantizedMatrix};
use xc2_kernels::testing::noise;
use xc2_kernels::{Cpu, available};

const ROWS: usize = 48;
const WIDTH: usize = 1024;
const TOKENS: usize = 1226;
const HEADS: usize = 1;
const HEAD_DIM: usize = 64;

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [operation, level, times] = &arguments[..] else {
        return Err("expected an operation, an instruction set and a number of runs".to_owned());
    };
    let levels = available();
    let cpu = levels.iter().copied().find(|cpu| cpu.name() == level);
    let cpu = cpu.ok_or_else(|| format!("this CPU has no level `{level}`"))?;
    let times = times.parse().map_err(|e| format!("`{times}`: {e}"))?;
    let multiply_adds = match operation.as_str() {
        "bf16" => bf16(cpu, times),
        "f32" => f32(cpu, times),
        "q4_0" => quantized(QuantFormat::Q4_0, ROWS, cpu, times),
        "q4_0-row" => quantized(QuantFormat::Q4_0, 1, cpu, times),
        "q5_0" => quantized(QuantFormat::Q5_0, ROWS, cpu, times),
        "q5_0-row" => quantized(QuantFormat::Q5_0, 1, cpu, times),
        "q8_0" => quantized(QuantFormat::Q8_0, ROWS, cpu, times),
        "q8_0-row" => quantized(QuantFormat::Q8_0, 1, cpu, times),
        "q4_k" => quantized(QuantFormat::Q4K, ROWS, cpu, times),
        "q4_k-row" => quantized(QuantFormat::Q4K, 1, cpu, times),
        "q5_k" => quantized(QuantFormat::Q5K, ROWS, cpu, times),
        "q5_k-row" => quantized(QuantFormat::Q5K, 1, cpu, times),
        "q6_k" => quantized(QuantFormat::Q6K, ROWS, cpu, times),
        "q6_k-row" => quantized(QuantFormat::Q6K, 1, cpu, times),
        "attention-f32" => attention(cpu, Precision::F32, times),
        "attention-bf16" => attention(cpu, Precision::Bf16, times),
        _ => return Err(format!("unknown operation `{operation}`")),
    };
    println!("{multiply_adds}");
    Ok(())
}

fn quantized(format: QuantFormat, rows: usize, cpu: Cpu, times: usize) -> usize {
    let x = noise(rows, WIDTH, 1);
    let weights = vec![0x21; format.row_bytes(WIDTH).unwrap_or(0) * WIDTH];
    let matrix = QuantizedMatrix::new(format, &weights, WIDTH, WIDTH)
        .expect("a row must be a whole number of blocks");
    let kernel = QuantizedKernel::for_cpu(cpu);
    let mut out = Array2::zeros((rows, WIDTH));
    for _ in 0..times {
        quantized::matmul(&x.view(), matrix, kernel, out.view_mut());
        black_box(&out);
    }
    rows * WIDTH * WIDTH
}

fn bf16(cpu: Cpu, times: usize) -> usize {
    let weights: Vec<_> = noise(WIDTH, WIDTH, 2)
        .iter()
        .map(|&w| half::bf16::from_f32(w))
        .collect();
    float_product(
        Float16Slice::Bf16(&weights),
        FloatKernel::in_bf16(cpu),
        times,
    )
}

fn f32(cpu: Cpu, times: usize) -> usize {
    let weights: Vec<_> = noise(WIDTH, WIDTH, 2)
        .iter()
        .map(|&w| half::f16::from_f32(w))
        .collect();
    float_product(Float16Slice::F16(&weights), FloatKernel::in_f32(cpu), times)
}

fn float_product(weights: Float16Slice, kernel: FloatKernel, times: usize) -> usize {
    let x = noise(ROWS, WIDTH, 1);
    let matrix = FloatMatrix::new(weights, WIDTH, WIDTH).expect("the weights have this shape");
    let mut out = Array2::zeros((ROWS, WIDTH));
    for _ in 0..times {
        float::matmul(&x.view(), matrix, kernel, out.view_mut());
        black_box(&out);
    }
    ROWS * WIDTH * WIDTH
}

fn attention(cpu: Cpu, precision: Precision, times: usize) -> usize {
    let width = HEADS * HEAD_DIM;
    let qkv = noise(TOKENS, 3 * width, 1);
    let mut out = Array2::zeros((TOKENS, width));
    for _ in 0..times {
        attention_on(cpu, &qkv.view(), HEADS, precision, out.view_mut());
        black_box(&out);
    }
    2 * TOKENS * TOKENS * width
}
