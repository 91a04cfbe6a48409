//! `xc2-edge caption`, killed: the next run goes on, and nothing is lost, doubled or left behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::common::captions::{
    Killed, assert_status, caption, captions, draw, lines, model, records, run, scratch,
};
use xc2_edge::{evaluation::scenes::Draw, system::atomic_file::AtomicFile};

const RECORDS: &str = "captions.jsonl";

/// The hidden files in `dir`.
fn hidden(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    let is_hidden = |e: &fs::DirEntry| e.file_name().as_encoded_bytes().starts_with(b".");
    entries.filter(is_hidden).map(|e| e.path()).collect()
}

/// The full test is `scripts/kill-test`, which sets these.
fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |n| n.parse().unwrap())
}

/// Seconds that a run takes to start and do a picture, and of them those that the picture takes.
struct Pace {
    start: f64,
    picture: f64,
}

impl Pace {
    fn measure(dir: &Path) -> Self {
        let begun = Instant::now();
        let one = ["pictures/scene-01000.png", "--parallel", "1"];
        let output = run(dir, &one);
        let start = begun.elapsed().as_secs_f64();
        assert_status(&output, 0);
        let record = lines(std::str::from_utf8(&output.stdout).unwrap()).remove(0);
        let picture = record["seconds"].as_f64().unwrap();
        Self { start, picture }
    }
}

/// When a run is killed.
struct Moment {
    /// Not before there are so many records,
    n_records: usize,
    /// but so much later: this part of the time for a picture, or, if they were there before, for the
    /// start.
    part: f64,
}

impl Moment {
    /// `n_kills` moments anywhere in the work on `n_pictures`, in their order; one in five just when a
    /// record is written, and its text is not.
    fn draw(seed: usize, n_kills: usize, n_pictures: usize) -> Vec<Self> {
        let mut draw = Draw::new(seed as u64);
        let mut n_records: Vec<_> = (0..n_kills).map(|_| draw.below(n_pictures)).collect();
        n_records.sort_unstable();
        let mut part = || match draw.chance(20) {
            true => 0.0,
            false => draw.below(1000) as f64 / 1000.0,
        };
        let moment = |n_records| Self {
            n_records,
            part: part(),
        };
        n_records.into_iter().map(moment).collect()
    }
}

/// Starts a run, and kills it at `moment`; `false` if it was done by then.
fn is_killed(dir: &Path, args: &[&str], moment: &Moment, pace: &Pace) -> bool {
    let is_reached = || n_complete(&written(dir)) >= moment.n_records;
    let delay = |seconds: f64| Instant::now() + Duration::from_secs_f64(seconds * moment.part);
    let n_bytes = || fs::metadata(dir.join(RECORDS)).map_or(0, |file| file.len());
    let mut end = is_reached().then(|| delay(pace.start));
    let mut seen = n_bytes();
    let child = caption(dir, args).stderr(Stdio::null()).spawn().unwrap();
    let mut child = Killed(child);
    while end.is_none_or(|end| Instant::now() < end) {
        if let Some(status) = child.0.try_wait().unwrap() {
            assert!(status.success());
            return false;
        }
        if end.is_none() && n_bytes() != seen {
            seen = n_bytes();
            end = is_reached().then(|| delay(pace.picture));
        }
        thread::sleep(Duration::from_micros(100));
    }
    true
}

/// What the runs have written so far.
fn written(dir: &Path) -> Vec<u8> {
    fs::read(dir.join(RECORDS)).unwrap_or_default()
}

fn n_complete(lines: &[u8]) -> usize {
    lines.iter().filter(|byte| **byte == b'\n').count()
}

/// What was there after each kill.
#[derive(Default)]
struct Toll {
    /// Complete records.
    n_records: Vec<usize>,
    /// Kills that left half a record.
    n_torn: usize,
    /// Kills that left a hidden file.
    n_hidden: usize,
}

impl Toll {
    fn add(&mut self, dir: &Path) {
        let lines = written(dir);
        let n_records = n_complete(&lines);
        assert!(n_records >= self.n_done(), "a line was lost");
        self.n_records.push(n_records);
        self.n_torn += usize::from(lines.last().is_some_and(|byte| *byte != b'\n'));
        self.n_hidden += usize::from(!hidden(&dir.join("pictures")).is_empty());
    }

