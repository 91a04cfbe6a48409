//! Reads, rearranges, quantizes and writes tensors in parallel and in bounded memory.
//!
//! Tensors are cut into pieces of about a million weights. Workers take the pieces in file order; each reads its
//! rows, converts them, and sends the output bytes to the calling thread, which writes them in order. A worker
//! that is too far ahead waits, so memory depends on the number of workers, not on the model's size. There is one
//! worker more than cores: while one waits for the disk, the others compute.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use ndarray::{ArrayView2, ArrayViewMut2};
use xc2_edge::model::quant::{GgmlType, dequantize, quantize_rows};

use crate::{
    checkpoint::{CheckpointError, SourceTensor},
    plan::Write,
    rows::{FetchError, Scratch},
};

/// Elements per piece: 4 MB as `f32`, so that the quantizer's tables stay in the caches.
const PIECE_ELEMENTS: usize = 1 << 20;
/// Pieces per worker that may be finished ahead of the writer.
const PIECES_AHEAD: usize = 2;
/// The smallest magnitude that rounds to infinity as an f16: halfway beyond the largest.
const F16_OVERFLOW: f32 = 65520.0;
/// The same for bf16, whose largest number is 2^128 - 2^120.
const BF16_OVERFLOW: f32 = f32::from_bits(0x7f7f_8000);
/// Blocks have an f16 scale and at most eight bits per value. Types with fewer bits may overflow earlier, which
/// is detected by dequantizing the blocks.
const BLOCK_OVERFLOW: f32 = F16_OVERFLOW * 127.0;

/// Why a conversion stopped.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PipelineError {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Read(#[from] CheckpointError),
    /// A weight is NaN or infinite.
    #[error("tensor `{name}`: element {index:?}: expected a finite number, found {value}")]
    NonFinite {
        name: String,
        index: Vec<usize>,
        value: f32,
    },
    /// A weight is too large for the chosen type.
    #[error("tensor `{name}`: expected magnitudes that {ty} can represent, found {value}")]
    OutOfRange {
        name: String,
        ty: GgmlType,
        value: f32,
    },
    /// Cancelled by the user.
    #[error("interrupted; no file was written")]
    Cancelled,
    /// The bytes could not be written.
    #[error(transparent)]
    Write(std::io::Error),
}

/// A range of rows of one tensor.
struct Piece<'a> {
    write: &'a Write,
    rows: Range<usize>,
    /// Whether the tensor ends here and padding follows.
    last: bool,
}

/// A piece's bytes in the output file.
pub struct Chunk<'a> {
    /// The tensor of these bytes.
    pub write: &'a Write,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether the tensor ends here.
    pub last: bool,
    /// Number of checkpoint bytes they were made from.
    pub n_source_bytes: u64,
}

