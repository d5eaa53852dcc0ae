//! The body of an UPDATE in any session: what the decoder does with it is what RFC 7606 asks for, as it is written
//! down a second time beside the tests; nothing is allocated; prefixes are written, read back and the same.
#![no_main]

use ipnet::IpNet;
use ironcast_bgp::wire::{
    attribute::Reaction,
    message::{HEADER, MAX, frame},
    update,
};
use ironcast_bgp_fuzz::{
    Input, context,
    dialogue::message,
    memory,
    rfc7606::{self, judge},
    update_body,
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((flags, body)) = data.split_first() else { return };
    let (context, session) = context(*flags);
    let body = if flags & 0x80 == 0 { body.to_vec() } else { update_body(&mut Input(body)) };
    let octets = message(2, &body[..body.len().min(MAX - HEADER)]);
    if !matches!(frame(&octets, false), Ok(Some(_))) {
        return;
    }
    let verdict = judge(&octets[HEADER..], &session);
    match memory::without(|| update::decode(&octets, &context)) {
        Err(error) => {
            assert!((HEADER..=octets.len()).contains(&error.offset), "{error:?}");
            let notification = error.notification(&octets);
            assert_eq!(notification.code, 3);
            assert!(verdict.resets.contains(&notification.subcode), "{error:?} instead of {verdict:?}");
        }
        Ok(update) => {
            let reaction = match update.fault.map(|fault| fault.reaction) {
                None => rfc7606::Reaction::Nothing,
                Some(Reaction::Discard) => rfc7606::Reaction::Discard,
                Some(Reaction::TreatAsWithdraw) => rfc7606::Reaction::TreatAsWithdraw,
            };
            let range = verdict.stays.as_ref();
            assert!(range.is_some_and(|range| range.contains(&reaction)), "{reaction:?} instead of {verdict:?}");
            memory::without(|| walk(&update, octets.len()));
            round_trip(&update);
        }
    }
});

/// Everything that there is to read.
fn walk(update: &update::Update<'_>, length: usize) {
    let announced = update.announced_prefixes().count();
    assert!(update.reachable().count() <= announced);
    assert!(update.unreachable().count() + announced <= length);
    let attributes = &update.attributes;
    let communities = attributes.communities().count() + attributes.extended_communities().count();
    assert!(communities + attributes.large_communities().count() <= length);
    assert!(attributes.path().count() <= length);
}

fn round_trip(update: &update::Update<'_>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for prefix in update.unreachable().chain(update.announced_prefixes()) {
        match prefix {
            IpNet::V4(prefix) => v4.push(prefix),
            IpNet::V6(prefix) => v6.push(prefix),
        }
    }
    let (context, _) = context(0);
    let mut out = Vec::new();
    if !v4.is_empty() {
        let taken = update::encode_withdraw(&v4, 65_535, &mut out);
        let again = update::decode(&out, &context).expect("what we write we read");
        assert!(again.unreachable().eq(v4[..taken].iter().copied().map(IpNet::from)));
    }
    out.clear();
    if !v6.is_empty() {
        let taken = update::encode_unreach(&v6, 65_535, &mut out);
        let again = update::decode(&out, &context).expect("what we write we read");
        assert!(again.unreachable().eq(v6[..taken].iter().copied().map(IpNet::from)));
    }
}
