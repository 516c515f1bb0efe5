//! LoRA adapters (directories of PEFT's), applied to the tensors of their base while these are read.
//!
//! What an adapted tensor is: `merge_and_unload` of huggingface/peft@0.21.2 (src/peft/tuners/lora/{layer,variants,dora}.py) of a base in F32.
//! With A (r, in), B (out, r) and s = α/r, or α/√r (rsLoRA), a linear map W (out, in) becomes W + s·BA; with `fan_in_fan_out` W (in, out)
//! becomes W + s·(BA)ᵀ, as an embedding (V, d) does with A (r, V) and B (d, r). DoRA scales each output of the sum to the length that
//! `lora_magnitude_vector` says. `lora_bias` adds s·b to the bias. `modules_to_save`, biases that were trained, and rows of trainable tokens
//! stand in place of the base's.

use crate::open_error::OpenError;
use crate::shards::Shards;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(crate) const CONFIG: &str = "adapter_config.json";
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];
pub(crate) const HEAD: &str = "lm_head.weight";
/// Elements that are looked at together where lengths are measured.
const BLOCK: usize = 1 << 16;

/// What an adapter makes of a base's tensors.
pub(crate) struct Adapter {
    tensors: Shards,
    edits: BTreeMap<String, Edit>,
}

/// What becomes of one tensor. All numbers are F32.
pub(crate) struct Edit {
    pub(crate) shape: Vec<usize>,
    /// What it starts from.
    from: From,
    /// Rows that are the adapter's, with its tensor of them.
    rows: Option<(Vec<usize>, String)>,
    products: Vec<Product>,
    added: Vec<f32>,
    magnitude: Option<Magnitude>,
}

enum From {
    /// A tensor of the base.
    Base(String),
    /// A tensor of the adapter.
    Adapter(String),
}

/// left·right·scale, (rows, rank) by (rank, columns).
struct Product {
    left: Vec<f32>,
    right: Vec<f32>,
    rank: usize,
    scale: f32,
}

/// DoRA's: lengths of the outputs.
struct Magnitude {
    lengths: Vec<f32>,
    /// Whether outputs are columns.
    columns: bool,
    /// What rows or columns are multiplied by.
    factors: OnceLock<Vec<f32>>,
}

/// What is read of `adapter_config.json`.
#[derive(Deserialize)]
pub(crate) struct Rules {
    peft_type: Option<String>,
    r: Option<usize>,
    lora_alpha: Option<f64>,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    lora_bias: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    rank_pattern: Option<Map<String, Value>>,
    #[serde(default)]
    alpha_pattern: Option<Map<String, Value>>,
    pub(crate) base_model_name_or_path: Option<String>,
    #[serde(default)]
    init_lora_weights: Value,
    #[serde(default)]
    trainable_token_indices: Value,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// Keys that ask for what is no sum with a fixed product, and what it is called.
const REFUSED: [(&str, &str); 9] = [
    ("alora_invocation_tokens", "activated LoRA (aLoRA), which is in force from some tokens on only"),
    ("arrow_config", "Arrow, which chooses among adapters for every token"),
    ("use_qalora", "QALoRA, whose base is quantised"),
    ("use_bdlora", "BD-LoRA"),
    ("kasa_config", "KaSA"),
    ("monteclora_config", "MonteCLoRA"),
    ("target_parameters", "adapters of parameters instead of modules (`target_parameters`)"),
    ("layer_replication", "replicated layers"),
    ("megatron_config", "Megatron's parallel layers"),
];

/// Ways to begin that change the base as well.
const CHANGE_THE_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

impl Rules {
    pub(crate) fn read(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(CONFIG);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(OpenError::Adapter {
                    path: dir.to_owned(),
                    reason: format!("holds no {CONFIG}; it is no adapter"),
                });
            }
            Err(source) => return Err(OpenError::Read { path, source }),
        };
        serde_json::from_slice(&bytes)
            .map_err(|e| OpenError::Adapter { path, reason: format!("is not an adapter's config: {e}") })
    }

    /// Why it cannot be merged.
    fn refusal(&self) -> Option<String> {
        let asked = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        if self.peft_type.as_deref().is_some_and(|kind| kind != "LORA") {
            let kind = self.peft_type.as_deref().unwrap_or_default();
            return Some(format!("`peft_type` is {kind}; of PEFT's adapters LORA can be merged here"));
        }
        if let Some((key, what)) = REFUSED.iter().find(|(key, _)| self.rest.get(*key).is_some_and(asked)) {
            return Some(format!("`{key}` is set: {what} cannot be merged into weights here"));
        }
        if let Some(init) = self.init_lora_weights.as_str()
            && CHANGE_THE_BASE.iter().any(|other| init.to_lowercase().starts_with(other))
        {
            return Some(format!(
                "`init_lora_weights` is {init}, which changes the base as well; save it with `path_initial_model_for_weight_conversion`, \
                 or merge it with PEFT"
            ));
        }
        match self.r {
            None => Some("has no rank: `r` is missing".into()),
            Some(0) => Some("`r` is 0".into()),
            Some(_) if self.lora_alpha.is_none() => Some("`lora_alpha` is missing".into()),
            Some(_) => None,
        }
    }
}

