//! What the fuzz targets share: how much memory an input takes, and the second statement of the rules that the
//! tests of `ironcast-bgp` compare with.

#[path = "../../tests/support/dialogue.rs"]
pub mod dialogue;
pub mod memory;
#[path = "../../tests/support/rfc7606.rs"]
pub mod rfc7606;

use ironcast_bgp::wire::{Families, update::Context};

/// Takes octets off the front of an input; zeros once there are none.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn octet(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn word(&mut self) -> u32 {
        (0..4).fold(0, |word, _| word << 8 | u32::from(self.octet()))
    }

    /// At most so many.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// A session's context from an octet, and the same for the second statement of the rules.
pub fn context(flags: u8) -> (Context, rfc7606::Session) {
    let on = |bit: u8| flags & 1 << bit != 0;
    let own = [10, 0, 1, 1].into();
    let families = |v4, v6| {
        use ironcast_bgp::Family::{Ipv4Unicast, Ipv6Unicast};
        Families::from_iter([(v4, Ipv4Unicast), (v6, Ipv6Unicast)].into_iter().filter(|(on, _)| *on).map(|(_, f)| f))
    };
    let session = rfc7606::Session {
        four_octet: !on(0),
        internal: on(1),
        ipv4: !on(2),
        ipv6: !on(3),
        extended_next_hop: on(4),
        add_path4: on(5),
        add_path6: on(6),
        own,
    };
    let context = Context {
        four_octet: session.four_octet,
        internal: session.internal,
        families: families(session.ipv4, session.ipv6),
        add_path: families(session.add_path4, session.add_path6),
        extended_next_hop: session.extended_next_hop,
        local: Some(own),
    };
    (context, session)
}
