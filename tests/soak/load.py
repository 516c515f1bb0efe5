#!/usr/bin/env python3
"""Plays so many episodes of each suite with the built-in pool, as many at once as the engine takes, and counts what is there before, meanwhile and
afterwards: processes, descriptors, memory, temporary files, mounts, control groups. Ends with 1 if anything is left, or grows with the episodes.

    tests/soak/load.py target/release/rolegraft [--episodes 2000] [SUITE ...]
"""

import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from census import OURS, below, processes

MODELS = {"os": "agentbench", "webshop": "agentbench", "tau-retail": "tau", "tau-airline": "tau", "officebench": "office", "dbbench": "base", "alfworld": "base"}
TASKS = 50


def census(temporary):
    groups = sum(len(folders) for _, folders, _ in os.walk("/sys/fs/cgroup"))
    ours = sorted(name for name, _ in processes().values() if name in OURS)
    return {
        "processes": ours,
        "temporary": sorted(os.listdir(temporary)),
        "shared memory": sorted(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else [],
        "mounts": len(pathlib.Path("/proc/self/mounts").read_text().splitlines()),
        "control groups": groups,
    }


def sample(pid):
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return memory / 1024, len(os.listdir(f"/proc/{pid}/fd")), len(below(pid, processes())) - 1
    except (OSError, StopIteration):
        return None


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("program")
    parse.add_argument("suites", nargs="*", default=[])
    parse.add_argument("--episodes", type=int, default=2000)
    given = parse.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2]
    wrong = []
    print("| suite | episodes | s | MB in the middle | MB at the end | most descriptors | most processes below |\n|---|--:|--:|--:|--:|--:|--:|")
    for suite in given.suites or MODELS:
        with tempfile.TemporaryDirectory() as work:
            temporary = pathlib.Path(work) / "tmp"
            temporary.mkdir()
            before, log = census(temporary), pathlib.Path(work) / "log.jsonl"
            command = [os.path.abspath(given.program), "eval", "--model", str(root / "benchmarks/nano-pool" / MODELS[suite]), "--suite", suite]
            command += ["--suites", str(root / "benchmarks"), "-n", str(TASKS), "--trials", str(given.episodes // TASKS), "--engine", "candle", "--log", str(log)]
            begun, samples = time.monotonic(), []
            with open(pathlib.Path(work) / "out", "w") as out:
                child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=dict(os.environ, TMPDIR=str(temporary)))
                while child.poll() is None:
                    samples.append(sample(child.pid))
                    time.sleep(0.2)
            took = time.monotonic() - begun
            if child.returncode:
                wrong.append(f"{suite}: exit {child.returncode}: {(pathlib.Path(work) / 'out').read_text()[-400:]}")
                continue
            keys = collections.Counter(json.dumps(json.loads(line)["key"]) for line in log.read_text().splitlines()[1:])
            if len(keys) != given.episodes // TASKS * TASKS or max(keys.values()) > 1:
                wrong.append(f"{suite}: {len(keys)} episodes")
            samples = [s for s in samples if s]
            part = len(samples) // 4
            middle, end = (sorted(s[0] for s in some)[len(some) // 2] for some in (samples[part : 2 * part], samples[3 * part :]))
            print(f"| {suite} | {len(keys)} | {took:.0f} | {middle:.0f} | {end:.0f} | {max(s[1] for s in samples)} | {max(s[2] for s in samples)} |", flush=True)
            if end > 1.25 * middle + 32:
                wrong.append(f"{suite}: memory grows from {middle:.0f} to {end:.0f} MB")
            time.sleep(0.5)
            after = census(temporary)
            wrong += [f"{suite}: {what}: {before[what]} before, {after[what]} after" for what in before if before[what] != after[what]]
    print("\n".join(wrong) or "nothing is left, nothing grows")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
