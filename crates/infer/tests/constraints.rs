//! Constraints over a made-up vocabulary, with the sampler as the writer.

use littoral_infer::constrain::{Constraint, ConstraintError, IndexError, Vocabulary, VocabularyIndex};
use littoral_infer::sample::{History, Noise, Sampler, SamplingParams};

/// Every byte, then some longer tokens, then two ends and a control token.
struct Made {
    words: Vec<Option<Vec<u8>>>,
    ends: Vec<u32>,
}

impl Vocabulary for Made {
    fn size(&self) -> usize {
        self.words.len()
    }
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.words[id as usize].as_deref()
    }
    fn ends(&self) -> &[u32] {
        &self.ends
    }
}

fn made() -> Made {
    let longer = ["{\"", "\":", "\", \"", "\"}", "na", "name", "true", "12", "é", "ab", "abc", "</s>", "abc"];
    let words: Vec<Option<Vec<u8>>> = (0..=255u8)
        .map(|byte| vec![byte])
        .chain(longer.iter().map(|word| word.as_bytes().to_vec()))
        .map(Some)
        .chain([Some(b"<|end|>".to_vec()), None, None])
        .collect();
    let first_end = words.len() as u32 - 3;
    Made { words, ends: vec![first_end, first_end + 1] }
}

fn index() -> VocabularyIndex {
    VocabularyIndex::new(&made()).expect("a fine vocabulary")
}

/// The tokens that may come next, as text.
fn next(constraint: &mut Constraint) -> Vec<String> {
    let made = made();
    let mask = constraint.allowed().expect("the parser goes on");
    mask.ids()
        .map(|id| match made.bytes(id) {
            _ if made.ends.contains(&id) => "END".into(),
            bytes => String::from_utf8_lossy(bytes.expect("no control token")).into_owned(),
        })
        .collect()
}

fn take(constraint: &mut Constraint, text: &str) {
    text.bytes().for_each(|byte| constraint.accept(byte.into()).expect("allowed"));
}

#[test]
fn a_regular_expression_allows_exactly_what_can_still_match() {
    let mut constraint = Constraint::regex(&index(), "ab(c|12)?").expect("an expression");
    // Both tokens that read "abc".
    assert_eq!(next(&mut constraint), ["a", "ab", "abc", "abc"]);
    take(&mut constraint, "ab");
    assert!(constraint.may_end().expect("goes on"));
    assert_eq!(next(&mut constraint), ["1", "c", "12", "END", "END"]);
    let mut other = constraint.clone();
    take(&mut other, "1");
    assert!(!other.may_end().expect("goes on"));
    assert_eq!(next(&mut other), ["2"]);
    // The fork left the first alone; what is not allowed leaves the second alone.
    assert_eq!(other.accept(b'x'.into()), Err(ConstraintError::NotAllowed { id: b'x'.into() }));
    assert_eq!(other.accept(9999), Err(ConstraintError::NotAllowed { id: 9999 }));
    assert_eq!(next(&mut other), ["2"]);
    assert_eq!(next(&mut constraint), ["1", "c", "12", "END", "END"]);
    take(&mut constraint, "c");
    assert!(constraint.is_finished());
    assert_eq!(next(&mut constraint), ["END", "END"]);
}

#[test]
fn tokens_can_be_taken_back() {
    let mut constraint = Constraint::regex(&index(), "a+b").expect("an expression");
    take(&mut constraint, "aaab");
    constraint.take_back(3).expect("four were accepted");
    assert_eq!(next(&mut constraint), ["a", "b", "ab"]);
    take(&mut constraint, "b");
    assert!(constraint.is_finished());
    let error = constraint.take_back(3);
    assert_eq!(error, Err(ConstraintError::NothingToTakeBack { tokens: 3, accepted: 2 }));
}

#[test]
fn a_grammar_counts_what_an_expression_cannot() {
    let mut constraint = Constraint::grammar(&index(), "start: \"(\" start \")\" | \"a\"").expect("a grammar");
    take(&mut constraint, "((a)");
    assert_eq!(next(&mut constraint), [")"]);
}

/// Random logits, a hot sampler, and the text is nevertheless always JSON of the schema. The fields have ends, so that
/// the text has one.
#[test]
fn whatever_the_logits_the_text_fits_the_schema() {
    let schema = r##"{
        "type": "object",
        "properties": { "name": { "$ref": "#/$defs/short" }, "ok": { "type": "boolean" },
                        "kind": { "enum": ["ab", "é"] }, "n": { "type": "integer", "minimum": 3, "maximum": 120 } },
        "required": ["name", "ok", "kind", "n"], "additionalProperties": false,
        "$defs": { "short": { "type": "string", "maxLength": 4 } },
        "x-guidance": { "whitespace_flexible": false }
    }"##;
    let (made, index) = (made(), index());
    let fresh = Constraint::json_schema(&index, schema).expect("a schema");
    for seed in 0..20 {
        let mut constraint = fresh.clone();
        let mut sampler =
            Sampler::new(SamplingParams { temperature: 2.0, seed, ..SamplingParams::default() }).expect("ok");
        let mut text = Vec::new();
        while !constraint.is_finished() {
            let noise = Noise::new(seed ^ 77, sampler.position());
            let logits: Vec<f32> = (0..made.size() as u32).map(|id| noise.gumbel(id) as f32).collect();
            let mask = constraint.allowed().expect("the parser goes on");
            let choice =
                sampler.sample_allowed(&logits, History::default(), Some(&mask)).expect("something is allowed");
            constraint.accept(choice.id).expect("it was allowed");
            if !made.ends.contains(&choice.id) {
                text.extend(made.bytes(choice.id).expect("no control token"));
            }
            assert!(text.len() < 200, "no end: {}", String::from_utf8_lossy(&text));
        }
        let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert!(value["name"].as_str().expect("a string").chars().count() <= 4, "{value}");
        assert!(value["ok"].is_boolean(), "{value}");
        assert!(["ab", "é"].contains(&value["kind"].as_str().expect("a string")), "{value}");
        assert!((3..=120).contains(&value["n"].as_i64().expect("an integer")), "{value}");
        assert_eq!(value.as_object().expect("an object").len(), 4);
    }
}

