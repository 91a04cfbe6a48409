use std::path::PathBuf;

use super::*;
use crate::vision::image::{self, Orientation, RgbImage};

fn reference(name: &str) -> RgbImage {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    image::open(&root.join(name), Orientation::Ignore).unwrap()
}

/// 6 x 5 different pixels, from black to white.
const SIZE: (u32, u32) = (6, 5);

fn colors() -> Vec<u8> {
    (0..SIZE.0 * SIZE.1 * 3)
        .map(|i| (i * 255 / 89) as u8)
        .collect()
}

fn greys() -> Vec<u8> {
    (0..SIZE.0 * SIZE.1).map(|i| (i * 255 / 29) as u8).collect()
}

/// The values of a tag.
enum Values {
    Short(Vec<u16>),
    Long(Vec<u32>),
    Float(Vec<f32>),
}
use Values::{Float, Long, Short};

/// A little-endian TIFF of one strip.
fn tiff(tags: &[(u16, Values)], strip: &[u8]) -> Vec<u8> {
    let (width, height) = SIZE;
    let mut all = vec![
        (tag::WIDTH, Long(vec![width])),
        (tag::HEIGHT, Long(vec![height])),
        (tag::STRIP_OFFSETS, Long(vec![8])),
        (tag::STRIP_BYTE_COUNTS, Long(vec![strip.len() as u32])),
    ];
    all.extend(tags.iter().map(|(tag, values)| {
        let values = match values {
            Short(v) => Short(v.clone()),
            Long(v) => Long(v.clone()),
            Float(v) => Float(v.clone()),
        };
        (*tag, values)
    }));
    let directory = 8 + strip.len();
    let mut beyond = directory + 2 + 12 * all.len() + 4;
    let (mut entries, mut extra) = (Vec::new(), Vec::new());
    for (tag, values) in all {
        let (kind, n, bytes): (u16, usize, Vec<u8>) = match values {
            Short(v) => (3, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Long(v) => (4, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Float(v) => (
                11,
                v.len(),
                v.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ),
        };
        entries.extend(tag.to_le_bytes());
        entries.extend(kind.to_le_bytes());
        entries.extend((n as u32).to_le_bytes());
        if bytes.len() <= 4 {
            let mut inline = bytes;
            inline.resize(4, 0);
            entries.extend(inline);
        } else {
            entries.extend((beyond as u32).to_le_bytes());
            beyond += bytes.len();
            extra.extend(bytes);
        }
    }
    let n_entries = (entries.len() / 12) as u16;
    let head = [b"II*\0", &(directory as u32).to_le_bytes()[..]].concat();
    [
        &head,
        strip,
        &n_entries.to_le_bytes(),
        &entries,
        &[0; 4],
        &extra,
    ]
    .concat()
}

fn read(tags: Vec<(u16, Values)>, strip: &[u8]) -> Result<Vec<u8>, String> {
    let picture = image::decode(&tiff(&tags, strip), Orientation::Ignore);
    picture
        .map(RgbImage::into_raw)
        .map_err(|error| error.to_string())
}

fn rgb(bits: u16) -> Vec<(u16, Values)> {
    vec![
        (tag::SAMPLES_PER_PIXEL, Short(vec![3])),
        (tag::BITS_PER_SAMPLE, Short(vec![bits; 3])),
        (tag::PHOTOMETRIC, Short(vec![2])),
    ]
}

fn grey(bits: u16) -> Vec<(u16, Values)> {
    vec![
        (tag::BITS_PER_SAMPLE, Short(vec![bits])),
        (tag::PHOTOMETRIC, Short(vec![1])),
    ]
}

fn with(mut tags: Vec<(u16, Values)>, tag: u16, values: Values) -> Vec<(u16, Values)> {
    tags.retain(|(other, _)| *other != tag);
    tags.push((tag, values));
    tags
}

/// Encodes each level with `bytes`.
fn samples<const N: usize>(levels: &[u8], bytes: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
    levels
        .iter()
        .flat_map(|v| bytes(f64::from(*v) / 255.0))
        .collect()
}

fn repeated(greys: &[u8]) -> Vec<u8> {
    greys.iter().flat_map(|v| [*v; 3]).collect()
}

/// Packs rows of samples of `bits` bits.
fn packed(levels: &[u8], bits: u32, samples_a_row: usize) -> Vec<u8> {
    let most = f64::from((1_u32 << bits) - 1);
    let mut out = Vec::new();
    for row in levels.chunks(samples_a_row) {
        let mut row_bits = Vec::new();
        for level in row {
            let value = (f64::from(*level) / 255.0 * most).round() as u32;
            row_bits.extend((0..bits).rev().map(|i| (value >> i & 1) as u8));
        }
        row_bits.resize(row_bits.len().next_multiple_of(8), 0);
        out.extend(
            row_bits
                .chunks(8)
                .map(|byte| byte.iter().fold(0, |b, bit| b << 1 | bit)),
        );
    }
    out
}

#[test]
fn every_variant_decodes_to_its_picture() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference/tiff");
    let (plain, bilevel) = (
        reference("reports/plain.png"),
        reference("tiff/bilevel.png"),
    );
    let mut n_forms = 0;
    for entry in std::fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(form) = name.strip_suffix(".tif") else {
            continue;
        };
        n_forms += 1;
        let found = reference(&format!("tiff/{name}"));
        match form.split('-').next() {
            Some("bilevel") => assert!(found == bilevel, "{name}"),
            Some("rgb") => assert!(found == plain, "{name}"),
            _ => {
                let pairs = found.as_raw().iter().zip(plain.as_raw());
                let sum: u32 = pairs.map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
                assert!(sum < 4 * plain.len() as u32, "{name}: {sum}");
            }
        }
    }
    assert_eq!(n_forms, 25);
}

