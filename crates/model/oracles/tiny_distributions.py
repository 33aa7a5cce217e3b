"""Logits of tiny made-up models by `reference.py`: what `tests/distributions.rs` compares ours with. For developers only.

    python -m venv v && v/bin/pip install gguf numpy                  # and llama-cpp-python, as tokens.py says, for --llama
    v/bin/python crates/model/oracles/tiny_distributions.py [--llama]     # writes tests/golden/distributions/tiny.json

A model is a list of keys and tensors; weights are `around + spread * draw`, drawn from one seed in the order of the list, so
that the test makes the same file. With --llama, llama.cpp reads these files too and must agree with the reference.
"""

import argparse
import json
import os
import tempfile

import gguf
import numpy as np

import reference

HERE = os.path.dirname(os.path.abspath(__file__))
VOCABULARY, WIDTH, INNER, HEADS, KV_HEADS = 64, 48, 80, 4, 2
IDS = [(i * i * 7 + i * 3 + 5) % VOCABULARY for i in range(44)]
POSITIONS = [0, 1, 2, 9, 11, 12, 13, 16, 17, 24, 31, 32, 43]


def model(architecture, layers=2, head_width=None, tied=True, qk_norm=False, bias=False, gemma=False, factors=False, **keys):
    """(keys, tensors): a key is [name, type, value], a tensor [name, dimensions, around, spread]."""
    all_keys = [["general.architecture", "str", architecture], ["tokenizer.ggml.model", "str", "no_vocab"]]
    numbers = {
        "vocab_size": VOCABULARY, "context_length": 128, "block_count": layers, "embedding_length": WIDTH,
        "feed_forward_length": INNER, "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 0.01,
    } | keys
    if head_width:
        numbers |= {"attention.key_length": head_width, "attention.value_length": head_width}
    for name, value in numbers.items():
        kind = "str" if isinstance(value, str) else "u32" if isinstance(value, int) else "f32"
        all_keys.append([f"{architecture}.{name}", kind, value])
    head_width = head_width or WIDTH // HEADS
    tensors = []

    def matrix(name, rows, columns, gain=1.0):
        tensors.append([f"{name}.weight", [columns, rows], 0.0, round(gain * (3 / columns) ** 0.5, 3)])

    def vector(name, length, around=1.0, spread=0.3):
        tensors.append([name, [length], around, spread])

    matrix("token_embd", VOCABULARY, WIDTH, 2.5)
    vector("output_norm.weight", WIDTH)
    if not tied:
        matrix("output", VOCABULARY, WIDTH, 2.5)
    if factors:
        # Llama 3's go from 1 for the fast pairs to 8 for the slow ones; here they are anything between.
        vector("rope_freqs.weight", head_width // 2, 4.5, 3.5)
    for layer in range(layers):
        b = f"blk.{layer}."
        vector(f"{b}attn_norm.weight", WIDTH)
        # Queries and keys are wide, so that softmax is far from even and each angle counts.
        for part, rows, gain in (("q", HEADS * head_width, 1.6), ("k", KV_HEADS * head_width, 1.6), ("v", KV_HEADS * head_width, 1.0)):
            matrix(f"{b}attn_{part}", rows, WIDTH, gain)
            if bias:
                vector(f"{b}attn_{part}.bias", rows, 0.0, 0.8)
        if qk_norm:
            vector(f"{b}attn_q_norm.weight", head_width, 1.4)
            vector(f"{b}attn_k_norm.weight", head_width, 1.4)
        matrix(f"{b}attn_output", WIDTH, HEADS * head_width)
        vector(f"{b}ffn_norm.weight", WIDTH)
        matrix(f"{b}ffn_gate", INNER, WIDTH)
        matrix(f"{b}ffn_up", INNER, WIDTH)
        matrix(f"{b}ffn_down", WIDTH, INNER)
        if gemma:
            vector(f"{b}post_attention_norm.weight", WIDTH)
            vector(f"{b}post_ffw_norm.weight", WIDTH)
    return all_keys, tensors


YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}

