//! Products as the shop shows them (princeton-nlp/WebShop@64fa2a5:web_agent_site/engine/engine.py, `load_products`).

use rolegraft_python::Object;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What stands for the attributes of a product that has none.
const NO_ATTRIBUTES: &str = "DUMMY_ATTR";
/// The price of a product without one, in dollars.
const NO_PRICE: f64 = 100.0;

/// A product of `items_shuffle.json`, as far as it is used.
#[derive(Debug, Clone, Deserialize)]
pub struct RawProduct {
    /// Its id.
    pub asin: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    full_description: Option<String>,
    #[serde(default)]
    small_description: Value,
    #[serde(default)]
    pricing: Option<String>,
    #[serde(default)]
    customization_options: Value,
    #[serde(default)]
    category: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    product_category: String,
    #[serde(default)]
    images: Value,
}

/// What `items_ins_v2.json` says of a product.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RawAttributes {
    #[serde(default)]
    attributes: Option<Vec<String>>,
    #[serde(default)]
    instruction: Option<String>,
    #[serde(default)]
    instruction_attributes: Option<Vec<String>>,
}

/// A menu of a product's page: its name, and its values.
pub type Menu = (String, Vec<String>);

/// A product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// Its id.
    pub asin: String,
    /// Its title.
    pub title: String,
    /// Its description.
    pub description: String,
    /// Its features.
    pub bullets: Vec<String>,
    /// One price, or two ends of a range, in dollars.
    pub pricing: Vec<f64>,
    /// The price as shown.
    pub price_tag: String,
    /// Its menus.
    pub options: Vec<Menu>,
    /// Images of menus' values.
    pub option_images: Vec<(String, Value)>,
    /// What is said to hold of it.
    pub attributes: Vec<String>,
    /// The search that found it.
    pub query: String,
    /// Its department.
    pub category: String,
    /// Its path of departments.
    pub product_category: String,
    /// Its main picture.
    pub image: String,
    /// A synthetic instruction that asks for it, and the attributes that it names.
    #[serde(default)]
    pub instruction: Option<(String, Vec<String>)>,
    /// Nouns of its title, where a tagger's are known.
    #[serde(default)]
    pub nouns: Option<Vec<String>>,
}

/// Python's `repr` of a float.
#[must_use]
pub fn float(x: f64) -> String {
    Object::from(&Value::from(x)).repr()
}

/// Prices, and how they are shown.
fn pricing(text: Option<&str>) -> (Vec<f64>, String) {
    let text = text.unwrap_or_default();
    if text.is_empty() {
        return (vec![NO_PRICE], format!("${}", float(NO_PRICE)));
    }
    let price = |part: &str| {
        let digits: String = part.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
        digits.parse::<f64>().ok()
    };
    let mut prices: Vec<f64> = text.split('$').skip(1).filter_map(price).collect();
    let tag = match &prices[..] {
        [] => String::new(),
        [one] => format!("${}", float(*one)),
        [a, b, ..] => format!("${} to ${}", float(*a), float(*b)),
    };
    prices.truncate(2);
    (prices, tag)
}

/// Menus, and the images of their values.
fn menus(raw: &Value) -> (Vec<Menu>, Vec<(String, Value)>) {
    let mut options: Vec<Menu> = Vec::new();
    let mut images = Map::new();
    for (name, content) in raw.as_object().into_iter().flatten() {
        let Some(values) = content.as_array() else { continue };
        let name = name.to_lowercase();
        let mut shown = Vec::new();
        for value in values {
            let text = value["value"].as_str().unwrap_or_default().trim().replace('/', " | ").to_lowercase();
            images.insert(text.clone(), value.get("image").cloned().unwrap_or(Value::Null));
            shown.push(text);
        }
        match options.iter_mut().find(|(known, _)| *known == name) {
            Some(menu) => menu.1 = shown,
            None => options.push((name, shown)),
        }
    }
    (options, images.into_iter().collect())
}

impl Product {
    /// A product with what is known of it; none if upstream skips it, but for an id it has seen.
    #[must_use]
    pub fn load(raw: RawProduct, more: Option<&RawAttributes>) -> Option<Self> {
        if raw.asin == "nan" || raw.asin.chars().count() > 10 {
            return None;
        }
        let bullets = match raw.small_description {
            Value::Array(items) => items.into_iter().map(|b| b.as_str().unwrap_or_default().to_owned()).collect(),
            Value::String(one) => vec![one],
            _ => Vec::new(),
        };
        let (pricing, price_tag) = pricing(raw.pricing.as_deref());
        let (options, option_images) = menus(&raw.customization_options);
        let attributes = more.and_then(|m| m.attributes.clone()).unwrap_or_else(|| vec![NO_ATTRIBUTES.to_owned()]);
        let instruction = more.and_then(|m| Some((m.instruction.clone()?, m.instruction_attributes.clone()?)));
        Some(Self {
            asin: raw.asin,
            title: raw.name,
            description: raw.full_description.unwrap_or_default(),
            bullets,
            pricing,
            price_tag,
            options,
            option_images,
            attributes,
            query: raw.query.to_lowercase().trim().to_owned(),
            category: raw.category,
            product_category: raw.product_category,
            image: raw.images[0].as_str().unwrap_or_default().to_owned(),
            instruction,
            nouns: None,
        })
    }

    /// The text that searches look through.
    #[must_use]
    pub fn contents(&self) -> String {
        let options: Vec<String> =
            self.options.iter().map(|(name, values)| format!("{name}: {}", values.join(", "))).collect();
        let bullet = self.bullets.first().map_or("", String::as_str);
        format!("{} {} {bullet} {}", self.title, self.description, options.join(", and ")).to_lowercase()
    }
}
