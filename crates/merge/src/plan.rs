//! From a recipe and its models to a list of output tensors, each with its inputs and parameters.

use crate::MergeError;
use crate::chat_template;
use crate::donor;
use crate::method::{Base, Fallback, Resolved, Scope};
use crate::model::{HEAD, Model, comes_first, is_vocabulary, layer_of, open_model};
use crate::recipe::{Aim, Recipe, Settings, Slice, resolve};
use crate::registry::Operator;
use crate::row_map::RowMap;
use crate::vocabulary::{self, Alignment};
use rolegraft_checkpoint::{Dtype, Tensors, set_dtype};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Options of a merge that are not the recipe's.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    /// Cut all embeddings to the lowest height instead of refusing different ones.
    pub truncate_embeddings: bool,
    /// Give a rebuilt embedding exactly the tokenizer's size, as mergekit does, instead of keeping the padded height.
    pub exact_vocab: bool,
}

/// Everything that is going to be done.
pub struct Plan {
    /// The recipe.
    pub recipe: Recipe,
    /// Its models, opened.
    pub models: Vec<Model>,
    /// Output tensors by name.
    pub outputs: Vec<Output>,
    /// `config.json` of the output.
    pub config: serde_json::Value,
    /// The model whose tokenizer and other files are copied.
    pub donor: usize,
    /// What a user should know.
    pub notes: Vec<String>,
    /// Statistics that the method needs, measured elsewhere: the recipe's file unless set.
    pub statistics: Option<Tensors>,
    /// Importances of the base's channels by module, for AIM: those of the recipe's file unless set.
    pub importance: Option<BTreeMap<String, Vec<f32>>>,
    /// Recorded masks in place of draws: `MODEL/TENSOR`, 1 = kept.
    pub masks: Option<Tensors>,
    /// The merge that a fit's maps are pulled to.
    pub anchor: Option<Box<Self>>,
    /// The chat template that the recipe asks for.
    pub chat_template: Option<String>,
    /// The model whose template that is, so that its turns end as the merge's do.
    pub(crate) turns: Option<usize>,
    /// Further words for the model card.
    pub card_note: Option<String>,
    /// Whether the base has one tensor for embedding and head.
    pub(crate) base_is_tied: bool,
    pub(crate) alignment: Option<Alignment>,
}

/// One tensor of the output.
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its dtype.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The models that contribute, in order: index and the tensor's name there.
    pub inputs: Vec<(usize, String)>,
    /// Which of the inputs is the base.
    pub base: Option<usize>,
    /// Its parameters.
    pub parameters: Resolved,
    pub(crate) rows: Vec<Option<RowMap>>,
}

impl Output {
    /// Elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The tensors `importance.MODULE` of a file.
///
/// # Errors
/// If one is not made of finite numbers.
pub fn read_importance(tensors: &Tensors) -> Result<BTreeMap<String, Vec<f32>>, MergeError> {
    let modules = tensors.tensors().filter_map(|(n, _)| Some((n, n.strip_prefix("importance.")?)));
    modules.map(|(name, module)| Ok((module.to_owned(), tensors.f32(name)?))).collect()
}

/// A tensor wanted of a slice.
struct Wanted<'r> {
    name: String,
    /// Name in every source.
    names: Vec<String>,
    slice: &'r Slice,
    /// Place along the slice, in [0, 1].
    t: f64,
}

