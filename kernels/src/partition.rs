//! How a product `[n, n_out]` is cut into tasks for threads: some rows of some outputs each.

/// Rows of a task, at most: what its outputs take for them (96 or 128 kB) stays in the second-level cache, and
/// bringing weights into form is a fiftieth of the work.
const CHUNK: usize = 512;
/// Rows of a task at least, where there are so few outputs that threads would end at different times: an
/// adapter's first matrix has 256.
const MIN_CHUNK: usize = 96;
/// Tasks of a thread, if the rows suffice.
const TASKS: usize = 4;

/// The first row or output of a task, and how many there are.
pub(crate) type Span = (usize, usize);

/// A cut.
#[derive(Clone, Copy)]
pub(crate) struct Partition {
    n: usize,
    n_out: usize,
    /// Rows of a task.
    chunk: usize,
    /// Outputs of a task.
    group: usize,
}

impl Partition {
    /// For so many threads: tasks of `group` outputs, and of a multiple of `tile` rows.
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

    /// Rows and outputs of task `i`. Tasks for the same rows follow each other.
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
