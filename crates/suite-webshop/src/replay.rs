//! Recordings of WebShop's text environment, and of AgentBench's loop around it.

use crate::{
    Catalogue, FORMAT, Goal, Product, Prompts, Random, RawProduct, Session, Settings, WebShopSuite, analyzer,
    normalize_color, nouns, parse_action, reward, token_set_ratio,
};
use rolegraft_python::Object;
use rolegraft_spans::Format;
use rolegraft_suite::recordings::{Replayed, Report, UnreadableError, cases, same, spoken, text};
use rolegraft_suite::{AgentBenchProtocol, Environment, Limits, Suite, Task, history};
use rolegraft_trajectory::{Message, Shown, Status};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rounds of an episode.
const ROUNDS: usize = 10;
/// The seed that recordings drew prices with, where nothing else is said.
pub(crate) const RECORDED_PRICES: u64 = 7;
/// How far recorded scores of a search may be off: the recorder breaks ties by small amounts.
const SCORES: f64 = 2e-3;

/// Replays recorded steps. `data` holds the catalogue.
///
/// # Errors
/// If the recordings or the catalogue cannot be read.
pub(crate) fn replay(traces: &Path, data: &Path, price_seed: u64) -> Result<Report, UnreadableError> {
    let shop = Shop::open(&Catalogue::folder(data, &Settings::default()), price_seed)?;
    cases(traces, |kind, line, case| {
        Some(Replayed::Compared(match kind {
            "sessions" => shop.session(case),
            "searches" => shop.search(case),
            "rewards" => shop.reward(case),
            "goals_human" => shop.human_goal(line, case),
            "goals_synthetic" => shop.synthetic_goal(case),
            "prices" => shop.price(case),
            "products_loaded" => shop.loaded(case),
            "title_nouns" => shop.nouns(case),
            "analyzer" => same("terms", &case["tokens"], &analyzer::terms(text(case, "text")).into()),
            "token_set_ratio" => {
                same("ratio", &case["score"], &token_set_ratio(text(case, "a"), text(case, "b")).into())
            }
            "normalize_color" => same("colour", &case["color"], &normalize_color(text(case, "s")).into()),
            "parse_action" => {
                let (name, argument) = parse_action(text(case, "input"));
                same("name", &case["name"], &name.into())
                    .and_then(|()| same("argument", &case["arg"], &json!(argument)))
            }
            "agentbench_action_regex" => action(case),
            "python_repr" => same("repr", &case["repr"], &Object::from(&case["value"]).repr().into()),
            "python_random" => random(case),
            "agentbench_transcripts" => shop.transcript(case),
            _ => return None,
        }))
    })
}

fn action(case: &Value) -> Result<(), String> {
    let format = Format::builtin(FORMAT).map_err(|e| e.to_string())?;
    let reading = format.read(text(case, "input"), None);
    let got = reading.action().map(|a| format!("{}[{}]", a.name, a.payload.as_str().unwrap_or_default()));
    same("action", &case["action"], &json!(got))
}

/// Shuffles by length, their first and last elements.
fn random(case: &Value) -> Result<(), String> {
    for (length, expected) in case["shuffle_seed_233"].as_object().into_iter().flatten() {
        let mut all: Vec<usize> = (0..length.parse().map_err(|_| "a length is no number")?).collect();
        Random::seeded(233).shuffle(&mut all);
        let count = |part: &str| expected[part].as_array().map_or(0, Vec::len).min(all.len());
        same(length, &expected["head"], &all[..count("head")].into())?;
        same(length, &expected["tail"], &all[all.len() - count("tail")..].into())?;
    }
    let Some(sequence) = case["sequence"].as_object() else { return Ok(()) };
    let mut random = Random::seeded(case["sequence"]["seed"].as_u64().ok_or("no seed")?);
    // One after the other, from one generator.
    for (what, drawn) in sequence {
        for expected in drawn.as_array().into_iter().flatten() {
            let sample = |random: &mut Random, of: &[u32]| json!(random.two(of).map(|(a, b)| [a, b]));
            let got = match what.as_str() {
                "random" => random.random().into(),
                "getrandbits32" => random.bits().into(),
                "uniform" => random.uniform(12.5, 99.99).into(),
                "sample2of4" => sample(&mut random, &[10, 20, 30, 40]),
                "sample2of3" => sample(&mut random, &[10, 20, 30]),
                "sample2of2" => sample(&mut random, &[10, 20]),
                "randbelow10" => random.below(10).into(),
                other => return Err(format!("`{other}` is not known")),
            };
            same(what, expected, &got)?;
        }
    }
    Ok(())
}

