#!/usr/bin/env python3
"""Littoral beside its peers, in one run: each in turn, several times, medians; with what the machine is.

    cargo build --release
    LITTORAL_DATA=../shared/data bench/peers/compare.py [--repeats 5] [--python PYTHON] [--output FILE]

Measured in turn are `littoral bench fedavg` and every peer of the same work that can run: the numpy loop beside this file
(`--python` names an interpreter with numpy). pfl-research and Flower are looked for in the same interpreter; what is absent is
named as absent, and so is what is there but has no script `<name>_fedavg.py` here. Then the other benches of `littoral`,
which have no peer to alternate with, as often.

Prints one JSON object: {date, commit, machine, peers, runs, medians, ratios}. A machine that was busy with other things
says so by its load averages, before and after.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = {
    "littoral round": ["round", "--empty"],
    "littoral aggregate": ["aggregate"],
    "littoral deployed": ["deployed", "--nodes", "4", "--params", "1000000"],
}
# The package that each peer is imported as.
PEERS = {"numpy": "numpy", "pfl": "pfl", "flower": "flwr"}


def machine():
    def field(path, name):
        for line in Path(path).read_text().splitlines():
            if line.startswith(name):
                return line.split(":", 1)[1].strip()
        return "unknown"

    return {
        "cpu": field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release().split("-")[0],
        "load_before": [round(load, 1) for load in os.getloadavg()],
    }


def run(command):
    """The last object that a command prints; its failure is part of the outcome."""
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if not lines or done.returncode:
        return {"error": (lines or done.stderr.strip().splitlines() or ["nothing"])[-1][-300:]}
    return json.loads(lines[-1])


def peer_script(python, name, package):
    """The peer's script, or why it does not run."""
    found = subprocess.run([python, "-c", f"import {package}"], capture_output=True)
    script = HERE / f"{name}_fedavg.py"
    if found.returncode:
        return None, "not installed"
    if not script.exists():
        return None, "installed, but there is no script for it here"
    return script, "measured"


def medians(runs):
    good = [one for one in runs if "error" not in one]
    keys = [key for key in (good[0] if good else {}) if isinstance(good[0][key], (int, float))]
    return {key: statistics.median(one[key] for one in good) for key in keys}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--littoral", default=str(HERE.parents[1] / "target/release/littoral"))
    parser.add_argument("--python", default=sys.executable, help="an interpreter with the peers")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", help="also write the object, indented, to this file")
    arguments = parser.parse_args()
    if "LITTORAL_DATA" not in os.environ:
        sys.exit("set LITTORAL_DATA to the folder that holds mnist/")

    facts = machine()
    alternating = {"littoral fedavg": [arguments.littoral, "bench", "fedavg", "--json"]}
    peers = {}
    for name, package in PEERS.items():
        script, peers[name] = peer_script(arguments.python, name, package)
        if script:
            alternating[f"{name} fedavg"] = [arguments.python, str(script)]
    others = {name: [arguments.littoral, "bench", *words, "--json"] for name, words in OURS.items()}
    runs = {name: [] for name in [*alternating, *others]}
    for group in (alternating, others):
        for repeat in range(arguments.repeats):
            for name, command in group.items():
                print(f"{repeat + 1}/{arguments.repeats} {name}", file=sys.stderr)
                runs[name].append(run(command))
    facts["load_after"] = [round(load, 1) for load in os.getloadavg()]

    middle = {name: medians(of) for name, of in runs.items()}
    ours = middle["littoral fedavg"].get("s_per_round")
    ratios = {
        f"littoral / {name}": round(ours / middle[f"{name} fedavg"]["s_per_round"], 3)
        for name, state in peers.items()
        if state == "measured" and ours and middle[f"{name} fedavg"]
    }
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    report = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit.stdout.strip(),
        "machine": facts,
        "peers": peers,
        "runs": runs,
        "medians": middle,
        "ratios": ratios,
    }
    print(json.dumps(report))
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
