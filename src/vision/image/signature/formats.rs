//! Names of unsupported formats, advice for each, and the bytes that they begin with.

use super::Foreign;

pub(super) const fn foreign_format(name: &'static str, advice: &'static str) -> Foreign {
    Foreign { name, advice }
}

pub(super) const SAVE: &str = "save it as PNG or JPEG first";
pub(super) const CONVERT: &str =
    "convert it first, for example with ImageMagick: `magick IN OUT.png`";
pub(super) const DEVELOP: &str = "develop it first, for example with `darktable-cli IN OUT.jpg`, or give the JPEG that \
                       the camera made beside it";
pub(super) const FRAME: &str = "take a frame of it: `ffmpeg -i IN -frames:v 1 OUT.png`";
pub(super) const UNPACK: &str = "unpack it and give the pictures in it";
pub(super) const AGAIN: &str = "copy or download it again";
pub(super) const NO_PICTURE: &str = "give a picture";
pub(super) const NOT_THE_PICTURE: &str =
    "the server sent it instead of the picture: read it, and download again";

pub(super) const HEIC: Foreign = foreign_format(
    "a HEIC picture",
    "convert it first, for example with `heif-convert IN OUT.jpg` (Debian: libheif-examples), or set the phone \
     to JPEG (iPhone: Settings, Camera, Formats, Most Compatible); a program built with `--features heic` reads it",
);
pub(super) const HEIF: Foreign = foreign_format(
    "a HEIF picture",
    "convert it first, for example with `heif-convert IN OUT.jpg` (Debian: libheif-examples)",
);
pub(super) const AVIF: Foreign = foreign_format(
    "an AVIF picture",
    "convert it first, for example with `avifdec IN OUT.png` (Debian: libavif-bin)",
);
pub(super) const JPEG_XL: Foreign = foreign_format(
    "a JPEG XL picture",
    "convert it first, for example with `djxl IN OUT.png` (Debian: libjxl-tools)",
);
pub(super) const JPEG_2000: Foreign = foreign_format(
    "a JPEG 2000 picture",
    "convert it first, for example with `opj_decompress -i IN -o OUT.png` (Debian: libopenjp2-tools)",
);
pub(super) const SVG: Foreign = foreign_format(
    "an SVG drawing",
    "render it first, for example with `rsvg-convert -o OUT.png IN` (Debian: librsvg2-bin)",
);
pub(super) const PDF: Foreign = foreign_format(
    "a PDF document",
    "render its pages first, for example with `pdftoppm -png IN page` (Debian: poppler-utils)",
);
pub(super) const POSTSCRIPT: Foreign = foreign_format(
    "a PostScript (EPS) file",
    "render it first, for example with Ghostscript: `gs -sDEVICE=png16m -r150 -dEPSCrop -o OUT.png IN`",
);
pub(super) const LAYERS: &str = "export it as PNG from the program that made it";
pub(super) const VIDEO: Foreign = foreign_format("a video (MP4)", FRAME);
pub(super) const QUICKTIME: Foreign = foreign_format("a video (QuickTime)", FRAME);