/// Converts all tensors and passes their bytes to `sink` in order. `cancel` stops it early.
///
/// # Errors
/// The first error in file order.
pub fn run<'a>(
    writes: &'a [Write],
    n_workers: usize,
    cancel: &AtomicBool,
    mut sink: impl FnMut(Chunk<'a>) -> std::io::Result<()>,
) -> Result<(), PipelineError> {
    let pieces: Vec<Piece> = writes.iter().flat_map(cut).collect();
    let next = AtomicUsize::new(0);
    let gate = Gate::new(n_workers * PIECES_AHEAD);
    thread::scope(|scope| {
        // Close the gate even if `sink` panics: the scope waits for the workers, and they wait for the gate.
        let _guard = CloseOnDrop(&gate);
        let (sender, receiver) = mpsc::channel();
        for _ in 0..n_workers {
            let (pieces, next, gate, sender) = (&pieces, &next, &gate, sender.clone());
            scope.spawn(move || {
                let _guard = CloseOnPanic(gate);
                let mut worker = Worker::default();
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(piece) = pieces.get(i).filter(|_| gate.wait_for(i)) else {
                        return;
                    };
                    let result = worker.convert(piece);
                    if sender.send((i, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        in_order(&receiver, pieces.len(), &gate, cancel, &mut sink)
    })
}

/// Receives pieces in any order and passes them to `sink` in file order.
fn in_order<'a>(
    receiver: &mpsc::Receiver<(usize, Result<Chunk<'a>, PipelineError>)>,
    n_pieces: usize,
    gate: &Gate,
    cancel: &AtomicBool,
    sink: &mut impl FnMut(Chunk<'a>) -> std::io::Result<()>,
) -> Result<(), PipelineError> {
    let mut early = BTreeMap::new();
    for i in 0..n_pieces {
        let result = loop {
            if cancel.load(Ordering::Relaxed) {
                return Err(PipelineError::Cancelled);
            }
            if let Some(result) = early.remove(&i) {
                break result;
            }
            let (number, result) = receiver.recv().expect("workers outlast their pieces");
            early.insert(number, result);
        };
        sink(result?).map_err(PipelineError::Write)?;
        gate.advance();
    }
    Ok(())
}

/// Cuts a tensor into pieces of whole units, at least one.
fn cut(write: &Write) -> impl Iterator<Item = Piece<'_>> {
    let n_rows = write.rearrange.n_rows(&write.source);
    let unit = write.rearrange.unit(&write.source);
    let unit_len = (unit * write.source.row_len()).max(1);
    let step = unit * (PIECE_ELEMENTS / unit_len).max(1);
    (0..n_rows).step_by(step).map(move |start| Piece {
        write,
        rows: start..(start + step).min(n_rows),
        last: start + step >= n_rows,
    })
}

fn failed(source: &SourceTensor, error: FetchError) -> PipelineError {
    match error {
        FetchError::Read(e) => PipelineError::Read(e),
        FetchError::NonFinite(bad) => PipelineError::NonFinite {
            name: source.name.clone(),
            index: bad.index,
            value: bad.value,
        },
    }
}

/// The packed numbers of a piece, in blocks of its type.
fn copy_blocks(piece: &Piece<'_>) -> Result<Vec<u8>, CheckpointError> {
    let source = &piece.write.source;
    let packed = source.packed().expect("only packed sources are exact");
    let mut bytes = Vec::new();
    for rows in piece.write.rearrange.source_rows(piece.rows.clone()) {
        let blocks = packed.blocks(rows.source)?;
        let row_bytes = blocks.len() / rows.order.len();
        for row in rows.order {
            bytes.extend(&blocks[row * row_bytes..][..row_bytes]);
        }
    }
    Ok(bytes)
}

/// A worker's buffers.
#[derive(Default)]
struct Worker {
    scratch: Scratch,
    values: Vec<f32>,
    /// The name and the values of the last first matrix of an added product.
    first_matrix: Option<(String, Vec<f32>)>,
}

impl Worker {
    fn convert<'a>(&mut self, piece: &Piece<'a>) -> Result<Chunk<'a>, PipelineError> {
        let write = piece.write;
        let source = &write.source;
        if write.exact {
            let bytes = copy_blocks(piece).map_err(PipelineError::Read)?;
            return Ok(self.chunk(piece, bytes));
        }
        self.values.resize(piece.rows.len() * source.row_len(), 0.0);
        let rows = piece.rows.clone();
        let fetched = write
            .rearrange
            .fetch(source, rows, &mut self.scratch, &mut self.values);
        fetched.map_err(|e| failed(source, e))?;
        self.add_products(piece)?;
        if write.scale != 1.0 {
            self.values.iter_mut().for_each(|x| *x *= write.scale);
        }
        let bytes = self.quantize(write)?;
        Ok(self.chunk(piece, bytes))
    }

    fn chunk<'a>(&self, piece: &Piece<'a>, bytes: Vec<u8>) -> Chunk<'a> {
        let write = piece.write;
        let source = &write.source;
        let share = piece.rows.len() as u64 * source.n_bytes() as u64;
        Chunk {
            write,
            bytes,
            last: piece.last,
            n_source_bytes: share / write.rearrange.n_rows(source).max(1) as u64,
        }
    }

    /// Adds the products of adapters, in f32. The rows of the second matrix are rearranged as the values are.
    fn add_products(&mut self, piece: &Piece<'_>) -> Result<(), PipelineError> {
        for product in &piece.write.added {
            let (n, n_in, rank) = (
                piece.rows.len(),
                piece.write.source.row_len(),
                product.b.row_len(),
            );
            let mut rows = vec![0.0; n * rank];
            let fetched = piece.write.rearrange.fetch(
                &product.b,
                piece.rows.clone(),
                &mut self.scratch,
                &mut rows,
            );
            fetched.map_err(|e| failed(&product.b, e))?;
            if self
                .first_matrix
                .as_ref()
                .is_none_or(|(name, _)| *name != product.a.name)
            {
                let values = product.a.to_f32().map_err(PipelineError::Read)?;
                self.first_matrix = Some((product.a.name.clone(), values));
            }
            let (_, a) = self.first_matrix.as_ref().expect("just read");
            let shape = "the shapes were checked";
            let a = ArrayView2::from_shape((rank, n_in), a).expect(shape);
            let b = ArrayView2::from_shape((n, rank), &rows).expect(shape);
            let mut sum = ArrayViewMut2::from_shape((n, n_in), &mut self.values).expect(shape);
            ndarray::linalg::general_mat_mul(1.0, &b, &a, 1.0, &mut sum);
        }
        Ok(())
    }

    /// Quantizes the values to the target type.
    ///
    /// # Errors
    /// If the type cannot represent a value.
    fn quantize(&self, write: &Write) -> Result<Vec<u8>, PipelineError> {
        let ty = write.target.ty;
        let largest = self.values.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
        let out_of_range = || PipelineError::OutOfRange {
            name: write.source.name.clone(),
            ty,
            value: largest,
        };
        if largest >= overflow(ty) {
            return Err(out_of_range());
        }
        let n_cols = write.target.shape[0];
        let row_bytes = ty.row_bytes(n_cols).expect("the type fits the rows");
        let mut bytes = vec![0; self.values.len() / n_cols * row_bytes];
        quantize_rows(ty, &self.values, n_cols, &mut bytes);
        // Below this limit, no block scale overflows.
        if largest >= F16_OVERFLOW {
            let mut stored = vec![0.0; self.values.len()];
            dequantize(ty, &bytes, &mut stored);
            if !stored.iter().all(|x| x.is_finite()) {
                return Err(out_of_range());
            }
        }
        Ok(bytes)
    }
}

/// The smallest magnitude that a type certainly cannot represent.
fn overflow(ty: GgmlType) -> f32 {
    match ty {
        GgmlType::F32 => f32::INFINITY,
        GgmlType::BF16 => BF16_OVERFLOW,
        GgmlType::F16 => F16_OVERFLOW,
        _ => BLOCK_OVERFLOW,
    }
}

/// Lets workers run ahead of the writer by a limited number of pieces.
struct Gate {
    state: Mutex<GateState>,
    moved: Condvar,
    ahead: usize,
}

#[derive(Default)]
struct GateState {
    n_written: usize,
    closed: bool,
}

impl Gate {
    fn new(ahead: usize) -> Self {
        Self {
            state: Mutex::default(),
            moved: Condvar::new(),
            ahead,
        }
    }

    /// Waits until work on piece `i` may start; returns false if the piece is no longer needed.
    fn wait_for(&self, i: usize) -> bool {
        let state = self.state.lock().expect("no panics while locked");
        let too_early = |s: &mut GateState| !s.closed && i >= s.n_written + self.ahead;
        let state = self.moved.wait_while(state, too_early);
        !state.expect("no panics while locked").closed
    }

    /// Counts a written piece.
    fn advance(&self) {
        self.state.lock().expect("no panics while locked").n_written += 1;
        self.moved.notify_all();
    }

    /// Releases all workers.
    fn close(&self) {
        self.state.lock().expect("no panics while locked").closed = true;
        self.moved.notify_all();
    }
}

/// Closes the gate when the writer finishes or fails: no piece is needed any more.
struct CloseOnDrop<'a>(&'a Gate);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Closes the gate if a worker panics: its piece will never arrive.
struct CloseOnPanic<'a>(&'a Gate);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.close();
        }
    }
}
