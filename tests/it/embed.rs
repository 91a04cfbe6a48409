//! Descriptions in copies of pictures as exiv2 (with Adobe's XMP toolkit) and exiftool read them.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::captions::{assert_status, run, scratch};
use serde_json::Value;
use xc2_edge::tasks::caption::{ExifRule, embed};

const JPEG: &[u8] = include_bytes!("../reference/images/photo.jpg");
const ROTATED: &[u8] = include_bytes!("../reference/images/exif6.jpg");
const PNG: &[u8] = include_bytes!("../reference/images/palette.png");
const WEBP: &[u8] = include_bytes!("../reference/images/lossy.webp");
const ATTRIBUTE: &[u8] = include_bytes!("../reference/reports/xmp-attribute.jpg");
const CAMERA_WORDS: &[u8] = include_bytes!("../reference/reports/exif-camera-words.jpg");

const CAPTION: &str = "Ein grüner Kreis, 丸 <neu> & \"so\".";

/// Whether both readers are installed. CI requires them.
fn has_readers() -> bool {
    let is_there = |program: &str, argument| {
        let found = Command::new(program).arg(argument).output().is_ok();
        if !found {
            eprintln!("skipped: `{program}` is not installed");
        }
        assert!(
            found || std::env::var_os("CI").is_none(),
            "`{program}` is not installed"
        );
        found
    };
    is_there("exiftool", "-ver") && is_there("exiv2", "--version")
}

fn printed(program: &str, args: &[&str], file: &Path) -> String {
    let output = Command::new(program).args(args).arg(file).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("Failed to decode"), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// What exiftool and exiv2 read from a file: the descriptions and all other metadata.
#[derive(Debug, PartialEq)]
struct Reading {
    in_xmp: [Option<String>; 2],
    in_exif: [Option<String>; 2],
    others: BTreeMap<String, String>,
}

impl Reading {
    fn of(file: &Path) -> Self {
        let json = printed(
            "exiftool",
            &[
                "-j",
                "-G1",
                "-a",
                "-struct",
                "-XMP:all",
                "-EXIF:all",
                "-ICC_Profile:all",
                "-IPTC:all",
            ],
            file,
        );
        let json: Vec<BTreeMap<String, Value>> = serde_json::from_str(&json).unwrap();
        let mut others: BTreeMap<_, _> = json[0]
            .iter()
            .map(|(k, v)| (k.clone(), v.to_string()))
            .collect();
        others.remove("SourceFile");
        let mut text = |tag: &str| {
            others.remove(tag);
            json[0].get(tag).map(|v| v.as_str().unwrap().to_owned())
        };
        let (xmp, exif) = (text("XMP-dc:Description"), text("IFD0:ImageDescription"));
        let mut by_exiv2 = [None, None];
        for line in printed("exiv2", &["-PEXkt", "pr"], file).lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let value = value.trim().to_owned();
            match key {
                "Xmp.dc.description" => by_exiv2[0] = Some(value),
                "Exif.Image.ImageDescription" => by_exiv2[1] = Some(value),
                // The position of the directory changes if it gets one more entry.
                "Exif.Image.ExifTag" => {}
                _ => drop(others.insert(key.to_owned(), value)),
            }
        }
        let [xmp2, exif2] = by_exiv2;
        Self {
            in_xmp: [xmp, xmp2],
            in_exif: [exif, exif2],
            others,
        }
    }
}

/// Writes the caption into a copy; returns what is read from the file and from the copy.
fn described(name: &str, file: &[u8], rule: ExifRule) -> (Reading, Reading) {
    let dir = scratch("embed");
    let [before, after] =
        ["before", "after"].map(|which| -> PathBuf { dir.join(format!("{which}-{name}")) });
    fs::write(&before, file).unwrap();
    let copy =
        embed(&file.to_vec().into(), CAPTION, rule).unwrap_or_else(|e| panic!("{name}: {e}"));
    fs::write(&after, copy).unwrap();
    (Reading::of(&before), Reading::of(&after))
}

