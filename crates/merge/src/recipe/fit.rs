//! Methods that look at calibration sets: fits in place of the linear maps of another merge, and what is made of a merge.

use super::node::{Entry, Kind, Node};
use super::reader::Reader;
use super::weights::{TokenWeights, weigh};
use super::{Fit, Part, Recipe, Solution};
use crate::method::Base;
use crate::registry::Operator;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The methods' names in recipes. `lot` (arXiv 2505.23859) fits task vectors, T = (Σ Gᵢ)⁺ Σ Gᵢ Tᵢ: that is `regmean` with the base for
/// an anchor, and no ridge.
/// `featcal` calibrates another merge, `acm` draws one back to the base: it is their rest.
pub(super) const FITS: [&str; 5] = ["regmean", "lot", "featcal", "esm", "acm"];

const PARAMETERS: [&str; 10] =
    ["calibration", "ridge", "off_diagonal", "energy", "sequential", "weights", "anchor", "rest", "embedding", "only"];
const OF_FEATCAL: [&str; 6] = ["calibration", "ridge", "weights", "rest", "rho", "alpha"];
const OF_ESM: [&str; 5] = ["calibration", "weights", "rest", "only", "alpha"];
const OF_ACM: [&str; 3] = ["calibration", "rest", "theta"];

/// Keys of a recipe that its rest and its anchor share with it.
const SHARED: [&str; 8] =
    ["models", "modules", "base_model", "dtype", "out_dtype", "tokenizer_source", "tokenizer", "chat_template"];

