//! Vocabularies: the output's tokens, and for every input the row of its embedding that each of them takes.

use crate::MergeError;
use crate::model::Model;
use crate::recipe::{RowOrigin, TokenRule, TokenizerRule, TokenizerSource};
use crate::row_map::{Row, RowMap};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A checkpoint's tokens.
pub(crate) struct Vocabulary {
    ids: HashMap<String, u32>,
    /// Added tokens in order of id, as `tokenizer.json` describes them.
    added: Vec<(String, Value)>,
    /// `tokenizer.json`.
    file: Value,
}

impl Vocabulary {
    /// Reads `tokenizer.json`.
    pub(crate) fn read(model: &Model) -> Result<Self, MergeError> {
        let path = model.dir.join("tokenizer.json");
        let bad = |reason: &str| MergeError::File { path: path.clone(), reason: reason.to_owned() };
        let bytes = std::fs::read(&path).map_err(|source| MergeError::Read { path: path.clone(), source })?;
        let file: Value = serde_json::from_slice(&bytes).map_err(|e| bad(&format!("is not valid JSON: {e}")))?;
        let mut ids: HashMap<String, u32> = match &file["model"]["vocab"] {
            Value::Object(map) => {
                map.iter().filter_map(|(t, id)| Some((t.clone(), u32::try_from(id.as_u64()?).ok()?))).collect()
            }
            Value::Array(list) => {
                list.iter().zip(0..).filter_map(|(entry, id)| Some((entry[0].as_str()?.to_owned(), id))).collect()
            }
            _ => return Err(bad("has no `model.vocab`")),
        };
        let mut added = Vec::new();
        for entry in file["added_tokens"].as_array().into_iter().flatten() {
            if let (Some(token), Some(id)) =
                (entry["content"].as_str(), entry["id"].as_u64().and_then(|i| u32::try_from(i).ok()))
            {
                ids.insert(token.to_owned(), id);
                added.push((token.to_owned(), entry.clone()));
            }
        }
        added.sort_by_key(|(token, _)| ids[token]);
        Ok(Self { ids, added, file })
    }

    /// Tokens whose row lies within an embedding of `height` rows.
    fn within(&self, token: &str, height: usize) -> Option<u32> {
        self.ids.get(token).copied().filter(|id| (*id as usize) < height)
    }
}

/// How two models' tokens differ, if they do: how many, and the first few.
pub(crate) fn difference(a: &Model, b: &Model) -> Option<String> {
    const SHOWN: usize = 4;
    let bytes = |model: &Model| std::fs::read(model.dir.join("tokenizer.json")).ok();
    if bytes(a)? == bytes(b)? {
        return None;
    }
    let (Ok(first), Ok(second)) = (Vocabulary::read(a), Vocabulary::read(b)) else {
        return Some("their tokenizers cannot be compared".into());
    };
    let id = |v: &Vocabulary, token: &str| v.ids.get(token).map_or("none".into(), u32::to_string);
    let tokens: BTreeSet<&String> = first.ids.keys().chain(second.ids.keys()).collect();
    let differing: Vec<String> = tokens
        .into_iter()
        .filter(|t| first.ids.get(*t) != second.ids.get(*t))
        .map(|t| format!("`{}` ({} and {})", t.escape_debug(), id(&first, t), id(&second, t)))
        .collect();
    match differing.len() {
        0 => None,
        n => Some(format!(
            "{n} tokens differ: {}{}",
            differing[..n.min(SHOWN)].join(", "),
            if n > SHOWN { ", …" } else { "" }
        )),
    }
}

/// The output's vocabulary.
pub(crate) struct Alignment {
    /// Rows of the output's embedding.
    pub(crate) height: usize,
    /// The model whose tokenizer files are copied.
    pub(crate) donor: usize,
    /// `tokenizer.json`, where it is not the donor's.
    pub(crate) tokenizer: Option<Value>,
    /// Tokens added to the donor's: description and id.
    pub(crate) new_tokens: Vec<(u32, Value)>,
    /// Output tokens, by row.
    tokens: BTreeMap<u32, String>,
    rules: HashMap<String, TokenRule>,
    vocabularies: Vec<Vocabulary>,
}

