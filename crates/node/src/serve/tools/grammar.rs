//! Text that can be nothing but calls.

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

/// Each function's parameters are a grammar of their own, so that a `$ref` points into its own schema.
fn rules<'f>(functions: impl Iterator<Item = &'f Function>, parallel: bool) -> String {
    let several = if parallel { format!(" (\"\\n\" call){{0,{}}}", CALLS_MAX - 1) } else { String::new() };
    let before = quoted(&format!("{OPEN}\n{{\"name\": \""));
    let after = quoted(&format!("}}\n{CLOSE}"));
    let mut rules = format!("calls: call{several}\ncall: {before} which {after}\n");
    let mut which = Vec::new();
    for (at, function) in functions.enumerate() {
        let name = quoted(&format!("{}\", \"arguments\": ", function.name));
        which.push(format!("{name} arguments_{at}"));
        rules += &format!("arguments_{at}: {}\n", json_rule(&function.parameters));
    }
    rules + &format!("which: {}\n", which.join(" | "))
}
