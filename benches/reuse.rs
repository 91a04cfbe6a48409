//! What is not computed twice: time to the first token of a second question about a picture, and
//! several captions at a time.
//!
//! ```text
//! cargo bench --bench reuse -- MODEL [PARALLEL [CAPTIONS [TOKENS]]]
//! ```
//!
//! Seconds of wall clock and CPU; the first token is timed from the question on, the model being loaded.
//! The second question is asked in the same session, and in a process of its own that finds a cache
//! directory.

use std::{
    io::Write,
    ops::ControlFlow,
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

use xc2_edge::{
    cache::CacheOptions,
    engine::{Answer, Engine, EngineOptions, Picture, Request},
    prompt::Chat,
    scenes::{Draw, Scene, render},
};

/// Tells the process that asks again from the directory where to look.
const AGAIN: &str = "XC2_BENCH_CACHE";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let Some(model) = args.first() else {
        eprintln!("usage: reuse MODEL [PARALLEL [CAPTIONS [TOKENS]]]");
        return ExitCode::SUCCESS; // `cargo bench` alone has no model to measure
    };
    let number = |i: usize, default| {
        args.get(i)
            .map_or(default, |a| a.parse().expect("a number"))
    };
    let (n_parallel, n_captions, n_tokens) = (number(1, 4), number(2, 8), number(3, 64));
    let model = Path::new(model);
    if let Some(dir) = std::env::var_os(AGAIN) {
        let start = Instant::now();
        let engine = load(model, Some(Path::new(&dir)));
        let load = start.elapsed().as_secs_f64();
        let answer = engine.answer(&ask(&engine, 1, "List the objects.", 8), &mut ());
        report("from disk, new process", load, &answer.expect("an answer"));
        return ExitCode::SUCCESS;
    }
    second_question(model);
    if n_captions > 0 {
        captions(model, n_parallel, n_captions, n_tokens);
    }
    ExitCode::SUCCESS
}

fn load(model: &Path, cache: Option<&Path>) -> Engine {
    let cache = cache.map(|dir| CacheOptions {
        dir: dir.to_owned(),
        max_bytes: u64::MAX,
    });
    let options = EngineOptions {
        cache,
        ..EngineOptions::default()
    };
    Engine::load(model, options).expect("a model")
}

fn ask(engine: &Engine, seed: u64, query: &str, n_predict: usize) -> Request {
    let side = engine.preprocessor().image_size() as usize;
    let scene = Scene::draw(&mut Draw::new(seed));
    let chat = Chat {
        system: engine.container().info().prompt.system.clone(),
        query: query.to_owned(),
        ..Chat::default()
    };
    Request {
        images: vec![Picture::Pixels(render(&scene, side).expect("a picture"))],
        chat,
        n_predict,
        ..Request::default()
    }
}

fn second_question(model: &Path) {
    let dir = tempfile::tempdir().expect("a directory");
    let start = Instant::now();
    let engine = load(model, Some(dir.path()));
    let load = start.elapsed().as_secs_f64();
    let mut session = engine.session();
    for (name, load, query) in [
        ("first", load, "Describe this."),
        ("from memory", 0.0, "List the objects."),
    ] {
        let answer = session.answer(&ask(&engine, 1, query, 8), &mut ());
        report(name, load, &answer.expect("an answer"));
    }
    drop(session);
    drop(engine); // what is in memory does not help the other process
    let program = std::env::current_exe().expect("a program");
    let status = Command::new(program)
        .arg(model)
        .env(AGAIN, dir.path())
        .status();
    assert!(status.expect("a process").success());
}

/// Tells of an answer, before which loading the model took `load` seconds.
fn report(name: &str, load: f64, answer: &Answer) {
    let t = answer.timings;
    let first_token = t.first_token.expect("a token");
    let line = format!(
        "{name:24} first token {first_token:.4} s, with loading {:.4} s (context {:.4}, read {:.4}, \
         encode {:.4}, prefill {:.4} of {} positions), written {:.2}; ids {:?}",
        load + first_token,
        t.context,
        t.restore,
        t.encode,
        t.prefill,
        t.n_prefill,
        t.keep,
        answer.ids,
    );
    writeln!(std::io::stdout(), "{line}").expect("stdout");
}

/// Captions of the same pictures one at a time and several, each by an engine that knows none.
fn captions(model: &Path, n_parallel: usize, n_captions: usize, n_tokens: usize) {
    let mut all = Vec::new();
    for n in [1, n_parallel] {
        let engine = load(model, None);
        let seeds = 0..n_captions as u64;
        let requests = seeds.map(|seed| ask(&engine, seed, "Describe this image.", n_tokens));
        let requests: Vec<Request> = requests.collect();
        let mut answers = vec![None; n_captions];
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let on_answer = |i: usize, answer: Result<Answer, _>| {
            answers[i] = Some(answer.expect("an answer"));
            ControlFlow::Continue(())
        };
        engine
            .answer_many(n, requests.into_iter(), on_answer)
            .expect("captions");
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let sum = |f: fn(&Answer) -> f64| answers.iter().flatten().map(f).sum::<f64>();
        println!(
            "{n} at a time: {n_captions} captions, {:.0} tokens, wall {wall:.1} s (encode {:.1}, \
             prefill {:.1}, decode {:.1}), CPU {cpu:.1} s, {:.0} an hour",
            sum(|a| a.ids.len() as f64),
            sum(|a| a.timings.encode),
            sum(|a| a.timings.prefill),
            sum(|a| a.timings.decode),
            3600.0 * n_captions as f64 / wall,
        );
        all.push(answers);
    }
    let ids = |a: &Option<Answer>| a.as_ref().map(|a| a.ids.clone()).unwrap_or_default();
    for (i, (alone, many)) in all[0].iter().zip(&all[1]).enumerate() {
        let (alone, many) = (ids(alone), ids(many));
        let same = alone.iter().zip(&many).take_while(|(a, b)| a == b).count();
        if alone != many {
            println!("caption {i}: the same for {same} of {} tokens", alone.len());
        }
    }
}

/// CPU seconds of this process, by the kernel's clock ticks of a hundredth.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    let ticks = fields
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}
