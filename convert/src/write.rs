//! The file: written beside its target, and moved there when it is complete.

use std::{
    fs::{self, File, Permissions},
    io::{self, Seek, SeekFrom, Write as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use tempfile::NamedTempFile;
use xc2_edge::{
    container::{CHECKSUM_LEN, Checksum, Layout, Section},
    gguf::align,
};

use crate::{
    pipeline::{self, Chunk, PipelineError},
    plan::Plan,
};

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum WriteError {
    /// The file cannot be made, written or moved.
    #[error("{path}: cannot be written: {source}")]
    Output { path: PathBuf, source: io::Error },
    /// The disk, or the quota, is full.
    #[error("{path}: no space left: {needed} bytes needed: {source}")]
    DiskFull {
        path: PathBuf,
        needed: u64,
        source: io::Error,
    },
    /// The data could not be made.
    #[error(transparent)]
    Data(PipelineError),
}

impl WriteError {
    /// What a person may do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::DiskFull { .. } => {
                "make room, choose another place, or a smaller type such as --q4_k"
            }
            Self::Data(PipelineError::Read(e)) => return e.hint(),
            Self::Data(PipelineError::NonFinite { .. }) => {
                "the checkpoint is damaged, or its training failed; no model can be made of it"
            }
            Self::Data(PipelineError::OutOfRange { .. }) => {
                "store it as bf16 or f32, see --tensor-type"
            }
            _ => return None,
        })
    }

    /// For `map_err` on whatever writes `path`, which will have `needed` bytes.
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

/// A file under a temporary name beside its target. Dropped, it is gone.
pub(crate) struct PendingFile {
    temp: NamedTempFile,
    target: PathBuf,
}

impl PendingFile {
    pub(crate) fn create(target: &Path) -> io::Result<Self> {
        if target.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let temp = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666)) // less the umask, as for any new file
            .tempfile_in(parent(target))?;
        let target = target.to_owned();
        Ok(Self { temp, target })
    }

    pub(crate) fn file(&mut self) -> &mut File {
        self.temp.as_file_mut()
    }

    /// Claims the space, so that a disk that is too full is noticed before the work, not after.
    fn reserve(&mut self, n_bytes: u64) -> io::Result<()> {
        use rustix::{fs::FallocateFlags, io::Errno};
        match rustix::fs::fallocate(self.temp.as_file(), FallocateFlags::empty(), 0, n_bytes) {
            Err(e @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(e.into()),
            _ => Ok(()), // other file systems cannot do this, and find out later
        }
    }

    /// Moves the file to its target, replacing what is there, once it is safely on the disk.
    pub(crate) fn commit(self) -> io::Result<()> {
        self.temp.as_file().sync_all()?;
        self.temp.persist(&self.target).map_err(|e| e.error)?;
        File::open(parent(&self.target))?.sync_all()
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Carries out a plan. `progress` is told the bytes of the checkpoint that are done with, piece by
/// piece; `cancel` stops the work, which then leaves nothing behind.
///
/// # Errors
/// If reading, converting or writing fails. The target is then as it was.
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
    let mut pending = PendingFile::create(target).map_err(&failed)?;
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
    pending.commit().map_err(&failed)?;
    Ok(n_bytes)
}

/// The data section in the making: what was written, and its checksum.
struct DataSection<'a> {
    file: &'a mut File,
    sections: Box<dyn Iterator<Item = Section<'a>> + 'a>,
    checksum: Checksum,
    /// Bytes of the tensor that is being written.
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

    /// Writes a piece of a tensor; before its first one, the views that stand there.
    fn put(&mut self, chunk: &Chunk) -> io::Result<()> {
        if self.n_tensor == 0 {
            self.begin(&chunk.write.target.name)?;
        }
        self.raw(&chunk.bytes)?;
        self.n_tensor += chunk.bytes.len();
        if chunk.last {
            debug_assert_eq!(self.n_tensor, chunk.write.n_bytes());
            let padding = align(self.n_tensor) - self.n_tensor;
            self.raw(&[0; xc2_edge::gguf::ALIGNMENT][..padding])?;
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

    /// The checksum of everything.
    fn finish(self) -> String {
        self.checksum.hex()
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        self.file.write_all(bytes)
    }
}

/// Makes the directory `dir` if it is not there.
pub(crate) fn make_dir(dir: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(dir).map_err(WriteError::output(dir, 0))
}
