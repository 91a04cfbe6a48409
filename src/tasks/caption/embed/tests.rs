use std::ops::Range;

use ::image::{DynamicImage, Rgba, RgbaImage};

use super::*;

const JPEG: &[u8] = include_bytes!("../../../../tests/reference/images/photo.jpg");
const ROTATED: &[u8] = include_bytes!("../../../../tests/reference/images/exif6.jpg");
const PNG: &[u8] = include_bytes!("../../../../tests/reference/images/palette.png");
const LOSSY: &[u8] = include_bytes!("../../../../tests/reference/images/lossy.webp");
const ATTRIBUTE: &[u8] = include_bytes!("../../../../tests/reference/reports/xmp-attribute.jpg");
const CAMERA_WORDS: &[u8] =
    include_bytes!("../../../../tests/reference/reports/exif-camera-words.jpg");

const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

fn embedded(file: &[u8], caption: &str) -> Result<Vec<u8>, EmbedError> {
    embed(&Bytes::copy_from_slice(file), caption, ExifRule::Filler).map(Vec::from)
}

fn refusal(file: &[u8]) -> String {
    embedded(file, "x").unwrap_err().to_string()
}

/// A packet with `rdf`.
fn packet(rdf: &str) -> Vec<u8> {
    format!(
        "<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#' \
         xmlns:dc='http://purl.org/dc/elements/1.1/' xmlns:xmpNote='http://ns.adobe.com/xmp/note/'>{rdf}</rdf:RDF>{}<?xpacket end='w'?>",
        " ".repeat(2000)
    )
    .into_bytes()
}

fn segment(marker: u8, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    let len = (contents.len() as u16 + 2).to_be_bytes();
    [&[0xff, marker], &len[..], &contents].concat()
}

/// The JPEG with more segments at its start.
fn jpeg_with(segments: &[Vec<u8>]) -> Vec<u8> {
    [&JPEG[..2], &segments.concat(), &JPEG[2..]].concat()
}

fn png_chunk(kind: &[u8; 4], contents: &[u8]) -> Vec<u8> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(kind);
    hasher.update(contents);
    let len = (contents.len() as u32).to_be_bytes();
    [&len[..], kind, contents, &hasher.finalize().to_be_bytes()].concat()
}

/// The PNG with more chunks after its header.
fn png_with(chunks: &[Vec<u8>]) -> Vec<u8> {
    [&PNG[..33], &chunks.concat(), &PNG[33..]].concat()
}

fn riff_chunk(kind: &[u8; 4], contents: &[u8]) -> Vec<u8> {
    let len = (contents.len() as u32).to_le_bytes();
    [kind, &len[..], contents, &[0][..contents.len() % 2]].concat()
}

fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    let chunks = chunks.concat();
    [
        b"RIFF",
        &(chunks.len() as u32 + 4).to_le_bytes()[..],
        b"WEBP",
        &chunks,
    ]
    .concat()
}

fn transparent_webp() -> Vec<u8> {
    let picture = RgbaImage::from_fn(9, 7, |x, y| Rgba([x as u8, y as u8, 3, 100]));
    let mut file = std::io::Cursor::new(Vec::new());
    DynamicImage::from(picture)
        .write_to(&mut file, ImageFormat::WebP)
        .unwrap();
    file.into_inner()
}

/// The range of the bytes that `long` has and `short` does not.
fn inserted(long: &[u8], short: &[u8]) -> Range<usize> {
    let same = short.iter().zip(long).take_while(|(a, b)| a == b).count();
    let more = long.len() - short.len();
    assert!(
        long[same + more..] == short[same..],
        "more than one place differs"
    );
    same..same + more
}

fn holds(file: &[u8], texts: &str) -> bool {
    file.windows(texts.len()).any(|w| w == texts.as_bytes())
}

