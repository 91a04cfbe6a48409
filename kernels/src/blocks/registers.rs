//! What a thread's registers need around a task: nothing, but for AMX, whose registers have shapes.
#![allow(unsafe_code)]

use super::kernel::Kernel;

/// What a thread's registers held before a task: they hold it again when this is dropped.
#[cfg(target_arch = "x86_64")]
pub type Kept = Option<crate::amx::Saved>;

/// Readies a thread's registers for a task of a kernel.
///
/// # Safety
/// The CPU has what the kernel needs.
#[cfg(target_arch = "x86_64")]
pub unsafe fn prepare(kernel: &Kernel) -> Kept {
    let has_tiles = kernel.layout == super::kernel::Layout::Tiles;
    // SAFETY: handed on.
    has_tiles.then(|| unsafe { crate::amx::Saved::replace() })
}

/// There are no such registers.
#[cfg(not(target_arch = "x86_64"))]
pub struct Kept;

/// Nothing.
///
/// # Safety
/// It is safe.
#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn prepare(_: &Kernel) -> Kept {
    Kept
}
