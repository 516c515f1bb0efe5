"""Tracing beside PyTorch: tokens a second of `rolegraft trace` and of transformers with forward hooks, in one run.

trace.py BINARY [OLDER BINARY] [--layers 12 --hidden 1024 …]: makes a random Qwen3 of 200 million parameters and a calibration set
of 8 runs of 1,024 tokens in a temporary folder, installs torch and transformers there (or takes the Python of --python that has
them), and takes turns. Prints the best of --rounds for each, peak memory, the ratios, and how far saliencies are apart.
"""
import argparse, json, os, random, resource, subprocess, sys, tempfile, time
from pathlib import Path

TORCH, TRANSFORMERS = "torch==2.15.0", "transformers==5.24.0"

MAKE = """
import sys, json, torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from tokenizers import Tokenizer, models
out, shape = sys.argv[1], json.loads(sys.argv[2])
torch.manual_seed(0)
config = Qwen3Config(num_key_value_heads=shape["heads"] // 2, num_attention_heads=shape["heads"], head_dim=128, hidden_size=shape["hidden"],
    intermediate_size=3 * shape["hidden"], num_hidden_layers=shape["layers"], vocab_size=32000, tie_word_embeddings=True,
    max_position_embeddings=4096, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
model = Qwen3ForCausalLM(config).bfloat16()
print(sum(p.numel() for p in model.parameters()))
model.save_pretrained(out)
Tokenizer(models.WordLevel({f"t{i}": i for i in range(32000)}, unk_token="t0")).save(out + "/tokenizer.json")
json.dump({"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}", "eos_token": "t2"}, open(out + "/tokenizer_config.json", "w"))
"""

TRACE = """
import sys, json, time, torch
from transformers import AutoModel
from safetensors.torch import save_file
model, calibration, out, dtype = sys.argv[1:5]
runs = [json.loads(line) for line in open(calibration)][1:]
net = AutoModel.from_pretrained(model, dtype=getattr(torch, dtype))
sums = [torch.zeros(net.config.intermediate_size, dtype=torch.float64) for _ in net.layers]
role = None
def hook(at):
    def see(module, inputs):
        z = inputs[0][0, role].abs().double()
        sums[at] += z.mean(0)
    return see
for at, layer in enumerate(net.layers):
    layer.mlp.down_proj.register_forward_pre_hook(hook(at))
begun = time.perf_counter()
with torch.no_grad():
    for run in runs:
        role = torch.tensor(run["role"])
        net(torch.tensor([run["ids"]]), use_cache=False)
print(sum(len(run["ids"]) for run in runs) / (time.perf_counter() - begun))
save_file({"sums": torch.stack(sums)}, out)
"""

COMPARE = """
import sys, torch
from safetensors.torch import load_file
a, b = (load_file(path)["sums"] for path in sys.argv[1:3])
k = -(-a.shape[1] // 10)
tops = [set(zip(*[i.tolist() for i in torch.nonzero(torch.zeros_like(s).scatter(1, s.topk(k).indices, 1), as_tuple=True)])) for s in (a, b)]
print(((a - b).abs() / b).max().item(), len(tops[0] - tops[1]) / len(tops[0]))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", nargs="+")
    parser.add_argument("--python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=16)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        python = given.python
        if not python:
            subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
            python = str(work / "venv/bin/python")
            subprocess.run([python, "-m", "pip", "install", "-q", TORCH, TRANSFORMERS], check=True)
        run = lambda *args: subprocess.run([python, "-c", *map(str, args)], check=True, capture_output=True, text=True).stdout.split()
        shape = {"hidden": given.hidden, "layers": given.layers, "heads": given.heads}
        model, calibration = work / "model", work / "set.calibration.jsonl"
        print(f"{int(run(MAKE, model, json.dumps(shape))[-1]) / 1e6:.0f} M parameters, {given.runs} runs of {given.tokens} tokens")
        import hashlib
        digest = hashlib.sha256((model / "tokenizer.json").read_bytes()).hexdigest()
        draw = random.Random(0)
        with calibration.open("w") as out:
            head = {"tokenizer": digest, "rendering": "", "episodes": "", "benchmark": "bench"}
            print(json.dumps({"rolegraft": "calibration set", "format": 1, "content": head}), file=out)
            for at in range(given.runs):
                ids = [draw.randrange(3, 32000) for _ in range(given.tokens)]
                role = list(range(given.tokens // 2, given.tokens))
                print(json.dumps({"id": f"t{at}", "benchmark": "bench", "ids": ids, "role": role, "reply": role}), file=out)
        tokens, rates = given.runs * given.tokens, {}
        for _ in range(given.rounds):
            for binary in given.binaries:
                begun = time.perf_counter()
                command = [binary, "trace", "--model", model, "--calibration", calibration, "--out", work / f"{Path(binary).name}.safetensors"]
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                _, status, usage = os.wait4(process.pid, 0)
                assert status == 0, command
                rates.setdefault(binary, []).append((tokens / (time.perf_counter() - begun), usage.ru_maxrss / 1024))
            for dtype in ("float32", "bfloat16"):
                rate = float(run(TRACE, model, calibration, work / f"{dtype}.safetensors", dtype)[-1])
                rates.setdefault(f"PyTorch {dtype}", []).append((rate, 0))
        best = {name: max(rate for rate, _ in found) for name, found in rates.items()}
        for name, found in rates.items():
            memory = f", {max(m for _, m in found):.0f} MB at most" if found[0][1] else ""
            print(f"{name}: {best[name]:.0f} tokens/s{memory} ({' '.join(f'{rate:.0f}' for rate, _ in found)})")
        first = given.binaries[0]
        for name in best:
            if name != first:
                print(f"{Path(first).name} : {name} = {best[first] / best[name]:.2f}")
        apart, members = run(COMPARE, work / f"{Path(first).name}.safetensors", work / "float32.safetensors")
        print(f"against PyTorch float32: largest relative difference {float(apart):.1e}, {100 * float(members):.2f} % of set members differ")


main()
