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

/// The body of an UPDATE whose lengths fit unless the input says otherwise: what random octets hardly ever are. An
/// octet says what stands before and after; then each attribute is flags, code, length and value, the low bits of
/// the flags, which nobody reads, tell lies about the length.
pub fn update_body(input: &mut Input<'_>) -> Vec<u8> {
    let choice = input.octet();
    let mut list = Vec::new();
    for (bit, usual) in [ORIGIN, AS_PATH, NEXT_HOP].into_iter().enumerate() {
        list.extend_from_slice(if choice & 1 << bit == 0 { usual } else { &[] });
    }
    while !input.is_empty() {
        let (flags, code, length) = (input.octet(), input.octet(), input.octet() & 63);
        let value = input.take(length.into());
        let lie = [0, 0, 0, 0, 0, 0, 1, 255][usize::from(flags & 7)];
        let told = (value.len() as u8).wrapping_add(lie);
        list.extend_from_slice(&[flags, code]);
        list.extend_from_slice(if flags & 0x10 == 0 { &[] } else { &[0] });
        list.push(told);
        list.extend_from_slice(value);
    }
    list.truncate(4000);
    let prefix: &[u8] = if choice & 8 == 0 { &[32, 198, 51, 100, 1] } else { &[] };
    [&[0, 0], &(list.len() as u16).to_be_bytes()[..], &list, prefix].concat()
}

/// What every route needs.
pub const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
pub const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xFC, 0x59];
pub const NEXT_HOP: &[u8] = &[0x40, 3, 4, 10, 0, 1, 2];

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
