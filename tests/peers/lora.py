#!/usr/bin/env python3
"""LoRA adapters as PEFT merges them, in F32: lora.py OUT.

Makes tiny random bases with transformers (Llama untied with biases, Qwen3 tied, GPT-2, whose maps lie the other way round) and adapters of
many kinds; for each, every tensor of `merge_and_unload(safe_merge=True)` that is not the base's. `rolegraft conformance lora --traces OUT`
replays them. Needs peft 0.21.2, transformers 5.24, torch, safetensors.
"""
import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

BASES = {
    "llama": LlamaConfig(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                         vocab_size=100, attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
    "qwen3": Qwen3Config(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
                         vocab_size=90, tie_word_embeddings=True),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=80, n_positions=64),
}
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "llama": {
        "plain": dict(target_modules=ALL, lora_alpha=16),
        "half": dict(target_modules=ALL, r=3, dtype=torch.bfloat16),
        "rslora": dict(target_modules=ALL, use_rslora=True, r=9),
        "patterns": dict(target_modules=ALL, rank_pattern={r"layers\.0\..*": 2, "up_proj": 7}, alpha_pattern={"self_attn.(q|k)_proj": 3, "q_proj": 40}),
        "patterns-rslora": dict(target_modules=["q_proj", "down_proj"], use_rslora=True, rank_pattern={"down_proj": 6}, alpha_pattern={r"model.layers.1.mlp.down_proj": 5}),
        "regex": dict(target_modules=r".*layers\.[02]\..*(q|up)_proj"),
        "layers": dict(target_modules=["q_proj", "gate_proj"], layers_to_transform=[0, 2]),
        "dora": dict(target_modules=ALL, use_dora=True),
        "dora-rslora": dict(target_modules=["o_proj", "down_proj"], use_dora=True, use_rslora=True, r=5),
        "dora-embedding": dict(target_modules=["embed_tokens", "v_proj"], use_dora=True),
        "lora-bias": dict(target_modules=["q_proj", "down_proj"], lora_bias=True, use_rslora=True),
        "bias-all": dict(target_modules=["q_proj"], bias="all"),
        "bias-adapted": dict(target_modules=["q_proj", "up_proj"], bias="lora_only"),
        "embedding": dict(target_modules=["embed_tokens", "lm_head", "k_proj"]),
        "saved": dict(target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"]),
        "saved-norm": dict(target_modules=["q_proj"], modules_to_save=["input_layernorm", "norm"]),
        "tokens": dict(target_modules=["q_proj"], trainable_token_indices=[3, 17, 99]),
        "tokens-named": dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [1, 2], "lm_head": [5]}),
    },
    "qwen3": {
        "tied-head": dict(target_modules=["lm_head", "q_proj"]),
        "tied-embedding": dict(target_modules=["embed_tokens"]),
        "tied-both": dict(target_modules=["embed_tokens", "lm_head"]),
        "tied-both-kept": dict(target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True),
        "tied-saved-head": dict(target_modules=["q_proj"], modules_to_save=["lm_head"]),
        "tied-saved-embedding": dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
        "tied-saved-kept": dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True),
        "tied-tokens": dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [3, 5]}),
        "tied-dora": dict(target_modules=["embed_tokens", "o_proj"], use_dora=True),
        "tied-dora-head": dict(target_modules=["lm_head"], use_dora=True),
        "orthogonal": dict(target_modules=["q_proj"], init_lora_weights="orthogonal", r=4),
    },
    "gpt2": {
        "fan-in-fan-out": dict(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True),
        "fan-in-fan-out-dora": dict(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, use_dora=True),
    },
}


def main():
    out = Path(sys.argv[1])
    for kind, config in BASES.items():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
        model.bfloat16().save_pretrained(out / kind / "base")
        load = lambda: AutoModelForCausalLM.from_pretrained(out / kind / "base", dtype=torch.float32)
        before, manifest = load().state_dict(), []
        for name, rules in CASES[kind].items():
            rules = dict(rules)
            dtype = rules.pop("dtype", None)
            rules = {"r": 4, "lora_alpha": 8, "init_lora_weights": False} | rules
            adapted = get_peft_model(load(), LoraConfig(**rules))
            for key, parameter in adapted.named_parameters():
                if any(part in key for part in ("modules_to_save", "trainable_tokens", "magnitude")) or (key.endswith("bias") and rules.get("bias")):
                    parameter.data = parameter.data + 0.05 * torch.randn_like(parameter)
            if dtype:
                adapted.to(dtype)
            adapted.save_pretrained(out / kind / "adapters" / name)
            merged = PeftModel.from_pretrained(load(), out / kind / "adapters" / name).merge_and_unload(safe_merge=True).state_dict()
            changed = {key: value.contiguous().clone() for key, value in merged.items() if not torch.equal(value, before[key])}
            save_file(changed, out / kind / f"{name}.safetensors")
            row = {"name": f"{kind}/{name}", "adapter": f"adapters/{name}", "expected": f"{name}.safetensors", "changed": sorted(changed)}
            # Lengths of columns are sums of F32 there, and embeddings here are large.
            manifest.append(row | ({"tolerance": 5e-6} if name in ("dora-embedding", "tied-dora") else {}))
            print(kind, name, len(changed), flush=True)
        (out / kind / "manifest.json").write_text(json.dumps(manifest, indent=1))


main()
