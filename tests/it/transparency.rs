//! Transparent pictures, and files that are not pictures.

use std::{fs, path::Path};

use crate::common::{
    captions::{draw, model, records, run, scratch},
    program::{assert_fails, path, stdout, xc2_edge, xc2_edge_with_stdin},
};
use ::image::{Rgba, RgbaImage};
use serde_json::{Value, json};

const BRIEF: &str = "Describe this image briefly.";

/// The picture with a transparent background, black underneath.
fn cut_out(scene: &Path) -> RgbaImage {
    let mut picture = ::image::open(scene).unwrap().into_rgba8();
    let paper = picture.get_pixel(1, 1).0;
    for pixel in picture.pixels_mut() {
        let is_paper = pixel.0.iter().zip(paper).all(|(a, b)| a.abs_diff(b) < 24);
        if is_paper {
            *pixel = Rgba([0; 4]);
        }
    }
    picture
}

fn ask(picture: &Path, options: &[&str]) -> Value {
    let (model, picture) = (path(model()), path(picture));
    let args = [
        "run", "-m", &model, "--image", &picture, "-p", BRIEF, "--json", "-q",
    ];
    let output = xc2_edge(&[&args[..], options].concat());
    serde_json::from_str(stdout(&output)).unwrap()
}

#[test]
fn a_cut_out_is_blended_on_white_and_the_cache_separates_both_settings() {
    let dir = scratch("cut-out");
    draw(&dir, "203..204");
    let picture = dir.join("cut.png");
    cut_out(&dir.join("pictures/scene-00203.png"))
        .save(&picture)
        .unwrap();
    let cache = path(&dir.join("cache"));
    // Each setting twice: the second answer comes from the cache.
    for _ in 0..2 {
        for (how, background) in [("auto", "white"), ("drop", "black"), ("white", "white")] {
            let answer = ask(&picture, &["--transparency", how, "--cache", &cache]);
            let text = answer["text"].as_str().unwrap();
            assert!(
                text.ends_with(&format!("on a {background} background.")),
                "{how}: {text}"
            );
        }
    }
    let by_default = ask(&picture, &[]);
    assert_eq!(by_default["timings"]["n_images_on_white"], 1);
    let dropped = ask(&picture, &["--transparency", "drop"]);
    assert_eq!(dropped["timings"]["n_images_on_white"], 0);
}

#[test]
fn records_mark_pictures_blended_on_white() {
    let dir = scratch("records-on-white");
    draw(&dir, "203..204");
    cut_out(&dir.join("pictures/scene-00203.png"))
        .save(dir.join("pictures/cut.png"))
        .unwrap();
    run(&dir, &["pictures", "-o", "captions.jsonl"]);
    let all = records(&dir.join("captions.jsonl"));
    assert_eq!(all.len(), 2);
    for record in all {
        let is_cut = record["path"] == "pictures/cut.png";
        let expected = if is_cut { json!("white") } else { Value::Null };
        assert_eq!(record["background"], expected, "{record}");
    }
    let model = path(model());
    let line = json!({ "path": path(&dir.join("pictures/cut.png")) }).to_string();
    let args = ["caption", "-m", &model, "--jsonl-in", "-", "-q"];
    let output = xc2_edge_with_stdin(&args, format!("{line}\n").as_bytes());
    let record: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(record["background"], "white");
}

#[test]
fn an_opaque_picture_with_alpha_is_not_marked_as_blended() {
    let dir = scratch("opaque");
    draw(&dir, "203..204");
    let picture = dir.join("opaque.png");
    let scene = ::image::open(dir.join("pictures/scene-00203.png")).unwrap();
    scene.into_rgba8().save(&picture).unwrap();
    let white = ["--transparency", "white"];
    run(
        &dir,
        &[&["opaque.png", "-o", "captions.jsonl"][..], &white].concat(),
    );
    let record = records(&dir.join("captions.jsonl")).remove(0);
    assert!(record["caption"].is_string(), "{record}");
    assert_eq!(record["background"], Value::Null, "{record}");
    let answer = ask(&picture, &white);
    assert_eq!(answer["timings"]["n_images_on_white"], 0);
}

#[test]
fn files_that_are_not_pictures_are_identified_by_content() {
    let dir = scratch("foreign");
    let model = path(model());
    let heic = fs::read(crate::common::reference("reports/heic-named.jpg")).unwrap();
    let cases: [(&str, &[u8], &str, &str); 6] = [
        ("photo.jpg", &heic, "found a HEIC picture", "heif-convert"),
        (
            "login.jpg",
            b"<!DOCTYPE html><html>",
            "found a web page (HTML)",
            "download again",
        ),
        (
            "drawing.png",
            b"<?xml version='1.0'?><svg/>",
            "found an SVG drawing",
            "rsvg-convert",
        ),
        (
            "page.tif",
            b"%PDF-1.7\n",
            "found a PDF document",
            "pdftoppm",
        ),
        (
            "raw.jpg",
            b"II*\0\x10\0\0\0CR\x02\0",
            "found a raw photo (Canon CR2)",
            "darktable-cli",
        ),
        (
            "big.png",
            b"version https://git-lfs.github.com/spec/v1\n",
            "found a Git LFS pointer",
            "git lfs pull",
        ),
    ];
    for (name, content, what, advice) in cases {
        if name == "photo.jpg" && cfg!(feature = "heic") {
            continue; // read with this feature, and this file is truncated
        }
        let file = dir.join(name);
        fs::write(&file, content).unwrap();
        let file = path(&file);
        assert_fails(
            &["run", "-m", &model, "--image", &file, "-p", BRIEF],
            &[name, what, advice],
        );
    }
}

#[test]
fn a_picture_of_extreme_shape_is_refused_before_decoding() {
    let dir = scratch("absurd");
    let model = path(model());
    let file = dir.join("long.png");
    ::image::GrayImage::new(1, 2_000_000).save(&file).unwrap();
    let file = path(&file);
    let ask = [
        "run",
        "-m",
        &model,
        "--image",
        &file,
        "-p",
        BRIEF,
        "--max-memory",
        "300MB",
    ];
    assert_fails(
        &ask,
        &["long.png", "1x2000000", "at most 262144 pixels", "cut it"],
    );
}

#[test]
fn a_long_picture_is_resized_within_the_memory_limit() {
    let dir = scratch("long");
    let file = dir.join("long.png");
    ::image::GrayImage::new(1, 200_000).save(&file).unwrap();
    let answer = ask(&file, &["--max-memory", "300MB"]);
    let peak = answer["peak_memory_bytes"].as_u64().unwrap();
    assert!(peak < 300_000_000, "{peak}");
}
