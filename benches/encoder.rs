//! Time for a picture in the full-size tower.
//!
//! Builds the tower of the published 7B model (24 layers, 1024 wide, 490 pixels, projector to
//! 4096) with random weights in memory, once for every stored type, and encodes a picture a few
//! times. The results are checked: shape, finite numbers, and Q8_0 close to F16.
//!
//! ```text
//! cargo bench --bench encoder              # every type
//! RAYON_NUM_THREADS=1 cargo bench --bench encoder -- q8_0
//! ```

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use ndarray::Array2;
use rayon::prelude::*;
use xc2_edge::model::quant::{GgmlType, quantize_rows};
use xc2_edge::model::tensor::{Tensor, TensorSource};
use xc2_edge::vision::image::{CLIP_MEAN, CLIP_STD, Preprocessor, RgbImage};
use xc2_edge::{model::VisionConfig, vision::Precision, vision::VisionEncoder};

const REPETITIONS: usize = 5;

const CONFIG: VisionConfig = VisionConfig {
    image_size: 490,
    patch_size: 14,
    n_embd: 1024,
    n_head: 16,
    n_ff: 4096,
    n_layer: 24,
    layer_norm_eps: 1e-5,
    n_embd_text: 4096,
    tiling: None,
};

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    println!(
        "{:.0} GFLOP a picture, {} threads, {REPETITIONS} repetitions",
        CONFIG.flops() / 1e9,
        rayon::current_num_threads()
    );
    println!(
        "type      best s  median s  CPU s  GFLOP/s (best)  weights MB  work MB: peak / estimate"
    );
    measure_preprocessing();
    let ways = [
        ("f16", GgmlType::F16, Precision::Stored),
        ("q8_0-f32", GgmlType::Q8_0, Precision::F32),
        ("bf16", GgmlType::BF16, Precision::Stored),
    ];
    let quantized = QUANTIZED.map(|ty| (ty.name(), ty, Precision::Stored));
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let results: Vec<_> = ways
        .into_iter()
        .chain(quantized)
        .filter(|(name, ..)| is_wanted(name))
        .map(|(name, ty, precision)| (ty, name, measure(name, ty, precision)))
        .collect();
    if let [(GgmlType::F16, _, f16), rest @ ..] = &results[..] {
        for (ty, name, found) in rest {
            check(&format!("{name} with f16"), *ty, cosines(f16, found));
        }
    }
    if is_wanted("outliers") {
        measure_outliers();
    }
}

/// Types that are multiplied in int8.
const QUANTIZED: [GgmlType; 6] = [
    GgmlType::Q8_0,
    GgmlType::Q6_K,
    GgmlType::Q5_K,
    GgmlType::Q5_0,
    GgmlType::Q4_K,
    GgmlType::Q4_0,
];

/// Prints the smallest and the mean cosine similarity. Types of eight bits and more must not depart from F16.
fn check(name: &str, ty: GgmlType, (least, mean): (f64, f64)) {
    println!("cosine similarity of {name}: mean {mean:.6}, least {least:.6}");
    let is_precise = matches!(ty, GgmlType::F16 | GgmlType::BF16 | GgmlType::Q8_0);
    assert!(!is_precise || least >= 0.999 && mean >= 0.9998, "{name}");
}

/// Compares every quantized type with F16, and the same weights in f32, where three channels of the residual stream are
/// a hundred times larger than the rest, as in CLIP.
fn measure_outliers() {
    let pixels = Preprocessor::new(490, CLIP_MEAN, CLIP_STD).pixel_values(&picture(640, 480));
    let encode = |source: &RandomTower, precision| {
        let encoder = VisionEncoder::new(CONFIG, source, precision).expect("made to fit");
        encoder.encode(&pixels)
    };
    println!("with channels a hundred times the rest:");
    let f16 = encode(&with_outliers(GgmlType::F16), Precision::Stored);
    for ty in QUANTIZED {
        let source = with_outliers(ty);
        let found = encode(&source, Precision::Stored);
        check(&format!("{ty} with f16"), ty, cosines(&f16, &found));
        let exact = encode(&source, Precision::F32);
        check(
            &format!("{ty} with the same weights in f32"),
            GgmlType::Q8_0,
            cosines(&exact, &found),
        );
    }
}

fn with_outliers(ty: GgmlType) -> RandomTower {
    let mut source = RandomTower::new(ty);
    let name = "v.position_embd.weight";
    let positions = source.0.get_mut(name).expect("every tower has positions");
    let mut values = positions.to_f32();
    let size = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
    for row in values.chunks_exact_mut(CONFIG.n_embd) {
        for channel in [7, 300, 900] {
            row[channel] = 100.0 * size.sqrt() * row[channel].signum();
        }
    }
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    positions.data = Bytes::from(bytes);
    source
}

