//! A manifest, and chunks that claim to belong to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::canonical;
use littoral_wire::Manifest;
use littoral_wire::object::CHUNK_BYTES;

fuzz_target!(|bytes: &[u8]| {
    if let Some(manifest) = canonical::<Manifest>(bytes) {
        let sum: u64 = (0..manifest.chunks()).map(|i| manifest.chunk_bytes(i) as u64).sum();
        assert_eq!(sum, manifest.bytes());
        assert!(manifest.chunk_bytes(0) <= CHUNK_BYTES);
        assert_eq!(manifest.chunk_bytes(manifest.chunks()), 0);
        assert_eq!(manifest.chunk_bytes(u32::MAX), 0);
        for index in [0, 1, manifest.chunks(), u32::MAX] {
            // A manifest cannot hold its own hash.
            let _ = manifest.check(index, bytes).expect_err("BLAKE3 preimage").to_string();
        }
    }
    let own = Manifest::of(bytes).unwrap();
    for (index, chunk) in (0..).zip(bytes.chunks(CHUNK_BYTES)) {
        assert_eq!(own.check(index, chunk), Ok(()));
    }
});
