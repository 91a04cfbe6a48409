//! Selects the pictures of a folder by extension. Hidden files, files that other programs keep for themselves,
//! and files that the user excludes are skipped.

use std::{
    fmt,
    path::{self, Path, PathBuf},
    str::FromStr,
};

use glob::{MatchOptions, Pattern};

/// Extensions of the files taken from folders. A file given by name may have any extension.
pub const EXTENSIONS: [&str; 17] = [
    "jpg", "jpeg", "jpe", "jif", "jfif", "jfi", "pjpeg", "mpo", "png", "apng", "webp", "bmp",
    "dib", "gif", "tif", "tiff", "btf",
];

/// Picture formats that are not supported, with their extensions.
const UNSUPPORTED: [(&str, &[&str]); 16] = [
    ("HEIC", &["heic", "heif", "heics", "heifs", "hif"]),
    ("AVIF", &["avif", "avifs"]),
    ("JPEG XL", &["jxl"]),
    ("JPEG 2000", &["jp2", "j2k", "jpf", "jpx", "jpm"]),
    ("JPEG XR", &["jxr", "wdp", "hdp"]),
    (
        "raw photo",
        &[
            "3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "gpr", "iiq", "k25",
            "kdc", "mef", "mos", "mrw", "nef", "nrw", "orf", "pef", "raf", "raw", "rw2", "rwl",
            "sr2", "srf", "srw", "x3f",
        ],
    ),
    ("PSD", &["psd", "psb"]),
    ("GIMP", &["xcf"]),
    ("Krita", &["kra", "ora"]),
    ("SVG", &["svg", "svgz"]),
    ("PDF", &["pdf"]),
    ("icon", &["ico", "icns", "cur"]),
    ("TGA", &["tga", "targa"]),
    ("PNM", &["pnm", "pbm", "pgm", "ppm", "pam"]),
    ("HDR", &["hdr", "exr"]),
    ("QOI", &["qoi"]),
];

/// Names under which other programs keep thumbnails, deleted files and metadata. Many others are hidden
/// (`._*`, `.thumbnails`, `.Trash-1000`, `.@__thumb`) and skipped for that reason.
const JUNK: [&str; 16] = [
    "@eaDir",                    // Synology: thumbnails
    "#recycle",                  // Synology
    "#snapshot",                 // Synology
    "@Recycle",                  // QNAP
    "@Recently-Snapshot",        // QNAP
    "@tmp",                      // Synology
    "@sharebin",                 // Synology
    "$RECYCLE.BIN",              // Windows
    "RECYCLER",                  // Windows
    "System Volume Information", // Windows
    "Thumbs.db",                 // Windows
    "desktop.ini",               // Windows
    "__MACOSX",                  // resource forks in archives
    "Network Trash Folder",      // macOS, on shares
    "Temporary Items",           // macOS, on shares
    "lost.dir",                  // Android: recovered fragments
];

/// The kind of a file, judged by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A picture of a supported format.
    Picture,
    /// A picture of an unsupported format, with its name.
    Unsupported(&'static str),
    /// Not a picture.
    Other,
}

impl Kind {
    /// The kind of a file with this name.
    pub fn of(path: &Path) -> Self {
        let Some(extension) = path.extension().and_then(|e| e.to_str()) else {
            return Self::Other;
        };
        let is = |known: &&str| extension.eq_ignore_ascii_case(known);
        if EXTENSIONS.iter().any(is) {
            return Self::Picture;
        }
        let unsupported = UNSUPPORTED
            .iter()
            .find(|(_, extensions)| extensions.iter().any(is));
        unsupported.map_or(Self::Other, |(format, _)| Self::Unsupported(format))
    }
}

/// A pattern of files and folders to skip.
///
/// A pattern without `/` is compared with names at any depth. A pattern with `/` is compared with the path
/// relative to the given folder, and with the path as given. A trailing `/` matches folders only. `*` and `?`
/// match within a name; `**` also matches `/`. A file with exactly the text of the pattern as its name or path
/// always matches.
#[derive(Clone, Debug)]
pub struct Exclude {
    /// Without trailing `/`.
    text: String,
    pattern: Pattern,
    has_slash: bool,
    folders_only: bool,
}

impl FromStr for Exclude {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let text = typed.strip_prefix("./").unwrap_or(typed);
        let folders_only = text.ends_with('/');
        let text = text.trim_end_matches('/');
        if text.is_empty() {
            return Err("expected a name or a pattern, found nothing".to_owned());
        }
        let pattern = Pattern::new(text);
        // A single `[` is part of a name, not a character class.
        let pattern = pattern.or_else(|_| Pattern::new(&text.replace('[', "[[]")));
        let pattern = pattern.map_err(|error| error.msg.to_owned())?;
        Ok(Self {
            text: text.to_owned(),
            pattern,
            has_slash: text.contains('/'),
            folders_only,
        })
    }
}

impl Exclude {
    /// Whether a file or folder with exactly this path exists, below `root` or anywhere.
    fn is_path(&self, root: &Path) -> bool {
        let exists = |path: &Path| path.symlink_metadata().is_ok();
        exists(&root.join(self.text.trim_start_matches('/'))) || exists(Path::new(&self.text))
    }

