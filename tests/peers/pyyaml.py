#!/usr/bin/env python3
"""What PyYAML's safe loader makes of recipes and scalars: pyyaml.py > crates/merge/src/recipe/pyyaml.json. Needs PyYAML 6.0.

Left out are what rolegraft takes on purpose: exponents without a sign or a point (texts there), an anchor that is named twice and `<<` for a
value (errors there).
"""
import json
import math

import yaml

SCALARS = """yes Yes YES no No NO on On ON off Off OFF true True TRUE false False FALSE y n Y N yEs tRUE ~ null Null NULL nULL none
0 7 -7 +7 007 010 -010 08 0o10 0b101 0x1F 0xfg 1_000 1__0 _1 1:30 12:30:45 1:60 1:3 -1:30 190:20:30 0.5 .5 -.5 5. 1.0e+3 1.0E-3 .5e+2
1_000.5 1:30.5 .inf -.inf +.Inf .INF .nan .NaN inf nan +.5 1.2.3 1-2 a:b a#b model/name ./x @x v0.1 1,000 float16 -""".split()
SCALARS = [s for s in SCALARS if s != "-"]
DOCUMENTS = [
    "a: 1\na: 2\n", "a: &x [1, 2]\nb: *x\n", "a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\n", "a: &x {p: 1}\nb: &y {p: 2, r: 3}\nc: {<<: [*x, *y]}\n",
    "a: &x {p: 1}\nb:\n  q: 1\n  <<: *x\n", "a: &x {p: 1, <<: {z: 9}}\nb: {<<: *x}\n", "b: {<<: {p: 1}, <<: {p: 2, q: 3}}\n", "b: {<<: 3}\n", "b: {<<: [1]}\n",
    "b: {\"<<\": {p: 1}}\n", "b: *none\n", "a:\t1\n", "a: 1\t\n", "a: \"1\t2\"\n", "a: 1 # x\ty\n", "\ta: 1\n", "a: |\n  x\ty\n", "a: x\ty\n",
    "a: [1, 2\n", "a: 'it''s'\n", "a: \"\\u0041\\n\"\n", "a: >\n  x\n  y\n\n  z\n", "a: |-\n  x\n", "a: !!str 1\n", "a: !!int \"7\"\n", "a: !!float 3\n", "a: !foo 1\n", "? [1]\n: 2\n",
    "{a: 1, b: [x, {c: d}]}", "a: {b: 1, b: 2}\n", "- a\n- - b\n  - c\n", "a:\n- b\n- c\n", "on: 1\nyes: 2\n", "a: \n", "a: ''\n", "%YAML 1.1\n---\na: 1\n", "--- {a: 1}\n...\n",
    "a: 1\n--- \nb: 2\n", "a: b: c\n", "a: 'x\n  y'\n", "a: x\n  y\n", "a: {x: 1,}\n", "a: [1,,2]\n", "a: -1\n", "a: - 1\n", "a: \"x\" y\n", "a: @x\n", "a: `x`\n", "a: %x\n", "a: 1 #c\n", "a: 1#c\n",
]


def plain(value):
    """JSON with keys as texts; numbers as floats, which recipes have."""
    if isinstance(value, dict):
        return {("true" if k is True else "false" if k is False else "null" if k is None else str(k)): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    value = float(value)
    return {"special": str(value)} if math.isinf(value) or math.isnan(value) else value


def read(text):
    try:
        return {"yaml": text, "value": plain(yaml.safe_load(text))}
    except Exception as error:
        return {"yaml": text, "error": type(error).__name__}


print(json.dumps([read(f"a: {s}\n") for s in SCALARS] + [read(d) for d in DOCUMENTS], indent=0))