impl Plan {
    /// Opens a recipe's models and works out every tensor. Models are directories relative to one of `folders`.
    ///
    /// # Errors
    /// If models are missing, do not fit together or the method, or a parameter is missing.
    pub fn new(recipe: Recipe, folders: &[&Path], options: &PlanOptions) -> Result<Self, MergeError> {
        let models = recipe.models.iter().map(|name| open_model(name, folders)).collect::<Result<Vec<_>, _>>()?;
        let find = |path: &Path| folders.iter().map(|f| f.join(path)).find(|p| p.exists());
        let open = |path: &PathBuf| Tensors::open(find(path).unwrap_or_else(|| path.clone()));
        let statistics = recipe.statistics.as_ref().map(open).transpose()?;
        let importance = match recipe.aim.as_ref() {
            Some(Aim { importance: Some(path), calibration, .. }) if calibration.is_none() || find(path).is_some() => {
                Some(read_importance(&open(path)?)?)
            }
            _ => None,
        };
        let anchor = match &recipe.fit {
            Some(fit) => Some(Box::new(Self::new((*fit.anchor).clone(), folders, options)?)),
            None => None,
        };
        Ok(Self { statistics, importance, anchor, ..Self::of_models(recipe, models, options)? })
    }

    /// As [`Self::new`], with the models at hand, in the recipe's order.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_models(recipe: Recipe, models: Vec<Model>, options: &PlanOptions) -> Result<Self, MergeError> {
        for (i, model) in models.iter().enumerate() {
            let place = |model: &Model| {
                let real = |dir: &PathBuf| std::fs::canonicalize(dir).ok();
                (real(&model.dir), model.adapter.as_ref().map(real))
            };
            let same = |other: &&Model| place(other) == place(model);
            if let Some(other) = models[..i].iter().find(same) {
                let (a, b) = (&other.name, &model.name);
                return Err(MergeError::Recipe(format!("`{a}` and `{b}` are the same directory; list a model once")));
            }
            let architecture = |m: &Model| m.config["architectures"].clone();
            if architecture(model) != architecture(&models[0]) {
                return Err(MergeError::Recipe(format!(
                    "`{}` is {} but `{}` is {}; models of different architectures cannot be merged",
                    model.name,
                    architecture(model),
                    models[0].name,
                    architecture(&models[0])
                )));
            }
        }
        let wanted = recipe.chat_template.as_deref();
        let chat_template = wanted.map(|wanted| chat_template::resolve(wanted, &models)).transpose()?.flatten();
        for slice in &recipe.slices {
            check_inputs(recipe.operator, slice)?;
        }
        let heights: Vec<usize> = models.iter().map(Model::vocabulary_height).collect();
        let alignment = match &recipe.tokenizer {
            Some(rule) => Some(Alignment::new(rule, &models, recipe.base, &heights, options.exact_vocab)?),
            None => None,
        };
        let mut tokenizer_notes = Vec::new();
        if recipe.tokenizer.is_none() {
            let donor = &models[recipe.base.unwrap_or(0)];
            let differing = models.iter().filter_map(|m| Some((m, vocabulary::difference(donor, m)?)));
            tokenizer_notes.extend(differing.map(|(model, why)| {
                let (a, b) = (&donor.name, &model.name);
                format!("tokenizers of `{a}` and `{b}` differ, but rows are merged by number ({why}); consider `tokenizer_source`")
            }));
        }
        // Whose turns the merge takes is whose template it takes.
        let turns = wanted.and_then(|wanted| models.iter().position(|model| model.name == wanted));
        let donor_of = turns.unwrap_or(recipe.base.unwrap_or(0));
        let others = models.iter().enumerate().filter(|(at, _)| *at != donor_of);
        tokenizer_notes.extend(others.filter_map(|(_, model)| donor::difference(&models[donor_of], model)));
        let mut planner =
            Planner { recipe: &recipe, models: &models, alignment: alignment.as_ref(), options, notes: Vec::new() };
        let outputs = planner.outputs()?;
        let mut notes = planner.notes;
        notes.extend(tokenizer_notes);
        notes.splice(0..0, recipe.warnings.iter().cloned());
        let like = recipe.base.unwrap_or(0);
        let donor = alignment.as_ref().map_or(like, |a| a.donor);
        let mut config = config(&recipe, &models, like, alignment.as_ref(), &outputs, &mut notes);
        if let Some(turns) = turns {
            config["eos_token_id"] = models[turns].config["eos_token_id"].clone();
        }
        let base_is_tied = models[like].config["tie_word_embeddings"].as_bool().unwrap_or(false);
        Ok(Self {
            recipe,
            models,
            outputs,
            config,
            donor,
            notes,
            statistics: None,
            importance: None,
            anchor: None,
            masks: None,
            chat_template,
            turns,
            card_note: None,
            base_is_tied,
            alignment,
        })
    }

    /// Bytes read (once) and written.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let size = |m: usize, n: &str| {
            self.models[m].tensors.tensor(n).map_or(0, |t| t.dtype.size() * t.shape.iter().product::<usize>())
        };
        let read: usize = self.outputs.iter().flat_map(|o| o.inputs.iter().map(|(m, n)| size(*m, n))).sum();
        let written: usize = self.outputs.iter().map(|o| o.len() * o.dtype.size()).sum();
        (read as u64, written as u64)
    }

    /// What one tensor is made of, for people.
    #[must_use]
    pub fn explain(&self, tensor: &str) -> Option<String> {
        let output = self.outputs.iter().find(|o| o.name == tensor)?;
        let value = |v: &crate::method::Value| match v {
            crate::method::Value::Number(n) => n.to_string(),
            crate::method::Value::Bool(b) => b.to_string(),
            crate::method::Value::Text(t) => t.clone(),
        };
        let list = |map: &BTreeMap<&'static str, crate::method::Value>| {
            map.iter().map(|(k, v)| format!("{k} = {}", value(v))).collect::<Vec<_>>().join(", ")
        };
        let mut text =
            format!("{tensor}: {} {:?}, by {}", output.dtype.as_str(), output.shape, self.recipe.operator.spec().name);
        let shared = list(&output.parameters.shared);
        if !shared.is_empty() {
            text.push_str(&format!(" ({shared})"));
        }
        let mut weights = 0.0;
        for (i, (model, name)) in output.inputs.iter().enumerate() {
            let role = if output.base == Some(i) { "base " } else { "" };
            let own = output.parameters.inputs.get(i).map(list).unwrap_or_default();
            weights += output.parameters.of(i, "weight").unwrap_or(0.0);
            text.push_str(&format!("\n  {role}{}: {name}", self.models[*model].name));
            if !own.is_empty() {
                text.push_str(&format!(" ({own})"));
            }
        }
        if let Some(fit) = self.recipe.fit.as_ref().filter(|_| layer_of(tensor).is_some() && output.shape.len() == 2) {
            text.push_str(&format!(
                "\n  if it is a linear map, in place of that: `{}`, by least squares on what {} do, ridge {}, pulled to {}",
                fit.method,
                fit.experts.iter().map(|e| format!("`{e}`")).collect::<Vec<_>>().join(", "),
                fit.ridge,
                fit.anchor.operator.spec().name
            ));
        }
        if output.parameters.flag("normalize") {
            text.push_str(&format!("\n  divided by the weights' sum, {weights}, or by those that agree"));
        }
        Some(text)
    }
}