/// What a pattern's number is for a module: that of the first pattern, as the file has them, that its end matches.
struct Patterns(Vec<(Regex, f64)>);

impl Patterns {
    fn new(patterns: Option<&Map<String, Value>>) -> Result<Self, String> {
        let compiled = patterns.into_iter().flatten().map(|(key, value)| {
            let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{key})$"));
            let regex = regex.map_err(|e| format!("the pattern `{key}` cannot be read: {e}"))?;
            let number = value.as_f64().ok_or_else(|| format!("the pattern `{key}` has no number, but {value}"))?;
            Ok((regex, number))
        });
        Ok(Self(compiled.collect::<Result<_, String>>()?))
    }

    fn of(&self, module: &str) -> Option<f64> {
        self.0.iter().find(|(regex, _)| regex.is_match(module)).map(|(_, value)| *value)
    }
}

/// What a file holds of a module.
#[derive(Default)]
struct Parts {
    a: Option<String>,
    b: Option<String>,
    bias: Option<String>,
    magnitude: Option<String>,
    embeds: bool,
    weight: Option<String>,
    own_bias: Option<String>,
    tokens: Option<String>,
}

impl Adapter {
    /// Reads an adapter and holds it against its base.
    pub(crate) fn open(dir: &Path, base: &Shards) -> Result<Self, OpenError> {
        let path = dir.join(CONFIG);
        let wrong = |reason: String| OpenError::Adapter { path: path.clone(), reason };
        let rules = Rules::read(dir)?;
        if let Some(reason) = rules.refusal() {
            return Err(wrong(reason));
        }
        let weights = WEIGHTS.iter().map(|name| dir.join(name)).find(|path| path.exists());
        let none = || OpenError::Adapter { path: dir.to_owned(), reason: format!("holds no {}", WEIGHTS[0]) };
        let weights = weights.ok_or_else(none)?;
        let tensors = Shards::open(&weights)?;
        let mut modules: BTreeMap<String, Parts> = BTreeMap::new();
        for (name, _) in tensors.tensors() {
            let (module, kind) = split(name);
            let parts = modules.entry(module.to_owned()).or_default();
            let place = match kind {
                "lora_A.weight" => &mut parts.a,
                "lora_B.weight" => &mut parts.b,
                "lora_B.bias" => &mut parts.bias,
                "lora_magnitude_vector" | "lora_magnitude_vector.weight" => &mut parts.magnitude,
                "lora_embedding_A" | "lora_embedding_B" => {
                    parts.embeds = true;
                    if kind.ends_with('A') { &mut parts.a } else { &mut parts.b }
                }
                "token_adapter.trainable_tokens_delta" => &mut parts.tokens,
                "base_layer.bias" | "bias" => &mut parts.own_bias,
                "base_layer.weight" | "weight" => &mut parts.weight,
                _ => {
                    return Err(OpenError::Adapter {
                        path: weights.clone(),
                        reason: format!("holds `{name}`, which is nothing of LoRA's that can be merged"),
                    });
                }
            };
            *place = Some(name.to_owned());
        }
        let ranks = Patterns::new(rules.rank_pattern.as_ref()).map_err(&wrong)?;
        let alphas = Patterns::new(rules.alpha_pattern.as_ref()).map_err(wrong)?;
        let mut builder = Builder { base, tensors: &tensors, path: weights, edits: BTreeMap::new() };
        // What stands in place of the base's comes before what is added to it.
        for (module, parts) in &modules {
            builder.replace(module, parts)?;
        }
        builder.keep_a_tied_head()?;
        for (module, parts) in &modules {
            let rank = ranks.of(module).map_or(rules.r.unwrap_or_default(), |rank| rank as usize);
            let alpha = alphas.of(module).or(rules.lora_alpha).unwrap_or_default();
            let scale = if rules.use_rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 };
            builder.add(module, parts, rank, scale as f32, &rules)?;
        }
        let edits = builder.edits;
        Ok(Self { tensors, edits })
    }

    pub(crate) fn edit(&self, name: &str) -> Option<&Edit> {
        self.edits.get(name)
    }
    pub(crate) fn edits(&self) -> impl Iterator<Item = (&str, &Edit)> {
        self.edits.iter().map(|(name, edit)| (name.as_str(), edit))
    }
    /// The file of its weights.
    pub(crate) fn file(&self) -> &Path {
        self.tensors.path()
    }

    /// Elements of an adapted tensor from the `start`th on.
    pub(crate) fn read(&self, base: &Shards, edit: &Edit, start: usize, out: &mut [f32]) -> Result<(), OpenError> {
        self.sum(base, edit, start, out)?;
        let Some(magnitude) = &edit.magnitude else { return Ok(()) };
        let factors = match magnitude.factors.get() {
            Some(factors) => factors,
            None => {
                let factors = self.factors(base, edit, magnitude)?;
                magnitude.factors.get_or_init(|| factors)
            }
        };
        let width = edit.width();
        for (at, value) in (start..).zip(out.iter_mut()) {
            *value *= factors[if magnitude.columns { at % width } else { at / width }];
        }
        Ok(())
    }

    /// All but DoRA's lengths.
    fn sum(&self, base: &Shards, edit: &Edit, start: usize, out: &mut [f32]) -> Result<(), OpenError> {
        match &edit.from {
            From::Base(name) => base.elements(name, start, out)?,
            From::Adapter(name) => self.tensors.elements(name, start, out)?,
        }
        let (width, end) = (edit.width(), start + out.len());
        if let Some((rows, tensor)) = &edit.rows {
            for (at, row) in rows.iter().enumerate() {
                let (from, to) = ((row * width).max(start), ((row + 1) * width).min(end));
                if from < to {
                    self.tensors.elements(
                        tensor,
                        at * width + from - row * width,
                        &mut out[from - start..to - start],
                    )?;
                }
            }
        }
        let mut sums = vec![0.0_f32; width.min(out.len())];
        for Product { left, right, rank, scale } in &edit.products {
            let mut from = start;
            while from < end {
                let (row, column) = (from / width, from % width);
                let to = ((row + 1) * width).min(end);
                let sums = &mut sums[..to - from];
                sums.fill(0.0);
                for at in 0..*rank {
                    let factor = left[row * rank + at];
                    let right = &right[at * width + column..][..to - from];
                    // One rounding a step, as fused multiply-adds have.
                    let step = |sum: f32, value: f32| (f64::from(sum) + f64::from(factor) * f64::from(value)) as f32;
                    sums.iter_mut().zip(right).for_each(|(sum, value)| *sum = step(*sum, *value));
                }
                let out = &mut out[from - start..to - start];
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out += *sum * scale);
                from = to;
            }
        }
        out.iter_mut().zip(edit.added.get(start..).unwrap_or_default()).for_each(|(out, added)| *out += added);
        Ok(())
    }

    /// What brings each output to its length.
    fn factors(&self, base: &Shards, edit: &Edit, magnitude: &Magnitude) -> Result<Vec<f32>, OpenError> {
        let (width, len) = (edit.width(), edit.shape.iter().product::<usize>());
        let mut squares = vec![0.0_f64; magnitude.lengths.len()];
        let mut values = vec![0.0; BLOCK.min(len)];
        for start in (0..len).step_by(BLOCK) {
            let values = &mut values[..BLOCK.min(len - start)];
            self.sum(base, edit, start, values)?;
            for (at, value) in (start..).zip(values.iter()) {
                squares[if magnitude.columns { at % width } else { at / width }] += f64::from(*value).powi(2);
            }
        }
        let factor = |(length, square): (&f32, f64)| length / square.sqrt() as f32;
        Ok(magnitude.lengths.iter().zip(squares).map(factor).collect())
    }
}

