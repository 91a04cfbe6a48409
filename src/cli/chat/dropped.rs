//! Parses file names as people type them and as terminals insert dropped files: quoted or escaped as in a
//! shell, or as `file://` URIs; several per line.

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use percent_encoding::percent_decode_str;
use xc2_edge::tasks::caption::Kind;

/// The pictures of a line, if it consists only of names of existing picture files.
pub fn pictures(line: &str) -> Option<Vec<PathBuf>> {
    let line = line.trim();
    let is_meant = |(word, path): &(String, PathBuf)| is_picture(word, path);
    let readings = readings(line).map(|words| with_paths(line, words));
    let mut readings = readings.filter(|files| !files.is_empty() && files.iter().all(is_meant));
    Some(readings.next()?.into_iter().map(|(_, path)| path).collect())
}

/// The files in the argument of a command, whether they exist or not; at least one.
pub fn files(text: &str) -> Vec<PathBuf> {
    let words = words(text).unwrap_or_default();
    let files = with_paths(text, words);
    let looks_like_picture = |path: &PathBuf| path.exists() || Kind::of(path) != Kind::Other;
    let whole = PathBuf::from(text);
    let are_files = files.len() == 1 || files.iter().all(|(_, path)| looks_like_picture(path));
    if whole.exists() {
        vec![whole]
    } else if let Some(found) = pictures(text) {
        found
    } else if are_files && !files.is_empty() {
        files.into_iter().map(|(_, path)| path).collect()
    } else {
        vec![file(text)]
    }
}

/// The single file in the argument of a command, whether it exists or not.
pub fn file(text: &str) -> PathBuf {
    let has_home = text.starts_with("~/");
    match words(text).as_deref() {
        Some([word]) => resolved(word, has_home),
        _ => resolved(&unescaped(text), has_home),
    }
}

/// Possible readings of a line: as one literal name, and as words.
fn readings(line: &str) -> impl Iterator<Item = Vec<String>> {
    // In a shell `#` begins a comment; here it is part of a name.
    let without_comments = line.replace(" #", " \\#");
    let whole = std::iter::once(vec![line.to_owned()]);
    whole.chain(words(line)).chain(words(&without_comments))
}

fn words(text: &str) -> Option<Vec<String>> {
    shlex::split(text)
}

fn with_paths(text: &str, words: Vec<String>) -> Vec<(String, PathBuf)> {
    let has_home = text.split_whitespace().any(|word| word.starts_with("~/"));
    let with_path = |word: String| {
        let path = resolved(&word, has_home);
        (word, path)
    };
    words.into_iter().map(with_path).collect()
}

/// The path of an unquoted word. `~/` is the home directory unless it was quoted.
fn resolved(word: &str, has_home: bool) -> PathBuf {
    if let Some(path) = path_of_uri(word) {
        return path;
    }
    let literal = PathBuf::from(word);
    match (word.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) if has_home && !literal.exists() => PathBuf::from(home).join(rest),
        _ => literal,
    }
}

/// The path of a `file:` URI, if its host is this machine.
fn path_of_uri(word: &str) -> Option<PathBuf> {
    let (scheme, rest) = word.split_at_checked("file:".len())?;
    if !scheme.eq_ignore_ascii_case("file:") {
        return None;
    }
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(rest) => {
            let (host, _) = rest.split_at(rest.find('/')?);
            let is_here = host.is_empty() || host.eq_ignore_ascii_case("localhost") || is_own(host);
            is_here.then(|| &rest[host.len()..])?
        }
    };
    let bytes = percent_decode_str(path).collect();
    path.starts_with('/')
        .then(|| OsString::from_vec(bytes).into())
}

fn is_own(host: &str) -> bool {
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname");
    own.is_ok_and(|own| own.trim().eq_ignore_ascii_case(host))
}

/// Whether a file is a picture: by its name or, if the word is clearly a path, by its first bytes.
fn is_picture(word: &str, path: &Path) -> bool {
    path.is_file()
        && (Kind::of(path) != Kind::Other || word.contains('/') && begins_as_picture(path))
}

fn begins_as_picture(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(32).read_to_end(&mut head));
    read.is_ok() && image::guess_format(&head).is_ok()
}

