//! Prefetch instructions.
#![allow(unsafe_code)]

/// Bytes of a cache line.
const LINE: usize = 64;

/// Prefetches `values` into the L1 cache. The hardware prefetches consecutive rows by itself, but
/// not rows that are pages apart, such as those of one head.
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    prefetch_at(values.as_ptr(), values.len());
}

/// The same for `n` values at any address.
#[inline(always)]
pub(crate) fn prefetch_at<T>(values: *const T, n: usize) {
    for byte in (0..n * size_of::<T>()).step_by(LINE) {
        prefetch_line::<L1>(values.cast::<u8>().wrapping_add(byte));
    }
}

/// Prefetches the line at any address into the L2 cache, for data that is needed only after more
/// than L1 holds.
#[inline(always)]
pub(crate) fn prefetch_l2<T>(at: *const T) {
    prefetch_line::<L2>(at.cast());
}

/// The L1 cache.
pub(crate) const L1: u8 = 1;
/// The L2 cache: for data that is not needed soon.
pub(crate) const L2: u8 = 2;

/// Prefetches the line at any address.
#[inline(always)]
fn prefetch_line<const LEVEL: u8>(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 CPU has SSE, and a prefetch may name any address.
        unsafe {
            match LEVEL {
                L1 => _mm_prefetch::<_MM_HINT_T0>(line.cast()),
                _ => _mm_prefetch::<_MM_HINT_T1>(line.cast()),
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch may name any address and has no effect on Rust's memory. Inline assembly
    // because the intrinsic, `_prefetch`, is not stable. Always into L1: the 64 kB of a Cortex-A76
    // have room, and no other variant was measured.
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

/// Prefetches memory in the order of its addresses, some bytes at a time: a single stream, which
/// the hardware recognizes and runs ahead of. AMD's cores read it twice as fast as several streams
/// side by side.
pub(crate) struct PrefetchStream<const LEVEL: u8> {
    next: *const u8,
}

impl<const LEVEL: u8> PrefetchStream<LEVEL> {
    /// A stream from any address on.
    #[inline(always)]
    pub(crate) fn from<T>(at: *const T) -> Self {
        Self { next: at.cast() }
    }

    /// Prefetches the next `bytes` bytes, each line once. Call it often with few lines and
    /// arithmetic in between: of many prefetches at once most wait in a queue, and so do the loads
    /// behind them.
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
