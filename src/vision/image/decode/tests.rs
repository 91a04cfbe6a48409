use ::image::{ColorType, DynamicImage, ImageEncoder, codecs};

use super::*;

/// 3 x 2 different pixels.
fn small() -> RgbImage {
    RgbImage::from_fn(3, 2, |x, y| {
        ::image::Rgb([(x * 90) as u8, (y * 200) as u8, 7])
    })
}

fn encode(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    picture.write_to(&mut out, format).unwrap();
    out.into_inner()
}

/// A PNG that is only a header, which is enough for a size check.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut ihdr = b"IHDR".to_vec();
    ihdr.extend(width.to_be_bytes());
    ihdr.extend(height.to_be_bytes());
    ihdr.extend([8, 2, 0, 0, 0]); // 8 bits, RGB
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for chunk in [&ihdr[..], b"IDAT"] {
        png.extend((chunk.len() as u32 - 4).to_be_bytes());
        png.extend(chunk);
        png.extend(crc32(chunk).to_be_bytes());
    }
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| {
            (c >> 1) ^ (0xedb8_8320 * (c & 1))
        })
    })
}

#[test]
fn lossless_formats_decode_exactly() {
    use ImageFormat::{Bmp, Gif, Png, Tiff, WebP};
    let picture = DynamicImage::ImageRgb8(small());
    for format in [Png, Bmp, Tiff, WebP, Gif] {
        let source = match format {
            Gif => DynamicImage::ImageRgba8(picture.to_rgba8()),
            _ => picture.clone(),
        };
        let decoded = decode(&encode(&source, format), Orientation::Apply).unwrap();
        assert_eq!(decoded, small(), "{format:?}");
    }
}

#[test]
fn alpha_is_dropped_and_not_blended() {
    let mut rgba = DynamicImage::ImageRgb8(small()).to_rgba8();
    rgba.pixels_mut().for_each(|p| p.0[3] = 0);
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff] {
        let bytes = encode(&DynamicImage::ImageRgba8(rgba.clone()), format);
        assert_eq!(
            decode(&bytes, Orientation::Apply).unwrap(),
            small(),
            "{format:?}"
        );
    }
}

#[test]
fn sixteen_bits_keep_the_high_byte_and_grey_is_repeated() {
    let samples = [0x12ff_u16, 0xfe80].map(u16::to_ne_bytes).concat();
    let mut png = Vec::new();
    codecs::png::PngEncoder::new(&mut png)
        .write_image(&samples, 2, 1, ColorType::L16.into())
        .unwrap();
    let decoded = decode(&png, Orientation::Apply).unwrap();
    assert_eq!(decoded.into_raw(), [0x12, 0x12, 0x12, 0xfe, 0xfe, 0xfe]);

    let samples = [0x12ff_u16, 0xfe80, 0x0100, 0]
        .map(u16::to_ne_bytes)
        .concat();
    let mut png = Vec::new();
    codecs::png::PngEncoder::new(&mut png)
        .write_image(&samples, 1, 1, ColorType::Rgba16.into())
        .unwrap();
    let decoded = decode(&png, Orientation::Apply).unwrap();
    assert_eq!(decoded.into_raw(), [0x12, 0xfe, 0x01]);
}

#[test]
fn the_first_frame_of_an_animation_is_used() {
    let mut gif = Vec::new();
    let mut encoder = codecs::gif::GifEncoder::new(&mut gif);
    for colour in [[255, 0, 0, 255], [0, 0, 255, 255]] {
        let frame = ::image::RgbaImage::from_pixel(4, 4, ::image::Rgba(colour));
        encoder.encode_frame(::image::Frame::new(frame)).unwrap();
    }
    drop(encoder);
    let decoded = decode(&gif, Orientation::Apply).unwrap();
    assert!(decoded.pixels().all(|p| p.0 == [255, 0, 0]));
}

#[test]
fn orientation_is_applied_unless_ignored() {
    // Stored as 400 x 300 with EXIF orientation 6: rotate by 90 degrees clockwise.
    let bytes = include_bytes!("../../../../tests/reference/images/exif6.jpg");
    let stored = decode(bytes, Orientation::Ignore).unwrap();
    let upright = decode(bytes, Orientation::Apply).unwrap();
    assert_eq!(stored.dimensions(), (400, 300));
    assert_eq!(upright.dimensions(), (300, 400));
    assert_eq!(stored.get_pixel(0, 299), upright.get_pixel(0, 0));
    assert_eq!(stored.get_pixel(0, 0), upright.get_pixel(299, 0));
}

#[test]
fn a_huge_declared_size_is_rejected_from_the_header() {
    let error = decode(&png_header(30_000, 30_000), Orientation::Apply).unwrap_err();
    assert!(
        matches!(
            error,
            ImageError::TooLarge {
                width: 30_000,
                height: 30_000,
                ..
            }
        ),
        "{error:?}"
    );
    let bmp = {
        let mut bmp = encode(&DynamicImage::ImageRgb8(small()), ImageFormat::Bmp);
        bmp[18..22].copy_from_slice(&60_000_u32.to_le_bytes());
        bmp[22..26].copy_from_slice(&60_000_u32.to_le_bytes());
        bmp
    };
    let error = decode(&bmp, Orientation::Apply).unwrap_err();
    assert!(
        matches!(error, ImageError::TooLarge { width: 60_000, .. }),
        "{error:?}"
    );
}

