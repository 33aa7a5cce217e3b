#!/usr/bin/env python3
"""llama.cpp on a model file, at its best setting for each number, as one line of JSON.

usage: llama_cpp_llm.py MODEL [THREADS]          needs: pip install llama-cpp-python

The work is that of `littoral bench llm`: 512 ids into an empty context, the logits of the last; 64 ids one by one from an
empty context. Its best setting: not mapped; weights repacked for decoding, not repacked for prefill. Both numbers are told
for both settings; medians of three.
"""
import ctypes, json, statistics, sys, time
import llama_cpp as l

PROMPT, DECODED, REPEATS = 512, 64, 3


def run(path, threads, repack):
    model_params = l.llama_model_default_params()
    model_params.load_mode = l.LLAMA_LOAD_MODE_NONE
    model_params.use_extra_bufts = repack
    begun = time.perf_counter()
    model = l.llama_model_load_from_file(path.encode(), model_params)
    load_s = time.perf_counter() - begun
    if not model:
        sys.exit(f"llama.cpp does not read {path}")
    context_params = l.llama_context_default_params()
    context_params.n_ctx = PROMPT + 64
    context_params.n_batch = context_params.n_ubatch = PROMPT
    context_params.n_threads = context_params.n_threads_batch = threads
    context = l.llama_init_from_model(model, context_params)
    vocabulary = l.llama_vocab_n_tokens(l.llama_model_get_vocab(model))
    ids = [(i * 7919 + 1000) % vocabulary for i in range(PROMPT)]
    memory = l.llama_get_memory(context)

    def decode(some):
        array = (l.llama_token * len(some))(*some)
        if l.llama_decode(context, l.llama_batch_get_one(array, len(some))):
            sys.exit("llama.cpp did not decode")
        # Waits for the numbers, as a user would.
        return l.llama_get_logits_ith(context, -1)[0]

    prefill, decoding = [], []
    for _ in range(REPEATS):
        l.llama_memory_clear(memory, True)
        begun = time.perf_counter()
        decode(ids)
        prefill.append(PROMPT / (time.perf_counter() - begun))
        l.llama_memory_clear(memory, True)
        begun = time.perf_counter()
        for token in ids[:DECODED]:
            decode([token])
        decoding.append(DECODED / (time.perf_counter() - begun))
    l.llama_free(context)
    l.llama_model_free(model)
    return {"prefill_tok_s": statistics.median(prefill), "decode_tok_s": statistics.median(decoding), "load_s": load_s}


def main():
    path, threads = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2
    quiet = l.llama_log_callback(lambda level, text, data: None)
    l.llama_log_set(quiet, ctypes.c_void_p(0))
    l.llama_backend_init()
    print(json.dumps({"repacked": run(path, threads, True), "as in the file": run(path, threads, False)}))


main()
