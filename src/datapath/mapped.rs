//! Arrays of the kernel, mapped into this process: a table of 65,536 slots is written in microseconds, without
//! a system call for each. The one place of the packet path with `unsafe`.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

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
unsafe impl Plain for super::types::Config {}
// SAFETY: as above; `Pod` asks the same of keys and values.
unsafe impl aya::Pod for super::types::FlowKey {}
// SAFETY: as above.
unsafe impl aya::Pod for super::types::Flow {}
// SAFETY: as above.
unsafe impl aya::Pod for super::types::ServiceCounters {}

/// An array map of `T`, mapped for writing; readers are the programs.
#[derive(Debug)]
pub(super) struct Mapped<T> {
    base: NonNull<T>,
    entries: usize,
    values: PhantomData<T>,
}

// SAFETY: the mapping belongs to this value alone, and every access goes through it.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: Plain> Mapped<T> {
    /// Maps the array behind `fd`, which must have `entries` values of this type (stride: a multiple of 8).
    pub(super) fn new(fd: BorrowedFd<'_>, entries: usize) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8) };
        let length = entries * size_of::<T>();
        // SAFETY: a new mapping, nothing of ours is replaced; the kernel checks the length against the map.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { base, entries, values: PhantomData })
    }

    /// Stores values from an index on. A program may see an entry half written: only entries that no program
    /// reads are written like this.
    ///
    /// # Panics
    /// Beyond the end of the array.
    pub(super) fn store(&self, at: usize, values: &[T]) {
        assert!(at + values.len() <= self.entries, "{at} + {} of {}", values.len(), self.entries);
        for (n, value) in values.iter().enumerate() {
            // SAFETY: within the mapping, by the assertion; volatile, since others read it.
            unsafe { self.base.as_ptr().add(at + n).write_volatile(*value) };
        }
    }

    /// One value.
    ///
    /// # Panics
    /// Beyond the end of the array.
    pub(super) fn load(&self, at: usize) -> T {
        assert!(at < self.entries, "{at} of {}", self.entries);
        // SAFETY: within the mapping, by the assertion, and any bytes are a value.
        unsafe { self.base.as_ptr().add(at).read_volatile() }
    }

    /// Stores an aligned word of 4 bytes, at an offset in bytes, after everything stored before.
    ///
    /// # Panics
    /// Beyond the end of the array, or unaligned.
    pub(super) fn publish(&self, offset: usize, word: u32) {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.entries * size_of::<T>());
        // SAFETY: aligned and within the mapping, by the assertion; the mapping is at least page aligned.
        let word_at = unsafe { AtomicU32::from_ptr(self.base.as_ptr().cast::<u8>().add(offset).cast()) };
        word_at.store(word, Ordering::Release);
    }
}

impl Mapped<u64> {
    /// Stores slots, each in one piece.
    ///
    /// # Panics
    /// Beyond the end of the array.
    pub(super) fn store_slots(&self, at: usize, slots: &[u64]) {
        assert!(at + slots.len() <= self.entries, "{at} + {} of {}", slots.len(), self.entries);
        for (n, slot) in slots.iter().enumerate() {
            // SAFETY: within the mapping, aligned to 8.
            unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at + n)) }.store(*slot, Ordering::Relaxed);
        }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and nobody else has the address.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.entries * size_of::<T>()) };
    }
}

/// Waits until every program that was running has ended: what was unpublished before may be reused after.
pub(super) fn wait_for_readers() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no pointers; MEMBARRIER_CMD_GLOBAL waits for an RCU grace period, and programs run inside one.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
