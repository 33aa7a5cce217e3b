"""What Python's jinja2 makes of chat templates: what `tests/templates.rs` compares ours with. For developers only.

    python -m venv v && v/bin/pip install jinja2 gguf
    v/bin/python crates/model/oracles/templates.py --models MODELS     # writes tests/golden/templates.json

The environment is that of Hugging Face `transformers` (utils/chat_template_utils.py). Templates are those of the models'
files, and some written here that use what templates of other families use.
"""

import argparse
import json
import os
from datetime import datetime, timezone

import gguf
import jinja2
import jinja2.ext
import jinja2.sandbox

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = ["smollm2-135m-instruct-q4_1.gguf", "qwen2.5-coder-0.5b.gguf", "qwen2.5-coder-1.5b.gguf"]
NOW = 1721995200

OURS = {
    # The shape of Llama 3's: date, tools in the first message, strict alternation, trim.
    "llama3-like": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date_string + "\\n\\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}{{ tool_call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- else %}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
""",
    # The shape of Gemma's and Mistral's: alternation by index, content in parts, Python methods, namespace, break.
    "gemma-like": """{{ bos_token }}
{%- set ns = namespace(first=true, seen=0) -%}
{%- for message in messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {%- set ns.seen = ns.seen + 1 -%}
    {{ '<start_of_turn>' + role + '\\n' + ('first ' if ns.first else '') }}
    {%- set ns.first = false -%}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
    {%- if ns.seen >= 3 %}{% break %}{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
""",
    # Blocks on lines of their own, which trim_blocks and lstrip_blocks take away; Python's strings; macros; tojson.
    "python": """{# a comment #}
{% macro turn(m, end='!') %}
  {% set text = m.content.strip() %}
  [{{ m.role.upper() }}] {{ text.split('</think>')[-1].lstrip('\\n') }}{{ end }}
{% endmacro %}
{% for m in messages %}
    {% if m.content.startswith('skip') or m.content.endswith('skip') %}
        {% continue %}
    {% endif %}
{{ turn(m) }}
{% if loop.previtem is defined and loop.previtem.role == m.role %}same{% endif %}
{{ loop.index }}/{{ loop.length }} {{ 'last' if loop.last else 'more' }}
{% endfor %}
{% if tools is not none and tools %}
{% for tool in tools %}
{{ tool | tojson(indent=4) }}
{% for k, v in tool.function.items() %}{{ k }}={{ v if v is string else '?' }};{% endfor %}

{% endfor %}
{% endif %}
{{ messages | map(attribute='role') | unique | join(',') }} {{ (messages | selectattr('role', 'equalto', 'user') | list) | length }}
{{ messages[-1].role }} {{ messages[::-1][0].role }} {{ [1, 2.0, true, none, 'é<&>\\'"', {'a': []}] | tojson }}
{{ 'a' ~ 1 ~ true }} {{ 7 // 2 }} {{ 2 ** 3 }} {{ 'x' in 'xyz' }} {{ messages | length > 1 and not false }} {{ nothing }}|{{ messages[0].nothing }}|
{{ "%s is %d" | format('x', 3) }} {{ messages[0].get('name', 'nobody') }} {{ 'a,b'.split(',') | join('+') }} {{ 'abc'.replace('b', '-') }} {{ 'title case'.title() }}
""",
}

TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather <of> a place & \"more\"", "parameters": {"type": "object", "properties": {"place": {"type": "string", "description": "café"}, "days": {"type": "integer", "default": 1.5, "enum": [0, -7, 1e20, 1.25e-7, 0.0001, -0.0, 1e16, 9007199254740993, 123456789.125, 1e100, -2.5e-300, 1e15]}}, "required": ["place"]}}}


def message(role, content, **more):
    return {"role": role, "content": content, **more}


CONVERSATIONS = {
    "one": [message("user", "Hi")],
    "system": [message("system", " You are terse. "), message("user", "  Größe?\n"), message("assistant", "<think>\nhm\n</think>\n\nYes."), message("user", "skip this"), message("user", "Go on")],
    "no system": [message("user", "1 < 2 & 'a' \"b\""), message("assistant", "ok"), message("user", "{{ not a template }}")],
    "call": [message("user", "Weather?"), message("assistant", "", tool_calls=[{"type": "function", "function": {"name": "get_weather", "arguments": {"place": "Zürich", "days": 2, "a": 1}}}]), message("tool", "{\"t\": 20}"), message("tool", "sun"), message("assistant", "20 degrees")],
    "calls": [message("user", "Weather?"), message("assistant", "wait", tool_calls=[{"function": {"name": "a", "arguments": {}}}, {"name": "b", "arguments": {"x": [1, None]}}])],
    "parts": [message("user", [{"type": "image"}, {"type": "text", "text": " What is it? "}])],
}


def refuse(text):
    raise jinja2.exceptions.TemplateError(text)


def render(source, variables):
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    environment.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    if variables["now"] is not None:
        environment.globals["strftime_now"] = lambda form: datetime.fromtimestamp(variables["now"], timezone.utc).strftime(form)
    return environment.from_string(source).render(**{key: value for key, value in variables.items() if key != "now"})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", required=True)
    args = parser.parse_args()
    sources = {}
    for model in MODELS:
        source = gguf.GGUFReader(os.path.join(args.models, model)).fields["tokenizer.chat_template"].contents()
        if source not in sources.values():
            sources[model] = source
    sources |= OURS
    golden = []
    for name, source in sources.items():
        cases = []
        for conversation, messages in CONVERSATIONS.items():
            for tools, add, now in ((None, True, None), ([TOOL], False, NOW)):
                variables = {"messages": messages, "tools": tools, "add_generation_prompt": add, "bos_token": "<s>", "eos_token": "</s>", "now": now}
                case = {"conversation": conversation, "tools": bool(tools), "add_generation_prompt": add, "now": now}
                try:
                    case["text"] = render(source, variables)
                except jinja2.exceptions.TemplateError as error:
                    # Undefined values are errors of another class than what the template says itself.
                    if not isinstance(error, jinja2.exceptions.UndefinedError):
                        case["refused"] = str(error)
                    else:
                        case["failed"] = True
                except TypeError:
                    case["failed"] = True
                cases.append(case)
        golden.append({"name": name, "source": source, "cases": cases})
    with open(os.path.join(HERE, "..", "tests", "golden", "templates.json"), "w") as file:
        json.dump({"conversations": CONVERSATIONS, "tool": TOOL, "templates": golden}, file, indent=1, ensure_ascii=False)
        file.write("\n")
    print(", ".join(sources), sum(len(entry["cases"]) for entry in golden), "cases")


main()
