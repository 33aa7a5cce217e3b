//! The tokens of an answer so far, and the digest of every beginning.

use littoral_wire::speculation::Digest;

#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    ids: Vec<u32>,
    /// Of the first 1, 2, … tokens.
    digests: Vec<Digest>,
}

impl Answer {
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn push(&mut self, id: u32) {
        self.digests.push(self.digest().then(id));
        self.ids.push(id);
    }

    /// Of all tokens.
    pub fn digest(&self) -> Digest {
        self.digests.last().copied().unwrap_or(Digest::EMPTY)
    }

    /// Of the first `len` tokens; none if there are fewer.
    pub fn digest_at(&self, len: usize) -> Option<Digest> {
        match len.checked_sub(1) {
            None => Some(Digest::EMPTY),
            Some(last) => self.digests.get(last).copied(),
        }
    }

    /// Does what is drafted from `start` on, after tokens of this digest, agree with all of it that is here?
    pub fn agrees(&self, start: usize, digest: Digest, drafted: impl Iterator<Item = u32>) -> bool {
        let Some(own) = self.ids.get(start..) else { return true };
        self.digest_at(start) == Some(digest) && drafted.zip(own).all(|(drafted, &own)| drafted == own)
    }
}
