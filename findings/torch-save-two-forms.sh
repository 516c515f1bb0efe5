#!/usr/bin/env bash
# torch 2.13.0: one file of `torch.save` describes tensors in two forms. Most dtypes are `torch._utils._rebuild_tensor_v2` over a typed storage
# (`torch.FloatStorage`, …), whose size is counted in elements. 8-bit floats and uint16, uint32, uint64 are `_rebuild_tensor_v3` over
# `torch.storage.UntypedStorage`, whose size is counted in bytes, with the dtype as an argument; the offset is in elements in both. So a
# reader that knows the first form alone meets an unknown name in a file of plain tensors, and one that takes the count for elements
# reads beyond the storage of a uint16 tensor. A parameter is wrapped once more (`_rebuild_parameter`), a `torch.nn.Buffer` that is saved by itself
# goes through `torch._tensor._rebuild_from_type_v2`, though both are tensors to everybody else.
# Seen on 29 Nov 2026 with CPython 3.11: as the assertions below say.
# VENV: a folder where it is installed already.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
venv=${VENV:-$work/venv}
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q torch==2.13.0
fi
cat > "$work/look.py" <<'PY'
import pickletools, sys, zipfile, torch

def saved(tensor):
    """Names that the pickle calls for, and what it says of the storage's size."""
    torch.save({"w": tensor}, sys.argv[1])
    archive = zipfile.ZipFile(sys.argv[1])
    pickle = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
    names, size, before = [], None, None
    for opcode, argument, _ in pickletools.genops(archive.read(pickle)):
        if opcode.name == "GLOBAL":
            names.append(argument)
        if opcode.name == "TUPLE" and size is None:
            size = before
        if opcode.name.startswith("BININT"):
            before = argument
    return [n for n in names if n != "collections OrderedDict"], size

assert torch.__version__.split("+")[0] == "2.13.0", torch.__version__
assert saved(torch.zeros(6, dtype=torch.bfloat16)) == (["torch._utils _rebuild_tensor_v2", "torch BFloat16Storage"], 6)
assert saved(torch.zeros(6, dtype=torch.int16)) == (["torch._utils _rebuild_tensor_v2", "torch ShortStorage"], 6)
third = ["torch._utils _rebuild_tensor_v3", "torch.storage UntypedStorage"]
assert saved(torch.zeros(6, dtype=torch.uint16)) == (third + ["torch uint16"], 12)
assert saved(torch.zeros(6, dtype=torch.float8_e4m3fn)) == (third + ["torch float8_e4m3fn"], 6)
assert saved(torch.nn.Parameter(torch.zeros(6)))[0][0] == "torch._utils _rebuild_parameter"
assert saved(torch.nn.Buffer(torch.zeros(6)))[0][0] == "torch._tensor _rebuild_from_type_v2"
print("as described")
PY
"$venv/bin/python" "$work/look.py" "$work/file.bin"
