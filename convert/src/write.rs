//! Writes the model file under a temporary name next to its target, and renames it when it is complete.

use std::{
    fs::{self, File, Permissions},
    io::{self, Seek, SeekFrom, Write as _},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use tempfile::NamedTempFile;
use xc2_edge::model::{
    container::{CHECKSUM_LEN, Checksum, Container, ContainerError, Layout, Section},
    gguf::align,
};

use crate::{
    pipeline::{self, Chunk, PipelineError},
    plan::Plan,
};

/// Why no file was written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum WriteError {
    /// The file cannot be created, written or renamed.
    #[error("{path}: cannot be written")]
    Output { path: PathBuf, source: io::Error },
    /// The disk, or the quota, is full.
    #[error("{path}: no space left: {needed} bytes needed")]
    DiskFull {
        path: PathBuf,
        needed: u64,
        source: io::Error,
    },
    /// The target exists and is not a file.
    #[error("{path}: expected a file or nothing, found {found}")]
    NotAFile { path: PathBuf, found: &'static str },
    /// The directory of the target does not exist.
    #[error("{path}: cannot be written: there is no directory `{dir}`")]
    NoDirectory { path: PathBuf, dir: PathBuf },
    /// The target is one of the input files.
    #[error("{path}: cannot be written: it is the same file as the input `{input}`")]
    IsInput { path: PathBuf, input: PathBuf },
    /// The runtime cannot open the file that was made.
    #[error("{path}: not written, because the runtime would refuse it")]
    Refused {
        path: PathBuf,
        source: ContainerError,
    },
    /// The tensors could not be converted.
    #[error(transparent)]
    Data(PipelineError),
}

impl WriteError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::DiskFull { .. } => {
                "free some space, choose another place, or a smaller preset such as --q4_k"
            }
            Self::Data(PipelineError::Read(e)) => return e.hint(),
            Self::Data(PipelineError::NonFinite { .. }) => {
                "the checkpoint is damaged, or its training failed; it cannot be converted"
            }
            Self::Data(PipelineError::OutOfRange { .. }) => {
                "store it as bf16 or f32, see --tensor-type"
            }
            Self::Refused { .. } => {
                "the checkpoint is unusual in a way that was not detected earlier; please report it with its \
                 name"
            }
            Self::NoDirectory { .. } => "create that directory first, or correct the path",
            Self::NotAFile { .. } | Self::IsInput { .. } => "choose another file name",
            Self::Output { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "the file is first written to the same directory under a temporary name; choose a directory \
                 that you can write to"
            }
            _ => return None,
        })
    }

    /// For `map_err` on writing `path`, which will have `needed` bytes.
    pub(crate) fn output(path: &Path, needed: u64) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| {
            let path = path.clone();
            match source.kind() {
                io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::FileTooLarge => Self::DiskFull {
                    path,
                    needed,
                    source,
                },
                _ => Self::Output { path, source },
            }
        }
    }
}

/// A file under a temporary name next to its target. Dropping it removes the file.
pub(crate) struct PendingFile {
    temp: NamedTempFile,
    target: PathBuf,
}

impl PendingFile {
    /// Creates the temporary file. If `target` is a link to a file, the linked file will be replaced.
    pub(crate) fn create(target: &Path) -> Result<Self, WriteError> {
        let real = real_target(target)?;
        let path = || target.to_owned();
        let dir = parent(&real);
        if !dir.is_dir() {
            let dir = dir.to_owned();
            return Err(WriteError::NoDirectory { path: path(), dir });
        }
        let temp = tempfile::Builder::new()
            .prefix(".xc2-convert-") // without the target's name, which may have the maximum length
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666)) // minus the umask, as for any new file
            .tempfile_in(dir);
        // The crate's errors name the temporary file, which means nothing to the user.
        let temp = temp.map_err(|e| WriteError::output(target, 0)(e.kind().into()))?;
        Ok(Self { temp, target: real })
    }

    pub(crate) fn file(&mut self) -> &mut File {
        self.temp.as_file_mut()
    }

    /// Allocates the space, so that a full disk is detected before the work.
    fn reserve(&mut self, n_bytes: u64) -> io::Result<()> {
        use rustix::{fs::FallocateFlags, io::Errno};
        match rustix::fs::fallocate(self.temp.as_file(), FallocateFlags::empty(), 0, n_bytes) {
            Err(e @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(e.into()),
            _ => Ok(()), // not supported by every file system: a full disk is detected later there
        }
    }

    /// Checks that the runtime can open the complete file.
    fn check(&self, target: &Path) -> Result<(), WriteError> {
        let opened = Container::open(self.temp.path());
        opened.map(drop).map_err(|source| WriteError::Refused {
            path: target.to_owned(),
            source,
        })
    }

    /// Syncs the file and renames it to its target, replacing an existing file.
    pub(crate) fn commit(self) -> io::Result<()> {
        self.temp.as_file().sync_all()?;
        self.temp.persist(&self.target).map_err(|e| e.error)?;
        File::open(parent(&self.target))?.sync_all()
    }
}

