#!/usr/bin/env python3
"""The work of `numpy_fedavg.py` in Flower's simulation (Ray): the same partition, cohorts and training step.

There are as many nodes as clients in a cohort; in round r node i trains client `cohorts[r][i]`. So Flower keeps book of 50
nodes and not of 1,000, which can only make it faster.

    LITTORAL_DATA=../shared/data bench/peers/flower_fedavg.py [--rounds 20] [--seed 1]

Prints one JSON object: {s_per_round (median without the first), first_round_s (Ray starts in it), eval_s, accuracy, flower}.
"""

import os
import sys
from pathlib import Path

HERE = str(Path(__file__).resolve().parent)
# The processes that Ray starts find this folder too; nobody reports home.
os.environ |= {"PYTHONPATH": HERE, "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
sys.path.insert(0, HERE)

import argparse
import json
import logging
import statistics
import time

import flwr
import numpy_fedavg as peer
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

client = ClientApp()
server = ServerApp()
stamps = []
report = {"flower": flwr.__version__}


@client.train()
def train(message, context):
    x, y, _, _, partition, cohorts = peer.work()
    round_number = message.content["config"]["server-round"] - 1
    number = cohorts[round_number][context.node_config["partition-id"]]
    rows = peer.np.random.default_rng([round_number, number]).permutation(partition[number])
    model = [part.copy() for part in message.content["arrays"].to_numpy_ndarrays()]
    peer.train(model, x[rows], y[rows])
    content = {"arrays": ArrayRecord(model), "metrics": MetricRecord({"num-examples": len(rows)})}
    return Message(content=RecordDict(content), reply_to=message)


@server.main()
def serve(grid, context):
    def stamp(round_number, arrays):
        stamps.append(time.perf_counter())

    nodes = arguments.nodes
    strategy = FedAvg(
        fraction_evaluate=0.0, min_train_nodes=nodes, min_evaluate_nodes=0, min_available_nodes=nodes
    )
    initial = ArrayRecord(peer.initial(arguments.seed))
    result = strategy.start(grid, initial, num_rounds=arguments.rounds, evaluate_fn=stamp)
    _, _, x_test, y_test, _, _ = peer.work()
    start = time.perf_counter()
    report["accuracy"] = peer.accuracy(result.arrays.to_numpy_ndarrays(), x_test, y_test)
    report["eval_s"] = time.perf_counter() - start


parser = argparse.ArgumentParser()
parser.add_argument("--rounds", type=int, default=20)
parser.add_argument("--seed", type=int, default=1)

if __name__ == "__main__":
    arguments = parser.parse_args()
    arguments.nodes = len(peer.work()[5][0])
    logging.getLogger("flwr").setLevel(logging.ERROR)
    # One core for each actor, as many actors as cores.
    run_simulation(server, client, arguments.nodes, backend_config={"client_resources": {"num_cpus": 1}})
    seconds = [after - before for before, after in zip(stamps, stamps[1:])]
    report |= {"s_per_round": statistics.median(seconds[1:]), "first_round_s": seconds[0]}
    print(json.dumps(report))
