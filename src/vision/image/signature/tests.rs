use super::*;

fn name(file: &[u8]) -> Option<&'static str> {
    foreign(file).map(|found| found.name)
}

/// A file of this format with further content, which must not affect the result.
fn padded(head: &[u8]) -> Vec<u8> {
    [head, &[0x11; 600]].concat()
}

fn boxes(brands: &[&[u8; 4]]) -> Vec<u8> {
    let mut file = (8 + 4 + 4 * brands.len() as u32).to_be_bytes().to_vec();
    file.extend(b"ftyp");
    file.extend(brands[0]);
    file.extend([0; 4]);
    brands[1..].iter().for_each(|brand| file.extend(*brand));
    file
}

#[test]
fn files_with_a_signature_are_recognised() {
    let gz = |content: &[u8]| {
        use std::io::Write;
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(content).unwrap();
        out.finish().unwrap()
    };
    let at = |offset: usize, magic: &[u8]| [&vec![1; offset][..], magic].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (boxes(&[b"heic", b"mif1", b"heic"]), "a HEIC picture"),
        (boxes(&[b"heix", b"mif1"]), "a HEIC picture"),
        (boxes(&[b"mif1", b"mif1", b"heic"]), "a HEIC picture"),
        (boxes(&[b"heim", b"mif1"]), "a HEIC picture"),
        (boxes(&[b"hevc", b"msf1"]), "a HEIC picture"),
        (
            b"\0\0\0\x01ftyp\0\0\0\0\0\0\0\x20heic\0\0\0\0mif1heic".to_vec(),
            "a HEIC picture",
        ),
        (b"\0\0\0\0ftypmif1\0\0\0\0heic".to_vec(), "a HEIC picture"),
        (boxes(&[b"mif1", b"miaf"]), "a HEIF picture"),
        (boxes(&[b"msf1"]), "a HEIF picture"),
        (boxes(&[b"avif", b"mif1", b"miaf"]), "an AVIF picture"),
        (boxes(&[b"avis", b"msf1"]), "an AVIF picture"),
        (boxes(&[b"mif1", b"avif"]), "an AVIF picture"),
        (boxes(&[b"crx ", b"isom"]), "a raw photo (Canon CR3)"),
        (boxes(&[b"isom", b"mp41"]), "a video (MP4)"),
        (boxes(&[b"mp42"]), "a video (MP4)"),
        (boxes(&[b"3gp4"]), "a video (MP4)"),
        (boxes(&[b"qt  "]), "a video (QuickTime)"),
        (padded(b"\0\0\x10\0moov"), "a video (QuickTime)"),
        (padded(b"\xff\x0a"), "a JPEG XL picture"),
        (padded(b"\0\0\0\x0cJXL \r\n\x87\n"), "a JPEG XL picture"),
        (padded(b"\0\0\0\x0cjP  \r\n\x87\n"), "a JPEG 2000 picture"),
        (padded(b"\xff\x4f\xff\x51\0"), "a JPEG 2000 picture"),
        (padded(b"8BPS\0\x01"), "a Photoshop document (PSD)"),
        (padded(b"8BPS\0\x02"), "a large Photoshop document (PSB)"),
        (padded(b"gimp xcf v011"), "a GIMP document (XCF)"),
        (padded(b"%PDF-1.7\n"), "a PDF document"),
        (b"%PDF-1.7\n".to_vec(), "a PDF document"),
        (at(100, b"%PDF-1.4\n"), "a PDF document"),
        (
            padded(b"%!PS-Adobe-3.0 EPSF-3.0"),
            "a PostScript (EPS) file",
        ),
        (padded(b"\xc5\xd0\xd3\xc6"), "a PostScript (EPS) file"),
        (padded(b"IIRO\x08\0\0\0"), "a raw photo (Olympus ORF)"),
        (padded(b"IIRS\x08\0\0\0"), "a raw photo (Olympus ORF)"),
        (
            padded(b"IIU\0\x08\0\0\0"),
            "a raw photo (Panasonic RW2 or Leica RWL)",
        ),
        (
            padded(b"FUJIFILMCCD-RAW 0201"),
            "a raw photo (Fujifilm RAF)",
        ),
        (padded(b"FOVb"), "a raw photo (Sigma X3F)"),
        (padded(b"\0MRM"), "a raw photo (Minolta MRW)"),
        (padded(b"II\x1a\0\0\0HEAPCCDR"), "a raw photo (Canon CRW)"),
        (
            padded(b"II*\0\x10\0\0\0CR\x02\0"),
            "a raw photo (Canon CR2)",
        ),
        (padded(b"DDS \x7c"), "a DirectDraw texture (DDS)"),
        (padded(b"\x76\x2f\x31\x01"), "an OpenEXR picture"),
        (padded(b"#?RADIANCE\n"), "a Radiance HDR picture"),
        (padded(b"#?RGBE\n"), "a Radiance HDR picture"),
        (padded(b"qoif"), "a QOI picture"),
        (b"qoif".to_vec(), "a QOI picture"),
        (b"P6\n2 2\n255\n".to_vec(), "a Netpbm picture (PNM)"),
        (b"P1 1 1 1".to_vec(), "a Netpbm picture (PNM)"),
        (b"Pf\n1 1\n-1\n".to_vec(), "a Netpbm picture (PNM)"),
        (padded(b"SIMPLE  =                    T"), "a FITS file"),
        (at(128, b"DICM"), "a DICOM file"),
        (
            b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0".to_vec(),
            "a Windows icon (ICO)",
        ),
        (
            b"\0\0\x02\0\x01\0\x10\x10\0\0\0\0\0\0\x30\0\0\0\x16\0\0\0\x28\0".to_vec(),
            "a Windows cursor (CUR)",
        ),
        (
            b"\0\0\x02\0\0\0\0\0\0\0\0\0\x10\0\x10\0\x18\0\x01\x02".to_vec(),
            "a TGA picture",
        ),
        (
            b"\0\0\x0a\0\0\0\0\0\0\0\0\0\x10\0\x10\0\x20\x28\x01\x02".to_vec(),
            "a TGA picture",
        ),
        (at(50, b"TRUEVISION-XFILE.\0"), "a TGA picture"),
        (padded(b"\x0a\x05\x01\x08"), "a PCX picture"),
        (padded(b"RIFF\x10\0\0\0AVI LIST"), "a video (AVI)"),
        (padded(b"RIFF\x10\0\0\0WAVEfmt "), "a sound file (WAV)"),
        (padded(b"\x1a\x45\xdf\xa3"), "a video (Matroska or WebM)"),
        (padded(b"\0\0\x01\xba"), "a video (MPEG)"),
        (
            [&[0x47; 1][..], &[0; 187], &[0x47], &[0; 187], &[0x47]].concat(),
            "a video (MPEG-TS)",
        ),
        (
            padded(b"PK\x03\x04"),
            "a ZIP archive (or a document that is one)",
        ),
        (padded(b"7z\xbc\xaf\x27\x1c"), "a 7-Zip archive"),
        (padded(b"Rar!\x1a\x07\x01\0"), "a RAR archive"),
        (gz(b"hello"), "a file packed by gzip"),
        (
            gz(b"<?xml version='1.0'?><svg/>"),
            "a packed SVG drawing (SVGZ)",
        ),
        (at(257, b"ustar\x0000"), "a tar archive"),
        (
            padded(b"\0\x05\x16\x07\0\x02"),
            "an AppleDouble file of macOS, which accompanies a picture",
        ),
        (padded(b"\0\0\0\x01Bud1"), "a .DS_Store file of macOS"),
        (
            vec![0; 4096],
            "a file of zeros, left by an interrupted copy",
        ),
        (
            padded(b"\x89PNG\n\x1a\n"),
            "a PNG that was damaged by a transfer as text",
        ),
        (
            padded(b"\xef\xbf\xbd\xef\xbf\xbd"),
            "a file whose bytes were replaced when it was saved as text",
        ),
        (padded(b"\r\n\xff\xd8\xff\xe0"), "a JPEG after other bytes"),
        (
            padded(b"\xef\xbb\xbf\x89PNG\r\n\x1a\n"),
            "a PNG after other bytes",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec(),
            "a Git LFS pointer",
        ),
    ];
    let wrong: Vec<_> = cases
        .iter()
        .map(|(file, expected)| {
            (
                name(file),
                expected,
                file.iter().take(16).collect::<Vec<_>>(),
            )
        })
        .filter(|(found, expected, _)| *found != Some(**expected))
        .collect();
    assert!(wrong.is_empty(), "(found, expected, head): {wrong:#?}");
}

