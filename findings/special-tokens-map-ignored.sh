#!/usr/bin/env bash
# transformers 5.24.0 does not look at special_tokens_map.json where tokenizer_config.json has an `added_tokens_decoder`:
# a `bos_token` that stands in the map alone is then unset, and chat templates render it as nothing. The same directory
# without `added_tokens_decoder` has the token. Whoever renders templates from both files as if the map were always read
# shows the model a text that transformers does not.
# Seen on 28 Nov 2026: bos_token None and '' with added_tokens_decoder, '<s>' and '<s>' without.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q transformers==5.24.0 tokenizers==0.23.3 jinja2==3.1.6
cat > "$work/look.py" <<'PY'
import json, pathlib, sys
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

def rendered(name, with_decoder):
    folder = pathlib.Path(sys.argv[1]) / name
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "chat_template": "{{ bos_token }}"}
    if with_decoder:
        config["added_tokens_decoder"] = {"1": {"content": "<s>", "special": True}, "2": {"content": "</s>", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    loaded = AutoTokenizer.from_pretrained(str(folder))
    return loaded.bos_token, loaded.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)

with_decoder, without = rendered("with", True), rendered("without", False)
print(with_decoder, without)
assert with_decoder == (None, ""), with_decoder
assert without == ("<s>", "<s>"), without
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/look.py" "$work"
