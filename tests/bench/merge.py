#!/usr/bin/env python3
"""Times `rolegraft merge` beside a plain copy of the same bytes, and beside mergekit where it is installed.

Makes a pool of random Qwen3-like checkpoints (a base and experts, BF16, about 1 GB each by default) and merges it by
every operator. Peers: `cp` of the output's bytes and of all inputs' bytes, `mergekit-yaml` 0.1.5. Prints one row per
operator: seconds, peak memory, and ratios. Only the standard library is needed; nothing here decides a test.

    tests/bench/merge.py --binary target/release/rolegraft [--mergekit mergekit-yaml] [--dir /tmp/bench] [--layers 12]
"""

import argparse
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import time

HIDDEN, HEADS, GROUPS, HEAD, WIDE, VOCABULARY = 2048, 16, 8, 128, 6144, 32768
EXPERTS = 3

RECIPES = {
    "linear": {"each": {"weight": 1.0}, "base": False},
    "task_arithmetic": {"each": {"weight": 0.4}},
    "ties": {"each": {"weight": 1.0, "density": 0.2}},
    "dare_linear": {"each": {"weight": 0.4, "density": 0.5}},
    "dare_ties": {"each": {"weight": 0.4, "density": 0.5}},
    "della": {"each": {"weight": 0.4, "density": 0.5}},
    "breadcrumbs": {"each": {"weight": 0.4, "density": 0.5}},
    "model_stock": {"each": {}},
    "sce": {"each": {}, "shared": {"select_topk": 0.5}},
    "ram": {"each": {}},
    "ramplus_tl": {"each": {}},
    "slerp": {"each": {}, "shared": {"t": 0.5}, "experts": 1},
    "nuslerp": {"each": {"weight": 1.0}, "experts": 2, "base": False},
    "multislerp": {"each": {"weight": 1.0}},
    "karcher": {"each": {}, "base": False},
    "arcee_fusion": {"each": {}, "experts": 1},
    "nearswap": {"each": {}, "shared": {"t": 0.001}, "experts": 1},
    "ram_plus": {"each": {}, "ours": True},
    "widen": {"each": {}, "ours": True},
}


def shapes(layers):
    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    for i in range(layers):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", [HIDDEN]
        yield p + "mlp.down_proj.weight", [HIDDEN, WIDE]
        yield p + "mlp.gate_proj.weight", [WIDE, HIDDEN]
        yield p + "mlp.up_proj.weight", [WIDE, HIDDEN]
        yield p + "post_attention_layernorm.weight", [HIDDEN]
        yield p + "self_attn.k_norm.weight", [HEAD]
        yield p + "self_attn.k_proj.weight", [GROUPS * HEAD, HIDDEN]
        yield p + "self_attn.o_proj.weight", [HIDDEN, HEADS * HEAD]
        yield p + "self_attn.q_norm.weight", [HEAD]
        yield p + "self_attn.q_proj.weight", [HEADS * HEAD, HIDDEN]
        yield p + "self_attn.v_proj.weight", [GROUPS * HEAD, HIDDEN]
    yield "model.norm.weight", [HIDDEN]


def random_weights(size, kind):
    """`size` random BF16 numbers around ±2⁻⁶; an expert changes two of their last bits at random."""
    exponents = bytes(0x3C if b & 1 else 0xBC for b in range(256))
    chunk = 1 << 22
    out = bytearray()
    for start in range(0, size, chunk):
        n = min(chunk, size - start)
        raw = bytearray(2 * n)
        noise = os.urandom(n)
        raw[0::2] = kind.low(noise)
        raw[1::2] = noise.translate(exponents)
        out += raw
    return out


class Base:
    def low(self, noise):
        return noise


class Expert:
    def __init__(self):
        self.table = bytes((b & 0xF8) | int.from_bytes(os.urandom(1), "big") & 7 for b in range(256))

    def low(self, noise):
        return noise.translate(self.table)


def make_pool(folder, layers):
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": HIDDEN, "intermediate_size": WIDE,
        "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "head_dim": HEAD,
        "vocab_size": VOCABULARY, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "hidden_act": "silu", "attention_bias": False,
    }
    header, at = {"__metadata__": {"format": "pt"}}, 0
    sizes = []
    for name, shape in shapes(layers):
        n = 1
        for s in shape:
            n *= s
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + 2 * n]}
        sizes.append(n)
        at += 2 * n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    names = ["base"] + [f"expert{i}" for i in range(1, EXPERTS + 1)]
    done = os.path.join(folder, f"pool-{layers}")
    if os.path.exists(done):
        return
    files = []
    for name in names:
        os.makedirs(os.path.join(folder, name), exist_ok=True)
        with open(os.path.join(folder, name, "config.json"), "w") as f:
            json.dump(config, f)
        files.append(open(os.path.join(folder, name, "model.safetensors"), "wb"))
        files[-1].write(struct.pack("<Q", len(text)) + text)
    experts = [Expert() for _ in range(EXPERTS)]
    for n in sizes:
        base = random_weights(n, Base())
        files[0].write(base)
        for file, expert in zip(files[1:], experts):
            weights = bytearray(base)
            weights[0::2] = bytes(base[0::2]).translate(expert.table)
            file.write(weights)
    for file in files:
        file.close()
    open(done, "w").close()