/// Magic numbers at the start of a file.
pub(super) const MAGIC: &[(&[u8], Foreign)] = &[
    (b"\xff\x0a", JPEG_XL),
    (b"\0\0\0\x0cJXL \r\n\x87\n", JPEG_XL),
    (b"\0\0\0\x0cjP  \r\n\x87\n", JPEG_2000),
    (b"\xff\x4f\xff\x51", JPEG_2000),
    (b"II\xbc", foreign_format("a JPEG XR picture", CONVERT)),
    (
        b"8BPS\0\x01",
        foreign_format("a Photoshop document (PSD)", LAYERS),
    ),
    (
        b"8BPS\0\x02",
        foreign_format("a large Photoshop document (PSB)", LAYERS),
    ),
    (b"gimp xcf", foreign_format("a GIMP document (XCF)", LAYERS)),
    (b"%!PS", POSTSCRIPT),
    (b"\xc5\xd0\xd3\xc6", POSTSCRIPT),
    (
        b"AT&TFORM",
        foreign_format(
            "a DjVu document",
            "render its pages first, for example with `ddjvu -format=tiff IN OUT.tif`",
        ),
    ),
    // Raw photos with a signature of their own.
    (
        b"IIRO",
        foreign_format("a raw photo (Olympus ORF)", DEVELOP),
    ),
    (
        b"IIRS",
        foreign_format("a raw photo (Olympus ORF)", DEVELOP),
    ),
    (
        b"MMOR",
        foreign_format("a raw photo (Olympus ORF)", DEVELOP),
    ),
    (
        b"IIU\0",
        foreign_format("a raw photo (Panasonic RW2 or Leica RWL)", DEVELOP),
    ),
    (
        b"FUJIFILMCCD-RAW",
        foreign_format("a raw photo (Fujifilm RAF)", DEVELOP),
    ),
    (
        b"II\x1a\0\0\0HEAPCCDR",
        foreign_format("a raw photo (Canon CRW)", DEVELOP),
    ),
    (b"FOVb", foreign_format("a raw photo (Sigma X3F)", DEVELOP)),
    (
        b"\0MRM",
        foreign_format("a raw photo (Minolta MRW)", DEVELOP),
    ),
    // Pictures of renderers, games, science and the past.
    (
        b"DDS ",
        foreign_format("a DirectDraw texture (DDS)", CONVERT),
    ),
    (
        b"\x76\x2f\x31\x01",
        foreign_format(
            "an OpenEXR picture",
            "map its tones to 8 bits first, and save it as PNG",
        ),
    ),
    (
        b"#?RADIANCE",
        foreign_format(
            "a Radiance HDR picture",
            "map its tones to 8 bits first, and save it as PNG",
        ),
    ),
    (
        b"#?RGBE",
        foreign_format(
            "a Radiance HDR picture",
            "map its tones to 8 bits first, and save it as PNG",
        ),
    ),
    (b"qoif", foreign_format("a QOI picture", CONVERT)),
    (b"farbfeld", foreign_format("a farbfeld picture", CONVERT)),
    (
        b"SIMPLE  =",
        foreign_format(
            "a FITS file",
            "scale its values to 8 bits first, and save it as PNG",
        ),
    ),
    (
        b"BPG\xfb",
        foreign_format(
            "a BPG picture",
            "convert it first, for example with `bpgdec -o OUT.png IN`",
        ),
    ),
    (
        b"FLIF",
        foreign_format(
            "a FLIF picture",
            "convert it first, for example with `flif -d IN OUT.png`",
        ),
    ),
    (b"\x8aMNG\r\n", foreign_format("an MNG animation", CONVERT)),
    (b"\x8bJNG\r\n", foreign_format("a JNG picture", CONVERT)),
    (b"icns", foreign_format("a macOS icon (ICNS)", CONVERT)),
    (b"\x01\xda", foreign_format("an SGI picture", CONVERT)),
    (
        b"\x59\xa6\x6a\x95",
        foreign_format("a Sun raster picture", CONVERT),
    ),
    (
        b"\xd7\xcd\xc6\x9a",
        foreign_format("a Windows metafile (WMF)", CONVERT),
    ),
    (b"/* XPM */", foreign_format("an XPM picture", CONVERT)),
    // Video and sound.
    (
        b"\x1a\x45\xdf\xa3",
        foreign_format("a video (Matroska or WebM)", FRAME),
    ),
    (b"FLV\x01", foreign_format("a video (FLV)", FRAME)),
    (
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
        foreign_format("a video (Windows Media)", FRAME),
    ),
    (b"\0\0\x01\xba", foreign_format("a video (MPEG)", FRAME)),
    (b"\0\0\x01\xb3", foreign_format("a video (MPEG)", FRAME)),
    (b"OggS", foreign_format("an Ogg file", FRAME)),
    (b"ID3", foreign_format("a sound file (MP3)", NO_PICTURE)),
    // Files in place of a picture.
    (
        b"version https://git-lfs.github.com/spec/",
        foreign_format("a Git LFS pointer", "fetch the file itself: `git lfs pull`"),
    ),
    (
        b"\0\x05\x16\x07",
        foreign_format(
            "an AppleDouble file of macOS, which accompanies a picture",
            "give the picture without `._` before its name",
        ),
    ),
    (
        b"\0\x05\x16\0",
        foreign_format("an AppleSingle file of macOS", UNPACK),
    ),
    (
        b"\0\0\0\x01Bud1",
        foreign_format("a .DS_Store file of macOS", NO_PICTURE),
    ),
    (
        b"L\0\0\0\x01\x14\x02\0",
        foreign_format("a Windows shortcut", "give the file that it leads to"),
    ),
    (
        b"bplist00",
        foreign_format(
            "a property list of macOS",
            "the picture may not be downloaded from iCloud yet: open it there first",
        ),
    ),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        foreign_format("an Office document or a Thumbs.db", UNPACK),
    ),
    (
        b"PK\x03\x04",
        foreign_format("a ZIP archive (or a document that is one)", UNPACK),
    ),
    (
        b"PK\x05\x06",
        foreign_format("an empty ZIP archive", NO_PICTURE),
    ),
    (
        b"7z\xbc\xaf\x27\x1c",
        foreign_format("a 7-Zip archive", UNPACK),
    ),
    (b"Rar!\x1a\x07", foreign_format("a RAR archive", UNPACK)),
    (b"\xfd7zXZ\0", foreign_format("a file packed by xz", UNPACK)),
    (b"BZh", foreign_format("a file packed by bzip2", UNPACK)),
    (
        b"\x28\xb5\x2f\xfd",
        foreign_format("a file packed by zstd", UNPACK),
    ),
    (
        b"SQLite format 3\0",
        foreign_format("an SQLite database", NO_PICTURE),
    ),
    (b"\x7fELF", foreign_format("a program", NO_PICTURE)),
    (
        b"GGUF",
        foreign_format("a model (GGUF)", "give it with `-m`, and a picture here"),
    ),
    (
        b"\xef\xbf\xbd",
        foreign_format(
            "a file whose bytes were replaced when it was saved as text",
            AGAIN,
        ),
    ),
    // The PNG signature is designed to show this damage.
    (
        b"\x89PNG",
        foreign_format("a PNG that was damaged by a transfer as text", AGAIN),
    ),
    (
        b"\xc2\x89PNG",
        foreign_format("a PNG that was damaged by a transfer as text", AGAIN),
    ),
    (
        b"\xc3\xbf\xc3\x98\xc3\xbf",
        foreign_format("a JPEG that was damaged by a transfer as text", AGAIN),
    ),
];
