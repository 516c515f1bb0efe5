"""OfficeBench's environments side by side: upstream's Python and rolegraft, on the same recorded replies, in one run.

    python tests/bench/office.py --upstream CHECKOUT --recording episodes.jsonl --data DIR --bench BINARY

CHECKOUT is the folder `OfficeBench` of a clone of microsoft/Simia-Agent-Training; DIR holds `tasks` and `prompts_v2.json`;
BINARY is what `cargo bench --workspace --bench office --no-run` names. Upstream's tools need fire, openpyxl, python-docx,
icalendar, PyPDF2 and PyMuPDF; modules that only its agents need are replaced by empty ones. Replies that ask for a
shell, a model or a conversion are left out on both sides: there the foreign program's time is what one measures.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import types
from unittest.mock import MagicMock

parser = argparse.ArgumentParser()
for name in ("upstream", "recording", "data", "bench"):
    parser.add_argument(f"--{name}", required=True, type=os.path.abspath)
parser.add_argument("--episodes", type=int, default=20, help="the first N that qualify")
options = parser.parse_args()

SLOW = ('"shell"', '"llm"', '"pdf"', "convert_to")
with open(options.recording) as file:
    episodes = [json.loads(line) for line in file if line.strip()]
episodes = [e for e in episodes if not any(word in s["reply"] for s in e["steps"] for word in SLOW)]
episodes = [e for e in episodes if os.path.isdir(f"{options.data}/tasks/{e['task']}")][: options.episodes]
steps = sum(len(e["steps"]) for e in episodes)

work = tempfile.mkdtemp()
with open(f"{work}/kept.jsonl", "w") as kept:
    kept.writelines(json.dumps(e) + "\n" for e in episodes)
ours = {}
output = subprocess.run(
    [options.bench, f"{work}/kept.jsonl", options.data], check=True, capture_output=True, text=True
).stdout
for line in output.splitlines():
    what, _, rest = line.partition(": ")
    if rest.endswith(" s"):
        ours[what] = float(rest.split(", ")[1][:-2])

# Upstream works relative to its own folder; its tools are started as `python3 apps/…`.
for part in ("apps", "utils"):
    os.symlink(f"{options.upstream}/{part}", f"{work}/{part}")
os.chdir(work)
sys.path.insert(0, work)
os.environ["PATH"] = os.path.dirname(sys.executable) + ":" + os.environ["PATH"]


@contextlib.contextmanager
def timeout(*_, **__):
    yield


def module(name, **members):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)


IcEnv, Config = type("IntercodeEnv", (), {}), type("BlueprintConfig", (), {})
codes = {n: n for n in ("AGENT_OBS", "EVAL_OBS", "CORRUPT_GOLD", "ACTION_EXEC", "REWARD")}
module("intercode")
module("intercode.envs")
module("intercode.envs.ic_env", IntercodeEnv=IcEnv, **codes)
module("intercode.utils", timeout=timeout, IntercodeDataLoader=MagicMock())
module("utils.config", BlueprintConfig=Config, save_blueprint_config=lambda *a, **k: None)
while True:
    try:
        local_env = importlib.import_module("utils.env.local_env")
        break
    except ModuleNotFoundError as missing:
        sys.modules[missing.name] = MagicMock()

with open(f"{options.data}/prompts_v2.json") as file:
    prompts = json.load(file)


def fresh(episode):
    name = episode["task"]
    shutil.rmtree("local_workdir", ignore_errors=True)
    os.makedirs(f"local_workdir/tasks/{name}")
    source, bed = f"{options.data}/tasks/{name}/testbed", f"local_workdir/tasks/{name}/testbed"
    if os.path.isdir(source):
        shutil.copytree(source, bed, copy_function=shutil.copyfile)
    os.makedirs(bed, exist_ok=True)
    if episode["kind"] == "mkdir_first":
        for folder in ("data", "emails", "calendar"):
            os.makedirs(f"{bed}/{folder}", exist_ok=True)
    with open(f"{options.data}/tasks/{name}/subtasks/{episode['subtask']}.json") as file:
        task = json.load(file)["task"]
    config = Config()
    config.experiment = types.SimpleNamespace(use_thinking_tokens=True, use_scratchpad=False)
    config.prompt_file = None
    env = local_env.OfficeAgentLocalEnv(config, task_dir=f"./local_workdir/tasks/{name}", workdir="./local_workdir", task=task)
    env.PROMPT_DICT = prompts
    env.reset()
    return env


resets = played = same = 0
for episode in episodes:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        a = time.perf_counter()
        env = fresh(episode)
        b = time.perf_counter()
        for step in episode["steps"]:
            env.exec_action(step["reply"])
            same += (env.observation or "") == (step["observation"] or "")
        c = time.perf_counter()
    resets, played = resets + b - a, played + c - b
os.chdir("/")
shutil.rmtree(work)

print(f"{len(episodes)} episodes, {steps} steps; upstream observed what was recorded in {same} of them")
print(f"{'':16} {'upstream':>12} {'rolegraft':>12} {'times':>8}   (milliseconds each)")
for what, theirs, count in (("fresh episodes", resets, len(episodes)), ("steps", resets + played, steps)):
    mine = ours[what]
    print(f"{what:16} {1e3 * theirs / count:12.2f} {1e3 * mine / count:12.3f} {theirs / mine:8.1f}")
print(output.splitlines()[-1])