impl Reader {
    /// A recipe of a fit: that of the rest, with it.
    pub(super) fn fit(mut self, node: &Node, (name, line): (&str, usize), text: &str) -> Result<Recipe, String> {
        if let Some(slices) = node.get("slices") {
            return Err(format!("line {}: `{name}` fits whole models; give `models`", slices.line));
        }
        if let Some(Node { kind: Kind::List(models), .. }) = node.get("models")
            && let Some(own) = models.iter().find_map(|model| model.get("parameters"))
        {
            return Err(format!(
                "line {}: models of `{name}` take no parameters, experts weigh alike; those of other merges stand under `rest` and `anchor`",
                own.line
            ));
        }
        let known: &[&str] = match name {
            "featcal" => &OF_FEATCAL,
            "esm" => &OF_ESM,
            "acm" => &OF_ACM,
            _ => &PARAMETERS,
        };
        let empty = Node { line, kind: Kind::Map(Vec::new()) };
        let parameters = node.get("parameters").unwrap_or(&empty);
        let Kind::Map(entries) = &parameters.kind else {
            return Err(format!("line {}: `parameters` must be a table, not {}", parameters.line, parameters.what()));
        };
        if let Some(unknown) = entries.iter().find(|e| !known.contains(&e.key.as_str())) {
            let hint = crate::nearest(&unknown.key, known);
            return Err(format!("line {}: `{name}` has no parameter `{}`{hint}", unknown.line, unknown.key));
        }
        let base = node.get("base_model").map(|n| self.model(n)).transpose()?;
        let base = base.map(|at| self.models[at].clone());
        let mean = Node { line, kind: Kind::Map(vec![entry(line, "merge_method", text_node(line, "linear"))]) };
        let (nothing, zero) = (Node { line, kind: Kind::Number(0.0) }, text_node(line, "task_arithmetic"));
        let nothing = Node { line, kind: Kind::Map(vec![entry(line, "weight", nothing)]) };
        let base_itself =
            Node { line, kind: Kind::Map(vec![entry(line, "merge_method", zero), entry(line, "parameters", nothing)]) };
        let anchor_node = match parameters.get("anchor") {
            Some(Node { kind: Kind::Text(word), .. }) if word == "base" => &base_itself,
            Some(other) => other,
            None if name == "regmean" => &mean,
            None => &base_itself,
        };
        let rest_node = match parameters.get("rest") {
            Some(Node { kind: Kind::Text(word), .. }) if word == "anchor" => anchor_node,
            Some(Node { kind: Kind::Text(word), .. }) if word == "base" => &base_itself,
            Some(other) => other,
            None => &mean,
        };
        let anchor = self.part(node, anchor_node, "anchor", base.as_deref())?;
        let mut recipe = self.part(node, rest_node, "rest", base.as_deref())?;
        let experts: Vec<String> =
            recipe.models.iter().filter(|model| Some(*model) != base.as_ref()).cloned().collect();
        let number = |key: &str, default: f64, fine: fn(f64) -> bool, range: &str| match parameters.get(key) {
            None => Ok(default),
            Some(Node { kind: Kind::Number(n), .. }) if fine(*n) => Ok(*n),
            Some(other) => Err(format!("line {}: `{key}` must be a number {range}", other.line)),
        };
        let positive = |n: f64| n.is_finite() && n >= 0.0;
        let share = |n: f64| (0.0..=1.0).contains(&n);
        recipe.fit = Some(Fit {
            method: FITS.into_iter().find(|fit| *fit == name).unwrap_or(FITS[0]),
            ridge: number(
                "ridge",
                match name {
                    "regmean" => 0.01,
                    "featcal" => 0.05,
                    _ => 0.0,
                },
                positive,
                "of 0 or more",
            )?,
            off_diagonal: number("off_diagonal", 1.0, share, "between 0 and 1")?,
            energy: number("energy", 1.0, |n| n > 0.0 && n <= 1.0, "above 0, and at most 1")?,
            sequential: match parameters.get("sequential").map(|n| (&n.kind, n.line)) {
                None => false,
                Some((Kind::Bool(b), _)) => *b,
                Some((_, line)) => return Err(format!("line {line}: `sequential` must be true or false")),
            },
            weights: weights(parameters.get("weights"))?,
            only: match parameters.get("only") {
                None => None,
                Some(node) => match self.text(node, "only")?.as_str() {
                    "attention" => Some(Part::Attention),
                    "mlp" => Some(Part::Mlp),
                    other => {
                        return Err(format!("line {}: `only` must be `attention` or `mlp`, not `{other}`", node.line));
                    }
                },
            },
            calibration: calibration(parameters.get("calibration"), &experts)?,
            embedding: match parameters.get("embedding") {
                None => None,
                Some(_) => Some(number("embedding", 1.0, |n| n.is_finite() && n > 0.0, "above 0")?),
            },
            solution: match name {
                "featcal" => Solution::FeatCal {
                    blend: number("rho", 2.0, f64::is_finite, "that is finite")?,
                    teacher: number("alpha", 0.3, share, "between 0 and 1")?,
                },
                "esm" => Solution::EssentialSubspace { scale: number("alpha", 1.0, positive, "of 0 or more")? },
                "acm" => Solution::Consensus { theta: number("theta", 0.7, f64::is_finite, "that is finite")? },
                _ => Solution::LeastSquares,
            },
            experts,
            anchor: Box::new(anchor),
        });
        text.clone_into(&mut recipe.text);
        Ok(recipe)
    }

