//! Drafts from the text itself: what followed the last time the same tokens stood there ("prompt lookup", Saxena 2023; the
//! matching is that of Lempel and Ziv 1977, with chains of earlier places as in deflate).
//!
//! Code that repeats a name, an answer that quotes its prompt: such drafts cost nothing and often hold for long. Where nothing
//! matches, nothing is drafted.

/// The fewest tokens that must match.
const SHORTEST: usize = 2;
/// Earlier places that are looked at: enough to find a long match among many short ones, in bounded time.
const PLACES: usize = 64;
/// Beside an answer: the longest match that is told from shorter ones, and how far back it is looked for, in tokens.
const MATCH: usize = 16;
const WINDOW: usize = 16_384;
/// No earlier place.
const NONE: u32 = u32::MAX;

/// A draft, and how well its place matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// So many of the last tokens stood there too, 2 or more.
    pub length: usize,
    /// What followed them, at least one token.
    pub tokens: Vec<u32>,
}

/// An index of a prompt and the answer so far.
#[derive(Clone, Debug)]
pub struct Lookup {
    longest: usize,
    window: usize,
    tokens: Vec<u32>,
    /// For each hash of two tokens the last place where they ended, and for each place the one before with its hash.
    last: Vec<u32>,
    before: Vec<u32>,
}

impl Lookup {
    /// Matches of up to `longest` tokens, at least 2, in the last `window` to `2 window` tokens. A window has 2 to 2^24, of about
    /// 20 bytes each.
    pub fn new(longest: usize, window: usize) -> Self {
        let window = window.clamp(SHORTEST, 1 << 24);
        let slots = window.next_power_of_two();
        Self { longest: longest.max(SHORTEST), window, tokens: Vec::new(), last: vec![NONE; slots], before: Vec::new() }
    }

    /// Of a prompt, for the answer to it: matches of up to 16 tokens, in the last 16 384 at least.
    pub fn beside(prompt: &[u32]) -> Self {
        let mut lookup = Self::new(MATCH, WINDOW);
        lookup.extend(prompt);
        lookup
    }

    /// The text goes on with this token.
    pub fn push(&mut self, token: u32) {
        if self.tokens.len() == 2 * self.window {
            let newest = self.tokens.split_off(self.window);
            self.tokens.clear();
            self.before.clear();
            self.last.fill(NONE);
            newest.into_iter().for_each(|token| self.index(token));
        }
        self.index(token);
    }

    /// As [`push`](Self::push): how long the match was that foretold a token, and whether it was this one.
    pub fn follow(&mut self, token: u32) -> Option<(usize, bool)> {
        let found = self.propose(&[], 1);
        self.push(token);
        found.map(|found| (found.length, found.tokens.first() == Some(&token)))
    }

    pub fn extend(&mut self, tokens: &[u32]) {
        tokens.iter().for_each(|&token| self.push(token));
    }

    fn index(&mut self, token: u32) {
        let place = self.tokens.len() as u32;
        self.tokens.push(token);
        let slot = match self.tokens[..] {
            [.., a, b] => self.slot(a, b),
            // One token is no match.
            _ => return self.before.push(NONE),
        };
        self.before.push(self.last[slot]);
        self.last[slot] = place;
    }

    fn slot(&self, a: u32, b: u32) -> usize {
        // Fibonacci hashing; the upper half is well mixed.
        let hash = (u64::from(a) << 32 | u64::from(b)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 32) as usize & (self.last.len() - 1)
    }

