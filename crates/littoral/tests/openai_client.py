"""The official client against `littoral serve`: what programs do with OpenAI's API works here unchanged.

    littoral serve MODEL --api-key sk-test
    python3 openai_client.py http://127.0.0.1:8080/v1
"""

import json
import sys
from typing import Literal

import openai
from pydantic import BaseModel, Field

url = sys.argv[1]
client = openai.OpenAI(base_url=url, api_key="sk-test", max_retries=0)
model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model
messages = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": " there"}]},
]
never_ends = {"257": -100} if model == "tiny" else {}
common = {"model": model, "messages": messages, "max_tokens": 20, "seed": 1, "logit_bias": never_ends}

whole = client.chat.completions.create(**common)
choice = whole.choices[0]
assert choice.message.role == "assistant" and choice.message.content, choice
assert choice.finish_reason in ("length", "stop"), choice
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
print("chat:", repr(choice.message.content))

parts = list(client.chat.completions.create(**common, stream=True, stream_options={"include_usage": True}))
text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
assert text == choice.message.content, (text, choice.message.content)
assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens
print("stream:", len(parts), "parts, the same text")

told = client.chat.completions.create(**common, logprobs=True, top_logprobs=2)
content = told.choices[0].logprobs.content
assert len(content) == told.usage.completion_tokens and all(len(token.top_logprobs) == 2 for token in content)
print("logprobs:", [(token.token, round(token.logprob, 2)) for token in content[:3]])

several = client.chat.completions.create(**common, n=2, extra_body={"top_k": 40, "min_p": 0.01})
assert [choice.index for choice in several.choices] == [0, 1]

completion = client.completions.create(model=model, prompt="Once upon", max_tokens=8, stop=["\n"], logprobs=1, seed=1)
assert len(completion.choices[0].logprobs.tokens) <= 8
streamed = client.completions.create(model=model, prompt="Once upon", max_tokens=8, stop=["\n"], seed=1, stream=True)
assert "".join(part.choices[0].text for part in streamed) == completion.choices[0].text
print("completion:", repr(completion.choices[0].text))

common_form = {**common, "max_tokens": 400, "logit_bias": {}}
mode = client.chat.completions.create(**{**common_form, "max_tokens": 60}, response_format={"type": "json_object"})
said = mode.choices[0]
assert said.message.content.startswith("{"), said
if said.finish_reason == "stop":
    assert isinstance(json.loads(said.message.content), dict)
print("JSON mode:", said.finish_reason, repr(said.message.content))


class Weather(BaseModel):
    """What the sky does in a city, on some of the coming days."""

    city: Literal["Ulm", "Porto"]
    days: int = Field(ge=1, le=7)


parsed = client.chat.completions.parse(**common_form, response_format=Weather)
assert isinstance(parsed.choices[0].message.parsed, Weather), parsed
print("parsed:", parsed.choices[0].message.parsed)
chosen = client.chat.completions.create(**common_form, extra_body={"structured_outputs": {"choice": ["yes", "no"]}})
assert chosen.choices[0].message.content in ("yes", "no"), chosen

tools = [openai.pydantic_function_tool(Weather, name="weather")]
asked = {**common_form, "tools": tools, "tool_choice": "required", "parallel_tool_calls": False}
called = client.chat.completions.parse(**asked).choices[0]
assert called.finish_reason == "tool_calls" and called.message.content is None, called
(call,) = called.message.tool_calls
assert call.function.name == "weather" and isinstance(call.function.parsed_arguments, Weather), call
with client.chat.completions.stream(**asked) as events:
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    final = events.get_final_completion().choices[0]
assert [event.arguments for event in done] == [call.function.arguments], (done, call)
assert final.message.tool_calls[0].function.arguments == call.function.arguments
print("tool:", call.function.name, call.function.arguments)
turn = [
    {"role": "assistant", "tool_calls": [call.model_dump(include={"id": True, "type": True, "function": {"name", "arguments"}})]},
    {"role": "tool", "tool_call_id": call.id, "content": "rain"},
]
result = client.chat.completions.create(**{**common, "messages": messages + turn}, tools=tools)
assert result.choices[0].message.content or result.choices[0].message.tool_calls, result
print("result of the tool:", repr(result.choices[0].message.content))

texts = ["a sea", "a shore", "a sea"]
base64 = client.embeddings.create(model=model, input=texts)
plain = client.embeddings.create(model=model, input=texts, encoding_format="float")
vectors = [one.embedding for one in base64.data]
assert vectors == [one.embedding for one in plain.data] and vectors[0] == vectors[2] != vectors[1]
short = client.embeddings.create(model=model, input="a sea", dimensions=8).data[0].embedding
assert len(short) == 8 and abs(sum(x * x for x in short) - 1) < 1e-6
print("embeddings:", len(vectors), "of", len(vectors[0]), "elements,", base64.usage.prompt_tokens, "tokens")

with client.chat.completions.create(**{**common, "max_tokens": 5000}, stream=True) as stream:
    next(iter(stream))
print("left in the middle of a stream")


def refused(kind, code, call):
    try:
        call()
    except kind as error:
        assert error.code == code, (error.code, code)
        print(f"{kind.__name__}: {error.body['message']}")
    else:
        raise AssertionError(f"{kind.__name__} expected")


create = client.chat.completions.create
refused(openai.BadRequestError, "invalid_value", lambda: create(**{**common, "temperature": 9}))
refused(openai.BadRequestError, "context_length_exceeded", lambda: create(**{**common, "max_tokens": 10**6}))
schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strong"}}}
refused(openai.BadRequestError, "invalid_value", lambda: create(**common, response_format=schema))
refused(openai.BadRequestError, "unsupported_value", lambda: create(**common, modalities=["audio"]))
refused(openai.NotFoundError, "model_not_found", lambda: create(**{**common, "model": "gpt-4o"}))
refused(openai.BadRequestError, "invalid_value", lambda: create(**common, n=9))
refused(openai.BadRequestError, "invalid_value", lambda: client.embeddings.create(model=model, input=""))
wrong = openai.OpenAI(base_url=url, api_key="sk-wrong", max_retries=0)
refused(openai.AuthenticationError, "invalid_api_key", lambda: wrong.models.list())
print("openai", openai.__version__, "works")
