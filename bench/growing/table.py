#!/usr/bin/env python3
"""The arithmetic of docs/growing.md: formulas, measured constants, and the table for three fleets.

    bench/growing/table.py                           prints the table
    bench/growing/table.py --check docs/growing.md   compares it with the one in that page; exit code 1 if they differ
    bench/growing/table.py --write docs/growing.md   puts it there
    bench/growing/table.py --devices 50000 --stay-h 24 --parameters 2e6 --cohort 200 --round-s 120    your own fleet
"""

import argparse
import math
import pathlib
import sys

KB, MB, GB, TB = 1e3, 1e6, 1e9, 1e12
DAY_S = 86_400

# Measured on loopback (bench/runs/2026-11-26-growing.txt); links and CPU over QUIC, which costs more than TCP.
EDGE_BASE = 38 * MB  # An edge without devices.
EDGE_PER_LINK = 123 * KB  # Idle.
EDGE_LINK_CPU_S = 175e-6  # Of one core, per second and idle link.
EDGE_CONNECT_CPU_S = 3e-3
EDGE_UPDATE_CPU_S = 0.3e-3  # A model down and an update up: so much,
EDGE_BYTE_CPU_S = 6.4e-9  # and so much per byte of both.
CLOUD_BASE = 39 * MB
CLOUD_PER_MACHINE = 1.0 * KB  # Enrolled, in the memory of each replica,
CLOUD_PER_HERE = 5 * KB  # and so much more while it is connected to an edge.
DATABASE_PER_MACHINE = 283  # Row and index in PostgreSQL.
ROWS_PER_ROUND = 2  # Beside one for each sum.
RECORD_BYTES = 620  # Of a round,
RECORD_BYTES_PER_DEVICE = 81  # and for each device of the cohort.
ROW_OVERHEAD = 130  # PostgreSQL's own, with the index (from the machine's row: 283 B for 155 B of ours).
DOWN_OVERHEAD = 3 * KB  # Per device and round, beside the model,
UP_OVERHEAD = 0.7 * KB  # and beside the update.

# Limits and defaults of the program.
LINKS_MAX = 10_000  # [limits] links_max
UPSTREAMS_MAX = 64  # Addresses that a machine is told: replicas, and edges in what is left.
COHORT_MAX = 49_152
NAME_BYTES = 32  # A device's key, as announcements list it.
REPLICAS = 3
GRACE_S = 3_600  # A dropped object stays so long in the bucket,
SWEEP_S = 600  # and is looked for so often.

PEAK = 2  # Of arrivals over their mean: days and nights.


class Fleet:
    def __init__(self, devices, stay_h, parameters, cohort, round_s, over_select, bits=32):
        self.devices, self.stay_h, self.parameters = devices, stay_h, parameters
        self.cohort, self.round_s, self.over_select, self.bits = cohort, round_s, over_select, bits
        self.model = 4 * parameters
        self.update = bits / 8 * parameters
        # Who is connected, where, and how often somebody comes.
        self.here = math.ceil(devices * min(1, stay_h / 24))
        self.edges = max(2, math.ceil(self.here / LINKS_MAX) + 1)
        self.links = math.ceil(self.here / (self.edges - 1))
        self.arrivals = 0 if stay_h >= 24 else devices / DAY_S
        # A round.
        self.rounds = DAY_S / round_s
        self.asked = math.ceil(cohort * over_select)
        self.sums = round(self.edges * (1 - (1 - 1 / self.edges) ** self.asked))
        self.down = self.asked * (self.model + DOWN_OVERHEAD)
        self.up = cohort * (self.update + UP_OVERHEAD)
        self.cloud_down = self.sums * self.model + self.edges * cohort * NAME_BYTES
        self.cloud_up = self.sums * self.update + cohort * NAME_BYTES
        # What each machine needs.
        self.edge_memory = EDGE_BASE + self.links * EDGE_PER_LINK + 1.5 * self.update
        self.edge_cpu = (
            self.links * EDGE_LINK_CPU_S
            + PEAK * self.arrivals / self.edges * EDGE_CONNECT_CPU_S
            + self.asked / self.sums * (EDGE_UPDATE_CPU_S + EDGE_BYTE_CPU_S * (self.model + self.update)) / round_s
        )
        self.edge_disk = math.ceil(self.asked / self.sums) * self.update
        self.replica_memory = CLOUD_BASE + devices * CLOUD_PER_MACHINE + self.here * CLOUD_PER_HERE + self.update
        self.replica_disk = self.sums * self.update + 3 * self.model
        # What is kept.
        self.rows = ROWS_PER_ROUND + self.sums
        self.row_bytes = RECORD_BYTES + RECORD_BYTES_PER_DEVICE * self.asked + ROW_OVERHEAD * self.rows
        self.machines_bytes = devices * DATABASE_PER_MACHINE
        self.objects = self.sums + 1
        self.bucket = self.objects * self.rounds * (GRACE_S + SWEEP_S) / DAY_S * max(self.model, self.update) + 2 * self.model

    def lines(self):
        rate = lambda size: f"{8 * size / self.round_s / GB:.3f}" if size else "0"
        return [
            ("devices enrolled, N", amount(self.devices)),
            ("hours a day that each is connected", f"{self.stay_h:g}"),
            ("cohort C, asked", f"{amount(self.cohort)}, {amount(self.asked)}"),
            ("a round takes, s", f"{self.round_s:g}"),
            ("**connected at a time, A**", amount(self.here)),
            ("arrivals per s, mean and at the peak", f"{self.arrivals:,.0f}, {PEAK * self.arrivals:,.0f}" if self.arrivals else "none"),
            ("**edges, E** (one of them spare)", amount(self.edges)),
            ("links of an edge when one is away", amount(self.links)),
            ("memory of an edge", size(self.edge_memory)),
            ("cores of an edge that are busy", f"{self.edge_cpu:.2f}"),
            ("disk of an edge, all updates at once", size(self.edge_disk)),
            ("**to devices in a round**", size(self.down)),
            ("**from devices in a round**", size(self.up)),
            ("all edges, Gbit/s down, up", f"{rate(self.down)}, {rate(self.up)}"),
            ("cloud to edges in a round, of that names", f"{size(self.cloud_down)}, {size(self.edges * self.cohort * NAME_BYTES)}"),
            ("edges to cloud in a round", size(self.cloud_up)),
            ("the job's replica, Gbit/s down, up", f"{rate(self.cloud_down)}, {rate(self.cloud_up)}"),
            ("**sums in a round**", amount(self.sums)),
            ("memory of a replica", size(self.replica_memory)),
            ("disk of a replica", size(self.replica_disk)),
            ("database: rows of machines", size(self.machines_bytes)),
            ("database: rows in a round, in a day", f"{amount(self.rows)}, {amount(self.rows * self.rounds)}"),
            ("database: bytes in a round, in a day", f"{size(self.row_bytes)}, {size(self.row_bytes * self.rounds)}"),
            ("bucket: objects made in a day", amount(self.objects * self.rounds)),
            ("bucket: bytes that stand there", size(self.bucket)),
            ("rounds in a day", amount(self.rounds)),
            ("a device is asked every … days", f"{self.devices / (self.asked * self.rounds):.2g}"),
            (f"edges that devices are told of, of {UPSTREAMS_MAX - REPLICAS}", amount(min(self.edges, UPSTREAMS_MAX - REPLICAS))),
        ]