    fn matches_path(&self, path: &Path, is_path: bool) -> bool {
        const WITHIN_NAMES: MatchOptions = MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        let matches = || {
            self.pattern
                .matches_with(&path.to_string_lossy(), WITHIN_NAMES)
        };
        path == Path::new(&self.text) || !is_path && matches()
    }

    fn matches(&self, root: &Path, below: &Path, is_path: bool) -> bool {
        if !self.has_slash {
            let name = below.file_name().unwrap_or_default();
            return self.matches_path(Path::new(name), is_path);
        }
        let given = root.join(below);
        let given = given.strip_prefix(".").unwrap_or(&given);
        self.matches_path(below, is_path)
            || self.matches_path(given, is_path)
            || self.text.starts_with('/')
                && (self.matches_path(&Path::new("/").join(below), is_path)
                    || path::absolute(given).is_ok_and(|path| self.matches_path(&path, is_path)))
    }
}

/// The filter for the files of folders.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    excludes: Vec<Exclude>,
    /// The folder of copies, which is skipped.
    except: Option<PathBuf>,
}

impl Selection {
    /// Skips files that match `excludes` or lie below the folder `except`, and hidden files and junk.
    pub fn new(excludes: &[Exclude], except: Option<&Path>) -> Self {
        Self {
            excludes: excludes.to_vec(),
            except: except.and_then(|dir| dir.canonicalize().ok()),
        }
    }

    /// The filter for the files below `root`.
    pub fn for_folder<'a>(&'a self, root: &'a Path) -> FolderFilter<'a> {
        let is_path = self.excludes.iter().map(|e| e.is_path(root)).collect();
        FolderFilter {
            root,
            selection: self,
            is_path,
        }
    }
}

/// The filter for the files of one folder. The folder itself is never skipped.
#[derive(Clone, Debug)]
pub struct FolderFilter<'a> {
    /// The folder, as given.
    pub root: &'a Path,
    selection: &'a Selection,
    /// For each pattern, whether it is the literal path of an existing file or folder.
    is_path: Vec<bool>,
}

impl FolderFilter<'_> {
    /// Whether a file or folder is skipped because of its name. Its parent folders are not considered.
    pub fn skips(&self, path: &Path, is_dir: bool) -> bool {
        let Ok(below) = path.strip_prefix(self.root) else {
            return false;
        };
        let Some(name) = below.file_name() else {
            return false; // the folder itself
        };
        is_hidden(Path::new(name))
            || is_junk(Path::new(name))
            || is_dir && self.is_except(path)
            || self.matches(below, is_dir)
    }

    /// Whether a pattern of the user matches a file or folder, or one of its parents.
    pub fn is_excluded(&self, path: &Path) -> bool {
        let below = path.strip_prefix(self.root).unwrap_or(path);
        let ancestors = below
            .ancestors()
            .filter(|path| !path.as_os_str().is_empty());
        let is_dir = |below: &Path| self.root.join(below).is_dir();
        !self.selection.excludes.is_empty()
            && ancestors
                .into_iter()
                .any(|below| self.matches(below, is_dir(below)))
    }

    fn matches(&self, below: &Path, is_dir: bool) -> bool {
        let mut excludes = self.selection.excludes.iter().zip(&self.is_path);
        excludes.any(|(exclude, is_path)| {
            (is_dir || !exclude.folders_only) && exclude.matches(self.root, below, *is_path)
        })
    }

    /// Whether a file or folder, or one of its parents, is skipped.
    pub fn skips_path(&self, path: &Path, is_dir: bool) -> bool {
        let folders = path.ancestors().skip(1);
        let mut folders = folders.take_while(|dir| *dir != self.root && dir.starts_with(self.root));
        self.skips(path, is_dir) || folders.any(|dir| self.skips(dir, true))
    }

    fn is_except(&self, dir: &Path) -> bool {
        let except = self.selection.except.as_deref();
        except.is_some_and(|except| dir.canonicalize().is_ok_and(|dir| dir == except))
    }
}

/// Whether other programs use this name for their own files.
pub fn is_junk(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| JUNK.iter().any(|junk| name.eq_ignore_ascii_case(junk)))
}

/// Whether a name begins with a dot.
pub fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".")
}

/// Counts of skipped files by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkippedFiles(Vec<(&'static str, usize)>);

impl SkippedFiles {
    /// The reason for a broken link.
    pub const BROKEN_LINK: &'static str = "broken link";

    /// A single file.
    pub fn one(why: &'static str) -> Self {
        Self(vec![(why, 1)])
    }

    /// Counts one more file.
    pub fn add(&mut self, why: &'static str) {
        match self.0.iter_mut().find(|(known, _)| *known == why) {
            Some((_, n)) => *n += 1,
            None => self.0.push((why, 1)),
        }
    }