impl Edit {
    fn new(from: From, shape: Vec<usize>) -> Self {
        Self { shape, from, rows: None, products: Vec::new(), added: Vec::new(), magnitude: None }
    }

    /// The tensor of the base that it starts from.
    pub(crate) fn base(&self) -> Option<&str> {
        match &self.from {
            From::Base(name) => Some(name),
            From::Adapter(_) => None,
        }
    }

    fn width(&self) -> usize {
        if self.shape.len() > 1 { self.shape[1..].iter().product() } else { self.shape.first().copied().unwrap_or(1) }
            .max(1)
    }
}

/// A tensor's module, without what PEFT puts around it, and what it is of it.
fn split(name: &str) -> (&str, &str) {
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    for kind in [
        ".lora_A.weight",
        ".lora_B.weight",
        ".lora_B.bias",
        ".lora_magnitude_vector",
        ".lora_magnitude_vector.weight",
        ".lora_embedding_A",
        ".lora_embedding_B",
        ".token_adapter.trainable_tokens_delta",
        ".base_layer.weight",
        ".base_layer.bias",
        ".weight",
        ".bias",
    ] {
        if let Some(module) = name.strip_suffix(kind) {
            // Older versions kept the wrapper's name.
            let plain =
                [".modules_to_save", ".modules_to_save.default"].iter().find_map(|end| module.strip_suffix(end));
            return (plain.unwrap_or(module), &kind[1..]);
        }
    }
    (name, "")
}

