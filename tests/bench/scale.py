#!/usr/bin/env python3
"""The loop's weights at size: merge, trace, select and transplant on random checkpoints of Qwen3-1.7B's shape, beside `cp`.

Makes a base and three experts (BF16, 3.4 GB each) in --dir and, for each benchmark, a calibration set of random tokens; merges six
candidates, traces each candidate on every benchmark and each expert on its own, and removes a candidate as soon as it is traced (disk: six
checkpoints). Then selects a backbone and transplants two experts into it. Prints seconds and peak memory of every stage, and those of
`cp` of one checkpoint. The standard library alone is needed; nothing here decides a test.

    tests/bench/scale.py --binary target/release/rolegraft --dir FOLDER [--layers 28 --vocabulary 151936 --runs 1 --memory 2GB]
"""
import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import merge

BENCHMARKS = {"tau": "expert1", "office": "expert2", "agentbench": "expert3"}
# The paper's candidates: each a recipe's method, its parameters, those of each model, and whether it takes the base.
CANDIDATES = {
    "average": ("linear", {}, {"weight": 1.0}, False),
    "task_arithmetic": ("task_arithmetic", {"lambda": 0.4}, {"weight": 1.0}, True),
    "ties": ("ties", {"lambda": 0.4}, {"weight": 1.0, "density": 0.2}, True),
    "dare_ties": ("dare_ties", {"lambda": 0.4}, {"weight": 1.0, "density": 0.5}, True),
    "model_stock": ("model_stock", {}, {}, True),
    "ram": ("ram", {}, {}, True),
}


def recipe(pool, name):
    method, parameters, each, base = CANDIDATES[name]
    models = [{"model": str(pool / e), **({"parameters": each} if each else {})} for e in BENCHMARKS.values()]
    whole = {"merge_method": method, "dtype": "float32", "out_dtype": "bfloat16", "models": models}
    whole |= {"parameters": parameters} if parameters else {}
    whole |= {"base_model": str(pool / "base")} if base else {}
    path = pool / f"{name}.yaml"
    path.write_text(json.dumps(whole))
    return path


def add_tokenizer(folder):
    """A tokenizer of as many words as the embedding has rows; all models of the pool share it."""
    words = {f"t{i}": i for i in range(merge.VOCABULARY)}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "t0"}
    nothing = dict.fromkeys(["truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"])
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], **nothing, "model": model}))
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "t2"}))


