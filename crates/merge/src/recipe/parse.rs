//! From a recipe's text to a [`Recipe`]: keys, slices, scopes, and what is wrong with them.

use super::fit::FITS;
use super::node::{Kind, Node};
use super::reader::Reader;
use super::setting::{Setting, Settings};
use super::text::parse;
use super::yaml::{Document, documents};
use super::{Aim, Preset, Recipe, Slice, SliceSource};
use crate::method::Base;
use crate::registry::Operator;
use crate::{Compute, MergeError};
use rolegraft_checkpoint::Dtype;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const TOP: [&str; 17] = [
    "merge_method",
    "models",
    "slices",
    "modules",
    "base_model",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "preset",
    "importance",
    "calibration",
    "statistics",
    "name",
    "random_seed",
];

impl Recipe {
    /// Reads a recipe file: TOML by its ending, YAML otherwise.
    ///
    /// # Errors
    /// If it is missing, not YAML or TOML, or says something that cannot be done; with the line.
    pub fn read(path: &Path) -> Result<Self, MergeError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| MergeError::Read { path: path.to_owned(), source })?;
        let file = |reason| MergeError::File { path: path.to_owned(), reason };
        let mut recipe = Self::parse(&text, path).map_err(file)?;
        recipe.path = Some(path.to_owned());
        Ok(recipe)
    }

    /// Reads a recipe's text; `path` tells the language.
    ///
    /// # Errors
    /// As [`Self::read`], without the file's name.
    pub fn parse(text: &str, path: &Path) -> Result<Self, String> {
        let node = parse(text, path)?;
        Reader::default().recipe(&node, text)
    }

    /// The recipes of a file that may hold several YAML documents, in an order in which they can be carried out. All but one have a
    /// `name`, by which the others may refer to what it makes, in `intermediate/NAME`.
    ///
    /// # Errors
    /// As [`Self::read`], or if names are missing, there twice, or refer to each other in a circle.
    pub fn read_all(path: &Path, intermediate: &Path) -> Result<Vec<(Option<String>, Self)>, MergeError> {
        let file = |reason| MergeError::File { path: path.to_owned(), reason };
        let is_toml = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml"));
        let text =
            std::fs::read_to_string(path).map_err(|source| MergeError::Read { path: path.to_owned(), source })?;
        let several = if is_toml { Vec::new() } else { documents(&text).map_err(file)? };
        if several.len() < 2 {
            return Ok(vec![(None, Self::read(path)?)]);
        }
        let mut all = Self::in_order(several, intermediate).map_err(file)?;
        all.iter_mut().for_each(|(_, recipe)| recipe.path = Some(path.to_owned()));
        Ok(all)
    }

    fn in_order(documents: Vec<Document<'_>>, intermediate: &Path) -> Result<Vec<(Option<String>, Self)>, String> {
        let mut left: Vec<(Option<String>, Document<'_>)> = Vec::new();
        for mut document in documents {
            let name = document.node.get("name").map(|n| Reader::default().text(n, "name")).transpose()?;
            if name
                .as_deref()
                .is_some_and(|name| name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.'))
            {
                return Err(format!(
                    "line {}: `name` becomes a folder's name, so it must be a plain word",
                    document.node.line
                ));
            }
            if let Some((known, _)) = left.iter().find(|(known, _)| *known == name) {
                let line = document.node.line;
                return Err(match known {
                    Some(name) => format!("line {line}: two recipes have the name `{name}`"),
                    None => format!("line {line}: two recipes have no `name`; only the last result goes without one"),
                });
            }
            if let Kind::Map(entries) = &mut document.node.kind {
                entries.retain(|entry| entry.key != "name");
            }
            left.push((name, document));
        }
        let names: Vec<String> = left.iter().filter_map(|(name, _)| name.clone()).collect();
        let needs: Vec<BTreeSet<String>> =
            left.iter_mut().map(|(_, document)| refer(&mut document.node, &names, intermediate)).collect();
        let mut left: Vec<_> = left.into_iter().zip(needs).collect();
        let (mut done, mut all) = (BTreeSet::new(), Vec::new());
        while !left.is_empty() {
            let Some(at) = left.iter().position(|(_, needs)| needs.is_subset(&done)) else {
                let circle: Vec<&str> = left.iter().filter_map(|((name, _), _)| name.as_deref()).collect();
                return Err(format!("the recipes {} refer to each other in a circle", circle.join(", ")));
            };
            let ((name, Document { node, text }), _) = left.remove(at);
            all.push((name.clone(), Reader::default().recipe(&node, text)?));
            done.extend(name);
        }
        Ok(all)
    }

    /// A recipe that merges experts of a base by one method, without a file: names stand for the models.
    ///
    /// # Errors
    /// If the parameters do not fit the method.
    pub fn of_pool(
        method: &str,
        parameters: &BTreeMap<String, Value>,
        base: &str,
        experts: &[&str],
        preset: Preset,
    ) -> Result<Self, String> {
        let operator = Operator::find(method);
        if let Some(operator) = operator {
            let known: Vec<&str> = operator.spec().parameters.iter().map(|p| p.name).collect();
            if let Some(unknown) = parameters.keys().find(|k| !known.contains(&k.as_str())) {
                let hint = crate::nearest(unknown, &known);
                return Err(format!("`{method}` has no parameter `{unknown}`{hint}"));
            }
        }
        let mut recipe = json!({
            "merge_method": method,
            "models": experts.iter().map(|e| json!({"model": e})).collect::<Vec<_>>(),
            "parameters": parameters,
            "preset": preset.name(),
        });
        if operator.is_none_or(|operator| operator.spec().base != Base::Ignored) {
            recipe["base_model"] = json!(base);
        }
        // JSON is YAML.
        let text = serde_json::to_string_pretty(&recipe).map_err(|e| e.to_string())?;
        Self::parse(&text, Path::new("recipe.yaml"))
    }
}

impl Reader {
    pub(super) fn recipe(mut self, node: &Node, text: &str) -> Result<Recipe, String> {
        let Kind::Map(entries) = &node.kind else {
            return Err(format!("line {}: a recipe is a table with `merge_method`, not {}", node.line, node.what()));
        };
        self.unknown_keys(entries, &TOP, "the recipe")?;
        let method = node
            .get("merge_method")
            .ok_or("`merge_method` is missing; name one, for instance `merge_method: linear`")?;
        let name = self.text(method, "merge_method")?;
        if FITS.contains(&name.as_str()) {
            return self.fit(node, (&name, method.line), text);
        }
        let shared = Settings::read(node.get("parameters"))?;
        let (operator, is_aim) = self.operator(&name, method.line, node)?;
        let base = node.get("base_model").map(|n| self.model(n)).transpose()?;
        let (slices, module) = self.slices(node, base)?;
        let mut recipe = Recipe {
            text: text.to_owned(),
            path: None,
            operator,
            aim: None,
            fit: None,
            base,
            slices,
            module,
            shared,
            compute: Compute::F32,
            out_dtype: None,
            tokenizer: None,
            chat_template: node.get("chat_template").map(|n| self.text(n, "chat_template")).transpose()?,
            preset: node.get("preset").map(|n| self.preset(n)).transpose()?,
            statistics: node.get("statistics").map(|n| self.text(n, "statistics")).transpose()?.map(PathBuf::from),
            models: Vec::new(),
            warnings: Vec::new(),
        };
        if let Some(n) = node.get("dtype") {
            let dtype = self.dtype(n, "dtype")?;
            recipe.compute = Compute::of(dtype).ok_or_else(|| {
                format!(
                    "line {}: `dtype: float64` is not supported; use float32, and `out_dtype: float64` if need be",
                    n.line
                )
            })?;
            recipe.out_dtype = Some(dtype);
        }
        if let Some(n) = node.get("out_dtype") {
            recipe.out_dtype = Some(self.dtype(n, "out_dtype")?);
        }
        recipe.tokenizer = self.tokenizer(node)?;
        if is_aim {
            if base.is_none() {
                return Err(format!("line {}: `aim` needs a `base_model`, whose activations it goes by", method.line));
            }
            recipe.aim = Some(self.aim(node)?);
        }
        unknown_parameters(&recipe, is_aim)?;
        recipe.models = self.models;
        recipe.warnings = self.warnings;
        Ok(recipe)
    }

    fn operator(&self, name: &str, line: usize, node: &Node) -> Result<(Operator, bool), String> {
        let constituent = match name {
            "aim" => match node.get("parameters").and_then(|p| p.get("of")) {
                Some(of) => self.text(of, "of")?,
                // Inferred from ARM's tables; upstream's own default is `ties`.
                None => "task_arithmetic".into(),
            },
            other => other.to_owned(),
        };
        let known: Vec<&str> = Operator::all().map(|o| o.spec().name).chain(["aim", "average"]).chain(FITS).collect();
        let operator = Operator::find(&constituent).ok_or_else(|| {
            format!("line {line}: there is no merge method `{constituent}`{}", crate::nearest(&constituent, &known))
        })?;
        Ok((operator, name == "aim"))
    }

    fn aim(&mut self, node: &Node) -> Result<Aim, String> {
        let parameters = node.get("parameters");
        let omega = match parameters.and_then(|p| p.get("omega")) {
            None => 0.4,
            Some(Node { kind: Kind::Number(n), .. }) if (0.0..=1.0).contains(n) => *n,
            Some(n) => return Err(format!("line {}: `omega` must be a number between 0 and 1", n.line)),
        };
        let leave_tied = match parameters.and_then(|p| p.get("tied")) {
            None => false,
            Some(n) => match self.text(n, "tied")?.as_str() {
                "leave" => true,
                "head" => false,
                other => return Err(format!("line {}: `tied` must be `head` or `leave`, not `{other}`", n.line)),
            },
        };
        let file = |key: &str| node.get(key).map(|n| self.text(n, key)).transpose().map(|t| t.map(PathBuf::from));
        let (importance, calibration) = (file("importance")?, file("calibration")?);
        if importance.is_none() && calibration.is_none() {
            return Err(
                "`aim` needs `importance` (a safetensors file) or `calibration` (a text file to measure it on)".into(),
            );
        }
        Ok(Aim { omega, leave_tied, importance, calibration })
    }

    fn slices(&mut self, node: &Node, base: Option<usize>) -> Result<(Vec<Slice>, Settings), String> {
        let given: Vec<&str> = ["models", "slices", "modules"].into_iter().filter(|k| node.get(k).is_some()).collect();
        let (inner, module) = match given[..] {
            ["modules"] => {
                let modules = node.get("modules").ok_or("modules")?;
                let Kind::Map(entries) = &modules.kind else {
                    return Err(format!("line {}: `modules` must be a table", modules.line));
                };
                match &entries[..] {
                    [only] if only.key == "default" || only.key == "text_decoder" || only.key == "text_model" => {
                        (&only.value, Settings::read(only.value.get("parameters"))?)
                    }
                    _ => {
                        return Err(format!(
                            "line {}: `modules` may hold only `default`; models of several modules are not supported",
                            modules.line
                        ));
                    }
                }
            }
            ["models" | "slices"] => (node, Settings::default()),
            [] => return Err("the recipe names nothing to merge; give `models` or `slices`".into()),
            _ => return Err(format!("give only one of `models`, `slices` and `modules`, not {}", given.join(" and "))),
        };
        if let Some(models) = inner.get("models") {
            let mut sources = Vec::new();
            for item in list(models, "models")? {
                sources.push(self.source(item, false)?);
            }
            if let Some(b) = base
                && !sources.iter().any(|s| s.model == b)
            {
                sources.push(SliceSource { model: b, layers: None, parameters: Settings::default(), line: 0 });
            }
            let slice = Slice { sources, base, parameters: Settings::default() };
            self.check_slice(&slice, models.line)?;
            return Ok((vec![slice], module));
        }
        let slices = inner.get("slices").ok_or_else(|| format!("line {}: give `models` or `slices`", inner.line))?;
        let mut out = Vec::new();
        for item in list(slices, "slices")? {
            if let Kind::Map(entries) = &item.kind {
                self.unknown_keys(entries, &["sources", "base_model", "parameters", "residual_weight"], "a slice")?;
            }
            if item.get("residual_weight").is_some() {
                return Err(format!("line {}: `residual_weight` is not supported", item.line));
            }
            let from = item.get("sources").ok_or_else(|| format!("line {}: a slice needs `sources`", item.line))?;
            let mut sources = Vec::new();
            for source in list(from, "sources")? {
                sources.push(self.source(source, true)?);
            }
            let own = item.get("base_model").map(|n| self.model(n)).transpose()?;
            let slice = Slice { sources, base: own.or(base), parameters: Settings::read(item.get("parameters"))? };
            self.check_slice(&slice, item.line)?;
            out.push(slice);
        }
        Ok((out, module))
    }

    fn check_slice(&self, slice: &Slice, line: usize) -> Result<(), String> {
        for (i, source) in slice.sources.iter().enumerate() {
            if slice.sources[..i].iter().any(|s| s.model == source.model) {
                let line = if source.line > 0 { source.line } else { line };
                return Err(format!(
                    "line {line}: model `{}` is listed twice; list it once",
                    self.models[source.model]
                ));
            }
        }
        let lengths: Vec<usize> = slice.sources.iter().filter_map(|s| s.layers.map(|(a, b)| b - a)).collect();
        if lengths.iter().any(|l| *l != lengths[0]) {
            return Err(format!(
                "line {line}: the sources of a slice must have the same number of layers, not {lengths:?}"
            ));
        }
        Ok(())
    }

    fn source(&mut self, node: &Node, needs_range: bool) -> Result<SliceSource, String> {
        let Kind::Map(entries) = &node.kind else {
            return Err(format!("line {}: expected a table with `model`, not {}", node.line, node.what()));
        };
        let known: &[&str] =
            if needs_range { &["model", "layer_range", "parameters"] } else { &["model", "parameters"] };
        self.unknown_keys(entries, known, "a model")?;
        let model = node.get("model").ok_or_else(|| format!("line {}: `model` is missing", node.line))?;
        let layers = match node.get("layer_range") {
            Some(range) => match &range.kind {
                Kind::List(ends) => match (ends.first().map(|n| &n.kind), ends.get(1).map(|n| &n.kind), ends.len()) {
                    (Some(Kind::Number(a)), Some(Kind::Number(b)), 2)
                        if *a >= 0.0 && b >= a && a.fract() == 0.0 && b.fract() == 0.0 && *b < 1e6 =>
                    {
                        Some((*a as usize, *b as usize))
                    }
                    _ => {
                        return Err(format!("line {}: `layer_range` must be [first, one past the last]", range.line));
                    }
                },
                _ => return Err(format!("line {}: `layer_range` must be a list of two numbers", range.line)),
            },
            None if needs_range => {
                return Err(format!(
                    "line {}: a slice's source needs `layer_range: [first, one past the last]`",
                    node.line
                ));
            }
            None => None,
        };
        let parameters = Settings::read(node.get("parameters"))?;
        Ok(SliceSource { model: self.model(model)?, layers, parameters, line: node.line })
    }

    fn preset(&self, node: &Node) -> Result<Preset, String> {
        match self.text(node, "preset")?.as_str() {
            "arm" => Ok(Preset::Arm),
            "papers" => Ok(Preset::Papers),
            other => Err(format!("line {}: there is no preset `{other}`; known: arm, papers", node.line)),
        }
    }

    fn dtype(&self, node: &Node, key: &str) -> Result<Dtype, String> {
        let name = self.text(node, key)?;
        match name.strip_prefix("torch.").unwrap_or(&name) {
            "float32" | "float" => Ok(Dtype::F32),
            "float16" | "half" => Ok(Dtype::F16),
            "bfloat16" => Ok(Dtype::BF16),
            "float64" | "double" => Ok(Dtype::F64),
            _ => Err(format!("line {}: `{key}` is `{name}`; known: float32, float16, bfloat16, float64", node.line)),
        }
    }
}

/// Lets every text that is one of `names` say where its result lies, and tells which there were.
fn refer(node: &mut Node, names: &[String], intermediate: &Path) -> BTreeSet<String> {
    match &mut node.kind {
        Kind::Text(text) => {
            let end = text.find(['+', '@']).unwrap_or(text.len());
            let Some(name) = names.iter().find(|name| **name == text[..end]) else { return BTreeSet::new() };
            *text = format!("{}{}", intermediate.join(name).display(), &text[end..]);
            [name.clone()].into()
        }
        Kind::List(items) => items.iter_mut().flat_map(|item| refer(item, names, intermediate)).collect(),
        Kind::Map(entries) => {
            entries.iter_mut().flat_map(|entry| refer(&mut entry.value, names, intermediate)).collect()
        }
        Kind::Null | Kind::Bool(_) | Kind::Number(_) => BTreeSet::new(),
    }
}

/// Refuses parameters that the method does not have.
fn unknown_parameters(recipe: &Recipe, is_aim: bool) -> Result<(), String> {
    let spec = recipe.operator.spec();
    let mut known: Vec<&str> = spec.parameters.iter().map(|p| p.name).collect();
    if is_aim {
        known.extend(["of", "omega", "tied"]);
    }
    let slices = recipe.slices.iter().flat_map(|s| s.sources.iter().map(|s| &s.parameters).chain([&s.parameters]));
    let mut settings = slices.chain([&recipe.module, &recipe.shared]).flat_map(|settings| &settings.0);
    match settings.find(|setting| !known.contains(&setting.name.as_str())) {
        None => Ok(()),
        Some(Setting { name, line, .. }) => Err(format!(
            "line {line}: `{}` has no parameter `{name}`, so it has no effect{}",
            spec.name,
            crate::nearest(name, &known)
        )),
    }
}

fn list<'n>(node: &'n Node, key: &str) -> Result<&'n [Node], String> {
    match &node.kind {
        Kind::List(items) if !items.is_empty() => Ok(items),
        _ => Err(format!("line {}: `{key}` must be a list with at least one entry, not {}", node.line, node.what())),
    }
}