    /// A merge of the same models.
    fn part(&self, node: &Node, part: &Node, key: &str, base: Option<&str>) -> Result<Recipe, String> {
        let (Kind::Map(whole), Kind::Map(own)) = (&node.kind, &part.kind) else {
            return Err(format!(
                "line {}: `{key}` must be a table with `merge_method`, not {}",
                part.line,
                part.what()
            ));
        };
        if let Some(unknown) = own.iter().find(|e| e.key != "merge_method" && e.key != "parameters") {
            return Err(format!(
                "line {}: `{key}` takes `merge_method` and `parameters`, not `{}`; models are those of the recipe",
                unknown.line, unknown.key
            ));
        }
        let method =
            part.get("merge_method").ok_or_else(|| format!("line {}: `{key}` needs `merge_method`", part.line))?;
        let name = self.text(method, "merge_method")?;
        let operator = Operator::find(&name);
        if operator.is_none() {
            let known: Vec<&str> = Operator::all().map(|o| o.spec().name).collect();
            return Err(format!(
                "line {}: `{key}` cannot be merged by `{name}`{}",
                method.line,
                crate::nearest(&name, &known)
            ));
        }
        if operator.is_some_and(|o| o.spec().base == Base::Required) && base.is_none() {
            return Err(format!("line {}: `{key}` by `{name}` needs the base; name it as `base_model`", method.line));
        }
        let takes: Vec<&str> = operator.iter().flat_map(|o| o.spec().parameters.iter().map(|p| p.name)).collect();
        let given = part.get("parameters").map(|p| &p.kind);
        if let Some(Kind::Map(given)) = given
            && let Some(unknown) = given.iter().find(|e| !takes.contains(&e.key.as_str()))
        {
            let hint = crate::nearest(&unknown.key, &takes);
            return Err(format!("line {}: `{key}` by `{name}` has no parameter `{}`{hint}", unknown.line, unknown.key));
        }
        // A method that knows no base would count it among the experts.
        let drops = operator.is_some_and(|o| o.spec().base == Base::Ignored).then_some(base).flatten();
        let mut entries: Vec<Entry> = Vec::new();
        for shared in whole.iter().filter(|e| SHARED.contains(&e.key.as_str())) {
            let mut shared = shared.clone();
            match (shared.key.as_str(), drops) {
                ("base_model", Some(_)) => continue,
                ("models", Some(base)) => {
                    if let Kind::List(models) = &mut shared.value.kind {
                        models.retain(|model| {
                            !matches!(model.get("model").map(|m| &m.kind), Some(Kind::Text(name)) if name == base)
                        });
                    }
                }
                _ => {}
            }
            entries.push(shared);
        }
        entries.extend(own.iter().cloned());
        entries.push(entry(part.line, "preset", text_node(part.line, "arm")));
        Self::default().recipe(&Node { line: part.line, kind: Kind::Map(entries) }, "")
    }
}

fn entry(line: usize, key: &str, value: Node) -> Entry {
    Entry { key: key.to_owned(), line, value, helps: false, over: None }
}

fn text_node(line: usize, text: &str) -> Node {
    Node { line, kind: Kind::Text(text.to_owned()) }
}

fn weights(node: Option<&Node>) -> Result<TokenWeights, String> {
    let Some(node) = node else { return Ok(TokenWeights::default()) };
    let Kind::Map(entries) = &node.kind else {
        return Err(format!("line {}: `weights` must be a table of role, reply and context", node.line));
    };
    let number = |entry: &Entry| match entry.value.kind {
        Kind::Number(n) => Some(n),
        _ => None,
    };
    for entry in entries {
        weigh([(entry.key.as_str(), number(entry))]).map_err(|e| format!("line {}: {e}", entry.line))?;
    }
    weigh(entries.iter().map(|entry| (entry.key.as_str(), number(entry))))
        .map_err(|e| format!("line {}: {e}", node.line))
}

/// Files by expert, which may be called by the last part of its path.
fn calibration(node: Option<&Node>, experts: &[String]) -> Result<BTreeMap<String, Vec<PathBuf>>, String> {
    let mut files = BTreeMap::new();
    let Some(node) = node else { return Ok(files) };
    let Kind::Map(entries) = &node.kind else {
        return Err(format!(
            "line {}: `calibration` must be a table of experts, each with its calibration set or a list of such",
            node.line
        ));
    };
    let last = |name: &str| name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    for Entry { key, line, value, .. } in entries {
        let named: Vec<&String> = experts.iter().filter(|e| *e == key || last(e) == *key).collect();
        let [expert] = named[..] else {
            let known: Vec<&str> = experts.iter().map(String::as_str).collect();
            let hint = crate::nearest(key, &known);
            return Err(format!("line {line}: `calibration` names `{key}`, which is no one model of the recipe{hint}"));
        };
        let of = |node: &Node| match &node.kind {
            Kind::Text(path) => Ok(PathBuf::from(path)),
            _ => Err(format!("line {}: a calibration set is named by its file, not by {}", node.line, node.what())),
        };
        let paths = match &value.kind {
            Kind::List(items) => items.iter().map(of).collect::<Result<_, _>>()?,
            _ => vec![of(value)?],
        };
        files.insert(expert.clone(), paths);
    }
    Ok(files)
}
