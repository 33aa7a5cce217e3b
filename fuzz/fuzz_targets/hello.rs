//! The first frame of a stranger, of this protocol or of any other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_wire::hello::{Hello, HelloError, PROTOCOL};

fuzz_target!(|bytes: &[u8]| {
    let ours = Hello::new("littoral 0.1.0", "littoral-kernels-1");
    match ours.agree(bytes) {
        Ok(theirs) => {
            assert_eq!(theirs.protocol, PROTOCOL);
            assert!(bytes.starts_with(&theirs.encode()));
        }
        Err(error @ HelloError::OtherProtocol { theirs, .. }) => {
            assert_ne!(theirs, PROTOCOL);
            let said = error.to_string();
            assert!(said.contains(&theirs.to_string()) && said.contains("littoral 0.1.0"));
            assert!(!said.contains(char::is_control), "a stranger wrote to our terminal: {said:?}");
        }
        Err(HelloError::NotLittoral(_)) => {}
    }
});