    /// Up to `count` tokens that may follow the text and then `ahead`, which are drafted already. Of the longest matches the
    /// latest; none if nothing matches two tokens or more.
    pub fn propose(&self, ahead: &[u32], count: usize) -> Option<Match> {
        let all = self.tokens.len() + ahead.len();
        let token = |at: usize| self.tokens.get(at).copied().or_else(|| ahead.get(at - self.tokens.len()).copied());
        if all < SHORTEST || count == 0 {
            return None;
        }
        let end = (token(all - 2)?, token(all - 1)?);
        let mut best = (0, 0);
        let mut place = self.last[self.slot(end.0, end.1)];
        for _ in 0..PLACES {
            if place == NONE {
                break;
            }
            let at = place as usize;
            if at + 1 < all {
                let most = self.longest.min(at + 1);
                let length = (0..most).take_while(|&back| token(at - back) == token(all - 1 - back)).count();
                if length > best.0 {
                    best = (length, at);
                }
                if length == self.longest {
                    break;
                }
            }
            place = self.before[at];
        }
        let (length, at) = best;
        if length < SHORTEST {
            return None;
        }
        // A place so near that what follows it is the draft itself: the text repeats with that period.
        let mut tokens: Vec<u32> = Vec::with_capacity(count.min(1_024));
        for next in at + 1..at + 1 + count {
            let following = if next < all { token(next) } else { tokens.get(next - all).copied() };
            tokens.extend(following);
        }
        Some(Match { length, tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn propose(text: &[u32], ahead: &[u32], count: usize) -> Option<(usize, Vec<u32>)> {
        let mut lookup = Lookup::new(8, 1_000);
        lookup.extend(text);
        lookup.propose(ahead, count).map(|found| (found.length, found.tokens))
    }

    #[test]
    fn what_followed_the_longest_match_follows_again() {
        // 7 8 twice: after 6 stands 1, after 5 stands 2; the text ends with 5 7 8.
        assert_eq!(propose(&[6, 7, 8, 1, 5, 7, 8, 2, 9, 5, 7, 8], &[], 2), Some((3, vec![2, 9])));
        assert_eq!(propose(&[6, 7, 8, 1, 5, 7, 8, 2, 9], &[6, 7, 8], 2), Some((3, vec![1, 5])));
        // A period goes on for ever.
        assert_eq!(propose(&[4, 1, 2, 1, 2], &[], 5), Some((2, vec![1, 2, 1, 2, 1])));
        assert_eq!(propose(&[3, 3, 3], &[], 3), Some((2, vec![3, 3, 3])));
        assert_eq!(propose(&[1, 2, 3, 2], &[], 3), None);
        assert_eq!(propose(&[], &[1], 3), None);
    }

    proptest! {
        /// Against a search through the whole text. Few letters, so that matches are everywhere; short, so that no place is too
        /// many.
        #[test]
        fn it_is_the_latest_of_the_longest(
            text in proptest::collection::vec(0u32..6, 0..60), ahead in proptest::collection::vec(0u32..6, 0..4), count in 1usize..9,
        ) {
            let all = [&text[..], &ahead].concat();
            let place = (1..text.len()).filter(|&end| end + 1 < all.len()).map(|end| {
                (0..8.min(end + 1)).take_while(|&back| all[end - back] == all[all.len() - 1 - back]).count()
            });
            // `max_by_key` takes the last of equals.
            let best = place.enumerate().filter(|(_, length)| *length >= 2).max_by_key(|(_, length)| *length);
            let expected = best.map(|(index, length)| {
                let period = all.len() - (index + 2);
                let mut whole = all.clone();
                (0..count).for_each(|_| whole.push(whole[whole.len() - period]));
                (length, whole.split_off(all.len()))
            });
            prop_assert_eq!(propose(&text, &ahead, count), expected);
        }

        #[test]
        fn memory_is_bounded_and_old_text_forgotten(tokens in proptest::collection::vec(0u32..50, 0..300)) {
            let mut lookup = Lookup::new(4, 16);
            lookup.extend(&[90, 91, 92]);
            lookup.extend(&tokens);
            prop_assert!(lookup.tokens.len() <= 32 && lookup.before.len() == lookup.tokens.len());
            prop_assert!(tokens.len() < 32 || lookup.propose(&[90, 91], 1).is_none());
        }
    }
}
