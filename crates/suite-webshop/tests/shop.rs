//! Searches that pass over what cannot win, catalogues that are wrong, and what a hostile agent types.
#![allow(missing_docs)]

use proptest::prelude::*;
use rolegraft_suite_webshop::{
    Catalogue, Goal, GoalOptions, Random, RawProduct, Session, Settings, analyzer, parse_action, token_set_ratio,
};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

const WORDS: [&str; 12] =
    ["red", "shirt", "cotton", "women", "soft", "boot", "lamp", "oak", "large", "light", "modern", "travel"];

/// Products whose words are drawn so that some are in nearly all and some in few.
fn products(count: u32) -> Vec<RawProduct> {
    let mut random = Random::seeded(5);
    let word = |random: &mut Random| WORDS[(random.below(12) * random.below(12) / 11) as usize];
    let mut one = |i: u32| {
        let mut text = |count: u32| (0..count).map(|_| word(&mut random)).collect::<Vec<_>>().join(" ");
        json!({"asin": format!("B{:06}", (i * 7919) % 1_000_003), "name": text(3 + i % 9), "full_description": text(i % 40),
               "small_description": [text(4)], "pricing": "$5.00", "query": "q", "category": "c", "product_category": "a › b",
               "customization_options": {"Size": [{"value": "S/M"}, {"value": "buy now"}]}})
    };
    (0..count).map(|i| serde_json::from_value(one(i)).unwrap()).collect()
}

#[test]
fn nothing_that_counts_is_passed_over() {
    let catalogue = Catalogue::of(products(5_000)).unwrap();
    let mut random = Random::seeded(9);
    for _ in 0..200 {
        let count = 1 + random.below(5);
        let query = (0..count).map(|_| WORDS[random.below(12) as usize]).collect::<Vec<_>>().join(" ");
        let all = catalogue.search(&query, 10_000);
        for k in [1, 7, 50] {
            let best = catalogue.search(&query, k);
            assert_eq!(best, all[..k.min(all.len())], "{query}");
        }
        let ordered = all.windows(2).all(|pair| pair[0].score >= pair[1].score);
        assert!(ordered && all.len() > 50, "{query}");
    }
    assert!(catalogue.search("the of and", 50).is_empty() && catalogue.search("unknown", 50).is_empty());
}

fn goal() -> Goal {
    Goal {
        asin: "B000000".into(),
        category: "c".into(),
        query: "q".into(),
        name: "red shirt".into(),
        product_category: "a › b".into(),
        instruction_text: "i want it".into(),
        attributes: vec!["cotton".into()],
        price_upper: 10.0,
        options: GoalOptions::List(vec!["s | m".into()]),
        weight: 1.0,
    }
}

#[test]
fn a_value_that_is_named_like_a_button_is_the_button() {
    let catalogue = Arc::new(Catalogue::of(products(3)).unwrap());
    let mut session = Session::new(catalogue, goal());
    assert!(session.text().starts_with("WebShop [SEP] Instruction: [SEP] i want it"));
    assert!(session.step("search[red shirt cotton]").acted);
    let link = session.available().clickables[2].clone();
    assert!(session.step(&format!("click[{}]", link.to_uppercase())).acted);
    assert!(session.step("click[S | M]").acted);
    assert!(!session.step("click[large]").acted && !session.step("think[x]").acted);
    let reward = session.step("click[Buy Now]").reward.unwrap();
    assert!(reward.info["r_price"] == true && session.text().contains(r#"{"size": "s | m"}"#), "{}", session.text());
    assert!(!session.step("click[back to search]").acted);
}

fn wrong(folder: &Path, file: &str, text: &str) -> String {
    for (name, fine) in [("items_shuffle.json", "[]"), ("items_ins_v2.json", "{}"), ("items_human_ins.json", "{}")] {
        std::fs::write(folder.join(name), if name == file { text } else { fine }).unwrap();
    }
    let error = Catalogue::open(folder, &Settings::default(), &|_| {}).unwrap_err();
    assert!(!folder.join("items_shuffle.index").exists());
    let left = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(left, 3, "something is left behind");
    error.to_string()
}

#[test]
fn a_broken_catalogue_is_named_and_leaves_no_index() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Catalogue::open(folder.path(), &Settings::default(), &|_| {}).unwrap_err().to_string();
    assert!(missing.contains("items_shuffle.json") && missing.contains("1A2whVgOO0euk5O13n2iYDM0bQRkkRduB"));
    for (file, text) in [
        ("items_shuffle.json", "[{\"asin\": \"B1\"}, {\"asin\": 7}]"),
        ("items_shuffle.json", "[{\"asin\": \"B1\"}"),
        ("items_ins_v2.json", "[]"),
    ] {
        assert!(wrong(folder.path(), file, text).contains(file), "{file}");
    }
}

#[test]
fn an_index_is_made_once_and_again_when_the_files_change() {
    let folder = tempfile::tempdir().unwrap();
    let write = |count: usize| {
        let items: Vec<Value> = (0..count).map(|i| json!({"asin": format!("B{i}"), "name": "red lamp"})).collect();
        std::fs::write(folder.path().join("items_shuffle.json"), Value::from(items).to_string()).unwrap();
        std::fs::write(folder.path().join("items_ins_v2.json"), "{}").unwrap();
        std::fs::write(folder.path().join("items_human_ins.json"), "{}").unwrap();
    };
    let open = || Catalogue::open(folder.path(), &Settings::default(), &|_| {}).unwrap().len();
    let made = || std::fs::metadata(folder.path().join("items_shuffle.index")).unwrap().modified().unwrap();
    write(3);
    assert_eq!(open(), 3);
    let first = made();
    assert_eq!((open(), made()), (3, first));
    write(4);
    assert_eq!(open(), 4);
    // A file that is cut off is not believed.
    let index = folder.path().join("items_shuffle.index");
    let bytes = std::fs::read(&index).unwrap();
    std::fs::write(&index, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(open(), 4);
}

proptest! {
    #[test]
    fn no_action_panics(actions in proptest::collection::vec("(search|click|[a-z]{0,4})\\[[ -~é\u{4e00}<>]{0,20}\\]", 1..12)) {
        let catalogue = Arc::new(Catalogue::of(products(30)).unwrap());
        let mut session = Session::new(catalogue, goal());
        for action in actions.iter().chain([&"search[red]".to_owned(), &"click[next >]".to_owned(), &"click[< prev]".to_owned()]) {
            session.step(action);
            prop_assert!(!session.available().repr().is_empty());
            let _ = session.record();
        }
        prop_assert!(session.text().len() < 100_000);
    }

    #[test]
    fn any_text_is_read(text in "\\PC{0,60}", other in "\\PC{0,60}") {
        let _ = analyzer::terms(&text);
        let _ = parse_action(&text);
        prop_assert!(token_set_ratio(&text, &other) <= 100);
        let same = token_set_ratio(&text, &text);
        prop_assert!(same == 100 || same == 0);
    }
}
