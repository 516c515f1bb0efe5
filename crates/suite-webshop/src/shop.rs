//! The shop's pages as text (princeton-nlp/WebShop@64fa2a5:web_agent_site/envs/web_agent_text_env.py and templates).

use crate::catalogue::Catalogue;
use crate::goals::Goal;
use crate::product::{Product, float};
use crate::reward::{Reward, nouns, reward};
use regex::Regex;
use rolegraft_python::{str_repr, strip};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

/// Products of a page of results.
const PAGE: usize = 10;

/// Where a shopper is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Home,
    Results,
    Item,
    Sub(&'static str),
    Done,
}

/// What a click does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Button,
    Product,
    /// Of a menu.
    Option(String),
}

/// Pages about a product, by the key that opens them.
const SUBS: [(&str, &str); 4] =
    [("description", "Description"), ("features", "Features"), ("reviews", "Reviews"), ("attributes", "Attributes")];

/// Splits an action into its name and its argument, if it has one: `name[argument]`.
#[must_use]
pub fn parse_action(action: &str) -> (&str, Option<&str>) {
    static ACTION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\A(.+)\[(.+)\]").ok());
    let found = ACTION.as_ref().and_then(|a| a.captures(action));
    let part = |i: usize| found.as_ref().and_then(|f| f.get(i)).map(|m| m.as_str());
    match (part(1), part(2)) {
        (Some(name), Some(argument)) => (name, Some(argument)),
        _ => (action, None),
    }
}

/// What can be done on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Available {
    /// Whether there is a search bar.
    pub has_search_bar: bool,
    /// What can be clicked, in the page's order.
    pub clickables: Vec<String>,
}

impl Available {
    /// As Python prints it.
    #[must_use]
    pub fn repr(&self) -> String {
        let bar = if self.has_search_bar { "True" } else { "False" };
        let keys: Vec<String> = self.clickables.iter().map(|key| str_repr(key)).collect();
        format!("{{'has_search_bar': {bar}, 'clickables': [{}]}}", keys.join(", "))
    }
}

/// What came of an action.
#[derive(Debug, Clone, PartialEq)]
pub struct Stepped {
    /// Whether the page was left, or anything on it chosen.
    pub acted: bool,
    /// What the purchase is worth, if one was made.
    pub reward: Option<Reward>,
}

/// A shopper's session.
pub struct Session {
    catalogue: Arc<Catalogue>,
    goal: Goal,
    page: Page,
    keywords: Option<Vec<String>>,
    page_number: Option<usize>,
    /// How many products the search found, and those on the page of results.
    found: usize,
    shown: Vec<Product>,
    product: Option<(Product, f64)>,
    visited: BTreeSet<String>,
    options: Vec<(String, String)>,
    actions: BTreeMap<String, u64>,
    reward: f64,
}

impl Session {
    /// Begins on the home page.
    #[must_use]
    pub fn new(catalogue: Arc<Catalogue>, goal: Goal) -> Self {
        Self {
            catalogue,
            goal,
            page: Page::Home,
            keywords: None,
            page_number: None,
            found: 0,
            shown: Vec::new(),
            product: None,
            visited: BTreeSet::new(),
            options: Vec::new(),
            actions: BTreeMap::new(),
            reward: 0.0,
        }
    }

    /// The session as upstream keeps it.
    #[must_use]
    pub fn record(&self) -> Value {
        let options: serde_json::Map<String, Value> =
            self.options.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        json!({
            "keywords": self.keywords, "page": self.page_number,
            "asin": self.product.as_ref().map(|(product, _)| &product.asin),
            "asins": self.visited, "options": options, "actions": self.actions,
        })
    }