MODELS = {
    "llama": model("llama", tied=False, **{"rope.scaling.type": "linear", "rope.scaling.factor": 4.0, "rope.dimension_count": 12}),
    "llama 3": model("llama", factors=True, **{"rope.freq_base": 500.0, "rope.dimension_count": 12}),
    "qwen 2": model("qwen2", bias=True, tied=False, **{"rope.freq_base": 2000.0}),
    "qwen 3": model("qwen3", head_width=16, qk_norm=True, **{"rope.freq_base": 2000.0}),
    "gemma 3": model("gemma3", layers=7, head_width=16, qk_norm=True, gemma=True, **{
        "rope.freq_base": 1000.0, "rope.scaling.type": "linear", "rope.scaling.factor": 4.0, "attention.sliding_window": 12,
    }),
    # Of six or eight pairs some are kept, some slowed, some between.
    "qwen 2 yarn": model("qwen2", bias=True, tied=False, **YARN, **{"rope.freq_base": 2000.0, "rope.scaling.original_context_length": 256}),
    "qwen 3 yarn": model("qwen3", head_width=16, qk_norm=True, **YARN, **{"rope.freq_base": 500.0}),
    "llama yarn": model("llama", **YARN, **{
        "rope.freq_base": 100.0, "rope.dimension_count": 12, "rope.scaling.original_context_length": 64,
        "rope.scaling.attn_factor": 0.75,
    }),
    # llama.cpp 0.3.36 reads these two keys in other architectures only, so that it is far away here.
    "llama yarn, other turns": model("llama", **YARN, **{
        "rope.freq_base": 100.0, "rope.dimension_count": 12, "rope.scaling.original_context_length": 64,
        "rope.scaling.yarn_beta_fast": 6.0, "rope.scaling.yarn_beta_slow": 1.5,
    }),
}


def weights(tensors, seed=11):
    """In f32 throughout, in this order of operations: the test's are the same bits."""
    for name, dims, around, spread in tensors:
        count = int(np.prod(dims))
        draws = np.empty(count, np.float32)
        for i in range(count):
            seed = (seed * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
            draws[i] = np.float32(seed >> 40) / np.float32(1 << 23) - np.float32(1)
        yield name, (np.float32(around) + np.float32(spread) * draws).reshape(tuple(reversed(dims)))


def write(path, keys, tensors):
    writer = gguf.GGUFWriter(path, keys[0][2])
    for name, kind, value in keys[1:]:
        {"str": writer.add_string, "u32": writer.add_uint32, "f32": writer.add_float32}[kind](name, value)
    for name, values in weights(tensors):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--llama", action="store_true", help="compare the reference with llama.cpp, too")
    parser.add_argument("--keep", help="a folder for the models' files")
    args = parser.parse_args()
    golden = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (keys, tensors) in MODELS.items():
            path = os.path.join(args.keep or folder, name.replace(" ", "") + ".gguf")
            write(path, keys, tensors)
            logits = reference.logits(path, IDS)
            line = f"{name}: {os.path.getsize(path) // 1000} kB, logits {logits.std():.2f} wide"
            if args.llama:
                from llama import Llama

                # Keys and values in f32, so that what is left is rounding: two implementations of one architecture.
                llama = Llama(path, 64, type_k=0, type_v=0, flash_attn_type=0)
                line += f", llama.cpp at most {np.abs(llama.logits(IDS) - logits).max():.1e} away"
                llama.close()
            print(line)
            rounded = [[float(f"{x:.6g}") for x in logits[position]] for position in POSITIONS]
            golden.append({"name": name, "keys": keys, "tensors": tensors, "logits": rounded})
    out = os.path.join(HERE, "..", "tests", "golden", "distributions")
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "tiny.json"), "w") as file:
        models = ",\n".join(json.dumps(model) for model in golden)
        file.write(f'{{"ids": {json.dumps(IDS)},\n"positions": {json.dumps(POSITIONS)},\n"models": [\n{models}\n]}}\n')


main()
