//! Somebody types: a prompt, a history, Ctrl-C and Ctrl-D.

use super::world::{Terminal, World};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

/// An answer that takes minutes.
const ENDLESS: [&str; 4] = ["--regex", "[a-z]{60000}", "--max-tokens", "60000"];
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const UP: &str = "\x1b[A";

#[test]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let world = World::new();
    let mut terminal = Terminal::open(&world, &ENDLESS);
    terminal.ask("One");
    terminal.until("aaaa");
    terminal.interrupt();
    let rest = terminal.until(" tok/s; stopped");
    assert!(rest.contains("the first written after "), "{rest}");
    // What was written by then is part of the conversation.
    terminal.ask("/save talk.json");
    terminal.until("2 messages are in talk.json");
    let saved: Value = serde_json::from_slice(&fs::read(world.path("talk.json")).unwrap()).unwrap();
    assert!(saved[1]["content"].as_str().unwrap().contains("aaaa"), "{saved}");
    // A mistake is told, and the chat goes on.
    terminal.ask("/nope");
    terminal.until("error: no such command");
    terminal.ask("/set temperature hot");
    terminal.until("error: nothing is set: temperature: a number expected");
    // Without an answer there is nothing to stop.
    terminal.until(">>> ");
    terminal.press(CTRL_C);
    terminal.until("/bye or Ctrl-D leaves");
    terminal.until(">>> ");
    terminal.press(CTRL_D);
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn what_is_typed_is_there_again_and_nobody_else_can_read_it() {
    let world = World::new();
    let file = world.path("home/history");
    let brief = ["--max-tokens", "3"];
    let mut terminal = Terminal::open(&world, &brief);
    terminal.ask("first question");
    terminal.ask("\"\"\"two\rlines\"\"\"");
    terminal.ask(" not to be kept");
    terminal.ask("/bye");
    assert_eq!(terminal.end(), Some(0));
    let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let kept = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = kept.lines().skip(1).collect();
    assert_eq!(lines, ["first question", "\"\"\"two\\nlines\"\"\"", "/bye"]);

    // A file that was opened to others is closed again, and the next chat knows it.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let mut terminal = Terminal::open(&world, &brief);
    terminal.until(">>> ");
    // Past /bye, and both lines of the text before.
    terminal.press(&format!("{}\r", UP.repeat(4)));
    terminal.until("first question");
    terminal.until(" tokens read");
    assert_eq!(mode(), 0o600);
    terminal.ask("/bye");
    assert_eq!(terminal.end(), Some(0));

    // It does not grow for ever, and one that is no history is let alone.
    let many: String = (0..1500).map(|n| format!("question {n}\n")).collect();
    fs::write(&file, format!("#V2\n{many}")).unwrap();
    let mut terminal = Terminal::open(&world, &brief);
    terminal.ask("/bye");
    assert_eq!(terminal.end(), Some(0));
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1 + 1000);
    File::create(&file).unwrap().set_len(1 << 24).unwrap();
    let mut terminal = Terminal::open(&world, &brief);
    terminal.until("what you type is not remembered: ");
    terminal.ask("/bye");
    assert_eq!(terminal.end(), Some(0));
    assert_eq!(fs::metadata(&file).unwrap().len(), 1 << 24);
}

#[test]
fn a_chat_without_history_leaves_none() {
    let world = World::new();
    let mut terminal = Terminal::open(&world, &["--no-history", "--max-tokens", "3"]);
    terminal.ask("One");
    terminal.ask("/bye");
    assert_eq!(terminal.end(), Some(0));
    assert!(!world.path("home").exists());
}

/// 65536 tokens are in no test's patience: a saved conversation fills the context, all but the answer's room.
#[test]
fn a_full_context_is_said_in_one_line_and_the_chat_goes_on() {
    let world = World::new();
    let long = "a".repeat(65_480);
    fs::write(world.path("long.json"), format!(r#"[{{"role": "system", "content": "{long}"}}]"#)).unwrap();
    let mut terminal = Terminal::open(&world, &ENDLESS);
    terminal.ask("/load long.json");
    terminal.ask(&"b".repeat(50));
    terminal.until("the context is full: it has 65536 tokens, the conversation ");
    terminal.until(" with this message; /clear begins a new one, /save FILE keeps this one");
    terminal.ask("/system \"\"");
    terminal.ask("One");
    terminal.until("aaaa");
    terminal.interrupt();
    terminal.ask("/bye");
    assert_eq!(terminal.end(), Some(0));
}
