//! A hint to the cache.
#![allow(unsafe_code)]

/// Asks for `values` to be brought into the first-level cache. The hardware foresees rows that follow
/// each other, but not those that lie pages apart, as one head's do.
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    let per_line = 64 / size_of::<T>();
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(per_line) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has SSE, and a hint may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
    }
    #[cfg(target_arch = "aarch64")]
    for line in values.chunks(per_line) {
        // SAFETY: a hint may name any address, and changes nothing that Rust knows of. In assembly
        // because the intrinsic, `_prefetch`, is not stable.
        unsafe {
            std::arch::asm!(
                "prfm pldl1keep, [{line}]",
                line = in(reg) line.as_ptr(),
                options(readonly, nostack, preserves_flags)
            );
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = values.chunks(per_line);
}