#[test]
fn one_segment_is_added_and_all_other_bytes_are_kept() {
    let trailing = [JPEG, b"motion picture"].concat(); // as appended by phones
    let appended = [PNG, b"what others append"].concat();
    let filled = [&JPEG[..2], &[0xff, 0xff, 0xff], &JPEG[2..]].concat();
    for file in [JPEG, ROTATED, PNG, &trailing, &appended, &filled] {
        let copy = embedded(file, "a < b\nü").unwrap();
        let piece = &copy[inserted(&copy, file)];
        assert!(holds(piece, "a &lt; b\nü</rdf:li>"));
        let pixels = |bytes| ::image::load_from_memory(bytes).unwrap();
        assert!(pixels(&copy) == pixels(file));
    }
}

#[test]
fn truncated_pictures_are_accepted() {
    let without_end = &JPEG[..JPEG.len() - 2];
    let without_iend = &PNG[..PNG.len() - 12];
    for file in [without_end, without_iend] {
        let copy = embedded(file, "caption").unwrap();
        inserted(&copy, file);
    }
}

#[test]
fn the_image_data_of_a_webp_is_unchanged() {
    let transparent = transparent_webp();
    let appended = [LOSSY, b"what others append"].concat();
    for file in [LOSSY, &transparent, &appended] {
        let copy = embedded(file, "caption").unwrap();
        let len = u32::from_le_bytes(copy[4..8].try_into().unwrap()) as usize;
        assert_eq!(&copy[12..16], b"VP8X");
        let image_len = 8 + u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize - 12;
        assert!(copy[30..30 + image_len] == file[12..12 + image_len]);
        assert!(copy[8 + len..] == file[12 + image_len..]);
        assert!(holds(&copy, ">caption<"));
        let pixels = |bytes| ::image::load_from_memory(bytes).unwrap();
        assert!(pixels(&copy) == pixels(file) && pixels(&copy).color() == pixels(file).color());
    }
}

#[test]
fn an_animated_webp_and_odd_chunks_are_kept() {
    let header = riff_chunk(b"VP8X", &[0b0010_0010, 0, 0, 0, 8, 0, 0, 6, 0, 0]);
    let others = [
        riff_chunk(b"ICCP", b"odd"),
        riff_chunk(b"ANIM", &[0; 6]),
        riff_chunk(b"ANMF", &[1; 25]),
        riff_chunk(b"ANMF", &[2; 24]),
    ]
    .concat();
    let old = riff_chunk(
        b"XMP ",
        &packet("<rdf:Description dc:description='gone' dc:format='kept'/>"),
    );
    let file = riff(&[
        header.clone(),
        others.clone(),
        old,
        riff_chunk(b"junk", b"abc"),
    ]);
    let unpadded = &mut file[..file.len() - 1].to_vec();
    let len = (unpadded.len() as u32 - 8).to_le_bytes();
    unpadded[4..8].copy_from_slice(&len);
    for file in [&file, &*unpadded] {
        let copy = embedded(file, "caption").unwrap();
        assert!(copy[20] == 0b0010_0110 && copy[21..30] == header[9..18]);
        assert!(copy[30..30 + others.len()] == others);
        assert!(copy.ends_with(&riff_chunk(b"junk", b"abc")));
        assert!(holds(&copy, ">caption<") && holds(&copy, "kept") && !holds(&copy, "gone"));
        assert_eq!(
            u32::from_le_bytes(copy[4..8].try_into().unwrap()) as usize,
            copy.len() - 8
        );
    }
}

#[test]
fn writing_again_replaces_the_description() {
    for file in [JPEG, PNG, LOSSY, ATTRIBUTE] {
        let once = embedded(file, "second").unwrap();
        let other = embedded(file, "a first, longer one").unwrap();
        assert!(embedded(&other, "second").unwrap() == once);
    }
}

#[test]
fn other_formats_are_refused_by_name() {
    let cases: [(&[u8], &str); 4] = [
        (b"GIF89a", "this is GIF"),
        (b"II*\0", "this is TIFF"),
        (b"BM", "this is BMP"),
        (b"\0\0\0\x18ftypheic", "this is another format"),
    ];
    for (file, naming) in cases {
        assert!(refusal(file).contains(naming), "{}", refusal(file));
    }
    assert!(refusal(&JPEG[..20]).contains("structure is damaged"));
    assert!(refusal(&PNG[..40]).contains("structure is damaged"));
    assert!(refusal(&LOSSY[..40]).contains("structure is damaged"));
}

