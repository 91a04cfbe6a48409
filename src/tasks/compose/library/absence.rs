//! Why a picture of the index cannot be used.

use std::{fmt, fs, io, path::Path};

/// Why a picture of the index cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absence {
    /// There is no file of this name.
    NotFound,
    /// Whether there is one is unknown, and why: for example no permission for its folder, or a disk or server
    /// that does not answer.
    Unreadable(String),
}

impl Absence {
    /// Why a search listed `file` as missing.
    pub fn of(file: &Path) -> Self {
        match fs::metadata(file) {
            Ok(_) => Self::NotFound, // a directory or a device, not a file
            Err(error) if is_not_found(error.kind()) => Self::NotFound,
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found; `xc2-edge index` removes its caption"),
            Self::Unreadable(why) => write!(f, "cannot be read: {why}; its caption is kept"),
        }
    }
}

/// Whether an error of this kind means that there is no such file. Any other leaves that open.
fn is_not_found(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_two_kinds_of_error_mean_not_found() {
        use io::ErrorKind::*;
        for kind in [NotFound, NotADirectory] {
            assert!(is_not_found(kind), "{kind}");
        }
        for kind in [
            PermissionDenied,
            StaleNetworkFileHandle,
            HostUnreachable,
            TimedOut,
            NetworkDown,
            NotConnected,
            InvalidFilename,
            Interrupted,
            Other,
        ] {
            assert!(!is_not_found(kind), "{kind}");
        }
    }

    #[test]
    fn absence_names_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| Absence::of(&dir.path().join(name));
        assert_eq!(of("a.png"), Absence::NotFound);
        fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(of("file/a.png"), Absence::NotFound);
        symlink("loop", dir.path().join("loop")).unwrap(); // fails for every user
        let message = of("loop/a.png").to_string();
        assert!(
            message.starts_with("cannot be read: ") && message.ends_with("its caption is kept"),
            "{message}"
        );
    }
}
