//! Prepares a thread's registers for a task. Only AMX needs it, for the tile configuration.
#![allow(unsafe_code)]

use super::kernel::QuantizedKernel;

/// Restores the thread's registers when dropped.
#[cfg(target_arch = "x86_64")]
pub type RegisterGuard = Option<crate::amx::TileConfigGuard>;

/// Prepares the thread's registers for a task of a kernel.
///
/// # Safety
/// The CPU has the kernel's instructions.
#[cfg(target_arch = "x86_64")]
pub unsafe fn prepare(kernel: &QuantizedKernel) -> RegisterGuard {
    let has_tiles = kernel.layout == super::kernel::PanelLayout::Amx;
    // SAFETY: the caller's promise.
    has_tiles.then(|| unsafe { crate::amx::TileConfigGuard::configure() })
}

/// There is nothing to restore.
#[cfg(not(target_arch = "x86_64"))]
pub struct RegisterGuard;

/// Does nothing.
///
/// # Safety
/// Always safe.
#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn prepare(_: &QuantizedKernel) -> RegisterGuard {
    RegisterGuard
}
