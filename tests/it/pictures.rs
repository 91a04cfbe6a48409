//! Pictures in real-world forms are described like plain ones and decoded like Pillow.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::captions::{lines, run, scratch};
use xc2_edge::vision::image::{self, Orientation, RgbImage};

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(name)
}

/// The pictures of a folder of `tests/reference`.
fn pictures(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(reference(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending != "md"));
    files.sort();
    files
}

#[test]
fn every_reported_picture_is_described_like_the_plain_one() {
    let dir = scratch("forms");
    let names = [
        "plain.png",
        "jpeg-no-eoi-trailer.jpg",
        "jpeg-webcam-no-tables.jpg",
        "gif-zero-screen.gif",
        "tiff-palette.tif",
        "tiff-jpeg-ycbcr.tif",
        "tiff-bigtiff.tif",
    ];
    for name in names {
        fs::copy(reference("reports").join(name), dir.join(name)).unwrap();
    }
    let output = run(&dir, &[&["-o", "captions.jsonl"], &names[..]].concat());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let records = lines(&fs::read_to_string(dir.join("captions.jsonl")).unwrap());
    assert_eq!(records.len(), names.len());
    let expected = &records[0]["caption"];
    assert!(expected.is_string());
    for record in &records {
        assert_eq!(&record["caption"], expected, "{record}");
    }
}

#[test]
fn a_truncated_picture_is_described_on_request_and_marked() {
    // One with all components in one scan, and one without its last chroma scan.
    for (name, part) in [("baseline", 0.7), ("component-scans", 0.853)] {
        let whole = fs::read(reference(&format!("jpeg/{name}.jpg"))).unwrap();
        assert_described_on_demand(name, &whole[..(whole.len() as f64 * part) as usize]);
    }
}

fn assert_described_on_demand(name: &str, file: &[u8]) {
    let dir = scratch(&format!("truncated-{name}"));
    fs::write(dir.join("part.jpg"), file).unwrap();
    let refused = run(&dir, &["part.jpg"]);
    assert_eq!(refused.status.code(), Some(3));
    let record = lines(std::str::from_utf8(&refused.stdout).unwrap()).remove(0);
    let error = record["error"].as_str().unwrap();
    assert!(
        error.contains("end before the picture is complete"),
        "{error}"
    );

    let taken = run(&dir, &["part.jpg", "--allow-truncated"]);
    assert!(
        taken.status.success(),
        "{}",
        String::from_utf8_lossy(&taken.stderr)
    );
    let record = lines(std::str::from_utf8(&taken.stdout).unwrap()).remove(0);
    assert!(record["caption"].is_string(), "{record}");
    assert_eq!(record["truncated"], true, "{record}");
}

/// A Python with Pillow. Without it the test is skipped, except in CI.
fn python() -> Option<&'static str> {
    let has_pillow = |python: &&str| {
        let import = Command::new(python).args(["-c", "import PIL"]).output();
        import.is_ok_and(|output| output.status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has_pillow);
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "Pillow is missing: `scripts/setup --tests` installs it"
        );
        eprintln!("skipped: Pillow is missing (Debian: python3-pil)");
    }
    found
}

/// Pillow's `convert("RGB")` of each file, written into `dir`; files that it cannot read are left out.
fn by_pillow(python: &str, dir: &Path, files: &[PathBuf]) {
    let script = "
import sys, warnings
from PIL import Image
warnings.simplefilter('ignore')
for i, name in enumerate(sys.argv[2:]):
    try:
        picture = Image.open(name).convert('RGB')
    except Exception as error:
        print(name, error, file=sys.stderr)
    else:
        picture.save(f'{sys.argv[1]}/{i}.png')
";
    let output = Command::new(python)
        .args(["-c", script])
        .arg(dir)
        .args(files)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn read(file: &Path) -> RgbImage {
    image::open(file, Orientation::Ignore).unwrap()
}

#[test]
fn pixels_equal_those_of_pillow() {
    let Some(python) = python() else {
        return;
    };
    let dir = scratch("pillow");
    let mut files = ["reports", "tiff", "jpeg"].map(pictures).concat();
    files.retain(|file| !file.ends_with("arithmetic.jpg"));
    by_pillow(python, &dir, &files);
    let mut n_compared = 0;
    for (i, file) in files.iter().enumerate() {
        let theirs = dir.join(format!("{i}.png"));
        if !theirs.exists() || file.ends_with("jpeg-no-eoi-trailer.jpg") {
            continue;
        }
        n_compared += 1;
        let (ours, theirs) = (read(file), read(&theirs));
        assert_eq!(ours.dimensions(), theirs.dimensions(), "{}", file.display());
        let differences = ours
            .as_raw()
            .iter()
            .zip(theirs.as_raw())
            .map(|(a, b)| a.abs_diff(*b));
        let sum: u64 = differences.map(u64::from).sum();
        let mean = sum as f64 / ours.len() as f64;
        let name = file.file_name().unwrap().to_str().unwrap();
        let is_lossy = name.contains("jpeg") || name.ends_with("jpg") || name.starts_with("lossy");
        assert!(mean <= if is_lossy { 0.6 } else { 0.0 }, "{name}: {mean}");
    }
    assert!(n_compared > 35, "{n_compared} of {}", files.len());
}
