//! A tokeniser out of a stranger's model file, and a text. The first byte chooses the model, the second what it adds; then
//! come lines: a name for `pre`, tokens after an empty line, merges after another, and the text is the rest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::one_line;
use littoral_model::text::{Detokeniser, Kind, Tokeniser, Vocabulary};

fuzz_target!(|bytes: &[u8]| {
    let Some((&[model, flags], rest)) = bytes.split_first_chunk() else { return };
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    let mut parts = rest.splitn(4, "\n\n");
    let mut part = || parts.next().unwrap_or_default();
    let (pre, tokens, merges, text) = (part(), part(), part(), part());
    // A line begins with the number of its token's kind.
    let tokens = tokens.lines().map(|line| {
        let kind = line.chars().next().and_then(|c| Kind::from_number(c.to_digit(10)? as i32));
        kind.map_or((Kind::Normal, line), |kind| (kind, &line[1..]))
    });
    let (kinds, tokens): (Vec<Kind>, Vec<&str>) = tokens.unzip();
    let id = |bit: u32| (flags >> bit & 1 == 1).then_some(bit);
    let vocabulary = Vocabulary {
        model: ["gpt2", "llama", "other"][usize::from(model % 3)],
        pre: Some(pre).filter(|pre| !pre.is_empty()),
        scores: (0..tokens.len()).map(|id| -((id * usize::from(model) % 7) as f32)).collect(),
        kinds,
        tokens,
        merges: merges.lines().collect(),
        bos: id(0),
        eos: id(1),
        eot: id(2),
        unknown: id(3),
        padding: None,
        add_bos: id(4).map(|_| true),
        add_eos: id(5).map(|_| true),
        add_space_prefix: id(6).map(|_| false),
    };
    let tokeniser = match Tokeniser::new(&vocabulary) {
        Ok(tokeniser) => tokeniser,
        Err(error) => return one_line(error),
    };
    let ids = tokeniser.encode(text, false);
    assert!(ids.iter().all(|id| (*id as usize) < tokeniser.len()));
    // It may be there only as what stands for the unknown.
    let control = |id: &u32| tokeniser.kind(*id) == Kind::Control && tokeniser.unknown() != Some(*id);
    assert!(!ids.iter().any(control), "people wrote a control token");
    let special = tokeniser.encode_document(text, true);
    assert!(special.iter().all(|id| (*id as usize) < tokeniser.len()));
    // Ids of any kind, and some that there are not.
    let all: Vec<u32> = ids.iter().chain(&special).copied().chain(0..tokeniser.len() as u32 + 2).collect();
    let mut detokeniser = Detokeniser::at_start(&tokeniser);
    let mut pieces: String = all.iter().map(|id| detokeniser.push(*id).to_owned()).collect();
    pieces += detokeniser.finish();
    assert_eq!(pieces, tokeniser.decode(&all), "in pieces and in one");
});