fn check_inputs(operator: Operator, slice: &Slice) -> Result<(), MergeError> {
    let spec = operator.spec();
    let has_base = spec.base != Base::Ignored && slice.sources.iter().any(|s| Some(s.model) == slice.base);
    let experts = slice.sources.len() - usize::from(has_base);
    let (fewest, most) = spec.experts;
    let reason = if spec.base == Base::Required && !has_base {
        "needs a base model among its inputs; name it as `base_model` (and in each slice)".to_owned()
    } else if experts < fewest {
        format!("needs at least {fewest} models besides the base, not {experts}")
    } else if experts > most {
        format!("takes at most {most} models{}, not {experts}", if has_base { " besides the base" } else { "" })
    } else {
        return Ok(());
    };
    Err(MergeError::Inputs { method: spec.name, reason })
}

struct Planner<'r> {
    recipe: &'r Recipe,
    models: &'r [Model],
    alignment: Option<&'r Alignment>,
    options: &'r PlanOptions,
    notes: Vec<String>,
}

impl<'r> Planner<'r> {
    fn outputs(&mut self) -> Result<Vec<Output>, MergeError> {
        let mut wanted: Vec<Wanted<'r>> = Vec::new();
        let (Some(first), Some(last)) = (self.recipe.slices.first(), self.recipe.slices.last()) else {
            return Ok(Vec::new());
        };
        for (slice, before) in [(first, true), (last, false)] {
            let names: BTreeSet<&str> = slice
                .sources
                .iter()
                .flat_map(|s| self.models[s.model].tensors.tensors().map(|(n, _)| n))
                .filter(|n| layer_of(n).is_none() && comes_first(n) == before)
                .collect();
            wanted.extend(names.into_iter().map(|name| Wanted {
                name: name.to_owned(),
                names: vec![name.to_owned(); slice.sources.len()],
                slice,
                t: 0.0,
            }));
        }
        let mut layer = 0;
        for slice in &self.recipe.slices {
            let range = |s: &crate::recipe::SliceSource| s.layers.unwrap_or((0, self.models[s.model].layers()));
            for source in &slice.sources {
                let (model, (_, end)) = (&self.models[source.model], range(source));
                if end > model.layers() {
                    let reason =
                        format!("line {}: `{}` has {} layers, not {end}", source.line, model.name, model.layers());
                    return Err(MergeError::Recipe(reason));
                }
            }
            let lengths: Vec<usize> = slice.sources.iter().map(|s| range(s).1 - range(s).0).collect();
            let length = lengths.first().copied().unwrap_or(0);
            if let Some(i) = lengths.iter().position(|l| *l != length) {
                let (a, b) = (&self.models[slice.sources[0].model], &self.models[slice.sources[i].model]);
                let reason = format!("`{}` has {length} layers but `{}` has {}", a.name, b.name, lengths[i]);
                return Err(MergeError::Recipe(reason));
            }
            for offset in 0..length {
                // Templates: a tensor's name in the output, with its name in every source.
                let mut templates: BTreeSet<(&str, &str)> = BTreeSet::new();
                for source in &slice.sources {
                    let at = range(source).0 + offset;
                    let of_layer = self.models[source.model].tensors.tensors().filter_map(|(n, _)| layer_of(n));
                    templates.extend(of_layer.filter(|(_, l, _)| *l == at).map(|(a, _, b)| (a, b)));
                }
                for (before, after) in templates {
                    wanted.push(Wanted {
                        name: format!("{before}{layer}{after}"),
                        names: slice
                            .sources
                            .iter()
                            .map(|s| format!("{before}{}{after}", range(s).0 + offset))
                            .collect(),
                        slice,
                        t: if length > 1 { offset as f64 / (length - 1) as f64 } else { 1.0 },
                    });
                }
                layer += 1;
            }
        }
        // Buffers that older versions of transformers saved, and that every loader works out for itself.
        let before = wanted.len();
        wanted.retain(|wanted| !wanted.name.ends_with("rotary_emb.inv_freq"));
        if wanted.len() < before {
            self.notes.push(format!(
                "{} buffers `rotary_emb.inv_freq` are left out; they follow from the config",
                before - wanted.len()
            ));
        }
        let mut outputs = wanted.into_iter().map(|w| self.output(w)).collect::<Result<Vec<_>, _>>()?;
        outputs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(outputs)
    }