/// Times the tower with matrices of one type, prints a line, and returns the result.
fn measure(name: &str, ty: GgmlType, precision: Precision) -> Array2<f32> {
    let source = RandomTower::new(ty);
    let weights_bytes: usize = source.0.values().map(|t| t.data.len()).sum();
    let encoder =
        VisionEncoder::new(CONFIG, &source, precision).expect("all tensors were made to fit");
    let pixels = Preprocessor::new(490, CLIP_MEAN, CLIP_STD).pixel_values(&picture(640, 480));

    encoder.encode(&pixels); // warms the caches
    let before = memory_kb("VmRSS");
    reset_peak();
    let mut seconds = Vec::new();
    let cpu = cpu_seconds();
    let mut result = Array2::zeros((0, 0));
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        result = encoder.encode(&pixels);
        seconds.push(start.elapsed().as_secs_f64());
    }
    let cpu = (cpu_seconds() - cpu) / REPETITIONS as f64;
    let peak = memory_kb("VmHWM") - before;
    assert_eq!(result.dim(), (CONFIG.n_patches(), CONFIG.n_embd_text));
    assert!(result.iter().all(|v| v.is_finite()));

    seconds.sort_by(f64::total_cmp);
    println!(
        "{name:<8} {:7.2} {:9.2} {cpu:6.2} {:15.0} {:11} {:13.0} / {:.0}",
        seconds[0],
        seconds[REPETITIONS / 2],
        CONFIG.flops() / 1e9 / seconds[0],
        weights_bytes / 1_000_000,
        peak / 1000.0,
        encoder.work_bytes() as f64 / 1e6,
    );
    result
}

fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        [(x * y) as u8, x as u8, y as u8].into()
    })
}

/// Resizes and normalizes a photograph of 12 million pixels.
fn measure_preprocessing() {
    let photo = picture(4000, 3000);
    let preprocessor = Preprocessor::new(490, CLIP_MEAN, CLIP_STD);
    let seconds = (0..REPETITIONS).map(|_| {
        let start = Instant::now();
        assert_eq!(preprocessor.pixel_values(&photo).size(), 490);
        start.elapsed().as_secs_f64()
    });
    let best = seconds
        .min_by(f64::total_cmp)
        .expect("at least one repetition");
    println!(
        "pixel values of a 4000x3000 picture: {:.0} ms at best",
        1e3 * best
    );
}

/// Smallest and mean cosine similarity of rows.
fn cosines(a: &Array2<f32>, b: &Array2<f32>) -> (f64, f64) {
    let rows = a.rows().into_iter().zip(b.rows());
    let cosines: Vec<f64> = rows
        .map(|(a, b)| f64::from(a.dot(&b) / (a.dot(&a) * b.dot(&b)).sqrt()))
        .collect();
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    (cosines.into_iter().fold(1.0, f64::min), mean)
}

/// Tensors of the right shapes: matrices of variance 1 / n_in, identity norms.
struct RandomTower(HashMap<String, Tensor>);

impl TensorSource for RandomTower {
    fn tensor(&self, name: &str) -> Option<Tensor> {
        self.0.get(name).cloned()
    }
}

impl RandomTower {
    fn new(ty: GgmlType) -> Self {
        let (c, ff, text) = (CONFIG.n_embd, CONFIG.n_ff, CONFIG.n_embd_text);
        let p = CONFIG.patch_size;
        let f32 = GgmlType::F32;
        let mut list = vec![
            ("v.class_embd".to_owned(), f32, vec![c]),
            (
                "v.patch_embd.weight".to_owned(),
                GgmlType::F16,
                vec![p, p, 3, c],
            ),
            (
                "v.position_embd.weight".to_owned(),
                f32,
                vec![c, CONFIG.n_tokens()],
            ),
        ];
        let norm = |list: &mut Vec<_>, name: String| {
            list.push((format!("{name}.weight"), f32, vec![c]));
            list.push((format!("{name}.bias"), f32, vec![c]));
        };
        let linear = |list: &mut Vec<_>, name: String, n_in, n_out| {
            list.push((format!("{name}.weight"), ty, vec![n_in, n_out]));
            list.push((format!("{name}.bias"), f32, vec![n_out]));
        };
        norm(&mut list, "v.pre_ln".to_owned());
        for layer in 0..CONFIG.n_layer {
            let name = |part: &str| format!("v.blk.{layer}.{part}");
            norm(&mut list, name("ln1"));
            norm(&mut list, name("ln2"));
            for part in ["attn_q", "attn_k", "attn_v", "attn_out"] {
                linear(&mut list, name(part), c, c);
            }
            linear(&mut list, name("ffn_up"), c, ff);
            linear(&mut list, name("ffn_down"), ff, c);
        }
        linear(&mut list, "mm.0".to_owned(), c, text);
        linear(&mut list, "mm.2".to_owned(), text, text);
        let tensors = list.into_par_iter().enumerate();
        Self(
            tensors
                .map(|(seed, (name, ty, shape))| (name.clone(), random(seed, name, ty, shape)))
                .collect(),
        )
    }
}

fn random(seed: usize, name: String, ty: GgmlType, shape: Vec<usize>) -> Tensor {
    let n_in = shape[0];
    let len = shape.iter().product();
    let is_norm = name.contains("ln") && name.ends_with("weight");
    // Uniform in -sqrt(3 / n_in)..sqrt(3 / n_in).
    let scale = if shape.len() == 1 {
        0.05
    } else {
        (3.0 / n_in as f32).sqrt()
    };
    let mut state = seed as u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        scale * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    let values: Vec<f32> = (0..len)
        .map(|_| if is_norm { 1.0 } else { next() })
        .collect();
    let mut data = vec![0; ty.row_bytes(n_in).expect("whole blocks") * (len / n_in)];
    quantize_rows(ty, &values, n_in, &mut data);
    Tensor {
        name,
        ty,
        shape,
        data: Bytes::from(data),
    }
}

/// User and system time of this process so far (Linux; zero elsewhere).
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse::<f64>().ok())
        .sum();
    ticks / TICKS_PER_SECOND
}

/// A line of `/proc/self/status` in kB (Linux; zero elsewhere).
fn memory_kb(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

/// Resets `VmHWM` to the current resident size (Linux).
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
