#!/usr/bin/env bash
# `transformers serve` 5.24.0 keeps no limit of context: a prompt that is longer than the model's `max_position_embeddings` is answered
# with 200 and text from positions that the model was never trained on, where vLLM, SGLang and llama.cpp refuse it. A client
# that waits for a refusal scores such text as the model's.
# Seen on 28 Nov 2026 with CPython 3.11, torch 2.13.0: `128 positions, 301 tokens of prompt: 200, 4 tokens written`.
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
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({**{c: i for i, c in enumerate(alphabet)}, "<|endoftext|>": 256}, []))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
torch.manual_seed(0)
config = Qwen2Config(vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                     num_key_value_heads=2, max_position_embeddings=128, bos_token_id=256, eos_token_id=256)
Qwen2ForCausalLM(config).save_pretrained(sys.argv[1])
PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(sys.argv[1])
PY
"$venv/bin/transformers" serve "$work/model" --host 127.0.0.1 --port 18372 --device cpu > "$work/log" 2>&1 & server=$!
for _ in $(seq 120); do curl -sf http://127.0.0.1:18372/health > /dev/null && break; sleep 1; done
"$venv/bin/python" - "$work/model" <<'PY'
import json, sys, urllib.request
asked = {"model": sys.argv[1], "prompt": "a" * 301, "max_tokens": 4, "temperature": 0}
request = urllib.request.Request("http://127.0.0.1:18372/v1/completions", json.dumps(asked).encode(), {"content-type": "application/json"})
answer = urllib.request.urlopen(request)
usage = json.load(answer)["usage"]
print(f"128 positions, {usage['prompt_tokens']} tokens of prompt: {answer.status}, {usage['completion_tokens']} tokens written")
assert answer.status == 200 and usage["prompt_tokens"] == 301
PY