#[test]
fn a_large_packet_uses_its_padding_up_to_the_limit_of_jpeg() {
    let long = "x".repeat(70_000);
    let error = embedded(JPEG, &long).unwrap_err().to_string();
    assert!(error.contains("65504 bytes of XMP"), "{error}");
    let filler = "y".repeat(61_000);
    let full = packet(&format!("<rdf:Description dc:format='{filler}'/>"));
    let file = jpeg_with(&[segment(0xe1, &[XMP, &full])]);
    let copy = embedded(&file, &"x".repeat(2_000)).unwrap();
    assert!(holds(&copy, &filler) && holds(&copy, &"x".repeat(2_000)));
    assert!(embedded(&file, &"x".repeat(5_000)).is_err());
}

#[test]
fn extended_xmp_is_kept_and_checked_for_descriptions() {
    let guid = [b'A'; 32];
    let extension = |rdf: &str| {
        let data = packet(rdf);
        let part = |at: usize, piece: &[u8]| {
            let numbers = [data.len() as u32, at as u32]
                .map(u32::to_be_bytes)
                .concat();
            segment(
                0xe1,
                &[
                    b"http://ns.adobe.com/xmp/extension/\0",
                    &guid,
                    &numbers,
                    piece,
                ],
            )
        };
        [part(0, &data[..100]), part(100, &data[100..])].concat()
    };
    let main = packet(&format!(
        "<rdf:Description dc:description='gone' xmpNote:HasExtendedXMP='{}'/>",
        "A".repeat(32)
    ));
    let main = segment(0xe1, &[XMP, &main]);
    let kept = extension("<rdf:Description dc:format='long'/>");
    let copy = embedded(&jpeg_with(&[main.clone(), kept.clone()]), "caption").unwrap();
    assert!(copy.windows(kept.len()).any(|w| w == kept));
    assert!(
        holds(&copy, "HasExtendedXMP='AAAA") && holds(&copy, ">caption<") && !holds(&copy, "gone")
    );

    let text_before = extension("<rdf:Description dc:description='there'/>");
    let error = refusal(&jpeg_with(&[main.clone(), text_before]));
    assert!(error.contains("in several XMP packets"), "{error}");
    let cut = kept[..kept.len() / 2].to_vec();
    let cut = segment(0xe1, &[&cut[4..80]]);
    assert!(refusal(&jpeg_with(&[main, cut])).contains("extended XMP is damaged"));
}

#[test]
fn only_one_of_several_packets_may_have_a_description() {
    let says = |rdf| segment(0xe1, &[XMP, &packet(rdf)]);
    let first = says("<rdf:Description dc:description='gone'/>");
    let copy = embedded(
        &jpeg_with(&[first.clone(), says("<rdf:Description dc:format='kept'/>")]),
        "caption",
    )
    .unwrap();
    assert!(holds(&copy, "'kept'") && !holds(&copy, "gone"));
    let error = refusal(&jpeg_with(&[first.clone(), first]));
    assert!(error.contains("in several XMP packets"), "{error}");
}

#[test]
fn the_index_of_other_images_stays_valid() {
    let mpf = segment(0xe2, &[b"MPF\0II*\0\x08\0\0\0"]);
    let after_index = segment(
        0xe1,
        &[XMP, &packet("<rdf:Description dc:description='gone'/>")],
    );
    let file = jpeg_with(&[mpf.clone(), after_index]);
    let copy = embedded(&file, "caption").unwrap();
    assert_eq!(copy.len(), file.len()); // the padding absorbs the change
    assert!(refusal_of_length(&file, 9_000).contains("MPF"));
    let file = jpeg_with(&[mpf]);
    let copy = embedded(&file, "caption").unwrap();
    let at = copy.windows(4).position(|w| w == b"MPF\0").unwrap();
    assert!(copy[at..] == file[file.windows(4).position(|w| w == b"MPF\0").unwrap()..]);
}

fn refusal_of_length(file: &[u8], len: usize) -> String {
    embedded(file, &"x".repeat(len)).unwrap_err().to_string()
}

