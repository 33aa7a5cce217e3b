"""The official client against `littoral serve`: what programs do with OpenAI's API works here unchanged.

    littoral serve MODEL --api-key sk-test
    python3 openai_client.py http://127.0.0.1:8080/v1
"""

import sys

import openai

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
refused(openai.BadRequestError, "unsupported_value", lambda: create(**common, response_format={"type": "json_object"}))
refused(openai.NotFoundError, "model_not_found", lambda: create(**{**common, "model": "gpt-4o"}))
refused(openai.RateLimitError, "rate_limit_exceeded", lambda: create(**common, n=9))
wrong = openai.OpenAI(base_url=url, api_key="sk-wrong", max_retries=0)
refused(openai.AuthenticationError, "invalid_api_key", lambda: wrong.models.list())
print("openai", openai.__version__, "works")
