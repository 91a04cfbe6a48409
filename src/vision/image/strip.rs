//! Frames of a video as one picture, as the 2.5 models see a video.
//!
//! Frames of landscape videos stand one below the other, others side by side, each with a label above it and a thin
//! black line behind it. The original writes labels in SimHei, which is not free; ours are in another font, so only
//! their pixels differ.

use ::image::{Rgb, RgbImage, imageops};

use super::{
    label,
    resize::{Filter, resize},
};

/// Maximum number of frames of a strip.
pub const MAX_FRAMES: usize = 32;

/// The long side of a frame in a strip, in pixels.
const FRAME_SIDE: f64 = 1120.0;
/// Height of a label, above each frame.
const LABEL: u32 = 40;
/// Pixels between a frame and the next label or frame, with the line in them.
const GAP: u32 = 10;
/// Pixels between a frame and the line behind it, and the line's width.
const LINE_AT: u32 = 5;
const LINE: u32 = 2;

const WHITE: Rgb<u8> = Rgb([255; 3]);
const BLACK: Rgb<u8> = Rgb([0; 3]);

/// The frames to look at, of `n` frames at `fps` frames per second: one per second, at most [`MAX_FRAMES`], evenly
/// spaced.
pub fn frame_numbers(n: usize, fps: f64) -> Vec<usize> {
    let step = (fps.round_ties_even() as usize).max(1);
    let every_second: Vec<usize> = (0..n).step_by(step).collect();
    let n = every_second.len();
    if n <= MAX_FRAMES {
        return every_second;
    }
    // As the original: the end is never reached.
    let gap = n as f64 / (MAX_FRAMES + 1) as f64;
    let chosen = (0..MAX_FRAMES).map(|i| every_second[(i as f64 * gap) as usize]);
    chosen.collect()
}

/// Width and height of a frame of `size` in a strip.
fn frame_size((width, height): (u32, u32)) -> (u32, u32) {
    let ratio = f64::from(width) / f64::from(height);
    let (width, height) = match width > height {
        true => (FRAME_SIDE as u32, (FRAME_SIDE / ratio) as u32),
        false => ((FRAME_SIDE * ratio) as u32, FRAME_SIDE as u32),
    };
    (width.max(1), height.max(1))
}

/// Whether frames stand one below the other; the last frame decides.
fn is_vertical((width, height): (u32, u32)) -> bool {
    width > height
}

/// Width and height of the strip of frames of these sizes.
///
/// # Panics
/// If there are no frames.
pub fn size(frames: &[(u32, u32)]) -> (u32, u32) {
    let last = *frames.last().expect("a strip has frames");
    let resized: Vec<_> = frames.iter().map(|size| frame_size(*size)).collect();
    canvas_size(&resized, is_vertical(last))
}

fn canvas_size(resized: &[(u32, u32)], vertical: bool) -> (u32, u32) {
    let widths = resized.iter().map(|size| size.0);
    let heights = resized.iter().map(|size| size.1);
    match vertical {
        true => (
            widths.max().unwrap_or(0),
            heights.map(|h| h + LABEL + GAP).sum(),
        ),
        false => (
            widths.map(|w| w + GAP).sum(),
            heights.max().unwrap_or(0) + LABEL,
        ),
    }
}

/// A frame in the size that it has in a strip.
pub fn resize_frame(frame: &RgbImage) -> RgbImage {
    let (width, height) = frame_size(frame.dimensions());
    resize(frame, width, height, Filter::Bilinear)
}

/// Joins resized frames; `last_size` is the size of the last one before resizing.
///
/// # Panics
/// If there are no frames.
pub fn join(frames: &[RgbImage], last_size: (u32, u32), labels: bool) -> RgbImage {
    assert!(!frames.is_empty(), "a strip has frames");
    let vertical = is_vertical(last_size);
    let sizes: Vec<_> = frames.iter().map(RgbImage::dimensions).collect();
    let (width, height) = canvas_size(&sizes, vertical);
    let mut canvas = RgbImage::from_pixel(width, height, WHITE);
    let mut at = 0;
    for (i, frame) in frames.iter().enumerate() {
        let (x, y) = if vertical { (0, at) } else { (at, 0) };
        imageops::replace(&mut canvas, frame, i64::from(x), i64::from(y + LABEL));
        if labels {
            label::draw(&mut canvas, (x, y), &format!("<IMAGE {i}>"));
        }
        let is_last = i + 1 == frames.len();
        let (frame_width, frame_height) = frame.dimensions();
        let line = match vertical {
            true => at + LABEL + frame_height + LINE_AT,
            false => at + frame_width + LINE_AT,
        };
        if !is_last {
            draw_line(&mut canvas, line, vertical);
        }
        at += match vertical {
            true => frame_height + LABEL + GAP,
            false => frame_width + GAP,
        };
    }
    canvas
}

/// A black line across the strip.
fn draw_line(canvas: &mut RgbImage, at: u32, vertical: bool) {
    for offset in at..at + LINE {
        match vertical {
            true => (0..canvas.width()).for_each(|x| canvas.put_pixel(x, offset, BLACK)),
            false => (0..canvas.height()).for_each(|y| canvas.put_pixel(offset, y, BLACK)),
        }
    }
}
