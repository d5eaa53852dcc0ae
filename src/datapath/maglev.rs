//! Maglev look-up tables (Eisenbud et al., NSDI 2016, §3.4), weighted, with equal tables from equal members.
//!
//! Every member has a permutation of the slots, made of its key alone. In turns, as often as its weight says,
//! each member takes the first slot of its permutation that is still free. So each gets its share almost
//! exactly, and a member that comes or goes moves little but its own slots.
//!
//! The last slots are the costly ones: with `f` of `m` free, a member looks at `m / f` places to find one. When `f`
//! is near the square root of `m` it is cheaper to ask which free slot stands first in the member's permutation; that
//! gives the same table in half the time. Whether a single place is free nobody can predict, so four are looked at
//! together; and where `m` is a power of two, as it is in all tables of ours, places are counted in 16 bits, and the
//! last slots compared eight at a time.

/// A free slot, or a slot of a table without members.
pub const NONE: u16 = u16::MAX;

/// Most members of one table.
pub const MAX_MEMBERS: usize = NONE as usize;

/// One who takes slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Who it is: the same on every node, whatever the others are. See [`key`].
    pub key: u64,
    /// Its share, relative to the others; 0 takes nothing.
    pub weight: u32,
}

/// The key of a member with this identity; stable across nodes, versions and architectures.
pub fn key(identity: &[u8]) -> u64 {
    let mut h = 0x243f_6a88_85a3_08d3_u64 ^ identity.len() as u64;
    for chunk in identity.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        h = mix(h ^ u64::from_le_bytes(word));
    }
    h
}

