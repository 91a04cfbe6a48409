//! llama.cpp's threads: an OpenMP runtime with the few functions that ggml uses.
//!
//! gcc compiles ggml's `#pragma omp` to calls of functions named `GOMP_*` and `omp_*`. `gomp.rs` defines them, so the
//! linker does not take them from libgomp. ggml needs a team of threads that run one function ([`team`]) and wait at a
//! barrier after each node of the graph, several hundred times per token.
//!
//! Why not libgomp: its threads spin at a barrier for about ten milliseconds before they sleep. While another program
//! keeps a core busy, the last thread is not running, and the waiting threads use up the time in which it could; with
//! two busy programs on two cores a token takes thirty times as long. `OMP_WAIT_POLICY=passive` sleeps at once, which
//! costs a third of the speed on an idle machine. Ours spin about as long as a wake-up costs, then sleep, and do not
//! spin beside busy programs ([`wait`]). `cargo bench --bench busy` measures it.
//!
//! ggml's own threads (a build without OpenMP) are not an alternative: they spin forever.
//!
//! A compiler with other names for these functions (clang: `__kmpc_*`) links its own runtime and behaves like that.

#![allow(unsafe_code)]

mod contention;
mod gomp;
mod team;
mod wait;

pub(super) use wait::Counter;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    /// A function missing in `gomp.rs` would load libgomp, with threads of its own.
    #[test]
    fn libgomp_is_not_loaded() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains("libgomp"), "{maps}");
    }
}
