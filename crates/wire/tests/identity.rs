//! Signatures: one form, one key, one purpose.

use littoral_wire::identity::IdentityError;
use littoral_wire::{NodeId, SecretKey};

/// The order of Ed25519's group, little-endian (RFC 8032, section 5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn signed_for_another_purpose() {
    let key = SecretKey::from_bytes([3; 32]);
    let signature = key.sign("command", b"message");
    assert_eq!(key.id().verify("command", b"message", &signature), Ok(()));
    let bad = |domain| Err(IdentityError::BadSignature { signer: key.id(), domain });
    assert_eq!(key.id().verify("rotate", b"message", &signature), bad("rotate"));
    assert_eq!(key.id().verify("command", b"massage", &signature), bad("command"));
    // The domain's end is part of what is signed.
    assert_eq!(key.id().verify("comman", b"dmessage", &signature), bad("comman"));
    assert!(SecretKey::from_bytes([4; 32]).id().verify("command", b"message", &signature).is_err());
}

#[test]
fn every_flipped_bit() {
    let key = SecretKey::from_bytes([3; 32]);
    let signature = key.sign("command", b"message");
    for bit in 0..512 {
        let mut flipped = signature;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(key.id().verify("command", b"message", &flipped).is_err(), "bit {bit}");
    }
}

/// `s` and `s + order` satisfy the same equation; only the smaller is a signature.
#[test]
fn second_form_of_a_signature() {
    let key = SecretKey::from_bytes([3; 32]);
    let mut signature = key.sign("command", b"message");
    let mut carry = 0;
    for (s, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*s) + u16::from(order) + carry;
        *s = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    assert!(key.id().verify("command", b"message", &signature).is_err());
}

/// Under the neutral point as key, R neutral and s = 0 satisfy the equation for every message.
#[test]
fn key_that_signs_everything() {
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    assert!(NodeId(neutral).verify("command", b"anything", &signature).is_err());
}

#[test]
fn bytes_that_are_no_key() {
    for bytes in [[0xff; 32], [2; 32], [0; 32]] {
        assert!(NodeId(bytes).verify("command", b"", &[0; 64]).is_err());
    }
}

#[test]
fn id_as_text() {
    let id = SecretKey::from_bytes([3; 32]).id();
    assert_eq!(id.to_string().parse(), Ok(id));
    assert!(id.to_string().to_uppercase().parse::<NodeId>().is_err(), "one spelling only");
    for text in ["", "0", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32), &"+0".repeat(32)] {
        assert!(text.parse::<NodeId>().is_err(), "{text}");
    }
}