    /// Pictures that were captioned when the last run was killed.
    fn n_done(&self) -> usize {
        self.n_records.last().copied().unwrap_or(0)
    }

    /// Runs that were killed after they had captioned a picture.
    fn n_advanced(&self) -> usize {
        let before = [0].iter().chain(&self.n_records);
        before.zip(&self.n_records).filter(|(a, b)| a < b).count()
    }

    fn print(&self, n_pictures: usize) {
        println!("captioned at each kill: {:?}", self.n_records);
        let n_kills = self.n_records.len();
        println!(
            "{n_kills} kills over {n_pictures} pictures, {} of them captioned by the last one; {} kills \
             before a run's first caption, {} within a record, {} within another file",
            self.n_done(),
            n_kills - self.n_advanced(),
            self.n_torn,
            self.n_hidden
        );
    }
}

#[test]
fn a_run_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let dir = scratch("killed");
    let n_pictures = number("XC2_KILL_PICTURES", 40);
    let n_kills = number("XC2_KILLS", 8);
    let seed = number("XC2_KILL_SEED", 1);
    println!("{n_kills} kills at moments of seed {seed}");
    let truth = draw(&dir, &format!("1000..{}", 1000 + n_pictures));
    model();
    let pace = Pace::measure(&dir);
    let args = ["pictures", "-o", RECORDS, "--txt"];
    let mut toll = Toll::default();
    for moment in Moment::draw(seed, n_kills, n_pictures) {
        if !is_killed(&dir, &args, &moment, &pace) {
            println!("a run was done before kill {}", toll.n_records.len() + 1);
            break;
        }
        toll.add(&dir);
    }
    toll.print(n_pictures);
    // The kills were spread over the work: runs did some of it each, and the last one little.
    assert!(n_complete(&written(&dir)) >= n_pictures / 2);
    assert!(toll.n_advanced() >= toll.n_records.len() / 4);

    let n_left = n_pictures - n_complete(&written(&dir));
    let message = assert_status(&run(&dir, &args), 0);
    let summary = format!("{n_left} captioned");
    assert!(
        message.lines().any(|line| line.starts_with(&summary)),
        "{message}"
    );
    let found = captions(&records(&dir.join(RECORDS)));
    assert!(found.keys().eq(truth.keys()), "every picture once");
    // The model itself errs on one scene in some hundred.
    let wrong = truth
        .iter()
        .filter(|(name, caption)| found[*name] != **caption);
    assert!(wrong.count() <= n_pictures / 100, "{found:?}");
    for (name, caption) in &found {
        let text = dir.join("pictures").join(name).with_extension("txt");
        assert_eq!(fs::read_to_string(text).unwrap(), format!("{caption}\n"));
    }
    assert_eq!(hidden(&dir.join("pictures")), [] as [PathBuf; 0]);
    println!("then one run to the end: {n_pictures} pictures, each once, with its text");
}

#[test]
fn what_a_killed_run_left_half_written_is_removed_by_the_next() {
    let dir = scratch("left");
    // Pixels that do not compress: a copy is larger than the run below may write.
    let mut random = 1_u32;
    let noise = ::image::RgbImage::from_fn(400, 400, |_, _| {
        ::image::Rgb([0; 3].map(|_: u8| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 24) as u8
        }))
    });
    fs::create_dir(dir.join("pictures")).unwrap();
    noise.save(dir.join("pictures/noise.png")).unwrap();
    model();
    let args = ["pictures", "-o", "c.jsonl", "--embed", "out", "-n", "8"];
    let whole = caption(&dir, &args);
    let killed = Command::new("sh")
        .args(["-c", "ulimit -c 0; ulimit -f 200; exec \"$0\" \"$@\""])
        .arg(whole.get_program())
        .args(whole.get_args())
        .current_dir(&dir)
        .output()
        .unwrap();
    assert_eq!(killed.status.code(), None, "a signal ended it: {killed:?}");
    let out = dir.join("out");
    assert_eq!(hidden(&out).len(), 1);

    // Another process, this one, is about to write the same file.
    let running = AtomicFile::create(&out.join("noise.png")).unwrap();
    assert_eq!(hidden(&out).len(), 2);
    assert_status(&run(&dir, &args), 0);
    assert_eq!(hidden(&out).len(), 1);
    assert!(out.join("noise.png").exists());
    drop(running);
    assert_eq!(hidden(&out), [] as [PathBuf; 0]);
}
