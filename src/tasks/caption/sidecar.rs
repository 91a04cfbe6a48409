//! Sidecar files of a picture: its caption as text, and a copy with the caption embedded.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{EmbedError, ExifRule, Found, embed};
use crate::system::{
    atomic_file,
    panics::{Panic, catch},
};

/// Maximum length of a file name in bytes on common file systems.
pub(super) const MAX_NAME_BYTES: usize = 255;

/// Which files are written for a caption.
#[derive(Clone, Debug, Default)]
pub struct Sidecars {
    /// `photo.txt` beside `photo.jpg`.
    pub txt: bool,
    /// The folder for copies with embedded captions; they keep their relative paths.
    pub copies: Option<PathBuf>,
    /// Whether the copies contain the caption in EXIF as well.
    pub exif: ExifRule,
}

/// Why a sidecar cannot be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SidecarError {
    #[error("{}: cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: cannot be copied", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: the caption cannot be embedded", path.display())]
    Embed { path: PathBuf, source: EmbedError },
    #[error(
        "the name of its text file would have {found} bytes, expected at most {MAX_NAME_BYTES}; \
         rename the picture"
    )]
    LongName { found: usize },
    /// A bug in this program.
    #[error("{}: the caption cannot be embedded", path.display())]
    Panic { path: PathBuf, source: Panic },
    #[error(
        "`{}` and `{}` would share the sidecar `{}`",
        first.display(), second.display(), target.display()
    )]
    Clash {
        first: PathBuf,
        second: PathBuf,
        target: PathBuf,
    },
    #[error("the sidecar of `{}` would replace the picture itself", path.display())]
    Itself { path: PathBuf },
}

/// A picture whose sidecars cannot be made, and why.
#[derive(Debug)]
pub struct Refused {
    /// The picture.
    pub found: Found,
    /// Why.
    pub error: SidecarError,
}

/// The owners of sidecars, if pictures arrive one by one: the first picture gets the name.
#[derive(Debug, Default)]
pub struct Claims(HashMap<PathBuf, Found>);

impl Claims {
    /// Claims the sidecars of a picture.
    ///
    /// # Errors
    /// If another picture that still exists has claimed one of them, or one is the picture itself.
    pub fn claim(&mut self, sidecars: &Sidecars, found: &Found) -> Result<(), SidecarError> {
        for target in sidecars.targets(found) {
            if is_same_file(&target, &found.path) {
                let path = found.path.clone();
                return Err(SidecarError::Itself { path });
            }
            match self.0.get(&target) {
                Some(first) if first.path != found.path && first.path.exists() => {
                    return Err(clash(first, found, target));
                }
                Some(first) if first.path == found.path => {}
                _ => drop(self.0.insert(target, found.clone())),
            }
        }
        Ok(())
    }
}

fn clash(first: &Found, second: &Found, target: PathBuf) -> SidecarError {
    SidecarError::Clash {
        first: first.path.clone(),
        second: second.path.clone(),
        target,
    }
}

impl Sidecars {
    /// Whether no sidecars are wanted.
    pub fn is_empty(&self) -> bool {
        !self.txt && self.copies.is_none()
    }

    /// The paths of the sidecars of a picture.
    pub fn targets(&self, found: &Found) -> impl Iterator<Item = PathBuf> {
        self.text(found).into_iter().chain(self.copy(found))
    }

    fn text(&self, found: &Found) -> Option<PathBuf> {
        self.txt.then(|| found.path.with_extension("txt"))
    }

    fn copy(&self, found: &Found) -> Option<PathBuf> {
        self.copies.as_ref().map(|dir| dir.join(&found.name))
    }

    /// The first existing sidecar that differs from what was written: a text other than `caption`, or a copy with
    /// another BLAKE3 than `copy_hash`. A file that cannot be read counts as edited.
    pub fn edited(
        &self,
        found: &Found,
        caption: Option<&str>,
        copy_hash: Option<&str>,
    ) -> Option<PathBuf> {
        let plain = |text: &str| text.replace("\r\n", "\n").trim().to_owned();
        let is_text = |path: &PathBuf| {
            let text = fs::read(path).ok();
            let text = text.map(|text| plain(&String::from_utf8_lossy(&text)));
            text.is_some() && text == caption.map(plain)
        };
        let is_copy = |path: &PathBuf| {
            let hash = fs::read(path).ok().map(|copy| hash_of(&copy));
            hash.is_some() && hash.as_deref() == copy_hash
        };
        let text = self
            .text(found)
            .filter(|path| path.exists() && !is_text(path));
        text.or_else(|| {
            self.copy(found)
                .filter(|path| path.exists() && !is_copy(path))
        })
    }

    /// Checks the length of the name of the text file: `.txt` may be longer than the extension it replaces.
    ///
    /// # Errors
    /// If the name is too long.
    pub fn check_name(&self, found: &Found) -> Result<(), SidecarError> {
        let text = self.text(found);
        let len = text
            .as_ref()
            .and_then(|text| text.file_name())
            .map_or(0, OsStr::len);
        if len > MAX_NAME_BYTES {
            return Err(SidecarError::LongName { found: len });
        }
        Ok(())
    }

