//! Process-wide settings that llama.cpp makes necessary.
#![allow(unsafe_code)]

/// Ends the process at once with this status. Unlike `std::process::exit`, it does not run the destructors of
/// llama.cpp's globals: threads that are still computing would crash.
pub fn end_process(status: i32) -> ! {
    // SAFETY: it takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

/// Makes the allocator of this process return large blocks to the system when they are freed.
///
/// At each switch of the adapter, llama.cpp recreates its scheduler: tens of megabytes, most of them never touched.
/// When glibc frees such a block, it raises its mmap threshold, and takes the next blocks from its heap. There they
/// are fragmented, have been touched before and stay resident: 15 MB with a small model. Does nothing with other C
/// libraries.
pub fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// glibc's initial value; setting it disables the dynamic threshold.
        const MMAP_THRESHOLD: i32 = 128 << 10;
        // SAFETY: it takes two integers; if it fails, nothing changes.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD) };
    }
}
