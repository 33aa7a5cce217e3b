#!/usr/bin/env python3
"""Memory of a cloud, and its start, over the number of machines that are enrolled: rows are written into its SQLite file as
enrolment would, and the real program is started on them. And the bytes of the same rows in PostgreSQL, if `psql` finds one.

    pip install blake3
    bench/growing/machines.py LITTORAL [--most 200000]
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import tempfile
import time

import blake3

POSTGRES = """
CREATE TEMPORARY TABLE node (job BIGINT NOT NULL, version BIGINT NOT NULL, item BYTEA NOT NULL, value BYTEA NOT NULL,
  sum BYTEA NOT NULL, PRIMARY KEY (job, version, item));
INSERT INTO node SELECT 0, 0, sha256(i::text::bytea), convert_to(format(
  '{"role":"device","name":"device-%s","revoked":false,"since_ms":1700000000000}', lpad(i::text, 9, '0')), 'UTF8'),
  substr(sha256(i::text::bytea), 1, 16) FROM generate_series(1, 200000) i;
SELECT pg_relation_size('node') / 200000.0, pg_indexes_size('node') / 200000.0;
"""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("littoral", type=pathlib.Path)
parser.add_argument("--most", type=int, default=200_000)
args = parser.parse_args()
work = pathlib.Path(tempfile.mkdtemp(prefix="littoral-machines-"))
(work / "cloud.toml").write_text('listen = "127.0.0.1:0"\n[network]\ntransport = "tcp"\n')
base = work / "littoral.sqlite"


def cloud(what):
    (work / "address").unlink(missing_ok=True)
    began = time.monotonic()
    process = subprocess.Popen([args.littoral, "cloud", "--dir", work], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (work / "address").exists():
        if process.poll() is not None:
            raise SystemExit(f"the cloud ended with {process.returncode}")
        time.sleep(0.02)
    took = time.monotonic() - began
    time.sleep(3)
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    now, most = (1024 * int(re.search(rf"{field}:\s+(\d+)", status)[1]) / 1e6 for field in ["VmRSS", "VmHWM"])
    process.send_signal(signal.SIGTERM)
    process.wait()
    print(f"{what}: {now:.1f} MB, at most {most:.1f} MB; it listened after {took:.2f} s; {base.stat().st_size / 1e6:.1f} MB of SQLite", flush=True)


try:
    cloud("no machines")
    done = 0
    for many in [args.most // 4, args.most // 2, args.most]:
        rows = []
        for number in range(done, many):
            item = os.urandom(32)
            machine = {"role": "device", "name": f"device-{number:09d}", "revoked": False, "since_ms": 1_700_000_000_000}
            value = json.dumps(machine, separators=(",", ":")).encode()
            # As the store makes it: table, job, version, item, value.
            digest = blake3.blake3(b"node\0" + struct.pack("<QQQ", 0, 0, len(item)) + item + value).digest()[:16]
            rows.append((0, 0, item, value, digest))
        with sqlite3.connect(base) as connection:
            connection.executemany("INSERT INTO node (job, version, item, value, sum) VALUES (?, ?, ?, ?, ?)", rows)
        connection.close()
        done = many
        cloud(f"{many} machines")
    if shutil.which("psql"):
        said = subprocess.run(["psql", "-qtA", "-v", "ON_ERROR_STOP=1"], input=POSTGRES, capture_output=True, text=True)
        print("bytes of a machine in PostgreSQL, row and index:", said.stdout.strip() or said.stderr.strip())
finally:
    shutil.rmtree(work, ignore_errors=True)
