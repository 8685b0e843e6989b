//! Keeps the C library's allocator from giving the memory of the maps back between two ops.
//!
//! libtorch takes the memory for every result from `malloc`. glibc serves blocks above 32 MiB by mapping fresh pages and
//! unmaps them when they are freed, and cuts the heap whenever enough is free at its end: each op then waits for the kernel to
//! clear its pages again. A factorized layer suffers most, with few multiply-adds and maps as large as the dense layer's.
//!
//! AlexNet in `examples/layouts.rs` (one thread, batch 1, channels-last, with and without the settings below at the same
//! time): evaluation in CP-4 24 ms instead of 55, a training step in CP-3 123 ms instead of 388.

/// Sets up the allocator of the whole process, once, to keep freed memory, up to 2 GiB at the end of the heap: without that, the kernel
/// clears the pages of every large map anew, which takes longer than a factorized layer itself. Does nothing where the C library is not
/// glibc.
///
/// For programs, first thing in `main`; a library has no say in how a process handles its memory.
pub fn keep_freed_memory() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(set_up);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "the allocator's settings have no safe interface")]
fn set_up() {
    // SAFETY: mallopt takes two integers by value and locks the allocator itself; with these two parameters it only sets
    // limits that later calls of malloc and free read. Blocks that are mapped already are unmapped when freed, as before.
    // It returns 0 where it refuses a value, and the allocator goes on as it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set_up() {}
