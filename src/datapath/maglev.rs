//! Maglev look-up tables (Eisenbud et al., NSDI 2016, §3.4), weighted, with equal tables from equal members.
//!
//! Every member has a permutation of the slots, made of its key alone. In turns, as often as its weight says,
//! each member takes the first slot of its permutation that is still free. So each gets its share almost
//! exactly, and a member that comes or goes moves little but its own slots.
//!
//! The last slots are the costly ones: with `f` of `m` free, a member looks at `m / f` places to find one. When `f`
//! is below the square root of `m` it is cheaper to ask which free slot stands first in the member's
//! permutation; that gives the same table in half the time.

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
/// `slots` may be any number from 1 to 2²⁴; primes and powers of two spread best. Members are taken in the
/// order of their keys, so that the order of the slice changes nothing but the indices.
///
/// # Panics
/// With more than [`MAX_MEMBERS`] members, or a number of slots outside the range.
pub fn build(members: &[Member], slots: u32) -> Vec<u16> {
    assert!(members.len() <= MAX_MEMBERS, "a table has at most {MAX_MEMBERS} members");
    assert!((1..=1 << 24).contains(&slots), "a table has 1 to 2^24 slots");
    let mut order: Vec<u16> = (0..members.len() as u16).filter(|&i| members[usize::from(i)].weight > 0).collect();
    order.sort_by_key(|&i| (members[usize::from(i)].key, i));
    let mut turns: Vec<Turn> = order.iter().map(|&i| Turn::new(i, members[usize::from(i)], slots)).collect();
    let mut table = vec![NONE; slots as usize];
    if !turns.is_empty() {
        fill(&mut table, &mut turns, slots);
    }
    table
}

/// A member while the table is filled.
struct Turn {
    member: u16,
    weight: u64,
    /// Saved up since its last turn; a turn costs the largest weight.
    credit: u64,
    offset: u32,
    skip: u32,
    /// The next place of its permutation.
    next: u32,
}

impl Turn {
    fn new(index: u16, member: Member, slots: u32) -> Self {
        let offset = (mix(member.key) % u64::from(slots)) as u32;
        let skip = coprime((mix(member.key ^ 0xa5a5_a5a5_a5a5_a5a5) % u64::from(slots.max(2) - 1)) as u32 + 1, slots);
        Self { member: index, weight: member.weight.into(), credit: 0, offset, skip, next: offset }
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
    fn walk(&mut self, free: &[u64], slots: u32) -> u32 {
        let mut at = self.next;
        while free[(at >> 6) as usize] & (1 << (at & 63)) == 0 {
            at = step(at, self.skip, slots);
        }
        self.next = step(at, self.skip, slots);
        at
    }
}

fn step(at: u32, skip: u32, slots: u32) -> u32 {
    let next = at + skip;
    if next >= slots { next - slots } else { next }
}

fn fill(table: &mut [u16], turns: &mut [Turn], slots: u32) {
    let heaviest = turns.iter().map(|t| t.weight).max().expect("there is a member");
    let few = slots.isqrt();
    let mut left = slots;
    let mut free = vec![u64::MAX; (slots as usize).div_ceil(64)];
    let (members, mut at_turn) = (turns.len(), 0);
    while left > few {
        let turn = &mut turns[at_turn];
        at_turn = if at_turn + 1 == members { 0 } else { at_turn + 1 };
        if turn.comes(heaviest) {
            let at = turn.walk(&free, slots);
            free[(at >> 6) as usize] &= !(1 << (at & 63));
            table[at as usize] = turn.member;
            left -= 1;
        }
    }
    rest(table, turns, at_turn, heaviest, slots);
}

/// Gives out the last few slots, beginning with the member whose turn it is.
fn rest(table: &mut [u16], turns: &mut [Turn], mut at_turn: usize, heaviest: u64, slots: u32) {
    let mut free: Vec<u32> = (0..slots).filter(|&s| table[s as usize] == NONE).collect();
    let inverse: Vec<u32> = turns.iter().map(|t| invert(t.skip, slots)).collect();
    while !free.is_empty() {
        let turn = &mut turns[at_turn];
        if turn.comes(heaviest) {
            let first = first_of(&free, turn.offset, inverse[at_turn], slots);
            table[free.swap_remove(first) as usize] = turn.member;
        }
        at_turn = (at_turn + 1) % turns.len();
    }
}

/// Which of the free slots stands first in the permutation `offset + n * skip`.
fn first_of(free: &[u32], offset: u32, inverse: u32, slots: u32) -> usize {
    let reciprocal = 1.0 / f64::from(slots);
    let place = |slot: u32| modulo(u64::from(slot + slots - offset) * u64::from(inverse), slots, reciprocal);
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