/// Both sets of goals, and the products as the files have them.
struct Shop {
    human: Arc<Catalogue>,
    synthetic: Catalogue,
    raw: HashMap<String, Product>,
}

impl Shop {
    fn open(folder: &Path, price_seed: u64) -> Result<Self, UnreadableError> {
        let data = |e: crate::CatalogueError| UnreadableError::Data(e.into());
        let open = |human_goals| {
            let settings = Settings { price_seed, human_goals, ..Settings::default() };
            Catalogue::open(folder, &settings, &|_| {})
        };
        let read = |name: &str| -> Result<Value, UnreadableError> {
            let path: PathBuf = folder.join(name);
            let bytes = std::fs::read(&path).map_err(|source| UnreadableError::Read { path: path.clone(), source })?;
            serde_json::from_slice(&bytes).map_err(|e| UnreadableError::Format { path, reason: e.to_string() })
        };
        let attributes = read("items_ins_v2.json")?;
        let mut raw = HashMap::new();
        for item in read("items_shuffle.json")?.as_array().into_iter().flatten() {
            let product: RawProduct =
                serde_json::from_value(item.clone()).map_err(|e| UnreadableError::Data(e.into()))?;
            let more = attributes.get(&product.asin).and_then(|m| serde_json::from_value(m.clone()).ok());
            if let Some(product) = Product::load(product, more.as_ref()) {
                raw.entry(product.asin.clone()).or_insert(product);
            }
        }
        Ok(Self { human: Arc::new(open(true).map_err(data)?), synthetic: open(false).map_err(data)?, raw })
    }

    fn price(&self, case: &Value) -> Result<(), String> {
        let (_, price) = self.human.find(text(case, "asin")).ok_or("there is no such product")?;
        same("price", &case["price"], &price.into())
    }

    fn nouns(&self, case: &Value) -> Result<(), String> {
        let (product, _) = self.human.find(text(case, "asin")).ok_or("there is no such product")?;
        same("nouns", &case["nouns"], &nouns(&product.title).into())
    }

    fn loaded(&self, case: &Value) -> Result<(), String> {
        let product = self.raw.get(text(case, "asin")).ok_or("there is no such product")?;
        let object = |pairs: &[(String, Value)]| Value::Object(pairs.iter().cloned().collect::<Map<_, _>>());
        let options: Vec<(String, Value)> =
            product.options.iter().map(|(n, v)| (n.clone(), v.clone().into())).collect();
        let got = json!({
            "asin": product.asin, "Title": product.title, "Description": product.description,
            "BulletPoints": product.bullets, "Price": product.price_tag, "pricing": product.pricing,
            "options": object(&options), "option_to_image": object(&product.option_images),
            "Attributes": product.attributes, "query": product.query, "category": product.category,
            "product_category": product.product_category, "Rating": "N.A.", "MainImage": product.image,
        });
        for (field, expected) in case.as_object().into_iter().flatten() {
            same(field, expected, &got[field])?;
        }
        let order = |menus: &Value| menus.as_object().map(|m| m.keys().cloned().collect::<Vec<_>>());
        if order(&case["options"]) != order(&got["options"]) {
            return Err("the menus' order".into());
        }
        Ok(())
    }

    fn human_goal(&self, line: usize, case: &Value) -> Result<(), String> {
        let goal = self.human.goals().get(line).ok_or_else(|| format!("there is no goal {line}"))?;
        fields(case, goal)
    }

