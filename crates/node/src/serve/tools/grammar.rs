//! Text that can be nothing but calls, and text whose calls are whole.

use super::{CLOSE, Function, OPEN};
use littoral_infer::constrain::{json_rule, quoted};
use serde_json::Value;

/// Calls in one answer.
pub const CALLS_MAX: usize = 16;

/// One call of these functions, or several.
pub fn calls<'f>(functions: impl Iterator<Item = &'f Function>, parallel: bool) -> String {
    format!("start: calls\n{}", rules(functions, parallel))
}

/// The same, or JSON of a schema.
pub fn calls_or(functions: &[Function], parallel: bool, answer: &Value) -> String {
    let rules = rules(functions.iter(), parallel);
    format!("start: calls | answer\nanswer: {}\n{rules}", json_rule(answer))
}

/// Any text; but where it opens a call, it goes on with one of these functions. Without `parallel` a call is the end. Small
/// models often forget the frame: where an answer begins like a call without one, that is one.
///
/// Text in which nothing opens a call is one terminal, and text up to the opening another, so that after `<tool_call>` only
/// the latter has come to its end. The opening may be a part of a token that says more.
pub fn text_with_calls(functions: &[Function], parallel: bool) -> String {
    let start = match parallel {
        true => format!("bare{{0,{CALLS_MAX}}} (FIRST? | FIRST_OPENED rest (OPENED rest){{0,{CALLS_MAX}}} TEXT?)"),
        false => "FIRST? | bare | FIRST_OPENED rest".into(),
    };
    let open = quoted(OPEN);
    let begun = |name: &str| {
        let word = |word: &str| format!("{SPACE}\"{word}\"{SPACE}");
        format!("{SPACE}\\{{{}:{},{}:{SPACE}", word("name"), word(name), word("arguments"))
    };
    let any_name = functions.iter().map(|function| function.name.as_str()).collect::<Vec<_>>().join("|");
    let first = begun(&format!("({any_name})"));
    let mut rules = format!(
        "start: {start}\n\
         TEXT: /(?s:.+)/ & ~/(?s:.*){OPEN}(?s:.*)/\n\
         OPENED: TEXT? {open}\n\
         FIRST: TEXT & ~/{first}(?s:.*)/\n\
         FIRST_OPENED: FIRST? {open}\n\
         rest: {} which {}\n",
        quoted(AFTER_OPEN),
        quoted(&after_arguments())
    );
    let bare = (0..functions.len()).map(|at| format!("BARE_{at} arguments_{at}")).collect::<Vec<_>>().join(" | ");
    rules += &format!("bare: ({bare}) /{SPACE}\\}}/\n");
    for (at, function) in functions.iter().enumerate() {
        rules += &format!("BARE_{at}: /{}/\n", begun(&function.name));
    }
    rules + &which(functions.iter())
}

/// White space in a call without a frame. What has more of it is text.
const SPACE: &str = r"[ \n\t]{0,4}";

/// Between `<tool_call>` and the name of a function.
const AFTER_OPEN: &str = "\n{\"name\": \"";

fn after_arguments() -> String {
    format!("}}\n{CLOSE}")
}

fn rules<'f>(functions: impl Iterator<Item = &'f Function>, parallel: bool) -> String {
    let several = if parallel { format!(" (\"\\n\" call){{0,{}}}", CALLS_MAX - 1) } else { String::new() };
    let before = quoted(&format!("{OPEN}{AFTER_OPEN}"));
    let after = quoted(&after_arguments());
    format!("calls: call{several}\ncall: {before} which {after}\n{}", which(functions))
}