    fn output(&mut self, wanted: Wanted<'_>) -> Result<Output, MergeError> {
        let Wanted { name, names, slice, t } = wanted;
        let mut inputs: Vec<(usize, String)> = Vec::new();
        for (source, wanted) in slice.sources.iter().zip(&names) {
            let model = &self.models[source.model];
            let found = model.stand_in(wanted).ok_or_else(|| {
                MergeError::tensor(wanted, format!("`{}` does not have it, other models of the recipe do", model.name))
            })?;
            inputs.push((source.model, found));
        }
        let described: Vec<_> = inputs.iter().filter_map(|(m, n)| self.models[*m].tensors.tensor(n)).collect();
        let mut shape = described[0].shape.clone();
        let vocabulary = is_vocabulary(&name);
        let rest = |s: &[usize]| s.get(1..).map(<[usize]>::to_vec);
        if let Some(i) = described.iter().position(|d| d.shape != shape) {
            let may = vocabulary && rest(&described[i].shape) == rest(&shape);
            if !(may && (self.alignment.is_some() || self.options.truncate_embeddings)) {
                let mend = if may {
                    let why = vocabulary::difference(&self.models[inputs[0].0], &self.models[inputs[i].0]);
                    let why = why.map_or(String::new(), |why| format!(" ({why})"));
                    format!(
                        "{why}; set `tokenizer_source: union` or `base`, or cut them with --unsafe-truncate-embeddings"
                    )
                } else {
                    "; all models of a recipe must share one architecture".to_owned()
                };
                return Err(MergeError::tensor(
                    &name,
                    format!(
                        "its shape is {:?} in `{}` but {:?} in `{}`{mend}",
                        shape, self.models[inputs[0].0].name, described[i].shape, self.models[inputs[i].0].name
                    ),
                ));
            }
        }
        let width: usize = shape.get(1..).map_or(1, |s| s.iter().product());
        let mut rows: Vec<Option<RowMap>> = inputs.iter().map(|_| None).collect();
        if vocabulary {
            if let Some(alignment) = self.alignment {
                let holders: Vec<(usize, String, usize)> =
                    inputs.iter().zip(&described).map(|((m, n), d)| (*m, n.clone(), d.shape[0])).collect();
                for (row, (model, ..)) in rows.iter_mut().zip(&holders) {
                    *row = Some(alignment.rows(self.models, &holders, *model, self.recipe.base, width)?);
                }
                shape[0] = alignment.height;
            } else if self.options.truncate_embeddings {
                let lowest = described.iter().map(|d| d.shape[0]).min().unwrap_or(0);
                if described.iter().any(|d| d.shape[0] != lowest) {
                    self.notes.push(format!("`{name}` is cut to {lowest} rows; tokens beyond lose theirs"));
                    rows.iter_mut().for_each(|r| *r = Some(RowMap::first(lowest, width)));
                    shape[0] = lowest;
                }
            }
        }
        let base = slice.sources.iter().position(|s| Some(s.model) == slice.base);
        let like = base.unwrap_or(0);
        let (model, stored) = &inputs[like];
        let stored = self.models[*model].tensors.stored_dtype(stored).unwrap_or(described[like].dtype);
        let dtype = self.recipe.out_dtype.unwrap_or(stored);
        let packed = [".qweight", ".qzeros", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".absmax"];
        if packed.iter().any(|end| name.ends_with(end)) {
            let reason =
                "it is of quantised weights, which cannot be merged; take those that they were made from".to_owned();
            return Err(MergeError::tensor(&name, reason));
        }
        let is_float = described.iter().all(|d| d.dtype.is_float());
        let parameters = if is_float { self.parameters(&name, &inputs, slice, t)? } else { Resolved::default() };
        let dtype = if is_float { dtype } else { described[0].dtype };
        let ignored = self.recipe.operator.spec().base == Base::Ignored && self.recipe.aim.is_none();
        let base = base.filter(|_| !ignored);
        Ok(Output { name, dtype, shape, inputs, base, parameters, rows })
    }

