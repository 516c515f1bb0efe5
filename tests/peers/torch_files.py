#!/usr/bin/env python3
"""Models as torch saves them beside the same as safetensors: `rolegraft diff` must find no difference, or name what is not read.

    torch_files.py --binary target/release/rolegraft --model benchmarks/nano-pool/base

Needs torch and safetensors. Dtypes, parameters, tied and sliced tensors, shards with an index and without one, the old format, and objects.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file


def folder(work, name, like):
    path = os.path.join(work, name)
    os.makedirs(path)
    for file in os.listdir(like):
        if not file.startswith("model"):
            shutil.copy(os.path.join(like, file), path)
    return path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="target/release/rolegraft")
    parser.add_argument("--model", default="benchmarks/nano-pool/base")
    options = parser.parse_args()
    plain = load_file(os.path.join(options.model, "model.safetensors"))
    names = sorted(plain)
    half = names[: len(names) // 2]
    base = torch.cat([plain[n].flatten().float() for n in names])
    views, at = {}, 0
    for n in names:
        views[n] = base[at: at + plain[n].numel()].view(plain[n].shape)
        at += plain[n].numel()
    whole = {n: t.float() for n, t in plain.items()}

    def parameters():
        return {n: torch.nn.Parameter(t.clone(), requires_grad=True) for n, t in plain.items()}

    def of(dtype):
        return {n: t.to(dtype) for n, t in plain.items()}

    good = {
        "as it is": (dict(plain), plain), "parameters": (parameters(), plain), "float64": (of(torch.float64), of(torch.float64)),
        "float16": (of(torch.float16), of(torch.float16)), "bfloat16": (of(torch.bfloat16), of(torch.bfloat16)),
        "slices of one storage": (views, whole), "whole numbers": ({**plain, "counts": torch.arange(7), "mask": torch.tensor([True, False])},
                                                                    {**plain, "counts": torch.arange(7), "mask": torch.tensor([True, False])}),
        "two names of one tensor": ({**plain, "lm_head.weight": plain["model.embed_tokens.weight"]},
                                    {**plain, "lm_head.weight": plain["model.embed_tokens.weight"].clone()}),
    }
    refused = {
        "turned axes": ({**plain, names[1]: plain[names[1]].t() if plain[names[1]].dim() == 2 else plain[names[1]][::2]}, "view"),
        "a dictionary of dictionaries": ({"state_dict": plain, "epoch": 3}, "state_dict"),
        "float8": ({**plain, names[0]: plain[names[0]].to(torch.float8_e4m3fn)}, "torch."),
        "a module": (torch.nn.Linear(2, 2), "torch."), "old format": (dict(plain), "before 1.6"),
    }
    failed = 0

    def report(name, fine, said):
        nonlocal failed
        failed += not fine
        print(f"{'ok  ' if fine else 'FAIL'} {name}" + ("" if fine else f": {said}"))

    with tempfile.TemporaryDirectory() as work:
        def run(*arguments):
            done = subprocess.run([options.binary, *arguments], capture_output=True, text=True)
            return done.returncode, done.stdout + done.stderr

        def same(name, ours, expected):
            theirs = folder(work, name + " as safetensors", options.model)
            save_file({k: v.contiguous() for k, v in expected.items()}, os.path.join(theirs, "model.safetensors"), metadata={"format": "pt"})
            code, said = run("diff", ours, theirs)
            report(name, code == 0, said)

        for name, (state, expected) in good.items():
            ours = folder(work, name, options.model)
            torch.save(state, os.path.join(ours, "pytorch_model.bin"))
            same(name, ours, expected)
        for indexed in (True, False):
            name = "shards with an index" if indexed else "shards without an index"
            ours = folder(work, name, options.model)
            files = {k: f"pytorch_model-0000{1 if k in half else 2}-of-00002.bin" for k in names}
            for file in set(files.values()):
                torch.save({k: plain[k] for k in names if files[k] == file}, os.path.join(ours, file))
            if indexed:
                with open(os.path.join(ours, "pytorch_model.bin.index.json"), "w") as f:
                    json.dump({"metadata": {}, "weight_map": files}, f)
            same(name, ours, plain)
        ours = folder(work, "mixed shards", options.model)
        save_file({k: plain[k].contiguous() for k in half}, os.path.join(ours, "first.safetensors"))
        torch.save({k: plain[k] for k in names if k not in half}, os.path.join(ours, "rest.bin"))
        with open(os.path.join(ours, "model.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {}, "weight_map": {k: "first.safetensors" if k in half else "rest.bin" for k in names}}, f)
        same("mixed shards", ours, plain)
        for name, (state, expected) in refused.items():
            ours = folder(work, name, options.model)
            torch.save(state, os.path.join(ours, "pytorch_model.bin"), _use_new_zipfile_serialization=name != "old format")
            code, said = run("inspect", ours)
            report(name + " is refused", code != 0 and expected in said and "pytorch_model.bin" in said, said)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
