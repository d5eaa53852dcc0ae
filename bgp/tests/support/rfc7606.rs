//! What an UPDATE deserves, written down a second time: plainly, from RFC 4271 §6.3, RFC 4760 §7 and RFC 7606, with
//! nothing of the decoder's. Tests and fuzz targets compare the two.
#![allow(unreachable_pub, missing_docs, dead_code)] // each user takes its part

use std::ops::RangeInclusive;

/// The session that the UPDATE comes in on.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    pub four_octet: bool,
    pub internal: bool,
    pub ipv4: bool,
    pub ipv6: bool,
    /// IPv6 next hops for IPv4 prefixes (RFC 8950).
    pub extended_next_hop: bool,
    /// Path identifiers before prefixes (RFC 7911), by family.
    pub add_path4: bool,
    pub add_path6: bool,
    /// The receiver's own address, which no next hop may be.
    pub own: std::net::IpAddr,
}

/// In order of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reaction {
    Nothing,
    Discard,
    TreatAsWithdraw,
}

/// What may be done with an UPDATE; one of the two at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// A NOTIFICATION of code 3 with one of these subcodes.
    pub resets: Vec<u8>,
    /// The session stays, and the reaction is of this range.
    pub stays: Option<RangeInclusive<Reaction>>,
}

use Reaction::{Discard, Nothing, TreatAsWithdraw};

/// Malformed Attribute List, Optional Attribute Error, Invalid Network Field.
const LIST: u8 = 1;
const OPTIONAL: u8 = 9;
const NETWORK: u8 = 10;

struct Judge<'a> {
    session: &'a Session,
    seen: Vec<u8>,
    least: Reaction,
    most: Reaction,
    /// There is an MP_REACH_NLRI of a family of the session, with so many prefixes.
    reach: Option<usize>,
    any_reach: bool,
    /// The list ends within an attribute.
    cut: bool,
    /// There are attributes beyond MP_UNREACH_NLRI and no sign of an announced prefix.
    unsure: bool,
}

/// Judges the body of an UPDATE (what follows the header).
pub fn judge(body: &[u8], session: &Session) -> Verdict {
    let mut judge = Judge {
        session,
        seen: vec![],
        least: Nothing,
        most: Nothing,
        reach: None,
        any_reach: false,
        cut: false,
        unsure: false,
    };
    match judge.update(body) {
        Err(resets) => Verdict { resets, stays: None },
        Ok(()) if !judge.unsure => Verdict { resets: vec![], stays: Some(judge.least..=judge.most) },
        // RFC 7606 §5.2: damage for which prefixes would be withdrawn, and none are to be seen.
        Ok(()) => {
            let resets = if judge.most == TreatAsWithdraw { vec![LIST] } else { vec![] };
            let stays = Some(judge.least..=judge.most).filter(|_| judge.least < TreatAsWithdraw);
            Verdict { resets, stays }
        }
    }
}

type Outcome = Result<(), Vec<u8>>;