#[test]
fn samples_of_any_size_are_decoded() {
    for bits in [8, 9, 10, 12, 14, 15] {
        let strip = packed(&colors(), bits, 18);
        assert_eq!(
            read(rgb(bits as u16), &strip).unwrap(),
            colors(),
            "{bits} bits"
        );
    }
    for bits in [1, 2, 4, 6] {
        let most = (1 << bits) - 1;
        let coarse: Vec<u8> = greys()
            .iter()
            .map(|v| (u32::from(*v) * most / 255 * 255 / most) as u8)
            .collect();
        let strip = packed(&coarse, bits, 6);
        assert_eq!(
            read(grey(bits as u16), &strip).unwrap(),
            repeated(&coarse),
            "{bits} bits"
        );
        let inverted = with(grey(bits as u16), tag::PHOTOMETRIC, Short(vec![0]));
        let negative: Vec<u8> = coarse.iter().map(|v| 255 - v).collect();
        assert_eq!(
            read(inverted, &strip).unwrap(),
            repeated(&negative),
            "{bits} bits, white is zero"
        );
    }
    let full = samples(&colors(), |v| ((v * 65535.0) as u16).to_le_bytes());
    assert_eq!(read(rgb(16), &full).unwrap(), colors());
}

#[test]
fn ten_and_twelve_bits_in_sixteen_are_not_black() {
    for most in [255.0, 1023.0, 4095.0] {
        let strip = samples(&colors(), |v| ((v * most).round() as u16).to_le_bytes());
        assert_eq!(read(rgb(16), &strip).unwrap(), colors(), "{most}");
        let strip = samples(&greys(), |v| ((v * most).round() as u16).to_le_bytes());
        assert_eq!(
            read(grey(16), &strip).unwrap(),
            repeated(&greys()),
            "{most}"
        );
    }
    // 14 bits only where the file declares them: otherwise the picture may just be dark.
    let strip = samples(&greys(), |v| ((v * 16383.0).round() as u16).to_le_bytes());
    let declared = with(grey(16), tag::MAX_SAMPLE_VALUE, Short(vec![16383]));
    assert_eq!(read(declared, &strip).unwrap(), repeated(&greys()));
    assert!(read(grey(16), &strip).unwrap().iter().all(|v| *v < 64));
}

#[test]
fn floats_are_scaled_by_the_declared_range_or_rejected() {
    let float = |tags| with(tags, tag::SAMPLE_FORMAT, Short(vec![3]));
    let ranged = |tags, least: f32, most: f32| {
        let tags = with(float(tags), tag::S_MIN_SAMPLE_VALUE, Float(vec![least]));
        with(tags, tag::S_MAX_SAMPLE_VALUE, Float(vec![most]))
    };
    let unit = samples(&colors(), |v| (v as f32).to_le_bytes());
    assert_eq!(read(float(rgb(32)), &unit).unwrap(), colors());
    let unit = samples(&colors(), f64::to_le_bytes);
    assert_eq!(read(float(rgb(64)), &unit).unwrap(), colors());
    let unit = samples(&greys(), |v| half::f16::from_f64(v).to_le_bytes());
    let found = read(float(grey(16)), &unit).unwrap();
    let close = |(a, b): (&u8, u8)| a.abs_diff(b) <= 1;
    assert!(found.iter().zip(repeated(&greys())).all(close));

    let heights = samples(&greys(), |v| (v as f32 * 1100.0 - 100.0).to_le_bytes());
    let found = read(ranged(grey(32), -100.0, 1000.0), &heights).unwrap();
    assert!(found.iter().zip(repeated(&greys())).all(close));
    let refused = |tags, strip: &[u8]| read(tags, strip).unwrap_err();
    assert!(refused(float(grey(32)), &heights).contains("without a declared range"));
    assert!(
        refused(ranged(grey(32), 0.0, 1.0), &heights).contains("outside the declared range 0 to 1")
    );
    let none = samples(&greys(), |_| f32::NAN.to_le_bytes());
    assert!(refused(float(grey(32)), &none).contains("without finite values"));
}

