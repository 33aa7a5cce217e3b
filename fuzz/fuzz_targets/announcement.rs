//! What a device believes about a round's end: an announcement, and a verdict with its proof.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::canonical;
use littoral_wire::message::{Announcement, Verdict};
use littoral_wire::{SecretKey, Wire};

fuzz_target!(|bytes: &[u8]| {
    let cloud = SecretKey::from_bytes([7; 32]);
    let check = |mut announcement: Announcement| {
        let signed = announcement.signed_bytes();
        assert_eq!(signed, announcement.to_bytes()[..signed.len()]);
        // Nobody forges a signature by luck; one that is made over these bytes holds.
        cloud.id().verify(Announcement::DOMAIN, &signed, &announcement.signature).expect_err("forged");
        announcement.signature = cloud.sign(Announcement::DOMAIN, &signed);
        assert_eq!(
            cloud.id().verify(Announcement::DOMAIN, &announcement.signed_bytes(), &announcement.signature),
            Ok(())
        );
        announcement.version ^= 1;
        cloud
            .id()
            .verify(Announcement::DOMAIN, &announcement.signed_bytes(), &announcement.signature)
            .expect_err("moved");
    };
    if let Some(announcement) = canonical::<Announcement>(bytes) {
        check(announcement);
    }
    if let Some(announcement) = canonical::<Verdict>(bytes).and_then(|verdict| verdict.announcement) {
        check(announcement);
    }
});
