#!/usr/bin/env python3
"""The study: every candidate of benchmarks/experiments/study.toml on built-in pools of several seeds, grafts on two of them, fits by less
calibration, and docs/study/README.md from it.

    tests/bench/study.py --binary target/release/rolegraft --dir FOLDER [--seeds 1,2,3] [--out docs/study]

Pools are built with `rolegraft nano build` where FOLDER lacks them (half an hour each on two cores; seed 1 is the one in the repository), runs
go on where they were. Statistics: AVG over six columns and over the four that experts serve, WS (least column), RHM, each with a 95 %
bootstrap interval over tasks within suites and over pools; comparisons paired by task. What is chosen is chosen by dev scores. Needs numpy.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = {"OS": ["os"], "WebShop": ["webshop"], "τ-bench": ["tau-retail", "tau-airline"], "OfficeBench": ["officebench"],
           "DB": ["dbbench"], "ALFWorld": ["alfworld"]}
SERVED = 4
OTHERS = ("base", "tau", "office", "agentbench", "arm")
DRAWS = 1000


# What is done to a backbone, by [transplant].
GRAFTS = {
    "neurons": 'protect = "strict"',
    "neurons by change": 'protect = "strict"\nsaliency = "change"',
    "neurons, other donors protected": 'protect = "other-donors"',
    "neurons by change, other donors protected": 'protect = "other-donors"\nsaliency = "change"',
    "neurons, nothing protected": 'protect = "none"',
    "projected": 'protect = "strict"\ngraft = "projected"',
    "projected, other donors protected": 'protect = "other-donors"\ngraft = "projected"',
    "projected with attention": 'protect = "strict"\ngraft = "projected"\nattention = true',
}
# Fits with less calibration: shares of its tasks.
FITTED = ("regmean", "swudi_anchored_0.1")
SHARES = {2: 5, 10: 25, 20: 50}


def experiment(seed, pool, folder, only=None, label="", transplant=None, calibration=None):
    """study.toml for a pool, with absolute paths; of some candidates, with other rules, where they are given."""
    text = (ROOT / "benchmarks/experiments/study.toml").read_text()
    head, *rest = text.split("[[candidate]]")
    blocks, tail = rest[:-1] + [rest[-1].split("[transplant]")[0]], "[transplant]" + rest[-1].split("[transplant]")[1]
    if only:
        blocks = [block for block in blocks if f'name = "{only}"\n' in block]
    if transplant:
        tail = f"[transplant]\n{transplant}\n"
    if calibration:
        head = head.replace("calibration = 40", f"calibration = {calibration}")
        tail += "\n[diagnosis]\nmax_weak = 0\n"
    text = "[[candidate]]".join([head, *blocks]) + tail
    name = f"study-{seed}{label}"
    text = text.replace('name = "study"\nseed = 1', f'name = "{name}"\nseed = {seed}').replace('"../nano-pool', f'"{pool}')
    text = text.replace('suites = ".."', f'suites = "{ROOT}/benchmarks"')
    path = folder / f"{name}.toml"
    path.write_text(text)
    return name, path


def rewards(run):
    """Model → suite → rewards by task."""
    found = {}
    for path in sorted((run / "episodes").glob("test-*.jsonl")):
        for suite in {suite for suites in COLUMNS.values() for suite in suites}:
            if path.name.startswith(f"test-{suite}-"):
                model = path.name[len(f"test-{suite}-"):-len(".jsonl")]
                episodes = [json.loads(line) for line in path.open()]
                found.setdefault(model, {})[suite] = {e["key"]["task"]: e["reward"] for e in episodes if "key" in e}
    return found


def columns(table, pick=None):
    """Scores of the columns, in percent: means over the tasks, or over those that `pick` draws for each suite."""
    mean = lambda suite: table[suite].mean() if pick is None else table[suite][pick[suite]].mean()
    return np.array([100 * np.mean([mean(s) for s in suites]) for suites in COLUMNS.values()])


def figures(scores, best):
    """In-domain AVG, AVG, WS, RHM."""
    rhm = 0.0 if (scores[best > 0] == 0).any() else (best > 0).sum() / (best[best > 0] / scores[best > 0]).sum()
    return np.array([scores[:SERVED].mean(), scores.mean(), scores.min(), rhm])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/rolegraft")
    parser.add_argument("--dir", required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--page", action="store_true", help="write the page from the runs that are there")
    parser.add_argument("--out", default=str(ROOT / "docs/study"))
    given = parser.parse_args()
    folder, binary = Path(given.dir).resolve(), Path(given.binary).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    pools, dev, aos, arm_of = [], {}, {}, []
    for seed in seeds:
        pool = ROOT / "benchmarks/nano-pool" if seed == 1 else folder / f"seed{seed}"
        if not (pool / "agentbench/model.safetensors").exists():
            subprocess.run([binary, "nano", "build", "--out", pool, "--seed", str(seed)], check=True)

        def run(**rules):
            """Model → suite → rewards in the order of the tasks, and the record."""
            name, path = experiment(seed, pool, folder, **rules)
            if not given.page and subprocess.run([binary, "run", path, "--results", folder / "results"], stdout=subprocess.DEVNULL).returncode:
                sys.exit(f"the run `{name}` failed; the same command goes on")
            out = folder / "results/runs" / name
            found = rewards(out)
            tasks = {suite: sorted(of) for suite, of in found["base"].items()}
            of = {m: {s: np.array([of[s][t] for t in tasks[s]]) for s in tasks} for m, of in found.items()}
            return of, json.loads((out / "run.json").read_text())

        of, record = run()
        chosen = record["selection"]["chosen"]
        for backbone, as_chosen in (("average", "average"), (chosen, "dev's choice")):
            of[f"{as_chosen}: none"] = of[backbone]
            for number, (graft, rules) in enumerate(GRAFTS.items()):
                of[f"{as_chosen}: {graft}"] = run(only=backbone, label=f"-{backbone}-{number}", transplant=rules)[0]["arm"]
        for model in FITTED:
            of[f"{model}: 100 %"] = of[model]
            for tasks, share in SHARES.items():
                of[f"{model}: {share} %"] = run(only=model, label=f"-{model}-{share}", calibration=tasks)[0][model]
        pools.append(of)
        names = [row[0] for row in record["selection"]["rows"]]
        for name, (_, mean), row in zip(names, record["dev"], record["selection"]["rows"]):
            dev.setdefault(name, []).append(mean)
            aos.setdefault(name, []).append(row[2])
        arm_of.append(record["selection"]["chosen"])
    models = [name for name in pools[0] if name in dev] + ["arm"]
    grafts = [f"{of}: {graft}" for of in ("average", "dev's choice") for graft in ("none", *GRAFTS)]
    sizes = [f"{model}: {share} %" for model in FITTED for share in (*SHARES.values(), 100)]
    experts = ("tau", "office", "agentbench")
    best = lambda pool, picks=None: np.max([columns(pool[e], picks) for e in experts], axis=0)
    whole = lambda model: np.array([figures(best(p) if model == "oracle" else columns(p[model]), best(p)) for p in pools])

    draw = np.random.default_rng(0)
    picked = [[{s: draw.integers(0, len(v), len(v)) for s, v in p["base"].items()} for p in pools] for _ in range(DRAWS)]
    of_pools = [draw.integers(0, len(pools), len(pools)) for _ in range(DRAWS)]

    def drawn(model):
        rows = []
        for picks, which in zip(picked, of_pools):
            rows.append(np.mean([figures(best(pools[k], picks[k]) if model == "oracle" else columns(pools[k][model], picks[k]),
                                         best(pools[k], picks[k])) for k in which], axis=0))
        return np.array(rows)

    samples = {model: drawn(model) for model in ["oracle", *models, *grafts, *sizes]}
    means = {model: whole(model).mean(axis=0) for model in samples}
    single = [m for m in models if not m.startswith(("regmean", "lot", "featcal", "esm", "acm", "arm")) and "anchored" not in m]
    by_dev = lambda names: max(names, key=lambda name: np.mean(dev[name]))
    fits = [m for m in models if m.startswith("regmean")]
    anchored = [m for m in models if "anchored" in m]
    operator, fitted, held = by_dev(single), by_dev(fits), by_dev(anchored)
    lines = ["# The study", "",
             f"Built-in pools of seeds {', '.join(map(str, seeds))}; 60 test tasks a suite, 40 dev tasks, 40 calibration tasks; `tests/bench/study.py` makes this page. "
             "Means over the pools; in brackets 95 % of the bootstrap's draws, over tasks within suites and over pools. In-domain: the four columns that an expert serves. "
             "The oracle is the best expert of every column. Dev and AOS are means over the pools.", "",
             "| model | in-domain AVG | AVG | WS | RHM | dev | AOS |", "|---|--:|--:|--:|--:|--:|--:|"]
    for model in ["oracle", *models]:
        low, high = np.percentile(samples[model], [2.5, 97.5], axis=0)
        cells = [f"{m:.{d}f} [{a:.{d}f}, {b:.{d}f}]" for m, a, b, d in zip(means[model], low, high, (1, 1, 1, 2))]
        more = [f"{np.mean(dev[model]):.1f}", f"{np.mean(aos[model]):.3f}"] if model in dev else ["", ""]
        lines.append(f"| {model} | {' | '.join(cells + more)} |")
    lines += ["", "## Columns", "", "| model | " + " | ".join(COLUMNS) + " |", "|---|" + "--:|" * len(COLUMNS)]
    for model in ["oracle", *models]:
        scores = np.mean([best(p) if model == "oracle" else columns(p[model]) for p in pools], axis=0)
        lines.append(f"| {model} | " + " | ".join(f"{s:.1f}" for s in scores) + " |")
    lines += ["", "## Chosen on dev", "",
              f"Among operators without calibration dev scores choose **{operator}**, among fits to the mean **{fitted}**, among fits with an anchor **{held}**.", "",
              "| difference | in-domain AVG | AVG | WS |", "|---|--:|--:|--:|"]

    def apart(a, b):
        """Cells of the differences of in-domain AVG, AVG and WS."""
        draws = samples[a] - samples[b]
        low, high = np.percentile(draws, [2.5, 97.5], axis=0)
        # Two-sided, by the share of draws on the other side.
        p = np.minimum(1, 2 * np.minimum((draws <= 0).mean(axis=0), (draws >= 0).mean(axis=0)))
        cells = [f"{m:+.1f} [{x:+.1f}, {y:+.1f}] p = {max(q, 1 / DRAWS):.3f}" for m, x, y, q in zip(means[a] - means[b], low, high, p)]
        return " | ".join(cells[:3])

    for a, b in [(fitted, operator), (held, operator), (fitted, "oracle"), (held, "oracle"), ("arm", operator)]:
        lines.append(f"| {a} − {b} | {apart(a, b)} |")
    oracle = means["oracle"][0]
    lines += ["", f"Share of the oracle's in-domain AVG: {fitted} {100 * means[fitted][0] / oracle:.1f} %, {held} {100 * means[held][0] / oracle:.1f} %, "
              f"{operator} {100 * means[operator][0] / oracle:.1f} %."]
    plain = lambda model: " | ".join(f"{x:.{d}f}" for x, d in zip(means[model], (1, 1, 1, 2)))
    lines += ["", "## Grafts", "", "On `average`, and on what dev scores chose of each pool; the last three columns are paired differences to the same backbone without a graft.", "",
              "| graft | in-domain AVG | AVG | WS | RHM | Δ in-domain AVG | Δ AVG | Δ WS |", "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for model in grafts:
        none = f"{model.split(': ')[0]}: none"
        lines.append(f"| {model} | {plain(model)} | {'| | ' if model == none else apart(model, none)} |")
    lines += ["", "## Calibration", "", "Fits by shares of the 40 calibration tasks of each suite.", "",
              "| fit | in-domain AVG | AVG | WS | RHM | Δ in-domain AVG | Δ AVG | Δ WS |", "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for model in sizes:
        full = f"{model.split(': ')[0]}: 100 %"
        lines.append(f"| {model} | {plain(model)} | {'| | ' if model == full else apart(model, full)} |")
    correlations = []
    for k, pool in enumerate(pools):
        names = [m for m in models if m in aos]
        avg = [columns(pool[m])[:SERVED].mean() for m in names]
        rank = lambda values: np.argsort(np.argsort(values))
        one = lambda of: (np.corrcoef([of[m][k] for m in names], avg)[0, 1], np.corrcoef(rank([of[m][k] for m in names]), rank(avg))[0, 1])
        top = lambda of: avg[int(np.argmax([of[m][k] for m in names]))]
        correlations.append(f"| {seeds[k]} | {one(aos)[0]:.2f}, {one(aos)[1]:.2f} | {one(dev)[0]:.2f}, {one(dev)[1]:.2f} | {top(aos):.1f} | {top(dev):.1f} | {max(avg):.1f} |")
    lines += ["", "## How well candidates are ranked", "", "In-domain AVG on test tasks against AOS and against dev scores (Pearson, Spearman), and what each would have chosen.", "",
              "| pool | AOS | dev | AOS's choice | dev's choice | best |", "|---|--:|--:|--:|--:|--:|", *correlations, "",
              f"The result `arm` is ARM's graft on dev's choice: {', '.join(arm_of)}.", ""]
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "README.md").write_text("\n".join(lines))
    print("\n".join(lines))


main()
