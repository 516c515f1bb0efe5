#!/usr/bin/env python3
"""Makes tiny random checkpoints of every architecture, rope scaling, window and bias, and records what PyTorch computes on them.

    python tests/peers/architectures.py OUT [--only NAME ...]
    rolegraft conformance engine --traces OUT
    rolegraft conformance saliency --traces OUT

Needs torch and transformers 5.24.0 (whose reading of the configurations is the truth here); a CPU does. OUT gets one folder per model,
`cases.json` (prompts, greedy ids, smallest gap of the two best logits, role positions), `saliency.safetensors` and `PROVENANCE.md`.
Some models have their `config.json` rewritten, into the form of transformers 4 or to a form that saving would tidy away: those are read
again by transformers, which must decode the same ids. At the end each model is also computed in wrong readings (its feature left out or
taken otherwise); a wrong reading that nobody would see is a FAIL, and the exit code is 1.
"""

import argparse
import json
import os
import sys
import zlib

import safetensors.torch
import tokenizers
import torch
import transformers

HIDDEN, LAYERS, HEADS, GROUPS, D_FF, VOCABULARY, POSITIONS, WINDOW = 48, 3, 4, 2, 96, 1024, 512, 16
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
EOS, LENGTHS, LONGEST = 2, (9, 60, 150), 24
# Prompts are drawn again, some times, until no two best logits come closer than this.
GAP, DRAWS = 3e-3, 40
# What a wrong reading must change: more than this, relatively, of some saliency.
VISIBLE = 1e-3
ARCHITECTURES = ("qwen3", "qwen2", "llama", "mistral")
FULL, SLIDING = "full_attention", "sliding_attention"
TEMPLATE = (
    "{%- for m in messages %}{%- if m.role == 'tool' %}"
    "{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


# The table.

CASES = []


def case(name, architecture, *, edit=None, wrong=None, note="", **config):
    """A model: its configuration, what `edit` does to the saved config.json, and readings of it that would be wrong: name to a function of
    configuration and tensors."""
    CASES.append((name, architecture, config, edit, wrong or {}, note))


def rope(kind, theta=10000.0, **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


def reading(**changes):
    """The configuration with fields changed; those that are None go."""
    return lambda config, tensors: ({k: v for k, v in {**config, **changes}.items() if v is not None}, tensors)


def rope_reading(**changes):
    """The rope parameters changed; those that are None go."""
    def read(config, tensors):
        parameters = {**config["rope_parameters"], **changes}
        return {**config, "rope_parameters": {k: v for k, v in parameters.items() if v is not None}}, tensors
    return read


def unscaled(config, tensors):
    return {**config, "rope_parameters": rope("default", config["rope_parameters"]["rope_theta"])}, tensors


def without(*names):
    """Biases of these linear maps set to zero."""
    def read(config, tensors):
        gone = lambda key: key.endswith(".bias") and key.split(".")[-2] in names
        return config, {key: torch.zeros_like(t) if gone(key) else t for key, t in tensors.items()}
    return read


def windows(*kinds, width=WINDOW):
    return reading(layer_types=list(kinds), use_sliding_window=True, sliding_window=width)


UNWINDOWED = reading(layer_types=[FULL] * LAYERS)
QKV, MLP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj")
NARROWER = {"window one narrower": reading(sliding_window=WINDOW - 1), "window one wider": reading(sliding_window=WINDOW + 1)}
ATTENTION = {"no q, k, v bias": without(*QKV), "no o bias": without("o_proj")} | {f"no {p} bias": without(p) for p in QKV}
FEED = {f"no {p} bias": without(p) for p in MLP}


def legacy(key="rope_type", **more):
    """The form of transformers 4."""
    def edit(config):
        parameters = config.pop("rope_parameters")
        config["rope_theta"] = parameters.pop("rope_theta")
        kind = parameters.pop("rope_type")
        config["rope_scaling"] = None if kind == "default" else {key: kind, **parameters}
        config["torch_dtype"] = config.pop("dtype")
        config.pop("layer_types", None)
        config["transformers_version"] = "4.51.0"
        config.update(more)
    return edit


def bare(*fields):
    """The form of transformers 4, with fields left out that have defaults."""
    def edit(config):
        legacy()(config)
        for field in ("rope_theta", "rope_scaling", "hidden_act", "rms_norm_eps", "tie_word_embeddings", "attention_dropout", *fields):
            config.pop(field, None)
    return edit


def keep_out(key):
    """Leaves a rope parameter out, which saving fills in."""
    return lambda config: config["rope_parameters"].pop(key)


def put(**more):
    return lambda config: config.update(more)


def outside(config):
    """The old length beside the scaling, not in it."""
    legacy()(config)
    config["original_max_position_embeddings"] = config["rope_scaling"].pop("original_max_position_embeddings")


def table():
    scaled = {"no scaling": unscaled}
    for a in ARCHITECTURES:
        factor = 4.0 if a in ("qwen3", "mistral") else 8.0
        case(f"{a}-default", a, rope_parameters=rope("default"), wrong={"theta 1000000": rope_reading(rope_theta=1e6)})
        case(f"{a}-linear", a, rope_parameters=rope("linear", factor=4.0), wrong=scaled)
        case(f"{a}-dynamic", a, rope_parameters=rope("dynamic", factor=4.0), note="within max_position_embeddings dynamic is default")
        case(f"{a}-llama3", a, wrong=scaled | {"not smoothed": rope_reading(low_freq_factor=3.999)}, rope_parameters=rope(
            "llama3", 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64))
        case(f"{a}-yarn", a, rope_parameters=rope("yarn", factor=factor, original_max_position_embeddings=64), wrong=scaled | {
            "length taken from max_position_embeddings": rope_reading(original_max_position_embeddings=POSITIONS),
            "no attention factor": rope_reading(attention_factor=1.0),
        })
    for a in ("qwen3", "llama"):
        def yarn(name, wrong, edit=None, **more):
            parameters = rope("yarn", **{"factor": 4.0, "original_max_position_embeddings": 64, **more})
            case(f"{a}-yarn-{name}", a, rope_parameters=parameters, wrong=scaled | {f"another {name}": rope_reading(**wrong)}, edit=edit)
        yarn("truncate-false", {"truncate": None}, truncate=False)
        yarn("attention-factor", {"attention_factor": None}, attention_factor=1.5)
        yarn("mscale", {"mscale": None, "mscale_all_dim": None}, mscale=0.7, mscale_all_dim=1.4)
        yarn("mscale-alone", {"mscale_all_dim": 1.4}, mscale=0.7)
        yarn("betas", {"beta_fast": None, "beta_slow": None}, beta_fast=2.0, beta_slow=0.25)
        original = "original_max_position_embeddings"
        yarn("no-original", {original: 64}, edit=keep_out(original), original_max_position_embeddings=POSITIONS)
        yarn("factor-null", {"factor": 4.0}, edit=lambda config: config["rope_parameters"].update(factor=None), factor=8.0)

    window = {"use_sliding_window": True, "sliding_window": WINDOW}
    all_wide = {"no window": UNWINDOWED} | NARROWER
    for a in ("qwen2", "qwen3"):
        case(f"{a}-window", a, **window, max_window_layers=1, wrong=all_wide | {"window in all layers": windows(*[SLIDING] * LAYERS)})
        case(f"{a}-window-off", a, max_window_layers=0, edit=put(sliding_window=WINDOW), wrong={"window": windows(*[SLIDING] * LAYERS)})
    case("qwen2-layer-types", "qwen2", **window, max_window_layers=1, layer_types=[SLIDING, FULL, SLIDING], wrong=all_wide | {
        "max_window_layers": windows(FULL, SLIDING, SLIDING), "window in all layers": windows(*[SLIDING] * LAYERS),
    })
    no_window = {"no window": lambda config, tensors: ({**config, "sliding_window": None}, tensors)}
    case("mistral-window", "mistral", sliding_window=WINDOW, wrong=no_window | NARROWER)

    case("llama-attention-bias", "llama", attention_bias=True, wrong=ATTENTION)
    case("llama-mlp-bias", "llama", mlp_bias=True, wrong=FEED)
    case("llama-both-biases", "llama", attention_bias=True, mlp_bias=True, wrong=ATTENTION | FEED)
    case("qwen3-attention-bias", "qwen3", attention_bias=True, wrong=ATTENTION)
    case("qwen2-biases", "qwen2", wrong={f"no {p} bias": without(p) for p in QKV})
    for a, dim in (("llama", 16), ("mistral", 16), ("qwen3", 32)):
        case(f"{a}-head-dim", a, head_dim=dim, wrong={"theta 1000000": rope_reading(rope_theta=1e6)})
    for a in ARCHITECTURES:
        case(f"{a}-tied", a, tie_word_embeddings=True)
        case(f"{a}-ungrouped", a, num_key_value_heads=HEADS)
        case(f"{a}-one-group", a, num_key_value_heads=1)

    # In the form of transformers 4.
    long = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    case("llama-4-theta", "llama", rope_parameters=rope("default", 500000.0), edit=legacy(), wrong={"theta 10000": rope_reading(rope_theta=1e4)})
    case("llama-4-llama3", "llama", rope_parameters=rope("llama3", 500000.0, **long), edit=legacy(), wrong=scaled)
    case("llama-4-linear", "llama", rope_parameters=rope("linear", factor=4.0), edit=legacy("type"), wrong=scaled)
    case("llama-4-biases", "llama", attention_bias=True, mlp_bias=True, edit=legacy(), wrong=ATTENTION | FEED)
    short = {"factor": 4.0, "original_max_position_embeddings": 64}
    case("qwen3-4-yarn", "qwen3", rope_parameters=rope("yarn", 1e6, **short), edit=legacy(), wrong=scaled)
    case("qwen2-4-yarn", "qwen2", rope_parameters=rope("yarn", 1e6, **short), edit=legacy("type"), wrong=scaled)
    case("qwen3-4-yarn-outside", "qwen3", rope_parameters=rope("yarn", **short), edit=outside, wrong=scaled | {
        "length taken from max_position_embeddings": rope_reading(original_max_position_embeddings=POSITIONS),
    })
    for a in ("qwen2", "qwen3"):
        case(f"{a}-4-window", a, **window, max_window_layers=1, edit=legacy(), wrong=all_wide | {
            "window in all layers": windows(*[SLIDING] * LAYERS),
        })
    case("qwen2-4-window-off", "qwen2", max_window_layers=1, edit=legacy(sliding_window=WINDOW), wrong={
        "window": windows(FULL, SLIDING, SLIDING),
    })
    case("mistral-4-window", "mistral", sliding_window=WINDOW, edit=legacy(), wrong=no_window | NARROWER)
    theta = {"theta 1000000": rope_reading(rope_theta=1e6)}
    case("llama-bare", "llama", num_key_value_heads=HEADS, edit=bare("num_key_value_heads", "head_dim", "attention_bias", "mlp_bias"), wrong=theta)
    case("mistral-bare", "mistral", sliding_window=4096, edit=bare("head_dim", "sliding_window"), wrong=theta)
    off = ("use_sliding_window", "sliding_window", "max_window_layers")
    case("qwen2-bare", "qwen2", num_key_value_heads=HEADS, edit=lambda c: (bare(*off)(c), c.update(num_key_value_heads=None)), wrong=theta)
    case("qwen3-bare", "qwen3", head_dim=128, edit=bare("head_dim", "attention_bias", *off), wrong=theta)


# Models.


def defaults(architecture):
    config = {
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": GROUPS,
        "intermediate_size": D_FF, "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "rms_norm_eps": 1e-6,
        "rope_parameters": rope("default"), "bos_token_id": None, "eos_token_id": EOS, "pad_token_id": 0,
    }
    if architecture == "qwen3":
        config["head_dim"] = 16
    if architecture == "mistral":
        config["sliding_window"] = None
    return config


def draw(model, seed):
    """Weights under which positions, windows and biases matter: queries and keys of order one, branches larger than what they are added to."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=generator)
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            noise = 1.4 + 0.3 * noise
        elif name.endswith("norm.weight"):
            noise = 1.0 + 0.2 * noise
        elif name.endswith(".bias"):
            noise = 0.3 * noise
        elif name.startswith(("model.embed_tokens", "lm_head")):
            noise = 0.4 * noise
        else:
            noise = 0.2 * noise
        weight.data.copy_(noise)


def write_tokenizer(folder):
    """Bytes, pairs of small letters, and small letters after a blank or a capital."""
    small, capital = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    tokens = SPECIAL + ADDED + sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [(a, b) for a in "\u0120" + small + capital for b in small][: VOCABULARY - len(tokens)]
    vocabulary = {token: at for at, token in enumerate(tokens + [a + b for a, b in merges])}
    assert len(vocabulary) == VOCABULARY
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Split(tokenizers.Regex(SPLIT), "isolated"),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    added = [(token, True) for token in SPECIAL] + [(token, False) for token in ADDED]
    for token, special in added:
        token = tokenizers.AddedToken(token, normalized=False, special=special)
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([token])
    tokenizer.save(f"{folder}/tokenizer.json")
    write(f"{folder}/chat_template.jinja", TEMPLATE)
    write_json(f"{folder}/tokenizer_config.json", {
        "add_prefix_space": False, "bos_token": None, "clean_up_tokenization_spaces": False, "eos_token": SPECIAL[EOS],
        "model_max_length": POSITIONS, "pad_token": SPECIAL[0], "tokenizer_class": "Qwen2Tokenizer", "unk_token": SPECIAL[0],
    })


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def write_json(path, value):
    write(path, json.dumps(value, indent=2) + "\n")


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def read_wrongly(model, wrong):
    """The same weights, in another reading of what the folder's configuration was taken for."""
    config, tensors = wrong(model.config.to_dict(), model.state_dict())
    config.pop("dtype", None)
    other = transformers.AutoModelForCausalLM.from_config(type(model.config)(**config), attn_implementation="eager")
    other.load_state_dict(tensors)
    return other.float().eval()


# What is recorded.


def decode(model, prompt):
    ids, gap = [], float("inf")
    while len(ids) < LONGEST and ids[-1:] != [EOS]:
        logits = model(torch.tensor([prompt + ids]), use_cache=False).logits[0, -1]
        best = logits.topk(2)
        gap = min(gap, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return ids, gap


def saliency(model, prompt, first, last):
    rows = []
    take = lambda module, inputs: rows.append(inputs[0][0, first : last + 1].abs().mean(dim=0))
    hooks = [layer.mlp.down_proj.register_forward_pre_hook(take) for layer in model.model.layers]
    model(torch.tensor([prompt]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack(rows).contiguous()


def record(model, name, length):
    """The prompt, drawn until its gaps are wide enough, or that of the widest gap."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name}.{length}".encode()))
    best = None
    for _ in range(DRAWS):
        prompt = torch.randint(len(SPECIAL + ADDED), VOCABULARY, (length,), generator=generator).tolist()
        ids, gap = decode(model, prompt)
        if best is None or gap > best[2]:
            best = prompt, ids, gap
        if gap > GAP:
            break
    prompt, ids, gap = best
    positions = [length // 2, length - 1]
    row = {"prompt_ids": prompt, "greedy_ids": ids, "smallest_gap": round(gap, 5), "role_positions": positions}
    return row, saliency(model, prompt, *positions)


def make(folder, name, architecture, config, edit):
    transformers.set_seed(0)
    kind = transformers.AutoConfig.for_model(architecture, **defaults(architecture) | config)
    model = transformers.AutoModelForCausalLM.from_config(kind)
    draw(model, zlib.crc32(name.encode()))
    model.bfloat16().save_pretrained(folder)
    write_tokenizer(folder)
    model = load(folder)
    recorded = [record(model, name, length) for length in LENGTHS]
    if edit:
        path = f"{folder}/config.json"
        saved = read_json(path)
        edit(saved)
        write_json(path, dict(sorted(saved.items())))
        again = load(folder)
        for row, expected in recorded:
            assert decode(again, row["prompt_ids"])[0] == row["greedy_ids"], f"{name}: transformers reads the rewritten config.json otherwise"
            assert torch.equal(saliency(again, row["prompt_ids"], *row["role_positions"]), expected), name
    return model, recorded


def seen(model, wrong, row, expected):
    """Whether a wrong reading decodes other ids, and by how much its saliencies differ at most."""
    other = read_wrongly(model, wrong)
    found = saliency(other, row["prompt_ids"], *row["role_positions"])
    difference = float(((found - expected).abs() / expected.abs().clamp_min(1e-6)).max())
    return decode(other, row["prompt_ids"])[0] != row["greedy_ids"], difference


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these models alone")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_grad_enabled(False)
    # Such small work is much slower shared, and one thread adds in one order.
    torch.set_num_threads(1)
    table()
    chosen = [c for c in CASES if not options.only or c[0] in options.only]
    rows, tensors, failed = [], {}, []
    print(f"{'model':26} {'ids':>3} {'gap':>8}  wrong readings: largest change of a saliency, and whether the ids of the longest prompt differ")
    for name, architecture, config, edit, wrong, note in chosen:
        folder = os.path.join(options.out, name)
        os.makedirs(folder, exist_ok=True)
        model, recorded = make(folder, name, architecture, config, edit)
        cases = [row for row, _ in recorded]
        rows.append({"model": name, "cases": cases})
        tensors |= {f"{name}.{length}": values for length, (_, values) in zip(LENGTHS, recorded)}
        shown = [note] if note else []
        for what, change in wrong.items():
            ids, difference = seen(model, change, *recorded[-1])
            fine = ids or difference > VISIBLE
            shown.append(f"{what} {difference:.2g}{' ids' if ids else ''}{'' if fine else ' FAIL'}")
            failed += [] if fine else [f"{name}: {what}"]
        distinct = len({i for row in cases for i in row["greedy_ids"]})
        print(f"{name:26} {distinct:3} {min(row['smallest_gap'] for row in cases):8.5f}  {'; '.join(shown)}", flush=True)
    write(os.path.join(options.out, "cases.json"), json.dumps(rows))
    safetensors.torch.save_file(tensors, os.path.join(options.out, "saliency.safetensors"))
    write(os.path.join(options.out, "PROVENANCE.md"), PROVENANCE.format(transformers=transformers.__version__, torch=torch.__version__))
    for line in failed:
        print(f"FAIL {line}")
    return 1 if failed else 0


PROVENANCE = """# Tiny models of every architecture, as transformers computes them
Random models saved by transformers {transformers} (bfloat16; PyTorch {torch}, CPU), one folder each, made by `tests/peers/architectures.py`.
`cases.json`: per model three prompts (9, 60, 150 token ids) with the ids decoded greedily in float32 (at most 24; 2 ends) and the smallest
gap between the two best logits on the way (below 1e-3 another engine may rightly differ). `saliency.safetensors`: `MODEL.LENGTH`
[layers, d_ff], the mean of |z| (input of down_proj) over the positions `role_positions` (first to last, inclusive) of the prompt, float32.
Models named `-4-` and `-bare` have a `config.json` in the form of transformers 4, `-bare` without the fields that have defaults;
`-no-original`, `-factor-null` and `-window-off` have one that saving would tidy. transformers {transformers} reads those alike.
"""

if __name__ == "__main__":
    sys.exit(main())