/// SplitMix64's finaliser: a bijection without visible structure.
fn mix(mut h: u64) -> u64 {
    h = h.wrapping_add(0x9e37_79b9_7f4a_7c15);
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

/// The table: for every slot the index of its member, [`NONE`] when no member has a weight.
///
/// `slots` may be any number from 1 to 2¹⁶; primes and powers of two spread best. Members are taken in the
/// order of their keys, so that the order of the slice changes nothing but the indices.
///
/// # Panics
/// With more than [`MAX_MEMBERS`] members, or a number of slots outside the range.
pub fn build(members: &[Member], slots: u32) -> Vec<u16> {
    assert!(members.len() <= MAX_MEMBERS, "a table has at most {MAX_MEMBERS} members");
    assert!((1..=1 << 16).contains(&slots), "a table has 1 to 2^16 slots");
    let mut order: Vec<u16> = (0..members.len() as u16).filter(|&i| members[usize::from(i)].weight > 0).collect();
    order.sort_by_key(|&i| (members[usize::from(i)].key, i));
    let mut turns: Vec<Turn> = order.iter().map(|&i| Turn::new(i, members[usize::from(i)], slots)).collect();
    let mut table = vec![NONE; slots as usize];
    if !turns.is_empty() {
        match slots.is_power_of_two() {
            true => fill::<true>(&mut table, &mut turns, slots),
            false => fill::<false>(&mut table, &mut turns, slots),
        }
    }
    table
}

/// A member while the table is filled.
struct Turn {
    member: u16,
    weight: u64,
    /// Saved up since its last turn; a turn costs the largest weight.
    credit: u64,
    offset: u16,
    skip: u16,
    /// The next place of its permutation.
    next: u16,
    /// That, and those behind it, are so far ahead.
    ahead: [u16; TOGETHER],
}

/// Places that are looked at together.
const TOGETHER: usize = 4;

impl Turn {
    fn new(index: u16, member: Member, slots: u32) -> Self {
        let offset = (mix(member.key) % u64::from(slots)) as u16;
        let skip = coprime((mix(member.key ^ 0xa5a5_a5a5_a5a5_a5a5) % u64::from(slots.max(2) - 1)) as u32 + 1, slots);
        let ahead = std::array::from_fn(|n| (n as u64 * u64::from(skip) % u64::from(slots)) as u16);
        Self { member: index, weight: member.weight.into(), credit: 0, offset, skip: skip as u16, next: offset, ahead }
    }

    /// Saves up, and says whether it is its turn.
    fn comes(&mut self, heaviest: u64) -> bool {
        self.credit += self.weight;
        let comes = self.credit >= heaviest;
        if comes {
            self.credit -= heaviest;
        }
        comes
    }

    /// Walks the permutation to the first free slot.
    #[inline(always)]
    fn walk<const POWER: bool>(&mut self, free: &Free, slots: u32) -> u16 {
        let step = |from, by| step::<POWER>(from, by, slots);
        loop {
            let is_free = |n: usize| u32::from(free.has(step(self.next, self.ahead[n]))) << n;
            let any = (0..TOGETHER).fold(0, |any, n| any | is_free(n));
            if any != 0 {
                let at = step(self.next, self.ahead[any.trailing_zeros() as usize % TOGETHER]);
                self.next = step(at, self.skip);
                return at;
            }
            self.next = step(step(self.next, self.ahead[TOGETHER - 1]), self.skip);
        }
    }
}

/// Which slots are free: an octet each. With a bit each, members that meet in a word, and they often do, wait for each
/// other.
struct Free(Box<[bool; 1 << 16]>);

impl Free {
    fn has(&self, slot: u16) -> bool {
        self.0[usize::from(slot)]
    }

    fn take(&mut self, slot: u16) {
        self.0[usize::from(slot)] = false;
    }
}

/// So far ahead, round the table; `POWER` says that its size is a power of two.
#[inline(always)]
fn step<const POWER: bool>(from: u16, by: u16, slots: u32) -> u16 {
    if POWER {
        return from.wrapping_add(by) & (slots - 1) as u16;
    }
    let to = u32::from(from) + u32::from(by);
    // Below `slots` this wraps, and is not the smaller one.
    to.min(to.wrapping_sub(slots)) as u16
}

fn fill<const POWER: bool>(table: &mut [u16], turns: &mut [Turn], slots: u32) {
    let heaviest = turns.iter().map(|t| t.weight).max().expect("there is a member");
    let few = if POWER { slots.isqrt() * 3 / 2 } else { slots.isqrt() };
    let mut left = slots;
    let mut free = Free(Box::new([true; 1 << 16]));
    let (members, mut at_turn) = (turns.len(), 0);
    while left > few {
        let turn = &mut turns[at_turn];
        at_turn = if at_turn + 1 == members { 0 } else { at_turn + 1 };
        if turn.comes(heaviest) {
            let at = turn.walk::<POWER>(&free, slots);
            free.take(at);
            table[usize::from(at)] = turn.member;
            left -= 1;
        }
    }
    rest::<POWER>(table, turns, at_turn, heaviest, slots);
}

/// Gives out the last few slots, beginning with the member whose turn it is.
fn rest<const POWER: bool>(table: &mut [u16], turns: &mut [Turn], mut at_turn: usize, heaviest: u64, slots: u32) {
    let is_free = |s: &u32| table[*s as usize] == NONE;
    let mut free: Vec<u16> = (0..slots).filter(is_free).map(|s| s as u16).collect();
    let inverse: Vec<u16> = turns.iter().map(|t| invert(t.skip.into(), slots) as u16).collect();
    while !free.is_empty() {
        let turn = &mut turns[at_turn];
        if turn.comes(heaviest) {
            let first = first_of::<POWER>(&free, turn, inverse[at_turn], slots);
            table[usize::from(free.swap_remove(first))] = turn.member;
        }
        at_turn = (at_turn + 1) % turns.len();
    }
}

/// Which of the free slots stands first in the permutation `offset + n * skip`.
fn first_of<const POWER: bool>(free: &[u16], turn: &Turn, inverse: u16, slots: u32) -> usize {
    if POWER {
        let mask = (slots - 1) as u16;
        let places = free.iter().map(|slot| slot.wrapping_sub(turn.offset).wrapping_mul(inverse) & mask);
        let place = places.min().expect("a slot is free");
        let slot = turn.offset.wrapping_add(place.wrapping_mul(turn.skip)) & mask;
        return free.iter().position(|s| *s == slot).expect("it is one of them");
    }
    let reciprocal = 1.0 / f64::from(slots);
    let from_offset = |slot: u16| u64::from(slot) + u64::from(slots) - u64::from(turn.offset);
    let place = |slot: u16| modulo(from_offset(slot) * u64::from(inverse), slots, reciprocal);
    (0..free.len()).min_by_key(|&i| place(free[i])).expect("a slot is free")
}

/// `n mod m` without a division; exact for `n` below 2⁵³, where the quotient is off by at most one.
fn modulo(n: u64, m: u32, reciprocal: f64) -> u64 {
    let quotient = (n as f64 * reciprocal) as i64;
    let rest = n as i64 - quotient * i64::from(m);
    let m = i64::from(m);
    (rest + if rest < 0 { m } else { 0 } - if rest >= m { m } else { 0 }) as u64
}

/// The smallest number from `n` on (round the circle) that shares no factor with `m`.
fn coprime(n: u32, m: u32) -> u32 {
    (n..m).chain(1..=n).find(|&c| gcd(c, m) == 1).unwrap_or(1)
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// `n⁻¹ mod m`; the two share no factor.
fn invert(n: u32, m: u32) -> u32 {
    let (mut r, mut t) = ((i64::from(m), i64::from(n)), (0_i64, 1_i64));
    while r.1 != 0 {
        let q = r.0 / r.1;
        r = (r.1, r.0 - q * r.1);
        t = (t.1, t.0 - q * t.1);
    }
    t.0.rem_euclid(m.into()) as u32
}

#[cfg(test)]
mod tests;
