//! Labels of frames, drawn with characters that were rendered in advance (`scripts/render-labels`).
//!
//! The glyphs are DejaVu Sans Mono's, whose licence permits it (labels.licence.txt); the original's SimHei is not free.

use std::sync::OnceLock;

use ::image::{GrayImage, Rgb, RgbImage};

/// The characters of `labels.png`, from left to right.
const CHARACTERS: &str = "<>IMAGE 0123456789";
/// Width and height of a character, in pixels.
const WIDTH: u32 = 20;
const HEIGHT: u32 = 40;

/// How black each pixel of the characters is.
fn characters() -> &'static GrayImage {
    static CELL: OnceLock<GrayImage> = OnceLock::new();
    CELL.get_or_init(|| {
        let png = include_bytes!("labels.png");
        let picture = ::image::load_from_memory_with_format(png, ::image::ImageFormat::Png);
        picture.expect("a PNG of this program").into_luma8()
    })
}

/// Draws `text` in black on white, from `(x, y)` on, as far as it fits. Characters that have no picture are left out.
pub fn draw(canvas: &mut RgbImage, (x, y): (u32, u32), text: &str) {
    let pictures = characters();
    for (i, c) in (0_u32..).zip(text.chars()) {
        let Some(at) = CHARACTERS.chars().position(|known| known == c) else {
            continue;
        };
        for (dx, dy) in (0..HEIGHT).flat_map(|dy| (0..WIDTH).map(move |dx| (dx, dy))) {
            let black = pictures.get_pixel(at as u32 * WIDTH + dx, dy).0[0];
            if let Some(pixel) = canvas.get_pixel_mut_checked(x + i * WIDTH + dx, y + dy) {
                *pixel = Rgb([255 - black; 3]);
            }
        }
    }
}