/// Removes backslashes that escape the next character.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next()),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A directory with pictures of difficult names, and its path.
    fn album() -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "a.png",
            "it's.png",
            "my photo (1).JPG",
            "#1.webp",
            "\u{e4}\u{56fe}%20.jpg",
            "say \"hi\".png",
            "x;$y&z.gif",
            "from phone.heic",
            "back\\slash.png",
            "notes.txt",
        ] {
            fs::write(dir.path().join(name), "1").unwrap();
        }
        fs::write(dir.path().join("screenshot"), b"\x89PNG\r\n\x1a\n").unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        (dir, path)
    }

    fn names(line: &str) -> Option<Vec<String>> {
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        Some(pictures(line)?.into_iter().map(name).collect())
    }

    #[test]
    fn lines_of_pictures_are_parsed_as_terminals_insert_them() {
        let (_dir, d) = album();
        for (line, expected) in [
            (format!("{d}/a.png"), vec!["a.png"]),
            (format!("{d}/a.png "), vec!["a.png"]),
            (format!("'{d}/a.png' "), vec!["a.png"]),
            (format!("'{d}/it'\\''s.png'"), vec!["it's.png"]),
            (format!("\"{d}/it's.png\""), vec!["it's.png"]),
            (format!("{d}/it\\'s.png"), vec!["it's.png"]),
            (format!("{d}/it's.png"), vec!["it's.png"]), // as it is, from those that do not quote
            (
                format!("{d}/my\\ photo\\ \\(1\\).JPG"),
                vec!["my photo (1).JPG"],
            ),
            (format!("{d}/my photo (1).JPG"), vec!["my photo (1).JPG"]),
            (format!("'{d}/say \"hi\".png'"), vec!["say \"hi\".png"]),
            (
                format!("\"{d}/say \\\"hi\\\".png\""),
                vec!["say \"hi\".png"],
            ),
            (format!("'{d}/x;$y&z.gif'"), vec!["x;$y&z.gif"]),
            (format!("{d}/x\\;\\$y\\&z.gif"), vec!["x;$y&z.gif"]),
            (format!("'{d}/back\\slash.png'"), vec!["back\\slash.png"]),
            (format!("'{d}/from phone.heic'"), vec!["from phone.heic"]),
            (
                format!("file://{d}/my%20photo%20%281%29.JPG"),
                vec!["my photo (1).JPG"],
            ),
            (format!("file://localhost{d}/a.png"), vec!["a.png"]),
            (format!("FILE:{d}/a.png"), vec!["a.png"]),
            (
                format!("file://{d}/%C3%A4%E5%9B%BE%2520.jpg"),
                vec!["\u{e4}\u{56fe}%20.jpg"],
            ),
            (format!("'file://{d}/a.png'"), vec!["a.png"]),
            (format!("{d}/screenshot"), vec!["screenshot"]),
            (
                format!("'{d}/a.png' '{d}/it'\\''s.png' "),
                vec!["a.png", "it's.png"],
            ),
            (format!("{d}/a.png file://{d}/it's.png"), vec!["a.png"]),
            (
                format!("file://{d}/a.png file://{d}/it%27s.png"),
                vec!["a.png", "it's.png"],
            ),
            (format!("{d}/a.png '{d}/#1.webp'"), vec!["a.png", "#1.webp"]),
        ] {
            if line.ends_with("it's.png") && line.contains(' ') {
                assert_eq!(names(&line), None, "{line}"); // an open quote
            } else {
                let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
                assert_eq!(names(&line), Some(expected), "{line}");
            }
        }
    }

    #[test]
    fn lines_with_other_text_or_missing_files_are_not_pictures() {
        let (_dir, d) = album();
        for line in [
            String::new(),
            "What is this?".to_owned(),
            format!("What is in {d}/a.png"),
            format!("{d}/a.png ?"),
            format!("{d}/a.png {d}/gone.png"),
            format!("{d}/notes.txt"),
            d.clone(),
            format!("file://elsewhere.example{d}/a.png"),
            format!("https://localhost{d}/a.png"),
            "it's a cat".to_owned(),
        ] {
            assert_eq!(names(&line), None, "{line}");
        }
    }

    #[test]
    fn files_of_a_command_need_not_exist() {
        let (_dir, d) = album();
        for (text, expected) in [
            ("my photo.jpg".to_owned(), vec!["my photo.jpg"]),
            ("a.png gone.png".to_owned(), vec!["a.png", "gone.png"]),
            (
                "my\\ photo.jpg 'b c.png'".to_owned(),
                vec!["my photo.jpg", "b c.png"],
            ),
            ("it's.jpg".to_owned(), vec!["it's.jpg"]),
            (format!("{d}/it's.png"), vec![&*format!("{d}/it's.png")]),
            (
                format!("{d}/a.png gone.png"),
                vec![&*format!("{d}/a.png"), "gone.png"],
            ),
            ("file:///gone%20.png".to_owned(), vec!["/gone .png"]),
        ] {
            let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(files(&text), expected, "{text}");
        }
    }
}
