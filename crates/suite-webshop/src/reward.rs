//! What a purchase is worth (princeton-nlp/WebShop@64fa2a5:web_agent_site/engine/goal.py).

use crate::goals::{Goal, GoalOptions};
use crate::product::Product;
use crate::ratio::token_set_ratio;
use regex::Regex;
use rolegraft_python::str_repr;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// Likeness above which words are the same, in percent.
const ALIKE: u32 = 85;

#[derive(Deserialize, Default)]
struct Words {
    /// Colours in the order in which they are looked for.
    colors: Vec<String>,
    function_words: BTreeSet<String>,
    adjectives: BTreeSet<String>,
}

fn words() -> &'static Words {
    static WORDS: LazyLock<Words> =
        LazyLock::new(|| serde_json::from_str(include_str!("../data/words.json")).unwrap_or_default());
    &WORDS
}

/// The first colour that a text holds, else the text.
#[must_use]
pub fn normalize_color(text: &str) -> &str {
    words().colors.iter().find(|color| text.contains(color.as_str())).map_or(text, String::as_str)
}

/// Nouns of a title without a tagger: its words but for those with digits, function words and common adjectives.
#[must_use]
pub fn nouns(title: &str) -> Vec<String> {
    static WORD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[\p{L}\p{N}]+(?:[.'][\p{L}\p{N}]+)*").ok());
    let known = words();
    let found = WORD.as_ref().into_iter().flat_map(|word| word.find_iter(title)).map(|m| m.as_str().to_lowercase());
    found
        .filter(|word| !word.chars().any(|c| c.is_numeric()))
        .filter(|word| !known.function_words.contains(word) && !known.adjectives.contains(word))
        .collect()
}

/// What a purchase is worth, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Reward {
    /// Between 0 and 1.
    pub total: f64,
    /// Upstream's record of it.
    pub info: Value,
}

fn matches_attribute(product: &Product, wanted: &str) -> bool {
    product.attributes.iter().any(|attribute| token_set_ratio(attribute, wanted) > ALIKE)
        || product.title.to_lowercase().contains(wanted)
        || product.bullets.join(" ").to_lowercase().contains(wanted)
        || product.description.to_lowercase().contains(wanted)
}

/// Wanted options as they are compared.
fn wanted(options: &GoalOptions) -> Vec<String> {
    match options {
        GoalOptions::List(values) => values.iter().map(|value| normalize_color(value).to_owned()).collect(),
        GoalOptions::Named(pairs) => {
            let pair = |(name, value): &(String, String)| {
                let color = words().colors.iter().find(|color| *color == name || *color == value);
                color.cloned().unwrap_or_else(|| format!("({}, {})", str_repr(name), str_repr(value)))
            };
            pairs.iter().map(pair).collect()
        }
    }
}

/// What buying `product` at `price` with the chosen options is worth to someone who wants `goal`. Nouns are those of the product's
/// and of the goal's title.
#[must_use]
pub fn reward(
    product: &Product,
    goal: &Goal,
    price: f64,
    chosen: &[(String, String)],
    bought: &[String],
    asked: &[String],
) -> Reward {
    let query_match = product.query == goal.query;
    let path = |text: &str| text.split('›').map(|part| part.trim().to_owned()).collect::<BTreeSet<_>>();
    let shared = path(&product.product_category).intersection(&path(&goal.product_category)).count();
    let category_match = shared >= 2;
    let bought: BTreeSet<&String> = bought.iter().collect();
    let common = asked.iter().collect::<BTreeSet<_>>().intersection(&bought).count();
    let title_score = if asked.is_empty() { 0.2 } else { common as f64 / asked.len() as f64 };
    let mut r_type = 1.0;
    if !(query_match || category_match || title_score > 0.2) {
        r_type = 0.5;
    }
    if title_score < 0.1 {
        r_type = 0.1;
    }
    if title_score == 0.0 {
        r_type = 0.0;
    }
    let r_price = price <= goal.price_upper;
    let attributes = goal.attributes.iter().filter(|wanted| matches_attribute(product, wanted)).count();
    let wanted = wanted(&goal.options);
    let values: Vec<&str> = chosen.iter().map(|(_, value)| normalize_color(value)).collect();
    let met = |option: &&String| values.iter().any(|value| token_set_ratio(value, option) > ALIKE);
    let options = wanted.iter().filter(met).count();
    let of = (goal.attributes.len() + wanted.len() + 1) as f64;
    let total = (attributes + options + usize::from(r_price)) as f64 / of * r_type;
    let mut info = Map::new();
    info.insert("r_type".into(), r_type.into());
    info.insert("r_att".into(), (attributes as f64 / goal.attributes.len() as f64).into());
    info.insert("w_att".into(), (goal.attributes.len() as f64 / of).into());
    info.insert("query_match".into(), query_match.into());
    info.insert("category_match".into(), category_match.into());
    info.insert("title_score".into(), title_score.into());
    if !wanted.is_empty() {
        info.insert("r_option".into(), json!(options as f64 / wanted.len() as f64));
        info.insert("w_option".into(), json!(wanted.len() as f64 / of));
    }
    info.insert("r_price".into(), r_price.into());
    info.insert("w_price".into(), json!(1.0 / of));
    Reward { total, info: info.into() }
}
