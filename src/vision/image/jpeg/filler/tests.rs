use std::path::Path;

use crate::vision::image::{Decoded, ImageError, ReadOptions, RgbImage, decode_within};

const SOS: u8 = 0xda;
const EOI: [u8; 2] = [0xff, 0xd9];

fn reference(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/jpeg");
    std::fs::read(root.join(format!("{name}.jpg"))).unwrap()
}

fn read(file: &[u8], allow_truncated: bool) -> Result<Decoded, ImageError> {
    let options = ReadOptions {
        allow_truncated,
        ..ReadOptions::REFERENCE
    };
    decode_within(file, options, u64::MAX)
}

/// Decodes a file that is an error without `allow_truncated`.
#[track_caller]
fn part(file: &[u8]) -> RgbImage {
    let refused = read(file, false).map(|decoded| decoded.picture.dimensions());
    assert!(
        matches!(refused, Err(ImageError::Truncated { .. })),
        "{refused:?}"
    );
    let part = read(file, true).unwrap();
    assert!(part.is_truncated);
    part.picture
}

/// Offsets of the scans, in files without thumbnails.
fn scans(file: &[u8]) -> Vec<usize> {
    let is_scan = |at: &usize| file[*at..].starts_with(&[0xff, SOS, 0]);
    (0..file.len()).filter(is_scan).collect()
}

/// Mean absolute difference of samples, of all channels or of luma.
fn distance(a: &RgbImage, b: &RgbImage, of: impl Fn([u8; 3]) -> [f64; 3]) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let pairs = a.pixels().zip(b.pixels());
    let differences = pairs.map(|(a, b)| {
        let (a, b) = (of(a.0), of(b.0));
        (0..3).map(|i| (a[i] - b[i]).abs()).sum::<f64>() / 3.0
    });
    differences.sum::<f64>() / f64::from(a.width() * a.height())
}

fn all(pixel: [u8; 3]) -> [f64; 3] {
    pixel.map(f64::from)
}

fn luma([r, g, b]: [u8; 3]) -> [f64; 3] {
    [0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b); 3]
}

/// The share of pixels without colour.
fn n_colourless(picture: &RgbImage) -> f64 {
    let colourless =
        |p: &&::image::Rgb<u8>| p.0.iter().max().unwrap() - p.0.iter().min().unwrap() <= 2;
    let n = picture.pixels().filter(colourless).count();
    n as f64 / f64::from(picture.width() * picture.height())
}

const IN_SCANS: [&str; 3] = [
    "component-scans",
    "component-scans-restarts",
    "full-chroma-component-scans",
];

#[test]
fn missing_chroma_gives_grey() {
    for name in IN_SCANS.into_iter().chain(["chroma-scan"]) {
        let file = reference(name);
        let whole = read(&file, false).unwrap().picture;
        let scans = scans(&file);
        // Cut before the header of the second scan, in it, and before its data; each also with an end marker or zeros
        // appended.
        let cuts = [scans[1], scans[1] + 3, scans[1] + 10].map(|at| &file[..at]);
        for cut in cuts {
            let zeros = [cut, &[0; 5000]].concat();
            for file in [cut, &[cut, &EOI].concat(), &zeros] {
                let part = part(file);
                assert!(n_colourless(&part) > 0.99, "{name}");
                let distance = distance(&part, &whole, luma);
                assert!(distance < 1.5, "{name}: {distance}"); // colours were clipped
            }
        }
    }
}

#[test]
fn a_missing_last_component_does_not_affect_the_others() {
    for name in IN_SCANS {
        let file = reference(name);
        let whole = read(&file, false).unwrap().picture;
        let scans = scans(&file);
        let part = part(&file[..scans[2]]);
        // Cb is in the second scan, Cr in the third.
        let blue = |[r, g, b]: [u8; 3]| [f64::from(b) - luma([r, g, b])[0]; 3];
        let distance = distance(&part, &whole, blue);
        assert!(distance < 3.0, "{name}: {distance}");
    }
}

