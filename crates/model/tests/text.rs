//! Every rule of the tokenisers on made-up vocabularies, which need no model's file.

use littoral_model::text::{Detokeniser, Kind, Tokeniser, Vocabulary, VocabularyError, chat_template};
use littoral_tensor::gguf::Gguf;

/// The letters that byte-level vocabularies write for all bytes.
fn letters() -> Vec<String> {
    let prints = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others: Vec<u8> = (0..=u8::MAX).filter(|byte| !prints(byte)).collect();
    let letter = |byte: u8| match others.iter().position(|&other| other == byte) {
        Some(at) => char::from_u32(0x100 + at as u32).unwrap(),
        None => char::from(byte),
    };
    (0..=u8::MAX).map(|byte| letter(byte).to_string()).collect()
}

/// Ids 0 to 255 are bytes; then `ab`, `abc`, `bc`, `Ġab`, a user's token and a control token.
fn bpe<'a>(letters: &'a [String], pre: &'a str) -> Vocabulary<'a> {
    let more = ["ab", "abc", "bc", "Ġab", "<tool>", "<|x|>"];
    let tokens: Vec<&str> = letters.iter().map(String::as_str).chain(more).collect();
    let mut kinds = vec![Kind::Normal; tokens.len()];
    kinds[260] = Kind::UserDefined;
    kinds[261] = Kind::Control;
    let merges = vec!["b c", "a b", "Ġ ab", "a bc"];
    Vocabulary { model: "gpt2", pre: Some(pre), tokens, kinds, merges, bos: Some(261), ..Vocabulary::default() }
}

/// A vocabulary of characters, with bytes for 0x00 and for the three of U+20AC.
fn sentencepiece<'a>() -> Vocabulary<'a> {
    use Kind::{Byte, Control, Normal, Unknown, UserDefined};
    let tokens = [
        ("<unk>", 0.0, Unknown),
        ("<s>", 0.0, Control),
        ("</s>", 0.0, Control),
        ("<0xE2>", 0.0, Byte),
        ("<0x82>", 0.0, Byte),
        ("<0xAC>", 0.0, Byte),
        ("▁", -9.0, Normal),
        ("a", -9.0, Normal),
        ("b", -9.0, Normal),
        ("aa", -1.0, Normal),
        ("ab", -1.0, Normal),
        ("▁a", -2.0, Normal),
        ("  ", 0.0, UserDefined),
        ("<", -9.0, Normal),
        ("s", -9.0, Normal),
        (">", -9.0, Normal),
        ("<s", -1.0, Normal),
    ];
    Vocabulary {
        model: "llama",
        tokens: tokens.iter().map(|token| token.0).collect(),
        scores: tokens.iter().map(|token| token.1).collect(),
        kinds: tokens.iter().map(|token| token.2).collect(),
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        ..Vocabulary::default()
    }
}

#[test]
fn byte_level_joins_go_by_rank_and_stay_within_words() {
    let letters = letters();
    let tokeniser = Tokeniser::new(&bpe(&letters, "gpt-2")).unwrap();
    // `b c` is more urgent than `a b`, so that `abc` is joined from the right.
    assert_eq!(tokeniser.encode("abc", false), [257]);
    assert_eq!(tokeniser.encode("ab ab", false), [256, 259]);
    assert_eq!(tokeniser.encode("ab\tab", false), [256, 9, 256]);
    assert_eq!(tokeniser.encode("é", false), [0xC3, 0xA9]);
    assert!(tokeniser.encode("", true).is_empty());
}

#[test]
fn control_tokens_count_only_in_text_that_is_trusted() {
    let letters = letters();
    let tokeniser = Tokeniser::new(&bpe(&letters, "gpt-2")).unwrap();
    assert_eq!(tokeniser.encode("ab<|x|><tool>", true), [256, 261, 260]);
    let plain = tokeniser.encode("ab<|x|><tool>", false);
    assert_eq!((plain.len(), plain.last()), (7, Some(&260)));
    assert_eq!(tokeniser.decode(&plain), "ab<|x|><tool>");
    assert_eq!(tokeniser.decode(&[256, 261, 260]), "ab<tool>");

    // Even where joins would make one.
    let mut vocabulary = sentencepiece();
    vocabulary.add_space_prefix = Some(false);
    let tokeniser = Tokeniser::new(&vocabulary).unwrap();
    assert_eq!(tokeniser.encode("<s>", false), [16, 15]);
    assert_eq!(tokeniser.encode("<s>", true), [1]);
}

