//! A folder, walked: its pictures, and what it does not give.

use std::{
    io,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use super::{
    SourceError,
    selection::{Below, Kind, LeftOut},
};

/// What a walk comes to.
#[derive(Debug)]
pub enum Step {
    /// A folder, before what is in it.
    Folder(PathBuf),
    /// A picture.
    Picture(PathBuf),
    /// A picture that cannot be looked at, and why.
    LeftOut(PathBuf, &'static str),
    /// A folder that cannot be read, in whole or in part. What it holds is not known.
    Unreadable(SourceError),
}

/// Walks `from`, which is the folder that was given or one below it, by name, links followed.
pub fn walk<'a>(below: &'a Below<'_>, from: &'a Path) -> impl Iterator<Item = Step> + 'a {
    let entries = WalkDir::new(from)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(move |entry| {
            entry.depth() == 0 || !below.leaves_out(entry.path(), entry.file_type().is_dir())
        });
    entries.filter_map(move |entry| match entry {
        Ok(entry) if entry.file_type().is_dir() => Some(Step::Folder(entry.into_path())),
        Ok(entry) if entry.file_type().is_file() => match Kind::of(entry.path()) {
            Kind::Picture => Some(Step::Picture(entry.into_path())),
            Kind::NotRead(format) => Some(Step::LeftOut(entry.into_path(), format)),
            Kind::Other => None,
        },
        Ok(_) => None,
        Err(error) => failed(below, from, error),
    })
}

/// What to do about an entry that is not there for us.
fn failed(below: &Below<'_>, from: &Path, error: walkdir::Error) -> Option<Step> {
    // A link to a folder above it: what is there is walked anyway.
    error.loop_ancestor().is_none().then_some(())?;
    let path = error.path().unwrap_or(from).to_owned();
    let source = error
        .into_io_error()
        .unwrap_or_else(|| io::ErrorKind::Other.into());
    unreadable(below, path, source)
}

fn unreadable(below: &Below<'_>, path: PathBuf, source: io::Error) -> Option<Step> {
    if path.is_symlink() {
        if below.leaves_out(&path, false) {
            return None;
        }
        match Kind::of(&path) {
            Kind::Other if path.extension().is_some() => return None, // no picture in any case
            Kind::Other => {}                                         // perhaps a folder
            Kind::Picture | Kind::NotRead(_) => {
                return Some(Step::LeftOut(path, LeftOut::BROKEN_LINK));
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

    /// What a walk of `dir` gives, in short.
    fn steps(dir: &Path) -> Vec<String> {
        let selection = Selection::default();
        let name = |path: &Path| path.strip_prefix(dir).unwrap().display().to_string();
        let told = |step| match step {
            Step::Folder(path) => format!("{}/", name(&path)),
            Step::Picture(path) => name(&path),
            Step::LeftOut(path, why) => format!("{} ({why})", name(&path)),
            Step::Unreadable(SourceError::Io { path, .. }) => format!("{} ?", name(&path)),
            Step::Unreadable(error) => panic!("{error}"),
        };
        walk(&selection.below(dir), dir).map(told).collect()
    }

    #[test]
    fn links_are_followed_and_those_that_lead_nowhere_are_told() {
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
    fn a_folder_that_cannot_be_read_is_told_whatever_the_reason() {
        let selection = Selection::default();
        let below = selection.below(Path::new("photos"));
        for kind in [
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::NotFound,
            io::ErrorKind::Other,
        ] {
            let path = Path::new("photos/lost+found").to_owned();
            let Some(Step::Unreadable(error)) = unreadable(&below, path, kind.into()) else {
                panic!("{kind}");
            };
            assert_eq!(error.to_string(), "photos/lost+found");
        }
    }

    #[test]
    fn a_path_that_is_too_long_for_the_system_ends_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("z.png"), "").unwrap();
        // Each half is short enough, both together are not.
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