impl Alignment {
    /// Decides the output's tokens. `heights` are the rows of every model's embedding.
    pub(crate) fn new(
        rule: &TokenizerRule,
        models: &[Model],
        base: Option<usize>,
        heights: &[usize],
        exact: bool,
    ) -> Result<Self, MergeError> {
        let vocabularies: Vec<Vocabulary> = models.iter().map(Vocabulary::read).collect::<Result<_, _>>()?;
        let donor = match rule.source {
            TokenizerSource::Model(m) => m,
            TokenizerSource::Union => base.unwrap_or(0),
            TokenizerSource::Base => base.ok_or_else(|| {
                MergeError::Recipe(
                    "`tokenizer_source: base` needs a `base_model`; name one, or a model as the source".into(),
                )
            })?,
        };
        let mut ids: BTreeMap<String, u32> = vocabularies[donor]
            .ids
            .iter()
            .filter(|(_, id)| (**id as usize) < heights[donor])
            .map(|(t, id)| (t.clone(), *id))
            .collect();
        let mut new_tokens = Vec::new();
        let mut add = |ids: &mut BTreeMap<String, u32>, token: &str, description: Option<&Value>| {
            if ids.contains_key(token) {
                return;
            }
            let id = ids.values().max().map_or(0, |m| m + 1);
            let mut entry = description.cloned().unwrap_or_else(|| {
                json!({"content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false})
            });
            entry["id"] = json!(id);
            new_tokens.push((id, entry));
            ids.insert(token.to_owned(), id);
        };
        if rule.source == TokenizerSource::Union {
            for (vocabulary, height) in vocabularies.iter().zip(heights) {
                let mut plain: Vec<(&u32, &String)> = vocabulary
                    .ids
                    .iter()
                    .filter(|(t, id)| (**id as usize) < *height && !vocabulary.added.iter().any(|(a, _)| a == *t))
                    .map(|(t, id)| (id, t))
                    .filter(|(_, t)| !ids.contains_key(*t))
                    .collect();
                plain.sort();
                plain.into_iter().for_each(|(_, token)| add(&mut ids, token, None));
            }
            for (vocabulary, height) in vocabularies.iter().zip(heights) {
                for (token, description) in &vocabulary.added {
                    if vocabulary.within(token, *height).is_some() {
                        add(&mut ids, token, Some(description));
                    }
                }
            }
        }
        for (token, _) in &rule.tokens {
            add(&mut ids, token, None);
        }
        let tokenizer = (!new_tokens.is_empty()).then(|| {
            let mut file = vocabularies[donor].file.clone();
            let entries = new_tokens.iter().map(|(_, entry)| entry.clone());
            match file["added_tokens"].as_array_mut() {
                Some(list) => list.extend(entries),
                None => file["added_tokens"] = entries.collect(),
            }
            file
        });
        let mut height = ids.values().max().map_or(0, |m| *m as usize + 1).max(ids.len());
        if let Some(multiple) = rule.pad_to_multiple_of {
            height = height.next_multiple_of(multiple);
        } else if !exact && heights.iter().all(|h| *h == heights[0]) && heights[0] > height {
            // Checkpoints come padded; engines expect the padded height to stay.
            height = heights[0];
        }
        Ok(Self {
            height,
            donor,
            tokenizer,
            new_tokens,
            tokens: ids.into_iter().map(|(t, id)| (id, t)).collect(),
            rules: rule.tokens.iter().cloned().collect(),
            vocabularies,
        })
    }

    /// The rows of `tensor` that input `model` contributes. `inputs` are all models that have the tensor, with its name
    /// and height there.
    pub(crate) fn rows(
        &self,
        models: &[Model],
        inputs: &[(usize, String, usize)],
        model: usize,
        base: Option<usize>,
        width: usize,
    ) -> Result<RowMap, MergeError> {
        let height_of = |m: usize| inputs.iter().find(|(i, ..)| *i == m).map_or(0, |(_, _, h)| *h);
        let own = |m: usize, token: &str| self.vocabularies[m].within(token, height_of(m));
        let name = |m: usize| {
            let missing = || {
                MergeError::Recipe(format!(
                    "`tokens` takes a row of `{}`, which is not among the inputs",
                    models[m].name
                ))
            };
            inputs.iter().find(|(i, ..)| *i == m).map(|(_, n, _)| n.as_str()).ok_or_else(missing)
        };
        let load = |m: usize, row: u32| -> Result<Vec<f32>, MergeError> {
            let tensor = name(m)?;
            let of = |source| MergeError::Model { model: models[m].name.clone(), source };
            let dtype = models[m].tensors.tensor(tensor).map(|t| t.dtype).unwrap_or(rolegraft_checkpoint::Dtype::F32);
            let mut bytes = vec![0; width * dtype.size()];
            models[m].tensors.read(tensor, u64::from(row) * bytes.len() as u64, &mut bytes).map_err(of)?;
            Ok(dtype.to_f32(&bytes).unwrap_or_default())
        };
        let mut rows = vec![Row::Fixed(vec![0.0; width].into()); self.height];
        let own_height = height_of(model);
        for (id, token) in &self.tokens {
            let rule = self.rules.get(token);
            let mine = own(model, token);
            let row = match mine {
                Some(row) if rule.is_none_or(|r| !r.force) => Row::Own(row),
                _ => {
                    let holders: Vec<usize> =
                        inputs.iter().map(|(m, ..)| *m).filter(|m| own(*m, token).is_some()).collect();
                    let of_model = |m: usize| match own(m, token) {
                        Some(row) => load(m, row),
                        None => Err(MergeError::Recipe(format!("`{}` has no token `{token}`", models[m].name))),
                    };
                    Row::Fixed(match rule.and_then(|r| r.row.as_ref()) {
                        Some(RowOrigin::Zero) => vec![0.0; width].into(),
                        Some(RowOrigin::Model(m)) => of_model(*m)?.into(),
                        Some(RowOrigin::Token(m, other)) => match own(*m, other) {
                            Some(row) => load(*m, row)?.into(),
                            None => {
                                return Err(MergeError::Recipe(format!(
                                    "`{}` has no token `{other}`",
                                    models[*m].name
                                )));
                            }
                        },
                        Some(RowOrigin::Row(m, row)) if *row < height_of(*m) => load(*m, *row as u32)?.into(),
                        Some(RowOrigin::Row(m, row)) => {
                            return Err(MergeError::Recipe(format!("`{}` has no row {row}", models[*m].name)));
                        }
                        None => match (&holders[..], base) {
                            ([], _) => vec![0.0; width].into(),
                            ([only], _) => of_model(*only)?.into(),
                            (_, Some(b)) if holders.contains(&b) => of_model(b)?.into(),
                            (many, _) => {
                                let mut mean = vec![0.0f32; width];
                                for m in many {
                                    mean.iter_mut().zip(of_model(*m)?).for_each(|(s, v)| *s += v);
                                }
                                mean.iter_mut().for_each(|s| *s /= many.len() as f32);
                                mean.into()
                            }
                        },
                    })
                }
            };
            if let Some(slot) = rows.get_mut(*id as usize) {
                *slot = row;
            }
        }
        let used = self.tokens.keys().next_back().map_or(0, |id| *id as usize + 1);
        if own_height == self.height && used < self.height {
            // The checkpoint's own padding rows stay.
            (used..self.height).for_each(|r| rows[r] = Row::Own(r as u32));
        } else if used < self.height {
            let mut mean = vec![0.0f64; width];
            for row in &rows[..used] {
                let values = match row {
                    Row::Own(r) => load(model, *r)?,
                    Row::Fixed(values) => values.to_vec(),
                };
                mean.iter_mut().zip(values).for_each(|(m, v)| *m += f64::from(v));
            }
            let mean: std::sync::Arc<[f32]> = mean.iter().map(|m| (m / used as f64) as f32).collect();
            (used..self.height).for_each(|r| rows[r] = Row::Fixed(mean.clone()));
        }
        Ok(RowMap { width, rows })
    }
}
