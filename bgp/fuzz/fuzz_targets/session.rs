//! Anything that a router may say after a valid handshake, in any pieces, with any time between: no panic, bounded
//! memory, and the session ends only where the RFCs end it.
#![no_main]

use std::time::Duration;

use ironcast_bgp::{
    speaker::{Received, State},
    wire::{
        message::{Kind, frame},
        open,
    },
};
use ironcast_bgp_fuzz::{
    Input,
    dialogue::{self, Dialogue, EXTENDED, INTERNAL, OLD, Outcome, PLAIN, Router, STAYS, WIDE, message},
    memory,
    rfc7606::{Reaction, judge},
    update_body,
};

/// What an input may make the speaker hold: some events for each prefix of it, and a last message.
const MEMORY: usize = 8 * 1024 * 1024;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Input(&data[..data.len().min(64 * 1024)]);
    let choice = input.octet();
    let routers = [PLAIN, EXTENDED, INTERNAL, OLD];
    let router = if choice & 16 == 0 { &routers[usize::from(choice & 3)] } else { &WIDE };
    memory::within(MEMORY, || {
        if choice & 4 == 0 {
            messages(router, &mut input);
        } else if choice & 8 == 0 {
            octets(Dialogue::established(router), &mut input);
        } else {
            octets(Dialogue::connected(router), &mut input);
        }
    });
});

/// Whole messages: each gets exactly what its RFC asks for.
fn messages(router: &Router, input: &mut Input<'_>) {
    let mut dialogue = Dialogue::established(router);
    let session = router.session();
    let mut silent = Duration::ZERO;
    while !input.is_empty() {
        let (kind, length) = (input.octet(), usize::from(input.octet()) << 4 | usize::from(input.octet() & 15));
        if kind & 0xF0 == 0xF0 {
            silent += Duration::from_millis(length as u64 * 8);
            let outcome = dialogue.wait(Duration::from_millis(length as u64 * 8));
            // RFC 4271 §4.4: the hold time that both OPENs gave is 90 s.
            if outcome != STAYS {
                assert!(silent >= Duration::from_secs(90) && outcome == dialogue::notified(4, 0, &[]), "{outcome:?}");
                return;
            }
            continue;
        }
        let said = match kind {
            0x80.. if kind % 7 == 2 => message(2, &update_body(&mut Input(input.take(length)))),
            _ => message(kind % 7, input.take(length)),
        };
        let before = dialogue.counters();
        dialogue.received.clear();
        let outcome = dialogue.say(&said);
        assert!(dialogue.received.len() <= said.len() + 2, "events are bounded by what came");
        let found = frame(&said, router.capabilities == EXTENDED.capabilities);
        let right = match found {
            Err(_) => matches!(&outcome, Outcome::Notified { code: 1, .. }),
            Ok(None) => unreachable!("whole messages are said"),
            Ok(Some(found)) => match (found.kind, &outcome) {
                (Kind::Keepalive, outcome) => *outcome == STAYS,
                (Kind::Notification, outcome) => *outcome == Outcome::Silent,
                (Kind::Open, outcome) => matches!(outcome, Outcome::Notified { code: 5, subcode: 3, .. }),
                (Kind::RouteRefresh, Outcome::In(state)) => said.len() == 23 && *state == State::Established,
                (Kind::RouteRefresh, outcome) => said.len() != 23 && *outcome == dialogue::notified(7, 1, &said),
                (Kind::Update, outcome) => {
                    let verdict = judge(found.body(), &session);
                    let withdrawn = dialogue.counters().treated_as_withdraw > before.treated_as_withdraw;
                    match (outcome, &verdict.stays) {
                        (Outcome::Notified { code: 3, subcode, .. }, _) => verdict.resets.contains(subcode),
                        (Outcome::In(State::Established), Some(range)) if withdrawn => {
                            let announced = |r: &Received| matches!(r, Received::Announce { .. });
                            range.contains(&Reaction::TreatAsWithdraw) && !dialogue.received.iter().any(announced)
                        }
                        (Outcome::In(State::Established), Some(range)) => *range.start() < Reaction::TreatAsWithdraw,
                        _ => false,
                    }
                }
            },
        };
        assert!(right, "{outcome:?} to {found:02x?}");
        if outcome != STAYS {
            return;
        }
        if matches!(found, Ok(Some(f)) if matches!(f.kind, Kind::Keepalive | Kind::Update)) {
            silent = Duration::ZERO;
        }
    }
}

/// Octets in pieces: whatever they are, an end has words, and what waits is less than a message.
fn octets(mut dialogue: Dialogue, input: &mut Input<'_>) {
    while !input.is_empty() {
        let piece = usize::from(input.octet()) * 8 + 1;
        let outcome = dialogue.say(input.take(piece));
        match outcome {
            Outcome::In(state) => {
                assert!(state >= State::OpenSent);
                assert!(dialogue.unread() < 65_535);
            }
            Outcome::Notified { code, .. } => return assert!((1..=7).contains(&code)),
            Outcome::Silent => return,
        }
    }
    let _ = open::decode(&dialogue::open(&PLAIN));
}
