//! How a matmul with output `[n, n_out]` is partitioned into tasks: each computes some rows of some
//! outputs.

/// Most rows per task. Their activations (96 or 128 kB) stay in the L2 cache, and unpacking the
/// weights is a fiftieth of the work.
pub(crate) const CHUNK: usize = 512;
/// Fewest rows per task. It matters where there are few outputs, and so few tasks that threads
/// would finish at different times: the first matrix of an adapter has 256 outputs.
const MIN_CHUNK: usize = 96;
/// Tasks per thread, if there are enough rows.
const TASKS: usize = 4;

/// The first row or output of a task, and how many there are.
pub(crate) type Span = (usize, usize);

/// A partition of the output into tasks.
#[derive(Clone, Copy)]
pub(crate) struct Partition {
    n: usize,
    n_out: usize,
    /// Rows per task.
    chunk: usize,
    /// Outputs per task.
    group: usize,
}

impl Partition {
    /// A partition for `n_threads`: tasks of `group` outputs and of a multiple of `tile` rows.
    pub(crate) fn new(
        (n, n_out): (usize, usize),
        group: usize,
        tile: usize,
        n_threads: usize,
    ) -> Self {
        let wanted = (TASKS * n_threads).div_ceil(n_out.div_ceil(group));
        let pieces = wanted.min(n / MIN_CHUNK).max(n.div_ceil(CHUNK)).max(1);
        let chunk = n.div_ceil(pieces).next_multiple_of(tile);
        Self {
            n,
            n_out,
            chunk,
            group,
        }
    }

    /// Number of tasks.
    pub(crate) fn tasks(&self) -> usize {
        self.n.div_ceil(self.chunk) * self.n_out.div_ceil(self.group)
    }

    /// Rows and outputs of task `i`. Tasks for the same rows are consecutive.
    ///
    /// # Panics
    /// If there is no such task.
    pub(crate) fn task(&self, i: usize) -> (Span, Span) {
        assert!(i < self.tasks());
        let groups = self.n_out.div_ceil(self.group);
        let (row, output) = (i / groups * self.chunk, i % groups * self.group);
        let rows = (row, self.chunk.min(self.n - row));
        (rows, (output, self.group.min(self.n_out - output)))
    }
}