    /// Removes from `pictures` those whose sidecars cannot be made: pictures that share a sidecar, and those that
    /// a sidecar would replace.
    pub fn refuse(&self, pictures: &mut Vec<Found>) -> Vec<Refused> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut owners: HashMap<PathBuf, Vec<usize>> = HashMap::new();
        for (i, found) in pictures.iter().enumerate() {
            for target in self.targets(found) {
                owners.entry(target).or_default().push(i);
            }
        }
        let find_error = |found: &Found| {
            self.targets(found).find_map(|target| {
                if is_same_file(&target, &found.path) {
                    let path = found.path.clone();
                    return Some(SidecarError::Itself { path });
                }
                let [first, second, ..] = owners[&target][..] else {
                    return None;
                };
                let is_first = pictures[first].path == found.path;
                let (a, b) = if is_first {
                    (found, &pictures[second])
                } else {
                    (&pictures[first], found)
                };
                Some(clash(a, b, target))
            })
        };
        let errors: Vec<_> = pictures.iter().map(find_error).collect();
        let mut refused = Vec::new();
        for (found, error) in std::mem::take(pictures).into_iter().zip(errors) {
            match error {
                Some(error) => refused.push(Refused { found, error }),
                None => pictures.push(found),
            }
        }
        refused
    }

    /// Checks in advance that the sidecars of these pictures can be written.
    ///
    /// # Errors
    /// If a folder is not writable. No files are left behind.
    pub fn probe(&self, pictures: &[Found]) -> Result<(), SidecarError> {
        let targets = pictures.iter().flat_map(|found| self.targets(found));
        let dirs: HashSet<PathBuf> = targets
            .filter_map(|target| target.parent().map(Path::to_owned))
            .collect();
        for path in dirs {
            // Missing folders will be created in the nearest existing one.
            let existing = path.ancestors().find(|dir| dir.exists());
            let existing = existing.unwrap_or(Path::new("."));
            atomic_file::check(&existing.join("caption"))
                .map_err(|source| SidecarError::Write { path, source })?;
        }
        Ok(())
    }

    /// Makes the sidecars of a picture in memory: all of them, or only those that are missing.
    pub fn prepare(&self, found: &Found, caption: &str, missing_only: bool) -> Prepared {
        let is_due = |target: &PathBuf| !missing_only || !target.exists();
        let text = self.text(found).filter(is_due);
        let copy = self.copy(found).filter(is_due);
        Prepared {
            text: text.map(|target| (target, format!("{caption}\n"))),
            copy: copy.map(|target| Ok((target, self.with_caption(&found.path, caption)?))),
        }
    }

    /// The bytes of a picture with its caption embedded.
    fn with_caption(&self, picture: &Path, caption: &str) -> Result<Bytes, SidecarError> {
        let path = || picture.to_owned();
        let file = fs::read(picture).map_err(|source| SidecarError::Read {
            path: path(),
            source,
        })?;
        let copy = catch(|| embed(&Bytes::from(file), caption, self.exif));
        let copy = copy.map_err(|source| SidecarError::Panic {
            path: path(),
            source,
        })?;
        copy.map_err(|source| SidecarError::Embed {
            path: path(),
            source,
        })
    }
}

/// Sidecars ready to be written.
#[derive(Debug)]
pub struct Prepared {
    text: Option<(PathBuf, String)>,
    copy: Option<Result<(PathBuf, Bytes), SidecarError>>,
}

impl Prepared {
    /// BLAKE3 of the copy in hexadecimal, if there is one. It shows later whether a user edited the copy.
    pub fn copy_hash(&self) -> Option<String> {
        let (_, bytes) = self.copy.as_ref()?.as_ref().ok()?;
        Some(hash_of(bytes))
    }

    /// Writes the sidecars.
    ///
    /// # Errors
    /// If one cannot be made or written. A text file written before stays.
    pub fn write(self) -> Result<(), SidecarError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SidecarError::Write { path, source }
        };
        if let Some((path, text)) = self.text {
            atomic_file::write(&path, text.as_bytes()).map_err(failed(&path))?;
        }
        if let Some(copy) = self.copy {
            let (path, bytes) = copy?;
            let made = path.parent().map_or(Ok(()), fs::create_dir_all);
            made.and_then(|()| atomic_file::write(&path, &bytes))
                .map_err(failed(&path))?;
        }
        Ok(())
    }
}

