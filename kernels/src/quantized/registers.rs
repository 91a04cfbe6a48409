//! What a thread's registers need around a task: nothing, but for AMX, whose registers have shapes.
#![allow(unsafe_code)]

use super::kernel::QuantizedKernel;

/// What a thread's registers held before a task: they hold it again when this is dropped.
#[cfg(target_arch = "x86_64")]
pub type RegisterGuard = Option<crate::amx::TileConfigGuard>;

/// Readies a thread's registers for a task of a kernel.
///
/// # Safety
/// The CPU has what the kernel needs.
#[cfg(target_arch = "x86_64")]
pub unsafe fn prepare(kernel: &QuantizedKernel) -> RegisterGuard {
    let has_tiles = kernel.layout == super::kernel::PanelLayout::Tiles;
    // SAFETY: handed on.
    has_tiles.then(|| unsafe { crate::amx::TileConfigGuard::configure() })
}

/// There are no such registers.
#[cfg(not(target_arch = "x86_64"))]
pub struct RegisterGuard;

/// Nothing.
///
/// # Safety
/// It is safe.
#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn prepare(_: &QuantizedKernel) -> RegisterGuard {
    RegisterGuard
}
