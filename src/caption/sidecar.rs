//! Files that go with a picture: its caption as text, a copy that carries it.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{EmbedError, ExifRule, Found, embed};
use crate::{
    panics::{Panic, caught},
    whole_file,
};

/// The most that file systems take.
pub(super) const MAX_NAME_BYTES: usize = 255;

/// Which files are made of a caption.
#[derive(Clone, Debug, Default)]
pub struct Sidecars {
    /// `photo.txt` beside `photo.jpg`.
    pub txt: bool,
    /// The folder of copies that carry the caption; below it they are called as they were.
    pub copies: Option<PathBuf>,
    /// When the copies carry it in EXIF as well.
    pub exif: ExifRule,
}

/// A sidecar cannot be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SidecarError {
    #[error("{}: cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: cannot be copied", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: cannot carry its caption", path.display())]
    Embed { path: PathBuf, source: EmbedError },
    #[error(
        "the name of its text file would have {found} bytes, expected at most {MAX_NAME_BYTES}; \
         rename the picture"
    )]
    LongName { found: usize },
    /// A mistake in this program.
    #[error("{}: cannot carry its caption", path.display())]
    Panic { path: PathBuf, source: Panic },
    #[error(
        "`{}` and `{}` would both be described by `{}`",
        first.display(), second.display(), target.display()
    )]
    Clash {
        first: PathBuf,
        second: PathBuf,
        target: PathBuf,
    },
    #[error("what is made for `{}` would replace the file itself", path.display())]
    Itself { path: PathBuf },
}

impl Sidecars {
    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        !self.txt && self.copies.is_none()
    }

    /// Where the files of a picture stand.
    pub fn targets(&self, found: &Found) -> impl Iterator<Item = PathBuf> {
        self.text(found).into_iter().chain(self.copy(found))
    }

    fn text(&self, found: &Found) -> Option<PathBuf> {
        self.txt.then(|| found.path.with_extension("txt"))
    }

    fn copy(&self, found: &Found) -> Option<PathBuf> {
        self.copies.as_ref().map(|dir| dir.join(&found.name))
    }

    /// Whether the text of a picture can be called after it: `.txt` may be longer than what it replaces.
    ///
    /// # Errors
    /// If its name is too long.
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

    /// Refuses pictures of which two would have the same file, or one would be replaced.
    ///
    /// # Errors
    /// If there are such.
    pub fn check(&self, pictures: &[Found]) -> Result<(), SidecarError> {
        let mut owners: HashMap<PathBuf, &Found> = HashMap::new();
        for found in pictures {
            for target in self.targets(found) {
                if is_same_file(&target, &found.path) {
                    let path = found.path.clone();
                    return Err(SidecarError::Itself { path });
                }
                if let Some(first) = owners.insert(target.clone(), found) {
                    return Err(SidecarError::Clash {
                        first: first.path.clone(),
                        second: found.path.clone(),
                        target,
                    });
                }
            }
        }
        Ok(())
    }

    /// Finds out whether the files of these pictures can be written, before there is anything to write.
    ///
    /// # Errors
    /// If a folder does not take them; nothing is left in any.
    pub fn probe(&self, pictures: &[Found]) -> Result<(), SidecarError> {
        let targets = pictures.iter().flat_map(|found| self.targets(found));
        let dirs: HashSet<PathBuf> = targets
            .filter_map(|target| target.parent().map(Path::to_owned))
            .collect();
        for path in dirs {
            // What is missing will be made; what can take it is the nearest folder that is there.
            let there = path.ancestors().find(|dir| dir.exists());
            let there = there.unwrap_or(Path::new("."));
            whole_file::check(&there.join("caption"))
                .map_err(|source| SidecarError::Write { path, source })?;
        }
        Ok(())
    }

    /// Makes the files of a picture: all of them, or those that are missing.
    ///
    /// # Errors
    /// If one cannot be made. The others are made before.
    pub fn write(
        &self,
        found: &Found,
        caption: &str,
        missing_only: bool,
    ) -> Result<(), SidecarError> {
        let is_due = |target: &PathBuf| !missing_only || !target.exists();
        if let Some(path) = self.text(found).filter(is_due) {
            let text = format!("{caption}\n");
            whole_file::write(&path, text.as_bytes())
                .map_err(|source| SidecarError::Write { path, source })?;
        }
        if let Some(path) = self.copy(found).filter(is_due) {
            self.write_copy(&found.path, &path, caption)?;
        }
        Ok(())
    }

    fn write_copy(&self, picture: &Path, target: &Path, caption: &str) -> Result<(), SidecarError> {
        let file = fs::read(picture).map_err(|source| SidecarError::Read {
            path: picture.to_owned(),
            source,
        })?;
        let copy = caught(|| embed(&Bytes::from(file), caption, self.exif)).map_err(|source| {
            SidecarError::Panic {
                path: picture.to_owned(),
                source,
            }
        })?;
        let copy = copy.map_err(|source| SidecarError::Embed {
            path: picture.to_owned(),
            source,
        })?;
        let made = target.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| whole_file::write(target, &copy))
            .map_err(|source| SidecarError::Write {
                path: target.to_owned(),
                source,
            })
    }
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHOTO: &[u8] = include_bytes!("../../tests/reference/images/photo.jpg");

    fn found(dir: &Path, name: &str) -> Found {
        Found {
            path: dir.join(name),
            name: name.into(),
        }
    }

    #[test]
    fn a_caption_goes_beside_the_picture_and_into_a_copy_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let picture = found(dir.path(), "sub/a.jpg");
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(&picture.path, PHOTO).unwrap();
        let sidecars = Sidecars {
            txt: true,
            copies: Some(dir.path().join("out")),
            ..Sidecars::default()
        };
        sidecars.check(std::slice::from_ref(&picture)).unwrap();
        sidecars.write(&picture, "a cat", false).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("sub/a.txt")).unwrap(),
            "a cat\n"
        );
        let copy = fs::read(dir.path().join("out/sub/a.jpg")).unwrap();
        assert!(String::from_utf8_lossy(&copy).contains(">a cat<"));
        assert!(fs::read(&picture.path).unwrap() == PHOTO);

        fs::remove_file(dir.path().join("sub/a.txt")).unwrap();
        sidecars.write(&picture, "a dog", true).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("sub/a.txt")).unwrap(),
            "a dog\n"
        );
        assert!(fs::read(dir.path().join("out/sub/a.jpg")).unwrap() == copy);
    }

    #[test]
    fn two_pictures_with_one_text_are_refused() {
        let dir = Path::new("d");
        let sidecars = Sidecars {
            txt: true,
            ..Sidecars::default()
        };
        let error = sidecars
            .check(&[found(dir, "a.jpg"), found(dir, "a.png")])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`d/a.jpg` and `d/a.png` would both be described by `d/a.txt`"
        );
        sidecars
            .check(&[found(dir, "a.jpg"), found(dir, "b.jpg")])
            .unwrap();
    }

    #[test]
    fn folders_that_take_no_files_are_found_out_and_others_left_as_they_are() {
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
        let error = sidecars.check(&[found(dir.path(), "a.jpg")]).unwrap_err();
        assert!(matches!(error, SidecarError::Itself { .. }));
    }
}
