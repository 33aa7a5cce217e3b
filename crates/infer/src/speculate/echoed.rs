//! Verdicts of a server that is not ours: asked for one token after prompt, answer and draft, it also tells what it would have
//! written at the place of each drafted token.
//!
//! A draft holds as far as its tokens are those; then comes the server's own. So the text is the greedy one of that server, as far
//! as its passes over many tokens at once give what its passes over one would: up to its batching. Where two tokens are as
//! probable it cannot be told from outside which of them it writes; nothing is committed there until it has written it.
//!
//! A question is of a text, and its answer too. So several may be asked at once, and answers may come in any order: what does not
//! go on from where the answer is by then is of no use, and nothing else.
//!
//! Not here: how it is asked (`node::serve::echo`).

use littoral_wire::speculation::Ending;

/// What was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Tokens of the answer that were committed by then; what stands there is not judged.
    pub start: usize,
    /// The answer as far as it was committed, and what was drafted.
    pub text: Vec<u32>,
}

/// What was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What the server writes at the place of each token of the text from the start on; `None`: it cannot be told.
    pub tops: Vec<Option<u32>>,
    /// What it wrote after the text.
    pub written: Vec<u32>,
    /// It wrote no more, since the text is complete.
    pub ended: bool,
}

/// How the answer goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    pub tokens: Vec<u32>,
    pub finished: Option<Ending>,
}

/// The tokens that an answer of at most `max_tokens` goes on with. `None`: it is not the beginning of the text that was asked about,
/// or is beyond it. `ends`: is this a token that ends a text? It is no part of it.
pub fn commit(
    answer: &[u32],
    asked: &Question,
    told: &Told,
    ends: impl Fn(u32) -> bool,
    max_tokens: usize,
) -> Option<Commit> {
    let Question { start, text } = asked;
    let drafted = text.get(answer.len()..).filter(|_| answer.len() >= *start && text.starts_with(answer))?;
    let tops = told.tops.get(answer.len() - start..).unwrap_or_default();
    let mut commit = Commit::default();
    let mut room = max_tokens.saturating_sub(answer.len());
    let mut take = |id: u32, commit: &mut Commit| {
        if ends(id) {
            commit.finished = Some(Ending::End);
        } else {
            commit.tokens.push(id);
            room = room.saturating_sub(1);
            commit.finished = (room == 0).then_some(Ending::Length);
        }
        commit.finished.is_none()
    };
    for (at, &id) in drafted.iter().enumerate() {
        let Some(top) = tops.get(at).copied().flatten() else { return Some(commit) };
        if !take(top, &mut commit) || top != id {
            return Some(commit);
        }
    }
    if told.written.iter().all(|&id| take(id, &mut commit)) && told.ended {
        commit.finished = Some(Ending::End);
    }
    Some(commit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const END: u32 = 0;

    /// A server whose next token is a function of the text, among five and the end.
    fn next(seed: u32, text: &[u32]) -> u32 {
        let mixed = text.iter().fold(seed, |hash, id| (hash ^ id).wrapping_mul(0x9e37_79b1).rotate_left(13));
        if mixed.is_multiple_of(23) { END } else { 1 + mixed % 5 }
    }

    fn greedy(seed: u32, max_tokens: usize) -> Commit {
        let mut commit = Commit { tokens: Vec::new(), finished: Some(Ending::Length) };
        while commit.tokens.len() < max_tokens {
            match next(seed, &commit.tokens) {
                END => return Commit { finished: Some(Ending::End), ..commit },
                id => commit.tokens.push(id),
            }
        }
        commit
    }

    /// Says nothing of a place where `tied` says so.
    fn told(seed: u32, asked: &Question, written: usize, tied: impl Fn(usize) -> bool) -> Told {
        let top = |at: usize| (!tied(at)).then(|| next(seed, &asked.text[..at]));
        let mut text = asked.text.clone();
        let mut told = Told { tops: (asked.start..text.len()).map(top).collect(), ..Told::default() };
        for _ in 0..written {
            let id = next(seed, &text);
            // Some servers tell the token that ends a text, others do not.
            told.ended = id == END;
            if id != END || seed.is_multiple_of(2) {
                told.written.push(id);
            }
            if told.ended {
                break;
            }
            text.push(id);
        }
        told
    }

    proptest! {
        /// Drafts right and wrong, also beyond the end, questions answered late and in any order, places of which nothing can be told:
        /// the text is the greedy one.
        #[test]
        fn whatever_is_drafted_the_text_is_the_servers(
            seed in 0u32..5_000, max_tokens in 1usize..60, moves in proptest::collection::vec((0usize..9, 0usize..12, 0usize..3, 1usize..4), 400),
        ) {
            let expected = greedy(seed, max_tokens);
            let mut got = Commit::default();
            let mut asked: Vec<(Question, usize)> = Vec::new();
            for (index, (drafted, wrong_at, wait, written)) in moves.into_iter().enumerate() {
                if got.finished.is_some() {
                    break;
                }
                let mut text = got.tokens.clone();
                for at in 0..drafted {
                    let right = next(seed, &text);
                    text.push(if at == wrong_at { (right + 1) % 6 } else { right });
                }
                asked.push((Question { start: got.tokens.len(), text }, written));
                if asked.len() > 3 {
                    asked.remove(0);
                }
                if wait == 0 {
                    continue;
                }
                let (question, written) = asked.swap_remove(index % asked.len());
                let told = told(seed, &question, written, |at| (at + index) % 5 == 0);
                if let Some(more) = commit(&got.tokens, &question, &told, |id| id == END, max_tokens) {
                    got.tokens.extend(more.tokens);
                    got.finished = more.finished;
                }
                prop_assert!(expected.tokens.starts_with(&got.tokens));
            }
            // What is left, a token at a time.
            while got.finished.is_none() {
                let question = Question { start: got.tokens.len(), text: got.tokens.clone() };
                let told = told(seed, &question, 1, |_| true);
                let more = commit(&got.tokens, &question, &told, |id| id == END, max_tokens).expect("of use");
                got.tokens.extend(more.tokens);
                got.finished = more.finished;
            }
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn what_does_not_go_on_from_here_is_of_no_use() {
        let asked = Question { start: 2, text: vec![1, 2, 3, 4] };
        let told = Told { tops: vec![Some(3), Some(5)], written: vec![9], ended: false };
        let of = |answer: &[u32]| commit(answer, &asked, &told, |id| id == END, 99).map(|commit| commit.tokens);
        assert_eq!(of(&[1, 2]), Some(vec![3, 5]));
        assert_eq!(of(&[1, 2, 3]), Some(vec![5]));
        assert_eq!(of(&[1, 2, 3, 4]), Some(vec![9]));
        for answer in [&[1][..], &[1, 7], &[1, 2, 3, 4, 9]] {
            assert_eq!(of(answer), None, "{answer:?}");
        }
        // Fewer verdicts than tokens: the rest cannot be told.
        let short = Told { tops: vec![Some(3)], written: vec![9], ended: false };
        assert_eq!(commit(&[1, 2], &asked, &short, |id| id == END, 99).unwrap().tokens, [3]);
    }
}
