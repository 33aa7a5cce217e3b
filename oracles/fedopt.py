"""Values for crates/fed/tests/fedopt.rs: FedAdagrad, FedAdam and FedYogi (Reddi et al. 2021, arXiv:2003.00295,
Algorithm 2), written from the paper in numpy's float32, independent of the Rust code.

    python oracles/fedopt.py

Every operation here is one IEEE-754 single-precision operation, so the values are meant to be met bit for bit; they are printed
with as many digits as tell one float32 from the next.
"""

import numpy as np

f = np.float32
DELTAS = np.array([[0.5, -0.25, 0.03125, 0.0], [0.125, 0.75, -0.0625, 0.0], [-0.375, 0.25, 0.0078125, 0.5],
                   [0.25, -0.5, 0.015625, -0.5], [0.0625, 0.125, -0.03125, 0.25]], dtype=f)
ETA, BETA1, BETA2, TAU = f(0.1), f(0.9), f(0.99), f(0.01)

SECOND = {
    "fedadagrad": lambda v, d2: v + d2,
    "fedadam": lambda v, d2: BETA2 * v + (f(1) - BETA2) * d2,
    "fedyogi": lambda v, d2: v - (f(1) - BETA2) * d2 * np.sign(v - d2),
}

for name, second in SECOND.items():
    x = np.array([1.0, -1.0, 0.5, 0.0], dtype=f)
    m = np.zeros(4, dtype=f)
    v = np.full(4, TAU * TAU, dtype=f)
    for delta in DELTAS:
        m = BETA1 * m + (f(1) - BETA1) * delta
        v = second(v, delta * delta)
        x = x + ETA * m / (np.sqrt(v) + TAU)
    assert x.dtype == f
    print(name, ", ".join(str(value) for value in x))