    /// Adds the counts of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (why, n) in &other.0 {
            (0..*n).for_each(|_| self.add(why));
        }
    }

    /// The number of files.
    pub fn count(&self) -> usize {
        self.0.iter().map(|(_, n)| n).sum()
    }

    /// A summary for the user; `None` if there are no files.
    pub fn summary(&self) -> Option<String> {
        (self.count() > 0).then(|| self.to_string())
    }
}

impl fmt::Display for SkippedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} file{plural} left out: ")?;
        if let [(why, _)] = self.0[..] {
            return write!(f, "{why}");
        }
        let mut parts = self.0.clone();
        parts.sort_by_key(|(why, n)| (std::cmp::Reverse(*n), *why));
        let parts: Vec<_> = parts.iter().map(|(why, n)| format!("{n} {why}")).collect();
        write!(f, "{}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_kind_follows_from_the_extension_in_any_case() {
        for name in [
            "a.jpg", "a.JPEG", "b.jfif", "c.JPE", "d.Jif", "e.apng", "f.DIB", "g.x.webp",
        ] {
            assert_eq!(Kind::of(Path::new(name)), Kind::Picture, "{name}");
        }
        for (name, format) in [
            ("a.heic", "HEIC"),
            ("a.HIF", "HEIC"),
            ("b.avif", "AVIF"),
            ("c.JXL", "JPEG XL"),
            ("d.NEF", "raw photo"),
            ("e.svg", "SVG"),
        ] {
            assert_eq!(
                Kind::of(Path::new(name)),
                Kind::Unsupported(format),
                "{name}"
            );
        }
        for name in [
            "a",
            "a.txt",
            "a.jpg.part",
            "a.mp4",
            "jpg",
            ".jpg",
            "a.jpg.xmp",
        ] {
            assert_eq!(Kind::of(Path::new(name)), Kind::Other, "{name}");
        }
    }

    #[test]
    fn patterns_are_compared_with_names_and_paths() {
        for (pattern, path, is_dir, expected) in [
            ("*.gif", "a/b.gif", false, true),
            ("*.gif", "a/b.png", false, false),
            ("raw", "a/raw", true, true),
            ("raw/", "a/raw", true, true),
            ("raw/", "raw", false, false),
            ("a/raw", "a/raw", true, true),
            ("a/raw", "b/a/raw", true, false),
            ("/raw", "raw", true, true),
            ("/raw", "a/raw", true, false),
            ("**/raw/*.png", "a/raw/b.png", false, true),
            ("photos/a", "a", true, true), // as given
            ("./photos/a/", "a", true, true),
            ("a*", "a/b", false, false),
            ("[\u{e4}\u{f6}]*", "x/\u{f6}.jpg", false, true),
            ("Bild?.png", "Bild\u{e4}.png", false, true),
            ("old [", "old [", true, true),
            ("[ab].png", "a.png", false, true),
            ("[ab].png", "[ab].png", false, true),
        ] {
            let selection = Selection::new(&[pattern.parse().unwrap()], None);
            let root = Path::new("photos");
            let skipped = selection.for_folder(root).skips(&root.join(path), is_dir);
            assert_eq!(skipped, expected, "{pattern} {path}");
        }
        for pattern in ["", "/", "./", "a**"] {
            assert!(pattern.parse::<Exclude>().is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_is_an_existing_name_is_taken_literally() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["trip [1]", "trip 1"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let absolute = dir.path().join("trip [1]");
        for pattern in ["trip [1]", "/trip [1]/", absolute.to_str().unwrap()] {
            let selection = Selection::new(&[pattern.parse().unwrap()], None);
            let below = selection.for_folder(dir.path());
            assert!(below.skips(&absolute, true), "{pattern}");
            assert!(!below.skips(&dir.path().join("trip 1"), true), "{pattern}");
        }
    }

    #[test]
    fn hidden_files_and_junk_are_skipped_but_never_the_given_folder() {
        let selection = Selection::default();
        for name in [
            "@eaDir",
            "#recycle",
            "$Recycle.Bin",
            "._a.jpg",
            ".thumbnails",
            "Thumbs.db",
        ] {
            let below = selection.for_folder(Path::new("photos"));
            let path = Path::new("photos/2024").join(name);
            assert!(below.skips(&path, true), "{name}");
            assert!(below.skips_path(&path.join("a/b.jpg"), false), "{name}");
            let itself = Path::new("photos").join(name);
            let below = selection.for_folder(&itself);
            assert!(!below.skips(&itself, true), "{name}");
            assert!(!below.skips_path(&itself.join("a.jpg"), false), "{name}");
        }
    }

    #[test]
    fn skipped_files_are_counted_by_format() {
        let mut skipped = SkippedFiles::default();
        assert_eq!(skipped.summary(), None);
        skipped.add("HEIC");
        assert_eq!(skipped.to_string(), "1 file left out: HEIC");
        skipped.add("HEIC");
        skipped.add("HEIC");
        assert_eq!(skipped.to_string(), "3 files left out: HEIC");
        let mut all = SkippedFiles::default();
        all.add("AVIF");
        all.extend(&skipped);
        assert_eq!(all.to_string(), "4 files left out: 3 HEIC, 1 AVIF");
    }
}