fn packet(nodes: &str) -> String {
    format!(
        "<?xpacket begin='\u{feff}' id='W5M0MpCehiHzreSzNTczkc9d'?>\n<x:xmpmeta xmlns:x='adobe:ns:meta/'>\
         <rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#' xmlns:dc='http://purl.org/dc/elements/1.1/' \
         xmlns:xmp='http://ns.adobe.com/xap/1.0/' xmlns:xmpMM='http://ns.adobe.com/xap/1.0/mm/' \
         xmlns:stRef='http://ns.adobe.com/xap/1.0/sType/ResourceRef#'>{nodes}</rdf:RDF></x:xmpmeta>\n  \n<?xpacket end='r'?>"
    )
}

/// Packets, and what exiv2 shows as their description afterwards.
fn packets() -> Vec<(String, &'static str)> {
    let alt = |items: &str| {
        packet(&format!(
            "<rdf:Description rdf:about='' xmp:Rating='4'><dc:description><rdf:Alt>{items}</rdf:Alt></dc:description></rdf:Description>"
        ))
    };
    vec![
        (packet("<rdf:Description rdf:about='' dc:description='gone' dc:format='image/jpeg' xmp:Rating='4'/>"), ""),
        (packet("<rdf:Description rdf:about=''><dc:description>gone</dc:description><dc:title><rdf:Alt><rdf:li xml:lang='x-default'>T</rdf:li></rdf:Alt></dc:title></rdf:Description>"), ""),
        (alt("<rdf:li xml:lang='x-default'>gone</rdf:li><rdf:li xml:lang='de'>bleibt</rdf:li>"), ", lang=\"de\" bleibt"),
        (alt("<rdf:li xml:lang='de'>bleibt</rdf:li>"), ", lang=\"de\" bleibt"),
        (packet("<rdf:Description rdf:about=''><dc:description xml:lang='de'>bleibt</dc:description></rdf:Description>"), ", lang=\"de\" bleibt"),
        (packet("<rdf:Description rdf:about='' xmp:Rating='4'><xmpMM:Pantry><rdf:Bag><rdf:li rdf:parseType='Resource'><dc:description><rdf:Alt><rdf:li xml:lang='x-default'>other</rdf:li></rdf:Alt></dc:description></rdf:li></rdf:Bag></xmpMM:Pantry><xmpMM:DerivedFrom stRef:documentID='uuid:2'/><xmpMM:Ingredients><rdf:Bag><rdf:li><rdf:Description dc:description='other'/></rdf:li></rdf:Bag></xmpMM:Ingredients></rdf:Description>"), ""),
        (packet("<rdf:Description rdf:about='uuid:1' xmp:Rating='4'/><rdf:Description rdf:about='uuid:1' dc:description='gone'/>"), ""),
        (packet(""), ""),
        ("<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'/></x:xmpmeta>".to_owned(), ""),
        ("<x:xmpmeta xmlns:x='adobe:ns:meta/'/>".to_owned(), ""),
        (format!("\u{feff}{}", packet("<rdf:Description rdf:about='' dc:description='gone' xmp:Rating='4'/>")), ""),
    ]
}

fn jpeg_with(marker: &[u8], contents: &[u8]) -> Vec<u8> {
    let len = (marker.len() + contents.len() + 2) as u16;
    [
        &JPEG[..2],
        &[0xff, 0xe1],
        &len.to_be_bytes(),
        marker,
        contents,
        &JPEG[2..],
    ]
    .concat()
}

/// How a PNG stores a packet.
#[derive(Clone, Copy, PartialEq)]
enum Chunk {
    Plain,
    Compressed,
    /// In hexadecimal digits, as ImageMagick writes it.
    RawProfile,
}

fn png_with(packet: &[u8], chunk: Chunk) -> Vec<u8> {
    let raw = || {
        let hex: String = packet.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("\nxmp\n{:8}\n{hex}\n", packet.len()).into_bytes()
    };
    let (header, text) = match chunk {
        Chunk::Plain => (&b"iTXtXML:com.adobe.xmp\0\0\0\0\0"[..], packet.to_vec()),
        Chunk::Compressed => (&b"iTXtXML:com.adobe.xmp\0\x01\0\0\0"[..], packet.to_vec()),
        Chunk::RawProfile => (&b"zTXtRaw profile type xmp\0\0"[..], raw()),
    };
    let mut contents = header.to_vec();
    if chunk == Chunk::Plain {
        contents.extend(text);
    } else {
        let fast = flate2::Compression::fast();
        let mut encoder = flate2::write::ZlibEncoder::new(&mut contents, fast);
        encoder.write_all(&text).unwrap();
        encoder.finish().unwrap();
    }
    let len = (contents.len() as u32 - 4).to_be_bytes();
    let checksum = crc32fast::hash(&contents).to_be_bytes();
    [&PNG[..33], &len, &contents, &checksum, &PNG[33..]].concat()
}

