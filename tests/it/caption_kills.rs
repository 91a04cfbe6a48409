//! `xc2-edge caption` after a kill: the next run resumes; no record is lost or repeated, and no temporary file remains.

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

/// A setting of `scripts/kill-test`, which runs the full test.
fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |n| n.parse().unwrap())
}

/// How fast a run is.
struct Pace {
    /// Seconds until the first picture is captioned.
    first: f64,
    /// Seconds for one picture.
    picture: f64,
}

impl Pace {
    fn measure(dir: &Path) -> Self {
        let start = Instant::now();
        let one = ["pictures/scene-01000.png", "--parallel", "1"];
        let output = run(dir, &one);
        let first = start.elapsed().as_secs_f64();
        assert_status(&output, 0);
        let record = lines(std::str::from_utf8(&output.stdout).unwrap()).remove(0);
        let picture = record["seconds"].as_f64().unwrap();
        Self { first, picture }
    }
}

/// When to kill a run.
struct Moment {
    /// After this many records,
    n_records: usize,
    /// plus this fraction of the time for a picture, or of the first one if the run starts with so many records.
    part: f64,
}

impl Moment {
    /// `n_kills` random moments over `n_pictures`, sorted; one in five just after a record and before its text file.
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

/// Starts a run and kills it at `moment`; `false` if it finished earlier.
fn is_killed(dir: &Path, args: &[&str], moment: &Moment, pace: &Pace) -> bool {
    let is_reached = || n_complete(&written(dir)) >= moment.n_records;
    let delay = |seconds: f64| Instant::now() + Duration::from_secs_f64(seconds * moment.part);
    let n_bytes = || fs::metadata(dir.join(RECORDS)).map_or(0, |file| file.len());
    let mut end = is_reached().then(|| delay(pace.first));
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

/// The records so far.
fn written(dir: &Path) -> Vec<u8> {
    fs::read(dir.join(RECORDS)).unwrap_or_default()
}

fn n_complete(lines: &[u8]) -> usize {
    lines.iter().filter(|byte| **byte == b'\n').count()
}

/// What each kill left.
#[derive(Default)]
struct Kills {
    /// Complete records.
    n_records: Vec<usize>,
    /// Kills that left a partial record.
    n_torn: usize,
    /// Kills that left a hidden file.
    n_hidden: usize,
}

impl Kills {
    fn add(&mut self, dir: &Path) {
        let lines = written(dir);
        let n_records = n_complete(&lines);
        assert!(n_records >= self.n_done(), "a line was lost");
        self.n_records.push(n_records);
        self.n_torn += usize::from(lines.last().is_some_and(|byte| *byte != b'\n'));
        self.n_hidden += usize::from(!hidden(&dir.join("pictures")).is_empty());
    }

    /// Pictures with a caption at the last kill.
    fn n_done(&self) -> usize {
        self.n_records.last().copied().unwrap_or(0)
    }

    /// Runs that captioned at least one picture before the kill.
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
fn repeated_kills_lose_and_repeat_no_record() {
    let dir = scratch("killed");
    let n_pictures = number("XC2_KILL_PICTURES", 24);
    let n_kills = number("XC2_KILLS", 6);
    let seed = number("XC2_KILL_SEED", 1);
    println!("{n_kills} kills at moments of seed {seed}");
    let truth = draw(&dir, &format!("1000..{}", 1000 + n_pictures));
    model();
    let pace = Pace::measure(&dir);
    let args = ["pictures", "-o", RECORDS, "--txt"];
    let mut kills = Kills::default();
    for moment in Moment::draw(seed, n_kills, n_pictures) {
        if !is_killed(&dir, &args, &moment, &pace) {
            println!("a run finished before kill {}", kills.n_records.len() + 1);
            break;
        }
        kills.add(&dir);
    }
    kills.print(n_pictures);
    // The kills were spread over the work.
    assert!(n_complete(&written(&dir)) >= n_pictures / 2);
    assert!(kills.n_advanced() >= kills.n_records.len() / 4);

    let n_left = n_pictures - n_complete(&written(&dir));
    let message = assert_status(&run(&dir, &args), 0);
    let summary = format!("{n_left} captioned");
    assert!(
        message.lines().any(|line| line.starts_with(&summary)),
        "{message}"
    );
    let found = captions(&records(&dir.join(RECORDS)));
    assert!(found.keys().eq(truth.keys()), "every picture once");
    // The model itself is wrong on about one scene in a hundred.
    let wrong = truth
        .iter()
        .filter(|(name, caption)| found[*name] != **caption);
    assert!(wrong.count() <= n_pictures / 100, "{found:?}");
    for (name, caption) in &found {
        let text = dir.join("pictures").join(name).with_extension("txt");
        assert_eq!(fs::read_to_string(text).unwrap(), format!("{caption}\n"));
    }
    assert_eq!(hidden(&dir.join("pictures")), [] as [PathBuf; 0]);
    println!("then a complete run: {n_pictures} pictures, each with one record and its text");
}

#[test]
fn partial_files_of_a_killed_run_are_removed_by_the_next() {
    let dir = scratch("left");
    // Incompressible pixels: a copy exceeds the file size limit of the run below.
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

    // This test process is writing the same file.
    let running = AtomicFile::create(&out.join("noise.png")).unwrap();
    assert_eq!(hidden(&out).len(), 2);
    assert_status(&run(&dir, &args), 0);
    assert_eq!(hidden(&out).len(), 1);
    assert!(out.join("noise.png").exists());
    drop(running);
    assert_eq!(hidden(&out), [] as [PathBuf; 0]);
}
