#!/usr/bin/env bash
# transformers 5.24.0, `rope_parameters` of yarn: `"truncate": null` means false, an absent `truncate` true (`.get("truncate", True)`
# is then falsy), while `"beta_fast": null` means its default, as an absent one does; and a top-level
# `original_max_position_embeddings` replaces the one inside `rope_parameters`, though not before a model is made: the configuration
# as it was loaded still shows the one inside. Whoever takes null for absent, or looks inside alone, computes other rotary frequencies.
# Seen on 29 Nov 2026 with CPython 3.11, torch 2.13.0: null as false True, as absent False (6.3 % apart at most); with 512 inside and
# 1024 at the top the loaded configuration says 512, and the frequencies are those of 1024.
# VENV: a folder where it is installed already.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
venv=${VENV:-$work/venv}
if [ ! -x "$venv/bin/transformers" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0
fi
cat > "$work/look.py" <<'PY'
import json, pathlib, sys, tempfile, torch
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

def read(inside={}, **top):
    folder = pathlib.Path(tempfile.mkdtemp(dir=sys.argv[1]))
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 1024}
    shape = {"model_type": "llama", "vocab_size": 64, "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 1,
             "num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 4096}
    (folder / "config.json").write_text(json.dumps(shape | {"rope_parameters": yarn | inside} | top))
    config = AutoConfig.from_pretrained(folder)
    loaded = config.rope_parameters["original_max_position_embeddings"]
    frequencies = LlamaRotaryEmbedding(config).inv_freq
    return loaded, frequencies, config.rope_parameters["original_max_position_embeddings"]

absent, null, no, yes = (read(i)[1] for i in ({}, {"truncate": None}, {"truncate": False}, {"truncate": True}))
as_false, as_absent = torch.equal(null, no), torch.equal(null, absent)
apart = ((null - absent) / absent).abs().max().item()
print(f"truncate null: as false {as_false}, as absent {as_absent} ({apart:.1%} apart); absent as true {torch.equal(absent, yes)}")
assert as_false and not as_absent and torch.equal(absent, yes)
fast = torch.equal(read({"beta_fast": None})[1], absent)
print(f"beta_fast null: as absent {fast}")
assert fast
both = read({"original_max_position_embeddings": 512}, original_max_position_embeddings=1024)
inside = read({"original_max_position_embeddings": 512})
of_top, of_inside = torch.equal(both[1], absent), torch.equal(both[1], inside[1])
print(f"512 inside, 1024 at the top: loaded as {both[0]}, {both[2]} with a model; frequencies of 1024 {of_top}, of 512 {of_inside}")
assert (both[0], both[2]) == (512, 1024) and of_top and not of_inside
PY
HF_HUB_OFFLINE=1 "$venv/bin/python" "$work/look.py" "$work"
