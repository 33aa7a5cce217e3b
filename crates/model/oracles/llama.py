"""llama.cpp at its own default settings (`llama_model_default_params`, `llama_context_default_params`): ids and logits.

Only the sizes are set: one batch takes a whole window, and all of its logits are asked for.
"""

import ctypes

import llama_cpp as l
import numpy as np

silent = l.llama_log_callback(lambda level, text, data: None)
l.llama_log_set(silent, ctypes.c_void_p(0))
l.llama_backend_init()


class Llama:
    def __init__(self, path, window, **changes):
        params = l.llama_model_default_params()
        self.model = l.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise SystemExit(f"llama.cpp does not read {path}")
        params = l.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = window
        params.n_threads = params.n_threads_batch = 2
        for key, value in changes.items():
            setattr(params, key, value)
        self.context = l.llama_init_from_model(self.model, params)
        self.vocab = l.llama_model_get_vocab(self.model)
        self.vocabulary = l.llama_vocab_n_tokens(self.vocab)

    def ids(self, text):
        """As a document: with bos and eos as the file says."""
        raw = text.encode()
        out = (l.llama_token * (len(raw) + 8))()
        count = l.llama_tokenize(self.vocab, raw, len(raw), out, len(out), True, False)
        return list(out[:count])

    def logits(self, ids):
        """Positions x vocabulary, from an empty context. The array is gone with the next call."""
        l.llama_memory_clear(l.llama_get_memory(self.context), True)
        batch = l.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        failed = l.llama_decode(self.context, batch)
        l.llama_batch_free(batch)
        if failed:
            raise SystemExit("llama.cpp did not decode")
        return np.ctypeslib.as_array(l.llama_get_logits(self.context), (len(ids), self.vocabulary))

    def close(self):
        l.llama_free(self.context)
        l.llama_model_free(self.model)
