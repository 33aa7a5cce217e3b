//! Standard input that is no terminal: an answer to each line, and nothing else on stdout.

use super::world::World;
use serde_json::Value;

fn lines(stdout: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_line_is_answered_and_the_conversation_goes_on() {
    let world = World::new();
    let args = ["--json", "--max-tokens", "5"];
    let both = world.fed(&args, "One\n\nTwo");
    assert!(both.status.success(), "{both:?}");
    let both = lines(&both.stdout);
    let keys: Vec<&str> = both[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["decode_tok_s", "ids", "prompt_tokens", "text", "ttft_s"]);
    let alone = lines(&world.fed(&args, "Two\n").stdout);
    assert_eq!((both.len(), alone.len()), (2, 1));
    assert_eq!(
        lines(&world.command(&["--json", "--max-tokens", "5", "One"]).output().unwrap().stdout)[0]["ids"],
        both[0]["ids"]
    );
    assert!(both[1]["prompt_tokens"].as_u64() > alone[0]["prompt_tokens"].as_u64(), "{both:?}");

    let plain = world.fed(&["--max-tokens", "5", "--regex", "[a-z]{5}"], "One\nTwo\n");
    assert_eq!(String::from_utf8(plain.stdout).unwrap().lines().map(str::len).collect::<Vec<_>>(), [5, 5]);
    assert!(plain.stderr.is_empty(), "no prompts, no times");
}

#[test]
fn what_is_wrong_ends_it_in_one_line() {
    let world = World::new();
    let huge = format!("{}\n", "a".repeat((1 << 20) + 1));
    // The tiny model has a token for each byte, and a context of 65536.
    let long = format!("{}\n", "a".repeat(70_000));
    for (input, told) in [
        ("/nope\nOne\n", "no such command: the chat: one that /help lists expected, got /nope"),
        ("/load absent.json\n", "the file was not read: absent.json: a readable file expected"),
        ("\"\"\"\nOne\n", "no answer: the last message: \"\"\" at its end expected, got none"),
        (&huge, "no answer: the message: at most 1048576 bytes expected, got more"),
        (&long, "no answer: the prompt: less than the model's context of 65536 tokens expected, got 700"),
    ] {
        let output = world.fed(&["--max-tokens", "2"], input);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{stderr}");
        assert!(stderr.starts_with(&format!("error: {told}")), "{stderr}");
    }
}
