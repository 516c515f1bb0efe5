"""The page of a large run: what making it takes, and how fast it opens in Chromium.

    python tests/bench/page.py --bench BINARY [--models 10] [--tasks 5000]

BINARY is `rolegraft`. The logs are made up: a model's episodes on TASKS tasks of five suites, eight turns each, replies and
observations of about 300 bytes. Making is `rolegraft report LOG… --html DIR`: its wall time and its peak resident set.
Opening is the time from the start of navigation, of the page as a file, to the first list of pairs; then the first
conversation. Every number is measured three times, the median is shown.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("--bench", required=True, type=os.path.abspath)
parser.add_argument("--models", type=int, default=10)
parser.add_argument("--tasks", type=int, default=5000)
parser.add_argument("--chromium", default="chromium")
options = parser.parse_args()
WORDS = "order reservation customer window basket returned flight answer number please confirm the of and to look in".split()
KINDS = ["missing", "invalid_json", "schema", "prose"]


def text(rng):
    return " ".join(rng.choices(WORDS, k=48))


def episode(rng, task):
    messages, turns = [{"role": "user", "content": text(rng)}], []
    for turn in range(8):
        reply = text(rng)
        broken = rng.random() < 0.05
        kind = {"kind": rng.choice(KINDS), "range": {"start": 3, "end": 20}, "detail": "made up"}
        turns.append({"message": len(messages), "finish": "stop", "spans": [["action", {"start": 0, "end": 30}]],
                      "violations": [kind] if broken else [], "succeeded": not broken})
        messages += [{"role": "assistant", "content": reply}, {"role": "tool", "content": text(rng)}]
    key = {"suite": f"suite-{task % 5}", "task": f"task-{task}", "trial": 0}
    spent = {"calls": 8, "failures": 0, "prompt_tokens": 9000, "completion_tokens": 600}
    return {"key": key, "status": "completed", "reward": float(rng.random() < 0.5), "messages": messages,
            "turns": turns, "detail": None, "spent": spent, "seconds": 1.0}


def logs(folder):
    for model in range(options.models):
        rng = random.Random(model)
        path = os.path.join(folder, f"model-{model}.jsonl")
        with open(path, "w") as log:
            log.write('{"rolegraft_log":2,"digest":""}\n')
            for task in range(options.tasks):
                log.write(json.dumps(episode(rng, task)) + "\n")
        yield path


def make(paths, folder):
    begun = time.perf_counter()
    child = subprocess.Popen([options.bench, "report", *paths, "--html", folder], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0
    return time.perf_counter() - begun, usage.ru_maxrss / 1024


class Chromium:
    def __init__(self, profile):
        (ours_in, self.out), (self.inp, ours_out) = os.pipe(), os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        launch = f'exec "$0" "$@" 3<&{ours_in} 4>&{ours_out}'
        command = ["sh", "-c", launch, options.chromium, *flags, f"--user-data-dir={profile}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.child = subprocess.Popen(command, pass_fds=(ours_in, ours_out), **quiet)
        self.sent, self.session, self.buffer = 0, {}, b""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def ask(self, method, **parameters):
        self.sent += 1
        os.write(self.out, json.dumps({"id": self.sent, "method": method, "params": parameters, **self.session}).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                self.buffer += os.read(self.inp, 1 << 16)
            message, _, self.buffer = self.buffer.partition(b"\0")
            message = json.loads(message)
            if message.get("id") == self.sent:
                assert "error" not in message, message
                return message["result"]

    def when(self, condition, then="performance.now()"):
        look = f"new Promise((done) => {{ const look = () => ({condition}) ? done({then}) : setTimeout(look, 2); look(); }})"
        return self.ask("Runtime.evaluate", expression=look, awaitPromise=True, returnByValue=True)["result"]["value"]

    def open(self, page):
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=f"file://{page}")
        ready = self.when("document.getElementById('paired')?.dataset.ready && document.querySelector('#pairs .row')")
        begun = self.when("true", "(document.querySelector('.row').click(), performance.now())")
        shown = self.when("document.querySelector('.pair pre')")
        return ready / 1000, (shown - begun) / 1000


with tempfile.TemporaryDirectory() as folder:
    paths = list(logs(folder))
    size = sum(os.path.getsize(path) for path in paths)
    print(f"{options.models * options.tasks} episodes, logs of {size / 1e6:.0f} MB")
    site = os.path.join(folder, "site")
    made = [make(paths, site) for _ in range(3)]
    seconds, peak = (statistics.median(column) for column in zip(*made))
    print(f"making: {seconds:.1f} s, {peak:.0f} MB at its peak")
    data = os.path.join(site, "report-data")
    sizes = {name: os.path.getsize(os.path.join(data, name)) for name in os.listdir(data)}
    page = os.path.join(site, "report.html")
    print(f"page {os.path.getsize(page) / 1e3:.0f} kB, index {sizes['index.js'] / 1e6:.2f} MB, "
          f"{len(sizes) - 1} chunks of {(sum(sizes.values()) - sizes['index.js']) / 1e6:.0f} MB")
    browser = Chromium(os.path.join(folder, "profile"))
    opened = [browser.open(page) for _ in range(3)]
    browser.child.kill()
    browser.child.wait()
    ready, shown = (statistics.median(column) for column in zip(*opened))
    print(f"opening: {ready:.2f} s (first {opened[0][0]:.2f}) to the list of pairs, {shown:.2f} s more for a conversation")
