"""Vectors of `littoral serve` beside those of llama.cpp, which pools the mean.

    pip install llama-cpp-python numpy
    littoral serve MODEL.gguf
    python3 oracles/embeddings.py MODEL.gguf http://127.0.0.1:8080

Both round activations to 8 bits, each in its own way, so that vectors are alike and not equal; the cosine is told.
"""

import json
import sys
import urllib.request

import llama_cpp
import numpy as np

TEXTS = [
    "Hello world",
    "The sea is cold in winter, and the shore is white.",
    "def f(x):\n    return x*x",
    "Wie spät ist es?",
    "a" * 300,
]

path, url = sys.argv[1:]
mean = llama_cpp.LLAMA_POOLING_TYPE_MEAN
model = llama_cpp.Llama(model_path=path, embedding=True, pooling_type=mean, n_ctx=1024, verbose=False)
body = json.dumps({"input": TEXTS}).encode()
request = urllib.request.Request(url + "/v1/embeddings", body, {"content-type": "application/json"})
reply = json.load(urllib.request.urlopen(request))
tokens = sum(len(model.tokenize(text.encode())) for text in TEXTS)
assert reply["usage"]["prompt_tokens"] == tokens, (reply["usage"], tokens)
for text, ours in zip(TEXTS, reply["data"]):
    ours = np.array(ours["embedding"])
    theirs = np.array(model.create_embedding(text)["data"][0]["embedding"])
    print(f"{ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs):.6f} {text[:40]!r}")
