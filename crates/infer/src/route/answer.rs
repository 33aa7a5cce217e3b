//! Are two answers the same? For labels of a calibration, for audits, and to judge exact answers.
//!
//! What wraps a result is no part of it: white space, a fence of code, quotes, a full stop. Case counts. Two
//! answers that say the same in other words are not the same here, which errs to the safe side: the small model is taken for
//! worse.

/// A result without its wrapping.
pub fn bare(answer: &str) -> String {
    let mut text = answer.trim();
    if let Some(fenced) = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```")) {
        // The first line may name a language.
        text = fenced.split_once('\n').map_or(fenced, |(_, rest)| rest);
    }
    let wrapping = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '“' | '”');
    let text = text.trim_matches(wrapping);
    let text = text.strip_suffix('.').unwrap_or(text).trim_matches(wrapping);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub fn same(a: &str, b: &str) -> bool {
    bare(a) == bare(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_is_no_part_of_an_answer() {
        for wrapped in ["42", " 42.\n", "`42`", "\"42\".", "```\n42\n```", "```python\n42\n```"] {
            assert!(same(wrapped, "42"), "{wrapped:?}");
        }
        assert!(same("1,  2,\n3", "1, 2, 3"));
        for other in ["4 2", "42 apples", "4.2", "", "-42"] {
            assert!(!same(other, "42"), "{other:?}");
        }
        assert!(!same("True", "true"));
        assert_eq!([bare("```"), bare("```` ``"), bare("\"")], ["", "", ""]);
    }
}