impl Judge<'_> {
    fn must(&mut self, reaction: Reaction) {
        self.least = self.least.max(reaction);
        self.most = self.most.max(reaction);
    }

    fn may(&mut self, reaction: Reaction) {
        self.most = self.most.max(reaction);
    }

    /// RFC 7606 §3 b and i: the two lengths, then both fields of prefixes.
    fn update(&mut self, body: &[u8]) -> Outcome {
        let section = |at: usize| -> Option<usize> {
            let high = usize::from(*body.get(at)?);
            let low = usize::from(*body.get(at + 1)?);
            let end = at + 2 + high * 256 + low;
            (end <= body.len()).then_some(end)
        };
        let withdrawn = section(0).ok_or(vec![LIST])?;
        let attributes = section(withdrawn).ok_or(vec![LIST])?;
        let own_withdrawn = prefixes(&body[2..withdrawn], 32, self.session.add_path4);
        let own_announced = prefixes(&body[attributes..], 32, self.session.add_path4);
        let bad_fields = own_withdrawn.is_none() || own_announced.is_none();
        let list = self.list(&body[withdrawn + 2..attributes]);
        if bad_fields {
            // Several things may be wrong; any may be told.
            return Err([vec![NETWORK, LIST], list.err().unwrap_or_default()].concat());
        }
        list?;
        let more = self.cut || self.seen.iter().any(|code| *code != 15);
        self.unsure = more && !self.any_reach && attributes == body.len();
        let announces = self.session.ipv4 && own_announced.unwrap_or(0) > 0;
        self.mandatory(announces);
        Ok(())
    }

    /// RFC 7606 §3 d.
    fn mandatory(&mut self, announces: bool) {
        let has = |seen: &[u8], code| seen.contains(&code);
        let mut missing = !has(&self.seen, 1) || !has(&self.seen, 2);
        missing |= announces && !has(&self.seen, 3);
        missing |= self.session.internal && !has(&self.seen, 5);
        if !missing {
            return;
        }
        if announces || self.reach.is_some_and(|prefixes| prefixes > 0) {
            self.must(TreatAsWithdraw);
        } else if self.any_reach {
            // Nothing is announced, or nothing that this session carries: withdrawing it changes nothing.
            self.may(TreatAsWithdraw);
        }
    }

    fn list(&mut self, mut rest: &[u8]) -> Outcome {
        while !rest.is_empty() {
            let (flags, code) = (rest[0], rest.get(1).copied());
            let extended = flags & 0x10 != 0;
            let header = if extended { 4 } else { 3 };
            let length = match rest.get(2..header) {
                Some([low]) => Some(usize::from(*low)),
                Some([high, low]) => Some(usize::from(*high) * 256 + usize::from(*low)),
                _ => None,
            };
            let Some(value) = length.and_then(|length| rest.get(header..header + length)) else {
                // RFC 7606 §4, and §3 j where the prefixes cannot be read.
                if matches!(code, Some(14 | 15)) {
                    return Err(vec![LIST, OPTIONAL]);
                }
                self.must(TreatAsWithdraw);
                self.cut = true;
                return Ok(());
            };
            let code = code.expect("a value follows it");
            self.attribute(flags, code, value)?;
            rest = &rest[header + value.len()..];
        }
        Ok(())
    }

    fn attribute(&mut self, flags: u8, code: u8, value: &[u8]) -> Outcome {
        // RFC 7606 §3 g.
        if self.seen.contains(&code) {
            if matches!(code, 14 | 15) {
                return Err(vec![LIST]);
            }
            self.must(Discard);
            return Ok(());
        }
        self.seen.push(code);
        self.any_reach |= code == 14;
        if matches!(code, 14 | 15) {
            self.multiprotocol(code, value)?;
        }
        self.own_rules(flags, code, value);
        Ok(())
    }

    /// RFC 4760 §3, §4, §7, RFC 7606 §5.3, §7.11.
    fn multiprotocol(&mut self, code: u8, value: &[u8]) -> Outcome {
        let minimum = if code == 14 { 4 } else { 3 };
        if value.len() < minimum {
            return Err(vec![OPTIONAL]);
        }
        let (bits, add_path) = match value[..3] {
            [0, 1, 1] if self.session.ipv4 => (32, self.session.add_path4),
            [0, 2, 1] if self.session.ipv6 => (128, self.session.add_path6),
            _ => return Ok(()), // of a family that the session does not carry
        };
        let mut nlri = &value[3..];
        if code == 14 {
            let length = usize::from(nlri[0]);
            let v6 = bits == 128 || self.session.extended_next_hop;
            let fits = matches!((length, bits), (4, 32)) || v6 && matches!(length, 16 | 32);
            if !fits || nlri.len() < 1 + length + 1 {
                return Err(vec![OPTIONAL]);
            }
            let global = &nlri[1..1 + if length == 4 { 4 } else { 16 }];
            let own = match self.session.own {
                std::net::IpAddr::V4(own) => own.octets().to_vec(),
                std::net::IpAddr::V6(own) => own.octets().to_vec(),
            };
            if global == own {
                self.may(TreatAsWithdraw);
            }
            nlri = &nlri[1 + length + 1..];
        }
        let Some(count) = prefixes(nlri, bits, add_path) else { return Err(vec![OPTIONAL, NETWORK]) };
        if code == 14 {
            self.reach = Some(count);
        }
        Ok(())
    }

    /// RFC 7606 §3 c, e, f and §7.
    fn own_rules(&mut self, flags: u8, code: u8, value: &[u8]) {
        let length = value.len();
        let list = |size: usize| length != 0 && length.is_multiple_of(size);
        let four = self.session.four_octet;
        // The flags, whether the value is well formed, and what a malformed one deserves.
        let (wanted, fine, reaction) = match code {
            1 => (0x40, length == 1 && value[0] <= 2, TreatAsWithdraw),
            2 => (0x40, as_path(value, four), TreatAsWithdraw),
            3 => (0x40, length == 4, TreatAsWithdraw),
            4 => (0x80, length == 4, TreatAsWithdraw),
            5 if self.session.internal => (0x40, length == 4, TreatAsWithdraw),
            6 => (0x40, length == 0, Discard),
            7 => (0xC0, length == if four { 8 } else { 6 }, Discard),
            8 => (0xC0, list(4), TreatAsWithdraw),
            9 if self.session.internal => (0x80, length == 4, TreatAsWithdraw),
            10 if self.session.internal => (0x80, list(4), TreatAsWithdraw),
            // Not to be sent by another AS: discarded, whatever they hold.
            5 | 9 | 10 => return self.must(Discard),
            14 | 15 => (0x80, true, TreatAsWithdraw),
            16 => (0xC0, list(8), TreatAsWithdraw),
            17 | 18 if four => return self.must(Discard), // RFC 6793 §6
            32 => (0xC0, list(12), TreatAsWithdraw),
            // What else there is has rules of its own, or none: nothing of it may end the session.
            _ => return self.may(TreatAsWithdraw),
        };
        if flags & 0xC0 != wanted {
            self.must(TreatAsWithdraw);
        } else if !fine {
            self.must(reaction);
        }
        // Of what is well formed, some is of no use: AS 0 (RFC 7607), a next hop that is no host's.
        match code {
            2 | 3 => self.may(TreatAsWithdraw),
            7 => self.may(Discard),
            _ => {}
        }
    }
}

/// How many prefixes there are, or `None` where one is cut short or too long.
fn prefixes(mut rest: &[u8], bits: u8, add_path: bool) -> Option<usize> {
    let mut count = 0;
    while !rest.is_empty() {
        if add_path {
            rest = rest.get(4..)?;
        }
        let length = *rest.first()?;
        if length > bits {
            return None;
        }
        rest = rest.get(1 + usize::from(length).div_ceil(8)..)?;
        count += 1;
    }
    Some(count)
}

/// RFC 7606 §7.2: known segments that are not empty and fit.
fn as_path(mut rest: &[u8], four_octet: bool) -> bool {
    while !rest.is_empty() {
        let [kind, count, ..] = *rest else { return false };
        let length = 2 + usize::from(count) * if four_octet { 4 } else { 2 };
        if !(1..=4).contains(&kind) || count == 0 || rest.len() < length {
            return false;
        }
        rest = &rest[length..];
    }
    true
}
