//! A frame from a peer. Total, canonical, and every variant within the bound that its fields declare.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::canonical;
use littoral_wire::Message;

fuzz_target!(|bytes: &[u8]| {
    if let Some(message) = canonical::<Message>(bytes) {
        let (tag, name, bytes_max) = Message::VARIANTS.iter().find(|v| v.1 == message.name()).unwrap();
        assert_eq!(bytes[0], *tag, "{name}");
        assert!(bytes.len() <= *bytes_max, "{name}");
    }
});