#[test]
fn a_compressed_png_packet_stays_compressed() {
    use std::io::{Read, Write};
    let old = packet("<rdf:Description dc:description='gone' dc:format='kept'/>");
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&old).unwrap();
    let zipped = encoder.finish().unwrap();
    let header = b"XML:com.adobe.xmp\0\x01\0en\0title\0";
    let file = png_with(&[png_chunk(b"iTXt", &[header, &zipped[..]].concat())]);
    let copy = embedded(&file, "caption").unwrap();
    let at = copy
        .windows(header.len())
        .position(|w| w == header)
        .unwrap()
        + header.len();
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(&copy[at..])
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.contains(">caption<") && text.contains("'kept'") && !text.contains("gone"));
    assert!(copy.ends_with(&PNG[33..]));

    let damaged = png_with(&[png_chunk(b"iTXt", &[header, &b"no zlib"[..]].concat())]);
    assert!(refusal(&damaged).contains("cannot be decompressed"));
    let unknown = png_with(&[png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\x07\0\0\0x")]);
    assert!(refusal(&unknown).contains("unknown form"));
}

#[test]
fn a_raw_profile_stays_a_raw_profile() {
    use std::io::Write;
    let old = packet("<rdf:Description dc:description='gone' dc:format='kept'/>");
    let hex: String = old.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("\nxmp\n{:8}\n{hex}\n", old.len());
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    let zipped = encoder.finish().unwrap();
    let keyword = b"Raw profile type xmp\0";
    let zipped = png_chunk(b"zTXt", &[keyword, &b"\0"[..], &zipped].concat());
    let plain = png_chunk(b"tEXt", &[keyword, text.as_bytes()].concat());
    for chunk in [&zipped, &plain] {
        let copy = embedded(&png_with(std::slice::from_ref(chunk)), "caption").unwrap();
        assert_eq!(copy[37..41], chunk[4..8]);
        assert!(copy.ends_with(&PNG[33..]) && !holds(&copy, "XML:com.adobe.xmp"));
        let again = embedded(&copy, "caption").unwrap();
        assert!(again == copy);
    }
    let copy = embedded(&png_with(&[plain]), "caption").unwrap();
    let line: String = ">caption<"
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(
        String::from_utf8_lossy(&copy)
            .replace('\n', "")
            .contains(&line)
    );
    for damaged in [
        "",
        "\nxmp\n 2\nabc\n",
        "\nxmp\n 9\nabcd\n",
        "\nxmp\n 2\nabxy\n",
    ] {
        let chunk = png_chunk(b"tEXt", &[keyword, damaged.as_bytes()].concat());
        assert!(refusal(&png_with(&[chunk])).contains("`Raw profile type xmp` is damaged"));
    }
}

#[test]
fn exif_in_a_raw_profile_is_edited_in_place() {
    let block = exif_block(true, "m", Some(b"OLYMPUS DIGITAL CAMERA\0"));
    let bytes = [&b"Exif\0\0"[..], &block].concat();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("\nexif\n{:8}\n{hex}\n", bytes.len());
    let keyword = b"Raw profile type exif\0";
    let file = png_with(&[png_chunk(b"tEXt", &[keyword, text.as_bytes()].concat())]);
    for rule in [ExifRule::Filler, ExifRule::Always] {
        let copy = embed(&file.clone().into(), "a new caption", rule).unwrap();
        assert!(!holds(&copy, "eXIf"));
        let hex = |texts: &str| -> String { texts.bytes().map(|b| format!("{b:02x}")).collect() };
        let plain = String::from_utf8_lossy(&copy).replace('\n', "");
        assert!(plain.contains(&hex("a new caption")), "{plain}");
    }
}

/// A TIFF block with a make, an orientation, maker notes with absolute offsets, and a description.
fn exif_block(big_endian: bool, make: &str, description: Option<&[u8]>) -> Vec<u8> {
    let u16 = |v: u16| {
        if big_endian {
            v.to_be_bytes()
        } else {
            v.to_le_bytes()
        }
    };
    let u32 = |v: u32| {
        if big_endian {
            v.to_be_bytes()
        } else {
            v.to_le_bytes()
        }
    };
    let mut entries: Vec<(u16, u16, Vec<u8>)> = Vec::new();
    if let Some(text) = description {
        entries.push((0x010e, 2, text.to_vec()));
    }
    entries.push((0x010f, 2, [make.as_bytes(), b"\0"].concat()));
    entries.push((0x0112, 3, [&u16(6)[..], &[0, 0]].concat()));
    let mut block = if big_endian {
        b"MM\0*".to_vec()
    } else {
        b"II*\0".to_vec()
    };
    block.extend(u32(8));
    block.extend(u16(entries.len() as u16));
    let mut at = 8 + 2 + entries.len() * 12 + 4;
    let mut values = Vec::new();
    for (tag, kind, value) in entries {
        let count = if kind == 3 { 1 } else { value.len() as u32 };
        block.extend([&u16(tag)[..], &u16(kind), &u32(count)].concat());
        if value.len() <= 4 {
            let mut inline = value;
            inline.resize(4, 0);
            block.extend(inline);
        } else {
            block.extend(u32(at as u32));
            at += value.len();
            values.extend(value);
        }
    }
    block.extend(u32(0));
    [block, values, b"notes at their own offsets".to_vec()].concat()
}

fn jpeg_exif(big_endian: bool, make: &str, description: Option<&[u8]>) -> Vec<u8> {
    let block = exif_block(big_endian, make, description);
    jpeg_with(&[segment(0xe1, &[b"Exif\0\0", &block])])
}

/// The EXIF block of a JPEG whose first segment it is.
fn block_of(jpeg: &[u8]) -> &[u8] {
    let len = usize::from(u16::from_be_bytes([jpeg[4], jpeg[5]]));
    &jpeg[12..4 + len]
}

#[test]
fn a_cameras_default_text_is_replaced_and_nothing_moves() {
    let texts = [
        "OLYMPUS DIGITAL CAMERA         ",
        "SONY DSC",
        "Minolta DSC",
        "KONICA MINOLTA DIGITAL CAMERA",
        "<Digimax S500 / Kenox S500 / Digimax Cyber 530>",
        "MAMIYA",
        "Acme",
        "",
        "   ",
        "\0\0\0\0\0\0",
        "...",
        "cof",
        "ACME DIGITAL CAMERA",
        "Exif_JPEG_PICTURE",
        "DCF 1.0",
        "DCIM\\100GOPRO\\GOPR0482.JPG",
    ];
    for big_endian in [false, true] {
        for text_before in texts {
            let text = [text_before.as_bytes(), b"\0"].concat();
            let file = jpeg_exif(big_endian, "ACME", Some(&text));
            let copy = embedded(&file, "a grün caption").unwrap();
            let (old, new) = (block_of(&file), block_of(&copy));
            assert!(
                new.ends_with("a grün caption\0".as_bytes()),
                "{text_before:?}"
            );
            let differing = old.iter().zip(new).filter(|(a, b)| a != b).count();
            assert!(
                differing <= 8 && new[22..old.len()] == old[22..],
                "{text_before:?}"
            );
            let always = embed(&file.clone().into(), "ok", ExifRule::Always).unwrap();
            assert!(
                block_of(&always)[18..22] == *b"ok\0\0",
                "in the entry itself"
            );
            let never = embed(&file.clone().into(), "x", ExifRule::Never).unwrap();
            assert!(block_of(&never) == old);
        }
    }
}

#[test]
fn a_users_description_is_replaced_only_on_request() {
    for text_before in [
        "Grandma's digital camera",
        "sea",
        "Camera",
        "Sony",
        "My digital camera",
    ] {
        let text = [text_before.as_bytes(), b"\0"].concat();
        let file = jpeg_exif(true, "Canon", Some(&text));
        assert!(
            block_of(&embedded(&file, "x").unwrap()) == block_of(&file),
            "{text_before}"
        );
        let always = embed(&file.into(), "caption", ExifRule::Always).unwrap();
        assert!(block_of(&always).ends_with(b"caption\0"));
    }
    // In a copy captioned before, both descriptions are replaced.
    let file = jpeg_exif(true, "Canon", Some(b"An earlier caption.\0"));
    let first = embedded(&file, "An earlier caption.").unwrap();
    let second = embedded(&first, "A later one.").unwrap();
    assert!(block_of(&second).ends_with(b"A later one.\0"));
}

#[test]
fn exif_without_a_description_changes_only_on_request() {
    for big_endian in [false, true] {
        let file = jpeg_exif(big_endian, "Canon", None);
        assert!(block_of(&embedded(&file, "x").unwrap()) == block_of(&file));
        let always = embed(&file.clone().into(), "caption", ExifRule::Always).unwrap();
        let (old, new) = (block_of(&file), block_of(&always));
        assert!(new[8..old.len()] == old[8..]);
        assert_eq!(
            ::image::load_from_memory(&always).unwrap(),
            ::image::load_from_memory(&file).unwrap()
        );
    }
    for file in [JPEG, PNG, LOSSY] {
        let always = embed(&Bytes::copy_from_slice(file), "caption", ExifRule::Always).unwrap();
        assert!(holds(&always, "caption\0"));
    }
}

#[test]
fn exif_in_png_and_webp_is_edited_and_damaged_exif_is_kept() {
    let block = exif_block(false, "Canon", Some(b"SONY DSC\0"));
    let file = png_with(&[png_chunk(b"eXIf", &block)]);
    assert!(holds(&embedded(&file, "caption").unwrap(), "caption\0"));
    let image = LOSSY[12..].to_vec();
    for begin in [&b""[..], b"Exif\0\0"] {
        let file = riff(&[
            image.clone(),
            riff_chunk(b"EXIF", &[begin, &block].concat()),
        ]);
        let copy = embedded(&file, "caption").unwrap();
        assert!(holds(&copy, "caption\0") && copy[20] & 0b1100 == 0b1100);
    }
    for damaged in [
        &b"II*\0\xff\xff\xff\xff"[..],
        b"II",
        b"II*\0\x08\0\0\0\xff\xff",
    ] {
        let file = jpeg_with(&[segment(0xe1, &[b"Exif\0\0", damaged])]);
        let copy = embedded(&file, "caption").unwrap();
        assert!(holds(&copy, ">caption<"));
        let error = embed(&file.into(), "x", ExifRule::Always).unwrap_err();
        assert!(error.to_string().contains("EXIF block is damaged"));
    }
    let long = exif_block(false, "Canon", Some(&[b' '; 65_000]));
    let file = jpeg_with(&[segment(0xe1, &[b"Exif\0\0", &long])]);
    assert!(refusal_of_length(&file, 1_000).contains("65527 bytes of EXIF"));
}

#[test]
fn reported_files_get_their_caption() {
    let copy = embedded(ATTRIBUTE, "caption").unwrap();
    assert!(holds(&copy, ">caption<") && !holds(&copy, "old words") && holds(&copy, "image/jpeg"));
    let copy = embedded(CAMERA_WORDS, "caption").unwrap();
    assert!(holds(&copy, ">caption<") && holds(&copy, "caption\0"));
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let block = exif_block(true, "Canon", Some(b"SONY DSC\0"));
    let packet = packet("<rdf:Description dc:description='gone'/>");
    let header = b"XML:com.adobe.xmp\0\0\0\0\0";
    let jpeg = jpeg_with(&[
        segment(0xe1, &[b"Exif\0\0", &block]),
        segment(0xe1, &[XMP, &packet]),
    ]);
    let png = png_with(&[
        png_chunk(b"eXIf", &block),
        png_chunk(b"iTXt", &[header, &packet[..]].concat()),
    ]);
    let webp = riff(&[
        LOSSY[12..].to_vec(),
        riff_chunk(b"EXIF", &block),
        riff_chunk(b"XMP ", &packet),
    ]);
    let mut state = 7_u32;
    let mut next = move |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for file in [jpeg, png, webp] {
        for i in 0..4_000 {
            let mut damaged = file.clone();
            if i % 4 == 0 {
                damaged.truncate(next(file.len()));
            }
            for _ in 0..i % 4 {
                let at = next(damaged.len().min(3_000));
                damaged[at] = next(256) as u8;
            }
            for rule in [ExifRule::Filler, ExifRule::Always] {
                let _ = embed(&damaged.clone().into(), "caption", rule);
            }
        }
    }
}
