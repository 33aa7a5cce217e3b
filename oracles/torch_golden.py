"""Golden files for crates/model: loss, gradient and optimiser steps of each model, from PyTorch in double precision.

    python3 oracles/torch_golden.py     # writes crates/model/tests/golden/*.json; needs torch (written with 2.x, CPU)

The parameters are one flat leaf tensor in Littoral's layout, so that autograd's gradient and torch.optim's steps
come out in that layout too. What is computed from them is torch's own: F.linear, F.conv2d, F.group_norm, F.batch_norm,
nn.GRU, nn.LSTM. Inputs and weights are drawn here and stored, so that no random generator has to agree.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.func import functional_call

torch.set_default_dtype(torch.float64)
OUT = Path(__file__).resolve().parent.parent / "crates/model/tests/golden"
ROWS = 4
STEPS = 3
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
ADAMW = {"lr": 0.02, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}


def activation(kind, x):
    return {"relu": torch.relu, "tanh": torch.tanh, "gelu": lambda x: F.gelu(x, approximate="tanh")}[kind](x)


def linear(p, name, x):
    return F.linear(x, p[name + ".weight"].T, p[name + ".bias"])


def mlp(spec, p, running, x):
    hidden = spec.get("hidden", [])
    for i in range(len(hidden)):
        x = activation(spec.get("activation", "relu"), linear(p, f"fc{i + 1}", x))
    return linear(p, f"fc{len(hidden) + 1}", x)


def cnn(spec, p, running, x):
    height, width, depth = spec["image"]
    x = x.reshape(-1, height, width, depth).permute(0, 3, 1, 2)
    for i, channels in enumerate(spec["channels"]):
        weight = p[f"conv{i + 1}.weight"].permute(3, 2, 0, 1)
        x = F.conv2d(x, weight, p[f"conv{i + 1}.bias"], padding=spec["kernel"] // 2)
        norm = f"norm{i + 1}"
        if spec["norm"] == "group":
            groups = max(g for g in range(1, 9) if channels % g == 0)
            x = F.group_norm(x, groups, p[norm + ".weight"], p[norm + ".bias"])
        elif spec["norm"] == "batch":
            mean, variance = running[norm + ".running_mean"], running[norm + ".running_variance"]
            x = F.batch_norm(x, mean, variance, p[norm + ".weight"], p[norm + ".bias"], training=True)
        x = F.max_pool2d(torch.relu(x), spec["pool"])
    x = x.permute(0, 2, 3, 1).flatten(1)
    x = torch.relu(linear(p, "fc1", x))
    return linear(p, "fc2", x)


def recurrent(spec, p, running, tokens):
    cell, hidden = spec["cell"], spec["hidden"]
    module = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell](spec["embedding"], hidden, batch_first=True)
    bias = p[cell + ".bias"]
    state_bias = torch.zeros_like(bias)
    if cell == "gru":
        state_bias = torch.cat([torch.zeros(2 * hidden), p["gru.hidden_bias"]])
    parameters = {
        "weight_ih_l0": p[cell + ".input_weight"].T,
        "weight_hh_l0": p[cell + ".hidden_weight"].T,
        "bias_ih_l0": bias,
        "bias_hh_l0": state_bias,
    }
    outputs, _ = functional_call(module, parameters, (p["embedding.weight"][tokens],))
    return linear(p, "fc1", outputs).flatten(0, 1)


def loss_of(spec, outputs, targets):
    if spec.get("loss") == "mse":
        return F.mse_loss(outputs, targets)
    return F.cross_entropy(outputs, targets.flatten())


def numbers(tensor):
    return [float(f"{x:.12g}") for x in tensor.detach().flatten().tolist()]


def golden(name, spec, forward, trained, running, inputs, targets, outputs):
    torch.manual_seed(len(name))
    if spec["kind"] != "recurrent":
        inputs = inputs.float().double()  # what a data set can hold
    if spec.get("loss") == "mse":
        targets = targets.float().double()
    size = sum(math.prod(shape) for _, shape in trained)
    start = 0.4 * torch.randn(size)
    start_running = {n: torch.full(shape, 1.0 if "variance" in n else 0.0) for n, shape in running}

    def evaluate(w, running):
        p, at = {}, 0
        for n, shape in trained:
            p[n] = w[at : at + math.prod(shape)].reshape(shape)
            at += math.prod(shape)
        return loss_of(spec, forward(spec, p, running, inputs), targets)

    w = start.clone().requires_grad_()
    loss = evaluate(w, {n: t.clone() for n, t in start_running.items()})
    loss.backward()

    def after(optimiser, settings):
        w = start.clone().requires_grad_()
        moving = {n: t.clone() for n, t in start_running.items()}
        optimiser = optimiser([w], **settings)
        for _ in range(STEPS):
            optimiser.zero_grad()
            evaluate(w, moving).backward()
            optimiser.step()
        return numbers(torch.cat([w, *moving.values()]))

    shape = {"window": inputs.shape[1]} if spec["kind"] == "recurrent" else {"width": inputs.shape[1]}
    record = {
        "spec": spec,
        **shape,
        "outputs": outputs,
        "segments": [[n, list(shape)] for n, shape in trained + running],
        "inputs": numbers(inputs),
        "targets": numbers(targets),
        "weights": numbers(torch.cat([start, *start_running.values()])),
        "loss": loss.item(),
        "gradient": numbers(w.grad),
        "after_sgd": after(torch.optim.SGD, SGD),
        "after_adamw": after(torch.optim.AdamW, ADAMW),
    }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(record, separators=(",", ":")) + "\n")


def fc(place, inputs, outputs):
    return [(f"fc{place}.weight", (inputs, outputs)), (f"fc{place}.bias", (outputs,))]


def conv(place, kernel, inputs, outputs, norm):
    segments = [(f"conv{place}.weight", (kernel, kernel, inputs, outputs)), (f"conv{place}.bias", (outputs,))]
    if norm != "none":
        segments += [(f"norm{place}.weight", (outputs,)), (f"norm{place}.bias", (outputs,))]
    return segments


def main():
    torch.manual_seed(0)
    classes = lambda n: torch.randint(n, (ROWS,))

    golden("softmax", {"kind": "softmax"}, mlp, fc(1, 6, 3), [], torch.randn(ROWS, 6), classes(3), 3)
    spec = {"kind": "mlp", "hidden": [7, 5], "activation": "relu"}
    golden("mlp", spec, mlp, fc(1, 6, 7) + fc(2, 7, 5) + fc(3, 5, 3), [], torch.randn(ROWS, 6), classes(3), 3)
    spec = {"kind": "mlp", "hidden": [6], "activation": "gelu", "loss": "mse"}
    golden("mlp_regression", spec, mlp, fc(1, 5, 6) + fc(2, 6, 2), [], torch.randn(ROWS, 5), torch.randn(ROWS, 2), 2)
    for norm in ["none", "group", "batch"]:
        spec = {"kind": "cnn", "image": [7, 6, 2], "channels": [3, 4], "kernel": 3, "pool": 2, "norm": norm, "hidden": 5}
        trained = conv(1, 3, 2, 3, norm) + conv(2, 3, 3, 4, norm) + fc(1, 4, 5) + fc(2, 5, 3)
        running = []
        if norm == "batch":
            running = [(f"norm{i}.running_{what}", (c,)) for i, c in [(1, 3), (2, 4)] for what in ["mean", "variance"]]
        golden(f"cnn_{norm}", spec, cnn, trained, running, torch.randn(ROWS, 84), classes(3), 3)
    for cell, gates in [("gru", 3), ("lstm", 4)]:
        vocabulary, embedding, hidden = 7, 3, 4
        spec = {"kind": "recurrent", "cell": cell, "vocabulary": vocabulary, "embedding": embedding, "hidden": hidden}
        trained = [
            ("embedding.weight", (vocabulary, embedding)),
            (f"{cell}.input_weight", (embedding, gates * hidden)),
            (f"{cell}.hidden_weight", (hidden, gates * hidden)),
            (f"{cell}.bias", (gates * hidden,)),
        ]
        if cell == "gru":
            trained.append(("gru.hidden_bias", (hidden,)))
        window = 5
        text = torch.randint(vocabulary, (ROWS * window + 1,))
        inputs, targets = text[:-1].reshape(ROWS, window), text[1:].reshape(ROWS, window)
        golden(cell, spec, recurrent, trained + fc(1, hidden, vocabulary), [], inputs, targets, vocabulary)


if __name__ == "__main__":
    main()
