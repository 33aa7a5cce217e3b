"""Language models as their papers say, in numpy: the dequantised weights of a GGUF file, in f32, and nothing else.

What `distributions.py` measures others against, so it is written to be read, not to be fast: no cache, no blocks, no
kernels; the whole text at once. Weights are those that the `gguf` package (llama.cpp's own) says the file holds.

Llama: Touvron et al. 2023; turns of neighbours (2i, 2i + 1), since converters to GGUF order rows so. Qwen 2: biases on
queries, keys, values. Qwen 3: norms on queries and keys. Gemma 3: Gemma team 2025; GELU by its tanh form.
"""

import gguf
import numpy as np

F = np.float32


class File:
    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self.architecture = self.key("general.architecture")

    def key(self, name, default=None):
        field = self.reader.fields.get(name)
        return default if field is None else field.contents()

    def number(self, name, default=None):
        value = self.key(f"{self.architecture}.{name}", default)
        if value is None:
            raise SystemExit(f"{self.architecture}.{name} is absent")
        return value

    def weights(self, name):
        """Rows x columns (or columns), in f32; None where the file has none."""
        tensor = self.tensors.get(name)
        if tensor is None:
            return None
        shape = tuple(int(n) for n in reversed(tensor.shape))
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(F)

    def rows(self, name, ids):
        tensor = self.tensors[name]
        return gguf.quants.dequantize(tensor.data[np.asarray(ids)], tensor.tensor_type).astype(F)


def rms_norm(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + F(epsilon)) * weight


def silu(x):
    return x / (F(1) + np.exp(-x))


def gelu(x):
    return F(0.5) * x * (F(1) + np.tanh(F(0.7978845608028654) * (x + F(0.044715) * x * x * x)))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class Yarn:
    """Peng et al. 2023, as in Hugging Face transformers' `_compute_yarn_parameters` and in llama.cpp."""

    def __init__(self, file):
        number = lambda name, default: float(file.number(f"rope.scaling.{name}", default))
        self.factor = number("factor", 1.0)
        self.original = number("original_context_length", file.number("context_length"))
        self.fast, self.slow = number("yarn_beta_fast", 32.0), number("yarn_beta_slow", 1.0)
        self.length = number("attn_factor", 1.0) * (0.1 * np.log(self.factor) + 1)

    def slowed(self, frequency, base):
        """Pairs that turn often within the original context stay as they are, those that hardly turn once go slower."""
        pairs = len(frequency)
        # The pair that turns so many times, from original * base ** (-pair / pairs) = 2 pi turns.
        pair_of = lambda turns: pairs * np.log(self.original / (2 * np.pi * turns)) / np.log(base)
        first, last = max(np.floor(pair_of(self.fast)), 0), min(np.ceil(pair_of(self.slow)), 2 * pairs - 1)
        kept = 1 - np.clip((np.arange(pairs) - first) / max(last - first, 0.001), 0, 1)
        return frequency * kept + frequency / self.factor * (1 - kept)


def turn(x, base, divisor, factors, neighbours, yarn=None):
    """Positions x heads x width: each pair is turned by its position's angle."""
    positions, _, width = x.shape
    frequency = float(base) ** (-np.arange(0, width, 2) / width)
    if factors is not None:
        frequency = frequency / factors.astype(np.float64)
    if yarn:
        frequency = yarn.slowed(frequency, float(base))
    angle = np.arange(positions)[:, None] / divisor * frequency
    length = yarn.length if yarn else 1.0
    cos, sin = (length * np.cos(angle)).astype(F)[:, None, :], (length * np.sin(angle)).astype(F)[:, None, :]
    out = np.empty_like(x)
    first, second = (slice(0, None, 2), slice(1, None, 2)) if neighbours else (slice(0, width // 2), slice(width // 2, None))
    a, b = x[..., first], x[..., second]
    out[..., first], out[..., second] = a * cos - b * sin, a * sin + b * cos
    return out


def logits(path, ids):
    """Positions x vocabulary, in f32."""
    file = File(path)
    llama, gemma = file.architecture == "llama", file.architecture == "gemma3"
    if file.architecture not in ("llama", "qwen2", "qwen3", "gemma3"):
        raise SystemExit(f"{path}: general.architecture: llama, qwen2, qwen3 or gemma3 expected, got {file.architecture}")
    width, heads = file.number("embedding_length"), file.number("attention.head_count")
    kv_heads = file.number("attention.head_count_kv", heads)
    head_width = file.number("attention.key_length", width // heads)
    epsilon = file.number("attention.layer_norm_rms_epsilon")
    base = file.number("rope.freq_base", 10000.0)
    scaling = file.number("rope.scaling.type", "none")
    divisor = file.number("rope.scaling.factor", 1.0) if scaling == "linear" else 1.0
    yarn = Yarn(file) if scaling == "yarn" else None
    assert scaling in ("none", "linear", "yarn") and file.number("rope.dimension_count", head_width) == head_width
    factors = file.weights("rope_freqs.weight")
    window = file.number("attention.sliding_window", 0) if gemma else 0

    def norm(x, name):
        weight = file.weights(f"{name}.weight")
        return x if weight is None else rms_norm(x, weight, epsilon)

    x = file.rows("token_embd.weight", ids)
    if gemma:
        x = x * F(np.sqrt(width))
    positions = np.arange(len(ids))
    ahead = positions[None, :] > positions[:, None]
    far = positions[:, None] - positions[None, :] >= window if window else np.zeros_like(ahead)

    for layer in range(file.number("block_count")):
        def linear(x, part):
            y = x @ file.weights(f"blk.{layer}.{part}.weight").T
            bias = file.weights(f"blk.{layer}.{part}.bias")
            return y if bias is None else y + bias

        # Gemma 3: five layers with a window and turns of their own, then one without.
        local = gemma and layer % 6 != 5
        h = norm(x, f"blk.{layer}.attn_norm")
        q, k, v = (linear(h, f"attn_{what}").reshape(len(ids), -1, head_width) for what in "qkv")
        q, k = norm(q, f"blk.{layer}.attn_q_norm"), norm(k, f"blk.{layer}.attn_k_norm")
        how = (10000.0, 1.0, None, llama) if local else (base, divisor, factors, llama, yarn)
        q, k = turn(q, *how), turn(k, *how)
        hidden = ahead | far if local else ahead
        attended = np.empty_like(q)
        for head in range(heads):
            served = head // (heads // kv_heads)
            scores = q[:, head] @ k[:, served].T / F(np.sqrt(head_width))
            attended[:, head] = softmax(np.where(hidden, F(-np.inf), scores)) @ v[:, served]
        x = x + norm(linear(attended.reshape(len(ids), -1), "attn_output"), f"blk.{layer}.post_attention_norm")

        h = norm(x, f"blk.{layer}.ffn_norm")
        gate, up = linear(h, "ffn_gate"), linear(h, "ffn_up")
        fed = linear((gelu if gemma else silu)(gate) * up, "ffn_down")
        x = x + norm(fed, f"blk.{layer}.post_ffw_norm")

    output = "output.weight" if "output.weight" in file.tensors else "token_embd.weight"
    return norm(x, "output_norm") @ file.weights(output).T
