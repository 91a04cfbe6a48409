//! Folders with several names, by links or because they are mounted twice.
//!
//! A picture in such a folder gets one record, whatever name an event has. The name with the fewest links counts,
//! and the alphabetically first of these, so that links made later change nothing.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::tasks::caption::walk::Step;

/// The identity of a folder: device and inode.
pub type FolderId = (u64, u64);

/// The identity of a folder, following links.
///
/// # Errors
/// If its metadata cannot be read.
pub fn folder_id(folder: &Path) -> io::Result<FolderId> {
    let meta = fs::metadata(folder)?;
    Ok((meta.dev(), meta.ino()))
}

/// The folders of a walk below `root`, sorted by the number of links.
pub fn by_links<'a>(root: &Path, steps: &'a [Step]) -> Vec<&'a Path> {
    let folders = steps.iter().filter_map(|step| match step {
        Step::Folder(path) => Some(path.as_path()),
        _ => None,
    });
    let mut folders: Vec<_> = folders.collect();
    folders.sort_by_cached_key(|folder| n_links(root, folder));
    folders
}

/// The folders of a walk below `root` that have another name with precedence.
pub fn duplicates(root: &Path, steps: &[Step]) -> HashSet<PathBuf> {
    let mut seen = HashSet::new();
    let mut is_duplicate = |folder: &&Path| folder_id(folder).is_ok_and(|id| !seen.insert(id));
    let folders = by_links(root, steps).into_iter();
    folders
        .filter(|folder| is_duplicate(folder))
        .map(Path::to_owned)
        .collect()
}

/// The number of links between `root` and a folder, including the folder.
pub fn n_links(root: &Path, folder: &Path) -> usize {
    let below = folder.ancestors().take_while(|path| *path != root);
    below.filter(|path| path.is_symlink()).count()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::tasks::caption::{Selection, walk::walk};

    #[test]
    fn the_first_name_with_the_fewest_links_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("m/sub")).unwrap();
        fs::create_dir(dir.path().join("elsewhere")).unwrap();
        for (target, link) in [
            ("m", "a"),
            ("m/sub", "z"),
            ("../elsewhere", "x"),
            ("../elsewhere", "b"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let selection = Selection::default();
        let steps: Vec<_> = walk(&selection.for_folder(&root), &root).collect();
        let duplicates = duplicates(&root, &steps);
        let mut names: Vec<_> = duplicates
            .iter()
            .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "a/sub", "x", "z"]);
    }
}
