//! What stands beside the weights of a merge: config, model card, the recipe, and tokenizer files where they change.

use crate::plan::Plan;
use crate::{MergeError, Recipe};
use serde_json::{Value, json};
use std::path::Path;

/// A file of the output.
pub(crate) type File = (&'static str, Vec<u8>);

/// Every file that is not copied from the donor.
pub(crate) fn files(plan: &Plan, fingerprints: &[String]) -> Result<Vec<File>, MergeError> {
    let mut files = vec![("config.json", pretty(&plan.config)), ("README.md", card(plan, fingerprints).into_bytes())];
    if !plan.recipe.text.is_empty() {
        let name = if plan.recipe.is_toml() { "rolegraft_recipe.toml" } else { "mergekit_config.yml" };
        files.push((name, recipe_text(plan).into_bytes()));
    }
    files.extend(tokenizer_files(plan)?);
    if let Some(turns) = plan.turns
        && let Ok(bytes) = std::fs::read(plan.models[turns].dir.join("generation_config.json"))
    {
        files.push(("generation_config.json", bytes));
    }
    Ok(files)
}

fn pretty(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

/// A plan's recipe as it stands beside the merge: without paths of this machine.
#[must_use]
pub fn recipe_text(plan: &Plan) -> String {
    let anchored = plan.anchor.iter().flat_map(|anchor| &anchor.models);
    let mut names: Vec<(&str, String)> =
        plan.models.iter().chain(anchored).map(|m| (m.name.as_str(), m.title())).collect();
    let sets = plan.recipe.fit.iter().flat_map(|fit| fit.calibration.values().flatten());
    names.extend(sets.filter_map(|path| Some((path.to_str()?, path.file_name()?.to_string_lossy().into_owned()))));
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let paths = names.iter().filter(|(name, title)| name.contains('/') && name != title);
    paths.fold(plan.recipe.text.clone(), |text, (name, title)| text.replace(name, title))
}

fn card(plan: &Plan, fingerprints: &[String]) -> String {
    let Recipe { operator, base, aim, fit, .. } = &plan.recipe;
    let titles: Vec<String> = plan.models.iter().map(crate::Model::title).collect();
    let mut text = String::from("---\n");
    let hub: Vec<&String> = plan.models.iter().zip(&titles).filter(|(m, _)| m.is_from_hub()).map(|(_, t)| t).collect();
    if !hub.is_empty() {
        text += "base_model:\n";
        hub.iter().for_each(|name| text += &format!("- {name}\n"));
    }
    text += "library_name: transformers\ntags:\n- merge\n- rolegraft\n---\n";
    text += "# Merged model\n\nMerged by rolegraft, training-free.\n\n";
    let spec = operator.spec();
    let relaxed =
        aim.as_ref().map_or(String::new(), |aim| format!(", relaxed towards the base by `aim` (ω = {})", aim.omega));
    if let Some(fit) = fit {
        text += &format!(
            "- Method: `{}`, linear maps by least squares on calibration traces; other tensors by\n  ",
            fit.method
        );
    } else {
        text += "- Method: ";
    }
    text += &format!("`{}`, {}{relaxed}\n", spec.name, spec.summary);
    if spec.name == "neuron_merge" {
        text += "- Note: this method is a reconstruction from its paper's abstract\n";
    }
    if let Some(base) = base {
        text += &format!("- Base: {}\n", titles[*base]);
    }
    text += "\n| model | XXH3-128 of its weights |\n|---|---|\n";
    for (title, fingerprint) in titles.iter().zip(fingerprints) {
        text += &format!("| {title} | `{fingerprint}` |\n");
    }
    if !plan.recipe.text.is_empty() {
        let language = if plan.recipe.is_toml() { "toml" } else { "yaml" };
        text += &format!("\n## Recipe\n\n```{language}\n{}\n```\n", recipe_text(plan).trim_end());
    }
    if let Some(addition) = &plan.card_note {
        text += &format!("\n{addition}\n");
    }
    text
}

/// Tokenizer files that differ from the donor's.
fn tokenizer_files(plan: &Plan) -> Result<Vec<File>, MergeError> {
    let donor = &plan.models[plan.donor];
    let read = |name: &str| -> Result<Option<Value>, MergeError> {
        let path = donor.dir.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| MergeError::File { path, reason: format!("is not valid JSON: {e}") }),
            Err(_) => Ok(None),
        }
    };
    let mut files = Vec::new();
    let mut config = None;
    if let Some(alignment) = plan.alignment.as_ref()
        && let Some(tokenizer) = &alignment.tokenizer
    {
        files.push(("tokenizer.json", pretty(tokenizer)));
        let mut described = read("tokenizer_config.json")?.unwrap_or_else(|| json!({}));
        let mut added = read("added_tokens.json")?.unwrap_or_else(|| json!({}));
        for (id, entry) in &alignment.new_tokens {
            let mut description = entry.clone();
            if let (Some(map), Some(token)) = (description.as_object_mut(), entry["content"].as_str()) {
                map.remove("id");
                added[token] = json!(id);
            }
            if described["added_tokens_decoder"].is_object() {
                described["added_tokens_decoder"][id.to_string()] = description;
            }
        }
        files.push(("added_tokens.json", pretty(&added)));
        config = Some(described);
    }
    if let Some(template) = &plan.chat_template {
        let mut described = match config {
            Some(config) => config,
            None => read("tokenizer_config.json")?.unwrap_or_else(|| json!({})),
        };
        // Newer loaders prefer the file, older ones read the field.
        described["chat_template"] = json!(template);
        config = Some(described);
        files.push(("chat_template.jinja", template.clone().into_bytes()));
    }
    files.extend(config.map(|config| ("tokenizer_config.json", pretty(&config))));
    Ok(files)
}

impl Recipe {
    /// Whether it was written in TOML.
    fn is_toml(&self) -> bool {
        self.path.as_deref().and_then(Path::extension).is_some_and(|e| e.eq_ignore_ascii_case("toml"))
    }
}