def recipe(folder, method):
    rule = RECIPES[method]
    experts = [f"expert{i}" for i in range(1, rule.get("experts", EXPERTS) + 1)]
    lines = [f"merge_method: {method}", "dtype: float32", "out_dtype: bfloat16"]
    if rule.get("base", True):
        lines.append(f"base_model: {folder}/base")
    lines.append("models:")
    for expert in experts:
        lines.append(f"- model: {folder}/{expert}")
        if rule["each"]:
            lines.append(f"  parameters: {json.dumps(rule['each'])}")
    if rule.get("shared"):
        lines.append(f"parameters: {json.dumps(rule['shared'])}")
    path = os.path.join(folder, f"{method}.yaml")
    with open(path, "w") as f:
        f.write("\n".join(lines) + "\n")
    return path


def timed(command, out):
    """Seconds and peak memory (MB) of a command that writes `out`; its output goes to a file beside it."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    with open(out + ".log", "w") as log:
        start = time.monotonic()
        child = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - start
    shutil.rmtree(out, ignore_errors=True)
    if status != 0:
        return None, None
    return seconds, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/rolegraft")
    parser.add_argument("--mergekit", help="path of mergekit-yaml; left out if absent")
    parser.add_argument("--mergekit-only", help="comma-separated operators to time mergekit on; all by default")
    parser.add_argument("--dir", default="/tmp/rolegraft-bench")
    parser.add_argument("--layers", type=int, default=12, help="12 make about 1 GB a checkpoint")
    parser.add_argument("--operators", help="comma-separated; all by default")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3, help="best of so many (mergekit: one)")
    options = parser.parse_args()
    os.makedirs(options.dir, exist_ok=True)
    # In a process of its own: its memory would otherwise count as that of every command started later.
    if os.fork() == 0:
        make_pool(options.dir, options.layers)
        os._exit(0)
    if os.wait()[1] != 0:
        sys.exit("the pool could not be made")
    size = os.path.getsize(os.path.join(options.dir, "base", "model.safetensors"))
    chosen = options.operators.split(",") if options.operators else list(RECIPES)
    out = os.path.join(options.dir, "out")

    def best(command):
        rounds = [timed(command, out) for _ in range(options.rounds)]
        rounds = [r for r in rounds if r[0] is not None]
        return min(rounds) if rounds else (None, None)

    # The copy reads every input and writes one output: what a merge cannot avoid.
    inputs = " ".join(f"{options.dir}/expert{i}/model.safetensors" for i in range(1, EXPERTS + 1))
    script = f"mkdir -p {out} && cat {inputs} {options.dir}/base/model.safetensors > /dev/null && cp {options.dir}/base/model.safetensors {out}/ && sync {out}/model.safetensors"
    copy, _ = best(["sh", "-c", script])
    write, _ = best(["sh", "-c", f"mkdir -p {out} && cp {options.dir}/base/model.safetensors {out}/ && sync {out}/model.safetensors"])
    print(f"pool: {EXPERTS + 1} x {size / 1e9:.2f} GB; copy of one: {write:.2f} s; reading all and copying one: {copy:.2f} s")
    print(f"{'operator':18} {'s':>7} {'MB':>6} {'x copy':>7} {'x linear':>8} {'mergekit s':>10} {'MB':>6} {'x faster':>8}")
    linear = None
    for method in chosen:
        path = recipe(options.dir, method)
        ours, memory = best([options.binary, "merge", path, "--out", out, "--threads", str(options.threads)])
        if ours is None:
            print(f"{method:18} failed, see {out}.log")
            sys.exit(1)
        linear = ours if method == "linear" else linear
        row = f"{method:18} {ours:7.2f} {memory:6.0f} {ours / copy:7.2f} " + (f"{ours / linear:8.2f}" if linear else f"{'':8}")
        only = options.mergekit_only.split(",") if options.mergekit_only else chosen
        if options.mergekit and method in only and not RECIPES[method].get("ours"):
            theirs, their_memory = timed([options.mergekit, path, out], out)
            if theirs is not None:
                row += f" {theirs:10.1f} {their_memory:6.0f} {theirs / ours:8.1f}"
            else:
                row += f" {'failed':>10}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
