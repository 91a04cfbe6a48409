//! The functions that gcc calls for `#pragma omp`, as far as ggml uses them, with libgomp's names and semantics.
//!
//! If one were missing, the linker would take it from libgomp, whose threads are not part of these teams. A test checks
//! that libgomp is not loaded.

use std::{
    ffi::{c_int, c_long, c_uint, c_void},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::team::{self, Function, Iterations};

/// `#pragma omp parallel`: runs a function on `n` threads; 0 means one per core.
///
/// # Safety
/// The function may be called with this argument on several threads at once.
#[unsafe(no_mangle)]
unsafe extern "C" fn GOMP_parallel(function: Function, data: *mut c_void, n: c_uint, _: c_uint) {
    let n = match n {
        0 => thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n as usize,
    };
    // SAFETY: the caller guarantees it.
    unsafe { team::run(n, function, data) }
}

/// `#pragma omp barrier`, also at the end of `single`.
#[unsafe(no_mangle)]
extern "C" fn GOMP_barrier() {
    team::barrier();
}

/// `#pragma omp single`: whether this thread runs the block.
#[unsafe(no_mangle)]
extern "C" fn GOMP_single_start() -> bool {
    team::takes_single()
}

/// This thread's index in its team.
#[unsafe(no_mangle)]
extern "C" fn omp_get_thread_num() -> c_int {
    team::index() as c_int
}

/// The size of the team.
#[unsafe(no_mangle)]
extern "C" fn omp_get_num_threads() -> c_int {
    team::size() as c_int
}

/// `#pragma omp for schedule(dynamic)`: takes the first iterations, or returns false if there are none.
///
/// # Safety
/// `first` and `end_of_chunk` can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn GOMP_loop_nonmonotonic_dynamic_start(
    next: c_long,
    end: c_long,
    step: c_long,
    chunk: c_long,
    first: *mut c_long,
    end_of_chunk: *mut c_long,
) -> bool {
    let all = Iterations {
        next,
        end,
        step,
        chunk,
    };
    // SAFETY: the caller guarantees it.
    unsafe { write_chunk(team::begin_loop(all), first, end_of_chunk) }
}

/// Takes more iterations of the loop, or returns false if there are none.
///
/// # Safety
/// `first` and `end_of_chunk` can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn GOMP_loop_nonmonotonic_dynamic_next(
    first: *mut c_long,
    end_of_chunk: *mut c_long,
) -> bool {
    // SAFETY: the caller guarantees it.
    unsafe { write_chunk(team::continue_loop(), first, end_of_chunk) }
}

/// The end of a loop: a barrier.
#[unsafe(no_mangle)]
extern "C" fn GOMP_loop_end() {
    team::barrier();
}

/// Writes a chunk of iterations, or returns false if there is none.
///
/// # Safety
/// `first` and `end_of_chunk` can be written.
unsafe fn write_chunk(
    taken: Option<(c_long, c_long)>,
    first: *mut c_long,
    end_of_chunk: *mut c_long,
) -> bool {
    let Some(taken) = taken else { return false };
    // SAFETY: the caller guarantees it.
    unsafe { (*first, *end_of_chunk) = taken }
    true
}

/// A spin lock is sufficient: under `#pragma omp atomic` and at the end of `reduction` ggml does a few additions per
/// thread.
static UPDATING: AtomicBool = AtomicBool::new(false);

/// Starts an atomic update.
#[unsafe(no_mangle)]
extern "C" fn GOMP_atomic_start() {
    while UPDATING.swap(true, Ordering::Acquire) {
        thread::yield_now();
    }
}

/// Ends an atomic update.
#[unsafe(no_mangle)]
extern "C" fn GOMP_atomic_end() {
    UPDATING.store(false, Ordering::Release);
}
