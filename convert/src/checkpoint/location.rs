//! Finds a checkpoint's files and the model's name.
//!
//! The Hugging Face cache stores a repository as `models--ORG--NAME`, with the commit of each branch in
//! `refs/BRANCH` and the files of each commit in `snapshots/COMMIT`.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use super::CheckpointError;

/// Prefix of a repository's folder in the Hugging Face cache.
const HUB_PREFIX: &str = "models--";
/// Folder of a repository's commits in the Hugging Face cache.
const SNAPSHOTS: &str = "snapshots";

/// The folder with a checkpoint's files.
#[derive(Debug)]
pub(super) struct Location {
    /// Contains the files themselves.
    pub dir: PathBuf,
    /// The model's name.
    pub name: String,
}

impl Location {
    /// Resolves the path given by the user.
    ///
    /// # Errors
    /// If it is not a folder, or a folder of the Hugging Face cache without a definite snapshot.
    pub fn find(path: &Path) -> Result<Self, CheckpointError> {
        let found = match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => None,
            Ok(_) => Some("a file"),
            Err(_) => Some("nothing"),
        };
        if let Some(found) = found {
            let path = path.to_owned();
            return Err(CheckpointError::NotADirectory { path, found });
        }
        let dir = match hub_repository(path) {
            Some(repository) => snapshot(&repository)?,
            None => path.to_owned(),
        };
        let name = model_name(&dir, path);
        Ok(Self { dir, name })
    }
}

/// The repository in the Hugging Face cache, if `path` is its folder or the folder of its snapshots. A single
/// snapshot is an ordinary checkpoint.
fn hub_repository(path: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(path).ok()?;
    if real.join("config.json").exists() {
        return None;
    }
    let is_repository = |dir: &Path| {
        let has_prefix = file_name(dir).is_some_and(|n| n.starts_with(HUB_PREFIX));
        dir.join(SNAPSHOTS).is_dir() && (has_prefix || dir.join("refs").is_dir())
    };
    let of_snapshots = real.parent().filter(|_| real.ends_with(SNAPSHOTS));
    let mut candidates = [Some(&*real), of_snapshots].into_iter().flatten();
    candidates
        .find(|dir| is_repository(dir))
        .map(Path::to_owned)
}

/// The snapshot named in `refs/main`; without `refs/main`, the only one.
fn snapshot(repository: &Path) -> Result<PathBuf, CheckpointError> {
    let snapshots = repository.join(SNAPSHOTS);
    let mut found: Vec<String> = fs::read_dir(&snapshots)
        .map_err(CheckpointError::io(&snapshots))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .filter_map(|path| file_name(&path))
        .collect();
    found.sort();
    let main = fs::read_to_string(repository.join("refs/main")).ok();
    let main = main
        .as_deref()
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let wanted = match main {
        Some(main) if found.iter().any(|name| name == main) => return Ok(snapshots.join(main)),
        Some(main) => format!("snapshot `{main}`, which `refs/main` names"),
        None => match &found[..] {
            [only] => return Ok(snapshots.join(only)),
            _ => "`refs/main`, or a single snapshot".to_owned(),
        },
    };
    let quoted: Vec<String> = found.iter().map(|name| format!("`{name}`")).collect();
    Err(CheckpointError::NoSnapshot {
        path: repository.to_owned(),
        wanted,
        found: match &quoted[..] {
            [] => "no snapshots".to_owned(),
            names => format!("snapshots {}", names.join(", ")),
        },
    })
}

/// The name of the model in `dir`, given by the user as `given`: that of its repository in the Hugging Face
/// cache, or the first of these that is not a commit hash: the folder's name, the given name, the names of the
/// parent folders.
fn model_name(dir: &Path, given: &Path) -> String {
    let real = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let of_hub = |dir: &Path| {
        let name = file_name(dir)?;
        let repository = name.strip_prefix(HUB_PREFIX)?;
        let name = repository.rsplit("--").next()?;
        (!name.is_empty()).then(|| name.to_owned())
    };
    // The repository's folder is `dir` itself or its grandparent: `snapshots/COMMIT`.
    if let Some(name) = real.ancestors().take(3).find_map(of_hub) {
        return name;
    }
    let mut candidates = real.ancestors().filter_map(file_name);
    let own = candidates.next();
    let mut names = own
        .into_iter()
        .chain(last_component(given))
        .chain(candidates);
    names
        .find_map(|name| meaningful(&name))
        .unwrap_or_else(|| "model".to_owned())
}

/// A name without a commit hash at its end; `None` if it says nothing about the model.
fn meaningful(name: &str) -> Option<String> {
    let name = match name.rsplit_once(['-', '_', '@']) {
        Some((name, hash)) if hash.len() >= 40 && is_commit(hash) => name,
        _ => name,
    };
    let is_meaningless = name == SNAPSHOTS || is_commit(name);
    (!is_meaningless).then(|| name.to_owned())
}

/// Whether a name is a commit hash, in full or abbreviated.
fn is_commit(name: &str) -> bool {
    let is_hexadecimal = name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let has = |class: fn(&u8) -> bool| name.as_bytes().iter().any(class);
    let is_mixed = has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
    is_hexadecimal && (matches!(name.len(), 40 | 64) || (name.len() >= 7 && is_mixed))
}

fn file_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

/// The last component of a path as given, unless it is `.` or `..`.
fn last_component(path: &Path) -> Option<String> {
    match path.components().next_back()? {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "8f3c2d1b0a9e8f7d6c5b4a39281706f5e4d3c2b1";

    #[test]
    fn hashes_are_distinguished_from_names() {
        for hash in [HASH, &HASH[..7], &HASH[..12], &HASH.repeat(2)[..64]] {
            assert!(is_commit(hash), "{hash}");
        }
        for name in [
            "internlm-xcomposer2-vl-7b",
            "20240131",
            "deadbeef",
            "7b",
            "facade",
        ] {
            assert!(!is_commit(name), "{name}");
        }
        assert_eq!(
            meaningful(&format!("vl-7b-{HASH}")).as_deref(),
            Some("vl-7b")
        );
        assert_eq!(meaningful("tiny-vl").as_deref(), Some("tiny-vl"));
        assert_eq!(meaningful(HASH), None);
    }

    #[test]
    fn a_model_is_named_after_its_repository_its_folder_or_the_link_to_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = |path: &str| {
            let dir = root.path().join(path);
            fs::create_dir_all(&dir).unwrap();
            dir
        };
        let name = |path: &Path| model_name(path, path);
        let in_hub = dir(&format!("hub/models--internlm--vl-7b/snapshots/{HASH}"));
        assert_eq!(name(&in_hub), "vl-7b");
        assert_eq!(name(&in_hub.join("..").join(HASH).join("")), "vl-7b");
        assert_eq!(
            name(&dir(&format!("hub/models--vl-7b/snapshots/{HASH}"))),
            "vl-7b"
        );
        assert_eq!(name(&dir("plain/tiny-vl")), "tiny-vl");
        assert_eq!(name(&dir(&format!("plain/tiny/snapshots/{HASH}"))), "tiny");
        let hashed = dir(&format!("blobs/{HASH}"));
        assert_eq!(name(&hashed), "blobs");
        let link = root.path().join("my-model");
        std::os::unix::fs::symlink(&hashed, &link).unwrap();
        assert_eq!(name(&link), "my-model");
        assert_eq!(name(&link.join("")), "my-model");
    }
}
