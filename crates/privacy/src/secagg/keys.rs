//! Keys from keys: everything is bound to the session, and each derived key has one use.
//!
//! BLAKE3 in its key-derivation mode (O'Connor, Aumasson, Neves, Wilcox-O'Hearn 2020, section 5.3) is both hash and KDF: a
//! purpose is a domain of its own, and what is hashed under one purpose always has the same layout. Agreement is X25519
//! (RFC 7748), encryption ChaCha20-Poly1305 (RFC 8439) under a key that encrypts one message, so its nonce is zero.

use super::secret::Secret;
use super::shamir::{SHARE_BYTES, Share, is_share};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroize;

/// Bytes of two sealed shares: the shares and the tag.
pub(crate) const SEALED_BYTES: usize = 2 * SHARE_BYTES + 16;
pub(crate) type Sealed = [u8; SEALED_BYTES];

/// What a hash or a derived key is for.
#[derive(Clone, Copy)]
pub(crate) enum For {
    Session,
    EncryptionKey,
    MaskingKey,
    SelfMask,
    SelfMaskCommitment,
    Nonce,
    NonceCommitment,
    NonceCommitments,
    SplitSelfMask,
    SplitMaskingKey,
    SealShares,
    PairwiseMask,
    Leaf,
    Inner,
    List,
    ServerCommitment,
    Graph,
    Survivors,
}

impl For {
    fn domain(self) -> &'static str {
        match self {
            Self::Session => "littoral secagg 1: session",
            Self::EncryptionKey => "littoral secagg 1: encryption key",
            Self::MaskingKey => "littoral secagg 1: masking key",
            Self::SelfMask => "littoral secagg 1: self mask",
            Self::SelfMaskCommitment => "littoral secagg 1: commitment to a self mask",
            Self::Nonce => "littoral secagg 1: nonce",
            Self::NonceCommitment => "littoral secagg 1: commitment to a nonce",
            Self::NonceCommitments => "littoral secagg 1: all commitments to nonces",
            Self::SplitSelfMask => "littoral secagg 1: polynomials of the self mask",
            Self::SplitMaskingKey => "littoral secagg 1: polynomials of the masking key",
            Self::SealShares => "littoral secagg 1: shares from one device to another",
            Self::PairwiseMask => "littoral secagg 1: pairwise mask",
            Self::Leaf => "littoral secagg 1: leaf of the list",
            Self::Inner => "littoral secagg 1: inner node of the list",
            Self::List => "littoral secagg 1: list",
            Self::ServerCommitment => "littoral secagg 1: commitment of the server",
            Self::Graph => "littoral secagg 1: seed of the graph",
            Self::Survivors => "littoral secagg 1: survivors",
        }
    }
}

/// 32 bytes from `parts`, whose lengths are the same for all uses of one purpose, or given by parts before them.
pub(crate) fn derive(purpose: For, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(purpose.domain());
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    let key = *hasher.finalize().as_bytes();
    hasher.zeroize();
    key
}

pub(crate) fn derive_secret(purpose: For, parts: &[&[u8]]) -> Secret<32> {
    derive(purpose, parts).into()
}

pub(crate) fn public_key(secret: &Secret<32>) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(*secret.bytes())).to_bytes()
}

/// One end of a pair of devices: its place in the list and its public key.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) index: u32,
    pub(crate) key: &'a [u8; 32],
}

/// The shared point of a secret and the other's public key; none for a key of small order, which would make it known.
fn agree(secret: &Secret<32>, theirs: &[u8; 32]) -> Option<Secret<32>> {
    let shared = StaticSecret::from(*secret.bytes()).diffie_hellman(&PublicKey::from(*theirs));
    shared.was_contributory().then(|| shared.to_bytes().into())
}

/// The seed of the mask between two devices: the same from both sides.
pub(crate) fn pairwise_seed(bound: &[u8; 32], secret: &Secret<32>, mine: End, theirs: End) -> Option<Secret<32>> {
    let (low, high) = if mine.index < theirs.index { (mine, theirs) } else { (theirs, mine) };
    Some(keyed(For::PairwiseMask, bound, &agree(secret, theirs.key)?, low, high))
}

/// What two devices agreed on for their shares: a key for each direction.
pub(crate) struct Pair<'a> {
    bound: &'a [u8; 32],
    shared: Secret<32>,
    mine: End<'a>,
    theirs: End<'a>,
}