#[test]
fn oversized_pictures_are_rejected_before_memory_is_allocated() {
    let picture = DynamicImage::ImageRgb8(small());
    let patched = |mut file: Vec<u8>, at: usize, bytes: &[u8]| {
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let jpeg = encode(&picture, ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    let gif = encode(
        &DynamicImage::ImageRgba8(picture.to_rgba8()),
        ImageFormat::Gif,
    );
    let frame_of_gif = gif
        .windows(5)
        .position(|w| w == [b',', 0, 0, 0, 0])
        .unwrap();
    let tiff = encode(&picture, ImageFormat::Tiff);
    let tag = |tag: [u8; 2]| tiff.windows(2).position(|w| w == tag).unwrap() + 8;
    let files = [
        patched(jpeg, frame + 5, &[0xff; 4]),
        patched(patched(gif, 6, &[0xff; 4]), frame_of_gif + 5, &[0xff; 4]),
        patched(
            patched(tiff.clone(), tag([0, 1]), &[0xff, 0xff, 0xff, 0x7f]),
            tag([1, 1]),
            &[0xff, 0xff, 0xff, 0x7f],
        ),
        png_header(1 << 31, 1 << 31),
        png_header(262_144, 262_144),
    ];
    for (i, file) in files.iter().enumerate() {
        let error = decode(file, Orientation::Apply).unwrap_err();
        println!("{i}: {error}");
        assert!(!error.is_out_of_memory(), "case {i}: {error:?}");
    }
}

#[test]
fn sides_whose_product_overflows_are_rejected() {
    for (width, height) in [
        (0, 5),
        (5, 0),
        (u32::MAX, u32::MAX),
        (i32::MAX as u32, 1 << 30),
    ] {
        decode(&png_header(width, height), Orientation::Apply).unwrap_err();
    }
}

#[test]
fn every_truncation_is_an_error() {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    let picture = DynamicImage::ImageRgb8(resize(&small()));
    let mut accepted = Vec::new();
    for format in [Jpeg, Png, WebP, Bmp, Gif, Tiff] {
        let bytes = encode(&picture, format);
        // No pixel depends on the last bytes of some formats (trailer, padding).
        for cut in (0..bytes.len() * 3 / 4).step_by(7) {
            if decode(&bytes[..cut], Orientation::Apply).is_ok() {
                accepted.push((format, cut, bytes.len()));
            }
        }
    }
    assert!(accepted.is_empty(), "(format, cut, whole): {accepted:?}");
}

fn resize(picture: &RgbImage) -> RgbImage {
    super::super::resize(picture, 40, 30, super::super::Filter::Bicubic)
}

#[test]
fn other_files_are_recognised_by_their_first_bytes() {
    let message = |bytes: &[u8]| decode(bytes, Orientation::Apply).unwrap_err().to_string();
    assert_eq!(message(b""), "the file is empty, expected a picture");
    let pdf = message(b"%PDF-1.7\n");
    assert!(pdf.contains("expected JPEG, PNG"), "{pdf}");
    assert!(pdf.contains("found a PDF document; render"), "{pdf}");
    assert!(message(b"{\"a\": 1}").contains("found JSON; "));
    let unknown = message(&[0x13, 0x80, 0x81]);
    assert!(
        unknown.contains("begins with `\\x13\\x80\\x81`"),
        "{unknown}"
    );
}

#[test]
fn a_raw_photo_is_not_its_thumbnail() {
    let mut tiff = encode(&DynamicImage::ImageRgb8(small()), ImageFormat::Tiff);
    decode(&tiff, Orientation::Apply).unwrap();
    // Replace the compression (1, none) by Nikon's.
    let at = tiff.windows(4).position(|w| w == [3, 1, 3, 0]).unwrap() + 8;
    tiff[at..at + 2].copy_from_slice(&34_713_u16.to_le_bytes());
    let error = decode(&tiff, Orientation::Apply).unwrap_err();
    assert!(matches!(error, ImageError::Foreign(_)), "{error:?}");
}

#[test]
fn overlong_sides_are_rejected_from_the_header() {
    for (width, height) in [
        (1, 2_000_000),
        (2_000_000, 1),
        (1, 178_000_000),
        (1, super::MAX_SIDE + 1),
    ] {
        let error = decode(&png_header(width, height), Orientation::Apply).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ImageError::TooLong { .. }), "{error:?}");
        assert!(
            text.contains(&format!("found {width}x{height}; cut it")),
            "{text}"
        );
    }
    let longest = DynamicImage::new_rgb8(1, super::MAX_SIDE);
    decode(&encode(&longest, ImageFormat::Png), Orientation::Apply).unwrap();
}

#[test]
fn noise_after_a_valid_start_does_not_panic() {
    let starts: [&[u8]; 6] = [
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"RIFF\x40\0\0\0WEBPVP8 ",
        b"BM",
        b"GIF89a",
        b"II*\0\x08\0\0\0",
    ];
    let noise: Vec<u8> = (0..400_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for start in starts {
        decode(&[start, &noise].concat(), Orientation::Apply).unwrap_err();
    }
}

#[test]
fn errors_of_a_file_name_it_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("picture.jpg");
    std::fs::write(&path, b"hello").unwrap();
    let error = anyhow::Error::from(open(&path, Orientation::Apply).unwrap_err());
    let text = format!("{error:#}");
    assert!(text.starts_with("cannot read picture `"), "{text}");
    assert!(text.contains("picture.jpg`: not a picture"), "{text}");

    let missing = open(&dir.path().join("none.png"), Orientation::Apply).unwrap_err();
    assert!(
        matches!(&missing, ImageError::File { source, .. } if matches!(**source, ImageError::Io(_)))
    );
}
