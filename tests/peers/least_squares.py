#!/usr/bin/env python3
"""Least-squares merges as their formulas give them, in F64: least_squares.py OUT.

Makes tiny random pools with transformers (Qwen3 with a tied head, Qwen2 with biases and an untied one, Llama with odd widths) and, case
by case, the fitted weights: plain, with an anchor, off-diagonal entries scaled, sequential, sets weighed alike, with the vocabulary, and
with equations that are singular. `rolegraft conformance least-squares --traces OUT` replays them. Needs torch, transformers, safetensors.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models as words
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

MAPS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
VOCABULARY = 200
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "max_position_embeddings": 128, "vocab_size": VOCABULARY}
POOLS = {
    "qwen3-tied": Qwen3Config(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                              head_dim=16, tie_word_embeddings=True, **ROPE),
    "qwen2-untied": Qwen2Config(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
                                tie_word_embeddings=False, **ROPE),
    "llama-odd": LlamaConfig(hidden_size=40, intermediate_size=72, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                             head_dim=20, tie_word_embeddings=True, attention_bias=True, **ROPE),
}
CASES = [
    {"name": "plain"},
    {"name": "ridge-0.3-anchor", "ridge": 0.3, "anchor": {"merge_method": "task_arithmetic", "parameters": {"weight": 0.35}}},
    {"name": "off-diagonal", "off_diagonal": 0.8, "ridge": 0.05},
    {"name": "sequential", "sequential": True},
    {"name": "vocabulary", "embedding": 1.0},
    {"name": "vocabulary-light-sequential", "embedding": 0.2, "ridge": 0.1, "sequential": True},
    {"name": "vocabulary-anchor", "embedding": 2.0, "ridge": 0.5, "rest": "anchor",
     "anchor": {"merge_method": "task_arithmetic", "parameters": {"weight": 0.35}}},
    {"name": "lot", "method": "lot", "ridge": 0.02},
    {"name": "featcal", "method": "featcal"},
    {"name": "featcal-of-a-merge", "method": "featcal", "ridge": 0.2, "rho": 1.5, "alpha": 0.6,
     "rest": {"merge_method": "task_arithmetic", "parameters": {"weight": 0.35}}},
    {"name": "esm", "method": "esm", "tolerance": 2e-4},
    {"name": "esm-half", "method": "esm", "alpha": 0.5, "tolerance": 2e-4},
    {"name": "acm", "method": "acm", "tolerance": 1e-4},
    {"name": "acm-of-a-merge", "method": "acm", "theta": -1.8, "tolerance": 1e-4,
     "rest": {"merge_method": "task_arithmetic", "parameters": {"weight": 0.35}}},
    # Sums of F32 products lose what small eigenvalues hold.
    {"name": "singular", "ridge": 0.0, "few": True, "tolerance": 5e-3},
]


def model_of(config, seed):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.08)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data += 1
    return model


def make_pool(folder, config):
    """A base and experts that are near it, in BF16."""
    base = model_of(config, 1)
    pool = {"base": base.state_dict()}
    for at, name in enumerate(["a", "b", "c"]):
        other = model_of(config, 10 + at).state_dict()
        pool[name] = {key: value + 0.3 * (other[key] - (1.0 if "norm" in key else 0.0)) for key, value in pool["base"].items()}
    for name, weights in pool.items():
        base.load_state_dict(weights)
        base.bfloat16().save_pretrained(folder / name)
        base.float()
        Tokenizer(words.WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t0")).save(str(folder / name / "tokenizer.json"))


def samples(seed, count, length):
    draw = torch.Generator().manual_seed(seed)
    whole = []
    for at in range(count):
        size = length + 3 * at
        ids = torch.randint(3, VOCABULARY, (size,), generator=draw)
        if at % 2:
            ids[: size // 2] = whole[-1]["ids"][: size // 2]
        weights = torch.tensor([0.0, 0.25, 1.0])[torch.randint(0, 3, (size,), generator=draw)]
        whole.append({"ids": ids, "weights": weights.double(), "predicts": torch.arange(size // 3, size - 1, 2)})
    return whole


def weighed(sets):
    """Sets count alike: (ids, weight of each token, weight of each prediction, share of this sample's set)."""
    for one in sets:
        total = sum(s["weights"].sum() for s in one) * len(sets)
        heads = sum(len(s["predicts"]) for s in one) * len(sets)
        for s in one:
            predicts = torch.zeros(len(s["ids"]), dtype=torch.float64)
            predicts[s["predicts"]] = 1.0 / heads
            yield s["ids"], s["weights"] / total, predicts


def fit(folder, experts, sets, case):
    load = lambda name: AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float64)
    nets = [load(name) for name in experts]
    merged = load(experts[0])
    weights = [net.state_dict() for net in nets]
    mean = {key: sum(w[key] for w in weights) / len(weights) for key in weights[0]}
    base = load("base").state_dict()
    task_arithmetic = lambda factor: {key: base[key] + factor * sum(w[key] - base[key] for w in weights) for key in base}
    anchor = task_arithmetic(case["anchor"]["parameters"]["weight"]) if "anchor" in case else mean
    if case.get("method") in ("lot", "esm"):
        anchor = base
    rest = anchor if case.get("rest") == "anchor" else mean
    if isinstance(case.get("rest"), dict):
        rest = task_arithmetic(case["rest"]["parameters"]["weight"])
    merged.load_state_dict(rest)
    ridge, off = case.get("ridge", 0.01), case.get("off_diagonal", 1.0)
    sequential, lookup = case.get("sequential", False), case.get("embedding")
    runs = [list(weighed(of)) for of in sets]
    solved = dict(merged.state_dict())
    tied = merged.config.tie_word_embeddings

    def inputs(net, ids):
        seen, hooks = {}, []
        for layer_at, layer in enumerate(net.model.layers):
            for name in MAPS:
                at = f"model.layers.{layer_at}.{name}"
                hooks.append(layer.get_submodule(name).register_forward_pre_hook(lambda m, i, at=at: seen.__setitem__(at, i[0][0].detach())))
        hooks.append(net.lm_head.register_forward_pre_hook(lambda m, i: seen.__setitem__("head", i[0][0].detach())))
        with torch.no_grad():
            net(ids[None], use_cache=False)
        for hook in hooks:
            hook.remove()
        return seen

    def solve(gram, sides, anchors):
        strength = ridge * gram.diagonal().mean()
        left = gram + strength * torch.eye(len(gram), dtype=torch.float64)
        right = sides - gram @ anchors.T
        change = torch.linalg.lstsq(left, right, driver="gelsd", rcond=1e-10).solution if ridge == 0 else torch.linalg.solve(left, right)
        return anchors + change.T

    def grams(seen_of):
        """Gram matrices of every map and expert, from what goes in."""
        sums = [{} for _ in nets]
        for at, of in enumerate(runs):
            for ids, weight, predicts in of:
                for where, x in seen_of(at, ids).items():
                    w = predicts if where == "head" else weight
                    sums[at][where] = sums[at].get(where, 0) + x.T @ (w[:, None] * x)
        return sums

    if case.get("method") == "featcal":
        featcal(case, runs, nets, merged, solved, base, inputs)
        heads = None
    elif case.get("method") == "acm":
        consensus(case, sets, load("base"), merged, solved, base, inputs)
        heads = None
    elif case.get("method") == "esm":
        sums = grams(lambda at, ids: inputs(nets[at], ids))
        essential(sums, nets, solved, base, case.get("alpha", 1.0))
        heads = None
    elif sequential:
        for layer_at in range(merged.config.num_hidden_layers):
            # The merged layers before, the expert's own maps and norms in this one.
            def seen_of(at, ids):
                mixed = load(experts[at])
                state = mixed.state_dict()
                for key, value in solved.items():
                    before = key.startswith("model.layers.") and int(key.split(".")[2]) < layer_at
                    if before or key == "model.embed_tokens.weight":
                        state[key] = value
                mixed.load_state_dict(state)
                return {k: v for k, v in inputs(mixed, ids).items() if k.startswith(f"model.layers.{layer_at}.")}
            put(grams(seen_of), nets, solved, anchor, off, solve)
        merged.load_state_dict(solved)
        # The head reads the merged stream.
        heads = [g["head"] for g in grams(lambda at, ids: {"head": inputs(merged, ids)["head"]})]
    else:
        sums = grams(lambda at, ids: inputs(nets[at], ids))
        heads = [g.pop("head") for g in sums]
        put(sums, nets, solved, anchor, off, solve)
    if lookup is not None:
        vocabulary(heads, nets, solved, anchor, sets, ridge, lookup, tied)
    if tied:
        solved.pop("lm_head.weight", None)
    return {key: value.float().contiguous() for key, value in solved.items()}


