//! Any ICMPv6 payload as a router solicitation or advertisement: nothing is allocated, options are walked to their
//! end and no further, what was read is written, read back and the same.
#![no_main]

use ironcast_bgp_fuzz::memory;
use message::{DecodeError, Message};

// The parser is no part of the crate's interface; its file stands alone.
#[allow(dead_code, unreachable_pub)] // what the driver alone uses
#[path = "../../src/net/unnumbered/message.rs"]
mod message;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let read = memory::without(|| Message::decode(data));
    match read {
        Ok(message) => {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
            let fixed = if message == Message::Solicitation { 8 } else { 16 };
            assert_eq!((data[0], data[1]), (if fixed == 8 { 133 } else { 134 }, 0));
            // RFC 4861 §6.1: every option has a length, and together they fill the message.
            let mut at = fixed;
            while at < data.len() {
                assert_ne!(data[at + 1], 0);
                at += usize::from(data[at + 1]) * 8;
            }
            assert_eq!(at, data.len());
        }
        Err(DecodeError::Option(at)) => assert!((8..data.len()).contains(&at)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