struct Builder<'b> {
    base: &'b Shards,
    tensors: &'b Shards,
    path: PathBuf,
    edits: BTreeMap<String, Edit>,
}

impl Builder<'_> {
    fn wrong(&self, reason: String) -> OpenError {
        OpenError::Adapter { path: self.path.clone(), reason }
    }

    fn shape(&self, tensor: &str) -> Vec<usize> {
        self.tensors.tensor(tensor).map(|t| t.shape).unwrap_or_default()
    }

    fn values(&self, tensor: &str) -> Result<Vec<f32>, OpenError> {
        self.tensors.f32(tensor)
    }

    /// The tensor of the base that stands for a module's: a tied head's is the embedding.
    fn of_base(&self, tensor: &str) -> Option<String> {
        if self.base.tensor(tensor).is_some() {
            return Some(tensor.to_owned());
        }
        let embedding = || self.base.tensors().map(|(name, _)| name).find(|name| name.ends_with("embed_tokens.weight"));
        if tensor == HEAD { embedding().map(str::to_owned) } else { None }
    }

    /// What becomes of a tensor so far; untouched, what it was.
    fn edit(&mut self, tensor: &str, because: &str) -> Result<&mut Edit, OpenError> {
        if !self.edits.contains_key(tensor) {
            let shape = self.base.tensor(tensor).map(|t| t.shape).ok_or_else(|| {
                let base = self.base.path().display();
                self.wrong(format!("holds `{because}`, but the base `{base}` has no tensor `{tensor}`; it is an adapter for another base"))
            })?;
            self.edits.insert(tensor.to_owned(), Edit::new(From::Base(tensor.to_owned()), shape));
        }
        self.edits
            .get_mut(tensor)
            .ok_or_else(|| OpenError::NoTensor { dir: self.base.path().to_owned(), tensor: tensor.to_owned() })
    }

    fn replace(&mut self, module: &str, parts: &Parts) -> Result<(), OpenError> {
        let adapts = parts.a.is_some() || parts.b.is_some();
        for (part, kind) in [(&parts.weight, "weight"), (&parts.own_bias, "bias")] {
            let Some(part) = part else { continue };
            let tensor = format!("{module}.{kind}");
            // What is adapted shares its tensor with a tied embedding; what is saved instead does not.
            let tensor = if adapts { self.of_base(&tensor).unwrap_or(tensor) } else { tensor };
            let (found, like) = (self.shape(part), self.of_base(&tensor).and_then(|name| self.base.tensor(&name)));
            let Some(like) = like else {
                let base = self.base.path().display();
                return Err(self.wrong(format!(
                    "holds `{part}`, but the base `{base}` has no tensor `{tensor}`; it is an adapter for another base"
                )));
            };
            let resized = found.len() == like.shape.len() && found.len() == 2 && found[1..] == like.shape[1..];
            if found != like.shape {
                let why = if resized {
                    "the vocabulary was resized, which cannot be merged here"
                } else {
                    "it is an adapter for another base"
                };
                return Err(self.wrong(format!(
                    "`{part}` has the shape {found:?}, but `{tensor}` of the base {:?}; {why}",
                    like.shape
                )));
            }
            self.edits.insert(tensor, Edit::new(From::Adapter(part.clone()), found));
        }
        Ok(())
    }

    /// An embedding that was saved for itself leaves the head that was tied to it as it was.
    fn keep_a_tied_head(&mut self) -> Result<(), OpenError> {
        let Some(embedding) = self.of_base(HEAD).filter(|name| name != HEAD) else { return Ok(()) };
        let saved = |edit: &Edit| matches!(&edit.from, From::Adapter(part) if !part.contains("base_layer"));
        if self.edits.get(&embedding).is_some_and(saved) && !self.edits.contains_key(HEAD) {
            let shape = self.base.tensor(&embedding).map(|t| t.shape).unwrap_or_default();
            self.edits.insert(HEAD.to_owned(), Edit::new(From::Base(embedding), shape));
        }
        Ok(())
    }

    fn add(&mut self, module: &str, parts: &Parts, rank: usize, scale: f32, rules: &Rules) -> Result<(), OpenError> {
        if let Some(part) = &parts.tokens {
            self.tokens(module, part, &rules.trainable_token_indices)?;
        }
        let (a, b) = match (&parts.a, &parts.b) {
            (Some(a), Some(b)) => (a, b),
            (None, None) => return Ok(()),
            (a, b) => {
                let (there, missing) = (a.as_ref().or(b.as_ref()), if a.is_some() { "lora_B" } else { "lora_A" });
                return Err(self.wrong(format!("holds `{}` without its `{missing}`", there.map_or("", String::as_str))));
            }
        };
        let named = format!("{module}.weight");
        let tensor = self.of_base(&named).unwrap_or(named);
        let (shape_a, shape_b) = (self.shape(a), self.shape(b));
        let ([rank_a, inputs], [outputs, rank_b]) = (&shape_a[..], &shape_b[..]) else {
            return Err(self.wrong(format!(
                "`{a}` has the shape {shape_a:?} and `{b}` {shape_b:?}; adapters of matrices can be merged"
            )));
        };
        if *rank_a != rank || *rank_b != rank {
            return Err(self.wrong(format!("`{a}` has the rank {rank_a} and `{b}` {rank_b}, but {CONFIG} says {rank}")));
        }
        let transposed = parts.embeds || rules.fan_in_fan_out;
        let expected = if transposed { vec![*inputs, *outputs] } else { vec![*outputs, *inputs] };
        let (values_a, values_b) = (self.values(a)?, self.values(b)?);
        let turn = |values: &[f32], rows: usize, columns: usize| -> Vec<f32> {
            (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
        };
        let (left, right) = match transposed {
            false => (values_b, values_a),
            true => (turn(&values_a, rank, *inputs), turn(&values_b, *outputs, rank)),
        };
        let lengths = match &parts.magnitude {
            None if rules.use_dora => {
                return Err(self.wrong(format!("`use_dora` is set, but `{module}` has no lora_magnitude_vector")));
            }
            None => None,
            Some(part) => Some((part.clone(), self.values(part)?)),
        };
        let found = self.edit(&tensor, a)?.shape.clone();
        if found != expected {
            let base = self.base.path().display();
            return Err(self.wrong(format!(
                "`{a}` and `{b}` adapt a matrix of the shape {expected:?}, but `{tensor}` of the base `{base}` has {found:?}; it is an adapter for another base"
            )));
        }
        let shared = !self.edit(&tensor, a)?.products.is_empty();
        if let Some((part, lengths)) = &lengths {
            let outputs = expected[usize::from(transposed)];
            if lengths.len() != outputs {
                return Err(self.wrong(format!("`{part}` has {} lengths, not {outputs}", lengths.len())));
            }
        }
        if shared && (lengths.is_some() || self.edit(&tensor, a)?.magnitude.is_some()) {
            return Err(self.wrong(format!("DoRA of both a tied embedding and its head (`{tensor}`) depends on their order; it cannot be merged here")));
        }
        let edit = self.edit(&tensor, a)?;
        edit.products.push(Product { left, right, rank, scale });
        edit.magnitude =
            lengths.map(|(_, lengths)| Magnitude { lengths, columns: transposed, factors: OnceLock::new() });
        if let Some(part) = &parts.bias {
            let (values, bias) = (self.values(part)?, format!("{module}.bias"));
            if self.base.tensor(&bias).is_none() {
                return Err(
                    self.wrong(format!("`{part}` is a bias, but the base has no `{bias}` that it could be added to"))
                );
            }
            let edit = self.edit(&bias, part)?;
            if edit.shape != [values.len()] {
                let reason = format!("`{part}` has {} values, but `{bias}` of the base {:?}", values.len(), edit.shape);
                return Err(self.wrong(reason));
            }
            edit.added = values.into_iter().map(|value| value * scale).collect();
        } else if rules.lora_bias {
            return Err(self.wrong(format!("`lora_bias` is set, but `{module}` has none")));
        }
        Ok(())
    }

    /// Rows of tokens that were trained.
    fn tokens(&mut self, module: &str, part: &str, indices: &Value) -> Result<(), OpenError> {
        let of_module = match indices {
            Value::Object(table) => table
                .iter()
                .find(|(key, _)| module == key.as_str() || module.ends_with(&format!(".{key}")))
                .map(|(_, v)| v),
            list => Some(list),
        };
        let rows = of_module
            .and_then(Value::as_array)
            .map(|rows| rows.iter().filter_map(|row| Some(row.as_u64()? as usize)).collect());
        let rows: Vec<usize> = rows.unwrap_or_default();
        let named = format!("{module}.weight");
        let tensor = self.of_base(&named).unwrap_or(named);
        let shape = self.shape(part);
        let edit = self.edit(&tensor, part)?;
        let whole = edit.shape.clone();
        if shape != [rows.len(), edit.width()] || rows.iter().any(|row| *row >= whole[0]) {
            return Err(self.wrong(format!(
                "`{part}` has the shape {shape:?}, but `trainable_token_indices` names {} rows of `{tensor}` {whole:?}",
                rows.len()
            )));
        }
        edit.rows = Some((rows, part.to_owned()));
        Ok(())
    }
}