fn webp_with(packet: &[u8]) -> Vec<u8> {
    let mut picture: ::image::RgbImage = ::image::ImageBuffer::new(9, 7);
    picture.put_pixel(3, 3, ::image::Rgb([200, 10, 10]));
    let mut file = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut file, ::image::ImageFormat::WebP)
        .unwrap();
    let image = &file.get_ref()[12..];
    let mut chunks = b"WEBPVP8X\x0a\0\0\0\x04\0\0\0\x08\0\0\x06\0\0".to_vec();
    chunks.extend(image);
    chunks.extend(b"XMP ");
    chunks.extend((packet.len() as u32).to_le_bytes());
    chunks.extend(packet);
    chunks.resize(chunks.len().next_multiple_of(2), 0);
    [b"RIFF", &(chunks.len() as u32).to_le_bytes()[..], &chunks].concat()
}

#[test]
fn both_readers_find_the_caption_in_xmp_and_the_rest_unchanged() {
    if !has_readers() {
        return;
    }
    const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
    for (i, (packet, others)) in packets().iter().enumerate() {
        let packet = packet.as_bytes();
        let files = [
            ("a.jpg", jpeg_with(XMP, packet)),
            ("b.png", png_with(packet, Chunk::Plain)),
            ("c.png", png_with(packet, Chunk::Compressed)),
            ("d.png", png_with(packet, Chunk::RawProfile)),
            ("e.webp", webp_with(packet)),
        ];
        for (name, file) in files {
            let name = format!("{i}{name}");
            let (before, after) = described(&name, &file, ExifRule::Filler);
            let [by_exiftool, by_exiv2] = &after.in_xmp;
            assert_eq!(by_exiftool.as_deref(), Some(CAPTION), "{name}");
            let expected = format!("lang=\"x-default\" {CAPTION}{others}");
            assert_eq!(by_exiv2.as_deref(), Some(&*expected), "{name}");
            assert_eq!(after.others, before.others, "{name}");
        }
    }
}

#[test]
fn utf_16_packets_can_be_read_after_the_change() {
    if !has_readers() {
        return;
    }
    let packet = packet("<rdf:Description rdf:about='' dc:description='gone' dc:format='bleibt'/>");
    let bytes: Vec<u8> = packet.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let file = jpeg_with(b"http://ns.adobe.com/xap/1.0/\0", &bytes);
    // exiv2 reads the copy and rejects the original.
    let copy = embed(&file.into(), CAPTION, ExifRule::Filler).unwrap();
    let path = scratch("embed").join("utf16.jpg");
    fs::write(&path, copy).unwrap();
    let after = Reading::of(&path);
    assert_eq!(after.in_xmp[0].as_deref(), Some(CAPTION));
    assert_eq!(after.others["Xmp.dc.format"], "bleibt");
}

#[test]
fn both_readers_find_the_caption_in_exif_and_the_rest_unchanged() {
    if !has_readers() {
        return;
    }
    let cases = [
        ("words.jpg", CAMERA_WORDS, ExifRule::Filler),
        ("attribute.jpg", ATTRIBUTE, ExifRule::Always),
        ("rotated.jpg", ROTATED, ExifRule::Always),
        ("new.png", PNG, ExifRule::Always),
        ("new.webp", WEBP, ExifRule::Always),
    ];
    for (name, file, rule) in cases {
        let (before, after) = described(name, file, rule);
        for text in [&after.in_exif[0], &after.in_exif[1], &after.in_xmp[0]] {
            assert_eq!(text.as_deref(), Some(CAPTION), "{name}");
        }
        let mut others = after.others;
        // exiftool reports the byte order of the new block.
        others.retain(|key, _| before.others.contains_key(key) || !key.contains("ByteOrder"));
        assert_eq!(others, before.others, "{name}");
        let (_, never) = described(name, file, ExifRule::Never);
        assert_eq!(never.in_exif, before.in_exif, "{name}");
    }
}

