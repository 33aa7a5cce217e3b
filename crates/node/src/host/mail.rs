//! What replicas pass on stands in their database for a moment: tickets, commands, answers. Who reads the database shall
//! not read that, and who writes to it shall not speak for a machine. So it is sealed under a key that only replicas have.
//!
//! ChaCha20-Poly1305 (RFC 8439) under a key that seals one message, so its nonce is zero: BLAKE3 in its key-derivation mode
//! makes it of the cloud's key and of sixteen random bytes, which stand before the text. For whom it is, who sent it, and
//! whose link it is about are authenticated with it. Not protected: that there is mail, its length, and its loss.

use super::keys::{KeyError, random};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use littoral_wire::{NodeId, SecretKey};
use std::fmt;

const PURPOSE: &str = "littoral 2026 mail between replicas";
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

/// What all replicas of a cloud have.
#[derive(Clone)]
pub struct MailKey([u8; 32]);

/// What stands beside the text.
pub(super) struct Envelope<'a> {
    pub addressee: &'a str,
    pub sender: &'a str,
    pub link: u64,
    pub peer: NodeId,
}

impl MailKey {
    pub fn of(cloud: &SecretKey) -> Self {
        Self(blake3::derive_key(PURPOSE, &cloud.to_bytes()))
    }

    fn cipher(&self, salt: &[u8]) -> ChaCha20Poly1305 {
        let key = *blake3::keyed_hash(&self.0, salt).as_bytes();
        ChaCha20Poly1305::new(&key.into())
    }

    pub(super) fn seal(&self, envelope: &Envelope<'_>, text: &[u8]) -> Result<Vec<u8>, KeyError> {
        let salt: [u8; SALT_BYTES] = random()?;
        let mut sealed = [&salt[..], text].concat();
        let tag = self.cipher(&salt).encrypt_inout_detached(
            &[0; 12].into(),
            &envelope.bytes(),
            (&mut sealed[SALT_BYTES..]).into(),
        );
        // Only a text of gigabytes is too long; that would be opened by nobody.
        sealed.extend_from_slice(tag.as_deref().unwrap_or_default());
        Ok(sealed)
    }

    /// `None`: not sealed by a replica of this cloud, or not for this.
    pub(super) fn open(&self, envelope: &Envelope<'_>, sealed: &[u8]) -> Option<Vec<u8>> {
        let (salt, rest) = sealed.split_at_checked(SALT_BYTES)?;
        let (text, tag) = rest.split_at_checked(rest.len().checked_sub(TAG_BYTES)?)?;
        let (mut text, tag): (Vec<u8>, [u8; TAG_BYTES]) = (text.to_vec(), tag.try_into().ok()?);
        let cipher = self.cipher(salt);
        cipher
            .decrypt_inout_detached(&[0; 12].into(), &envelope.bytes(), (&mut *text).into(), &tag.into())
            .ok()
            .map(|()| text)
    }
}

impl Envelope<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in [self.addressee, self.sender] {
            bytes.extend((name.len() as u64).to_le_bytes());
            bytes.extend(name.as_bytes());
        }
        bytes.extend(self.link.to_le_bytes());
        bytes.extend(self.peer.0);
        bytes
    }
}

impl fmt::Debug for MailKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_is_opened_by_replicas_only_and_as_it_was_sent() {
        let key = |seed| MailKey::of(&SecretKey::from_bytes([seed; 32]));
        let to = |addressee, link, peer| Envelope { addressee, sender: "a", link, peer: NodeId([peer; 32]) };
        let sealed = key(1).seal(&to("job/0", 7, 3), b"a ticket").unwrap();
        assert!(!sealed.windows(8).any(|window| window == b"a ticket"));
        assert_eq!(key(1).open(&to("job/0", 7, 3), &sealed).as_deref(), Some(&b"a ticket"[..]));
        for (key, envelope) in [
            (key(2), to("job/0", 7, 3)),
            (key(1), to("job/1", 7, 3)),
            (key(1), to("job/0", 8, 3)),
            (key(1), to("job/0", 7, 4)),
        ] {
            assert_eq!(key.open(&envelope, &sealed), None);
        }
        for n in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[n] ^= 1;
            assert_eq!(key(1).open(&to("job/0", 7, 3), &changed), None);
            assert_eq!(key(1).open(&to("job/0", 7, 3), &sealed[..n]), None);
        }
        assert_eq!(key(1).open(&to("job/0", 7, 3), &key(1).seal(&to("job/0", 7, 3), b"").unwrap()), Some(vec![]));
    }
}
