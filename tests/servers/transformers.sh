#!/usr/bin/env bash
# The nano pool through `transformers serve` 5.24.0, which is started anew for each checkpoint. It takes no token ids and gives
# none back, so text is asked for through /completions; its chat route takes tool calls out of every reply.
# VENV: a folder where it is installed already, or to be kept.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/play.sh"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
venv=${VENV:-$work/venv}
if [ ! -x "$venv/bin/transformers" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q torch 'transformers[serving]==5.24.0'
fi
play "$work" "[server]
kind = \"transformers\"
command = \"$venv/bin/transformers serve {dir} --host 127.0.0.1 --port {port} --device cpu --dtype float32\"
env = { HF_HUB_OFFLINE = \"1\", TOKENIZERS_PARALLELISM = \"false\" }
[endpoint]
concurrency = 4"