def amount(number):
    return f"{round(number):,}"


def size(number):
    for unit, name in [(TB, "TB"), (GB, "GB"), (MB, "MB"), (KB, "KB")]:
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:.0f} B"


# Machines that are always on, appliances that are on three hours a day, phones that are plugged in and idle at night and are let
# in for a quarter of an hour. A model of a million parameters.
FLEETS = [
    Fleet(10_000, stay_h=24, parameters=1e6, cohort=100, round_s=60, over_select=1.0),
    Fleet(1_000_000, stay_h=3, parameters=1e6, cohort=1_000, round_s=300, over_select=1.3),
    Fleet(100_000_000, stay_h=0.25, parameters=1e6, cohort=10_000, round_s=600, over_select=1.3),
]
BEGIN, END = "<!-- bench/growing/table.py -->\n", "<!-- end -->\n"


def table(fleets):
    columns = [fleet.lines() for fleet in fleets]
    rows = [[line[0][0], *(column[1] for column in line)] for line in zip(*columns)]
    head = ["", *(amount(fleet.devices) for fleet in fleets)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] + ["---:"] * len(fleets), *rows[1:]]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", type=pathlib.Path)
    parser.add_argument("--write", type=pathlib.Path)
    parser.add_argument("--devices", type=float)
    parser.add_argument("--stay-h", type=float, default=24)
    parser.add_argument("--parameters", type=float, default=1e6)
    parser.add_argument("--cohort", type=int, default=100)
    parser.add_argument("--round-s", type=float, default=60)
    parser.add_argument("--over-select", type=float, default=1.0)
    parser.add_argument("--bits", type=int, default=32)
    args = parser.parse_args()
    if args.devices:
        own = Fleet(round(args.devices), args.stay_h, args.parameters, args.cohort, args.round_s, args.over_select, args.bits)
        return print(table([own]), end="")
    made = table(FLEETS)
    page = args.check or args.write
    if page is None:
        return print(made, end="")
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    there, _, after = rest.partition(END)
    if not rest or not after:
        sys.exit(f"{page}: no table between {BEGIN.strip()} and {END.strip()}")
    if args.write:
        page.write_text(before + BEGIN + made + END + after)
    elif there != made:
        differ = [(a, b) for a, b in zip(there.splitlines(), made.splitlines()) if a != b]
        for there, made in differ[:5]:
            print(f"{page}: {there}\nthe formulas:    {made}", file=sys.stderr)
        sys.exit(f"{page}: the table is not what bench/growing/table.py makes: --write puts it right")
    else:
        print(f"{page}: the table is what the formulas make")


main()