    fn synthetic_goal(&self, case: &Value) -> Result<(), String> {
        let goals = self.synthetic.goals();
        same("goals", &case["total"], &goals.len().into())?;
        let number = case["index"].as_u64().unwrap_or(u64::MAX) as usize;
        fields(case, goals.get(number).ok_or_else(|| format!("there is no goal {number}"))?)
    }

    fn search(&self, case: &Value) -> Result<(), String> {
        let k = case["k"].as_u64().unwrap_or(50) as usize;
        let hits = self.human.search(text(case, "query"), k);
        let expected = case["hits"].as_array().map_or(&[][..], Vec::as_slice);
        let got: Vec<(Product, f32)> =
            hits.iter().filter_map(|hit| Some((self.human.product(hit.document)?, hit.score))).collect();
        let ids = |hits: &[Value]| hits.iter().map(|hit| hit[0].clone()).collect::<Vec<_>>();
        let asins: Vec<Value> = got.iter().map(|(product, _)| product.asin.as_str().into()).collect();
        same("ranks", &ids(expected).into(), &asins.into())?;
        for (hit, (product, score)) in expected.iter().zip(&got) {
            if (hit[1].as_f64().unwrap_or(f64::NAN) - f64::from(*score)).abs() > SCORES {
                return Err(format!("{}: expected score {}, got {score}", product.asin, hit[1]));
            }
        }
        Ok(())
    }

