#!/usr/bin/env bash
# Builds the wheel and tries it as a newcomer would: installed into an empty virtual environment and run from an empty folder,
# without the repository. Outside CI. MATURIN: a pip requirement. TRY: the commands after the wheel is installed (default: below).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/build"
"$work/build/bin/pip" install -q "${MATURIN:-maturin>=1.9,<2}"
"$work/build/bin/maturin" build --release --compatibility linux --out "$work/dist"
ls -l "$work"/dist/*.whl
python3 -m venv "$work/clean"
"$work/clean/bin/pip" install -q "$work"/dist/*.whl
mkdir "$work/empty"; cd "$work/empty"
export HOME="$work/home" XDG_CACHE_HOME="$work/home/cache"; mkdir -p "$HOME"
rolegraft="$work/clean/bin/rolegraft"
"$rolegraft" --version
"$rolegraft" calibrate --suite webshop -n 3 --out solved.jsonl
"$rolegraft" score solved.jsonl | tail -n 1
"$rolegraft" eval --model "$("$rolegraft" nano where)/nano-pool/tau" --suite tau-retail -n 3 --engine candle --log played.jsonl | tail -n 3
"$rolegraft" completions bash | bash -n
"$rolegraft" man --out man && test -s man/rolegraft-run.1
if [ -n "${WHOLE:-}" ]; then "$rolegraft" run nano; fi
echo "the wheel works"
