//! The threads on which llama.cpp computes: an OpenMP runtime for the few functions that ggml uses.
//!
//! gcc turns ggml's `#pragma omp` into calls of functions named `GOMP_*` and `omp_*`. `gomp.rs` defines them, so
//! the linker takes ours and the program does not load libgomp. ggml needs a team of threads that run one
//! function ([`team`]) and meet at a barrier after each node of the graph, several hundred times a token.
//!
//! Why not libgomp: its threads spin at a barrier for about ten milliseconds before they sleep. While another
//! program keeps a core busy, the thread that is waited for is not running, and those that wait burn the time in
//! which it could; with two busy programs on two cores a token takes thirty times as long. `OMP_WAIT_POLICY=passive`
//! sleeps at once, which costs a third of the speed of a quiet machine. Ours spin as long as a wake-up costs, then
//! sleep, and do not spin beside busy programs ([`wait`]). `cargo bench --bench busy` measures it.
//!
//! ggml's own threads (a build without OpenMP) are no alternative: they spin without end.
//!
//! A compiler that names these functions otherwise (clang: `__kmpc_*`) links its own runtime and works as that does.

#![allow(unsafe_code)]

mod contention;
mod gomp;
mod team;
mod wait;

pub(super) use wait::Counter;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    /// A function that is missing in `gomp.rs` would bring libgomp back, with threads of its own.
    #[test]
    fn libgomp_is_not_loaded() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains("libgomp"), "{maps}");
    }
}
