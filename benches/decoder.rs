//! Speed of the decoder with our kernels and with llama.cpp's, in several settings.
//!
//! Each setting runs the prefill of a picture's embeddings with Partial-LoRA, then generates single tokens. Settings
//! take turns, so that other load affects all of them, and medians are printed. With one thread, CPU seconds are a fair
//! measure even under load; with more, threads that wait for each other consume CPU time.
//!
//! ```text
//! cargo bench --bench decoder -- MODEL.gguf                      # all settings, all cores
//! cargo bench --bench decoder -- MODEL.gguf -t 1 -r 2 -n 512 xc2 ggml   # some settings, fewer rows
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use xc2_edge::language::llama::{
    Context, ContextOptions, Input, KvType, LazyAdapter, LoadOptions, MatmulBackend, Model,
    Outputs, Positions,
};
use xc2_edge::model::container::{Container, View};

const N_DECODE: usize = 32;

/// A setting of the decoder.
#[derive(Clone, Copy)]
struct Setting {
    name: &'static str,
    products: MatmulBackend,
    repack: bool,
    n_batch: usize,
    flash_attn: bool,
    kv_type: KvType,
    plora: bool,
}

const GGML: Setting = Setting {
    name: "ggml",
    products: MatmulBackend::Ggml,
    repack: false,
    n_batch: 512,
    flash_attn: true,
    kv_type: KvType::F16,
    plora: true,
};

const SETTINGS: [Setting; 13] = [
    Setting {
        name: "xc2",
        products: MatmulBackend::Xc2,
        ..GGML
    },
    Setting {
        name: "xc2-256",
        products: MatmulBackend::Xc2,
        n_batch: 256,
        ..GGML
    },
    Setting {
        name: "xc2-2048",
        products: MatmulBackend::Xc2,
        n_batch: 2048,
        ..GGML
    },
    Setting {
        name: "xc2-no-plora",
        products: MatmulBackend::Xc2,
        plora: false,
        ..GGML
    },
    GGML,
    Setting {
        name: "ggml-no-plora",
        plora: false,
        ..GGML
    },
    Setting {
        name: "ggml-repack",
        repack: true,
        ..GGML
    },
    Setting {
        name: "ggml-256",
        n_batch: 256,
        ..GGML
    },
    Setting {
        name: "ggml-1024",
        n_batch: 1024,
        ..GGML
    },
    Setting {
        name: "ggml-2048",
        n_batch: 2048,
        ..GGML
    },
    Setting {
        name: "ggml-no-fa",
        flash_attn: false,
        ..GGML
    },
    Setting {
        name: "ggml-kv-q8_0",
        kv_type: KvType::Q8_0,
        ..GGML
    },
    Setting {
        name: "xc2-kv-q8_0",
        kv_type: KvType::Q8_0,
        products: MatmulBackend::Xc2,
        ..GGML
    },
];

/// Seconds of wall clock and CPU.
#[derive(Clone, Copy)]
struct Time {
    wall: f64,
    cpu: f64,
}

struct Args {
    model: String,
    n_threads: usize,
    repetitions: usize,
    /// Rows of the picture.
    n_image: usize,
    settings: Vec<Setting>,
}

fn args() -> Args {
    let mut args = Args {
        model: String::new(),
        n_threads: std::thread::available_parallelism().map_or(1, usize::from),
        repetitions: 3,
        n_image: 1225,
        settings: Vec::new(),
    };
    let mut words = std::env::args().skip(1).filter(|w| w != "--bench");
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|n| n.parse().ok()).expect("a number");
        match word.as_str() {
            "-t" => args.n_threads = number(),
            "-n" => args.n_image = number(),
            "-r" => args.repetitions = number(),
            _ => match SETTINGS.iter().find(|s| s.name == word) {
                Some(setting) => args.settings.push(*setting),
                None => args.model = word,
            },
        }
    }
    if args.settings.is_empty() {
        args.settings = SETTINGS.to_vec();
    }
    args
}

