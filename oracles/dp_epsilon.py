"""Values for crates/privacy/tests/accounts.rs: epsilons by Google's dp-accounting 0.6.0, independent of the Rust code.

    pip install dp-accounting==0.6.0
    python oracles/dp_epsilon.py > oracles/dp_epsilon.csv

A row is mechanism, noise multiplier (standard deviation over sensitivity; for the discrete Gaussian its parameter sigma),
sampling rate, steps, delta, accountant, epsilon. Sampling is Poisson under adding or removing one, except for
`gaussian-fixed`: a sample of fixed size under replacing one. PLDs are pessimistic on a grid of 1e-4: connect the dots for
continuous noise, privacy buckets for discrete noise, as dp-accounting has them by default.
"""

import math

import dp_accounting as dp
import numpy as np
from dp_accounting import rdp
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy import special

ORDERS = np.array(rdp.rdp_privacy_accountant.DEFAULT_RDP_ORDERS)


def from_rdp(values, delta):
    return rdp.rdp_privacy_accountant.compute_epsilon(ORDERS, values, delta)[0]


def from_events(accountant, event, steps, delta):
    return accountant.compose(event, steps).get_epsilon(delta)


def sampled(event, q):
    return event if q == 1 else dp.PoissonSampledDpEvent(q, event)


def gaussian(z, q, steps, delta):
    event = sampled(dp.GaussianDpEvent(z), q)
    yield "rdp", from_events(rdp.RdpAccountant(), event, steps, delta)
    yield "pld", from_events(dp.pld.PLDAccountant(), event, steps, delta)


def laplace(z, q, steps, delta):
    scale = z / math.sqrt(2)  # dp-accounting's parameter: the deviation is sqrt(2) times as much
    event = sampled(dp.LaplaceDpEvent(scale), q)
    if q == 1:
        yield "rdp", from_events(rdp.RdpAccountant(), event, steps, delta)
    yield "pld", from_events(dp.pld.PLDAccountant(), event, steps, delta)


def discrete_gaussian(z, q, steps, delta):
    if q == 1:  # Canonne et al. 2020, theorem 4
        yield "rdp", from_rdp(steps * ORDERS / (2 * z * z), delta)
    one = pld.from_discrete_gaussian_mechanism(z, sampling_prob=q)
    yield "pld", one.self_compose(steps).get_epsilon_for_delta(delta)


def skellam(z, q, steps, delta):
    v = z * z
    if q == 1:  # Agarwal et al. 2021, theorem 3.5
        bound = np.minimum(((2 * ORDERS - 1) + 6) / (4 * v * v), 3 / (2 * v))
        yield "rdp", from_rdp(steps * (ORDERS / (2 * v) + bound), delta)
    far = int(12 * z) + 40
    pmf = {k: math.log(special.ive(abs(k), v)) for k in range(-far, far + 1)}
    lower = {k: pmf[k] for k in range(-far + 1, far + 1)}
    shifted = {k: pmf[k - 1] for k in range(-far + 1, far + 1)}
    if q == 1:
        one = pld.from_two_probability_mass_functions(lower, shifted)
    else:
        mixed = {k: np.logaddexp(math.log1p(-q) + lower[k], math.log(q) + shifted[k]) for k in lower}
        one = pld.from_two_probability_mass_functions(lower, mixed, symmetric=False)
    yield "pld", one.self_compose(steps).get_epsilon_for_delta(delta)


def gaussian_fixed(z, q, steps, delta):
    accountant = rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    event = dp.SampledWithoutReplacementDpEvent(100_000, round(q * 100_000), dp.GaussianDpEvent(z))
    yield "rdp", from_events(accountant, event, steps, delta)


SETTINGS = {
    "gaussian": [
        (0.6, 1, 100, 1e-5), (1, 1, 1, 1e-5), (1, 1, 1, 1e-10), (4, 1, 10, 1e-5), (30, 1, 1, 1e-6), (2, 1, 100, 1e-5),
        (1, 0.01, 1000, 1e-5), (1.1, 256 / 60000, 14062, 1e-5), (1, 0.1, 100, 1e-5), (0.8, 0.001, 1500, 1e-6),
        (0.6, 0.001, 100000, 1e-5), (4, 0.001, 100000, 1e-5), (1.5, 0.001, 100000, 1e-10), (2, 0.1, 500, 1e-10),
        (0.5, 0.2, 200, 1e-5), (0.7, 0.5, 300, 1e-6), (8, 0.02, 100, 1e-5), (1, 0.05, 200, 1e-5), (0.4, 0.01, 50, 1e-5),
        (20, 0.5, 1000, 1e-8), (0.5, 0.9, 250, 1e-6), (3, 0.25, 10000, 1e-7),
    ],
    "laplace": [
        (2 * math.sqrt(2), 1, 20, 1e-6), (1, 1, 1, 1e-5), (10, 1, 500, 1e-5), (2, 0.05, 400, 1e-5), (14, 0.5, 100, 1e-6),
    ],
    "discrete-gaussian": [
        (0.5, 1, 1, 1e-5), (2, 1, 16, 1e-5), (5, 1, 256, 1e-5), (20, 1, 16, 1e-5), (0.5, 0.01, 1000, 1e-5),
        (1, 0.05, 200, 1e-5), (5, 0.01, 1000, 1e-5), (20, 0.01, 1000, 1e-5), (1, 0.001, 100000, 1e-8), (100, 1, 1000, 1e-6),
    ],
    "skellam": [
        (1, 1, 1, 1e-5), (1, 1, 256, 1e-5), (2, 1, 16, 1e-5), (5, 1, 256, 1e-5), (20, 1, 1, 1e-5), (20, 1, 256, 1e-5),
        (0.7, 1, 4, 1e-6), (50, 1, 1000, 1e-6), (2, 0.05, 200, 1e-5), (10, 0.01, 1000, 1e-5),
    ],
    "gaussian-fixed": [
        (0.8, 0.05, 200, 1e-5), (1, 0.05, 20, 1e-5), (1, 0.05, 200, 1e-5), (4, 0.01, 1000, 1e-5), (2, 0.5, 50, 1e-6),
        (1.5, 0.001, 10000, 1e-8), (5, 0.2, 100, 1e-5),
    ],
}

print("mechanism,noise_multiplier,sampling_rate,steps,delta,accountant,epsilon")
for name, settings in SETTINGS.items():
    for z, q, steps, delta in settings:
        for accountant, epsilon in globals()[name.replace("-", "_")](z, q, steps, delta):
            print(f"{name},{z!r},{q!r},{steps},{delta!r},{accountant},{float(epsilon)!r}")
