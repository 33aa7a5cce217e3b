//! Prompts of a JSON Lines file: `{"prompt": …}`, and the exact answer if it is known.

use crate::input;
use crate::output::Failure;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;

const FILE_BYTES_MAX: u64 = 256 << 20;
const PROMPTS_MAX: usize = 100_000;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pub prompt: String,
    pub answer: Option<String>,
}

/// Empty lines are passed over.
pub fn read(path: &Path) -> Result<Vec<Asked>, Failure> {
    parse(&input::text(path, FILE_BYTES_MAX)?, &path.display().to_string())
}

/// The log as it is, behind those of `prompts` that are neither in it nor among those before; and how many were left out.
///
/// Examples are taken for independent draws. A prompt that somebody wrote down twice is one draw; in traffic it is two.
pub fn each_once(mut prompts: Vec<Asked>, log: Vec<Asked>) -> (Vec<Asked>, usize) {
    let (mut seen, all): (BTreeSet<String>, _) =
        (log.iter().map(|asked| asked.prompt.clone()).collect(), prompts.len());
    prompts.retain(|asked| seen.insert(asked.prompt.clone()));
    let left_out = all - prompts.len();
    prompts.extend(log);
    (prompts, left_out)
}

fn parse(text: &str, place: &str) -> Result<Vec<Asked>, Failure> {
    let refused = |line: usize, expected: &str, got: String| {
        Failure::new("the prompts were not read", format!("{place}, line {}", line + 1), expected, got)
    };
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let asked: Asked = serde_json::from_str(line)
            .map_err(|e| refused(at, "{\"prompt\": …} or {\"prompt\": …, \"answer\": …}", e.to_string()))?;
        if asked.prompt.trim().is_empty() {
            return Err(refused(at, "a prompt that asks something", "an empty one".into()));
        }
        if all.len() == PROMPTS_MAX {
            return Err(refused(at, &format!("at most {PROMPTS_MAX} prompts"), "one more".into()));
        }
        all.push(asked);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_counts_once_and_traffic_as_it_is() {
        let asked = |prompts: &str| -> Vec<Asked> {
            prompts.chars().map(|prompt| Asked { prompt: prompt.into(), answer: None }).collect()
        };
        assert_eq!(each_once(asked("abacb"), asked("cdd")), (asked("abcdd"), 3));
        assert_eq!(each_once(asked("aa"), vec![]), (asked("a"), 1));
        assert_eq!(each_once(vec![], asked("aa")), (asked("aa"), 0));
    }

    #[test]
    fn lines_and_what_is_none() {
        let read = parse("{\"prompt\":\"1+1?\",\"answer\":\"2\"}\n\n{\"prompt\":\"hi\"}\n", "f").expect("prompts");
        let asked =
            |prompt: &str, answer: Option<&str>| Asked { prompt: prompt.into(), answer: answer.map(Into::into) };
        assert_eq!(read, [asked("1+1?", Some("2")), asked("hi", None)]);
        for wrong in ["{}", "hi", "{\"prompt\":\"a\",\"x\":1}", "{\"prompt\":\" \"}", "{\"prompt\":1}"] {
            let error = parse(&format!("{{\"prompt\":\"a\"}}\n{wrong}"), "f").map_err(|e| e.place);
            assert_eq!(error, Err("f, line 2".into()), "{wrong}");
        }
    }
}