fn main() {
    let args = args();
    if args.model.is_empty() {
        println!("usage: cargo bench --bench decoder -- MODEL.gguf");
        return;
    }
    let container = Container::open(Path::new(&args.model)).expect("a model of ours");
    let load = |repack| {
        let options = LoadOptions {
            repack,
            ..LoadOptions::default()
        };
        let offset = container.view_offset(View::Decoder);
        let model = Model::load(container.path(), offset, options).expect("it loads");
        let offset = container.view_offset(View::Adapter);
        let adapter = LazyAdapter::new(&model, container.path(), offset);
        (model, Arc::new(adapter))
    };
    let plain = load(false);
    let repacked = args.settings.iter().any(|s| s.repack).then(|| load(true));
    println!(
        "{} threads; {}",
        args.n_threads,
        xc2_edge::language::llama::kernels(MatmulBackend::Xc2)
    );

    let mut times = vec![(Vec::new(), Vec::new()); args.settings.len()];
    let mut reference: Option<Vec<f32>> = None;
    for _ in 0..args.repetitions {
        for (setting, times) in args.settings.iter().zip(&mut times) {
            let parts = if setting.repack {
                repacked.as_ref().expect("loaded")
            } else {
                &plain
            };
            let (prefill, decode, logits) = measure(parts, setting, &args);
            times.0.push(prefill);
            times.1.push(decode);
            if setting.plora {
                let reference = reference.get_or_insert_with(|| logits.clone());
                let similar = cosine(reference, &logits);
                assert!(similar > 0.98, "{}: {similar}", setting.name);
            }
        }
    }
    println!(
        "{:<14} {:>10} {:>8} {:>8} {:>10} {:>8} {:>8}",
        "", "prefill s", "CPU s", "tok/s", "token ms", "CPU ms", "tok/s"
    );
    for (setting, (prefill, decode)) in args.settings.iter().zip(times) {
        let (p, d) = (median(&prefill), median(&decode));
        println!(
            "{:<14} {:>10.2} {:>8.2} {:>8.1} {:>10.1} {:>8.1} {:>8.1}",
            setting.name,
            p.wall,
            p.cpu,
            args.n_image as f64 / p.wall,
            d.wall / N_DECODE as f64 * 1e3,
            d.cpu / N_DECODE as f64 * 1e3,
            N_DECODE as f64 / d.wall
        );
    }
}

/// The median of each.
fn median(times: &[Time]) -> Time {
    let middle = |f: fn(&Time) -> f64| {
        let mut all: Vec<f64> = times.iter().map(f).collect();
        all.sort_by(f64::total_cmp);
        (all[(all.len() - 1) / 2] + all[all.len() / 2]) / 2.0
    };
    Time {
        wall: middle(|t| t.wall),
        cpu: middle(|t| t.cpu),
    }
}

/// Prefill and decode, and the logits after the prefill.
fn measure(
    (model, adapter): &(Arc<Model>, Arc<LazyAdapter>),
    setting: &Setting,
    args: &Args,
) -> (Time, Time, Vec<f32>) {
    let n_image = args.n_image;
    let run = |position| Positions::Run { seq: 0, position };
    let options = ContextOptions {
        n_ctx: n_image + N_DECODE + 1,
        n_batch: setting.n_batch.min(n_image + N_DECODE + 1),
        n_outputs: 1,
        n_seq: 1,
        n_threads: args.n_threads,
        kv_type: setting.kv_type,
        flash_attn: setting.flash_attn,
        matmul_backend: setting.products,
        rope_freq_base: 0.0,
    };
    let mut context = Context::new(model, Arc::clone(adapter), options).expect("there is memory");
    let rows = embeddings(n_image, model.n_embd());
    context.switch_adapter(setting.plora).expect("it switches");
    let mut logits = Vec::new();
    let prefill = time(|| {
        let mut position = 0;
        for rows in rows.chunks(setting.n_batch * model.n_embd()) {
            let n = rows.len() / model.n_embd();
            let outputs = if position + n == n_image {
                Outputs::Last
            } else {
                Outputs::None
            };
            context
                .decode(Input::Embeddings(rows), run(position), outputs)
                .expect("it computes");
            position += n;
        }
        logits = context.last_logits().to_vec();
    });
    context.switch_adapter(false).expect("it switches");
    let token = [7];
    let step = |context: &mut Context, i: usize| {
        context
            .decode(Input::Tokens(&token), run(n_image + i), Outputs::Last)
            .expect("it computes");
    };
    step(&mut context, 0); // graphs are reserved again after the switch
    let decode = time(|| (1..=N_DECODE).for_each(|i| step(&mut context, i)));
    (prefill, decode, logits)
}

fn time(f: impl FnOnce()) -> Time {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    f();
    Time {
        wall: start.elapsed().as_secs_f64(),
        cpu: cpu_seconds() - cpu,
    }
}

/// Numbers like the embeddings of a picture: small, with a few large channels.
fn embeddings(n: usize, width: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n * width)
        .map(|i| {
            random()
                * if (i % width).is_multiple_of(97) {
                    0.5
                } else {
                    0.05
                }
        })
        .collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// CPU seconds of all threads of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = fields.split(' ').skip(11).take(2);
    ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}
