#!/usr/bin/env python3
"""The MNIST work over a crowd of clients in pfl-research's simulation: what `bench/peers/crowd.py` compares `littoral sim` with.

FedAvg over CLIENTS clients of 60 MNIST images (Dirichlet 0.3 over classes), COHORT of them a round, one local epoch of batches of
10 at learning rate 0.05, a 784-200-200-10 MLP, uniform weights. A client's rows are drawn when it is sampled, so that pfl has
no book of all clients to keep, which can only make it faster. Nothing is evaluated but once at the end.

    LITTORAL_DATA=../shared/data bench/peers/pfl_crowd.py [--clients 100000] [--cohort 1000] [--rounds 4] [--threads 1]
    torchrun --nproc_per_node 2 bench/peers/pfl_crowd.py …      as many processes as cores

Prints one JSON object: {clients_per_s (median over rounds without the first), s_per_round, first_round_s, peak_rss_mb (of all
processes), accuracy, processes, threads, pfl, torch}.
"""

import argparse
import json
import os
import resource
import statistics
import time

parser = argparse.ArgumentParser()
parser.add_argument("--clients", type=int, default=100_000)
parser.add_argument("--cohort", type=int, default=1_000)
parser.add_argument("--rounds", type=int, default=4)
parser.add_argument("--threads", type=int, default=1)
arguments = parser.parse_args()
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(arguments.threads)

import numpy as np
import numpy_fedavg as peer
import pfl
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops import get_ops
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel

torch.set_num_threads(arguments.threads)
torch.manual_seed(1)
np.random.seed(1)
ROWS, ALPHA = 60, 0.3


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        wide = zip(peer.WIDTHS, peer.WIDTHS[1:])
        self.layers = torch.nn.ModuleList(torch.nn.Linear(inputs, outputs) for inputs, outputs in wide)

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)

    def loss(self, x, y, is_eval=False):
        self.train(not is_eval)
        return torch.nn.functional.cross_entropy(self(x), y.long())

    @torch.no_grad()
    def metrics(self, x, y):
        right = (self(x).argmax(dim=1) == y).sum().item()
        return {"accuracy": Weighted(right, len(y))}


class Stamps(TrainingProcessCallback):
    """When each round ended."""

    def __init__(self):
        self.at = [time.perf_counter()]

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        self.at.append(time.perf_counter())
        return False, Metrics()


x, y, x_test, y_test, _, _ = peer.work()
x, y = torch.from_numpy(np.array(x)), torch.from_numpy(np.array(y))
of_class = [np.flatnonzero(y.numpy() == label) for label in range(10)]


def client(number):
    rng = np.random.default_rng([1, number])
    shares = rng.dirichlet([ALPHA] * 10)
    labels = rng.choice(10, ROWS, p=shares)
    rows = np.array([rng.choice(of_class[label]) for label in labels])
    return Dataset(raw_data=[x[rows], y[rows]], user_id=number)


sampler = np.random.default_rng(2)
clients = FederatedDataset(client, lambda: int(sampler.integers(arguments.clients)))
module = Mlp()
model = PyTorchModel(
    module,
    local_optimizer_create=torch.optim.SGD,
    central_optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
)
stamps = Stamps()
model = FederatedAveraging().run(
    algorithm_params=NNAlgorithmParams(
        central_num_iterations=arguments.rounds,
        evaluation_frequency=10**9,
        train_cohort_size=arguments.cohort,
        val_cohort_size=0,
    ),
    backend=SimulatedBackend(training_data=clients, val_data=None),
    model=model,
    model_train_params=NNTrainHyperParams(
        local_num_epochs=1, local_learning_rate=0.05, local_batch_size=peer.BATCH
    ),
    model_eval_params=NNEvalHyperParams(local_batch_size=1000),
    callbacks=[stamps],
)
seconds = [after - before for before, after in zip(stamps.at, stamps.at[1:])]
s_per_round = statistics.median(seconds[1:])
with torch.no_grad():
    right = (module(torch.from_numpy(np.array(x_test))).argmax(dim=1).numpy() == y_test).mean()
ops = get_ops().distributed
report = {
    "clients_per_s": arguments.cohort / s_per_round,
    "s_per_round": s_per_round,
    "first_round_s": seconds[0],
    "peak_rss_mb": ops.world_size * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    "accuracy": float(right),
    "processes": ops.world_size,
    "threads": arguments.threads,
    "pfl": pfl.__version__ if hasattr(pfl, "__version__") else "0.6.0",
    "torch": torch.__version__,
}
if ops.global_rank == 0:
    print(json.dumps(report))