#[test]
fn signed_and_long_samples_need_a_range_unless_they_use_their_full_range() {
    let signed = |tags| with(tags, tag::SAMPLE_FORMAT, Short(vec![2]));
    let strip = samples(&greys(), |v| {
        ((v * 2550.0 - 1000.0).round() as i16).to_le_bytes()
    });
    assert!(
        read(signed(grey(16)), &strip)
            .unwrap_err()
            .contains("SMinSampleValue")
    );
    let ranged = with(
        signed(grey(16)),
        tag::S_MIN_SAMPLE_VALUE,
        Float(vec![-1000.0]),
    );
    let ranged = with(ranged, tag::S_MAX_SAMPLE_VALUE, Float(vec![1550.0]));
    assert_eq!(read(ranged, &strip).unwrap(), repeated(&greys()));
    let strip = samples(&greys(), |v| {
        ((v * f64::from(u32::MAX)) as u32).to_le_bytes()
    });
    assert_eq!(read(grey(32), &strip).unwrap(), repeated(&greys()));
    let strip = samples(&greys(), |v| ((v * 5000.0) as u32).to_le_bytes());
    assert!(
        read(grey(32), &strip)
            .unwrap_err()
            .contains("without a declared range")
    );
}

#[test]
fn palette_indices_become_colours() {
    for bits in [1_u16, 2, 4, 8] {
        let n = 1_usize << bits;
        let colour = |i: usize| [i * 255 / (n - 1), 200 - i * 100 / n, 7];
        let indices: Vec<usize> = (0..30).map(|i| i % n).collect();
        let expected: Vec<u8> = indices
            .iter()
            .flat_map(|i| colour(*i).map(|c| c as u8))
            .collect();
        let levels: Vec<u8> = indices.iter().map(|i| (i * 255 / (n - 1)) as u8).collect();
        let strip = packed(&levels, bits.into(), 6);
        for scale in [257, 1] {
            let map = (0..3).flat_map(|c| (0..n).map(move |i| (colour(i)[c] * scale) as u16));
            let tags = with(grey(bits), tag::PHOTOMETRIC, Short(vec![3]));
            let tags = with(tags, tag::COLOR_MAP, Short(map.collect()));
            assert_eq!(
                read(tags, &strip).unwrap(),
                expected,
                "{bits} bits, map times {scale}"
            );
        }
    }
    let tags = with(grey(8), tag::PHOTOMETRIC, Short(vec![3]));
    assert!(read(tags, &greys()).is_err(), "no palette");
}

#[test]
fn extra_samples_are_dropped_and_premultiplied_colours_divided() {
    let pixels = colors();
    let wider = |extra: &[u8]| {
        pixels
            .chunks(3)
            .flat_map(|p| [p, extra].concat())
            .collect::<Vec<_>>()
    };
    let tags = |n: u16, kinds: Vec<u16>| {
        let tags = with(rgb(8), tag::SAMPLES_PER_PIXEL, Short(vec![n]));
        let tags = with(tags, tag::BITS_PER_SAMPLE, Short(vec![8; n.into()]));
        with(tags, tag::EXTRA_SAMPLES, Short(kinds))
    };
    assert_eq!(read(tags(4, vec![0]), &wider(&[9])).unwrap(), colors());
    assert_eq!(read(tags(4, vec![2]), &wider(&[0])).unwrap(), colors());
    assert_eq!(
        read(tags(5, vec![2, 0]), &wider(&[255, 9])).unwrap(),
        colors()
    );
    let halved: Vec<u8> = pixels
        .chunks(3)
        .flat_map(|p| [p[0] / 2, p[1] / 2, p[2] / 2, 128])
        .collect();
    let found = read(tags(4, vec![1]), &halved).unwrap();
    assert!(found.iter().zip(colors()).all(|(a, b)| a.abs_diff(b) <= 2));
}

