//! Small checkpoints made for a test.

use rolegraft_checkpoint::{Dtype, Header};
use rolegraft_merge::{Execution, MergeError, Outcome, Plan, PlanOptions, Recipe};
use std::path::Path;

/// Numbers that look random, between −1 and 1.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }
}

/// Writes a checkpoint: config, and tensors of one dtype.
pub fn checkpoint(dir: &Path, dtype: Dtype, tensors: &[(&str, Vec<usize>, Vec<f32>)]) {
    std::fs::create_dir_all(dir).unwrap();
    let config = format!(
        r#"{{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_hidden_layers": 1, "tie_word_embeddings": true, "torch_dtype": "{}"}}"#,
        dtype.torch_name()
    );
    std::fs::write(dir.join("config.json"), config).unwrap();
    let layout: Vec<_> = tensors.iter().map(|(n, shape, _)| ((*n).to_owned(), dtype, shape.clone())).collect();
    let mut bytes = Header::encode(&layout);
    tensors.iter().for_each(|(_, _, values)| bytes.extend(dtype.from_f32(values).unwrap()));
    std::fs::write(dir.join("model.safetensors"), bytes).unwrap();
}

/// A base and three experts that differ from it here and there.
pub fn random(dir: &Path, dtype: Dtype) {
    let shapes = [
        ("model.embed_tokens.weight", vec![700, 96]),
        ("model.layers.0.input_layernorm.weight", vec![96]),
        ("model.layers.0.mlp.down_proj.weight", vec![96, 300]),
        ("model.layers.0.self_attn.q_proj.weight", vec![400, 250]),
    ];
    let mut noise = Noise(7);
    let base: Vec<_> = shapes
        .iter()
        .map(|(name, shape)| {
            let values = (0..shape.iter().product()).map(|_| 0.1 * noise.next()).collect::<Vec<f32>>();
            (*name, shape.clone(), values)
        })
        .collect();
    checkpoint(&dir.join("base"), dtype, &base);
    for expert in ["one", "two", "three"] {
        let mut changed = base.clone();
        for value in changed.iter_mut().flat_map(|(_, _, v)| v) {
            if noise.next() > 0.2 {
                *value += 0.01 * noise.next();
            }
        }
        checkpoint(&dir.join(expert), dtype, &changed);
    }
}

/// Merges by a recipe's text; models lie in `dir`.
pub fn merge(dir: &Path, recipe: &str, out: &Path, execution: &Execution<'_>) -> Result<Outcome, MergeError> {
    let recipe = Recipe::parse(recipe, Path::new("recipe.yaml")).map_err(MergeError::Recipe)?;
    Plan::new(recipe, &[dir], &PlanOptions::default())?.execute(out, execution)
}
