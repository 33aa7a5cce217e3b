//! What begins with `/`.

use super::world::World;
use serde_json::{Value, json};
use std::fs;

fn answers(world: &World, input: &str) -> Vec<Value> {
    let output = world.fed(&["--json", "--max-tokens", "4"], input);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_conversation_is_cleared_saved_and_loaded() {
    let world = World::new();
    let input = "One\n/save talk.json\n/clear\nTwo\n/load talk.json\nTwo\n/bye\nnobody hears this\n";
    let got = answers(&world, input);
    assert_eq!(got.len(), 3);
    let saved: Value = serde_json::from_slice(&fs::read(world.path("talk.json")).unwrap()).unwrap();
    assert_eq!(saved, json!([{"role": "user", "content": "One"}, {"role": "assistant", "content": got[0]["text"]}]));
    assert_eq!(got[1]["ids"], answers(&world, "Two\n")[0]["ids"], "after /clear as in a chat of its own");
    assert_eq!(got[2]["ids"], answers(&world, "One\nTwo\n")[1]["ids"], "after /load as if it had been said here");

    // No other file is written over.
    fs::write(world.path("notes.txt"), "mine").unwrap();
    let refused = world.fed(&["--max-tokens", "4"], "One\n/save notes.txt\n");
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(fs::read(world.path("notes.txt")).unwrap(), b"mine");
    let wrong = r#"[{"role": "tool", "content": "x"}]"#;
    fs::write(world.path("wrong.json"), wrong).unwrap();
    let refused = String::from_utf8(world.fed(&[], "/load wrong.json\n").stderr).unwrap();
    assert!(refused.contains("wrong.json: a JSON list of messages") && refused.contains("`tool`"), "{refused}");
}

#[test]
fn system_set_and_several_lines_reach_the_model() {
    let world = World::new();
    let prompt_tokens =
        |got: &[Value]| got.iter().map(|got| got["prompt_tokens"].as_u64().unwrap()).collect::<Vec<_>>();
    let plain = prompt_tokens(&answers(&world, "abc\n"))[0];
    // A message is framed by two tokens, the letters of its role, and two line ends.
    let got = answers(
        &world,
        "/system \"\"\"You\nare\"\"\"\nabc\n/clear\n/system \"\"\nabc\n/clear\n\"\"\"\na\n\nb\n\"\"\"\n",
    );
    assert_eq!(prompt_tokens(&got), [plain + 2 + 6 + 2 + 7, plain, plain + 1]);

    let got = answers(
        &world,
        "/set temperature 1\n/set seed 5\nabc\n/clear\n/set seed 6\nabc\n/clear\n/set seed 5\nabc\n/set max_tokens 2\nabc\n",
    );
    assert_eq!(got[0]["ids"], got[2]["ids"]);
    assert_ne!(got[0]["ids"], got[1]["ids"]);
    assert_eq!(got[3]["ids"].as_array().unwrap().len(), 2);

    let told =
        String::from_utf8(world.fed(&["--max-tokens", "4"], "abc\n/stats\n/set\n/system\n/help\n").stderr).unwrap();
    assert!(
        told.contains("tiny: 1 answers, ") && told.contains(" of 65536 tokens of the context are used, by 2 messages"),
        "{told}"
    );
    assert!(told.contains("temperature          0\n") && told.contains("/save FILE"), "{told}");
}
