#!/usr/bin/env bash
# `transformers serve` 5.24.0 takes a `seed` with each request and seeds the whole process with it when the request arrives: asked one
# after another, the same seed gives the same text; asked together, none of eight requests gets the text of its seed, since
# all are seeded before the first is sampled. A harness that plays episodes side by side cannot repeat a run by its seeds.
# Seen on 30 Nov 2026 with CPython 3.11, torch 2.13.0: `alone: 8 of 8 repeat, 8 texts; eight at once: 0 of 8 as alone`.
# VENV: a folder where it is installed already.
set -euo pipefail
work=$(mktemp -d); trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
server= venv=${VENV:-$work/venv}
if [ ! -x "$venv/bin/transformers" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q torch==2.13.0 'transformers[serving]==5.24.0'
fi
export HF_HUB_OFFLINE=1
"$venv/bin/python" - "$work/model" <<'PY'
import sys, torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({**{c: i for i, c in enumerate(alphabet)}, "<|endoftext|>": 256}, []))
tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
torch.manual_seed(0)
model = Qwen2ForCausalLM(Qwen2Config(vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                                     num_attention_heads=2, num_key_value_heads=2, bos_token_id=256, eos_token_id=256))
model.generation_config.do_sample = True
model.save_pretrained(sys.argv[1])
PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(sys.argv[1])
PY
"$venv/bin/transformers" serve "$work/model" --host 127.0.0.1 --port 18375 --device cpu > "$work/log" 2>&1 & server=$!
for _ in $(seq 120); do curl -sf http://127.0.0.1:18375/health > /dev/null && break; sleep 1; done
"$venv/bin/python" - "$work/model" <<'PY'
import json, sys, urllib.request
from concurrent.futures import ThreadPoolExecutor
def text(seed):
    asked = {"model": sys.argv[1], "prompt": "once", "max_tokens": 64, "temperature": 1.0, "seed": seed}
    request = urllib.request.Request("http://127.0.0.1:18375/v1/completions", json.dumps(asked).encode(), {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))["choices"][0]["text"]
seeds = range(8)
alone, again = [text(seed) for seed in seeds], [text(seed) for seed in seeds]
with ThreadPoolExecutor(8) as pool:
    together = list(pool.map(text, seeds))
same = lambda texts: sum(a == b for a, b in zip(alone, texts))
print(f"alone: {same(again)} of 8 repeat, {len(set(alone))} texts; eight at once: {same(together)} of 8 as alone")
assert (same(again), len(set(alone))) == (8, 8) and same(together) < 8
PY