#[test]
fn a_truncated_scan_is_decoded_up_to_its_end() {
    let row = |picture: &RgbImage, y| picture.rows().nth(y).unwrap().copied().collect::<Vec<_>>();
    for name in IN_SCANS {
        let file = reference(name);
        let whole = read(&file, false).unwrap().picture;
        let scans = scans(&file);
        // Within luma: the upper part has no colour, the rest is grey.
        let cut = (scans[0] + scans[1]) / 2;
        let half = part(&file[..cut]);
        assert!(n_colourless(&half) > 0.99, "{name}");
        let last = row(&half, 111);
        assert!(last.iter().all(|p| p.0 == [128; 3]), "{name}: {last:?}");
        let lumas = |picture: &RgbImage| {
            row(picture, 0)
                .iter()
                .map(|p| luma(p.0)[0])
                .collect::<Vec<_>>()
        };
        let pairs = lumas(&half).into_iter().zip(lumas(&whole));
        assert!(
            pairs.into_iter().all(|(a, b)| (a - b).abs() < 4.0),
            "{name}"
        );
        // Within the last chroma: everything above is complete.
        let cut = scans[2] + (file.len() - scans[2]) * 3 / 4;
        let most = part(&file[..cut]);
        assert_eq!(row(&most, 0), row(&whole, 0), "{name}");
    }
}

#[test]
fn missing_components_of_progressive_files_are_filled() {
    let file = reference("progressive-component-scans");
    let whole = read(&file, false).unwrap().picture;
    let scans = scans(&file);
    for cut in [scans[1], scans[1] + 6, scans[1] - 1] {
        let part = part(&file[..cut]);
        assert!(n_colourless(&part) > 0.99, "{cut}");
        let distance = distance(&part, &whole, luma);
        assert!(distance < 30.0, "{cut}: {distance}"); // only DC coefficients
    }
    let coarse = part(&file[..scans[3]]);
    let blue = part(&file[..scans[2]]);
    assert!(distance(&coarse, &whole, all) < distance(&blue, &whole, all));
    // Every cut after the start of the first scan's data gives a picture.
    for cut in (scans[0] + 20..file.len() - 2).step_by(3) {
        part_or_whole(&file[..cut]);
    }
}

/// A file that is cut after its last refinement may be complete.
fn part_or_whole(file: &[u8]) {
    if read(file, false).is_err() {
        part(file);
    }
}

#[test]
fn every_cut_after_the_first_blocks_gives_a_picture() {
    for name in [
        "component-scans",
        "chroma-scan",
        "cmyk-component-scans",
        "restarts",
        "cmyk",
        "rgb",
        "grey",
    ] {
        let file = reference(name);
        let first = scans(&file)[0] + 40;
        for cut in (first..file.len() - 2).step_by(7) {
            part_or_whole(&file[..cut]);
        }
    }
}

#[test]
fn restart_intervals_keep_their_positions() {
    let file = reference("component-scans-restarts");
    let whole = read(&file, false).unwrap().picture;
    let (first, second) = (scans(&file)[0], scans(&file)[1]);
    let is_restart = |at: &usize| file[*at] == 0xff && matches!(file[at + 1], 0xd0..=0xd7);
    let restarts: Vec<usize> = (first..second).filter(is_restart).collect();
    let last = restarts[restarts.len() - 2];
    let part = part(&file[..last]);
    let there = ::image::imageops::crop_imm(&part, 0, 0, part.width(), 64).to_image();
    let expected = ::image::imageops::crop_imm(&whole, 0, 0, part.width(), 64).to_image();
    let distance = distance(&there, &expected, luma);
    assert!(distance < 1.5, "{distance}");
}

#[test]
fn quantization_tables_of_missing_scans_are_not_needed() {
    let file = reference("component-scans");
    // The second quantization table (chroma).
    let is_table = |at: &usize| file[*at..].starts_with(&[0xff, 0xdb, 0, 67, 1]);
    let table = (0..file.len()).find(is_table).unwrap();
    let without = [&file[..table], &file[table + 69..]].concat();
    let cut = &without[..scans(&without)[1]];
    assert!(n_colourless(&part(cut)) > 0.99);
}

#[test]
fn a_file_without_samples_is_an_error() {
    for name in [
        "component-scans",
        "progressive-component-scans",
        "baseline",
        "progressive",
        "cmyk",
    ] {
        let file = reference(name);
        let data = scans(&file)[0];
        for cut in [data, data + 4] {
            let error = read(&file[..cut], true).unwrap_err();
            assert!(error.is_truncated(), "{name}: {error}");
        }
    }
}
