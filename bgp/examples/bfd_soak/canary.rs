//! Whether the processors ran at all: one thread on each, above everything else in the real-time class, that wakes
//! every few milliseconds and notes when it could not.
//!
//! A virtual machine whose host takes a processor away stands still as far as everybody on that processor is
//! concerned. What happens to a session meanwhile says nothing about the driver.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Between two looks.
const STEP: Duration = Duration::from_millis(2);
/// Above the driver, the routers and the kernel's own threads but the stopper.
const PRIORITY: i32 = 98;

/// A processor that did not run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap {
    pub(crate) cpu: usize,
    /// When it ran again.
    pub(crate) end: Instant,
    pub(crate) length: Duration,
}

/// The canaries of all processors.
pub(crate) struct Canaries {
    gaps: Arc<Mutex<Vec<Gap>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Canaries {
    /// Notes every gap longer than `least` from now on.
    pub(crate) fn start(least: Duration) -> Self {
        let (gaps, stop) = (Arc::default(), Arc::default());
        let cpus = 0..thread::available_parallelism().map_or(1, usize::from);
        let threads = cpus.map(|cpu| {
            let (gaps, stop) = (Arc::clone(&gaps), Arc::clone(&stop));
            thread::spawn(move || look(cpu, least, &gaps, &stop))
        });
        let threads = threads.collect();
        Self { gaps, stop, threads }
    }

    /// What processors missed that ended after `since`.
    pub(crate) fn since(&self, since: Instant) -> Vec<Gap> {
        let gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.iter().filter(|gap| gap.end >= since).copied().collect()
    }

    /// Ends the threads; an error if one could not do its work.
    pub(crate) fn stop(self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    }
}

/// The longest that one processor stood still within any `span`, all its gaps there taken together.
pub(crate) fn longest(gaps: &[Gap], span: Duration) -> Duration {
    let ending = |last: &Gap| {
        let within = gaps.iter().filter(|gap| gap.cpu == last.cpu && gap.end <= last.end && gap.end + span >= last.end);
        within.map(|gap| gap.length).sum()
    };
    gaps.iter().map(ending).max().unwrap_or_default()
}

fn look(cpu: usize, least: Duration, gaps: &Mutex<Vec<Gap>>, stop: &AtomicBool) -> io::Result<()> {
    pin(cpu)?;
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(STEP);
        let now = Instant::now();
        let length = now.duration_since(last).saturating_sub(STEP);
        if length > least {
            gaps.lock().unwrap_or_else(PoisonError::into_inner).push(Gap { cpu, end: now, length });
        }
        last = now;
    }
    Ok(())
}

/// Puts this thread on one processor and before all others there.
fn pin(cpu: usize) -> io::Result<()> {
    let check = |result| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: plain integers, for which zero is a value; the pointer is to a live value; 0 is this thread.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set))?;
    }
    run_before_others(PRIORITY)
}

/// Puts this thread into the real-time class, but not those that it starts.
pub(crate) fn run_before_others(priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the pointer is to a live value; 0 is this thread.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
