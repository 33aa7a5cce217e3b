#!/usr/bin/env python3
"""`littoral bench llm` and its peers on the same model files, in turn; medians of all turns.

usage: llm.py [--turns N] [--threads N] [--peer NAME=COMMAND]... [--candle FILE] [--output FILE] MODEL...

Each turn runs ours, then each peer, each in a process of its own with the machine to itself. A peer is a command that takes
MODEL and THREADS and prints a line of JSON: settings, each with prefill_tok_s and decode_tok_s. Its best setting counts,
for each number by itself. By default there is one: llama_cpp_llm.py with the Python that runs this script. --candle adds the
program of candle_llm/. A peer that refuses a model is asked no more, and its last word is in the report.
"""
import argparse, datetime, json, os, statistics, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
OURS = os.path.join(HERE, "../../target/release/littoral")
NUMBERS = ["decode_tok_s", "prefill_tok_s"]


class Refused(Exception):
    pass


def last_line(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Refused((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--candle", metavar="FILE", help="the program that candle_llm/ builds")
    parser.add_argument("--output")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    args = parser.parse_args()
    peers = dict(peer.split("=", 1) for peer in args.peer)
    commands = {name: command.split() for name, command in peers.items()}
    commands = commands or {"llama.cpp": [sys.executable, os.path.join(HERE, "llama_cpp_llm.py")]}
    if args.candle:
        commands["candle"] = [args.candle]
    report = {"date": str(datetime.date.today()), "threads": args.threads, "turns": args.turns, "models": {}}
    for model in args.models:
        ours, theirs, refused = [], {name: [] for name in commands}, {}
        for _ in range(args.turns):
            ours.append(last_line([OURS, "bench", "llm", "--model", model, "--threads", str(args.threads), "--repeats", "3", "--json"]))
            for name, command in commands.items():
                if name not in refused:
                    try:
                        theirs[name].append(last_line([*command, model, str(args.threads)]))
                    except Refused as why:
                        refused[name] = str(why)
        median = lambda number: statistics.median(run[number] for run in ours)
        entry = {"littoral": {n: median(n) for n in [*NUMBERS, "load_s", "peak_rss_mb", "file_mb", "kv_mb", "gb_per_s", "read_gb_per_s"]}}
        entry["littoral"]["verify_ms"] = {m: statistics.median(run["verify_ms"][m] for run in ours) for m in ours[0]["verify_ms"]}
        entry["littoral"]["runs"] = {n: [run[n] for run in ours] for n in [*NUMBERS, "read_gb_per_s"]}
        for name, runs in theirs.items():
            if name in refused:
                entry[name] = {"refused": refused[name]}
                continue
            settings = {s: {n: statistics.median(run[s][n] for run in runs) for n in NUMBERS} for s in runs[0]}
            best = {n: max(setting[n] for setting in settings.values()) for n in NUMBERS}
            entry[name] = {"settings": settings, "best": best, "ratio": {n: median(n) / best[n] for n in NUMBERS}}
        report["models"][os.path.basename(model)] = entry
        print(os.path.basename(model), json.dumps({k: v for k, v in entry["littoral"].items() if k != "runs"}))
        for name in theirs:
            print(" ", name, json.dumps(entry[name]))
        sys.stdout.flush()
    if args.output:
        with open(args.output, "w") as out:
            json.dump(report, out, indent=1)
            out.write("\n")


main()
