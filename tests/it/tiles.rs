//! Tiles and strips against the sizes and pictures of the original.

use image::RgbImage;
use serde::Deserialize;
use xc2_edge::{
    model::{TileGrid, Tiling},
    vision::image::{Orientation, ReadOptions, TileMode, TilePlan, dimensions, open, strip},
};

use crate::common::reference;

#[derive(Deserialize)]
struct Geometry {
    #[serde(rename = "4khd")]
    khd4: Vec<Row>,
    #[serde(rename = "ixc2d5")]
    v2d5: Vec<Row>,
    video: Vec<Video>,
    frame_numbers: Vec<FrameNumbers>,
}

#[derive(Deserialize)]
struct Row {
    w: u32,
    h: u32,
    hd_num: u32,
    #[serde(default)]
    refused: bool,
    transposed: Option<bool>,
    resized: Option<(u32, u32)>,
    tiles_hw: Option<(usize, usize)>,
    tokens: Option<usize>,
}

#[derive(Deserialize)]
struct Video {
    frame: (u32, u32),
    frames: usize,
    canvas: (u32, u32),
    long_side: u32,
    tiles_hw: (usize, usize),
}

#[derive(Deserialize)]
struct FrameNumbers {
    n: usize,
    fps: f64,
    frames: Vec<usize>,
}

fn geometry() -> Geometry {
    let text = std::fs::read_to_string(reference("geometry.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The number of embeddings of a grid of tiles whose edge has `m`.
fn n_tokens(grid: TileGrid, m: usize) -> usize {
    (grid.rows * grid.cols + 1) * m * m + 1 + (grid.rows + 1) * m
}

#[test]
fn every_picture_is_cut_as_by_the_original() {
    let Geometry { khd4, v2d5, .. } = geometry();
    let (mut n, mut n_refused) = (0, 0);
    for (tiling, tile, m, rows) in [
        (Tiling::Khd4, 336, 12, &khd4),
        (Tiling::V2d5, 560, 20, &v2d5),
    ] {
        for row in rows {
            let what = format!("{tiling:?} {}x{} in {}", row.w, row.h, row.hd_num);
            let hd_num = row.hd_num;
            let plan = TilePlan::new(tiling, tile, (row.w, row.h), TileMode::Picture { hd_num });
            if row.refused {
                assert!(plan.is_err(), "{what}");
                n_refused += 1;
                continue;
            }
            let plan = plan.unwrap();
            assert_eq!(Some(plan.transposed), row.transposed, "{what}");
            assert_eq!(Some(plan.resized), row.resized, "{what}");
            let grid = (plan.grid.rows, plan.grid.cols);
            assert_eq!(Some(grid), row.tiles_hw, "{what}");
            assert_eq!(Some(n_tokens(plan.grid, m)), row.tokens, "{what}");
            n += 1;
        }
    }
    assert!(n > 500 && n_refused >= 2, "{n} rows, {n_refused} refused");
}

#[test]
fn every_strip_has_the_size_and_the_tiles_of_the_original() {
    for video in geometry().video {
        let frames = vec![video.frame; video.frames];
        let canvas = strip::size(&frames);
        assert_eq!(canvas, video.canvas, "{:?}", video.frame);
        let plan = TilePlan::new(Tiling::V2d5, 560, canvas, TileMode::Strip).unwrap();
        assert_eq!(plan.resized.0, video.long_side, "{:?}", video.frame);
        assert_eq!((plan.grid.rows, plan.grid.cols), video.tiles_hw);
    }
}

#[test]
fn frames_are_chosen_as_by_the_original() {
    for case in geometry().frame_numbers {
        let found = strip::frame_numbers(case.n, case.fps);
        assert_eq!(found, case.frames, "{} at {}", case.n, case.fps);
    }
}

/// The strip of some frames, and the original's, whose labels are in another font.
fn strips(frames: &[&str], canvas: &str, labels: bool) -> (RgbImage, RgbImage) {
    let read = |name: &str| open(&reference("video").join(name), ReadOptions::REFERENCE).unwrap();
    let frames: Vec<_> = frames.iter().map(|name| read(name)).collect();
    let last = frames.last().unwrap().dimensions();
    let resized: Vec<_> = frames.iter().map(strip::resize_frame).collect();
    (strip::join(&resized, last, labels), read(canvas))
}

#[test]
fn strips_equal_the_originals_except_for_labels() {
    for (frames, canvas, vertical) in [
        (
            &["wide-0.png", "wide-1.png", "wide-2.png"][..],
            "wide-canvas.png",
            true,
        ),
        (&["tall-0.png", "tall-1.png"][..], "tall-canvas.png", false),
    ] {
        let (ours, theirs) = strips(frames, canvas, true);
        let (plain, _) = strips(frames, canvas, false);
        assert_eq!(ours.dimensions(), theirs.dimensions(), "{canvas}");
        let step = if vertical {
            ours.height() / 3
        } else {
            ours.width() / 2
        };
        let is_label = |x: u32, y: u32| match vertical {
            true => y % step < 40 && x < 400,
            false => y < 40 && x % step < 400,
        };
        let mut n_black_in_labels = 0;
        for (x, y, pixel) in ours.enumerate_pixels() {
            if is_label(x, y) {
                n_black_in_labels += usize::from(pixel.0[0] < 128);
                assert_eq!(plain.get_pixel(x, y).0, [255; 3], "{canvas} at {x}, {y}");
            } else {
                assert_eq!(pixel, theirs.get_pixel(x, y), "{canvas} at {x}, {y}");
                assert_eq!(pixel, plain.get_pixel(x, y), "{canvas} at {x}, {y}");
            }
        }
        assert!(n_black_in_labels > 200, "the labels are drawn");
    }
}

#[test]
fn the_size_of_a_picture_is_read_without_decoding_it() {
    for folder in ["images", "jpeg", "reports"] {
        for entry in std::fs::read_dir(reference(folder)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            for orientation in [Orientation::Apply, Orientation::Ignore] {
                let Ok(picture) = open(&path, orientation) else {
                    continue;
                };
                let size = dimensions(&bytes, orientation).unwrap();
                assert_eq!(size, picture.dimensions(), "{}", path.display());
            }
        }
    }
}
