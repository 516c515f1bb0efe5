"""τ-bench's environments side by side: upstream's Python and rolegraft, on one recording, in one run.

    python tests/bench/tau.py --upstream CHECKOUT --recording golden.jsonl.gz --data DIR --bench BINARY

CHECKOUT is a clone of sierra-research/tau-bench; BINARY is what `cargo bench --workspace --bench replay --no-run` names.
Upstream's simulated users need litellm; the environments alone do not, so an empty module stands in for it.
"""

import argparse
import copy
import gzip
import json
import subprocess
import sys
import tempfile
import time
import types

parser = argparse.ArgumentParser()
for name in ("upstream", "recording", "data", "bench"):
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("--episodes", type=int, default=0, help="only the first N; 0: all")
options = parser.parse_args()

sys.path.insert(0, options.upstream)
sys.modules["litellm"] = types.SimpleNamespace(completion=None, provider_list=[])
from tau_bench.envs.airline.env import MockAirlineDomainEnv  # noqa: E402
from tau_bench.envs.base import consistent_hash, to_hashable  # noqa: E402
from tau_bench.envs.retail.env import MockRetailDomainEnv  # noqa: E402
from tau_bench.types import Action  # noqa: E402

opener = gzip.open if options.recording.endswith(".gz") else open
with opener(options.recording, "rt") as file:
    lines = [line for line in file if line.strip()]
lines = lines[: options.episodes or None]
episodes = [json.loads(line) for line in lines]
actions = [[Action(**a) for a in e["actions"] if a["name"] != "respond"] for e in episodes]
steps = sum(len(e["actions"]) for e in episodes)

envs = {}
for env in (MockRetailDomainEnv, MockAirlineDomainEnv):
    made = env(user_strategy="human", task_index=0)
    envs["retail" if env is MockRetailDomainEnv else "airline"] = made

reset = played = hashed = 0.0
for episode, todo in zip(episodes, actions):
    env = envs[episode["domain"]]
    a = time.perf_counter()
    env.data = env.data_load_func()
    b = time.perf_counter()
    for action in todo:
        # `step` itself scores an episode that ends in a transfer; the tools alone are compared.
        tool = env.tools_map.get(action.name)
        try:
            _ = tool.invoke(data=env.data, **copy.copy(action.kwargs)) if tool else f"Unknown action {action.name}"
        except Exception as error:  # noqa: BLE001
            _ = f"Error: {error}"
    c = time.perf_counter()
    consistent_hash(to_hashable(env.data))
    d = time.perf_counter()
    reset, played, hashed = reset + b - a, played + c - b, hashed + d - c

upstream = {
    "tools alone": played,
    "steps": reset + played,
    "steps and hash": reset + played + hashed,
    # A reward takes two hashes and a second database.
    "steps and reward": 2 * reset + played + 2 * hashed,
}

with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as plain:
    plain.writelines(lines)
    plain.flush()
    output = subprocess.run([options.bench, plain.name, options.data], check=True, capture_output=True, text=True).stdout
ours = {}
for line in output.splitlines():
    what, _, rest = line.partition(": ")
    if rest.endswith(" s"):
        ours[what] = float(rest.split(", ")[1][:-2])
ours["tools alone"] = ours["steps"]

print(f"{len(episodes)} episodes, {steps} steps")
print(f"{'':18} {'upstream':>12} {'rolegraft':>12} {'times':>8}   (steps a second)")
for what, seconds in upstream.items():
    print(f"{what:18} {steps / seconds:12.0f} {steps / ours[what]:12.0f} {seconds / ours[what]:8.1f}")
print(output.splitlines()[-1])
