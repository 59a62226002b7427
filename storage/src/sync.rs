//! Makes sled's sync real, and syncs directories.
//!
//! On Linux sled 0.34.7 ends each buffer write in `sync_file_range`, which flushes neither the
//! file's size nor the drive's cache, and `Tree::flush` returns after that: 59 of 60 simulated
//! power cuts lost acknowledged writes. Replacing the call by `fdatasync` makes sled's own ordering
//! real: 0 of 180 (DESIGN, section 4). sled itself falls back to `fsync` where the call is missing.
//!
//! The symbol defined here takes precedence over libc's at link time. [`ensure_linked`] is called
//! wherever sled is opened: it keeps this module in every binary that uses sled and proves, once
//! per process, that the call sled makes ends up here.
//!
//! # What is absent on purpose
//!
//! - Any other `unsafe` but one option of the allocator, set in the binary's `main`.
#![allow(unsafe_code, reason = "overriding a libc symbol needs an exported extern fn")]

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

static SYNC_CALLS: AtomicU64 = AtomicU64::new(0);

/// Takes the place of libc's function of this name: syncs the whole file, data and size.
///
/// # Safety
///
/// Has no requirement beyond libc's: `fdatasync` answers EBADF for a descriptor that is not open.
#[unsafe(no_mangle)]
pub extern "C" fn sync_file_range(
    fd: libc::c_int,
    _offset: libc::off64_t,
    _bytes: libc::off64_t,
    _flags: libc::c_uint,
) -> libc::c_int {
    SYNC_CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: takes an integer, reads no memory of ours.
    unsafe { libc::fdatasync(fd) }
}

/// How often sled has synced a file in this process.
pub fn sync_calls() -> u64 {
    SYNC_CALLS.load(Ordering::Relaxed)
}

/// Checks that `sync_file_range`, looked up as sled looks it up, is ours.
///
/// # Panics
///
/// If it is not: such a binary would acknowledge what a power cut takes away.
pub fn ensure_linked() {
    mod linked {
        unsafe extern "C" {
            pub fn sync_file_range(
                fd: libc::c_int,
                offset: libc::off64_t,
                bytes: libc::off64_t,
                flags: libc::c_uint,
            ) -> libc::c_int;
        }
    }
    let before = sync_calls();
    // SAFETY: -1 is never an open descriptor; either implementation answers EBADF.
    let answer = unsafe { std::hint::black_box(linked::sync_file_range)(-1, 0, 0, 0) };
    debug_assert_eq!(answer, -1);
    assert!(sync_calls() > before, "sync_file_range is not the one of punchline-storage");
}

/// Syncs a directory, so that the names in it survive.
///
/// # Errors
///
/// What the system says.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Syncs a file and everything the system remembers of it, then makes the system forget what it
/// remembers, so that the next read shows what the disk holds. After a sync has failed Linux keeps
/// the lost pages, marked clean, and would show them as if they had been written.
///
/// # Errors
///
/// What the system says; a missing file is no error.
pub fn sync_and_forget(path: &Path) -> io::Result<()> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    file.sync_all()?;
    // SAFETY: takes integers, reads no memory of ours; the descriptor is open until `file` drops.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Bytes that an unprivileged process may still write to the file system of `path`.
///
/// # Errors
///
/// What the system says.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `name` is a terminated string and `stat` has room for the answer.
    if unsafe { libc::statvfs(name.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statvfs has filled it in, since it returned 0.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