    fn parameters(
        &self,
        name: &str,
        inputs: &[(usize, String)],
        slice: &Slice,
        t: f64,
    ) -> Result<Resolved, MergeError> {
        let operator = self.recipe.operator;
        let outer: [&Settings; 3] = [&slice.parameters, &self.recipe.module, &self.recipe.shared];
        let preset = |p: &str| self.recipe.preset.and_then(|preset| preset.default_of(operator, p));
        let mut resolved = Resolved { shared: BTreeMap::new(), inputs: vec![BTreeMap::new(); inputs.len()] };
        for parameter in operator.spec().parameters {
            if parameter.scope == Scope::Shared {
                let value = resolve(parameter, outer, name, t, preset(parameter.name)).map_err(MergeError::Recipe)?;
                match value {
                    Some(value) => drop(resolved.shared.insert(parameter.name, value)),
                    None if parameter.default == Fallback::Required => {
                        return Err(self.missing(parameter.name, None, name, 0));
                    }
                    None => {}
                }
                continue;
            }
            for (i, (source, (model, input))) in slice.sources.iter().zip(inputs).enumerate() {
                if parameter.scope == Scope::Expert && Some(*model) == slice.base {
                    continue;
                }
                let scopes = std::iter::once(&source.parameters).chain(outer);
                let value = resolve(parameter, scopes, input, t, preset(parameter.name)).map_err(MergeError::Recipe)?;
                match value {
                    Some(value) => drop(resolved.inputs[i].insert(parameter.name, value)),
                    None if parameter.default == Fallback::Required => {
                        return Err(self.missing(parameter.name, Some(*model), name, source.line));
                    }
                    None => {}
                }
            }
        }
        Ok(resolved)
    }