fn hash_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHOTO: &[u8] = include_bytes!("../../../tests/reference/images/photo.jpg");

    fn found(dir: &Path, name: &str) -> Found {
        Found {
            path: dir.join(name),
            name: name.into(),
        }
    }

    #[test]
    fn a_caption_is_written_to_a_text_file_and_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let picture = found(dir.path(), "sub/a.jpg");
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(&picture.path, PHOTO).unwrap();
        let sidecars = Sidecars {
            txt: true,
            copies: Some(dir.path().join("out")),
            ..Sidecars::default()
        };
        assert!(sidecars.refuse(&mut vec![picture.clone()]).is_empty());
        let prepared = sidecars.prepare(&picture, "a cat", false);
        let hash = prepared.copy_hash().unwrap();
        prepared.write().unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("sub/a.txt")).unwrap(),
            "a cat\n"
        );
        let copy = fs::read(dir.path().join("out/sub/a.jpg")).unwrap();
        assert!(String::from_utf8_lossy(&copy).contains(">a cat<"));
        assert!(fs::read(&picture.path).unwrap() == PHOTO);

        fs::remove_file(dir.path().join("sub/a.txt")).unwrap();
        let prepared = sidecars.prepare(&picture, "a dog", true);
        assert_eq!(prepared.copy_hash(), None);
        prepared.write().unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("sub/a.txt")).unwrap(),
            "a dog\n"
        );
        assert!(fs::read(dir.path().join("out/sub/a.jpg")).unwrap() == copy);

        let edited = |caption, hash| sidecars.edited(&picture, caption, hash);
        assert_eq!(edited(Some("a dog"), Some(&hash)), None);
        let (text, copy) = (
            dir.path().join("sub/a.txt"),
            dir.path().join("out/sub/a.jpg"),
        );
        assert_eq!(edited(Some("a cat"), Some(&hash)), Some(text.clone()));
        assert_eq!(edited(None, Some(&hash)), Some(text));
        assert_eq!(edited(Some("a dog"), None), Some(copy.clone()));
        fs::write(&copy, [PHOTO, b"rated"].concat()).unwrap();
        assert_eq!(edited(Some("a dog"), Some(&hash)), Some(copy));
    }

    #[test]
    fn only_pictures_that_share_a_text_file_are_refused() {
        let dir = Path::new("d");
        let sidecars = Sidecars {
            txt: true,
            ..Sidecars::default()
        };
        let names = [
            "0.jpg", "a.JPG", "a.jpeg", "b.gif", "b.png", "b.webp", "c.jpg", "C.png",
        ];
        let mut pictures: Vec<_> = names.map(|name| found(dir, name)).into();
        let refused = sidecars.refuse(&mut pictures);
        let left: Vec<_> = pictures
            .iter()
            .map(|found| found.name.to_str().unwrap())
            .collect();
        assert_eq!(left, ["0.jpg", "c.jpg", "C.png"]);
        let messages: Vec<_> = refused
            .iter()
            .map(|refused| refused.error.to_string())
            .collect();
        let both = "`d/a.JPG` and `d/a.jpeg` would share the sidecar `d/a.txt`";
        assert_eq!(messages[..2], [both, both]);
        assert!(
            messages[4].starts_with("`d/b.gif` and `d/b.webp`"),
            "{}",
            messages[4]
        );
        assert_eq!(messages.len(), 5);
    }

    #[test]
    fn copies_of_the_same_name_from_several_folders_are_refused() {
        let sidecars = Sidecars {
            copies: Some("out".into()),
            ..Sidecars::default()
        };
        let at = |path: &str, name: &str| Found {
            path: path.into(),
            name: name.into(),
        };
        let mut pictures = vec![
            at("a/1.jpg", "1.jpg"),
            at("b/1.jpg", "1.jpg"),
            at("b/2.jpg", "2.jpg"),
        ];
        let refused = sidecars.refuse(&mut pictures);
        assert_eq!((refused.len(), pictures), (2, vec![at("b/2.jpg", "2.jpg")]));
    }

    #[test]
    fn the_first_picture_owns_the_name_while_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        let sidecars = Sidecars {
            txt: true,
            ..Sidecars::default()
        };
        let mut claims = Claims::default();
        let (first, second) = (found(dir.path(), "a.jpg"), found(dir.path(), "a.png"));
        fs::write(&first.path, "").unwrap();
        claims.claim(&sidecars, &first).unwrap();
        claims.claim(&sidecars, &first).unwrap();
        let error = claims.claim(&sidecars, &second).unwrap_err();
        assert!(matches!(error, SidecarError::Clash { .. }));
        fs::remove_file(&first.path).unwrap();
        claims.claim(&sidecars, &second).unwrap();
    }

    #[test]
    fn unwritable_folders_are_detected_and_others_left_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let into = |copies| Sidecars {
            copies: Some(copies),
            ..Sidecars::default()
        };
        let pictures = [found(dir.path(), "sub/a.jpg")];
        into(dir.path().join("new")).probe(&pictures).unwrap();
        let error = into(file.join("below")).probe(&pictures).unwrap_err();
        assert!(error.to_string().contains("file/below/sub"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_picture_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.jpg"), PHOTO).unwrap();
        let sidecars = Sidecars {
            copies: Some(dir.path().join(".")),
            ..Sidecars::default()
        };
        let refused = sidecars.refuse(&mut vec![found(dir.path(), "a.jpg")]);
        assert!(matches!(refused[0].error, SidecarError::Itself { .. }));
    }
}
