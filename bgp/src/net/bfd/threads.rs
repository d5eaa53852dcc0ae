//! The two threads that keep watch and how they take turns, and the one that publishes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::warn;

use super::{
    BfdConfig, Class, Sessions, Shared,
    driver::{Driver, Next},
    link::GRACE,
    socket::{self, Timer},
    vigil::Role,
    wait::{Waiter, Woken},
};

/// What both work on; `None` once it is over. Held while something is done, never while one sleeps.
type Work = Arc<Mutex<Option<Driver>>>;

/// The thread that does the work.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    work: Work,
    waiter: Waiter,
}

impl Drop for Keeper {
    /// Also of a thread that fails: the watch closes, and its followers know.
    fn drop(&mut self) {
        self.shared.vigil.plan(Role::Keeper, None);
        self.shared.vigil.end();
        self.shared.herald.ring();
    }
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, driver: Driver) -> std::io::Result<Self> {
        Ok(Self { shared, work: Arc::new(Mutex::new(Some(driver))), waiter: Waiter::new()? })
    }

    pub(super) fn run(mut self, config: &BfdConfig) {
        let class = match config.priority.map(|priority| (priority, socket::become_real_time(priority))) {
            None => Class::Normal,
            Some((priority, Ok(()))) => Class::RealTime(priority),
            Some((_, Err(error))) => {
                warn!(%error, "BFD runs without real-time priority and may be late; give it CAP_SYS_NICE");
                Class::Refused(error.to_string())
            }
        };
        // In the normal class a thread is late because others run, and that says nothing of its processor.
        if let Class::RealTime(priority) = class
            && let Err(error) = Relief::start(&self.shared, &self.work, priority)
        {
            warn!(%error, "BFD has no second thread, and a processor that stands still ends sessions");
        }
        self.shared.metrics.class.set(class).expect("set once, here");
        self.shared.metrics.memory_locked.store(socket::lock_memory().is_ok(), Relaxed);
        while self.turn() == Next::Continue {}
    }

    fn turn(&mut self) -> Next {
        let vigil = &self.shared.vigil;
        let Some(plan) = lock(&self.work).as_ref().map(Driver::plan) else { return Next::End };
        vigil.plan(Role::Keeper, plan.due);
        let woken = match self.waiter.wait(&plan, &self.shared.bell) {
            Ok(woken) => woken,
            Err(error) => {
                warn!(%error, "BFD driver ends");
                *lock(&self.work) = None;
                return Next::End;
            }
        };
        vigil.plan(Role::Keeper, Some(woken.now));
        if let Some(lateness) = woken.lateness
            && self.shared.metrics.note_wakeup(lateness)
        {
            vigil.note_woken(woken.now, lateness, GRACE);
        }
        act(&mut lock(&self.work), &woken, Role::Keeper)
    }
}

/// The thread that publishes.
pub(super) struct Herald {
    shared: Arc<Shared>,
    publish: watch::Sender<Sessions>,
    priority: Option<u8>,
}

impl Herald {
    pub(super) fn new(shared: Arc<Shared>, publish: watch::Sender<Sessions>, config: &BfdConfig) -> Self {
        // Behind the others, before everybody who is no real-time thread: what it says ends BGP sessions.
        let priority = config.priority.map(|priority| priority.saturating_sub(1).max(1));
        Self { shared, publish, priority }
    }

    /// Until it is over; the watch closes with it.
    pub(super) fn run(self) {
        if let Some(priority) = self.priority {
            // The keeper says so if this is refused.
            let _ = socket::become_real_time(priority);
        }
        loop {
            self.shared.herald.silence();
            let over = self.shared.vigil.is_over();
            let news = self.shared.news.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(sessions) = news {
                self.publish.send_replace(sessions);
            }
            if over || socket::wait(&mut [socket::poll_entry(Some(&self.shared.herald))]).is_err() {
                return;
            }
        }
    }
}

/// The thread that stands by.
struct Relief {
    shared: Arc<Shared>,
    work: Work,
    timer: Timer,
}

impl Relief {
    /// Divides the processors between the two, and starts the second; nothing where there is one processor.
    fn start(shared: &Arc<Shared>, work: &Work, priority: u8) -> std::io::Result<()> {
        let cpus = socket::processors()?;
        if cpus.len() < 2 {
            return Ok(());
        }
        // The first processors have the most interrupts.
        let (first, last) = cpus.split_at(cpus.len() / 2);
        let first = first.to_vec();
        let relief = Self { shared: Arc::clone(shared), work: Arc::clone(work), timer: Timer::new()? };
        let begin = move || {
            if socket::become_real_time(priority).is_ok() && socket::run_on(&first).is_ok() {
                relief.run();
            }
        };
        thread::Builder::new().name("bfd-relief".into()).spawn(begin)?;
        socket::run_on(last)
    }

    fn run(self) {
        let vigil = &self.shared.vigil;
        let mut due = Instant::now();
        while !vigil.is_over() {
            let now = Instant::now();
            vigil.plan(Role::Relief, Some(now));
            let lateness = now.saturating_duration_since(due);
            if lateness > Duration::from_millis(2) {
                vigil.note_woken(now, lateness, GRACE);
            }
            due = match vigil.overdue(Role::Keeper, now) {
                None => vigil.next_look(now),
                Some(_) => match self.take_over(now) {
                    Some(at) => at,
                    None => return,
                },
            };
            vigil.plan(Role::Relief, Some(due));
            self.timer.sleep_until(due);
        }
    }

    /// Does the keeper's work once. When to do it again, or `None` when it is over.
    fn take_over(&self, now: Instant) -> Option<Instant> {
        /// Where the keeper stands still in the midst of its work, it must come back by itself.
        const AGAIN: Duration = Duration::from_millis(1);
        let Ok(mut work) = self.work.try_lock() else { return Some(now + AGAIN) };
        self.shared.metrics.reliefs.fetch_add(1, Relaxed);
        let woken = Woken { now, lateness: None, readable: [true; 4], echo: true, bell: self.shared.bell.rings() };
        match act(&mut work, &woken, Role::Relief) {
            Next::End => None,
            Next::Continue => {
                let due = work.as_ref().and_then(|driver| driver.plan().due);
                Some(due.unwrap_or(now + AGAIN).clamp(now + AGAIN, now + Duration::from_millis(8)))
            }
        }
    }
}

fn lock(work: &Work) -> MutexGuard<'_, Option<Driver>> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A driver that is over is dropped at once, and its sockets with it.
fn act(work: &mut Option<Driver>, woken: &Woken, role: Role) -> Next {
    let Some(driver) = work else { return Next::End };
    let next = driver.turn(woken, role);
    if next == Next::End {
        *work = None;
    }
    next
}
