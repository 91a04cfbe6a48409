//! What a product is made of, whatever the type of its weights: the kernels crate has one product for
//! weights in blocks and one for those of 16 bits, and a graph may have both.

use xc2_kernels::blocks::{self, BlockMatrix, Shape};
use xc2_kernels::halves::{self, HalfMatrix};
use xc2_kernels::{Cpu, SharedOut};

/// Weights that our kernels take.
#[derive(Clone, Copy)]
pub enum Matrix {
    Blocks(BlockMatrix<'static>),
    Halves(HalfMatrix<'static>),
}

/// In which numbers activations are multiplied. Matrices that want the same share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Int8, for blocks of this shape.
    Int8(Shape),
    F32,
    Bf16,
}

/// The kernels of this CPU.
#[derive(Clone, Copy)]
pub struct Kernels {
    pub blocks: &'static blocks::Kernel,
}

impl Kernels {
    /// For weights of 16 bits.
    fn halves(self, matrix: &HalfMatrix) -> halves::Kernel {
        halves::Kernel::for_cpu(Cpu::chosen(), &matrix.weights())
    }

    /// Whether they are good at products of so many rows.
    pub fn pay(self, matrix: &Matrix, n: usize) -> bool {
        match matrix {
            Matrix::Blocks(matrix) => self.blocks.pays(matrix.format(), n),
            Matrix::Halves(matrix) => self.halves(matrix).pays(),
        }
    }
}

impl Matrix {
    pub fn n_in(&self) -> usize {
        match self {
            Self::Blocks(matrix) => matrix.n_in(),
            Self::Halves(matrix) => matrix.n_in(),
        }
    }

    pub fn n_out(&self) -> usize {
        match self {
            Self::Blocks(matrix) => matrix.n_out(),
            Self::Halves(matrix) => matrix.n_out(),
        }
    }

    /// Of `n` rows.
    pub fn form(&self, n: usize, kernels: Kernels) -> Form {
        match self {
            Self::Blocks(matrix) => Form::Int8(kernels.blocks.shape_of_rows(matrix.format(), n)),
            Self::Halves(matrix) if kernels.halves(matrix).is_bf16() => Form::Bf16,
            Self::Halves(_) => Form::F32,
        }
    }

    /// Whether the product with it can be computed as one with that of a base.
    pub fn adds_to(&self, base: &Self, kernels: Kernels) -> bool {
        match (self, base) {
            (Self::Blocks(_), Self::Blocks(_)) => true,
            (Self::Halves(_), Self::Halves(_)) => self.form(1, kernels) == base.form(1, kernels),
            _ => false,
        }
    }

    /// Bytes that `n` rows of activations take in its form.
    pub fn bytes_of_rows(&self, n: usize, kernels: Kernels) -> usize {
        match self {
            Self::Blocks(matrix) => blocks::SharedRows::bytes(n, matrix.n_in(), kernels.blocks),
            Self::Halves(matrix) => {
                halves::SharedRows::bytes(n, matrix.n_in(), kernels.halves(matrix))
            }
        }
    }

    /// `n` rows of activations in its form.
    ///
    /// # Safety
    /// There are [`Self::bytes_of_rows`] at `memory`, aligned to 4 bytes, initialized, and they stay there
    /// as long as the rows and their copies are used.
    pub unsafe fn rows(&self, memory: *mut u8, n: usize, kernels: Kernels) -> Rows {
        // SAFETY: handed on.
        unsafe {
            match self {
                Self::Blocks(matrix) => {
                    let kernel = kernels.blocks;
                    let n_in = matrix.n_in();
                    let shape = kernel.shape_of_rows(matrix.format(), n);
                    Rows::Int8(blocks::SharedRows::new(memory, n, n_in, shape, kernel))
                }
                Self::Halves(matrix) => {
                    let kernel = kernels.halves(matrix);
                    Rows::Packed(halves::SharedRows::new(memory, n, matrix.n_in(), kernel))
                }
            }
        }
    }
}

/// Activations in the form that their matrices want, once they are filled.
#[derive(Clone, Copy)]
pub enum Rows {
    Int8(blocks::SharedRows),
    Packed(halves::SharedRows),
}

impl Rows {
    /// Number of rows.
    pub fn n(&self) -> usize {
        match self {
            Self::Int8(rows) => rows.n(),
            Self::Packed(rows) => rows.n(),
        }
    }

    /// Length of a row.
    pub fn width(&self) -> usize {
        match self {
            Self::Int8(rows) => rows.width(),
            Self::Packed(rows) => rows.width(),
        }
    }

    /// The same, for rows that are multiplied by a number as they are filled.
    pub fn times(self, factor: f32) -> Self {
        match self {
            Self::Int8(rows) => Self::Int8(rows.times(factor)),
            Self::Packed(rows) => Self::Packed(rows.times(factor)),
        }
    }

    /// Pieces that can be filled independently.
    pub fn pieces(&self) -> usize {
        match self {
            Self::Int8(rows) => rows.pieces(),
            Self::Packed(rows) => rows.pieces(),
        }
    }

    /// Fills a piece of them with rows `x: [n, width]`.
    ///
    /// # Safety
    /// Nobody else writes this piece or reads meanwhile.
    pub unsafe fn fill(&self, x: &[f32], piece: usize) {
        // SAFETY: handed on.
        unsafe {
            match self {
                Self::Int8(rows) => rows.quantize(x, piece),
                Self::Packed(rows) => rows.pack(x, piece),
            }
        }
    }
}

/// A product, cut into tasks that any threads may run.
#[derive(Clone, Copy)]
pub enum Product {
    Blocks(blocks::Product<'static>),
    Halves(halves::Product<'static>),
}

impl Product {
    /// # Panics
    /// If the rows are not in the matrix' form.
    pub fn new(matrix: Matrix, rows: Rows, out: SharedOut, kernels: Kernels) -> Self {
        match (matrix, rows) {
            (Matrix::Blocks(matrix), Rows::Int8(rows)) => {
                Self::Blocks(blocks::Product::new(matrix, rows, out, kernels.blocks))
            }
            (Matrix::Halves(matrix), Rows::Packed(rows)) => {
                Self::Halves(halves::Product::new(matrix, rows, out))
            }
            _ => unreachable!("rows in the form of the matrix"),
        }
    }

    /// The same with another one [added to it](Matrix::adds_to).
    ///
    /// # Panics
    /// If that one does not add to this.
    pub fn plus(self, matrix: Matrix, rows: Rows) -> Self {
        match (self, matrix, rows) {
            (Self::Blocks(base), Matrix::Blocks(matrix), Rows::Int8(rows)) => {
                Self::Blocks(base.plus(matrix, rows))
            }
            (Self::Halves(base), Matrix::Halves(matrix), Rows::Packed(rows)) => {
                Self::Halves(base.plus(matrix, rows))
            }
            _ => unreachable!("an adapter that adds to its base"),
        }
    }

    /// Number of tasks for so many threads.
    pub fn tasks(&self, n_threads: usize) -> usize {
        match self {
            Self::Blocks(product) => product.tasks(n_threads),
            Self::Halves(product) => product.tasks(n_threads),
        }
    }

    /// Runs one of them.
    ///
    /// # Safety
    /// - The CPU has the kernels.
    /// - All pieces of the rows are filled and stay as they are.
    /// - The result may be written; nobody else touches what this task writes.
    pub unsafe fn run(&self, task: usize, n_threads: usize) {
        // SAFETY: handed on.
        unsafe {
            match self {
                Self::Blocks(product) => product.run(task, n_threads),
                Self::Halves(product) => product.run(task, n_threads),
            }
        }
    }
}