#[test]
fn subsampled_colours_are_upsampled() {
    let grey_groups = |across: u32, down: u32| {
        let mut strip = Vec::new();
        for y in (0..SIZE.1).step_by(down as usize) {
            for x in (0..SIZE.0).step_by(across as usize) {
                for dy in 0..down {
                    for dx in 0..across {
                        let (x, y) = ((x + dx).min(SIZE.0 - 1), (y + dy).min(SIZE.1 - 1));
                        strip.push(greys()[(y * SIZE.0 + x) as usize]);
                    }
                }
                strip.extend([128, 128]);
            }
        }
        strip
    };
    for (across, down) in [(1, 1), (2, 1), (2, 2), (4, 2), (4, 4)] {
        let tags = with(rgb(8), tag::PHOTOMETRIC, Short(vec![6]));
        let tags = with(
            tags,
            tag::YCBCR_SUBSAMPLING,
            Short(vec![across as u16, down as u16]),
        );
        let found = read(tags, &grey_groups(across, down)).unwrap();
        assert_eq!(found, repeated(&greys()), "{across}x{down}");
    }
}

#[test]
fn unsupported_variants_are_named() {
    let refused =
        |tag: u16, value: u16| read(with(rgb(8), tag, Short(vec![value])), &colors()).unwrap_err();
    assert!(refused(tag::COMPRESSION, 6).contains("old-style JPEG compression"));
    assert!(refused(tag::COMPRESSION, 34925).contains("LZMA"));
    assert!(refused(tag::COMPRESSION, 34712).contains("JPEG 2000"));
    assert!(refused(tag::COMPRESSION, 999).contains("compression 999"));
    assert!(refused(tag::PHOTOMETRIC, 8).contains("Lab colours"));
    assert!(refused(tag::PHOTOMETRIC, 32845).contains("LogLuv"));
    assert!(refused(tag::SAMPLE_FORMAT, 5).contains("complex"));
    let mixed = with(rgb(8), tag::BITS_PER_SAMPLE, Short(vec![5, 6, 5]));
    assert!(
        read(mixed, &colors())
            .unwrap_err()
            .contains("several sizes")
    );
}

#[test]
fn a_truncated_strip_is_an_error_or_grey_on_request() {
    let rows = 3 * 18;
    let packbits = || with(rgb(8), tag::COMPRESSION, Short(vec![32773]));
    let literal = |bytes: &[u8]| [&[bytes.len() as u8 - 1][..], bytes].concat();
    let error = read(packbits(), &literal(&colors()[..rows])).unwrap_err();
    assert!(
        error.contains("end before the picture is complete"),
        "{error}"
    );
    let options = image::ReadOptions {
        allow_truncated: true,
        ..image::ReadOptions::REFERENCE
    };
    let file = tiff(&packbits(), &literal(&colors()[..rows]));
    let part = image::decode_within(&file, options, u64::MAX).unwrap();
    assert!(part.is_truncated);
    assert_eq!(part.picture.as_raw()[..rows], colors()[..rows]);
    assert!(part.picture.as_raw()[rows..].iter().all(|v| *v == 128));
}

#[test]
fn invalid_data_are_errors_without_panics() {
    let file = tiff(&rgb(8), &colors());
    let directory = 8 + colors().len();
    for at in directory..file.len() {
        for value in [0, 1, 2, 255] {
            let mut bent = file.clone();
            bent[at] = value;
            let _ = image::decode(&bent, Orientation::Ignore);
        }
    }
    for cut in 0..file.len() {
        let _ = image::decode(&file[..cut], Orientation::Ignore);
    }
}

#[test]
fn oversized_tiles_are_rejected_before_memory_is_allocated() {
    let tags = with(grey(8), tag::TILE_WIDTH, Long(vec![1 << 16]));
    let tags = with(tags, tag::TILE_LENGTH, Long(vec![1 << 16]));
    let tags = with(tags, tag::TILE_OFFSETS, Long(vec![8; 4]));
    let mut file = tiff(&tags, &[0; 8]);
    assert!(
        TiffDecoder::new(&file).is_ok(),
        "a tile of five rows is small"
    );
    let height = 8 + 8 + 2 + 12 + 8; // after header, strip, count of entries and width
    file[height..height + 4].copy_from_slice(&(1_u32 << 18).to_le_bytes());
    assert!(TiffDecoder::new(&file).is_err());
}
