//! Draws a scene with integer arithmetic only.
//!
//! Coordinates are in 1/64 pixel. A thing's coverage of a pixel is the share of 4x4 sample points inside its
//! outline. All right shifts round down.

use super::{
    Draw, Scene, SceneError, Thing,
    outlines::{Outline, outline, sine_cosine},
    scene::range,
};
use crate::vision::image::RgbImage;

/// Maximum picture side of [`render`]; larger sides would overflow.
pub const MAX_SIDE: usize = 512;

/// Subdivisions of a pixel.
const SUB: i64 = 64;
/// Sample points per pixel along an axis.
const SAMPLES: i64 = 4;

/// The picture of `scene`, `side` pixels wide and high.
///
/// # Errors
/// If a number of the scene is out of range, or the side longer than [`MAX_SIDE`].
pub fn render(scene: &Scene, side: usize) -> Result<RgbImage, SceneError> {
    scene.check()?;
    range("side", side as i64, 1, MAX_SIDE as i64)?;
    let mut canvas = Canvas::ground(scene, side);
    for layer in layers(scene) {
        canvas.draw(&layer);
    }
    if scene.soften > 0 {
        canvas.soften(scene.soften.into());
    }
    if scene.noise > 0 {
        canvas.add_noise(scene.noise_seed, scene.noise.into());
    }
    Ok(canvas.into_image())
}

/// An outline to fill with a colour.
struct Layer<'a> {
    thing: &'a Thing,
    r: i64,
    rgb: [i64; 3],
}

/// Layers, bottom first. A rim is a separate layer below the thing, which then has 7/8 of the radius.
fn layers(scene: &Scene) -> Vec<Layer<'_>> {
    let mut layers = Vec::new();
    for thing in &scene.things {
        let (r, rgb) = (thing.r.into(), thing.rgb.map(i64::from));
        if thing.rim == 256 {
            layers.push(Layer { thing, r, rgb });
            continue;
        }
        let dark = rgb.map(|v| (v * i64::from(thing.rim)) >> 8);
        layers.push(Layer {
            thing,
            r,
            rgb: dark,
        });
        let r = (r * 7) >> 3;
        layers.push(Layer { thing, r, rgb });
    }
    layers
}

/// An outline at its position in the picture, in 1/64 pixel.
struct Shape {
    filled: bool,
    pen: i64,
    edges: Vec<[i64; 4]>,
}

impl Shape {
    /// Stretches, rotates, scales and moves the outline of `layer`.
    fn place(layer: &Layer<'_>, side: i64) -> Self {
        let thing = layer.thing;
        let Outline { filled, pen, edges } = outline(thing);
        let (sine, cosine) = sine_cosine(thing.turn);
        let wide = i64::from(thing.stretch);
        let to_picture = |v: i64| (v * side * SUB) >> 12;
        let (cx, cy) = (to_picture(thing.cx.into()), to_picture(thing.cy.into()));
        let radius = to_picture(layer.r);
        let point = |x: i64, y: i64| {
            let (u, v) = (x * wide, y * (65536 / wide)); // 10 + 8 fractional bits
            let right = (cosine * u - sine * v) >> 18;
            let down = (sine * u + cosine * v) >> 18;
            (cx + ((radius * right) >> 14), cy + ((radius * down) >> 14))
        };
        let place = |&[ax, ay, bx, by]: &[i64; 4]| {
            let (a, b) = (point(ax, ay), point(bx, by));
            [a.0, a.1, b.0, b.1]
        };
        Self {
            filled: *filled,
            pen: (radius * (pen + i64::from(thing.pen))) >> 10,
            edges: edges.iter().map(place).collect(),
        }
    }

    /// First and last pixel that the shape may cover along an axis (0: x, 1: y).
    fn reach(&self, axis: usize, side: i64) -> std::ops::Range<i64> {
        let ends = || self.edges.iter().flat_map(|e| [e[axis], e[axis + 2]]);
        let min = ends().min().unwrap_or(0) - self.pen;
        let max = ends().max().unwrap_or(0) + self.pen + SUB;
        (min >> 6).max(0)..((max >> 6).max(0) + 1).min(side)
    }

    /// Number of a pixel's 16 sample points inside the shape.
    fn share(&self, x: i64, y: i64) -> i64 {
        let step = SUB / SAMPLES;
        let at = |pixel: i64, i: i64| pixel * SUB + i * step + step / 2;
        let points = (0..SAMPLES * SAMPLES).map(|i| (at(x, i % SAMPLES), at(y, i / SAMPLES)));
        points.filter(|&(px, py)| self.contains(px, py)).count() as i64
    }

