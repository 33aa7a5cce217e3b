//! Tools and calls in the words of Hermes and Qwen, for models whose template has none.

use super::{OPEN, Tools};
use littoral_model::text::{ChatTemplate, Json, Prompt};
use serde_json::{Value, json};

/// What stands in Qwen 2.5's template. Models that were trained on neither can still follow it.
const TOOLS: &str = "# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{% for tool in tools %}
{{ tool | tojson }}
{% endfor %}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{\"name\": <function-name>, \"arguments\": <args-json-object>}
</tool_call>";

const CALLS: &str = "{% for call in messages %}
<tool_call>
{\"name\": {{ call.name | tojson }}, \"arguments\": {{ call.arguments | tojson }}}
</tool_call>{% if not loop.last %}{{ '\\n' }}{% endif %}
{% endfor %}";

/// A call in a conversation so far.
pub struct Described<'a> {
    pub name: &'a str,
    pub arguments: &'a Value,
}

/// Does this template tell a model of tools, in this form? It is tried.
pub fn known(template: &ChatTemplate) -> bool {
    let probe = json!({"type": "function", "function": {"name": "a_probe", "parameters": {"type": "object"}}});
    let messages = [Json::message("user", "x")];
    let prompt = Prompt { messages: &messages, tools: &[Json::new(&probe)], ..Prompt::default() };
    template.render(&prompt).is_ok_and(|text| text.contains(OPEN) && text.contains("a_probe"))
}

/// The words about tools, and about calls, that a template without tools is given as text.
pub fn described(tools: &Tools) -> String {
    render(TOOLS, &Prompt { tools: &tools.told, ..Prompt::default() })
}

impl Described<'_> {
    pub fn text(calls: &[Self]) -> String {
        let calls: Vec<Json> =
            calls.iter().map(|call| Json::new(&json!({"name": call.name, "arguments": call.arguments}))).collect();
        render(CALLS, &Prompt { messages: &calls, ..Prompt::default() })
    }
}

fn render(template: &str, prompt: &Prompt<'_>) -> String {
    let rendered = ChatTemplate::new(template).and_then(|template| template.render(prompt));
    rendered.expect("a template of our own")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_written_as_models_saw_them() {
        let arguments = json!({"city": "Köln \"am\" Rhein", "days": [1, 2]});
        let call = || Described { name: "weather", arguments: &arguments };
        let one = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln \\\"am\\\" Rhein\", \
                   \"days\": [1, 2]}}\n</tool_call>";
        assert_eq!(Described::text(&[call()]), one);
        assert_eq!(Described::text(&[call(), call()]), format!("{one}\n{one}"));
    }

    #[test]
    fn a_template_is_asked_whether_it_knows_tools() {
        let knows = |source: &str| known(&ChatTemplate::new(source).unwrap());
        assert!(knows("{% if tools %}<tool_call>{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}"));
        assert!(!knows("{% for m in messages %}<tool_call>{{ m.content }}{% endfor %}"));
        assert!(!knows("{% for t in tools %}{{ t | tojson }}{% endfor %}"));
    }
}
