#!/usr/bin/env python3
"""What a fleet costs that docs/growing.md cannot derive: memory per connection and per machine, rows and objects per round,
bytes per device and round beside the payload. Real processes on loopback.

    bench/growing/measure.py LITTORAL [--devices 160] [--transport quic|tcp]

A cloud and its edges, then devices in four steps. *Memory*: the slope of the process's resident bytes over the devices that are
connected (least squares), all of them idle. *Rows*: of the cloud's SQLite file, whose tables PostgreSQL has too, after a job of
`ROUNDS` rounds; for two cohorts, so that what grows with the cohort is told from what does not, and with two numbers of edges.
*Bytes*: the sockets' counters of all devices around a job, less the payload: a model down, an update up.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time

ROUNDS = 20
SETTLE_S = 4.0

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("littoral", type=pathlib.Path)
parser.add_argument("--devices", type=int, default=160)
parser.add_argument("--edges", type=int, default=2)
parser.add_argument("--transport", choices=["quic", "tcp"], default="quic")
args = parser.parse_args()
littoral = args.littoral.resolve()
work = pathlib.Path(tempfile.mkdtemp(prefix="littoral-measure-"))
processes = {}


def say(words, name):
    done = subprocess.run([littoral, "--json", *words, "--dir", work / name], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise SystemExit(f"{words}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def start(role, name):
    with open(work / name / "log.txt", "w") as log:
        processes[name] = subprocess.Popen([littoral, role, "--dir", work / name], stdout=log, stderr=log)


def make(name, file, text):
    (work / name).mkdir()
    (work / name / file).write_text(text + f'\n[network]\ntransport = "{args.transport}"\n')


def resident(name):
    text = pathlib.Path(f"/proc/{processes[name].pid}/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", text)[1])


def cpu_s(name):
    fields = pathlib.Path(f"/proc/{processes[name].pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def here():
    done = subprocess.run([littoral, "fleet", "ls", "--dir", work / "cloud"], capture_output=True, timeout=120)
    if done.returncode != 0:  # It is on its way up.
        return -1
    return sum(m["state"] == "here" and m["role"] == "device" for m in say(["fleet", "ls"], "cloud")["machines"])


def until(ready):
    began = time.monotonic()
    while not ready():
        if time.monotonic() - began > 120:
            raise SystemExit("not within 120 s")
        time.sleep(0.2)


def slope(points):
    n = len(points)
    x, y = sum(p[0] for p in points) / n, sum(p[1] for p in points) / n
    return sum((p[0] - x) * (p[1] - y) for p in points) / sum((p[0] - x) ** 2 for p in points)


def moved():
    """Bytes of all devices, once they stand still, or nearly: of many devices some link is always asked whether it lives."""
    def total():
        files = [json.loads((work / name / "traffic.json").read_text()) for name in processes if name.startswith("device")]
        return sum(f["sent"] for f in files), sum(f["received"] for f in files)
    last = total()
    for _ in range(4):
        time.sleep(1.5)
        if (now := total()) == last:
            break
        last = now
    return last


def job(name, params, cohort, rounds):
    width = max(1, round((params + 14) ** 0.5 - 4))
    (work / "job.toml").write_text(f'''
name = "{name}"
seed = {len(name)}
model = {{ kind = "mlp", hidden = [{width}, {width}] }}
algorithm = {{ name = "fedavg" }}
local = {{ epochs = 1, batch = 0, optimiser = {{ name = "sgd", learning_rate = 0.01 }} }}
cohort = {{ target = {cohort}, min = {cohort} }}
rounds = {{ count = {rounds}, deadline_ms = 600000, close_ms = 600000 }}
precision = {{ resolution = "fit32", weighting = "uniform" }}
[data]
set = "tiny"
held_out = 0.0
standardise = false
schema.label = {{ name = "label", classes = ["no", "yes"] }}
schema.fields = [{{ name = "a" }}, {{ name = "b" }}, {{ name = "c" }}, {{ name = "d" }}]
''')
    number = str(say(["job", "submit", str(work / "job.toml")], "cloud")["job"])
    say(["job", "watch", number], "cloud")
    return int(number), width * width + 8 * width + 2


def rows(number):
    """Rows and bytes of one job, by table."""
    base = sqlite3.connect(f"file:{work}/cloud/littoral.sqlite?mode=ro", uri=True)
    found = {}
    for table in ["record", "command", "job", "channel", "ledger", "device_state", "sealed"]:
        count, size = base.execute(
            f"SELECT count(*), coalesce(sum(length(item) + length(value) + length(sum)), 0) FROM {table} WHERE job = ?", (number,)
        ).fetchone()
        if count:
            found[table] = (count, size)
    base.close()
    return found


def measure():
    make("cloud", "cloud.toml", 'listen = "127.0.0.1:0"')
    start("cloud", "cloud")
    until(lambda: (work / "cloud" / "address").exists())
    ticket = say(["fleet", "ticket", "--role", "edge", "--uses", str(args.edges)], "cloud")["ticket"]
    edges = [f"edge-{n}" for n in range(args.edges)]
    for edge in edges:
        make(edge, "edge.toml", 'listen = "127.0.0.1:0"')
        say(["join", ticket, "--name", edge], edge)
        start("edge", edge)
    time.sleep(SETTLE_S)
    began = {name: cpu_s(name) for name in ["cloud", *edges]}
    ticket = say(["fleet", "ticket", "--role", "device", "--uses", str(args.devices)], "cloud")["ticket"]
    points = {"cloud": [], "edges": []}
    for step in range(5):
        for n in range(args.devices * max(step - 1, 0) // 4, args.devices * step // 4):
            name = f"device-{n}"
            make(name, "device.toml", '[data.tiny]\nfiles = ["tiny.csv"]')
            x = n / 256
            (work / name / "tiny.csv").write_text(f"a,b,c,d,label\n{x},0.2,0.3,0.4,no\n-0.4,{x},-0.2,-0.1,yes\n")
            say(["join", ticket, "--name", name], name)
            start("device", name)
        until(lambda: here() == args.devices * step // 4)
        time.sleep(SETTLE_S)
        points["cloud"].append((args.devices * step // 4, resident("cloud")))
        points["edges"].append((args.devices * step // 4, sum(map(resident, edges))))
        print(f"{args.devices * step // 4} devices: cloud {points['cloud'][-1][1] / 1e6:.1f} MB, edges {points['edges'][-1][1] / 1e6:.1f} MB")
    # The first step warms pools up: slopes are of the others.
    for what, of in points.items():
        print(f"{what}: {slope(of[1:]) / 1e3:.1f} KB per device, {of[0][1] / 1e6:.1f} MB without")
    used = {name: cpu_s(name) - began[name] for name in began}
    # What joining left behind goes with the process.
    processes["cloud"].send_signal(signal.SIGTERM)
    processes["cloud"].wait()
    start("cloud", "cloud")
    until(lambda: here() == args.devices)
    time.sleep(SETTLE_S)
    print(f"cloud, started again with all devices: {resident('cloud') / 1e6:.1f} MB")
    print(f"CPU to enrol and connect {args.devices} devices, and 20 s of idleness: cloud {used['cloud']:.2f} s, edges {sum(used[e] for e in edges):.2f} s")
    before = {name: cpu_s(name) for name in began}
    time.sleep(10)
    print(f"CPU of 10 idle seconds: cloud {cpu_s('cloud') - before['cloud']:.2f} s, edges {sum(cpu_s(e) - before[e] for e in edges):.2f} s")

    for params, cohort, rounds in [(100, args.devices // 4, 1), (101, args.devices // 4, ROUNDS), (102, args.devices, 1), (103, args.devices, ROUNDS), (100_000, args.devices // 4, 1), (100_001, args.devices // 4, 11)]:
        sent, received = moved()
        used = {name: cpu_s(name) for name in began}
        number, size = job(f"job-{params}", params, cohort, rounds)
        later = moved()
        spent = {name: cpu_s(name) - used[name] for name in began}
        objects = list((work / "cloud" / "objects").iterdir())
        print(
            f"{rounds} rounds, cohort {cohort}, {size} parameters: up {later[0] - sent} B, down {later[1] - received} B, "
            f"CPU cloud {spent['cloud']:.2f} s, edges {sum(spent[e] for e in edges):.2f} s, rows {rows(number)}, objects in the cloud's folder {len(objects)}"
        )


try:
    print(f"{args.transport}, {args.edges} edges, {args.devices} devices")
    measure()
finally:
    for process in processes.values():
        process.send_signal(signal.SIGTERM)
    for process in processes.values():
        process.wait()
    shutil.rmtree(work, ignore_errors=True)
