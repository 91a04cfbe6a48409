//! Hints to the cache.
#![allow(unsafe_code)]

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for `values` to be brought into the first-level cache. The hardware foresees rows that follow
/// each other, but not those that lie pages apart, as one head's do.
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    prefetch_at(values.as_ptr(), values.len());
}

/// The same for `n` values at an address, whatever lies there.
#[inline(always)]
pub(crate) fn prefetch_at<T>(values: *const T, n: usize) {
    for byte in (0..n * size_of::<T>()).step_by(LINE) {
        prefetch_line::<L1>(values.cast::<u8>().wrapping_add(byte));
    }
}

/// Asks for the line at an address, whatever lies there, to be brought into the second-level cache: for what is
/// needed only after as much else as the first level holds.
#[inline(always)]
pub(crate) fn prefetch_l2<T>(at: *const T) {
    prefetch_line::<L2>(at.cast());
}

/// The level of caches next to a core.
pub(crate) const L1: u8 = 1;
/// The one behind it: there is room for what is not needed soon, but must be on its way.
pub(crate) const L2: u8 = 2;

/// Asks for a line, whatever lies there, to be brought into a level of caches.
#[inline(always)]
fn prefetch_line<const LEVEL: u8>(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 has SSE, and a hint may name any address.
        unsafe {
            match LEVEL {
                L1 => _mm_prefetch::<_MM_HINT_T0>(line.cast()),
                _ => _mm_prefetch::<_MM_HINT_T1>(line.cast()),
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint may name any address, and changes nothing that Rust knows of. In assembly
    // because the intrinsic, `_prefetch`, is not stable. Into the first level always: of 64 kB, as
    // Cortex-A76 has, enough is left, and nothing else was measured.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{line}]",
            line = in(reg) line,
            options(readonly, nostack, preserves_flags)
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = line;
}

/// Memory that is asked for bit by bit, in the order in which it lies: one stream, which the hardware foresees
/// and runs ahead of. AMD's cores read twice as fast so as by several streams side by side.
pub(crate) struct PrefetchStream<const LEVEL: u8> {
    next: *const u8,
}

impl<const LEVEL: u8> PrefetchStream<LEVEL> {
    /// From an address on, whatever lies there.
    #[inline(always)]
    pub(crate) fn from<T>(at: *const T) -> Self {
        Self { next: at.cast() }
    }

    /// Asks for so many more bytes, each line once. A few lines with some arithmetic behind them: of many at
    /// once most wait for their turn, and what comes behind them waits too.
    #[inline(always)]
    pub(crate) fn prefetch(&mut self, bytes: usize) {
        let end = self.next.wrapping_add(bytes);
        let mut line = self
            .next
            .wrapping_add(self.next.addr().wrapping_neg() % LINE);
        while line < end {
            prefetch_line::<LEVEL>(line);
            line = line.wrapping_add(LINE);
        }
        self.next = end;
    }
}
