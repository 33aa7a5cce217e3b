#!/usr/bin/env python3
"""The work of `littoral bench fedavg` as a plain numpy loop on one thread: the peer that a round's time is compared with.

FedAvg (McMahan et al. 2017) over 1,000 clients of 60 MNIST images, 50 per round, one local epoch of batches of 10 at
learning rate 0.05, a 784-200-200-10 MLP, uniform weights. Partition and cohorts are the files that `littoral` reads.
Float32 throughout; updates are summed as floats as they come. Nothing is sealed, packed or sent.

    LITTORAL_DATA=../shared/data bench/peers/numpy_fedavg.py [--rounds 20] [--seed 1]

Prints one JSON object: {s_per_round (median), first_round_s, eval_s, peak_rss_mb, accuracy, numpy}.
"""

import os

# Before numpy is imported: its BLAS reads these once.
for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "BLIS_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import functools
import gzip
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np

BATCH, RATE, WIDTHS = 10, np.float32(0.05), (784, 200, 200, 10)


def idx(path, offset):
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


@functools.cache
def work():
    """Training images and labels, test images and labels, each client's rows, each round's clients."""
    if "LITTORAL_DATA" not in os.environ:
        sys.exit("set LITTORAL_DATA to the folder that holds mnist/")
    folder = Path(os.environ["LITTORAL_DATA"]) / "mnist"
    scale = np.float32(1 / 255)
    return (
        idx(folder / "train-images-idx3-ubyte.gz", 16).reshape(-1, 784) * scale,
        idx(folder / "train-labels-idx1-ubyte.gz", 8),
        idx(folder / "t10k-images-idx3-ubyte.gz", 16).reshape(-1, 784) * scale,
        idx(folder / "t10k-labels-idx1-ubyte.gz", 8),
        np.load(folder / "partition_dir0.3_1000x60.npy"),
        np.load(folder / "cohorts_20x50.npy"),
    )


def initial(seed):
    """Uniform in ±1/sqrt(inputs), weights and biases: what PyTorch's Linear begins with."""
    rng = np.random.default_rng(seed)
    w = []
    for inputs, outputs in zip(WIDTHS, WIDTHS[1:]):
        bound = 1 / np.sqrt(inputs)
        w.append(rng.uniform(-bound, bound, (inputs, outputs)).astype(np.float32))
        w.append(rng.uniform(-bound, bound, outputs).astype(np.float32))
    return w


def train(w, x, y):
    """One epoch of plain gradient descent over shuffled rows; `w` is changed in place."""
    w1, b1, w2, b2, w3, b3 = w
    for first in range(0, len(x), BATCH):
        xb, yb = x[first : first + BATCH], y[first : first + BATCH]
        h1 = xb @ w1
        h1 += b1
        np.maximum(h1, 0, out=h1)
        h2 = h1 @ w2
        h2 += b2
        np.maximum(h2, 0, out=h2)
        z = h2 @ w3
        z += b3
        z -= z.max(axis=1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(axis=1, keepdims=True)
        z[np.arange(len(yb)), yb] -= 1
        z *= RATE / np.float32(len(yb))  # the rate is taken in here, where it costs least
        d2 = (z @ w3.T) * (h2 > 0)
        d1 = (d2 @ w2.T) * (h1 > 0)
        w3 -= h2.T @ z
        b3 -= z.sum(axis=0)
        w2 -= h1.T @ d2
        b2 -= d2.sum(axis=0)
        w1 -= xb.T @ d1
        b1 -= d1.sum(axis=0)


def accuracy(w, x, y):
    w1, b1, w2, b2, w3, b3 = w
    correct = 0
    for first in range(0, len(x), 1000):
        h = np.maximum(x[first : first + 1000] @ w1 + b1, 0)
        h = np.maximum(h @ w2 + b2, 0)
        correct += int(((h @ w3 + b3).argmax(axis=1) == y[first : first + 1000]).sum())
    return correct / len(x)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    x, y, x_test, y_test, partition, cohorts = work()
    rng = np.random.default_rng(arguments.seed)
    model = initial(arguments.seed)
    seconds = []
    for cohort in cohorts[: arguments.rounds]:
        start = time.perf_counter()
        total = [np.zeros_like(part) for part in model]
        for client in cohort:
            rows = rng.permutation(partition[client])
            local = [part.copy() for part in model]
            train(local, x[rows], y[rows])
            for sum_part, part in zip(total, local):
                sum_part += part
        model = [part / np.float32(len(cohort)) for part in total]
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    reached = accuracy(model, x_test, y_test)
    eval_s = time.perf_counter() - start
    report = {
        "s_per_round": statistics.median(seconds),
        "first_round_s": seconds[0],
        "eval_s": eval_s,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "accuracy": reached,
        "numpy": np.__version__,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