#[test]
fn a_picture_that_takes_no_description_is_not_copied_and_the_run_continues() {
    let dir = scratch("embed-run");
    let pictures = dir.join("pictures");
    fs::create_dir_all(&pictures).unwrap();
    let stray = packet("").replace("</rdf:RDF>", "</rdf:RDF><dc:description xmlns:dc='http://purl.org/dc/elements/1.1/'>stray</dc:description>");
    let stray = jpeg_with(b"http://ns.adobe.com/xap/1.0/\0", stray.as_bytes());
    fs::write(pictures.join("a-stray.jpg"), stray).unwrap();
    fs::write(pictures.join("attribute.jpg"), ATTRIBUTE).unwrap();
    fs::write(pictures.join("words.jpg"), CAMERA_WORDS).unwrap();
    let args = ["pictures", "-o", "c.jsonl", "--embed", "out", "-n", "8"];
    for _ in 0..2 {
        let message = assert_status(&run(&dir, &args), 3);
        assert!(
            message.contains("a-stray.jpg") && message.contains("outside of `rdf:RDF`"),
            "{message}"
        );
        assert!(!dir.join("out/a-stray.jpg").exists());
        assert!(dir.join("out/attribute.jpg").exists() && dir.join("out/words.jpg").exists());
    }
    assert_eq!(
        crate::common::captions::records(&dir.join("c.jsonl")).len(),
        3
    );

    let with = |rule: &str| {
        let args = [
            "pictures/words.jpg",
            "--embed",
            "other",
            "--overwrite",
            "-n",
            "8",
            "--embed-exif",
            rule,
        ];
        assert_status(&run(&dir, &args), 0);
        fs::read(dir.join("other/words.jpg")).unwrap()
    };
    let (never, filler) = (with("never"), with("filler"));
    assert!(never.len() < filler.len() && filler == with("always"));
}

#[test]
fn an_edited_copy_is_kept_and_reported() {
    let dir = scratch("embed-edited");
    let (picture, copy) = (dir.join("pictures/a.jpg"), dir.join("out/a.jpg"));
    fs::create_dir_all(dir.join("pictures")).unwrap();
    fs::write(&picture, ATTRIBUTE).unwrap();
    for output in ["c.jsonl", "c.csv"] {
        let args = ["pictures", "-o", output, "--embed", "out", "-n", "8"];
        let run_with = |more: &[&str]| run(&dir, &[&args[..], more].concat());
        let _ = fs::remove_file(&copy);
        assert_status(&run_with(&[]), 0);
        // An unedited copy is replaced when the picture changes.
        let made = fs::read(&copy).unwrap();
        fs::write(&picture, [ATTRIBUTE, b"1"].concat()).unwrap();
        let message = assert_status(&run_with(&[]), 0);
        assert!(message.contains("1 captioned"), "{message}");
        assert!(fs::read(&copy).unwrap() != made);
        // So is one that was made later from a record.
        fs::remove_file(&copy).unwrap();
        assert_status(&run_with(&["--embed-exif", "always"]), 0);
        fs::write(&picture, ATTRIBUTE).unwrap();
        let message = assert_status(&run_with(&[]), 0);
        assert!(message.contains("1 captioned"), "{message}");

        let edited = [&fs::read(&copy).unwrap()[..], b"my rating"].concat();
        fs::write(&copy, &edited).unwrap();
        fs::write(&picture, [ATTRIBUTE, b"23"].concat()).unwrap();
        for _ in 0..2 {
            let message = assert_status(&run_with(&[]), 0);
            for told in [
                "warning: pictures/a.jpg: has changed, but out/a.jpg was edited since it was made",
                "0 captioned, 1 skipped",
                "--overwrite",
            ] {
                assert!(message.contains(told), "{told}: {message}");
            }
            assert!(fs::read(&copy).unwrap() == edited);
        }
        let message = assert_status(&run_with(&["--overwrite"]), 0);
        assert!(message.contains("1 captioned"), "{message}");
        assert!(fs::read(&copy).unwrap() != edited);
        fs::write(&picture, ATTRIBUTE).unwrap();
    }
}