    fn contains(&self, px: i64, py: i64) -> bool {
        if self.filled {
            let crossed = self.edges.iter().filter(|e| crosses(e, px, py)).count();
            crossed % 2 == 1
        } else {
            self.edges.iter().any(|e| is_near(e, px, py, self.pen))
        }
    }
}

/// Whether an edge crosses the ray from the point to the right.
fn crosses(&[ax, ay, bx, by]: &[i64; 4], px: i64, py: i64) -> bool {
    let (ex, ey) = (bx - ax, by - ay);
    let (left, right) = ((px - ax) * ey, (py - ay) * ex);
    (ay > py) != (by > py) && if ey > 0 { left < right } else { left > right }
}

/// Whether the point is within `pen` of an edge.
fn is_near(&[ax, ay, bx, by]: &[i64; 4], px: i64, py: i64, pen: i64) -> bool {
    let (ex, ey) = (bx - ax, by - ay);
    let (dx, dy) = (px - ax, py - ay);
    let within = |x: i64, y: i64| x * x + y * y <= pen * pen;
    if within(dx, dy) || within(dx - ex, dy - ey) {
        return true;
    }
    let length = ex * ex + ey * ey;
    let (along, across) = (dx * ex + dy * ey, dx * ey - dy * ex);
    along > 0 && along < length && across * across <= pen * pen * length
}

/// A picture while it is drawn: samples are wider than 8 bits and not clipped yet.
struct Canvas {
    side: usize,
    /// `[side, side]`, RGB.
    pixels: Vec<[i64; 3]>,
}

impl Canvas {
    /// Draws the background: a gradient between two colours.
    fn ground(scene: &Scene, side: usize) -> Self {
        let n = side as i64;
        let [slope_x, slope_y] = scene.slope.map(i64::from);
        let at = |i: i64| 2 * i + 1 - n;
        let pixel = |x: i64, y: i64| {
            let t = (slope_x * at(x) + slope_y * at(y) + 2 * n) * 64 / n; // 0..256
            let mix = |c| i64::from(scene.near[c]) * (256 - t) + i64::from(scene.far[c]) * t;
            [0, 1, 2].map(|c: usize| (mix(c) + 128) >> 8)
        };
        let pixels = (0..n * n).map(|i| pixel(i % n, i / n)).collect();
        Self { side, pixels }
    }

    fn draw(&mut self, layer: &Layer<'_>) {
        let side = self.side as i64;
        let shape = Shape::place(layer, side);
        for y in shape.reach(1, side) {
            for x in shape.reach(0, side) {
                let share = shape.share(x, y);
                let pixel = &mut self.pixels[(y * side + x) as usize];
                for (value, color) in pixel.iter_mut().zip(layer.rgb) {
                    *value = (*value * (16 - share) + color * share + 8) >> 4;
                }
            }
        }
    }

    /// Blends each pixel with the mean of its 3x3 neighbourhood; edges repeat.
    fn soften(&mut self, weight: i64) {
        let last = self.side - 1;
        let near = |i: usize| [i.saturating_sub(1), i, (i + 1).min(last)];
        let soft = |x: usize, y: usize, c: usize| {
            let row = |y: usize| near(x).map(|x| self.pixels[y * self.side + x][c]);
            let total: i64 = near(y).into_iter().flat_map(row).sum();
            let own = self.pixels[y * self.side + x][c];
            (own * 9 * (256 - weight) + total * weight + 1152) / 2304
        };
        let pixel = |i: usize| [0, 1, 2].map(|c| soft(i % self.side, i / self.side, c));
        self.pixels = (0..self.pixels.len()).map(pixel).collect();
    }

    /// Adds triangular noise: one splitmix64 number per pixel, two bytes of it per channel.
    fn add_noise(&mut self, seed: u64, amplitude: i64) {
        let mut draw = Draw::new(seed);
        for pixel in &mut self.pixels {
            let bytes = draw.bits().to_le_bytes().map(i64::from);
            for (c, value) in pixel.iter_mut().enumerate() {
                let noise = bytes[2 * c] + bytes[2 * c + 1] - 255;
                *value += (noise * amplitude + 128) >> 8;
            }
        }
    }

    fn into_image(self) -> RgbImage {
        let side = self.side as u32;
        RgbImage::from_fn(side, side, |x, y| {
            let pixel = self.pixels[(y * side + x) as usize];
            pixel.map(|v| v.clamp(0, 255) as u8).into()
        })
    }
}
