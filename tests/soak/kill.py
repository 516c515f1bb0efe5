#!/usr/bin/env python3
"""Runs the nano experiment again and again for so many minutes, while kill -9 meets it, its database, its boxes and its servers at random moments;
then compares every byte of what it made with a run that nobody disturbed. Ends with 1 if anything was lost, doubled, or differs, or if a process
or folder of ours is left.

    tests/soak/kill.py target/release/rolegraft --minutes 60 [--experiment FILE [--server NAME [--exact]]] [--seed N] [--gap SECONDS]
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from census import OURS, below, processes


def victims(root, server):
    """Processes of ours from `root` downwards, by kind."""
    found, kinds = processes(), collections.defaultdict(list)
    kinds["us"].append(root)
    for pid in sorted(below(root, found) - {root}):
        name = found[pid][0]
        kind = OURS.get(name) or ("server" if server and name.startswith(server) else None)
        if kind:
            kinds[kind].append(pid)
    return kinds


def contents(results):
    """What a run is remembered by: its episodes and tables, and what was made on the way; not what tells time or place."""
    found = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results)
        kept = name.parts[0] == "cache" or {"episodes", "tables"} & set(name.parts)
        if path.is_file() and kept and path.stem != "time":
            found[str(name)] = path.read_bytes()
    return found


def comparable(name, data, loose):
    """Episodes in whichever order they finished, without the time and the failed tries that they took; of a server that does not say the same
    twice, only which they are."""
    if name.endswith(".jsonl"):
        lines = [json.loads(line) for line in data.splitlines()]
        lines = [{"key": line.get("key")} for line in lines] if loose else lines
        for line in lines:
            line["seconds"] = line.get("spent", {})["failures"] = 0
        data = "\n".join(sorted(json.dumps(line) for line in lines)).encode()
    return hashlib.sha256(data).hexdigest()


def doubled(name, data):
    keys = collections.Counter(
        json.dumps(json.loads(line)["key"], sort_keys=True) for line in data.splitlines()[1:] if b'"key"' in line
    )
    return [key for key, count in keys.items() if count > 1] if name.endswith(".jsonl") else []


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("program")
    parse.add_argument("--minutes", type=float, default=60)
    parse.add_argument("--experiment", default="nano")
    parse.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parse.add_argument("--server", default="", help="what processes of servers are called")
    parse.add_argument("--exact", action="store_true", help="the server says the same twice, as some do that are asked one at a time")
    parse.add_argument("--gap", type=float, default=12, help="mean seconds between two kills")
    given = parse.parse_args()
    loose = bool(given.server) and not given.exact
    chance, work = random.Random(given.seed), pathlib.Path(tempfile.mkdtemp(prefix="soak-"))
    program = os.path.abspath(given.program)
    temporary = work / "tmp"
    temporary.mkdir()
    environment = dict(os.environ, TMPDIR=str(temporary), SOAK=str(work))

    def start(results, out):
        command = [program, "run", given.experiment, "--results", str(results)]
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)

    def left():
        marked = f"SOAK={work}".encode()
        for pid, (name, _) in processes().items():
            try:
                if marked in pathlib.Path(f"/proc/{pid}/environ").read_bytes():
                    yield pid, name
            except OSError:
                pass

    def seen(results):
        # Where a model lies is its name on some servers.
        there = str(results).encode()
        kept = {name: data.replace(there, b"RESULTS") for name, data in contents(results).items()}
        return {name: data for name, data in kept.items() if not loose or "/episodes/" in name}

    print(f"seed {given.seed}; {work}", flush=True)
    with open(work / "whole.out", "w") as out:
        begun = time.monotonic()
        assert start(work / "whole", out).wait() == 0, f"the undisturbed run failed: see {work}/whole.out"
    whole = {name: comparable(name, data, loose) for name, data in seen(work / "whole").items()}
    print(f"undisturbed: {time.monotonic() - begun:.0f} s, {len(whole)} files", flush=True)

    kills, exits, runs, wrong = collections.Counter(), collections.Counter(), 0, []
    end = time.monotonic() + given.minutes * 60
    while time.monotonic() < end and not wrong:
        results = work / f"run-{runs}"
        starts = 0
        while True:
            starts += 1
            if starts > 200:
                wrong.append("it does not get to its end")
                break
            with open(work / f"run-{runs}.out", "a") as out:
                child = start(results, out)
                while child.poll() is None:
                    if time.monotonic() < end:
                        time.sleep(chance.expovariate(1 / given.gap))
                        now = victims(child.pid, given.server)
                        if now:
                            kind = chance.choice(sorted(now))
                            try:
                                os.kill(chance.choice(now[kind]), signal.SIGKILL)
                                kills[kind] += 1
                            except ProcessLookupError:
                                pass
                    else:
                        child.wait()
            exits[child.returncode] += 1
            if child.returncode == 0:
                break
            if child.returncode not in (3, -signal.SIGKILL):
                wrong.append(f"exit {child.returncode}: see {work}/run-{runs}.out")
                break
        found = seen(results)
        for name, data in found.items():
            wrong += [f"{name}: {key} is there twice" for key in doubled(name, data)]
        wrong += [f"{name} is missing" for name in whole.keys() - found.keys()]
        wrong += [f"{name} is there and should not be" for name in found.keys() - whole.keys()]
        wrong += [f"{name} differs" for name in whole if name in found and comparable(name, found[name], loose) != whole[name]]
        runs += 1
        print(f"run {runs}: {starts} starts; kills {dict(kills)}; exits {dict(exits)}", flush=True)
        if not wrong:
            shutil.rmtree(results)
    time.sleep(1)
    # The next start stops and sweeps what the last kill left; so does this one.
    with open(work / "sweep.out", "w") as out:
        start(work / "whole", out).wait()
    wrong += [f"process {pid} ({name}) is left" for pid, name in left()]
    # Servers of Python's world leave their compiler's cache.
    wrong += [f"{path} is left" for path in temporary.iterdir() if not path.name.startswith("torchinductor_")]
    print("\n".join(wrong) or f"{runs} runs, {sum(kills.values())} kills: nothing lost, nothing doubled, bytes equal, nothing left")
    if not wrong:
        shutil.rmtree(work)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