def featcal(case, runs, nets, merged, solved, base, inputs):
    """Layer by layer: the merged stream's inputs, the expert's, and targets between them."""
    ridge, rho, alpha = case.get("ridge", 0.05), case.get("rho", 2.0), case.get("alpha", 0.3)
    for layer_at in range(merged.config.num_hidden_layers):
        merged.load_state_dict(solved)
        left, right = {}, {}
        for at, of in enumerate(runs):
            own, cross = {}, {}
            for ids, weight, _ in of:
                student, teacher = inputs(merged, ids), inputs(nets[at], ids)
                for where in (w for w in student if w.startswith(f"model.layers.{layer_at}.")):
                    s, t = student[where], alpha * teacher[where] + (1 - alpha) * student[where]
                    own[where] = own.get(where, 0) + s.T @ (weight[:, None] * s)
                    cross[where] = cross.get(where, 0) + s.T @ (weight[:, None] * t)
            for where, gram in own.items():
                norm = gram.norm()
                left[where] = left.get(where, 0) + gram / norm
                right[where] = right.get(where, 0) + cross[where] @ nets[at].state_dict()[where + ".weight"].T / norm
        for where, gram in left.items():
            key = where + ".weight"
            anchor = rho * solved[key] + (1 - rho) * base[key]
            identity = torch.eye(len(gram), dtype=torch.float64)
            solved[key] = torch.linalg.solve(gram + (ridge + 1e-8) * identity, right[where] + ridge * anchor.T).T


