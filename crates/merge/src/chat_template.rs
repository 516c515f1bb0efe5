//! Chat templates that a recipe asks for: by name, as Jinja text, a model's, or the one that most inputs have.

use crate::MergeError;
use crate::model::Model;
use serde_json::Value;

/// Templates known by name: the formats that mergekit knows under them.
const NAMED: [(&str, &str); 5] = [
    ("alpaca", include_str!("templates/alpaca.jinja")),
    ("chatml", include_str!("templates/chatml.jinja")),
    ("exaone", include_str!("templates/exaone.jinja")),
    ("llama3", include_str!("templates/llama3.jinja")),
    ("mistral", include_str!("templates/mistral.jinja")),
];

/// The template that a recipe's `chat_template` means; none for `auto` where no input has one.
pub(crate) fn resolve(wanted: &str, models: &[Model]) -> Result<Option<String>, MergeError> {
    if wanted == "auto" {
        let mut votes: Vec<(String, usize)> = Vec::new();
        for template in models.iter().filter_map(of_model) {
            match votes.iter_mut().find(|(t, _)| *t == template) {
                Some((_, count)) => *count += 1,
                None => votes.push((template, 1)),
            }
        }
        let most = votes.iter().map(|(_, n)| *n).max();
        return Ok(votes.into_iter().find(|(_, n)| Some(*n) == most).map(|(t, _)| t));
    }
    if let Some((_, template)) = NAMED.iter().find(|(name, _)| *name == wanted) {
        return Ok(Some((*template).to_owned()));
    }
    if let Some(model) = models.iter().find(|model| model.name == wanted) {
        let none = || MergeError::Recipe(format!("`chat_template` is `{wanted}`, a model that has none"));
        return Ok(Some(of_model(model).ok_or_else(none)?));
    }
    if wanted.len() < 20 || !wanted.contains('{') {
        let known: Vec<&str> = NAMED.iter().map(|(name, _)| *name).chain(["auto"]).collect();
        let hint = crate::nearest(wanted, &known);
        return Err(MergeError::Recipe(format!(
            "`chat_template` is `{wanted}`, which is neither a name, nor a model of the recipe, nor Jinja{hint}"
        )));
    }
    Ok(Some(wanted.to_owned()))
}

/// A model's own template.
pub(crate) fn of_model(model: &Model) -> Option<String> {
    if let Ok(text) = std::fs::read_to_string(model.dir.join("chat_template.jinja")) {
        return Some(text.trim().to_owned());
    }
    let bytes = std::fs::read(model.dir.join("tokenizer_config.json")).ok()?;
    let config: Value = serde_json::from_slice(&bytes).ok()?;
    let template = match &config["chat_template"] {
        Value::Array(named) => &named.iter().find(|t| t["name"] == "default")?["template"],
        other => other,
    };
    Some(template.as_str()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_text_and_nonsense() {
        assert!(resolve("chatml", &[]).unwrap().unwrap().contains("<|im_start|>"));
        assert_eq!(resolve("auto", &[]).unwrap(), None);
        let own = "{% for m in messages %}{{ m.content }}{% endfor %}";
        assert_eq!(resolve(own, &[]).unwrap().as_deref(), Some(own));
        let error = resolve("chatmll", &[]).unwrap_err().to_string();
        assert!(error.contains("did you mean `chatml`"), "{error}");
    }
}
