//! Any UDP payload as a BFD control packet: nothing is allocated; what was read is written, read back and the same.
#![no_main]

use ironcast_bgp::bfd::{Datagram, Packet};
use ironcast_bgp_fuzz::memory;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    memory::without(|| match Packet::decode(data) {
        Err(error) => assert!(error.offset <= data.len()),
        Ok(packet) => {
            let datagram = Datagram::new(&packet.header);
            let again = Packet::decode(datagram.as_ref()).expect("what we write we read");
            assert_eq!((again.header, again.auth), (packet.header, None));
            // Octets behind the packet are nobody's.
            let longer = Packet::decode(&data[..usize::from(data[3])]).expect("without them too");
            assert_eq!(longer, packet);
        }
    });
});