#[test]
fn a_bad_source_is_an_error_by_name() {
    let index = index();
    let schema = |text: &str| Constraint::json_schema(&index, text).expect_err("refused");
    assert!(matches!(schema("{\"type\":\n oops}"), ConstraintError::NotJson { line: 2, column: 2, .. }));
    assert!(matches!(schema("{\"type\": \"strong\"}"), ConstraintError::Schema { .. }));
    assert!(matches!(schema("{\"$ref\": \"https://example.org/schema\"}"), ConstraintError::Schema { .. }));
    assert!(matches!(schema("[1]"), ConstraintError::Schema { .. }));
    let long = " ".repeat(300_000);
    assert_eq!(schema(&long), ConstraintError::TooLong { kind: "JSON schema", bytes: 300_000 });
    assert!(matches!(schema(&"[".repeat(200_000)), ConstraintError::NotJson { .. }));
    let regex = Constraint::regex(&index, "a(b").expect_err("refused");
    assert!(matches!(regex, ConstraintError::Regex { .. }), "{regex}");
    assert!(regex.to_string().ends_with("unclosed group"), "{regex}");
    let grammar = Constraint::grammar(&index, "start: nothing").expect_err("refused");
    assert!(matches!(grammar, ConstraintError::Grammar { .. }), "{grammar}");
    for error in [schema("{\"type\": \"strong\"}"), regex, grammar] {
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
fn a_form_that_no_text_can_begin_to_have_is_refused() {
    let index = index();
    let schema = Constraint::json_schema(&index, r##"{"$ref": "#"}"##).expect_err("needs itself");
    assert_eq!(schema, ConstraintError::Schema { reason: "no token can come next".into() });
    let grammar = |lark: &str| Constraint::grammar(&index, lark).map(|mut constraint| next(&mut constraint));
    assert_eq!(grammar("start: start"), Err(ConstraintError::Grammar { reason: "no token can come next".into() }));
    let many: Vec<String> = (0..15_000).map(|at| format!("\"{at}\" start")).collect();
    let many = grammar(&format!("start: \"x\" | {}", many.join(" | "))).expect_err("beyond the limits");
    assert!(matches!(&many, ConstraintError::Grammar { reason } if reason.contains("items")), "{many}");
    // Tokens by their ids: the ends are not taken before a text may end, so they are not offered either.
    let end = made().ends[0];
    assert!(matches!(grammar(&format!("start: <[{end}]>")), Err(ConstraintError::Grammar { .. })));
    let lark = format!("start: <[97-98,{end}]> \"c\"");
    let mut constraint = Constraint::grammar(&index, &lark).expect("a grammar");
    assert_eq!(next(&mut constraint), ["a", "b"]);
    take(&mut constraint, "ac");
    assert_eq!(next(&mut constraint), ["END", "END"]);
}

#[test]
fn any_text_can_be_a_choice() {
    let index = index();
    let odd = [
        "\\",
        "\"",
        "'",
        "/",
        "\\x41",
        "\\u0041",
        "\"i",
        "// x",
        "# x",
        "\u{2028}\u{2029}",
        "\u{feff}",
        "\u{85}",
        "日本",
    ];
    let controls = (0..=0x20).chain([0x7f]).map(|byte| char::from(byte).to_string());
    for text in controls.chain(odd.map(str::to_owned)) {
        let mut constraint =
            Constraint::choice(&index, std::slice::from_ref(&text)).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        take(&mut constraint, &text);
        assert!(constraint.is_finished(), "{text:?}");
    }
}

/// What cannot be seen at the first step.
#[test]
fn a_form_that_no_text_can_go_on_with_says_so() {
    let schema = r##"{"properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"], "type": "object"}"##;
    let mut constraint = Constraint::json_schema(&index(), schema).expect("begins");
    "{\"a\":".bytes().for_each(|byte| constraint.accept(byte.into()).expect("allowed"));
    assert_eq!(constraint.allowed().err(), Some(ConstraintError::Stuck));
}

#[test]
fn a_bad_vocabulary_is_an_error_by_name() {
    let of = |words: Vec<Option<Vec<u8>>>, ends: Vec<u32>| VocabularyIndex::new(&Made { words, ends }).err();
    assert_eq!(of(vec![Some(b"a".to_vec())], vec![]), Some(IndexError::NoEnd));
    assert_eq!(of(vec![None], vec![1]), Some(IndexError::EndOutside { id: 1, size: 1 }));
    let huge = of(vec![None, Some(vec![b'a'; 900])].into_iter().cycle().take(10_000).collect(), vec![0]);
    assert!(matches!(huge, Some(IndexError::TooLarge { .. })), "{huge:?}");
    // Too long for the trie: never allowed, and no panic. The same for an empty one.
    let words = vec![None, Some(vec![b'a'; 5000]), Some(b"a".to_vec()), Some(Vec::new())];
    let index = VocabularyIndex::new(&Made { words, ends: vec![0] }).expect("a fine vocabulary");
    let allowed = Constraint::regex(&index, "a*").expect("an expression").allowed().expect("goes on");
    assert_eq!(allowed.ids().collect::<Vec<_>>(), [0, 2]);
}
