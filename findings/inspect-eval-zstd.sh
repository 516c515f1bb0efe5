#!/usr/bin/env bash
# inspect_ai 0.3.285 writes its `.eval` logs as ZIP archives whose members are compressed with Zstandard (ZIP method 93),
# not with Deflate: Python's own zipfile before 3.14 lists them and cannot read one, nor can other readers that know
# Deflate alone. inspect_ai reads them itself: importing it
# teaches zipfile the method.
# Seen on 28 Nov 2026 with CPython 3.11: methods [93]; `NotImplementedError: That compression method is not supported`.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q inspect_ai==0.3.285
cat > "$work/log.py" <<'PY'
import sys
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageAssistant
from inspect_ai.solver import solver

@solver
def said():
    async def solve(state, generate):
        state.messages.append(ChatMessageAssistant(content="Done."))
        return state
    return solve

log = eval(Task(dataset=[Sample(input="Do it.", target="Done")], solver=said()), model="none/none", log_dir=sys.argv[1], display="none")
assert log[0].status == "success", log[0].status
PY
"$work/venv/bin/python" "$work/log.py" "$work/logs"
# A process of its own: importing inspect_ai teaches zipfile the method.
cat > "$work/read.py" <<'PY'
import sys, glob, zipfile

archive = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.eval")[0])
methods = sorted({member.compress_type for member in archive.infolist()})
print("methods", methods)
assert methods == [93], methods
try:
    archive.read(archive.namelist()[0])
    read = True
except NotImplementedError as error:
    read = False
    print("zipfile:", error)
assert read == (sys.version_info >= (3, 14)), (read, sys.version)
PY
"$work/venv/bin/python" "$work/read.py" "$work/logs"
