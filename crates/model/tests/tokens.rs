//! Ids are llama.cpp's, id for id, for a corpus of nasty strings under every vocabulary at hand.
//!
//! `oracles/tokens.py` wrote the golden files. The vocabularies themselves are megabytes and come from the models' files, in
//! `$LITTORAL_MODELS`; where a file is absent the test says so and passes. `$LITTORAL_TOKENS` names a
//! folder with other golden files, to compare many more strings than are committed.

use littoral_model::text::{Kind, Tokeniser, Vocabulary};
use littoral_tensor::Mapped;
use littoral_tensor::gguf::Gguf;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Golden {
    /// Keys that were changed in the file before llama.cpp saw it; null for one that was taken away.
    changes: serde_json::Map<String, Value>,
    tokens: usize,
    /// FNV-1a over what each token stands for, with a line feed after each.
    pieces: String,
    /// For each text the ids plain, with special tokens parsed, and as a document; the latter two null if they are plain.
    ids: Vec<[Option<Vec<u32>>; 3]>,
}

#[test]
fn smollm() {
    compare("smollm2-135m-instruct-q4_1.gguf", &["smollm"]);
}

#[test]
fn gemma3() {
    compare("gemma-3-270m-q4_k_m.gguf", &["gemma3", "gemma3_as_llama2"]);
}

#[test]
fn qwen2() {
    compare("qwen2.5-coder-0.5b.gguf", &["qwen2", "qwen2_as_gpt-2", "qwen2_as_llama-bpe", "qwen2_as_default"]);
}

fn golden_folder() -> PathBuf {
    std::env::var_os("LITTORAL_TOKENS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokens"), PathBuf::from)
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let path = golden_folder().join(name);
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

fn model(name: &str) -> Option<Mapped> {
    let folder = std::env::var_os("LITTORAL_MODELS").map_or_else(PathBuf::new, PathBuf::from);
    let path = folder.join(name);
    let Ok(file) = std::fs::File::open(&path) else {
        println!("{} is absent: nothing is compared", path.display());
        return None;
    };
    Some(Mapped::new(&file).unwrap())
}

fn compare(name: &str, goldens: &[&str]) {
    let Some(bytes) = model(name) else { return };
    let file = Gguf::parse(&bytes).unwrap();
    for golden in goldens {
        compare_one(&file, golden);
    }
}

fn compare_one(file: &Gguf<'_>, name: &str) {
    let golden: Golden = read(&format!("{name}.json"));
    let texts: Vec<String> = read("texts.json");
    assert_eq!(texts.len(), golden.ids.len());
    let mut vocabulary = Vocabulary::from_gguf(file).unwrap();
    for (key, value) in &golden.changes {
        match key.as_str() {
            "pre" => vocabulary.pre = value.as_str(),
            "add_bos_token" => vocabulary.add_bos = value.as_bool(),
            "add_eos_token" => vocabulary.add_eos = value.as_bool(),
            "add_space_prefix" => vocabulary.add_space_prefix = value.as_bool(),
            other => panic!("{other}"),
        }
    }
    let tokeniser = Tokeniser::new(&vocabulary).unwrap();
    assert_eq!(tokeniser.len(), golden.tokens);

    let (mut compared, mut wrong) = (0, Vec::new());
    for (text, [plain, special, document]) in texts.iter().zip(&golden.ids) {
        let ids = tokeniser.encode(text, false);
        for (what, got, want) in [
            ("plain", ids.clone(), plain),
            ("special", tokeniser.encode(text, true), special),
            ("document", tokeniser.encode_document(text, false), document),
        ] {
            let want = want.as_ref().or(plain.as_ref()).unwrap();
            // See `AMBIGUOUS_END`: where special tokens are parsed we go by the file, llama.cpp by the name.
            if what == "special"
                && text.contains("</s>")
                && tokeniser.id("</s>").is_some_and(|id| tokeniser.kind(id) == Kind::Normal)
            {
                continue;
            }
            compared += want.len();
            if &got != want {
                wrong.push(format!("{what} {text:?}\n  got  {got:?}\n  want {want:?}"));
            }
        }
        // SmolLM has no tokens for some control characters, which nobody writes; they are left out.
        if text.contains(|c: char| c.is_control() && !c.is_whitespace()) {
            continue;
        }
        // SentencePiece cannot tell the character that it writes for a space from a space.
        let text = if vocabulary.model == "llama" { text.replace('\u{2581}', " ") } else { text.clone() };
        if tokeniser.decode(&ids) != text {
            wrong.push(format!("{text:?} comes back as {:?}", tokeniser.decode(&ids)));
        }
    }
    println!("{name}: {} texts three ways, {compared} ids, {} differ", texts.len(), wrong.len());
    assert!(wrong.is_empty(), "{} differ; the first:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    assert_eq!(pieces(&tokeniser), golden.pieces);
}

fn pieces(tokeniser: &Tokeniser) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut bytes = Vec::new();
    for id in 0..tokeniser.len() as u32 {
        bytes.clear();
        // llama.cpp hides this one whatever the file says.
        if tokeniser.token(id) != Some("</s>") {
            tokeniser.bytes(id, &mut bytes);
        }
        bytes.push(b'\n');
        hash = bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    }
    format!("{hash:016x}")
}
