//! Intel AMX: permission to use the tile registers, and their configuration.
//!
//! There are eight tile registers of up to sixteen rows of 64 bytes. One instruction multiplies two
//! of them and adds the product to a third:
//!
//! ```text
//! C[m, n] += sum over k of  A[m, k] * B[k, n]         C: 16 x 16 elements of 32 bits
//! ```
//!
//! `A` has the layout of the activations. A row of `B` holds, for each of sixteen outputs, four
//! consecutive inputs in int8 or two in bf16. `vpdpbusd` takes the same order.
//!
//! Rust's AMX intrinsics are not stable, so the kernels use inline assembly.
#![allow(unsafe_code)]

use std::arch::asm;
use std::marker::PhantomData;
use std::sync::LazyLock;

/// Rows of a tile, and 32-bit elements of a row.
pub const TILE_SIDE: usize = 16;
/// Bytes of a row of a tile.
pub const TILE_ROW_BYTES: usize = 64;

/// Whether this process may use AMX with int8 and bf16. The first call requests it from the system.
pub fn is_available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| has_instructions() && permission());
    *AVAILABLE
}

fn has_instructions() -> bool {
    /// CPUID leaf 7: `amx-bf16`, `amx-tile` and `amx-int8`.
    const BITS: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    // SAFETY: every x86-64 CPU has CPUID. (It is a safe function in newer standard libraries.)
    #[allow(unused_unsafe)]
    let leaf = unsafe {
        if std::arch::x86_64::__cpuid(0).eax < 7 {
            return false;
        }
        std::arch::x86_64::__cpuid_count(7, 0)
    };
    leaf.edx & BITS == BITS
}

/// Linux allocates the tile state, 8 kB per thread, only for processes that request it. The
/// permission then holds for all threads.
#[cfg(target_os = "linux")]
fn permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the system call takes two numbers and changes only what the process may do.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permission() -> bool {
    false
}

/// The shapes of the eight tiles, in the layout that `ldtilecfg` reads.
#[repr(C, align(64))]
struct TileConfig([u8; 64]);

impl TileConfig {
    /// All tiles at their largest size.
    const WHOLE: Self = {
        let mut shapes = [0; 64];
        shapes[0] = 1; // the only palette
        let mut tile = 0;
        while tile < 8 {
            // Bytes per row (u16), then rows (u8).
            (shapes[16 + 2 * tile], shapes[48 + tile]) = (TILE_ROW_BYTES as u8, TILE_SIDE as u8);
            tile += 1;
        }
        Self(shapes)
    };

    /// Loads this configuration into the thread's tile registers and zeroes them.
    ///
    /// # Safety
    /// AMX [is available](is_available).
    unsafe fn set(&self) {
        // SAFETY: the instruction reads 64 bytes, which are a valid configuration.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const self.0, options(nostack, preserves_flags, readonly));
        }
    }
}

/// The tile configuration that this thread had before; dropping the guard restores it. llama.cpp
/// has AMX kernels too, which configure the tiles once per thread. The contents of the tiles are
/// lost.
pub struct TileConfigGuard {
    shapes: TileConfig,
    /// The configuration belongs to one thread, so the guard is neither `Send` nor `Sync`.
    _thread: PhantomData<*const ()>,
}

impl TileConfigGuard {
    /// Saves the configuration and sets all tiles to [`TILE_SIDE`] rows of [`TILE_ROW_BYTES`]
    /// bytes.
    ///
    /// # Safety
    /// AMX [is available](is_available).
    pub unsafe fn configure() -> Self {
        let mut shapes = TileConfig([0; 64]);
        // SAFETY: the instruction writes 64 bytes.
        unsafe {
            asm!("sttilecfg [{}]", in(reg) &raw mut shapes.0, options(nostack, preserves_flags));
            TileConfig::WHOLE.set();
        }
        Self {
            shapes,
            _thread: PhantomData,
        }
    }
}

impl Drop for TileConfigGuard {
    fn drop(&mut self) {
        // SAFETY: AMX is available, by `configure`, and this thread had this configuration before.
        // If it had none, the tiles are released, and the system no longer saves them.
        unsafe { self.shapes.set() }
    }
}
