//! Variants of picture files written by programs and cameras, all of one drawn scene.

use std::path::PathBuf;

use ::image::{DynamicImage, RgbaImage};

use super::*;

fn reference(name: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    std::fs::read(root.join(name)).unwrap()
}

fn read(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    decode(bytes, Orientation::Ignore)
}

fn decode_truncated(bytes: &[u8]) -> Decoded {
    let options = ReadOptions {
        allow_truncated: true,
        ..ReadOptions::REFERENCE
    };
    decode_within(bytes, options, u64::MAX).unwrap()
}

fn plain() -> RgbImage {
    read(&reference("reports/plain.png")).unwrap()
}

/// Mean absolute difference of two pictures' samples.
fn distance(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let pairs = a.as_raw().iter().zip(b.as_raw());
    pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

fn assert_truncated(bytes: &[u8], what: &str) {
    let result = read(bytes).map(|picture| picture.dimensions());
    assert!(
        matches!(result, Err(ImageError::Truncated { .. })),
        "{what}: {result:?}"
    );
}

/// Complete JPEGs of different variants.
fn jpegs() -> Vec<(&'static str, Vec<u8>)> {
    let names = [
        "baseline",
        "optimized",
        "progressive",
        "restarts",
        "progressive-restarts",
        "component-scans",
        "component-scans-restarts",
        "full-chroma-component-scans",
        "cmyk-component-scans",
        "progressive-component-scans",
        "chroma-scan",
        "full-chroma",
        "large-chroma",
        "rgb",
        "cmyk",
        "grey",
    ];
    let file = |name| reference(&format!("jpeg/{name}.jpg"));
    names.map(|name| (name, file(name))).to_vec()
}

#[test]
fn reported_files_decode_to_the_scene() {
    let plain = plain();
    for name in ["tiff-palette.tif", "tiff-bigtiff.tif"] {
        assert!(
            read(&reference(&format!("reports/{name}"))).unwrap() == plain,
            "{name}"
        );
    }
    let lossy = [
        "jpeg-no-eoi-trailer.jpg",
        "jpeg-webcam-no-tables.jpg",
        "tiff-jpeg-ycbcr.tif",
        "gif-zero-screen.gif",
    ];
    for name in lossy {
        let distance = distance(
            &read(&reference(&format!("reports/{name}"))).unwrap(),
            &plain,
        );
        assert!(distance < 4.0, "{name}: {distance}");
    }
}

#[test]
fn every_jpeg_variant_decodes_to_the_scene() {
    let plain = plain();
    for (name, file) in jpegs() {
        let expected = match name {
            "grey" => into_rgb8(DynamicImage::ImageRgb8(plain.clone()).to_luma8().into()),
            _ => plain.clone(),
        };
        let distance = distance(&read(&file).unwrap(), &expected);
        assert!(distance < 4.0, "{name}: {distance}");
    }
}

#[test]
fn a_jpeg_with_all_rows_is_complete_whatever_follows() {
    let motion_photo = [
        b"\0\0\x30\x0aMotionPhoto_Data\0\0\0\x18ftypmp42".as_slice(),
        &[7; 300],
        b"SEFT",
    ]
    .concat();
    let thumbnail = reference("jpeg/baseline.jpg");
    let behind: [(&str, &[u8]); 6] = [
        ("nothing", b""),
        ("half a marker", b"\xff"),
        ("zeros", &[0; 5000]),
        ("a trailer", &motion_photo),
        (
            "a trailer with a picture",
            &[b"MotionPhoto_Data", &thumbnail[..]].concat(),
        ),
        ("a thumbnail's rest", &thumbnail[thumbnail.len() / 2..]),
    ];
    for (name, file) in jpegs() {
        let whole = read(&file).unwrap();
        let unmarked = file.strip_suffix(&[0xff, EOI]).unwrap();
        for (what, behind) in behind {
            let found = read(&[unmarked, behind].concat());
            assert!(found.is_ok_and(|found| found == whole), "{name}: {what}");
        }
    }
}

/// End of image.
const EOI: u8 = 0xd9;

#[test]
fn a_jpeg_without_all_rows_is_truncated_whatever_follows() {
    for (name, file) in jpegs() {
        for part in [0.5, 0.7, 0.9] {
            let cut = (file.len() as f64 * part) as usize;
            let cut = &file[..cut];
            assert_truncated(cut, name);
            assert_truncated(&[cut, &[0; 20_000]].concat(), &format!("{name}: zeros"));
            // The cut may be within a table, which the other file's bytes then corrupt: an error, but a different one.
            assert!(
                read(&[cut, &file].concat()).is_err(),
                "{name}: another behind"
            );
            if !name.starts_with("progressive") {
                assert_truncated(&[cut, &[0xff, EOI]].concat(), &format!("{name}: marked"));
            }
        }
    }
}

#[test]
fn missing_parts_of_a_jpeg_are_grey_on_request() {
    let file = reference("jpeg/baseline.jpg");
    let whole = read(&file).unwrap();
    let part = decode_truncated(&file[..file.len() * 7 / 10]);
    assert!(part.is_truncated && !decode_truncated(&file).is_truncated);
    let row = |picture: &RgbImage, y: u32| {
        (0..picture.width())
            .map(|x| *picture.get_pixel(x, y))
            .collect::<Vec<_>>()
    };
    assert_eq!(row(&part.picture, 0), row(&whole, 0));
    assert!(
        row(&part.picture, whole.height() - 1)
            .iter()
            .all(|p| p.0 == [128; 3])
    );
    let nothing = decode_within(
        &file[..200],
        ReadOptions {
            allow_truncated: true,
            ..ReadOptions::REFERENCE
        },
        u64::MAX,
    );
    nothing.unwrap_err();
}

/// The segments of a JPEG before its first scan (marker and bytes), and the rest.
fn segments(file: &[u8]) -> (Vec<(u8, &[u8])>, &[u8]) {
    let (mut found, mut at) = (Vec::new(), 2);
    loop {
        let end = at + 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        found.push((file[at + 1], &file[at..end]));
        at = end;
        if found.last().unwrap().0 == 0xda {
            return (found, &file[at..]);
        }
    }
}

fn without(file: &[u8], markers: &[u8]) -> Vec<u8> {
    let (segments, scan) = segments(file);
    let kept = segments
        .iter()
        .filter(|(marker, _)| !markers.contains(marker));
    let kept = kept.flat_map(|(_, bytes)| bytes.iter().copied());
    [0xff, 0xd8]
        .into_iter()
        .chain(kept)
        .chain(scan.iter().copied())
        .collect()
}

#[test]
fn webcam_frames_use_the_standard_tables() {
    let (dht, app0) = (0xc4, 0xe0);
    for name in ["baseline", "grey", "restarts", "full-chroma"] {
        let file = reference(&format!("jpeg/{name}.jpg"));
        let whole = read(&file).unwrap();
        let bare = without(&file, &[dht, app0]);
        let avi1 = [
            &bare[..2],
            b"\xff\xe0\0\x10AVI1\0\0\0\0\0\0\0\0\0\0",
            &bare[2..],
        ]
        .concat();
        for frame in [
            without(&file, &[dht]),
            avi1,
            bare[..bare.len() - 2].to_vec(),
            bare,
        ] {
            assert!(read(&frame).is_ok_and(|found| found == whole), "{name}");
        }
    }
    let progressive = without(&reference("jpeg/progressive.jpg"), &[dht]);
    let error = read(&progressive).unwrap_err().to_string();
    assert!(error.contains("missing Huffman tables"), "{error}");
}

#[test]
fn a_height_after_the_first_scan_is_found() {
    let file = reference("jpeg/baseline.jpg");
    let whole = read(&file).unwrap();
    let at = file.windows(2).position(|w| w == [0xff, 0xc0]).unwrap() + 5;
    let lines = [&[0xff, 0xdc, 0, 4], &file[at..at + 2]].concat();
    let scan = file.strip_suffix(&[0xff, EOI]).unwrap();
    let open = [&scan[..at], &[0, 0], &scan[at + 2..], &lines].concat();
    assert!(read(&open).unwrap() == whole);
    assert!(read(&[&open[..], &[0xff, EOI]].concat()).unwrap() == whole);
    let nowhere = [&file[..at], &[0, 0], &file[at + 2..]].concat();
    read(&nowhere).unwrap_err();
}

#[test]
fn markers_may_have_fill_bytes() {
    let file = reference("jpeg/baseline.jpg");
    let (segments, scan) = segments(&file);
    let mut filled = vec![0xff, 0xd8];
    for (_, segment) in segments {
        filled.extend([0xff, 0xff]);
        filled.extend(segment);
    }
    filled.extend(scan);
    assert!(read(&filled).unwrap() == read(&file).unwrap());
    filled.truncate(filled.len() - 2);
    assert!(read(&filled).unwrap() == read(&file).unwrap());
}

#[test]
fn unsupported_jpeg_variants_are_named() {
    let refused = |file: &[u8]| read(file).unwrap_err().to_string();
    let file = reference("jpeg/baseline.jpg");
    let at = file.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    let with = |marker: u8, precision: u8| {
        let mut file = file.clone();
        (file[at + 1], file[at + 4]) = (marker, precision);
        refused(&file)
    };
    assert!(refused(&reference("jpeg/arithmetic.jpg")).contains("arithmetic coding"));
    assert!(with(0xc3, 8).contains("lossless coding"));
    assert!(with(0xc5, 8).contains("hierarchical coding"));
    assert!(with(0xf7, 8).contains("JPEG-LS"));
    assert!(with(0xc1, 12).contains("12-bit samples"));
}

/// The chunks of a PNG: type and all bytes.
fn chunks(file: &[u8]) -> Vec<(&[u8], &[u8])> {
    let (mut found, mut at) = (Vec::new(), 8);
    while at < file.len() {
        let end = at + 12 + u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        found.push((&file[at + 4..at + 8], &file[at..end]));
        at = end;
    }
    found
}

#[test]
fn a_png_with_all_rows_is_complete() {
    let file = reference("reports/plain.png");
    let plain = plain();
    let end = file.len() - 12;
    let forms = [
        ("no IEND", file[..end].to_vec()),
        ("part of IEND", file[..end + 3].to_vec()),
        ("most of IEND", file[..end + 10].to_vec()),
        ("no checksum of IDAT", file[..end - 4].to_vec()),
        ("half a checksum of IDAT", file[..end - 2].to_vec()),
        ("no Adler-32 and nothing behind", file[..end - 8].to_vec()),
        ("zeros in place of IEND", [&file[..end], &[0; 100]].concat()),
        (
            "garbage in place of IEND",
            [&file[..end], b"garbage, garbage"].concat(),
        ),
        ("a trailer", [&file[..], b"a trailer"].concat()),
        (
            "a text cut off",
            [&file[..end], b"\0\0\x01\0tEXtComment\0cut"].concat(),
        ),
        ("a text with a wrong checksum", {
            let text = b"\0\0\0\x04tEXta\0bcXXXX";
            let header = 8 + 25;
            [&file[..header], text, &file[header..]].concat()
        }),
    ];
    for (what, bytes) in forms {
        assert!(read(&bytes).is_ok_and(|found| found == plain), "{what}");
    }
    assert!(chunks(&file).len() >= 3);
    for part in [0.3, 0.6, 0.9] {
        assert_truncated(&file[..(file.len() as f64 * part) as usize], "half");
    }
}

#[test]
fn zeros_in_place_of_samples_do_not_count_as_png_rows() {
    let mut file = Cursor::new(Vec::new());
    let whole = DynamicImage::ImageRgb8(noise());
    whole.write_to(&mut file, ImageFormat::Png).unwrap();
    let file = file.into_inner();
    let data: Vec<u8> = (chunks(&file).iter())
        .filter(|(kind, _)| *kind == b"IDAT")
        .flat_map(|(_, chunk)| &chunk[8..chunk.len() - 4])
        .copied()
        .collect();
    let length = (data.len() as u32).to_be_bytes();
    let one_chunk = [&file[..33], &length[..], b"IDAT", &data[..]].concat(); // after the header
    for part in [0.3, 0.7, 0.95] {
        let there = (one_chunk.len() as f64 * part) as usize;
        let zeros = vec![0; one_chunk.len() - there + 16];
        assert_truncated(&[&one_chunk[..there], &zeros].concat(), "zeros");
    }
}

/// A picture of noise, which does not compress well.
fn noise() -> RgbImage {
    let sample = |x: u32, y: u32, c: u32| {
        (x * 7919 + y * 104_729 + c * 31).wrapping_mul(2_654_435_761) >> 24
    };
    RgbImage::from_fn(400, 300, |x, y| {
        ::image::Rgb([0, 1, 2].map(|c| sample(x, y, c) as u8))
    })
}

#[test]
fn missing_parts_of_other_formats_are_grey_on_request() {
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Gif] {
        let mut file = Cursor::new(Vec::new());
        let whole = DynamicImage::ImageRgb8(noise());
        whole.write_to(&mut file, format).unwrap();
        let file = file.into_inner();
        let whole = read(&file).unwrap();
        let half = &file[..file.len() / 2];
        assert_truncated(half, &format!("{format:?}"));
        let part = decode_truncated(half);
        assert!(part.is_truncated);
        let pixels = || part.picture.pixels().zip(whole.pixels());
        let n_same = pixels().filter(|(a, b)| a == b).count();
        let n_grey = pixels().filter(|(a, _)| a.0 == [128; 3]).count();
        let n = pixels().count();
        assert!(
            n_same > n / 5 && n_grey > n / 3 && n_same + n_grey >= n,
            "{format:?}: {n_same} {n_grey}"
        );
    }
}

