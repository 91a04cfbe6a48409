//! The functions that gcc calls for `#pragma omp`, with libgomp's names and meaning: those that ggml uses.
//!
//! The linker would take a function that is missing here from libgomp, whose threads know nothing of these teams. A
//! test checks that libgomp is not loaded.

use std::{
    ffi::{c_int, c_long, c_uint, c_void},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::team::{self, Function, Iterations};

/// `#pragma omp parallel`: runs a function on `n` threads, or as many as there are cores for 0.
///
/// # Safety
/// The function may be called with this argument on several threads at once.
#[unsafe(no_mangle)]
unsafe extern "C" fn GOMP_parallel(function: Function, data: *mut c_void, n: c_uint, _: c_uint) {
    let n = match n {
        0 => thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n as usize,
    };
    // SAFETY: as the caller says.
    unsafe { team::run(n, function, data) }
}

/// `#pragma omp barrier`, and the end of `single`.
#[unsafe(no_mangle)]
extern "C" fn GOMP_barrier() {
    team::barrier();
}

/// `#pragma omp single`: whether this thread runs the block.
#[unsafe(no_mangle)]
extern "C" fn GOMP_single_start() -> bool {
    team::takes_single()
}

/// This thread's number in its team.
#[unsafe(no_mangle)]
extern "C" fn omp_get_thread_num() -> c_int {
    team::index() as c_int
}

/// How many threads the team has.
#[unsafe(no_mangle)]
extern "C" fn omp_get_num_threads() -> c_int {
    team::size() as c_int
}

/// `#pragma omp for schedule(dynamic)`: takes the first iterations, and returns false if there are none.
///
/// # Safety
/// Both places can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn GOMP_loop_nonmonotonic_dynamic_start(
    next: c_long,
    end: c_long,
    step: c_long,
    chunk: c_long,
    first: *mut c_long,
    behind: *mut c_long,
) -> bool {
    let all = Iterations {
        next,
        end,
        step,
        chunk,
    };
    // SAFETY: as the caller says.
    unsafe { give(team::begin_loop(all), first, behind) }
}

/// Takes more iterations of the loop.
///
/// # Safety
/// Both places can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn GOMP_loop_nonmonotonic_dynamic_next(
    first: *mut c_long,
    behind: *mut c_long,
) -> bool {
    // SAFETY: as the caller says.
    unsafe { give(team::continue_loop(), first, behind) }
}

/// The end of a loop, at which all wait for each other.
#[unsafe(no_mangle)]
extern "C" fn GOMP_loop_end() {
    team::barrier();
}

/// # Safety
/// Both places can be written.
unsafe fn give(taken: Option<(c_long, c_long)>, first: *mut c_long, behind: *mut c_long) -> bool {
    let Some(taken) = taken else { return false };
    // SAFETY: as the caller says.
    unsafe { (*first, *behind) = taken }
    true
}

/// What ggml updates under `#pragma omp atomic` and sums up at the end of `reduction` is a few additions a thread.
static UPDATING: AtomicBool = AtomicBool::new(false);

/// Begins an update that no other thread may see half done.
#[unsafe(no_mangle)]
extern "C" fn GOMP_atomic_start() {
    while UPDATING.swap(true, Ordering::Acquire) {
        thread::yield_now();
    }
}

/// Ends it.
#[unsafe(no_mangle)]
extern "C" fn GOMP_atomic_end() {
    UPDATING.store(false, Ordering::Release);
}
