//! Detects stand-ins for a file: pointers to it, web pages, messages of a server, empty files.

use std::{fmt, fs::File, os::unix::fs::FileExt, path::Path};

use super::CheckpointError;

/// Number of bytes of a file to check.
const HEAD_BYTES: usize = 1024;
/// Maximum length of a server's message.
const MAX_MESSAGE_BYTES: u64 = 512;
/// Number of characters of a message to show.
const SHOWN_CHARS: usize = 80;

/// Something in place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StandIn {
    /// A Git LFS pointer to a large file that was not downloaded.
    LfsPointer,
    /// A pointer of Hugging Face's Xet storage.
    XetPointer,
    /// A git-annex pointer.
    AnnexPointer,
    /// A web page that shows the file or an error.
    WebPage,
    /// A server's message.
    Message(String),
    /// An empty file.
    Empty,
}

impl fmt::Display for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LfsPointer => f.write_str("a Git LFS pointer to it"),
            Self::XetPointer => f.write_str("a Xet pointer to it"),
            Self::AnnexPointer => f.write_str("a git-annex pointer to it"),
            Self::WebPage => f.write_str("a web page (HTML)"),
            Self::Message(text) => write!(f, "the text {text:?}"),
            Self::Empty => f.write_str("an empty file (truncated to 0 bytes)"),
        }
    }
}

impl StandIn {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::LfsPointer => "run `git lfs pull` in the checkpoint's directory",
            Self::XetPointer => "download the repository with `hf download REPOSITORY`",
            Self::AnnexPointer => "run `git annex get .` in the checkpoint's directory",
            Self::WebPage | Self::Message(_) => {
                "download the file itself: with `hf download REPOSITORY`, or from its URL with `/resolve/` \
                 instead of `/blob/`; restricted repositories need `hf auth login` first"
            }
            Self::Empty => "download that file again",
        }
    }

    /// Refuses a stand-in for the file at `path`.
    ///
    /// # Errors
    /// If it is a stand-in, or cannot be read.
    pub(super) fn refuse(path: &Path, file: &File) -> Result<(), CheckpointError> {
        let mut head = [0; HEAD_BYTES];
        let mut n_read = 0;
        while n_read < HEAD_BYTES {
            let n = file.read_at(&mut head[n_read..], n_read as u64);
            match n.map_err(CheckpointError::io(path))? {
                0 => break,
                n => n_read += n,
            }
        }
        let n_bytes = file.metadata().map_err(CheckpointError::io(path))?.len();
        Self::refuse_bytes(path, &head[..n_read], n_bytes)
    }

    /// Like [`Self::refuse`], for a file of `n_bytes` that begins with `head`.
    pub(super) fn refuse_bytes(
        path: &Path,
        head: &[u8],
        n_bytes: u64,
    ) -> Result<(), CheckpointError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (expected, is_text) = kind(&name);
        match Self::recognise(&head[..head.len().min(HEAD_BYTES)], n_bytes, is_text) {
            None => Ok(()),
            Some(found) => Err(CheckpointError::NotTheFile {
                path: path.to_owned(),
                expected,
                found,
            }),
        }
    }

    fn recognise(head: &[u8], n_bytes: u64, is_text: bool) -> Option<Self> {
        let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
        let head = head.trim_ascii_start();
        let lower = head.to_ascii_lowercase();
        let starts = |starts: &[&str]| starts.iter().any(|s| lower.starts_with(s.as_bytes()));
        if n_bytes == 0 {
            return Some(Self::Empty);
        }
        if starts(&["version https://git-lfs", "version https://hawser"]) {
            return Some(Self::LfsPointer);
        }
        if starts(&["# xet version"]) {
            return Some(Self::XetPointer);
        }
        if starts(&["/annex/objects/"]) {
            return Some(Self::AnnexPointer);
        }
        if starts(&["<!doctype", "<html", "<head", "<?xml", "<!--"]) {
            return Some(Self::WebPage);
        }
        let is_message = !is_text && n_bytes <= MAX_MESSAGE_BYTES;
        let text = std::str::from_utf8(head).ok().filter(|_| is_message)?;
        let is_printed = text.chars().all(|c| !c.is_control() || c.is_whitespace());
        let shown = || text.trim_end().chars().take(SHOWN_CHARS).collect();
        is_printed.then(|| Self::Message(shown()))
    }
}

/// Expected content of a file of that name, and whether it is text.
fn kind(name: &str) -> (&'static str, bool) {
    if name.ends_with(".json") {
        ("JSON", true)
    } else if name.ends_with(".safetensors") {
        ("the safetensors file itself", false)
    } else if name.ends_with(".bin") {
        ("a zip archive of PyTorch, the file itself", false)
    } else if name == "tokenizer.model" {
        ("a sentencepiece model, the file itself", false)
    } else {
        ("the file itself", true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognise(bytes: &[u8], is_text: bool) -> Option<StandIn> {
        StandIn::recognise(bytes, bytes.len() as u64, is_text)
    }

    #[test]
    fn pages_pointers_and_messages_are_recognised() {
        let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        assert_eq!(recognise(lfs, false), Some(StandIn::LfsPointer));
        assert_eq!(
            recognise(b"# xet version 0\n", false),
            Some(StandIn::XetPointer)
        );
        assert_eq!(
            recognise(b"/annex/objects/SHA256E-s1--0\n", false),
            Some(StandIn::AnnexPointer)
        );
        for page in [
            &b"<!doctype html>\n<html>"[..],
            b"\xef\xbb\xbf\r\n <HTML lang=en>",
            b"<!DOCTYPE HTML PUBLIC>",
            b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>",
        ] {
            for is_text in [false, true] {
                assert_eq!(recognise(page, is_text), Some(StandIn::WebPage));
            }
        }
        let message = StandIn::Message("Entry not found".to_owned());
        assert_eq!(recognise(b"Entry not found\n", false), Some(message));
        assert_eq!(recognise(b"", true), Some(StandIn::Empty));
    }

    #[test]
    fn real_files_are_accepted() {
        assert_eq!(recognise(b"{\"bias\": false}", true), None);
        assert_eq!(recognise(b"<\x01\0\0\0\0\0\0{}", false), None); // a header of 316 bytes
        assert_eq!(recognise(b"PK\x03\x04", false), None);
        assert_eq!(recognise(b"\x0a\x0e\x0a\x05<unk>", false), None);
        assert_eq!(recognise(b"\x80\x02\x8a\nl\xfc", false), None);
    }
}
