//! The tile registers of Intel's AMX: leave to use them, their shapes, and what a thread had in them before.
//!
//! There are eight, of up to sixteen rows of 64 bytes. One instruction multiplies two of them and adds the
//! product to a third:
//!
//! ```text
//! C[m, n] += sum over k of  A[m, k] * B[k, n]         C: 16 x 16 numbers of 32 bits
//! ```
//!
//! where `A` lies as rows of activations do, and a row of `B` holds four neighbouring inputs (of int8, or two of
//! bf16) of each of sixteen outputs, side by side: the order in which `vpdpbusd` wants them, too.
//!
//! Rust's intrinsics for AMX are not stable, so kernels are written in assembly.
#![allow(unsafe_code)]

use std::arch::asm;
use std::marker::PhantomData;
use std::sync::LazyLock;

/// Rows of a tile, and numbers of 32 bits in one.
pub const TILE_SIDE: usize = 16;
/// Bytes of a tile's row.
pub const TILE_ROW_BYTES: usize = 64;

/// Whether this process may use AMX with int8 and bf16. Asks the system for it, the first time.
pub fn is_available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| has_instructions() && permission());
    *AVAILABLE
}

fn has_instructions() -> bool {
    /// Of leaf 7: `amx-bf16`, `amx-tile` and `amx-int8`.
    const BITS: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    // SAFETY: every x86-64 has the instruction. (Newer standard libraries know.)
    #[allow(unused_unsafe)]
    let leaf = unsafe {
        if std::arch::x86_64::__cpuid(0).eax < 7 {
            return false;
        }
        std::arch::x86_64::__cpuid_count(7, 0)
    };
    leaf.edx & BITS == BITS
}

/// Linux gives the state of the tiles, eight kilobytes of each thread, to processes that ask; all their threads
/// have it then.
#[cfg(target_os = "linux")]
fn permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: it takes two numbers, and changes nothing but what the process may do.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permission() -> bool {
    false
}

/// The shapes of the eight tiles, as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct TileConfig([u8; 64]);

impl TileConfig {
    /// All tiles as large as they can be.
    const WHOLE: Self = {
        let mut shapes = [0; 64];
        shapes[0] = 1; // the only palette there is
        let mut tile = 0;
        while tile < 8 {
            // Bytes of a row, which are numbers of 16 bits, and rows.
            (shapes[16 + 2 * tile], shapes[48 + tile]) = (TILE_ROW_BYTES as u8, TILE_SIDE as u8);
            tile += 1;
        }
        Self(shapes)
    };

    /// Gives this thread's tiles these shapes, and zeros.
    ///
    /// # Safety
    /// AMX [is available](is_available).
    unsafe fn set(&self) {
        // SAFETY: it reads 64 bytes, and they are shapes that AMX has.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const self.0, options(nostack, preserves_flags, readonly));
        }
    }
}

/// The shapes that this thread's tiles had, and have again when it is dropped: llama.cpp has kernels for AMX too,
/// which set them once for each thread. Numbers in the tiles are lost.
pub struct TileConfigGuard {
    shapes: TileConfig,
    /// Of this thread and no other.
    _thread: PhantomData<*const ()>,
}

impl TileConfigGuard {
    /// Saves the shapes, and makes all tiles [`TILE_SIDE`] rows of [`TILE_ROW_BYTES`] bytes.
    ///
    /// # Safety
    /// AMX [is available](is_available).
    pub unsafe fn configure() -> Self {
        let mut shapes = TileConfig([0; 64]);
        // SAFETY: it writes 64 bytes.
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
        // SAFETY: AMX is available, by `replace`; the shapes were this thread's. If there were none, the tiles are
        // released, and the system need not save them any more.
        unsafe { self.shapes.set() }
    }
}
