//! What a constraint costs: the index of a vocabulary once, a parser for each request, a mask for each token.
//!
//! cargo run --release -p littoral-infer --example masks -- MODEL.gguf

use littoral_infer::constrain::Constraint;
use littoral_infer::model::Model;
use littoral_tensor::pool::Pool;
use std::time::{Duration, Instant};

/// Strings of any length, numbers, a list: where most tokens are allowed and where few are.
const SCHEMA: &str = r#"{"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"},
    "tags": {"type": "array", "items": {"type": "string"}}, "kind": {"enum": ["person", "place"]}},
    "required": ["name", "age", "tags", "kind"], "additionalProperties": false}"#;
const TEXT: &str = "{\n  \"name\": \"John of the small house by the sea, who sold fish\",\n  \"age\": 31,\n  \
    \"tags\": [\"fisher\", \"neighbour of the lighthouse\", \"left-handed\"],\n  \"kind\": \"person\"\n}";

fn main() {
    let path = std::env::args().nth(1).expect("the file of a model");
    let model = Model::load(&std::fs::read(path).expect("readable"), &Pool::new(1), &mut |_| ()).expect("a model");
    let begun = Instant::now();
    let index = model.index().expect("an index");
    println!("index of {} tokens: {:?}", model.stage.config().vocabulary, begun.elapsed());
    for (name, schema) in [("json_object", r#"{"type": "object"}"#), ("json_schema", SCHEMA)] {
        let begun = Instant::now();
        let mut constraint = Constraint::json_schema(index, schema).expect("a schema");
        let built = begun.elapsed();
        let mut masks: Vec<Duration> = Vec::new();
        let mut accepting = Duration::ZERO;
        for id in model.tokeniser.encode(TEXT, false) {
            let begun = Instant::now();
            let allowed = constraint.allowed().expect("the parser goes on");
            masks.push(begun.elapsed());
            assert!(allowed.allows(id), "{:?}", model.tokeniser.token(id));
            let begun = Instant::now();
            constraint.accept(id).expect("allowed");
            accepting += begun.elapsed();
        }
        let all: Duration = masks.iter().sum();
        let first = masks[0];
        masks.sort_unstable();
        let count = masks.len() as u32;
        println!(
            "{name}: parser {built:?}; {count} masks: the first {first:?}, median {:?}, mean {:?}, longest {:?}; accepting {:?}",
            masks[masks.len() / 2],
            all / count,
            masks[masks.len() - 1],
            accepting / count,
        );
    }
}
