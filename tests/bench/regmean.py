#!/usr/bin/env python3
"""`rolegraft merge` by regmean on the built-in pool beside a trace of the same tokens and beside the same sums in PyTorch, F64.

    tests/bench/regmean.py --binary target/release/rolegraft [--python PYTHON-WITH-TORCH-AND-TRANSFORMERS] [--rounds 3]

Takes turns and prints the best of --rounds. The trace reads every expert's sets once; PyTorch runs each expert's decoder in F64 with hooks
on all linear maps, sums w x xᵀ, and solves; loading is counted for all, starting Python is not.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POOL = ROOT / "benchmarks/nano-pool"
SETS = {"agentbench": ["os", "webshop"], "office": ["officebench"], "tau": ["tau-retail"]}

TORCH = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM
pool, sets = sys.argv[1], json.loads(sys.argv[2])
begun = time.perf_counter()
grams, sides = {}, {}
for expert, files in sets.items():
    net = AutoModelForCausalLM.from_pretrained(f"{pool}/{expert}", dtype=torch.float64)
    maps = {n: m for n, m in net.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"}
    own = {n: torch.zeros(m.in_features, m.in_features, dtype=torch.float64) for n, m in maps.items()}
    weight = None
    for n, m in maps.items():
        m.register_forward_pre_hook(lambda m, i, n=n: (own[n].addmm_(i[0][0].T * weight, i[0][0]), None)[1])
    with torch.no_grad():
        for file in files:
            runs = [json.loads(line) for line in open(file)][1:]
            weight = 1.0 / sum(len(r["ids"]) for r in runs) / len(files)
            for run in runs:
                net(torch.tensor([run["ids"]]), use_cache=False)
        for n, m in maps.items():
            grams[n] = grams.get(n, 0) + own[n]
            sides[n] = sides.get(n, 0) + own[n] @ m.weight.T
for n, gram in grams.items():
    gram += 0.01 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    torch.linalg.solve(gram, sides[n])
print(time.perf_counter() - begun)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/rolegraft")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    binary = Path(given.binary).resolve()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)

        def timed(*command):
            begun = time.perf_counter()
            subprocess.run([str(part) for part in command], check=True, cwd=ROOT, capture_output=True)
            return time.perf_counter() - begun

        files, tokens = {}, 0
        for expert, suites in SETS.items():
            for suite in suites:
                log, out = work / f"{suite}.jsonl", work / f"{suite}.calibration.jsonl"
                timed(binary, "calibrate", "--suite", suite, "-n", 40, "--out", log)
                timed(binary, "calibrate", log, "--model", POOL / expert, "--out", out)
                files.setdefault(expert, []).append(str(out))
                tokens += sum(len(json.loads(line)["ids"]) for line in out.read_text().splitlines()[1:])
        recipe = {"merge_method": "regmean", "models": [{"model": str(POOL / expert)} for expert in files],
                  "parameters": {"calibration": {str(POOL / expert): of for expert, of in files.items()}}}
        (work / "regmean.yaml").write_text(json.dumps(recipe))
        best = {"regmean": [], "trace": [], "PyTorch": []}
        for at in range(given.rounds):
            best["regmean"].append(timed(binary, "merge", work / "regmean.yaml", "--out", work / f"out{at}"))
            # Sets of one benchmark are traced together; each here is one of its own.
            traces = [timed(binary, "trace", "--model", POOL / expert, "--calibration", file, "--tokens", "all", "--out", work / "s.safetensors")
                      for expert, of in files.items() for file in of]
            best["trace"].append(sum(traces))
            said = subprocess.run([given.python, "-c", TORCH, str(POOL), json.dumps(files)], check=True, capture_output=True, text=True)
            best["PyTorch"].append(float(said.stdout.split()[-1]))
        best = {name: min(of) for name, of in best.items()}
        print(f"{tokens} tokens; " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in best.items()))
        print(f"regmean : trace = {best['regmean'] / best['trace']:.2f}, PyTorch in F64 : regmean = {best['PyTorch'] / best['regmean']:.1f}")


main()