def whitened(matrix):
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right * values.mean()


def essential(sums, nets, solved, base, scale):
    """Task vectors along the directions that move outputs most, made orthogonal, by the lengths of their kind."""
    changes = {}
    for where in (w for w in sums[0] if w != "head"):
        key = where + ".weight"
        outputs, inputs = [], []
        for gram, net in zip(sums, nets):
            change = net.state_dict()[key] - base[key]
            values, vectors = torch.linalg.eigh(change @ gram[where] @ change.T)
            taken = int(len(change) / len(nets))
            values, vectors = values.flip(0)[:taken].clamp(min=0), vectors.flip(1)[:, :taken]
            power = (values / values.mean()) ** 0.15
            power = power / power.mean()
            outputs.append(vectors * power)
            inputs.append(power[:, None] * (vectors.T @ change))
        changes[where] = whitened(torch.cat(outputs, 1)) @ whitened(torch.cat(inputs, 0))
    for where, change in changes.items():
        same = [other.norm() for name, other in changes.items() if name.split(".")[3:] == where.split(".")[3:]]
        factor = (change.norm() / (sum(same) / len(same))) ** 2
        solved[where + ".weight"] = base[where + ".weight"] + scale * factor * change


def information(ours, theirs):
    """Of BF16 values as labels, in nats."""
    (_, a), (_, b) = (torch.unique(x.float().bfloat16().float().flatten(), return_inverse=True) for x in (ours, theirs))
    joint = torch.zeros(int(a.max()) + 1, int(b.max()) + 1, dtype=torch.float64)
    joint.index_put_((a, b), torch.ones(len(a), dtype=torch.float64), accumulate=True)
    joint /= joint.sum()
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return float((joint[joint > 0] * (joint[joint > 0] / apart[joint > 0]).log()).sum())