    fn missing(&self, parameter: &str, model: Option<usize>, tensor: &str, line: usize) -> MergeError {
        let method = self.recipe.operator.spec().name;
        let reason = match model {
            Some(m) if line == 0 => format!(
                "`{method}` needs `{parameter}` for `{}`, which is the base but not listed; drop `base_model`, or list the base with its {parameter}",
                self.models[m].name
            ),
            Some(m) => format!(
                "line {line}: `{method}` needs `{parameter}` for `{}` (tensor `{tensor}`); put `{parameter}` under that model's `parameters`",
                self.models[m].name
            ),
            None => format!(
                "`{method}` needs `{parameter}` (tensor `{tensor}`); put `{parameter}` under the recipe's `parameters`"
            ),
        };
        MergeError::Recipe(reason)
    }
}

/// The output's `config.json`: that of `like` with what the merge changes.
fn config(
    recipe: &Recipe,
    models: &[Model],
    like: usize,
    alignment: Option<&Alignment>,
    outputs: &[Output],
    notes: &mut Vec<String>,
) -> serde_json::Value {
    let mut config = models[like].config.clone();
    if let Some(first) = outputs.iter().find(|o| o.dtype.is_float()) {
        set_dtype(&mut config, first.dtype);
    }
    if let Some(alignment) = alignment {
        config["vocab_size"] = alignment.height.into();
    }
    if let Some(entries) = config.as_object_mut() {
        // Weights that were quantised have dtypes or tensors that are refused before.
        if entries.remove("quantization_config").is_some() {
            notes.push("`quantization_config` is left out of the config: what is written is not quantised".into());
        }
        if let Some(files) = entries.get("auto_map") {
            notes.push(format!(
                "the config names code (`auto_map`: {files}), which is not copied; loaders need it from where it came"
            ));
        }
    }
    let sliced = recipe.slices.iter().any(|s| s.sources.iter().any(|x| x.layers.is_some()));
    if sliced {
        let mut sources = Vec::new();
        for slice in &recipe.slices {
            let source = &slice.sources[0];
            let (from, to) = source.layers.unwrap_or((0, models[source.model].layers()));
            sources.extend((from..to).map(|layer| (source.model, layer)));
        }
        config["num_hidden_layers"] = sources.len().into();
        if config["layer_types"].is_array() {
            let of = |(m, l): &(usize, usize)| models[*m].config["layer_types"].get(*l).cloned();
            config["layer_types"] = sources.iter().filter_map(of).collect();
        }
    }
    let tied = config["tie_word_embeddings"].as_bool();
    let writes_head = outputs.iter().any(|o| o.name == HEAD);
    if writes_head && tied == Some(true) {
        config["tie_word_embeddings"] = false.into();
        notes.push("an untied head is written, so `tie_word_embeddings` becomes false".into());
    }
    config
}
