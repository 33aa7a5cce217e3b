"""How far what we expect is from the dequantised weights run in f32, beside how far llama.cpp is. For developers only.

    python -m venv v && v/bin/pip install gguf numpy                  # and llama-cpp-python, as tokens.py says
    cargo build --release -p littoral-model --example logits
    v/bin/python crates/model/oracles/distributions.py --models MODELS --text ../shared/data/tinyshakespeare.txt
        --logits target/release/examples/logits [--littoral target/release/littoral] [--write]

For each model: the Kullback-Leibler divergence KL(reference || other) in nats, as a mean over the positions of the text's
first 512 ids, of ours and of llama.cpp's at its default settings (`llama.py`); how often the likeliest id is the same. The
first position is told apart: in a model whose texts begin without a mark (Qwen's do), it holds the few huge activations
that all later positions lean on, integers are poor at them, and what comes after a single id says nothing else. With
--littoral, perplexity over the text's first 32 KiB in windows of 512 as `littoral score` has it, and over the same ids by
llama.cpp. With --write, the golden files of `tests/distributions.rs`, so that the test needs none of this.
"""

import argparse
import hashlib
import json
import os
import subprocess
import tempfile

import numpy as np

import reference
from llama import Llama

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "tests", "golden", "distributions")
MODELS = ["smollm2-135m-instruct-q4_1.gguf", "gemma-3-270m-q4_k_m.gguf", "qwen2.5-coder-0.5b.gguf", "qwen2.5-coder-1.5b.gguf"]
IDS, WINDOW, TEXT_BYTES = 512, 512, 32 * 1024
# The golden file has the likeliest ids of position 0, and of every other one of a shorter text, so that tests are quick.
GOLDEN_IDS, LIKELIEST = 128, 12


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def divergences(expected, got):
    """Of each position, one at a time: a vocabulary in f64 is a few megabytes."""
    out = np.empty(len(expected))
    for i in range(len(expected)):
        p, q = log_softmax(expected[i]), log_softmax(got[i])
        out[i] = np.sum(np.exp(p) * (p - q))
    return out


def coarse(p, q):
    """The divergence of what a golden file can tell: some ids one by one, all others as one."""
    p, q = (np.append(x, np.log1p(-min(np.exp(x).sum(), 1 - 1e-12))) for x in (p, q))
    return float(np.sum(np.exp(p) * (p - q)))


def ours(program, model, ids, vocabulary):
    with tempfile.TemporaryDirectory() as folder:
        names = [os.path.join(folder, name) for name in ("ids", "logits")]
        with open(names[0], "w") as file:
            file.write(" ".join(map(str, ids)))
        subprocess.run([program, model, *names], check=True)
        return np.fromfile(names[1], np.float32).reshape(len(ids), vocabulary)


def perplexity(llama, ids):
    """Windows one after the other, an empty context for each, whose first id is given."""
    total = scored = 0
    for start in range(0, len(ids), WINDOW):
        window = ids[start:start + WINDOW]
        logits = llama.logits(window)
        for i in range(len(window) - 1):
            total -= log_softmax(logits[i])[window[i + 1]]
        scored += len(window) - 1
    return float(np.exp(total / scored)), scored


def golden(name, path, ids, expected, ours, llama):
    """`mean_kl` of both is over all ids but the first; `coarse_kl` is what the test can see of ours."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    positions, seen = [], []
    for at in [0, *range(1, GOLDEN_IDS, 2)]:
        p = log_softmax(expected[at])
        likeliest = np.argsort(-p)[:LIKELIEST]
        rounded = np.array([round(float(x), 5) for x in p[likeliest]])
        seen.append(coarse(rounded, log_softmax(ours[at])[likeliest]))
        positions.append([at, [int(i) for i in likeliest], [float(x) for x in rounded]])

    def digits(x):
        return float(f"{x:.4g}")

    head = {
        "file": name, "sha256": digest, "mean_kl": digits(divergences(expected[1:], ours[1:]).mean()),
        "llama_cpp_mean_kl": digits(divergences(expected[1:], llama[1:]).mean()),
        "coarse_kl": [digits(seen[0]), digits(np.mean(seen[1:]))], "ids": [int(i) for i in ids[:GOLDEN_IDS]],
    }
    fields = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    rows = ",\n".join(json.dumps(position) for position in positions)
    with open(os.path.join(GOLDEN, name.removesuffix(".gguf") + ".json"), "w") as file:
        file.write("{" + ",\n".join(fields) + f',\n"positions": [\n{rows}\n]}}\n')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", required=True)
    parser.add_argument("--only", nargs="*", default=MODELS)
    parser.add_argument("--text", required=True)
    parser.add_argument("--logits", help="the example of littoral-model, built")
    parser.add_argument("--littoral", help="the command, built: perplexity too")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    with open(args.text, "rb") as file:
        text = file.read(TEXT_BYTES).decode(errors="ignore")
    for name in args.only:
        path = os.path.join(args.models, name)
        llama = Llama(path, WINDOW)
        all_ids = llama.ids(text)
        ids = all_ids[:IDS]
        row = {"model": name, "ids": len(ids)}
        if args.logits:
            expected = reference.logits(path, ids)
            mine = ours(args.logits, path, ids, llama.vocabulary)
            theirs = llama.logits(ids)
            for who, got in (("littoral", mine), ("llama.cpp", theirs)):
                each = divergences(expected, got)
                row[f"{who} KL"], row[f"{who} KL median"] = each[1:].mean(), np.median(each)
                row[f"{who} KL of the first"] = each[0]
                row[f"{who} top-1"] = float((got.argmax(-1) == expected.argmax(-1)).mean())
            row["ratio"] = row["littoral KL"] / row["llama.cpp KL"]
            if args.write:
                golden(name, path, ids, expected, mine, theirs)
            del expected, mine
        if args.littoral:
            row["llama.cpp perplexity"], row["scored"] = perplexity(llama, all_ids)
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
                file.write(text)
                file.flush()
                command = [args.littoral, "score", "--json", "--model", path, file.name]
                out = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            assert out["tokens"] == row["scored"], (out, row)
            row["littoral perplexity"] = out["perplexity"]
            row["perplexity ratio"] = out["perplexity"] / row["llama.cpp perplexity"]
        llama.close()
        print(json.dumps({key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in row.items()}), flush=True)


main()
