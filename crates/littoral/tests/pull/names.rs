//! The model that is meant: by name, by default, by path.

use super::server::{Page, Server};
use super::tiny;
use super::world::{World, sha256};

const DEFAULT: &str = "smollm2-135m-instruct";

/// A machine whose catalogue has a tiny model in the default's place.
fn machine(server: &Server) -> World {
    let body = tiny::gguf(true);
    server.put("/tiny.gguf", Page::of(&*body));
    let world = World::new();
    world.catalogue(&format!(
        "[[model]]\nname = \"{DEFAULT}\"\narchitecture = \"llama\"\nlicence = \"MIT\"\nsize_bytes = {}\nsha256 = \"{}\"\n\
         sources = [{{ path = \"absent.gguf\" }}, {{ url = \"{}\" }}]\n",
        body.len(),
        sha256(&body),
        server.url("/tiny.gguf")
    ));
    world
}

#[test]
fn run_without_a_model_fetches_the_default_and_answers() {
    let server = Server::start();
    let world = machine(&server);
    let line = world.refused(&["tokenize", "--model", DEFAULT, "Hello"]);
    assert!(line.contains("the model is not here"), "{line}");
    assert_eq!(server.asked(), []);
    let run = ["run", "-p", "Hello", "--max-tokens", "3"];
    let output = world.littoral(&run);
    let stderr = String::from_utf8(output.stderr).unwrap();
    // What is fetched, how big it is and under which licence, before it is; then why the first source does not have it.
    let mut lines = stderr.lines();
    assert!(output.status.success() && lines.next().unwrap().starts_with(&format!("fetching {DEFAULT}: ")), "{stderr}");
    assert!(lines.nth(1).unwrap().contains("absent.gguf"), "{stderr}");
    assert_eq!(server.asked().len(), 1);
    let by_name = world.json(&["run", DEFAULT, "Hello", "--max-tokens", "3"]);
    assert_eq!(world.json(&run)["ids"], by_name["ids"]);
    assert!(world.json(&["tokenize", "--model", DEFAULT, "Hello"])["ids"].is_array());
    assert_eq!(world.json(&["inspect", DEFAULT])["architecture"], "llama");
    assert_eq!(server.asked(), []);
}

#[test]
fn what_is_no_model_is_one_line() {
    let world = World::new();
    for (model, part) in [
        ("What is the capital of France?", "no such model"),
        ("smollm", "no such model"),
        ("hf:a/b", "no such model"),
        ("./absent", "the model was not opened: ./absent"),
        ("absent.gguf", "the model was not opened: absent.gguf"),
        ("https://example.invalid/x.gguf", "the model is not here: the URL"),
    ] {
        let line = world.refused(&["run", model]);
        assert!(line.contains(part), "{line}");
    }
    let two = world.littoral(&["run", "a", "b", "-p", "c"]);
    assert_eq!(two.status.code(), Some(2), "two prompts: {two:?}");
    assert!(!world.models("").exists(), "asking makes no folder");
}
