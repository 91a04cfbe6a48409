//! Answers and captions while none, one or two other programs keep cores busy.
//!
//! ```text
//! cargo bench --bench busy -- MODEL [ROUNDS [OTHER_PROGRAM]]
//! ```
//!
//! Prints the median seconds of each phase. With OTHER_PROGRAM, another build of `xc2-edge`, both take turns. On two
//! cores, a fair share beside one busy program is two thirds (1.5 times as long), beside two it is half.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use xc2_edge::evaluation::scenes::{Draw, Scene, render};

/// Argument of a process that keeps a core busy.
const BURN: &str = "--burn";

/// Numbers of busy programs.
const LOADS: [usize; 3] = [0, 1, 2];

/// About 64 tokens.
const PROMPT: &str = "Write about the sea, the ships that sail on it, the weather, the harbour and its people, what they \
    do there all day, where they go in the evening, what they sing when they come home, and why they love it so much \
    that nobody has ever moved away.";

const PHASES: [&str; 4] = ["tower", "prefill", "24 tokens", "2 captions"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let [model, rest @ ..] = &args[..] else {
        eprintln!("usage: busy MODEL [ROUNDS [OTHER_PROGRAM]]");
        return ExitCode::SUCCESS; // `cargo bench` alone has no model to measure
    };
    if model == BURN {
        burn();
    }
    let rounds = rest.first().map_or(3, |n| n.parse().expect("a number"));
    let mut programs = vec![PathBuf::from(env!("CARGO_BIN_EXE_xc2-edge"))];
    programs.extend(rest.get(1).map(PathBuf::from));
    let pictures = Pictures::draw();
    let mut medians = Vec::new();
    for load in LOADS {
        eprintln!("beside {load} busy programs");
        let _busy = Busy::start(load);
        medians.push(measure(&programs, Path::new(model), &pictures, rounds));
    }
    for (i, program) in programs.iter().enumerate() {
        println!("{}", program.display());
        println!(
            "{:12} {:>8} {:>16} {:>16}",
            "", "0 busy", "1 busy", "2 busy"
        );
        for (p, phase) in PHASES.iter().enumerate() {
            let at = |load: usize| medians[load][i][p];
            let times = |load: usize| format!("{:.2} ({:.2}x)", at(load), at(load) / at(0));
            println!("{phase:12} {:8.2} {:>16} {:>16}", at(0), times(1), times(2));
        }
    }
    ExitCode::SUCCESS
}

/// Two drawn scenes in a directory.
struct Pictures(tempfile::TempDir);

impl Pictures {
    fn draw() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for seed in 0..2 {
            let scene = Scene::draw(&mut Draw::new(seed));
            let picture = render(&scene, 490).expect("a picture");
            let path = dir.path().join(format!("{seed}.png"));
            picture.save(path).expect("a file");
        }
        Self(dir)
    }
}

/// Processes that keep cores busy until this is dropped.
struct Busy(Vec<Child>);

impl Busy {
    fn start(n: usize) -> Self {
        let own = std::env::current_exe().expect("a program");
        let start = || Command::new(&own).arg(BURN).spawn().expect("a process");
        let busy = Self((0..n).map(|_| start()).collect());
        thread::sleep(Duration::from_millis(500));
        busy
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn burn() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// The median seconds of each phase, for each program.
fn measure(
    programs: &[PathBuf],
    model: &Path,
    pictures: &Pictures,
    rounds: usize,
) -> Vec<[f64; PHASES.len()]> {
    let mut seconds = vec![Vec::new(); programs.len()];
    for _ in 0..rounds {
        for (program, seconds) in programs.iter().zip(&mut seconds) {
            seconds.push(phases(program, model, pictures.0.path()));
        }
    }
    let median = |runs: &[[f64; PHASES.len()]], phase: usize| {
        let mut of: Vec<f64> = runs.iter().map(|run| run[phase]).collect();
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    };
    let medians = seconds
        .iter()
        .map(|runs| std::array::from_fn(|phase| median(runs, phase)));
    medians.collect()
}

fn phases(program: &Path, model: &Path, pictures: &Path) -> [f64; PHASES.len()] {
    let looked = run(
        program,
        model,
        &["-n", "1", "--image", &text(&pictures.join("0.png"))],
    );
    let told = run(program, model, &["-n", "25", "--temp", "5", "--seed", "3"]);
    let start = Instant::now();
    let mut caption = Command::new(program);
    caption.arg("caption").arg("-m").arg(model).arg(pictures);
    let output = caption.args(["-n", "24"]).stderr(Stdio::null()).output();
    assert!(output.expect("a process").status.success());
    let captions = start.elapsed().as_secs_f64();
    let token = told("decode_s") / told("n_decode");
    [
        looked("encode_s"),
        looked("prefill_s"),
        24.0 * token,
        captions,
    ]
}

/// Asks a question and returns the timings by name.
fn run(program: &Path, model: &Path, args: &[&str]) -> impl Fn(&str) -> f64 + use<> {
    let mut command = Command::new(program);
    command
        .arg("run")
        .arg("-m")
        .arg(model)
        .args(["--json", "-p", PROMPT]);
    let output = command.args(args).stderr(Stdio::null()).output();
    let answer: Value = serde_json::from_slice(&output.expect("a process").stdout).expect("JSON");
    move |name| answer["timings"][name].as_f64().expect("a timing")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
