//! WebShop tasks: search, the right product of three, its size, the purchase. Each task brings its own shop.

use super::draft::Draft;
use crate::words::Entities;
use serde_json::json;

const MATERIALS: [&str; 6] = ["linen", "cotton", "wool", "silk", "denim", "leather"];
const THINGS: [&str; 6] = ["boots", "shirt", "scarf", "jacket", "hat", "bag"];
const SIZES: [&str; 3] = ["small", "medium", "large"];
/// Between parts of a page.
const SEP: &str = " [SEP] ";

struct Item {
    asin: String,
    title: String,
    price: String,
}

pub(super) fn task(e: &mut Entities<'_>) -> Draft {
    let (brand, thing) = (e.word(), *e.rng.pick(&THINGS));
    let first = e.rng.below(MATERIALS.len());
    let mut items: Vec<Item> = (0..3)
        .map(|i| {
            let material = MATERIALS[(first + i) % MATERIALS.len()];
            let title = format!("{brand} {material} {thing}");
            Item { asin: format!("B{}", e.number(4)), title, price: e.number(2) }
        })
        .collect();
    // Equal scores are shown in the order of ids.
    items.sort_by(|a, b| a.asin.cmp(&b.asin));
    items.dedup_by(|a, b| a.asin == b.asin);
    let chosen = e.rng.below(items.len());
    let size = *e.rng.pick(&SIZES);
    let wanted = &items[chosen];
    let material = wanted.title.split(' ').nth(1).unwrap_or_default().to_owned();
    let instruction = format!("I need {brand} {thing} of {material} in size {size}.");
    let results: Vec<String> =
        items.iter().map(|item| format!("{}{SEP}{}{SEP}${}.0", item.asin, item.title, item.price)).collect();
    let head = format!("Observation:\nInstruction:{SEP}{instruction}{SEP}Back to Search{SEP}");
    let found = format!("{head}Page 1 (Total results: {}){SEP}Next >{SEP}{}", items.len(), results.join(SEP));
    let page = format!(
        "{head}< Prev{SEP}size{SEP}{}{SEP}{}{SEP}Price: ${}.0{SEP}Rating: N.A.{SEP}Description{SEP}Features{SEP}Reviews{SEP}Buy Now",
        SIZES.join(SEP),
        wanted.title,
        wanted.price
    );
    let products: Vec<_> = items
        .iter()
        .map(|item| {
            json!({"asin": item.asin, "name": item.title, "pricing": format!("${}", item.price), "category": "fashion",
                "query": thing, "product_category": "Clothing", "customization_options":
                {"size": SIZES.map(|size| json!({"value": size}))}})
        })
        .collect();
    let goal = json!({"asin": wanted.asin, "query": thing, "name": wanted.title, "product_category": "Clothing",
        "instruction_text": instruction, "attributes": [material], "price_upper": 100.0, "goal_options": [size]});
    let act = |thought: &str, action: String| format!("Thought:\n{thought}\n\nAction:\n{action}");
    Draft {
        request: format!("Observation:\nWebShop{SEP}Instruction:{SEP}{instruction}{SEP}Search"),
        turns: vec![
            (act("I search for it.", format!("search[{brand} {thing}]")), Some(found)),
            (act("I take the right one.", format!("click[{}]", wanted.asin)), Some(page.clone())),
            (act("I choose the size.", format!("click[{size}]")), Some(page)),
            (act("I buy it.", "click[Buy Now]".into()), None),
        ],
        fields: json!({"catalogue": products, "goal": goal}),
    }
}
