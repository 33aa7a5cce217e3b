#!/usr/bin/env python3
"""`littoral sim` of the MNIST work with 100,000 devices beside pfl-research, in turn, several times, medians.

    cargo build --release
    LITTORAL_DATA=../shared/data bench/peers/crowd.py --python PYTHON [--repeats 3] [--rounds 4] [--output FILE]

`--python` names an interpreter with pfl and torch. Ours is the job `bench/scale/mnist.toml`, on two threads: 100,000 devices with
60 images each, 1,000 a round; devices, edges and the cloud are simulated whole, with messages, disks, checkers and evaluation of
each version by its devices. pfl (`pfl_crowd.py`) trains as many clients of the same kind, in one process of one thread, and in two
processes under `torchrun`, and keeps no book of clients that are not sampled. A round of either is timed from its end to the next
one's; the first is left out. `cpu_ms_per_client` is what the operating system counts, start and end included: it says more than
the clock where a machine is busy with other things.

Prints one JSON object: {machine, runs, medians, ratios}.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import machine

HERE = Path(__file__).resolve().parent
DEVICES, COHORT = 100_000, 1_000


def timed(command, **options):
    """Lines of stderr with their times, stdout, and the processor time of all that it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    lines = [(time.perf_counter(), line) for line in child.stderr]
    out = child.stdout.read()
    if child.wait():
        sys.exit(f"{command}: {''.join(line for _, line in lines[-5:])}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return lines, out, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ours(arguments):
    job = (HERE.parent / "scale/mnist.toml").read_text()
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(re.sub(r"(?m)^count = \d+", f"count = {arguments.rounds}", job))
        file.flush()
        mnist = Path(os.environ["LITTORAL_DATA"]) / "mnist"
        data = ["--data", mnist / "train-images-idx3-ubyte.gz", "--labels", mnist / "train-labels-idx1-ubyte.gz"]
        split = ["--by", "dirichlet:0.3", "--rows", "60", "--devices", str(DEVICES), "--edges", "8", "--threads", "2"]
        begin = time.perf_counter()
        lines, out, cpu_s = timed([arguments.littoral, "sim", file.name, *data, *split, "--json"])
        elapsed_s = time.perf_counter() - begin
    ends = [at for at, line in lines if line.startswith("version ")][: arguments.rounds]
    s_per_round = statistics.median(after - before for before, after in zip(ends, ends[1:]))
    report = json.loads(out)
    return {
        "clients_per_s": COHORT / s_per_round,
        "s_per_round": s_per_round,
        "first_version_s": ends[0] - begin,
        "elapsed_s": elapsed_s,
        "cpu_ms_per_client": 1e3 * cpu_s / report["device_rounds"],
        "peak_rss_mb": report["peak_rss_mb"],
        "accuracy": report["accuracy"],
        "checks_broken": len(report["checks_broken"]),
    }


def pfl(arguments, processes):
    script = [str(HERE / "pfl_crowd.py"), "--cohort", str(COHORT), "--rounds", str(arguments.rounds)]
    python = [arguments.python] if processes == 1 else [
        arguments.python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)
    ]
    begin = time.perf_counter()
    _, out, cpu_s = timed([*python, *script])
    report = json.loads(out.strip().splitlines()[-1])
    cpu_ms_per_client = 1e3 * cpu_s / (COHORT * arguments.rounds)
    return report | {"elapsed_s": time.perf_counter() - begin, "cpu_ms_per_client": cpu_ms_per_client}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--littoral", default=str(HERE.parents[1] / "target/release/littoral"))
    parser.add_argument("--python", default=sys.executable, help="an interpreter with pfl and torch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--output", help="also write the object, indented, to this file")
    arguments = parser.parse_args()
    facts = machine()
    turns = {
        "littoral sim": lambda: ours(arguments),
        "pfl, 1 process": lambda: pfl(arguments, 1),
        "pfl, 2 processes": lambda: pfl(arguments, 2),
    }
    runs = {name: [] for name in turns}
    for repeat in range(arguments.repeats):
        for name, turn in turns.items():
            print(f"{repeat + 1}/{arguments.repeats} {name}", file=sys.stderr)
            load = round(os.getloadavg()[0], 1)
            runs[name].append(turn() | {"load": load})
            print(json.dumps(runs[name][-1]), file=sys.stderr)
    facts["load_after"] = [round(load, 1) for load in os.getloadavg()]

    def medians(of):
        numbers = [key for key, value in of[0].items() if isinstance(value, (int, float))]
        return {key: statistics.median(one[key] for one in of) for key in numbers}

    middle = {name: medians(of) for name, of in runs.items()}
    mine = middle["littoral sim"]
    ratios = {
        name: {
            "clients_per_s": round(mine["clients_per_s"] / other["clients_per_s"], 2),
            "cpu_per_client": round(other["cpu_ms_per_client"] / mine["cpu_ms_per_client"], 2),
        }
        for name, other in middle.items()
        if other is not mine
    }
    report = {"machine": facts, "runs": runs, "medians": middle, "ratios": ratios}
    print(json.dumps(report))
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
