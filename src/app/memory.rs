//! What is in memory stays there: passwords of peers and tokens of providers belong in no core file. And it stays small.

use rustix::process::{DumpableBehavior, Resource, Rlimit, geteuid, set_dumpable_behavior, setrlimit};
use tracing::warn;

/// No core is written, to a file or into a program, and none but root reads what the process has.
///
/// One that is not root gets no core file alone: undumpable, it could not even list its own sockets in `/proc/self/fd`.
pub(super) fn keep_private() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    let hidden = if geteuid().is_root() { set_dumpable_behavior(DumpableBehavior::NotDumpable) } else { Ok(()) };
    if let Err(error) = limited.and(hidden) {
        warn!(%error, "a crash may leave a core file, which has secrets in it");
    }
}

/// glibc gives threads heaps of their own, up to eight for each processor, and each keeps what it once had: a daemon grows
/// with every thread that had work. Two are enough for what allocates at once.
pub(super) fn share_heaps() {
    #[cfg(target_env = "gnu")]
    {
        const HEAPS: libc::c_int = 2;
        // SAFETY: sets a number of the allocator's own, under its own lock.
        let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
        if set != 1 {
            tracing::debug!("the allocator takes no bound for its heaps");
        }
    }
}
