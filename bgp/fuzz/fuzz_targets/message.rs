//! Any octets as a stream: framed or refused, never read beyond, every whole message read by its decoder.
#![no_main]

use ironcast_bgp::wire::{
    message::{self, Frame, HEADER, Kind, MAX, MAX_EXTENDED, Refresh, frame},
    notification::Notification,
};
use ironcast_bgp_fuzz::memory;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((flags, stream)) = data.split_first() else { return };
    let extended = flags & 1 != 0;
    let mut rest = stream;
    loop {
        match memory::without(|| frame(rest, extended)) {
            Ok(Some(found)) => {
                let length = found.octets.len();
                assert!((HEADER..=if extended { MAX_EXTENDED } else { MAX }).contains(&length));
                for end in [0, 1, 15, 16, 17, 18, length - 1] {
                    assert_eq!(frame(&rest[..end], extended), Ok(None), "its beginning is no error");
                }
                read(&found);
                rest = &rest[length..];
            }
            Ok(None) => {
                let whole = |h: &[u8]| usize::from(h[16]) << 8 | usize::from(h[17]);
                let declared = rest.get(..HEADER).map_or(HEADER, whole);
                return assert!(rest.len() < declared, "a whole message is never waited for");
            }
            Err(error) => {
                assert!(error.offset <= rest.len().min(HEADER));
                let mut octets = Vec::new();
                error.notification(&[]).encode(&mut octets);
                assert!(octets.len() <= MAX);
                return assert!(!error.to_string().is_empty());
            }
        }
    }
});

fn read(found: &Frame<'_>) {
    match found.kind {
        Kind::Notification => {
            let read = Notification::decode(found.body());
            assert!(read.to_string().len() < 16 * found.octets.len(), "words are bounded by what came");
            let mut again = Vec::new();
            read.encode(&mut again);
            // Data beyond what fits into 4096 octets is cut.
            assert_eq!(again[18..], found.octets[18..again.len()]);
            assert!(again.len() == found.octets.len() || again.len() == MAX);
        }
        Kind::RouteRefresh => {
            if let Ok(refresh) = message::decode_refresh(found.octets)
                && refresh != Refresh::Unknown
            {
                let mut again = Vec::new();
                message::encode_refresh(refresh, &mut again);
                assert_eq!(again, found.octets);
            }
        }
        Kind::Open | Kind::Update | Kind::Keepalive => {}
    }
}