#[test]
fn rows_of_a_small_truncated_png_are_decoded_on_request() {
    let file = reference("reports/plain.png");
    let half = &file[..file.len() / 2];
    let ended = [half, &file[file.len() - 12..]].concat();
    for cut in [half, &ended] {
        let part = decode_truncated(cut);
        assert!(part.is_truncated);
        let row = |picture: &RgbImage, y: u32| {
            let row = (0..picture.width()).map(|x| *picture.get_pixel(x, y));
            row.collect::<Vec<_>>()
        };
        assert_eq!(row(&part.picture, 0), row(&plain(), 0));
        let last = row(&part.picture, part.picture.height() - 1);
        assert!(last.iter().all(|p| p.0 == [128; 3]));
    }
}

#[test]
fn decoding_truncated_files_respects_the_memory_limit() {
    let mut file = Cursor::new(Vec::new());
    let whole = DynamicImage::ImageRgb8(noise());
    whole.write_to(&mut file, ImageFormat::Png).unwrap();
    let file = file.into_inner();
    let half = &file[..file.len() / 2];
    let needed = |bytes: &[u8]| match decode_within(bytes, ReadOptions::REFERENCE, 1) {
        Err(ImageError::NoMemory { needed, .. }) => needed,
        other => panic!("{other:?}"),
    };
    let result = decode_within(half, ReadOptions::REFERENCE, needed(half));
    assert!(
        matches!(result, Err(ImageError::NoMemory { .. })),
        "{result:?}"
    );
    decode_within(&file, ReadOptions::REFERENCE, needed(&file)).unwrap();
}

