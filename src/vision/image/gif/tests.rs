use std::path::Path;

use crate::vision::image::{
    ImageError, Orientation, ReadOptions, RgbImage, Transparency, decode, decode_within,
};

/// A GIF of the scene, and the offset of its image descriptor.
fn gif() -> (Vec<u8>, usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    let file = std::fs::read(root.join("reports/gif-zero-screen.gif")).unwrap();
    let palette = 3 << ((file[10] & 7) + 1);
    let at = (13 + palette..).find(|at| file[*at] == 0x2c).unwrap();
    (file, at)
}

fn read(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    decode(bytes, Orientation::Ignore)
}

fn assert_truncated(bytes: &[u8]) {
    let result = read(bytes).map(|picture| picture.dimensions());
    assert!(
        matches!(result, Err(ImageError::Truncated { .. })),
        "{result:?}"
    );
}

fn put(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    [&file[..at], bytes, &file[at + bytes.len()..]].concat()
}

#[test]
fn a_gif_with_all_rows_is_complete() {
    let (file, _) = gif();
    let whole = read(&file).unwrap();
    assert_eq!(file.last(), Some(&b';'));
    let end = file.len() - 1;
    for (what, bytes) in [
        ("no trailer", file[..end].to_vec()),
        ("no end of blocks", file[..end - 1].to_vec()),
        ("zeros", [&file[..end], &[0; 40]].concat()),
        ("garbage", [&file[..end], b"garbage"].concat()),
    ] {
        assert!(read(&bytes).is_ok_and(|found| found == whole), "{what}");
    }
    assert_truncated(&file[..file.len() * 3 / 4]);
}

#[test]
fn the_canvas_is_enlarged_to_hold_the_first_frame() {
    let (file, at) = gif();
    let whole = read(&file).unwrap();
    let side = |n: u16| n.to_le_bytes();
    let (w, h) = whole.dimensions();
    let small = put(&file, 6, &[side(30), side(200)].concat());
    let found = read(&small).unwrap();
    assert_eq!(found.dimensions(), (w, 200));
    let moved = put(&file, at + 1, &[side(20), side(30)].concat());
    let found = read(&moved).unwrap();
    assert_eq!(found.dimensions(), (w + 20, h + 30));
    assert!(::image::imageops::crop_imm(&found, 20, 30, w, h).to_image() == whole);
    let first = &file[13..16]; // of the palette
    assert_eq!(
        found.get_pixel(0, 0).0,
        first,
        "what is free has the first colour, as in Pillow"
    );
    let large = put(&moved, 6, &[side(300), side(250)].concat());
    assert_eq!(read(&large).unwrap().dimensions(), (300, 250));
}

#[test]
fn local_palettes_and_interlaced_rows_are_decoded() {
    let (file, at) = gif();
    let whole = read(&file).unwrap();
    let size = file[10] & 7;
    let palette = &file[13..13 + (3 << (size + 1))];
    let flags = [file[at + 9] | 0x80 | size];
    let local = [
        &file[..10],
        &[file[10] & 0x70],
        &file[11..13],
        &file[at..at + 9],
        &flags,
        palette,
        &file[at + 10..],
    ];
    assert!(read(&local.concat()).unwrap() == whole);

    let passes = [(0, 8), (4, 8), (2, 4), (1, 2)];
    let height = whole.height() as usize;
    let order: Vec<usize> = passes
        .into_iter()
        .flat_map(|(first, step)| (first..height).step_by(step))
        .collect();
    assert_eq!(file[at + 9] & 0x40, 0x40, "the file is interlaced");
    let as_stored = put(&file, at + 9, &[file[at + 9] & !0x40]);
    let found = read(&as_stored).unwrap();
    let row =
        |picture: &RgbImage, y: usize| picture.rows().nth(y).unwrap().copied().collect::<Vec<_>>();
    for (i, y) in order.into_iter().enumerate() {
        assert_eq!(row(&found, i), row(&whole, y), "row {y}");
    }
}

/// The GIF with these bytes inserted before its image.
fn with_before_image(bytes: &[u8]) -> Vec<u8> {
    let (file, at) = gif();
    [&file[..at], bytes, &file[at..]].concat()
}

#[test]
fn stray_bytes_between_blocks_are_skipped() {
    let (file, at) = gif();
    let whole = read(&file).unwrap();
    let comment = b"!\xfe\x05hello\0";
    for (what, before) in [
        ("a zero", &b"\0"[..]),
        ("zeros", &[0; 7]),
        ("other bytes", b"\x01\xff stray"),
        (
            "between extensions",
            &[b"\0", &comment[..], b"\0\0", comment, b"\0"].concat(),
        ),
    ] {
        assert!(read(&with_before_image(before)).unwrap() == whole, "{what}");
    }
    // After the palette, before all blocks, and after the image.
    let palette_end = 13 + (3 << ((file[10] & 7) + 1));
    let early = [&file[..palette_end], &[0, 0], &file[palette_end..]].concat();
    assert!(read(&early).unwrap() == whole);
    let (image, trailer) = file.split_at(file.len() - 1);
    assert!(read(&[image, &[0, 0], trailer].concat()).unwrap() == whole);
    // In a truncated file, stray bytes are not taken for an image.
    for cut in [&file[..at], &[&file[..at], &[0; 40]].concat()] {
        assert_truncated(cut);
    }
}

#[test]
fn extensions_of_any_kind_and_length_are_skipped() {
    let (file, at) = gif();
    let whole = read(&file).unwrap();
    for (what, before) in [
        ("an unknown kind", &b"!\x42\x03abc\x02de\0"[..]),
        ("a kind of zero", b"!\0\0"),
        ("an application's", b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"),
        ("a plain text", b"!\x01\x0c0123456789ab\x02hi\0"),
        ("an empty control", b"!\xf9\0"),
        ("a short control", b"!\xf9\x02ab\0"),
    ] {
        assert!(read(&with_before_image(before)).unwrap() == whole, "{what}");
    }
    let in_extension = [&file[..at], b"!\xfe\x20cut"].concat();
    assert_truncated(&in_extension);
}

#[test]
fn control_extensions_of_any_length_set_the_transparent_index() {
    let (file, at) = gif();
    let first_pixel = read(&file).unwrap().get_pixel(0, 0).0;
    let palette = &file[13..];
    let index = palette.chunks(3).position(|c| c == first_pixel).unwrap() as u8;
    let control = [b'!', 0xf9, 4, 1, 0, 0, index, 0];
    let long = [b'!', 0xf9, 6, 1, 0, 0, index, 7, 7, 1, 9, 0];
    let white = ReadOptions {
        transparency: Transparency::White,
        ..ReadOptions::REFERENCE
    };
    for control in [&control[..], &long] {
        let stray = [&[0, 0], control, &[0, 0]].concat();
        let decoded = decode_within(&with_before_image(&stray), white, u64::MAX).unwrap();
        assert!(decoded.on_white);
        assert_eq!(decoded.picture.get_pixel(0, 0).0, [255; 3]);
    }
    assert_eq!(file[at], b',');
}
