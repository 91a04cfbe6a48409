//! Reuse: time to the first token of a second question about a picture, and captions in parallel.
//!
//! ```text
//! cargo bench --bench reuse -- MODEL [PARALLEL [CAPTIONS [TOKENS]]]
//! ```
//!
//! Prints seconds of wall clock and CPU. The first token is timed from the question, with a loaded model. The second
//! question is asked in the same session, and in new processes with a cache directory. Sessions are reserved before the
//! question, as in a conversation; "alone" creates the context after the question, as `run` does.

use std::{
    io::Write,
    ops::ControlFlow,
    path::Path,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use xc2_edge::{
    engine::cache::CacheOptions,
    engine::{Answer, Engine, EngineOptions, Picture, Request, Session},
    evaluation::scenes::{Draw, Scene, render},
    language::prompt::Chat,
};

/// The cache directory for a new process.
const CACHE: &str = "XC2_BENCH_CACHE";

/// Idle milliseconds between loading and the question, like a person typing [default: 0].
const PAUSE: &str = "XC2_BENCH_PAUSE_MS";

const DISK: &str = "from disk, new process";
const ALONE: &str = "alone: ";
const FIRST: &str = "Describe this.";
const SECOND: &str = "List the objects.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let Some(model) = args.first() else {
        eprintln!("usage: reuse MODEL [PARALLEL [CAPTIONS [TOKENS]]]");
        return ExitCode::SUCCESS; // `cargo bench` alone has no model to measure
    };
    let model = Path::new(model);
    if let (Some(dir), [_, name, query]) = (std::env::var_os(CACHE), &args[..]) {
        one_question(model, Path::new(&dir), name, query);
        return ExitCode::SUCCESS;
    }
    let number = |i: usize, default| {
        args.get(i)
            .map_or(default, |a| a.parse().expect("a number"))
    };
    let (n_parallel, n_captions, n_tokens) = (number(1, 4), number(2, 8), number(3, 64));
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    two_questions(model, dirs[0].path());
    in_new_process(model, dirs[0].path(), DISK, SECOND);
    in_new_process(model, dirs[1].path(), &format!("{ALONE}first"), FIRST);
    in_new_process(model, dirs[1].path(), &format!("{ALONE}{DISK}"), SECOND);
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

/// The first question about a picture, and the second in the same session.
fn two_questions(model: &Path, cache: &Path) {
    let (engine, load) = timed(|| load(model, Some(cache)));
    let (mut session, ready) = ready(&engine);
    pause();
    for (name, before, query) in [("first", load + ready, FIRST), ("from memory", 0.0, SECOND)] {
        let answer = session.answer(&ask(&engine, 1, query, 8), &mut ());
        report(name, before, &answer.expect("an answer"));
    }
}

/// A session reserved for a question about a picture, and the seconds for that.
fn ready(engine: &Engine) -> (Session<'_>, f64) {
    let request = ask(engine, 1, "?", 8);
    let mut session = engine.session();
    let (reserved, seconds) = timed(|| session.reserve(&request));
    reserved.expect("room");
    (session, seconds)
}

fn pause() {
    let ms = std::env::var(PAUSE).map_or(0, |ms| ms.parse().expect("milliseconds"));
    thread::sleep(Duration::from_millis(ms));
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    (work(), start.elapsed().as_secs_f64())
}

/// Asks in a new process.
fn in_new_process(model: &Path, cache: &Path, name: &str, query: &str) {
    let program = std::env::current_exe().expect("a program");
    let mut command = Command::new(program);
    let status = command
        .arg(model)
        .args([name, query])
        .env(CACHE, cache)
        .status();
    assert!(status.expect("a process").success());
}

/// The work of the new process.
fn one_question(model: &Path, cache: &Path, name: &str, query: &str) {
    let (engine, load) = timed(|| load(model, Some(cache)));
    let request = ask(&engine, 1, query, 8);
    if name.starts_with(ALONE) {
        pause();
        let answer = engine.answer(&request, &mut ());
        return report(name, load, &answer.expect("an answer"));
    }
    let (mut session, ready) = ready(&engine);
    pause();
    let answer = session.answer(&request, &mut ());
    report(name, load + ready, &answer.expect("an answer"));
}

/// Prints the timings of an answer; loading the model and reserving the session took `before` seconds.
fn report(name: &str, before: f64, answer: &Answer) {
    let t = answer.timings;
    let first_token = t.first_token.expect("a token");
    let line = format!(
        "{name:29} first token {first_token:.4} s, with loading {:.4} s (context {:.4}, read {:.4}, \
         encode {:.4}, prefill {:.4} of {} positions), written {:.2}; ids {:?}",
        before + first_token,
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

/// Captions the same pictures one at a time and in parallel, each with a new engine.
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

/// CPU seconds of this process, in clock ticks of 1/100 s.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    let ticks = fields
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}
