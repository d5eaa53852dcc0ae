//! The body of an OPEN: read or refused with an OPEN error; what was read is written, read back and the same.
#![no_main]

use ironcast_bgp::wire::{
    message::{HEADER, MAX, frame},
    open,
};
use ironcast_bgp_fuzz::{dialogue::message, memory};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let octets = message(1, &data[..data.len().min(MAX - HEADER)]);
    if !matches!(frame(&octets, false), Ok(Some(_))) {
        return;
    }
    match memory::within(64 * 1024, || open::decode(&octets)) {
        Err(error) => {
            assert!((HEADER..=octets.len()).contains(&error.offset), "{error:?}");
            assert_eq!(error.notification(&octets).code, 2, "{error:?}");
        }
        Ok(first) => {
            let mut again = Vec::new();
            first.encode(&mut again);
            frame(&again, false).expect("a valid frame").expect("complete");
            let mut second = open::decode(&again).expect("what we write we read");
            // Without a family that this crate carries the capability is not written, which says less.
            if first.capabilities.multiprotocol.is_some_and(|families| families.is_empty()) {
                second.capabilities.multiprotocol = first.capabilities.multiprotocol;
            }
            // That it said several roles is told by refusing it, and not written again.
            second.capabilities.roles_differ = first.capabilities.roles_differ;
            assert_eq!(second, first);
        }
    }
});