    fn reward(&self, case: &Value) -> Result<(), String> {
        let (product, _) = self.human.find(text(case, "asin")).ok_or("there is no such product")?;
        let mut record = case["goal"].clone();
        // Synthetic goals' options are an object.
        if let Some(pairs) = record["goal_options"].as_object() {
            record["goal_options"] = pairs.iter().map(|(name, value)| json!([name, value])).collect();
        }
        let goal: Goal = serde_json::from_value(record).map_err(|e| format!("the goal: {e}"))?;
        let options: Vec<(String, String)> = case["options"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
        let price = case["price"].as_f64().ok_or("no price")?;
        let got = reward(&product, &goal, price, &options, &nouns(&product.title), &nouns(&goal.name));
        same("reward", &plain(&case["reward"]), &got.total.into())?;
        same("info", &case["info"], &got.info)
    }

    fn goal(&self, case: &Value) -> Result<Goal, String> {
        let number = case["goal_index"].as_u64().unwrap_or(u64::MAX) as usize;
        self.human.goals().get(number).cloned().ok_or_else(|| format!("there is no goal {number}"))
    }

    fn session(&self, case: &Value) -> Result<(), String> {
        for search in case["searches"].as_array().into_iter().flatten() {
            self.search(search)?;
        }
        let mut session = Session::new(self.human.clone(), self.goal(case)?);
        page(&session, case, "start")?;
        for (i, step) in case["steps"].as_array().into_iter().flatten().enumerate() {
            let stepped = session.step(text(step, "action"));
            let what = format!("step {i} (`{}`)", text(step, "action"));
            page(&session, step, &what)?;
            let worth = stepped.reward.as_ref().map_or(0.0, |reward| reward.total);
            same(&format!("{what}, reward"), &plain(&step["reward"]), &worth.into())?;
            same(&format!("{what}, done"), &step["done"], &stepped.reward.is_some().into())?;
            if let (Some(expected), Some(reward)) = (step.get("reward_info"), &stepped.reward) {
                same(&format!("{what}, reward's record"), expected, &reward.info)?;
            }
            let mut expected = step["session"].clone();
            if let Some(asins) = expected["asins"].as_array_mut() {
                asins.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            }
            same(&format!("{what}, session"), &expected, &session.record())?;
        }
        Ok(())
    }

    fn transcript(&self, case: &Value) -> Result<(), String> {
        let format = Format::builtin(FORMAT).map_err(|e| e.to_string())?;
        let limits = Limits { turns: ROUNDS, tokens: 0, temperature: 0.0, top_p: 1.0 };
        let (protocol, prompts) = (AgentBenchProtocol::Text, Prompts::upstream().clone());
        let suite = WebShopSuite::new(protocol, format, limits, prompts, Some(self.human.clone()));
        let task = Task { id: text(case, "id").to_owned(), fields: json!({"goal": case["goal_index"]}) };
        let mut episode: Box<dyn Environment> = suite.start(&task).map_err(|e| e.to_string())?;
        let mut messages = episode.open().map_err(|e| e.to_string())?;
        let (mut sent, mut last, mut status) = (Vec::new(), Value::Null, Status::Unknown);
        let mut actions = Vec::new();
        // Where the script ends, the agent's context does.
        for output in case["outputs"].as_array().into_iter().flatten().chain([&Value::Null]) {
            let seen = Shown::all(&messages);
            let (kept, _) = history::kept(&seen);
            sent.push(json!([kept.len(), messages.len() - kept.len()]));
            last = spoken(history::shown(&seen).iter().map(|s| &s.message));
            let Some(reply) = output.as_str() else {
                // upstream compares the wrong constant.
                status = Status::AgentValidationFailed;
                actions.push(Value::Null);
                break;
            };
            messages.push(Message::assistant(reply));
            let step = episode.step(reply).map_err(|e| e.to_string())?;
            let action = step.reading.action();
            let action = action.map(|a| format!("{}[{}]", a.name, a.payload.as_str().unwrap_or_default()));
            actions.push(json!(action));
            messages.extend(step.observations);
            if let Some(ended) = step.ended {
                status = ended;
                break;
            }
        }
        same("status", &case["status"], &status.as_str().replace('_', " ").into())?;
        same("rounds", &case["rounds"], &sent.len().into())?;
        same("actions", &case["actions"], &actions.into())?;
        same("reward", &plain(&case["reward"]), &episode.outcome().reward.into())?;
        same("sent", &case["sent"], &sent.into())?;
        same("what was sent last", &case["sent_last"], &last)?;
        same("history", &case["messages"], &spoken(&messages))
    }
}

/// Compares a goal with what is recorded of it.
fn fields(case: &Value, goal: &Goal) -> Result<(), String> {
    let mut got = serde_json::to_value(goal).map_err(|e| e.to_string())?;
    if case["goal_options"].is_object() {
        let pairs = got["goal_options"].as_array().into_iter().flatten();
        let pairs = pairs.map(|pair| (pair[0].as_str().unwrap_or_default().to_owned(), pair[1].clone()));
        got["goal_options"] = Value::Object(pairs.collect());
    }
    for (field, expected) in case.as_object().into_iter().flatten() {
        if field == "weight" {
            if expected.as_f64() != got["weight"].as_f64() {
                return Err(format!("weight: expected {expected}, got {}", got["weight"]));
            }
        } else if let Some(got) = got.get(field) {
            same(field, &plain(expected), &plain(got))?;
        }
    }
    Ok(())
}

/// Numbers by value: `1000000` is `1000000.0`.
fn plain(value: &Value) -> Value {
    value.as_f64().map_or_else(|| value.clone(), Value::from)
}

/// Compares the page a session is on.
fn page(session: &Session, expected: &Value, what: &str) -> Result<(), String> {
    let available = session.available();
    same(&format!("{what}, text"), &expected["obs"], &session.text().into())?;
    let got = json!({"has_search_bar": available.has_search_bar, "clickables": available.clickables});
    same(&format!("{what}, actions"), &expected["available"], &got)?;
    let prompt = format!("Observation:\n{}\n\nAvailable Actions:\n{}", session.text(), available.repr());
    same(&format!("{what}, prompt"), &expected["prompt"], &prompt.into())
}

/// A reply as its harness read it: a case of `conformance parse`.
pub(crate) fn reply(format: &Format, case: &Value) -> Result<(), String> {
    let reading = format.read(text(case, "reply"), None);
    let (action, content) = match reading.action() {
        Some(action) => {
            let payload = action.payload.as_str().unwrap_or_default();
            (json!(action.name), json!(format!("{}[{payload}]", action.name)))
        }
        None => (Value::Null, Value::Null),
    };
    same("action", &case["expected"]["action"], &action)?;
    same("content", &case["expected"]["content"], &content)
}