def calibration(pool, benchmark, runs, tokens):
    """`runs` runs of `tokens` random ids whose second half the expert has to say."""
    digest = hashlib.sha256((pool / "base" / "tokenizer.json").read_bytes()).hexdigest()
    draw, path = random.Random(benchmark), pool / f"{benchmark}.calibration.jsonl"
    with path.open("w") as out:
        head = {"tokenizer": digest, "rendering": "", "episodes": "", "benchmark": benchmark}
        print(json.dumps({"rolegraft": "calibration set", "format": 1, "content": head}), file=out)
        for at in range(runs):
            ids = [draw.randrange(3, merge.VOCABULARY) for _ in range(tokens)]
            role = list(range(tokens // 2, tokens))
            print(json.dumps({"id": f"{benchmark}{at}", "benchmark": benchmark, "ids": ids, "role": role, "reply": role}), file=out)
    return path


class Stage:
    """Commands of one kind: their seconds, and the highest peak memory among them."""

    def __init__(self, name, log):
        self.name, self.log, self.seconds, self.memory = name, log, [], 0

    def run(self, *command):
        began = time.monotonic()
        child = subprocess.Popen([str(part) for part in command], stdout=self.log, stderr=self.log)
        _, status, usage = os.wait4(child.pid, 0)
        self.seconds.append(time.monotonic() - began)
        self.memory = max(self.memory, usage.ru_maxrss / 1024)
        if status != 0:
            sys.exit(f"failed, see {self.log.name}: {' '.join(map(str, command))}")

    def __str__(self):
        total, times = sum(self.seconds), len(self.seconds)
        return f"{self.name:28} {total:8.1f} {times:6} {total / times:8.1f} {self.memory:8.0f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/rolegraft")
    parser.add_argument("--dir", required=True, help="where checkpoints are made; what is there is used again")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--runs", type=int, default=1, help="calibration runs a benchmark")
    parser.add_argument("--tokens", type=int, default=1024, help="tokens of a run")
    parser.add_argument("--memory", default="2GB", help="what tracing may use besides a layer's weights")
    options = parser.parse_args()
    binary, pool = Path(options.binary).resolve(), Path(options.dir).resolve()
    pool.mkdir(parents=True, exist_ok=True)
    merge.VOCABULARY = options.vocabulary
    # In a process of its own, whose memory would otherwise count as that of every command started later.
    if os.fork() == 0:
        merge.make_pool(str(pool), options.layers)
        add_tokenizer(pool / "base")
        for expert in BENCHMARKS.values():
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(pool / "base" / name, pool / expert / name)
        os._exit(0)
    if os.wait()[1] != 0:
        sys.exit("the pool could not be made")
    sets = {b: calibration(pool, b, options.runs, options.tokens) for b in BENCHMARKS}
    saliencies, out = pool / "saliency", pool / "out"
    shutil.rmtree(saliencies, ignore_errors=True)
    saliencies.mkdir()
    size = (pool / "base" / "model.safetensors").stat().st_size
    print(f"4 x {size / 1e9:.2f} GB; {len(BENCHMARKS)} sets of {options.runs} x {options.tokens} tokens; {os.cpu_count()} cores")
    with (pool / "scale.log").open("w") as log:
        trace = Stage("trace", log)

        def traced(model, name, benchmark):
            path = saliencies / f"{name}.{benchmark}.saliency.safetensors"
            if not path.exists():
                trace.run(binary, "trace", "--model", model, "--calibration", sets[benchmark], "--memory", options.memory, "--out", path)
            return path

        copy = Stage("cp, with sync", log)
        for _ in range(2):
            out.unlink(missing_ok=True)
            os.sync()
            copy.run("sh", "-c", f"cp {pool}/base/model.safetensors {out} && sync {out}")
        out.unlink()
        stages, candidates = [copy], {}
        for name in CANDIDATES:
            shutil.rmtree(out, ignore_errors=True)
            stages.append(Stage(f"merge {name}", log))
            stages[-1].run(binary, "merge", recipe(pool, name), "--out", out)
            candidates[name] = {b: traced(out, name, b) for b in BENCHMARKS}
        shutil.rmtree(out)
        experts = {b: traced(pool / e, e, b) for b, e in BENCHMARKS.items()}
        select = Stage("select", log)
        chosen = pool / "selection.json"
        named = [f"--candidate={n}={b}={path}" for n, of in candidates.items() for b, path in of.items()]
        select.run(binary, "select", *(f"--expert={b}={path}" for b, path in experts.items()), *named, "--out", chosen)
        backbone = json.loads(chosen.read_text())["content"]["selection"]["chosen"]
        again = Stage(f"merge {backbone} again", log)
        again.run(binary, "merge", recipe(pool, backbone), "--out", out)
        donors = [traced(pool / e, e, b) for e in BENCHMARKS.values() for b in BENCHMARKS]
        transplant = Stage("transplant", log)
        transplant.run(binary, "transplant", "--backbone", out, *(f"--donor={b}={pool / e}" for b, e in BENCHMARKS.items()),
                       "--saliency", *donors, *candidates[backbone].values(), "--weak", "office,agentbench", "--out", pool / "arm")
        shutil.rmtree(out)
        shutil.rmtree(pool / "arm")
        print(f"{'stage':28} {'s':>8} {'times':>6} {'s each':>8} {'MB':>8}")
        for stage in [*stages, trace, select, transplant]:
            print(stage)
        tokens = len(trace.seconds) * options.runs * options.tokens
        print(f"backbone {backbone}; {tokens / sum(trace.seconds):.0f} tokens/s traced, loading included")


if __name__ == "__main__":
    main()