/// The path of `target` with links resolved, if it is a file or does not exist.
fn real_target(target: &Path) -> Result<PathBuf, WriteError> {
    let refuse = |found| {
        let path = target.to_owned();
        Err(WriteError::NotAFile { path, found })
    };
    let kind = match fs::metadata(target) {
        Ok(meta) => meta.file_type(),
        Err(_) if target.is_symlink() => return refuse("a broken link"),
        Err(_) if target.file_name().is_none() => return refuse("no file name"),
        Err(_) => return Ok(target.to_owned()),
    };
    if kind.is_file() {
        return fs::canonicalize(target).map_err(WriteError::output(target, 0));
    }
    refuse(match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        kind if kind.is_fifo() => "a pipe",
        _ => "something else",
    })
}

/// Checks before any work whether a file can be written to `target`; leaves nothing behind.
///
/// # Errors
/// If the directory does not exist or is not writable, or `target` is not a regular file.
pub fn check_target(target: &Path) -> Result<(), WriteError> {
    PendingFile::create(target).map(drop)
}

/// Refuses a target that is the same file as one of the inputs, under any name.
pub(crate) fn refuse_inputs(target: &Path, inputs: &[PathBuf]) -> Result<(), WriteError> {
    let id = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let Some(target_id) = id(target) else {
        return Ok(()); // does not exist
    };
    match inputs.iter().find(|input| id(input) == Some(target_id)) {
        Some(input) => Err(WriteError::IsInput {
            path: target.to_owned(),
            input: input.clone(),
        }),
        None => Ok(()),
    }
}

/// The input files of a plan.
fn inputs(plan: &Plan) -> Vec<PathBuf> {
    let mut inputs: Vec<PathBuf> = plan
        .writes
        .iter()
        .map(|w| w.source.shard().path.clone())
        .collect();
    inputs.sort_unstable();
    inputs.dedup();
    let dir = inputs
        .first()
        .map(|shard| parent(shard).to_owned())
        .unwrap_or_default();
    inputs.extend(["config.json", "tokenizer.model"].map(|name| dir.join(name)));
    inputs
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Executes a plan. `progress` gets the number of checkpoint bytes of each finished piece; `cancel` stops the
/// work and leaves nothing behind.
///
/// # Errors
/// If reading, converting or writing fails. The target is unchanged then.
pub fn convert(
    plan: &Plan,
    target: &Path,
    n_workers: usize,
    cancel: &AtomicBool,
    mut progress: impl FnMut(u64),
) -> Result<u64, WriteError> {
    let zeros = "0".repeat(CHECKSUM_LEN);
    let header = plan.layout.encode_header(&zeros);
    let n_bytes = (header.len() + plan.layout.data_bytes()) as u64;
    let failed = WriteError::output(target, n_bytes);
    refuse_inputs(target, &inputs(plan))?;
    let mut pending = PendingFile::create(target)?;
    pending.reserve(n_bytes).map_err(&failed)?;
    pending.file().write_all(&header).map_err(&failed)?;
    let mut data = DataSection::new(pending.file(), &plan.layout);
    let written = pipeline::run(&plan.writes, n_workers, cancel, |chunk| {
        data.put(&chunk)?;
        progress(chunk.n_source_bytes);
        Ok(())
    });
    written.map_err(|e| match e {
        PipelineError::Write(e) => failed(e),
        other => WriteError::Data(other),
    })?;
    let checksum = data.finish();
    let file = pending.file();
    let rewrite = file.seek(SeekFrom::Start(0));
    rewrite
        .and_then(|_| file.write_all(&plan.layout.encode_header(&checksum)))
        .map_err(&failed)?;
    pending.check(target)?;
    pending.commit().map_err(&failed)?;
    Ok(n_bytes)
}

/// Writes the data section and computes its checksum.
struct DataSection<'a> {
    file: &'a mut File,
    sections: Box<dyn Iterator<Item = Section<'a>> + 'a>,
    checksum: Checksum,
    /// Bytes written of the current tensor.
    n_tensor: usize,
}

impl<'a> DataSection<'a> {
    fn new(file: &'a mut File, layout: &'a Layout) -> Self {
        Self {
            file,
            sections: Box::new(layout.sections()),
            checksum: Checksum::default(),
            n_tensor: 0,
        }
    }

    /// Writes a piece of a tensor; before the first piece, writes the views that precede the tensor.
    fn put(&mut self, chunk: &Chunk) -> io::Result<()> {
        if self.n_tensor == 0 {
            self.begin(&chunk.write.target.name)?;
        }
        self.raw(&chunk.bytes)?;
        self.n_tensor += chunk.bytes.len();
        if chunk.last {
            debug_assert_eq!(self.n_tensor, chunk.write.n_bytes());
            let padding = align(self.n_tensor) - self.n_tensor;
            self.raw(&[0; xc2_edge::model::gguf::ALIGNMENT][..padding])?;
            self.n_tensor = 0;
        }
        Ok(())
    }

    fn begin(&mut self, name: &str) -> io::Result<()> {
        loop {
            match self.sections.next() {
                Some(Section::View(_, bytes)) => self.raw(bytes)?,
                Some(Section::Tensor(tensor)) => {
                    assert_eq!(
                        tensor.name, name,
                        "the layout lists tensors in the plan's order"
                    );
                    return Ok(());
                }
                None => unreachable!("the layout lists every tensor of the plan"),
            }
        }
    }

    /// The checksum of the data section.
    fn finish(self) -> String {
        self.checksum.hex()
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        self.file.write_all(bytes)
    }
}

/// Creates the directory `dir` if it does not exist.
pub(crate) fn make_dir(dir: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(dir).map_err(WriteError::output(dir, 0))
}
