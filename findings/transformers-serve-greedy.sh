#!/usr/bin/env bash
# `transformers serve` 5.24.0 takes a request's `temperature` and `seed` and still decodes greedily, unless the checkpoint's
# `generation_config.json` says `do_sample: true`: only a temperature of 0 changes `do_sample`, to false. Trials of a benchmark at
# temperature 0.7 are then one trial counted often, with nothing said. A base model and a fresh merge have no such file.
# Seen on 30 Nov 2026 with CPython 3.11, torch 2.13.0: `seeds 1 to 4 at temperature 1.5: 1 text, with do_sample 4 texts`.
# VENV: a folder where it is installed already.
set -euo pipefail
work=$(mktemp -d); trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
server= venv=${VENV:-$work/venv}
if [ ! -x "$venv/bin/transformers" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q torch==2.13.0 'transformers[serving]==5.24.0'
fi
export HF_HUB_OFFLINE=1
"$venv/bin/python" - "$work" <<'PY'
import sys, torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({**{c: i for i, c in enumerate(alphabet)}, "<|endoftext|>": 256}, []))
tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
torch.manual_seed(0)
model = Qwen2ForCausalLM(Qwen2Config(vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                                     num_attention_heads=2, num_key_value_heads=2, bos_token_id=256, eos_token_id=256))
for name in ["plain", "sampled"]:
    model.generation_config = GenerationConfig(eos_token_id=256, **({"do_sample": True} if name == "sampled" else {}))
    model.save_pretrained(f"{sys.argv[1]}/{name}")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(f"{sys.argv[1]}/{name}")
PY
"$venv/bin/transformers" serve --host 127.0.0.1 --port 18373 --device cpu > "$work/log" 2>&1 & server=$!
for _ in $(seq 120); do curl -sf http://127.0.0.1:18373/health > /dev/null && break; sleep 1; done
"$venv/bin/python" - "$work" <<'PY'
import json, sys, urllib.request
def text(model, seed):
    asked = {"model": f"{sys.argv[1]}/{model}", "prompt": "once", "max_tokens": 48, "temperature": 1.5, "seed": seed}
    request = urllib.request.Request("http://127.0.0.1:18373/v1/completions", json.dumps(asked).encode(), {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))["choices"][0]["text"]
plain, sampled = (len({text(model, seed) for seed in range(1, 5)}) for model in ["plain", "sampled"])
print(f"seeds 1 to 4 at temperature 1.5: {plain} text, with do_sample {sampled} texts")
assert (plain, sampled) == (1, 4)
PY