impl<'a> Pair<'a> {
    pub(crate) fn new(bound: &'a [u8; 32], secret: &Secret<32>, mine: End<'a>, theirs: End<'a>) -> Option<Self> {
        Some(Self { bound, shared: agree(secret, theirs.key)?, mine, theirs })
    }

    pub(crate) fn seal(&self, self_mask: &Share, masking_key: &Share) -> Sealed {
        let mut sealed = [0; SEALED_BYTES];
        let (text, tag) = sealed.split_at_mut(2 * SHARE_BYTES);
        text[..SHARE_BYTES].copy_from_slice(self_mask);
        text[SHARE_BYTES..].copy_from_slice(masking_key);
        let cipher = self.cipher(self.mine, self.theirs);
        match cipher.encrypt_inout_detached(&[0; 12].into(), &[], text.into()) {
            Ok(made) => tag.copy_from_slice(&made),
            // Only a text of gigabytes is too long.
            Err(_) => text.zeroize(),
        }
        sealed
    }

    /// The two shares that the other sealed for this end.
    pub(crate) fn open(&self, sealed: &Sealed) -> Option<(Secret<SHARE_BYTES>, Secret<SHARE_BYTES>)> {
        let mut sealed = zeroize::Zeroizing::new(*sealed);
        let (text, tag) = sealed.split_at_mut(2 * SHARE_BYTES);
        let tag: [u8; 16] = (&*tag).try_into().ok()?;
        let cipher = self.cipher(self.theirs, self.mine);
        cipher.decrypt_inout_detached(&[0; 12].into(), &[], (&mut *text).into(), &tag.into()).ok()?;
        let (a, b) = text.split_at(SHARE_BYTES);
        let (a, b): (Share, Share) = (a.try_into().ok()?, b.try_into().ok()?);
        (is_share(&a) && is_share(&b)).then(|| (a.into(), b.into()))
    }

    fn cipher(&self, from: End, to: End) -> ChaCha20Poly1305 {
        let key = keyed(For::SealShares, self.bound, &self.shared, from, to);
        ChaCha20Poly1305::new(&(*key.bytes()).into())
    }
}

fn keyed(purpose: For, bound: &[u8; 32], shared: &Secret<32>, first: End, second: End) -> Secret<32> {
    let (first_index, second_index) = (first.index.to_le_bytes(), second.index.to_le_bytes());
    derive_secret(purpose, &[bound, shared.bytes(), &first_index, &second_index, first.key, second.key])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_agree_and_nobody_else() {
        let (a, b) = (Secret::from([1; 32]), Secret::from([2; 32]));
        let (pa, pb) = (public_key(&a), public_key(&b));
        let (end_a, end_b) = (End { index: 3, key: &pa }, End { index: 9, key: &pb });
        let bound = [7; 32];
        let seed = pairwise_seed(&bound, &a, end_a, end_b).unwrap();
        assert!(Some(&seed) == pairwise_seed(&bound, &b, end_b, end_a).as_ref());
        assert!(Some(&seed) != pairwise_seed(&[8; 32], &b, end_b, end_a).as_ref());

        let (to_b, to_a) = (Pair::new(&bound, &a, end_a, end_b).unwrap(), Pair::new(&bound, &b, end_b, end_a).unwrap());
        let shares = ([5; SHARE_BYTES], [6; SHARE_BYTES]);
        let sealed = to_b.seal(&shares.0, &shares.1);
        let opened = to_a.open(&sealed).unwrap();
        assert_eq!((opened.0.bytes(), opened.1.bytes()), (&shares.0, &shares.1));
        // Not by its sender (each direction has its key), not altered, not in another session.
        assert!(to_b.open(&sealed).is_none());
        for at in 0..SEALED_BYTES {
            let mut altered = sealed;
            altered[at] ^= 1;
            assert!(to_a.open(&altered).is_none());
        }
        assert!(Pair::new(&[8; 32], &b, end_b, end_a).unwrap().open(&sealed).is_none());
    }

    #[test]
    fn a_key_of_small_order_is_no_key() {
        for low in [[0; 32], std::array::from_fn(|i| u8::from(i == 0))] {
            let mine = public_key(&Secret::from([1; 32]));
            let ends = (End { index: 0, key: &mine }, End { index: 1, key: &low });
            assert!(pairwise_seed(&[0; 32], &Secret::from([1; 32]), ends.0, ends.1).is_none());
            assert!(Pair::new(&[0; 32], &Secret::from([1; 32]), ends.0, ends.1).is_none());
        }
    }
}
