//! Arrays of the kernel, mapped into this process: a table of 65,536 slots is written in microseconds, without
//! a system call for each. The one place of the packet path with `unsafe`.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use super::types::Config;

/// A plain value: any bytes are one, and it has no padding.
///
/// # Safety
/// The type must be `repr(C)`, `Copy`, without padding and valid for every bit pattern.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: arrays of u16 only.
unsafe impl Plain for super::types::Bucket {}
// SAFETY: integers and byte arrays; the sizes asserted there leave no padding.
unsafe impl Plain for super::types::Address {}
// SAFETY: as above.
unsafe impl Plain for super::types::Service {}
// SAFETY: as above.
unsafe impl Plain for super::types::Backend {}
// SAFETY: as above.
unsafe impl Plain for super::types::Node {}
// SAFETY: as above.
unsafe impl Plain for Config {}
// SAFETY: as above; `Pod` asks the same of keys and values.
unsafe impl aya::Pod for super::types::FlowKey {}
// SAFETY: as above.
unsafe impl aya::Pod for super::types::Flow {}
// SAFETY: as above.
unsafe impl aya::Pod for super::types::Handshakes {}
// SAFETY: as above.
unsafe impl aya::Pod for super::types::ServiceCounters {}

/// An array map. A part of it is mapped for as long as it takes to write it: what is mapped counts as memory of this
/// process, though it is the kernel's.
#[derive(Debug)]
pub(super) struct Array {
    fd: OwnedFd,
    /// In bytes.
    length: usize,
}

impl Array {
    /// The array behind `fd`, which must have so many bytes of values (stride: a multiple of 8).
    pub(super) fn new(fd: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        Ok(Self { fd: fd.try_clone_to_owned()?, length })
    }

    /// Stores values from an offset in bytes on. A program may see an entry half written: only entries that no
    /// program reads are written like this.
    ///
    /// # Panics
    /// Beyond the end of the array, or at an offset that is no multiple of 8.
    pub(super) fn store<T: Plain>(&self, offset: usize, values: &[T]) -> io::Result<()> {
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8) };
        assert!(offset + size_of_val(values) <= self.length, "{offset} + {} of {}", size_of_val(values), self.length);
        if values.is_empty() {
            return Ok(());
        }
        let window = Window::new(self.fd.as_fd(), offset, size_of_val(values))?;
        // SAFETY: the window has as many bytes, plain ones, and no program reads them before the head is published.
        unsafe {
            let to = window.base.as_ptr().add(window.skip);
            to.copy_from_nonoverlapping(values.as_ptr().cast(), size_of_val(values));
        }
        Ok(())
    }
}

/// A part of an array, mapped.
#[derive(Debug)]
struct Window {
    base: NonNull<u8>,
    mapped: usize,
    /// Of the first word, from `base`.
    skip: usize,
    length: usize,
}

impl Window {
    fn new(fd: BorrowedFd<'_>, offset: usize, length: usize) -> io::Result<Self> {
        assert!(offset.is_multiple_of(8) && length >= 8);
        let page = rustix::param::page_size();
        let skip = offset % page;
        let mapped = skip + length;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let at = libc::off_t::try_from(offset - skip).map_err(io::Error::other)?;
        // SAFETY: a new mapping, nothing of ours is replaced; the kernel checks the length against the map.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), mapped, protection, libc::MAP_SHARED, fd.as_raw_fd(), at) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { base, mapped, skip, length })
    }

    /// A word of 8 bytes; others read it.
    fn word(&self, n: usize) -> &AtomicU64 {
        assert!((n + 1) * 8 <= self.length);
        // SAFETY: within the mapping by the assertion, aligned since `skip` is a multiple of 8.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(self.skip + n * 8).cast()) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and nobody else has the address.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

/// What the programs read first, mapped for good.
#[derive(Debug)]
pub(super) struct Head(Window);

// SAFETY: the mapping belongs to this value alone, and every access is atomic.
unsafe impl Send for Head {}

impl Head {
    /// The config at the beginning of the array behind `fd`.
    pub(super) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Window::new(fd, 0, size_of::<Config>()).map(Self)
    }

    pub(super) fn load(&self) -> Config {
        let words: [u64; size_of::<Config>() / 8] = std::array::from_fn(|n| self.0.word(n).load(Ordering::Relaxed));
        // SAFETY: of the same size, and any bytes are a config.
        unsafe { std::mem::transmute(words) }
    }

    /// Stores all of it; the first word, which has the bank, last, and after everything that was stored before.
    pub(super) fn publish(&self, config: Config) {
        const { assert!(std::mem::offset_of!(Config, seed) < 8) };
        // SAFETY: as in `load`.
        let words: [u64; size_of::<Config>() / 8] = unsafe { std::mem::transmute(config) };
        for (n, word) in words.iter().enumerate().skip(1) {
            self.0.word(n).store(*word, Ordering::Relaxed);
        }
        self.0.word(0).store(words[0], Ordering::Release);
    }
}

/// Waits until every program that was running has ended: what was unpublished before may be reused after.
pub(super) fn wait_for_readers() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no pointers; MEMBARRIER_CMD_GLOBAL waits for an RCU grace period, and programs run inside one.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has large values given back to the kernel as soon as they are freed. glibc raises its limit for what counts as large
/// with the first one that is freed, and from then on keeps what a table takes for a moment.
pub(super) fn keep_large_values_apart() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointer goes in, and the allocator takes its own locks.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
    }
}

/// Gives what was freed back to the kernel. The loader reads the type information of the whole kernel, which takes
/// tens of megabytes for a moment; glibc would keep them for the life of the daemon.
pub(super) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointer goes in, and the allocator takes its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