#[test]
fn joins_make_no_control_token() {
    let letters = letters();
    let mut vocabulary = bpe(&letters, "gpt-2");
    vocabulary.kinds[256] = Kind::Control;
    let tokeniser = Tokeniser::new(&vocabulary).unwrap();
    assert_eq!(tokeniser.encode("ab", false), [u32::from(b'a'), u32::from(b'b')]);
    assert_eq!(tokeniser.encode("ab", true), [256]);
}

#[test]
fn tokens_that_end_answers_are_known_by_name() {
    let letters = letters();
    let mut vocabulary = bpe(&letters, "gpt-2");
    vocabulary.tokens.extend(["<|im_end|>", "</s>"]);
    vocabulary.kinds.extend([Kind::Normal, Kind::UserDefined]);
    let tokeniser = Tokeniser::new(&vocabulary).unwrap();
    assert_eq!(tokeniser.kind(262), Kind::Control, "whatever the file says");
    assert!(tokeniser.ends(262) && !tokeniser.ends(261));
    assert_eq!(tokeniser.encode("<|im_end|>", true), [262]);
    // `</s>` ends answers only where the file says that it is a control token, but plain text never makes it.
    assert!(!tokeniser.ends(263));
    assert_eq!(tokeniser.encode("</s>", false).len(), 4);
    assert_eq!(tokeniser.encode("</s>", true), [263]);
    assert_eq!(tokeniser.decode(&[262, 263]), "</s>");
}

#[test]
fn llama3_takes_a_word_that_is_a_token_whole() {
    let letters = letters();
    let mut vocabulary = bpe(&letters, "llama-bpe");
    vocabulary.merges = vec!["b c"];
    let tokeniser = Tokeniser::new(&vocabulary).unwrap();
    assert_eq!(tokeniser.encode("abc xabc", false), [257, 0x20, b'x'.into(), b'a'.into(), 258]);
    assert_eq!(tokeniser.encode_document("ab", false), [261, 256], "these documents begin with bos");
    vocabulary.pre = Some("qwen2");
    let tokeniser = Tokeniser::new(&vocabulary).unwrap();
    assert_eq!(tokeniser.encode_document("abc", false), [u32::from(b'a'), 258]);
}

#[test]
fn a_byte_without_a_token_is_left_out() {
    let letters = letters();
    let mut vocabulary = bpe(&letters, "gpt-2");
    vocabulary.tokens[0xC3] = "instead";
    let tokeniser = Tokeniser::new(&vocabulary).unwrap();
    assert_eq!(tokeniser.encode("aéb", false), [b'a'.into(), 0xA9, b'b'.into()]);
}

#[test]
fn every_text_comes_back_from_byte_level_ids() {
    let letters = letters();
    let alphabet: Vec<char> = " \n\r\t'abcsS12٣é\u{301}\u{3000}字👩\u{200d}<>|x!\u{2581}".chars().collect();
    let mut state = 3_u64;
    for pre in ["default", "gpt-2", "llama-bpe", "qwen2", "smollm"] {
        let tokeniser = Tokeniser::new(&bpe(&letters, pre)).unwrap();
        for _ in 0..500 {
            let text: String = (0..20)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    alphabet[(state >> 33) as usize % alphabet.len()]
                })
                .collect();
            assert_eq!(tokeniser.decode(&tokeniser.encode(&text, false)), text, "{pre}");
        }
    }
}

#[test]
fn sentencepiece_joins_by_score_then_from_the_left() {
    let mut vocabulary = sentencepiece();
    vocabulary.add_space_prefix = Some(false);
    let tokeniser = Tokeniser::new(&vocabulary).unwrap();
    assert_eq!(tokeniser.encode("aaab", false), [9, 10], "of equal scores the left");
    assert_eq!(tokeniser.encode("aab", false), [9, 8]);
    assert_eq!(tokeniser.encode(" aab", false), [6, 9, 8], "`aa` before `▁a`");
    assert_eq!(tokeniser.encode(" ab", false), [6, 10]);
    assert_eq!(tokeniser.encode("a  a", false), [7, 12, 7], "the user's token is matched first");
    assert_eq!(tokeniser.encode("a▁b", false), tokeniser.encode("a b", false));
    assert_eq!(tokeniser.encode("€a", false), [3, 4, 5, 7], "bytes stand for a character without a token");
    assert_eq!(tokeniser.encode("z", false), [0], "unknown stands for a byte without one");
    assert_eq!(tokeniser.decode(&[3, 4, 5, 6, 7]), "€ a");
}

