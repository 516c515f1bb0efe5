"""ALFWorld's games side by side: TextWorld and rolegraft, in one run: walks through the official games.

    python tests/bench/alfworld.py --data DIR --bench BINARY [--games 10]

DIR holds the official games (docs/alfworld.md); BINARY is what `cargo bench --workspace --bench alfworld --no-run` names. Needs textworld
(1.7.0, with its PDDL planner).
"""

import argparse
import json
import os
import subprocess
import time

import textworld

parser = argparse.ArgumentParser()
for name in ("data", "bench"):
    parser.add_argument(f"--{name}", required=True, type=os.path.abspath)
parser.add_argument("--games", type=int, default=10)
options = parser.parse_args()

root = next(r for r in (f"{options.data}/alfworld", options.data) if os.path.isdir(f"{r}/json_2.1.1"))
lists = next(p for p in (f"{root}/tasks/standard.json", f"{root}/standard.json") if os.path.isfile(p))
with open(lists) as file:
    games = [game for kind in json.load(file).values() for game in kind][: options.games]

STEPS = 10
infos = textworld.EnvInfos(won=True, admissible_commands=True)
loading, playing, steps = 0.0, 0.0, 0
for game in games:
    path = f"{root}/{game}"
    begun = time.perf_counter()
    env = textworld.start(path, infos)
    state = env.reset()
    loading += time.perf_counter() - begun
    begun = time.perf_counter()
    for at in range(STEPS):
        # Its commands bear raw ids here, which ALFWorld alone gives names.
        commands = sorted(state.admissible_commands)
        state, _, _ = env.step(commands[at * 7 % len(commands)])
        steps += 1
    playing += time.perf_counter() - begun
    env.close()
print(f"TextWorld: {loading / len(games) * 1e3:.1f} ms to load a game and begin; {steps / playing:.1f} steps/s ({steps} steps of {len(games)} games)")
print(subprocess.run([options.bench, options.data], check=True, capture_output=True, text=True).stdout, end="")
