//! Folders that are there under several names: by links, or mounted twice.
//!
//! A picture in such a folder is one picture, and gets one record, whichever name an event comes under. The
//! name with the fewest links in it counts, of equal ones the first by name: a link that is made later
//! changes nothing.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::tasks::caption::walk::Step;

/// What tells one folder from another of the same name: device and inode.
pub type Identity = (u64, u64);

/// The identity of a folder, through links.
///
/// # Errors
/// If there is none.
pub fn identity(folder: &Path) -> io::Result<Identity> {
    let meta = fs::metadata(folder)?;
    Ok((meta.dev(), meta.ino()))
}

/// The folders of a walk below `root`, those first whose names count.
pub fn in_order<'a>(root: &Path, steps: &'a [Step]) -> Vec<&'a Path> {
    let folders = steps.iter().filter_map(|step| match step {
        Step::Folder(path) => Some(path.as_path()),
        _ => None,
    });
    let mut folders: Vec<_> = folders.collect();
    folders.sort_by_cached_key(|folder| n_links(root, folder));
    folders
}

/// The folders of a walk below `root` that are there under another name that counts.
pub fn further(root: &Path, steps: &[Step]) -> HashSet<PathBuf> {
    let mut seen = HashSet::new();
    let mut is_further = |folder: &&Path| identity(folder).is_ok_and(|id| !seen.insert(id));
    let folders = in_order(root, steps).into_iter();
    folders
        .filter(|folder| is_further(folder))
        .map(Path::to_owned)
        .collect()
}

/// How many links lie between `root` and a folder, the folder included.
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
    fn the_name_with_the_fewest_links_counts_and_of_equal_ones_the_first() {
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
        let steps: Vec<_> = walk(&selection.below(&root), &root).collect();
        let further = further(&root, &steps);
        let mut names: Vec<_> = further
            .iter()
            .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "a/sub", "x", "z"]);
    }
}
