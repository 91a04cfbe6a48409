//! What llama.cpp makes necessary for the whole process.
#![allow(unsafe_code)]

/// Ends the process at once, with this status. As `std::process::exit`, but the destructors of
/// llama.cpp's globals do not run: its threads may still be computing, and would crash.
pub fn end_process(status: i32) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { libc::_exit(status) }
}

/// Has the allocator give large blocks back to the system when they are freed, all through the process.
///
/// At each switch of the adapter llama.cpp makes its scheduler anew: tens of megabytes, of which it touches
/// little. glibc raises the size from which it maps blocks by those that it sees freed, then takes the next
/// ones from its heap, where they have been touched before, lie scattered and stay: 15 MB with a small model.
/// Does nothing with other libraries.
pub fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// What glibc begins with; to set it is to keep it.
        const MAPPED_FROM: i32 = 128 << 10;
        // SAFETY: it takes two numbers, and a refusal, which it tells, changes nothing.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
    }
}
