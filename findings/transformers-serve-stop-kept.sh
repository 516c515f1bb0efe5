#!/usr/bin/env bash
# `transformers serve` 5.24.0 leaves the stop sequence at the end of the text, where the API that it follows says that the text does
# not hold it, as vLLM's and llama.cpp's does not. A harness that stops a ReAct turn at `Observation:` and puts its own
# observation behind it shows the model the word twice; a parser of the last line reads the stop sequence for an answer.
# Seen on 30 Nov 2026 with CPython 3.11, torch 2.13.0: `stop 'ab': finish_reason stop, text ends with it: True`.
# VENV: a folder where it is installed already.
set -euo pipefail
work=$(mktemp -d); trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
server= venv=${VENV:-$work/venv}
if [ ! -x "$venv/bin/transformers" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q torch==2.13.0 'transformers[serving]==5.24.0'
fi
export HF_HUB_OFFLINE=1
# A model that writes the next letter of `abab…`: the output layer is the embedding, moved by one.
"$venv/bin/python" - "$work/model" <<'PY'
import sys, torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({**{c: i for i, c in enumerate(alphabet)}, "<|endoftext|>": 256}, []))
tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
model = Qwen2ForCausalLM(Qwen2Config(vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                                     num_key_value_heads=2, bos_token_id=256, eos_token_id=256, tie_word_embeddings=False))
a, b = (tokenizer.encode(letter).ids[0] for letter in "ab")
with torch.no_grad():
    for parameter in model.model.layers.parameters():
        parameter.zero_()
    model.model.embed_tokens.weight.zero_()
    model.lm_head.weight.zero_()
    for at, (letter, following) in enumerate([(a, b), (b, a)]):
        model.model.embed_tokens.weight[letter, at] = model.lm_head.weight[following, at] = 1.0
model.save_pretrained(sys.argv[1])
PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(sys.argv[1])
PY
"$venv/bin/transformers" serve "$work/model" --host 127.0.0.1 --port 18374 --device cpu > "$work/log" 2>&1 & server=$!
for _ in $(seq 120); do curl -sf http://127.0.0.1:18374/health > /dev/null && break; sleep 1; done
"$venv/bin/python" - "$work/model" <<'PY'
import json, sys, urllib.request
asked = {"model": sys.argv[1], "prompt": "ab", "max_tokens": 20, "temperature": 0, "stop": ["ab"]}
request = urllib.request.Request("http://127.0.0.1:18374/v1/completions", json.dumps(asked).encode(), {"content-type": "application/json"})
choice = json.load(urllib.request.urlopen(request))["choices"][0]
print(f"stop 'ab': finish_reason {choice['finish_reason']}, text ends with it: {choice['text'].endswith('ab')}")
assert (choice["finish_reason"], choice["text"]) == ("stop", "ab"), choice
PY
