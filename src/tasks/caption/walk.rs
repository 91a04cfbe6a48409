//! Walks a folder for pictures.

use std::{
    io,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use super::{
    SourceError,
    selection::{FolderFilter, Kind, SkippedFiles},
};

/// An item of a walk.
#[derive(Debug)]
pub enum Step {
    /// A folder, before its contents.
    Folder(PathBuf),
    /// A picture.
    Picture(PathBuf),
    /// A picture that is not supported or a broken link, and why.
    Skipped(PathBuf, &'static str),
    /// A folder that cannot be read, in whole or in part. Its contents are unknown.
    Unreadable(SourceError),
}

/// Walks `from`, the root of `filter` or a folder below it, sorted by name and following links.
pub fn walk<'a>(filter: &'a FolderFilter<'_>, from: &'a Path) -> impl Iterator<Item = Step> + 'a {
    let entries = WalkDir::new(from)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(move |entry| {
            entry.depth() == 0 || !filter.skips(entry.path(), entry.file_type().is_dir())
        });
    entries.filter_map(move |entry| match entry {
        Ok(entry) if entry.file_type().is_dir() => Some(Step::Folder(entry.into_path())),
        Ok(entry) if entry.file_type().is_file() => match Kind::of(entry.path()) {
            Kind::Picture => Some(Step::Picture(entry.into_path())),
            Kind::Unsupported(format) => Some(Step::Skipped(entry.into_path(), format)),
            Kind::Other => None,
        },
        Ok(_) => None,
        Err(error) => failed(filter, from, error),
    })
}

/// The item for an entry that cannot be read, if any.
fn failed(filter: &FolderFilter<'_>, from: &Path, error: walkdir::Error) -> Option<Step> {
    // A link to a folder above: its contents are walked anyway.
    error.loop_ancestor().is_none().then_some(())?;
    let path = error.path().unwrap_or(from).to_owned();
    let source = error
        .into_io_error()
        .unwrap_or_else(|| io::ErrorKind::Other.into());
    unreadable(filter, path, source)
}

fn unreadable(filter: &FolderFilter<'_>, path: PathBuf, source: io::Error) -> Option<Step> {
    if path.is_symlink() {
        if filter.skips(&path, false) {
            return None;
        }
        match Kind::of(&path) {
            Kind::Other if path.extension().is_some() => return None, // not a picture in any case
            Kind::Other => {}                                         // perhaps a folder
            Kind::Picture | Kind::Unsupported(_) => {
                return Some(Step::Skipped(path, SkippedFiles::BROKEN_LINK));
            }
        }
    }
    Some(Step::Unreadable(SourceError::Io { path, source }))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::tasks::caption::Selection;

    /// The items of a walk of `dir`, abbreviated.
    fn steps(dir: &Path) -> Vec<String> {
        let selection = Selection::default();
        let name = |path: &Path| path.strip_prefix(dir).unwrap().display().to_string();
        let describe = |step| match step {
            Step::Folder(path) => format!("{}/", name(&path)),
            Step::Picture(path) => name(&path),
            Step::Skipped(path, why) => format!("{} ({why})", name(&path)),
            Step::Unreadable(SourceError::Io { path, .. }) => format!("{} ?", name(&path)),
            Step::Unreadable(error) => panic!("{error}"),
        };
        walk(&selection.for_folder(dir), dir)
            .map(describe)
            .collect()
    }

    #[test]
    fn links_are_followed_and_broken_ones_reported() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("a");
        fs::create_dir(&sub).unwrap();
        fs::write(sub.join("b.png"), "").unwrap();
        fs::write(sub.join("c.HEIC"), "").unwrap();
        for (target, link) in [
            ("..", "a/up"),
            ("a", "d"),
            ("gone.png", "lost.png"),
            ("gone.txt", "lost.txt"),
            ("gone", "unmounted"),
            ("self", "self"),
            ("gone.png", ".#lock.png"),
        ] {
            symlink(target, dir.path().join(link)).unwrap();
        }
        assert_eq!(
            steps(dir.path()),
            [
                "/",
                "a/",
                "a/b.png",
                "a/c.HEIC (HEIC)",
                "d/",
                "d/b.png",
                "d/c.HEIC (HEIC)",
                "lost.png (broken link)",
                "self ?",
                "unmounted ?",
            ]
        );
    }

    #[test]
    fn an_unreadable_folder_is_reported_for_any_reason() {
        let selection = Selection::default();
        let filter = selection.for_folder(Path::new("photos"));
        for kind in [
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::NotFound,
            io::ErrorKind::Other,
        ] {
            let path = Path::new("photos/lost+found").to_owned();
            let Some(Step::Unreadable(error)) = unreadable(&filter, path, kind.into()) else {
                panic!("{kind}");
            };
            assert_eq!(error.to_string(), "photos/lost+found");
        }
    }

    #[test]
    fn a_path_longer_than_the_system_allows_ends_the_descent() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("z.png"), "").unwrap();
        // Each half is short enough, but not both together.
        let half = [&*"d".repeat(200); 12].join("/");
        for top in ["a", "b"] {
            fs::create_dir_all(dir.path().join(top).join(&half)).unwrap();
        }
        let end = dir.path().join("a").join(&half).join("b");
        fs::rename(dir.path().join("b"), end).unwrap();
        let steps = steps(dir.path());
        assert!(steps.iter().any(|step| step.ends_with(" ?")), "{steps:?}");
        assert_eq!(steps.last().unwrap(), "z.png");
        // `remove_dir_all` goes by file descriptors, so the folder can be removed.
        dir.close().unwrap();
    }
}