#[test]
fn a_space_is_put_before_text_that_begins_or_follows_a_special_token_and_taken_away_again() {
    let mut vocabulary = sentencepiece();
    vocabulary.add_eos = Some(true);
    let tokeniser = Tokeniser::new(&vocabulary).unwrap();
    assert_eq!(tokeniser.encode("a", false), [11]);
    assert_eq!(tokeniser.encode("a<s>a b", true), [11, 1, 11, 6, 8]);
    assert_eq!(tokeniser.encode_document("", false), [1, 2]);
    assert_eq!(tokeniser.encode_document("a", false), [1, 11, 2]);
    assert_eq!(tokeniser.decode(&[1, 11, 6, 8, 2]), "a b");
    assert_eq!(tokeniser.decode(&tokeniser.encode(" a", false)), " a");
    assert_eq!(Detokeniser::new(&tokeniser).push(11), " a", "an answer goes on a text");
    assert!(tokeniser.ends(2) && !tokeniser.ends(1));
}

#[test]
fn a_character_appears_when_it_is_whole() {
    let letters = letters();
    let tokeniser = Tokeniser::new(&bpe(&letters, "gpt-2")).unwrap();
    let mut detokeniser = Detokeniser::new(&tokeniser);
    let mut pushed = |ids: &[u32]| ids.iter().map(|&id| detokeniser.push(id).to_owned()).collect::<Vec<String>>();
    assert_eq!(pushed(&[0xF0, 0x9F, 0x98, 0x80, 256]), ["", "", "", "😀", "ab"]);
    // A letter shows that the character before it never comes; a byte that goes on nothing is one at once.
    assert_eq!(pushed(&[0xE2, 0x82, 0x61, 0xAC]), ["", "", "\u{FFFD}a", "\u{FFFD}"]);
    // These bytes begin no character: E0 80 would be overlong, ED A0 a surrogate.
    assert_eq!(pushed(&[0xE0, 0x80, 0xED, 0xA0]), ["", "\u{FFFD}\u{FFFD}", "", "\u{FFFD}\u{FFFD}"]);
    // An id beyond the vocabulary, a control token, and a character that is never finished.
    assert_eq!(pushed(&[9999, 261, 0xC3]), ["", "", ""]);
    assert_eq!(detokeniser.finish(), "\u{FFFD}");
    assert_eq!(detokeniser.finish(), "");
}

