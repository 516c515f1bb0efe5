//! What shoppers want, in upstream's order (princeton-nlp/WebShop@64fa2a5:web_agent_site/engine/goal.py).

use crate::product::Product;
use crate::random::Random;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// The generator's seed before goals are shuffled.
const SHUFFLE_SEED: u64 = 233;
/// What a price may stay below when nothing is said of it, in dollars.
const ANY_PRICE: f64 = 1_000_000.0;

/// Options that a goal asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GoalOptions {
    /// Values alone, as people wrote them down.
    List(Vec<String>),
    /// Names and values, as synthetic goals have them.
    Named(Vec<(String, String)>),
}

/// What a shopper wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// The product it was made from.
    pub asin: String,
    /// Its department.
    #[serde(default)]
    pub category: String,
    /// The search that found it.
    pub query: String,
    /// Its title.
    pub name: String,
    /// Its path of departments.
    pub product_category: String,
    /// What the shopper says.
    #[serde(default)]
    pub instruction_text: String,
    /// What has to hold of a product.
    pub attributes: Vec<String>,
    /// The highest price, in dollars.
    pub price_upper: f64,
    /// Options.
    #[serde(rename = "goal_options")]
    pub options: GoalOptions,
    /// How much it counts.
    #[serde(default)]
    pub weight: f64,
}

impl Goal {
    /// What was made from a product.
    fn of(product: &Product, text: String, attributes: &[String], price_upper: f64, options: GoalOptions) -> Self {
        Self {
            asin: product.asin.clone(),
            category: product.category.clone(),
            query: product.query.clone(),
            name: product.title.clone(),
            product_category: product.product_category.clone(),
            instruction_text: text,
            attributes: attributes.to_vec(),
            price_upper,
            options,
            weight: 1.0,
        }
    }
}

/// An instruction of `items_human_ins.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct HumanInstruction {
    instruction: String,
    #[serde(default)]
    instruction_attributes: Vec<String>,
    #[serde(default)]
    instruction_options: Vec<String>,
}

/// A product's price: fixed, or drawn between two ends.
pub fn price(pricing: &[f64], random: &mut Random) -> f64 {
    match pricing {
        [] => 100.0,
        [one] => *one,
        [a, b, ..] => random.uniform(*a, *b),
    }
}

/// The highest price of a goal, and what is said of it.
fn upper(price: f64, random: &mut Random) -> (f64, String) {
    let above: Vec<f64> = (1..100).map(|ten| f64::from(ten) * 10.0).filter(|bound| *bound > price).take(4).collect();
    match random.two(&above) {
        Some((a, b)) => (a.max(b), format!(", and price lower than {:.2} dollars", a.max(b))),
        None => (ANY_PRICE, String::new()),
    }
}

fn shuffled(mut goals: Vec<Goal>) -> Vec<Goal> {
    Random::seeded(SHUFFLE_SEED).shuffle(&mut goals);
    goals
}

/// Goals that people wrote, in upstream's shuffled order. `products` are those with instructions, in the catalogue's order, each with
/// its price.
#[must_use]
pub fn human_goals(
    products: &[(Product, f64)],
    instructions: &HashMap<String, Vec<HumanInstruction>>,
    random: &mut Random,
) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (product, price) in products {
        for instruction in instructions.get(&product.asin).into_iter().flatten() {
            if instruction.instruction_attributes.is_empty() {
                continue;
            }
            let (price_upper, said) = upper(*price, random);
            let text = format!("{}{said}", instruction.instruction.trim_matches('.'));
            let options = GoalOptions::List(instruction.instruction_options.clone());
            goals.push(Goal::of(product, text, &instruction.instruction_attributes, price_upper, options));
        }
    }
    shuffled(goals)
}

/// Every choice of one value a menu, the last menu varying fastest.
fn choices(menus: &[(String, Vec<String>)]) -> Vec<Vec<(String, String)>> {
    menus.iter().fold(vec![Vec::new()], |chosen, (name, values)| {
        let with = |before: &Vec<(String, String)>| {
            let one = |value: &String| [before.clone(), vec![(name.clone(), value.clone())]].concat();
            values.iter().map(one).collect::<Vec<_>>()
        };
        chosen.iter().flat_map(with).collect()
    })
}

/// Goals made from products' own instructions, in upstream's shuffled order.
#[must_use]
pub fn synthetic_goals(products: &[(Product, f64)], random: &mut Random) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (product, price) in products {
        let Some((instruction, attributes)) = &product.instruction else { continue };
        if attributes.is_empty() {
            continue;
        }
        let (price_upper, said) = upper(*price, random);
        let mut menus = product.options.clone();
        menus.sort();
        for options in choices(&menus) {
            let named: Vec<String> = options.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            let with = if named.is_empty() { String::new() } else { format!(" with {}", named.join(", and ")) };
            for attribute in attributes {
                *counts.entry(attribute.clone()).or_default() += 1;
            }
            let text = format!("{instruction}{with}{said}");
            goals.push(Goal::of(product, text, attributes, price_upper, GoalOptions::Named(options)));
        }
    }
    for goal in &mut goals {
        let sum: f64 = goal.attributes.iter().map(|a| 1.0 / counts[a] as f64).sum();
        goal.weight = sum / goal.attributes.len() as f64;
    }
    shuffled(goals)
}