/// A function's name and its arguments. Each function's parameters are a grammar of their own, so that a `$ref` points into
/// its own schema.
fn which<'f>(functions: impl Iterator<Item = &'f Function>) -> String {
    let (mut rules, mut which) = (String::new(), Vec::new());
    for (at, function) in functions.enumerate() {
        let name = quoted(&format!("{}\", \"arguments\": ", function.name));
        which.push(format!("{name} arguments_{at}"));
        rules += &format!("arguments_{at}: {}\n", json_rule(&function.parameters));
    }
    rules + &format!("which: {}\n", which.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_infer::constrain::{Constraint, Vocabulary, VocabularyIndex};
    use serde_json::json;

    /// All bytes, two tokens that go over the border of the opening, and an end.
    struct Tokens(Vec<Vec<u8>>);

    impl Tokens {
        fn new() -> Self {
            let bytes = (0..=u8::MAX).map(|byte| vec![byte]);
            Self(bytes.chain([b"l>\n{".to_vec(), b"l>x".to_vec(), Vec::new()]).collect())
        }
    }

    impl Vocabulary for Tokens {
        fn size(&self) -> usize {
            self.0.len()
        }

        fn bytes(&self, id: u32) -> Option<&[u8]> {
            self.0.get(id as usize).map(Vec::as_slice).filter(|bytes| !bytes.is_empty())
        }

        fn ends(&self) -> &[u32] {
            &[258]
        }
    }

    fn functions() -> Vec<Function> {
        let parameters = json!({"type": "object", "properties": {"days": {"type": "integer"}}, "required": ["days"], "additionalProperties": false});
        let free = json!({"type": "object"});
        let function = |(name, parameters)| Function { name: String::from(name), parameters, strict: false };
        [("weather", parameters), ("now", free)].map(function).into()
    }

    /// How far a text may go, byte by byte, and whether it may end there.
    fn goes(constraint: &Constraint, text: &str) -> (usize, bool) {
        let mut constraint = constraint.clone();
        let taken = text.bytes().take_while(|byte| constraint.accept(u32::from(*byte)).is_ok()).count();
        (taken, constraint.may_end().unwrap())
    }

    #[test]
    fn free_text_is_free_until_it_opens_a_call() {
        let index = VocabularyIndex::new(&Tokens::new()).unwrap();
        let constraint = Constraint::grammar(&index, &text_with_calls(&functions(), true)).unwrap();
        for text in [
            "",
            " ",
            "{",
            "a < b, é\n\n<tool_cal <tool_call",
            "{\"name\": \"now\"}",
            "{\"name\": \"other\", \"arguments\": 3}",
            "</tool_call> 日本 <tool_calls>",
        ] {
            assert_eq!(goes(&constraint, text), (text.len(), true), "{text}");
        }
        let call = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"days\": 3}}\n</tool_call>";
        let now = "<tool_call>\n{\"name\": \"now\", \"arguments\": {\"any\": [1]}}\n</tool_call>";
        for text in [call.to_owned(), format!("So:\n{call}\n{now} and {call}{now} bye")] {
            assert_eq!(goes(&constraint, &text), (text.len(), true), "{text}");
        }
        // The call begins with the opening, wherever it stands; what is none of these functions cannot be written.
        for (begins, cannot) in [
            ("so <tool_call>", " "),
            ("<tool_call>\n{\"name\": \"", "other"),
            ("<tool_call>\n{\"name\": \"weather\", \"arguments\": {", "}"),
            ("<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"days\": ", "\"3\""),
            (&format!("{call} then <tool_call>\n{{\"name\": \"now\", \"arguments\": "), "3"),
        ] {
            let text = format!("{begins}{cannot}");
            assert_eq!(goes(&constraint, &text), (begins.len(), false), "{text}");
        }
        // Without its frame a call is one where the answer begins, but nowhere else.
        let bare = "\n{ \"name\":\"weather\",\n\"arguments\":{\"days\": 3} }";
        let later = "So: {\"name\": \"weather\", \"arguments\": {}}";
        for text in [bare.to_owned(), format!("{bare}{bare}\nand {call}"), later.to_owned()] {
            assert_eq!(goes(&constraint, &text), (text.len(), true), "{text}");
        }
        let begins = "{\"name\": \"weather\", \"arguments\": {\"";
        assert_eq!(goes(&constraint, &format!("{begins}hours")), (begins.len(), false));
        // A token may hold the end of the opening and what comes behind it.
        let mut at_border = constraint.clone();
        "so <tool_cal".bytes().for_each(|byte| at_border.accept(u32::from(byte)).unwrap());
        let allowed = at_border.allowed().unwrap();
        assert!(allowed.allows(256) && !allowed.allows(257));
        // Long texts meet no limit.
        let long = "The sea is wide. ".repeat(4_000);
        assert_eq!(goes(&constraint, &long), (long.len(), true));
    }

    #[test]
    fn one_call_is_the_end_where_only_one_may_be() {
        let index = VocabularyIndex::new(&Tokens::new()).unwrap();
        let mut constraint = Constraint::grammar(&index, &text_with_calls(&functions(), false)).unwrap();
        assert_eq!(goes(&constraint, "no call"), (7, true));
        let call = "I see. <tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
        assert_eq!(goes(&constraint, &format!("{call}\n")), (call.len(), true));
        call.bytes().for_each(|byte| constraint.accept(u32::from(byte)).unwrap());
        assert!(constraint.is_finished());
        let bare = "{\"name\": \"now\", \"arguments\": {}}";
        assert_eq!(
            goes(&Constraint::grammar(&index, &text_with_calls(&functions(), false)).unwrap(), &format!("{bare} ")),
            (bare.len(), true)
        );
    }
}
