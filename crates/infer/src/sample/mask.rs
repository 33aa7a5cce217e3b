//! A set of token ids that may come next.

/// One bit per token id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u32>,
    vocabulary: usize,
}

impl TokenMask {
    /// A mask that allows nothing yet.
    pub fn none(vocabulary: usize) -> Self {
        Self { words: vec![0; vocabulary.div_ceil(32)], vocabulary }
    }

    /// From 32 ids a word, the lowest bit first. Words that are missing allow nothing; words and bits beyond the
    /// vocabulary are dropped.
    pub fn from_words(words: &[u32], vocabulary: usize) -> Self {
        let mut mask = Self::none(vocabulary);
        for (own, &given) in mask.words.iter_mut().zip(words) {
            *own = given;
        }
        if let (Some(last), used @ 1..) = (mask.words.last_mut(), vocabulary % 32) {
            *last &= (1 << used) - 1;
        }
        mask
    }

    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// An id beyond the vocabulary is ignored: it is not allowed either way.
    pub fn allow(&mut self, id: u32) {
        if (id as usize) < self.vocabulary {
            self.words[id as usize / 32] |= 1 << (id % 32);
        }
    }

    pub fn allows(&self, id: u32) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// The allowed ids, ascending.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.vocabulary as u32).filter(|&id| self.allows(id))
    }

    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Sets the logits of tokens that are not allowed to minus infinity.
    pub(super) fn apply(&self, logits: &mut [f32]) {
        for (word, logits) in self.words.iter().zip(logits.chunks_mut(32)) {
            for (bit, logit) in logits.iter_mut().enumerate() {
                *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_beyond_the_vocabulary_are_never_allowed() {
        let mask = TokenMask::from_words(&[u32::MAX, u32::MAX, u32::MAX], 35);
        assert_eq!(mask.count(), 35);
        assert!(mask.allows(34) && !mask.allows(35) && !mask.allows(1000));
        assert_eq!(TokenMask::from_words(&[1], 64).ids().collect::<Vec<_>>(), [0]);
    }
}