#[test]
fn text_formats_are_recognised() {
    let utf16 = |text: &str| {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        [0xff, 0xfe].into_iter().chain(units).collect::<Vec<u8>>()
    };
    let cases: Vec<(Vec<u8>, &str)> = [
        ("<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        ("\u{feff}<?xml version='1.0' encoding='utf-8'?>\n<!-- made by > a program -->\n<svg width='1'>", "an SVG drawing"),
        ("<?xml version='1.0'?><!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' 'svg11.dtd'><svg>", "an SVG drawing"),
        ("<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY a 'b'>]>\n<svg>", "an SVG drawing"),
        ("  \n<svg:svg xmlns:svg='http://www.w3.org/2000/svg'>", "an SVG drawing"),
        ("<!DOCTYPE html><html><body>Sign in</body></html>", "a web page (HTML)"),
        ("<!doctype HTML PUBLIC>", "a web page (HTML)"),
        ("\n<html lang='en'>", "a web page (HTML)"),
        ("<!-- login --><HEAD>", "a web page (HTML)"),
        ("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
        ("<Error><Code>NoSuchKey</Code></Error>", "an XML document"),
        ("{\"error\": \"not found\"}", "JSON"),
        ("[1, 2]", "JSON"),
        ("404 page not found", "text"),
        ("Grüße aus Köln", "text"),
        ("data:image/png;base64,iVBORw0KGgo=", "the text of a data URL"),
        ("/9j/4AAQSkZJRgABAQAAAQ", "a picture as base64 text"),
        (" \n\n", "only white space"),
    ]
    .into_iter()
    .map(|(text, expected)| (text.as_bytes().to_vec(), expected))
    .chain([
        (utf16("<?xml version='1.0'?><svg/>"), "an SVG drawing"),
        (utf16("hello"), "text"),
    ])
    .collect();
    let wrong: Vec<_> = cases
        .iter()
        .map(|(file, expected)| (name(file), expected, String::from_utf8_lossy(file)))
        .filter(|(found, expected, _)| *found != Some(**expected))
        .collect();
    assert!(wrong.is_empty(), "(found, expected, text): {wrong:#?}");
}

#[test]
fn raw_photos_in_tiff_containers_are_recognised() {
    use crate::vision::image::ifd::tests::with_tags;
    let raw = [
        with_tags(&[
            (tag::NEW_SUBFILE_TYPE, 1),
            (tag::COMPRESSION, 6),
            (tag::SUB_IFDS, 500),
        ]),
        with_tags(&[(tag::PHOTOMETRIC, 32_803)]),
        with_tags(&[(tag::PHOTOMETRIC, 34_892)]),
        with_tags(&[(tag::COMPRESSION, 34_713)]),
        with_tags(&[(tag::COMPRESSION, 32_767)]),
        with_tags(&[(tag::COMPRESSION, 65_535)]),
        with_tags(&[(tag::COMPRESSION, 1), (tag::DNG_VERSION, 0x0401)]),
    ];
    for (i, file) in raw.iter().enumerate() {
        assert!(raw_photo(file).is_some(), "case {i}");
    }
    // The samples of a NEF are in a child of the first directory, which is a small RGB picture.
    let mut nef = with_tags(&[(tag::PHOTOMETRIC, 2), (tag::SUB_IFDS, 0)]);
    let sub = nef.len() as u32;
    let at = nef.len() - 8;
    nef[at..at + 4].copy_from_slice(&sub.to_le_bytes());
    nef.extend(&with_tags(&[(tag::PHOTOMETRIC, 32_803)])[8..]);
    assert!(raw_photo(&nef).is_some());

    let pictures = [
        with_tags(&[
            (tag::PHOTOMETRIC, 2),
            (tag::COMPRESSION, 5),
            (tag::NEW_SUBFILE_TYPE, 0),
        ]),
        with_tags(&[
            (tag::PHOTOMETRIC, 1),
            (tag::COMPRESSION, 32_773),
            (tag::SUB_IFDS, 8),
        ]), // PackBits, pyramid
        with_tags(&[]),
    ];
    for (i, file) in pictures.iter().enumerate() {
        assert_eq!(raw_photo(file), None, "case {i}");
    }
}

#[test]
fn unknown_bytes_are_not_recognised_and_no_truncation_panics() {
    assert_eq!(name(&[0x13, 0x37, 0x80, 0x81, 0x01, 0x02]), None);
    assert_eq!(name(b"\x80\x81\x82"), None);
    let heads: [Vec<u8>; 4] = [
        boxes(&[b"heic", b"mif1"]),
        b"\xff\xff\xff\xffftypheic".to_vec(),
        b"\0\0\0\0ftyp".to_vec(),
        b"<?xml <!DOCTYPE svg [".to_vec(),
    ];
    for head in heads {
        (0..=head.len()).for_each(|len| _ = foreign(&head[..len]));
    }
}
