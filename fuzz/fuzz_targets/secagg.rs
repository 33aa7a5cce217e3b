//! What device and cloud tell each other in a masked sum, through an edge, and what both keep of it on disk. The first byte
//! chooses which. Total, one encoding per value, and no secret in what is printed of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::one_line;
use littoral_privacy::secagg::device::Masked;
use littoral_privacy::secagg::message::*;
use littoral_privacy::secagg::server::Directory;
use std::fmt::Display;

fn again<T, E: Display>(bytes: &[u8], decoded: Result<T, E>, encode: impl Fn(&T) -> Vec<u8>) {
    match decoded {
        Ok(value) => assert_eq!(encode(&value), bytes, "two encodings of one value"),
        Err(error) => one_line(error),
    }
}

macro_rules! message {
    ($type:ty, $bytes:ident) => {
        again($bytes, <$type>::decode($bytes), <$type>::encode)
    };
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 12 {
        0 => message!(Advertised, bytes),
        1 => message!(Fixed, bytes),
        2 => message!(Nonce, bytes),
        3 => message!(Neighbours, bytes),
        4 => message!(Shares, bytes),
        5 => message!(Inbox, bytes),
        6 => message!(Survivors, bytes),
        7 => message!(Consent, bytes),
        8 => message!(Consents, bytes),
        9 => message!(Reveal, bytes),
        10 => again(bytes, Masked::from_bytes(bytes), |masked| masked.to_bytes().to_vec()),
        _ => again(bytes, Directory::from_bytes(bytes), Directory::to_bytes),
    }
});