def consensus(case, sets, net, merged, solved, base, inputs):
    """The merge drawn back to the base by what outputs of both tell of each other."""
    told = {}
    for s in (s for of in sets for one in of for s in one):
        ids = s["ids"][: max(int(s["weights"].nonzero().max()), int(s["predicts"].max())) + 1]
        ours, theirs = inputs(net, ids), inputs(merged, ids)
        of = {"model.embed_tokens.": [n.state_dict()["model.embed_tokens.weight"][ids] for n in (net, merged)],
              "model.norm.": [seen["head"] for seen in (ours, theirs)]}
        if not merged.config.tie_word_embeddings:
            of["lm_head."] = [seen["head"] @ n.lm_head.weight.T for seen, n in ((ours, net), (theirs, merged))]
        for layer in range(merged.config.num_hidden_layers):
            at = f"model.layers.{layer}."
            of[at] = [seen[at + "mlp.down_proj"] @ n.state_dict()[at + "mlp.down_proj.weight"].T for seen, n in ((ours, net), (theirs, merged))]
        for where, outputs in of.items():
            told.setdefault(where, []).append(information(*outputs))
    theta = case.get("theta", 0.7)
    for where, of in told.items():
        kept = 1 - sum(1 / (1 + np.exp(-theta * (one - max(of)))) for one in of) / len(of)
        for key in (key for key in solved if key.startswith(where)):
            solved[key] = base[key] + kept * (solved[key] - base[key])


def put(sums, nets, solved, anchor, off, solve):
    for where in sums[0]:
        scaled = [g[where] * off + torch.diag(g[where].diagonal()) * (1 - off) for g in sums]
        key = where + ".weight"
        sides = sum(g @ net.state_dict()[key].T for g, net in zip(scaled, nets))
        solved[key] = solve(sum(scaled), sides, anchor[key])


def vocabulary(heads, nets, solved, anchor, sets, ridge, lookup, tied):
    total = sum(heads)
    mean = total.diagonal().mean()
    left = total + ridge * mean * torch.eye(len(total), dtype=torch.float64)
    shares = []
    for of in sets:
        share = torch.zeros(VOCABULARY, dtype=torch.float64)
        for one in of:
            ids = torch.cat([s["ids"] for s in one])
            share += torch.bincount(ids, minlength=VOCABULARY).double() / len(ids) / len(of)
        shares.append(lookup * mean / len(nets) * VOCABULARY * share)
    key, head = "model.embed_tokens.weight", "lm_head.weight"
    counts = sum(shares)
    for name in ([key] if tied else [key, head]):
        a, rows = anchor[name], [net.state_dict()[name] for net in nets]
        lookups = sum(n[:, None] * (e - a) for n, e in zip(shares, rows))
        reads = sum((e - a) @ s for s, e in zip(heads, rows))
        if tied:
            change = torch.stack([torch.linalg.solve(left + counts[v] * torch.eye(len(left), dtype=torch.float64), lookups[v] + reads[v])
                                  for v in range(VOCABULARY)])
        elif name == head:
            change = torch.linalg.solve(left, reads.T).T
        else:
            change = torch.where(counts[:, None] > 0, lookups / counts.clamp(min=1e-300)[:, None], torch.zeros(()).double())
        solved[name] = a + change


def main():
    out = Path(sys.argv[1])
    for pool, config in POOLS.items():
        folder = out / pool
        make_pool(folder, config)
        manifest = []
        for case in CASES:
            few = case.get("few", False)
            experts = ["a", "b", "c"]
            sets = [[samples(7 * at + k, 2 if few else 5, 6 if few else 30 + 8 * k) for k in range(1 + at % 2)] for at in range(3)]
            row = {key: value for key, value in case.items() if key != "few"} | {"models": experts, "calibration": {}}
            for name, of in zip(experts, sets):
                files = []
                for k, one in enumerate(of):
                    file = f"{case['name']}.{name}.{k}.jsonl"
                    with (folder / file).open("w") as lines:
                        for s in one:
                            print(json.dumps({key: value.tolist() for key, value in s.items()}), file=lines)
                    files.append(file)
                row["calibration"][name] = files
            row["expected"] = f"{case['name']}.safetensors"
            save_file(fit(folder, experts, sets, case), folder / row["expected"])
            manifest.append(row)
            print(pool, case["name"], flush=True)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


main()
