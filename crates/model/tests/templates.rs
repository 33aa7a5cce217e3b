//! Chat templates give what Python's jinja2 gives, character for character. `oracles/templates.py` wrote the golden file;
//! the templates are in it.

use littoral_model::text::{ChatTemplate, Json, Prompt, TemplateError};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Golden {
    conversations: BTreeMap<String, Vec<Json>>,
    tool: Json,
    templates: Vec<Template>,
}

#[derive(Deserialize)]
struct Template {
    name: String,
    source: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    conversation: String,
    tools: bool,
    add_generation_prompt: bool,
    now: Option<i64>,
    /// One of these: the text, what the template says when it refuses, or that it fails.
    text: Option<String>,
    refused: Option<String>,
}

#[test]
fn templates_render_as_in_python() {
    let golden: Golden = serde_json::from_str(include_str!("golden/templates.json")).unwrap();
    let tools = [golden.tool];
    for template in &golden.templates {
        let chat = ChatTemplate::new(&template.source).unwrap_or_else(|error| panic!("{}: {error}", template.name));
        for case in &template.cases {
            let got = chat.render(&Prompt {
                messages: &golden.conversations[&case.conversation],
                tools: if case.tools { &tools } else { &[] },
                add_generation_prompt: case.add_generation_prompt,
                bos: "<s>",
                eos: "</s>",
                now: case.now,
                more: &[],
            });
            let of = format!("{}, {}, tools {}", template.name, case.conversation, case.tools);
            match (&case.text, &case.refused) {
                (Some(text), _) => assert_eq!(got.as_ref(), Ok(text), "{of}"),
                (None, Some(message)) => {
                    assert_eq!(got, Err(TemplateError::Refused { message: message.clone() }), "{of}")
                }
                (None, None) => assert!(matches!(got, Err(TemplateError::Failed { .. })), "{of}: {got:?}"),
            }
        }
    }
}

#[test]
fn a_template_that_does_not_end_is_stopped() {
    let chat =
        ChatTemplate::new("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}").unwrap();
    assert!(matches!(chat.render(&Prompt::default()), Err(TemplateError::Failed { .. })));
}

#[test]
fn errors_say_where() {
    let syntax = ChatTemplate::new("\n{% for m in messages %}").err().unwrap();
    assert!(matches!(syntax, TemplateError::Syntax { line: 2, .. }), "{syntax}");
    let failed = ChatTemplate::new("\n\n{{ 1 + messages }}").unwrap().render(&Prompt::default()).unwrap_err();
    assert!(matches!(failed, TemplateError::Failed { line: 3, .. }), "{failed}");
    assert!(ChatTemplate::new("{% include '/etc/passwd' %}").is_err(), "templates read no files");
}