    fn targets(&self) -> Vec<(String, Target)> {
        let mut out: Vec<(String, Target)> = Vec::new();
        let mut put = |key: String, target: Target| match out.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = target,
            None => out.push((key, target)),
        };
        let buttons: &[&str] = match self.page {
            Page::Home => &["search"],
            Page::Results if self.page_number.unwrap_or(1) > 1 => &["back to search", "< prev", "next >"],
            Page::Results => &["back to search", "next >"],
            Page::Item => &["back to search", "< prev", "description", "features", "reviews", "buy now"],
            Page::Sub(_) => &["back to search", "< prev"],
            Page::Done => &[],
        };
        for button in buttons {
            put((*button).to_owned(), Target::Button);
        }
        match (self.page, &self.product) {
            (Page::Results, _) => {
                for product in &self.shown {
                    put(product.asin.to_lowercase(), Target::Product);
                }
            }
            (Page::Item, Some((product, _))) => {
                for (menu, values) in &product.options {
                    for value in values {
                        put(value.clone(), Target::Option(menu.clone()));
                    }
                }
            }
            _ => {}
        }
        out
    }

    /// What can be done now.
    #[must_use]
    pub fn available(&self) -> Available {
        let clickables = self.targets().into_iter().map(|(key, _)| key).collect();
        Available { has_search_bar: self.page == Page::Home, clickables }
    }

    /// The page's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut nodes: Vec<String> = Vec::new();
        let mut node = |text: &str| {
            let text = strip(text);
            if !text.is_empty() {
                nodes.push(text.to_owned());
            }
        };
        let instruction = &self.goal.instruction_text;
        if self.page == Page::Home {
            node("WebShop");
        }
        if self.page != Page::Done {
            node("Instruction:");
            node(instruction);
        }
        match (self.page, &self.product) {
            (Page::Home, _) => node("Search"),
            (Page::Results, _) => {
                let number = self.page_number.unwrap_or(1);
                node("Back to Search");
                node(&format!("Page {number} (Total results: {})", self.found));
                if number > 1 {
                    node("< Prev");
                }
                node("Next >");
                for product in &self.shown {
                    node(&product.asin);
                    node(&product.title);
                    node(&product.price_tag);
                }
            }
            (Page::Item, Some((product, _))) => {
                node("Back to Search");
                node("< Prev");
                for (menu, values) in &product.options {
                    node(menu);
                    values.iter().for_each(|value| node(value));
                }
                node(&product.title);
                node(&format!("Price: {}", product.price_tag));
                for text in ["Rating: N.A.", "Description", "Features", "Reviews", "Buy Now"] {
                    node(text);
                }
            }
            (Page::Sub(name), Some((product, _))) => {
                node("Back to Search");
                node("< Prev");
                match name {
                    "Description" => node(&product.description),
                    "Features" => nodes.extend(product.bullets.iter().map(|b| strip(b).to_owned())),
                    "Attributes" => product.attributes.iter().for_each(|attribute| node(attribute)),
                    _ => {}
                }
            }
            (Page::Done, Some((product, _))) => {
                for text in [
                    "Thank you for shopping with us!",
                    "Your code:",
                    "None",
                    "(Paste it in your MTurk interface.)",
                    "Purchased",
                    "asin",
                    &product.asin,
                    "options",
                    &html_json(&self.options),
                    "attrs",
                    "None",
                    "category",
                    "None",
                    "query",
                    "None",
                    "product category",
                    "None",
                    "Target",
                    "asin",
                    "options",
                    "attrs",
                    "price upper",
                    "instuction text",
                    "category",
                    "product category",
                    "query",
                    "Goal",
                    "None",
                    "Reward",
                    "Your score (min 0.0, max 1.0)",
                    &float(self.reward),
                    "Reward Details",
                    "None",
                ] {
                    node(text);
                }
            }
            _ => {}
        }
        nodes.join(" [SEP] ")
    }

    fn count(&mut self, what: &str) {
        *self.actions.entry(what.to_owned()).or_default() += 1;
    }

    /// Shows a page of results, from which nothing is chosen yet.
    fn results(&mut self, page_number: usize) {
        let found = self.catalogue.found(self.keywords.as_deref().unwrap_or_default());
        let on_page = found.iter().skip((page_number - 1).saturating_mul(PAGE)).take(PAGE);
        self.shown = on_page.filter_map(|document| self.catalogue.product(*document)).collect();
        self.found = found.len();
        (self.page, self.page_number, self.product) = (Page::Results, Some(page_number), None);
        self.options.clear();
        self.count("search");
    }

    /// Takes an action.
    pub fn step(&mut self, action: &str) -> Stepped {
        let nothing = Stepped { acted: false, reward: None };
        let (name, argument) = parse_action(action);
        let Some(argument) = argument.map(str::to_lowercase).filter(|a| !a.is_empty()) else { return nothing };
        if name == "search" {
            self.keywords = Some(argument.split(' ').map(str::to_owned).collect());
            self.results(1);
            return Stepped { acted: true, reward: None };
        }
        if name != "click" || argument == "search" {
            return nothing;
        }
        let Some((_, target)) = self.targets().into_iter().find(|(key, _)| *key == argument) else { return nothing };
        Stepped { acted: true, reward: self.click(&argument, target) }
    }

    fn click(&mut self, key: &str, target: Target) -> Option<Reward> {
        let sub = SUBS.iter().find(|(name, _)| *name == key).map(|(_, page)| *page);
        match (key, self.page) {
            ("buy now", _) => {
                let (product, price) = self.product.clone()?;
                let asked = self.catalogue.find(&self.goal.asin).map(|(wanted, _)| self.catalogue.nouns(&wanted));
                let asked = asked.unwrap_or_else(|| nouns(&self.goal.name));
                let bought = self.catalogue.nouns(&product);
                let worth = reward(&product, &self.goal, price, &self.options, &bought, &asked);
                self.count("purchase");
                (self.page, self.reward) = (Page::Done, worth.total);
                return Some(worth);
            }
            ("back to search", _) => {
                (self.page, self.keywords, self.page_number, self.product) = (Page::Home, None, None, None);
                self.visited.clear();
                self.options.clear();
                self.actions.clear();
            }
            ("next >", Page::Results) => self.results(self.page_number.unwrap_or(1) + 1),
            ("< prev", Page::Results) => self.results(self.page_number.unwrap_or(2).max(2) - 1),
            ("< prev", Page::Item) => self.results(self.page_number.unwrap_or(1)),
            ("< prev", Page::Sub(_)) => self.page = Page::Item,
            _ if sub.is_some() => {
                let name = sub.unwrap_or_default();
                self.count(name);
                self.page = Page::Sub(name);
            }
            _ => match target {
                Target::Product => {
                    self.product = self.catalogue.find(&key.to_uppercase());
                    self.visited.insert(key.to_uppercase());
                    self.count("asin");
                    self.page = Page::Item;
                }
                Target::Option(menu) => {
                    match self.options.iter_mut().find(|(known, _)| *known == menu) {
                        Some((_, value)) => key.clone_into(value),
                        None => self.options.push((menu, key.to_owned())),
                    }
                    self.count("options");
                }
                Target::Button => {}
            },
        }
        None
    }
}

/// Chosen options as Jinja's `tojson` writes them into a page.
fn html_json(options: &[(String, String)]) -> String {
    let sorted: BTreeMap<&String, &String> = options.iter().map(|(name, value)| (name, value)).collect();
    let text = |text: &str| {
        let quoted = Value::from(text).to_string();
        let mut out = String::new();
        for c in quoted.chars() {
            match c {
                '<' | '>' | '&' | '\'' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                '\x7f' => out.push(c),
                c if c.is_ascii() => out.push(c),
                c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
            }
        }
        out
    };
    let pairs: Vec<String> =
        sorted.into_iter().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect();
    format!("{{{}}}", pairs.join(", "))
}
