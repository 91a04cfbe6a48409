use std::io::{Cursor, Write};

use ::image::{Frame, ImageFormat, LumaA, Rgba, RgbaImage, codecs::gif::GifEncoder};

use super::*;
use crate::vision::image::{Decoded, Orientation, ReadOptions, decode_within};

const RED: [u8; 3] = [200, 30, 20];
const HIDDEN: [u8; 3] = [10, 90, 10];

/// 20 x 20 pixels: red on the left, and `n_clear` transparent columns with hidden green on the right.
fn half(n_clear: u32) -> RgbaImage {
    RgbaImage::from_fn(20, 20, |x, _| match x + n_clear < 20 {
        true => Rgba([RED[0], RED[1], RED[2], 255]),
        false => Rgba([HIDDEN[0], HIDDEN[1], HIDDEN[2], 0]),
    })
}

fn encode(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    picture.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn read(file: &[u8], transparency: Transparency) -> Decoded {
    let options = ReadOptions {
        orientation: Orientation::Apply,
        transparency,
        allow_truncated: false,
    };
    decode_within(file, options, u64::MAX).unwrap()
}

/// The colour on the right, and whether the picture was blended with white.
fn right(file: &[u8], transparency: Transparency) -> ([u8; 3], bool) {
    let decoded = read(file, transparency);
    (decoded.picture.get_pixel(19, 10).0, decoded.on_white)
}

/// A PNG of palette indices or RGB with a `tRNS` chunk; `kind` is its colour type.
fn png_with_key(kind: u8, palette: &[u8], key: &[u8], row: &[u8]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |name: &[u8], content: &[u8]| {
        let body = [name, content].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        file.extend((content.len() as u32).to_be_bytes());
        file.extend(&body);
        file.extend(crc.sum().to_be_bytes());
    };
    chunk(
        b"IHDR",
        &[&[0, 0, 0, 20, 0, 0, 0, 20, 8, kind][..], &[0, 0, 0]].concat(),
    );
    if !palette.is_empty() {
        chunk(b"PLTE", palette);
    }
    chunk(b"tRNS", key);
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..20 {
        packed.write_all(&[&[0], row].concat()).unwrap();
    }
    chunk(b"IDAT", &packed.finish().unwrap());
    chunk(b"IEND", &[]);
    file
}

#[test]
fn every_kind_of_alpha_is_dropped_or_blended_with_white() {
    let rgba = DynamicImage::ImageRgba8(half(10));
    let mut gif = Vec::new();
    GifEncoder::new(&mut gif)
        .encode_frame(Frame::new(half(10)))
        .unwrap();
    let indices = [[0; 10], [1; 10]].concat();
    let colours = [RED.repeat(10), HIDDEN.repeat(10)].concat();
    let wide = |c: u8| [0, c]; // a key has 16 bits a sample
    let files = [
        ("png, rgba", encode(rgba.clone(), ImageFormat::Png)),
        (
            "png, rgba of 16 bits",
            encode(rgba.to_rgba16(), ImageFormat::Png),
        ),
        (
            "png, palette",
            png_with_key(3, &[RED, HIDDEN].concat(), &[255, 0], &indices),
        ),
        (
            "png, colour key",
            png_with_key(2, &[], &HIDDEN.map(wide).concat(), &colours),
        ),
        ("webp", encode(rgba.clone(), ImageFormat::WebP)),
        ("tiff", encode(rgba.clone(), ImageFormat::Tiff)),
        (
            "tiff of 16 bits",
            encode(rgba.to_rgba16(), ImageFormat::Tiff),
        ),
        ("bmp", encode(rgba, ImageFormat::Bmp)),
    ];
    for (name, file) in &files {
        assert_eq!(right(file, Transparency::Drop), (HIDDEN, false), "{name}");
        assert_eq!(right(file, Transparency::White), ([255; 3], true), "{name}");
        assert_eq!(right(file, Transparency::Auto), ([255; 3], true), "{name}");
        let left = read(file, Transparency::White).picture.get_pixel(0, 10).0;
        assert_eq!(left, RED, "{name}");
    }
    // The hidden colours of a GIF depend on its encoder.
    assert_eq!(right(&gif, Transparency::Auto), ([255; 3], true));

    let grey = ::image::GrayAlphaImage::from_fn(20, 20, |x, _| {
        LumaA(if x < 10 { [90, 255] } else { [7, 0] })
    });
    let file = encode(grey, ImageFormat::Png);
    assert_eq!(right(&file, Transparency::Drop), ([7; 3], false));
    assert_eq!(right(&file, Transparency::Auto), ([255; 3], true));
    let key = png_with_key(0, &[], &[0, 7], &[[90; 10], [7; 10]].concat());
    assert_eq!(right(&key, Transparency::Drop), ([7; 3], false));
    assert_eq!(right(&key, Transparency::Auto), ([255; 3], true));
}

#[test]
fn half_transparent_pixels_become_half_white() {
    let file = encode(
        RgbaImage::from_pixel(20, 20, Rgba([0, 100, 255, 128])),
        ImageFormat::Png,
    );
    assert_eq!(right(&file, Transparency::White), ([127, 177, 255], true));
    let wide = DynamicImage::ImageRgba8(RgbaImage::from_pixel(20, 20, Rgba([0, 100, 255, 128])))
        .to_rgba16();
    let (found, _) = right(&encode(wide, ImageFormat::Png), Transparency::White);
    assert!(
        found
            .iter()
            .zip([127, 177, 255])
            .all(|(f, e)| f.abs_diff(e) <= 1),
        "{found:?}"
    );
}

#[test]
fn by_default_only_substantial_transparency_is_blended() {
    let on_white = |picture: &RgbaImage| {
        right(
            &encode(picture.clone(), ImageFormat::Png),
            Transparency::Auto,
        )
        .1
    };
    assert!(!on_white(&half(0)), "opaque");
    let mut few = half(0);
    (0..3).for_each(|x| few.get_pixel_mut(x, 0).0 = [0; 4]);
    assert!(!on_white(&few), "three of 400 pixels");
    few.get_pixel_mut(3, 0).0 = [0; 4];
    assert!(on_white(&few), "four of 400 pixels: one percent");

    let mut same = half(10);
    same.pixels_mut()
        .filter(|p| p.0[3] == 0)
        .for_each(|p| p.0 = [250, 250, 250, 0]);
    assert!(!on_white(&same), "the hidden part is nearly white");
    let mut faint = half(10);
    faint
        .pixels_mut()
        .filter(|p| p.0[3] == 0)
        .for_each(|p| p.0[3] = 240);
    assert!(!on_white(&faint), "nearly opaque");
    let mut unset = half(10);
    unset.pixels_mut().for_each(|p| p.0[3] = 0);
    assert!(!on_white(&unset), "alpha was left unset");
    let mut logo = half(10);
    logo.pixels_mut()
        .filter(|p| p.0[3] == 255)
        .for_each(|p| p.0 = [255; 4]);
    assert!(!on_white(&logo), "white content would vanish");
    assert!(on_white(&half(10)));
}

#[test]
fn pictures_without_alpha_are_unchanged() {
    let file = encode(
        DynamicImage::ImageRgba8(half(10)).into_rgb8(),
        ImageFormat::Png,
    );
    for transparency in [Transparency::Auto, Transparency::Drop, Transparency::White] {
        assert_eq!(right(&file, transparency), (HIDDEN, false));
    }
}

#[test]
fn opaque_pictures_with_alpha_are_not_blended() {
    let opaque = DynamicImage::ImageRgba8(half(0));
    let grey = DynamicImage::ImageLumaA8(opaque.to_luma_alpha8());
    let mut gif = Vec::new();
    GifEncoder::new(&mut gif)
        .encode_frame(Frame::new(half(0)))
        .unwrap();
    let indices = [0; 20];
    let files = [
        ("png, rgba", encode(opaque.clone(), ImageFormat::Png)),
        ("png, rgba of 16 bits", {
            encode(opaque.to_rgba16(), ImageFormat::Png)
        }),
        ("png, grey", encode(grey.clone(), ImageFormat::Png)),
        ("png, grey of 16 bits", {
            encode(grey.to_luma_alpha16(), ImageFormat::Png)
        }),
        ("png, palette with full alpha", {
            png_with_key(3, &[RED, HIDDEN].concat(), &[255, 255], &indices)
        }),
        ("png, palette with an unused transparent colour", {
            png_with_key(3, &[RED, HIDDEN].concat(), &[255, 0], &indices)
        }),
        ("png, key of an unused colour", {
            png_with_key(2, &[], &HIDDEN.map(|c| [0, c]).concat(), &RED.repeat(20))
        }),
        ("webp", encode(opaque.clone(), ImageFormat::WebP)),
        ("tiff", encode(opaque.clone(), ImageFormat::Tiff)),
        ("bmp", encode(opaque, ImageFormat::Bmp)),
        ("gif", gif),
    ];
    for (name, file) in &files {
        let dropped = right(file, Transparency::Drop).0;
        for transparency in [Transparency::White, Transparency::Auto] {
            assert_eq!(
                right(file, transparency),
                (dropped, false),
                "{name}: {transparency:?}"
            );
        }
    }
}

#[test]
fn a_single_transparent_pixel_is_blended_if_white_is_requested() {
    let mut nearly = half(0);
    nearly.get_pixel_mut(3, 4).0[3] = 254;
    let nearly = DynamicImage::ImageRgba8(nearly);
    let grey = DynamicImage::ImageLumaA8(nearly.to_luma_alpha8());
    let mut wide = DynamicImage::ImageRgba8(half(0)).to_rgba16();
    wide.get_pixel_mut(3, 4).0[3] = u16::MAX - 1;
    for (name, file) in [
        ("rgba", encode(nearly.clone(), ImageFormat::Png)),
        ("grey", encode(grey, ImageFormat::Png)),
        ("16 bits", encode(wide, ImageFormat::Png)),
        ("webp", encode(nearly, ImageFormat::WebP)),
    ] {
        assert!(right(&file, Transparency::White).1, "{name}");
        assert!(!right(&file, Transparency::Auto).1, "{name}");
    }
}

#[test]
fn float_pictures_are_judged_by_their_alpha() {
    let put = |alpha: f32| {
        let pixel = Rgba([0.2_f32, 0.4, 0.6, alpha]);
        let mut picture = DynamicImage::ImageRgba32F(::image::ImageBuffer::from_pixel(4, 4, pixel));
        Transparency::White.apply(&mut picture)
    };
    assert!(put(0.5) && put(-1.0));
    assert!(!put(1.0) && !put(1.5));
}