#[test]
fn ids_one_by_one_are_their_bytes_together() {
    let letters = letters();
    let tokeniser = Tokeniser::new(&bpe(&letters, "gpt-2")).unwrap();
    let mut state = 7_u64;
    for _ in 0..2_000 {
        let (mut together, mut text) = (Vec::new(), String::new());
        let mut detokeniser = Detokeniser::new(&tokeniser);
        for _ in 0..20 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Mostly bytes that begin or go on characters.
            let id = 0x80 + (state >> 33) as u32 % 0x88;
            tokeniser.bytes(id, &mut together);
            text.push_str(detokeniser.push(id));
            assert!(String::from_utf8_lossy(&together).starts_with(&text), "{text:?} is not settled");
        }
        text.push_str(detokeniser.finish());
        assert_eq!(text, String::from_utf8_lossy(&together));
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let letters = letters();
    let refused = |change: &dyn Fn(&mut Vocabulary<'_>), base: Vocabulary<'_>| -> VocabularyError {
        let mut vocabulary = base;
        change(&mut vocabulary);
        Tokeniser::new(&vocabulary).err().expect("it is refused")
    };
    let from_bpe = |change: &dyn Fn(&mut Vocabulary<'_>)| refused(change, bpe(&letters, "gpt-2")).to_string();
    let from_pieces = |change: &dyn Fn(&mut Vocabulary<'_>)| refused(change, sentencepiece()).to_string();
    for (got, want) in [
        (from_bpe(&|v| v.model = "bert"), "tokeniser: model: expected one of gpt2, llama, got \"bert\""),
        (from_bpe(&|v| v.pre = Some("tekken")), "tokeniser: pre: expected one of default, deepseek-r1-qwen, gpt-2, "),
        (from_bpe(&|v| v.tokens.clear()), "tokeniser: tokens: expected 1 to "),
        (
            from_bpe(&|v| v.tokens[7] = "a"),
            "tokeniser: tokens[97]: expected a text of its own, got the text of token 7",
        ),
        (from_bpe(&|v| v.kinds.truncate(3)), "tokeniser: token_type: expected 262, got 3"),
        (from_bpe(&|v| v.merges.clear()), "tokeniser: merges: expected at least one"),
        (
            from_bpe(&|v| v.merges[1] = "ab"),
            "tokeniser: merges[1]: expected two tokens with a space between, got \"ab\"",
        ),
        (from_bpe(&|v| v.merges[1] = "c b"), "tokeniser: merges[1]: expected two tokens that make a third"),
        (from_bpe(&|v| v.eot = Some(262)), "tokeniser: eot: expected less than 262, got 262"),
        (from_bpe(&|v| v.add_eos = Some(true)), "tokeniser: eos: expected an id, as documents get eos, got none"),
        (from_pieces(&|v| v.scores.truncate(2)), "tokeniser: scores: expected 17, got 2"),
        (from_pieces(&|v| v.scores[4] = f32::NAN), "tokeniser: scores[4]: expected a number, got NaN"),
        (from_pieces(&|v| v.bos = None), "tokeniser: bos: expected an id, as documents get bos, got none"),
    ] {
        assert!(got.starts_with(want), "{got}\n{want}");
    }
}

/// A GGUF file of metadata only. Types: 4 u32, 5 i32, 6 f32, 7 bool, 8 string, 9 array.
struct File(Vec<u8>, u64);

impl File {
    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }

    fn add(mut self, key: &str, of: u32, value: &[u8]) -> Self {
        self.0.extend(Self::string(key));
        self.0.extend(of.to_le_bytes());
        self.0.extend(value);
        self.1 += 1;
        self
    }

    fn array(self, key: &str, of: u32, items: &[Vec<u8>]) -> Self {
        let head = [&of.to_le_bytes()[..], &(items.len() as u64).to_le_bytes()].concat();
        self.add(key, 9, &[head, items.concat()].concat())
    }

    fn bytes(&self) -> Vec<u8> {
        [&b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0"[..], &self.1.to_le_bytes(), &self.0].concat()
    }
}

#[test]
fn a_file_gives_its_vocabulary() {
    let strings = |texts: &[&str]| texts.iter().map(|text| File::string(text)).collect::<Vec<Vec<u8>>>();
    let base = || {
        File(Vec::new(), 0)
            .add("tokenizer.ggml.model", 8, &File::string("llama"))
            .array("tokenizer.ggml.tokens", 8, &strings(&["<s>", "a", "<0x0A>"]))
            .array("tokenizer.ggml.scores", 6, &[0.5f32, -1.0, 0.0].map(|score| score.to_le_bytes().to_vec()))
    };
    let whole = base()
        .array("tokenizer.ggml.token_type", 5, &[3i32, 1, 6].map(|kind| kind.to_le_bytes().to_vec()))
        .add("tokenizer.ggml.bos_token_id", 4, &0u32.to_le_bytes())
        .add("tokenizer.ggml.add_space_prefix", 7, &[0])
        .add("tokenizer.chat_template", 8, &File::string("{{ bos_token }}"));
    let bytes = whole.bytes();
    let file = Gguf::parse(&bytes).unwrap();
    let vocabulary = Vocabulary::from_gguf(&file).unwrap();
    assert_eq!((vocabulary.scores.as_slice(), vocabulary.add_bos), ([0.5, -1.0, 0.0].as_slice(), None));
    assert_eq!(vocabulary.kinds, [Kind::Control, Kind::Normal, Kind::Byte]);
    assert_eq!(chat_template(&file), Ok(Some("{{ bos_token }}")));
    assert_eq!(Tokeniser::new(&vocabulary).unwrap().encode_document("a\na", false), [0, 1, 2, 1]);

    let refused = |file: File| Vocabulary::from_gguf(&Gguf::parse(&file.bytes()).unwrap()).unwrap_err().to_string();
    let wrong = refused(base().array("tokenizer.ggml.token_type", 5, &[9i32.to_le_bytes().to_vec()]));
    assert_eq!(wrong, "tokeniser: tokenizer.ggml.token_type[0]: expected 0 to 6, got 9");
    let wrong = refused(base().add("tokenizer.ggml.add_bos_token", 8, &File::string("yes")));
    assert!(wrong.contains("tokenizer.ggml.add_bos_token") && wrong.contains("expected a bool"), "{wrong}");
    let missing = refused(File(Vec::new(), 0));
    assert!(missing.contains("tokenizer.ggml.model"), "{missing}");
}