fn put(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    [&file[..at], bytes, &file[at + bytes.len()..]].concat()
}

#[test]
fn a_wrong_length_in_a_webp_header_is_corrected() {
    let rgba = RgbaImage::from_fn(31, 21, |x, y| {
        ::image::Rgba([x as u8 * 8, y as u8 * 12, 9, 255])
    });
    let mut file = Cursor::new(Vec::new());
    DynamicImage::ImageRgba8(rgba)
        .write_to(&mut file, ImageFormat::WebP)
        .unwrap();
    let file = file.into_inner();
    let whole = read(&file).unwrap();
    let length = file.len() as u32 - 8;
    for declared in [0, length + 1000, u32::MAX] {
        assert!(
            read(&put(&file, 4, &declared.to_le_bytes())).unwrap() == whole,
            "{declared}"
        );
    }
    assert!(read(&[&file[..], b"trailer"].concat()).unwrap() == whole);
    assert_truncated(&file[..file.len() / 2], "half");
}

#[test]
fn a_bmp_without_the_end_code_of_its_last_row_is_complete() {
    let row = [4, 1, 0, 0];
    let palette = [[0, 0, 0, 0], [30, 20, 10, 0]].concat();
    let mut file = b"BM\0\0\0\0\0\0\0\0".to_vec();
    file.extend((54 + 8_u32).to_le_bytes());
    for n in [40, 4, 2_u32] {
        file.extend(n.to_le_bytes());
    }
    file.extend([1, 0, 8, 0]);
    for n in [1_u32, 0, 0, 0, 2, 0] {
        file.extend(n.to_le_bytes());
    }
    file.extend(palette);
    file.extend([row, row].concat());
    let n = file.len();
    for end in [&[0, 1][..], &[]] {
        let found = read(&[&file[..], end].concat()).unwrap();
        assert!(found.pixels().all(|p| p.0 == [10, 20, 30]));
    }
    assert!(
        read(&file[..n - 2])
            .unwrap()
            .pixels()
            .all(|p| p.0 == [10, 20, 30])
    );
    assert_truncated(&file[..n - 4], "a row is missing");
}
