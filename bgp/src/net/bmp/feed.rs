//! What waits for a station, bounded: the speaker's task never waits for it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bmp::Event;

/// Events that may wait for a station: some seconds of a busy speaker.
const QUEUE: usize = 1024;
/// Octets of UPDATEs that may wait for a station: a few full tables.
const QUEUED_OCTETS: usize = 16 * 1024 * 1024;

/// One thing to tell a station.
pub(super) enum Item {
    /// Everything that is so when the connection is made.
    Beginning(Vec<Event>),
    /// What happened since.
    Event(Event),
    /// A last word, then the connection closes for good.
    End,
}

/// The speaker's end. Dropping it ends the connection at once, even one that waits for the station to read.
pub(super) struct Feed {
    items: mpsc::Sender<Item>,
    waiting: Arc<AtomicUsize>,
    given_up: DropGuard,
}

/// The station's end.
pub(super) struct Inlet {
    pub(super) items: mpsc::Receiver<Item>,
    pub(super) given_up: CancellationToken,
    waiting: Arc<AtomicUsize>,
}

/// Both ends of a feed.
pub(super) fn feed() -> (Feed, Inlet) {
    let (sender, items) = mpsc::channel(QUEUE);
    let (waiting, given_up) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
    let inlet = Inlet { items, given_up: given_up.clone(), waiting: waiting.clone() };
    (Feed { items: sender, waiting, given_up: given_up.drop_guard() }, inlet)
}

impl Feed {
    pub(super) fn begin(&self, events: Vec<Event>) -> bool {
        self.items.try_send(Item::Beginning(events)).is_ok()
    }

    /// Whether there was room. A change that alone is larger than the bound still reaches a prompt station.
    pub(super) fn push(&self, event: &Event) -> bool {
        let weight = event.weight();
        let before = self.waiting.fetch_add(weight, Relaxed);
        (before == 0 || before + weight <= QUEUED_OCTETS) && self.items.try_send(Item::Event(event.clone())).is_ok()
    }

    /// Says a last word; false where there is no room for it, and the connection is given up.
    pub(super) fn end(self) -> bool {
        let said = self.items.try_send(Item::End).is_ok();
        if said {
            self.given_up.disarm();
        }
        said
    }
}

impl Inlet {
    /// An event was told, and no longer waits.
    pub(super) fn told(&self, event: &Event) {
        self.waiting.fetch_sub(event.weight(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bmp;

    #[test]
    fn feed_takes_what_fits_and_says_when_it_is_full() {
        let (feed, mut inlet) = feed();
        let event = bmp::some_event();
        assert!(feed.begin(vec![event.clone()]));
        let taken = (0..).take_while(|_| feed.push(&event)).count();
        assert_eq!(taken, QUEUE - 1);
        assert!(matches!(inlet.items.try_recv(), Ok(Item::Beginning(_))));
        assert!(feed.push(&event), "room again");
        assert!(!inlet.given_up.is_cancelled());
        drop(feed);
        assert!(inlet.given_up.is_cancelled());
    }
}
