//! A catalogue of the true one's size: `cargo bench --workspace --bench webshop -- FOLDER [PRODUCTS]` writes one into an empty folder
//! (words drawn by Zipf's law), indexes it, searches, and shops.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

use rolegraft_suite_webshop::{Catalogue, Random, Session, Settings};
use serde_json::json;
use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const WORDS: usize = 60_000;
const QUERIES: usize = 400;

/// Made-up words, the frequent ones first and short.
struct Words {
    words: Vec<String>,
    sums: Vec<f64>,
}

impl Words {
    fn new() -> Self {
        let syllables =
            ["ba", "de", "fi", "go", "lu", "ma", "ne", "pi", "ro", "su", "ta", "ve", "wi", "zo", "kra", "ste"];
        let word = |mut n: usize| {
            let mut word = String::new();
            loop {
                word += syllables[n % syllables.len()];
                n /= syllables.len();
                if n == 0 {
                    return word;
                }
            }
        };
        let mut sum = 0.0;
        let sums = (0..WORDS).map(|i| {
            sum += 1.0 / (i as f64 + 8.0);
            sum
        });
        Self { sums: sums.collect(), words: (0..WORDS).map(word).collect() }
    }
    fn some(&self, random: &mut Random, count: usize) -> String {
        let total = self.sums.last().copied().unwrap_or_default();
        let mut one = || {
            let at = random.random() * total;
            self.words[self.sums.partition_point(|sum| *sum < at).min(WORDS - 1)].as_str()
        };
        (0..count).map(|_| one()).collect::<Vec<_>>().join(" ")
    }
}

fn write(folder: &Path, products: u32) {
    std::fs::create_dir_all(folder).expect("a folder");
    let (words, mut random) = (Words::new(), Random::seeded(1));
    let create = |name: &str| BufWriter::new(File::create(folder.join(name)).expect("a file"));
    let (mut items, mut more) = (create("items_shuffle.json"), create("items_ins_v2.json"));
    let mut human = serde_json::Map::new();
    items.write_all(b"[").expect("written");
    more.write_all(b"{").expect("written");
    for i in 0..products {
        let asin = format!("B{i:09}");
        let text = |random: &mut Random, count: usize| words.some(random, count);
        let bullets: Vec<String> = (0..5).map(|_| text(&mut random, 14)).collect();
        let item = json!({
            "asin": asin, "name": text(&mut random, 12), "full_description": text(&mut random, 70),
            "small_description": bullets, "pricing": format!("${}.99", 5 + random.below(200)),
            "customization_options": {"Color": [{"value": text(&mut random, 1)}, {"value": text(&mut random, 1)}],
                                      "Size": [{"value": "small"}, {"value": "large"}]},
            "category": "fashion", "query": text(&mut random, 2), "product_category": "A › B › C", "images": ["x"],
            "product_information": {"ASIN": asin, "Reviews": text(&mut random, 30)}, "brand": text(&mut random, 1),
        });
        let comma = if i > 0 { ",\n" } else { "" };
        write!(items, "{comma}{item}").expect("written");
        let attributes = json!({"attributes": [text(&mut random, 2), text(&mut random, 2)], "instruction": null});
        write!(more, "{comma}\"{asin}\": {attributes}").expect("written");
        if i % 100 == 0 {
            let said = json!([{"instruction": text(&mut random, 12), "instruction_attributes": [text(&mut random, 2)],
                               "instruction_options": ["small"]}]);
            human.insert(asin, said);
        }
    }
    items.write_all(b"]").expect("written");
    more.write_all(b"}").expect("written");
    std::fs::write(folder.join("items_human_ins.json"), serde_json::Value::Object(human).to_string()).expect("written");
}

/// Resident memory now and at most, in MB, and what of it is our own rather than a file's.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).and_then(|l| l.split_whitespace().nth(1));
        line.and_then(|n| n.parse::<f64>().ok()).unwrap_or_default() / 1024.0
    };
    format!("{:.0} MB resident ({:.0} MB our own), {:.0} MB at most", field("VmRSS"), field("RssAnon"), field("VmHWM"))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let Some(folder) = arguments.first().map(Path::new) else {
        eprintln!("skipped: give a folder");
        return;
    };
    if !folder.join("items_human_ins.json").exists() {
        let products = arguments.get(1).map_or(1_200_000, |n| n.parse().expect("a number of products"));
        let begun = Instant::now();
        write(folder, products);
        println!("{products} products written in {:.0} s", begun.elapsed().as_secs_f64());
    }
    let index = folder.join("items_shuffle.index");
    for what in ["first", "again"] {
        let begun = Instant::now();
        let catalogue = Catalogue::open(folder, &Settings::default(), &|_| {}).expect("a catalogue");
        let size = std::fs::metadata(&index).map_or(0, |m| m.len()) as f64 / 1e6;
        println!(
            "{what}: {} products, {} goals opened in {:.1} s; index {size:.0} MB; {}",
            catalogue.len(),
            catalogue.goals().len(),
            begun.elapsed().as_secs_f64(),
            memory()
        );
        if what == "first" {
            continue;
        }
        let mut random = Random::seeded(3);
        let queries: Vec<String> = (0..QUERIES)
            .map(|_| {
                let product = catalogue.product(random.below(catalogue.len())).expect("a product");
                let words: Vec<&str> = product.title.split(' ').collect();
                let count = 3 + random.below(4) as usize;
                (0..count).map(|_| words[random.below(words.len() as u32) as usize]).collect::<Vec<_>>().join(" ")
            })
            .collect();
        std::fs::write(folder.join("queries.txt"), queries.join("\n")).expect("written");
        let mut times: Vec<f64> = queries
            .iter()
            .map(|query| {
                let begun = Instant::now();
                black_box(catalogue.search(query, 50));
                begun.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!(
            "search: median {:.2} ms, mean {:.2} ms, 90 % {:.2} ms, worst {:.2} ms ({QUERIES} queries of 3 to 6 words of a title, one core); {}",
            times[QUERIES / 2],
            times.iter().sum::<f64>() / QUERIES as f64,
            times[QUERIES * 9 / 10],
            times[QUERIES - 1],
            memory()
        );
        let catalogue = Arc::new(catalogue);
        let begun = Instant::now();
        for (goal, query) in catalogue.goals().to_vec().into_iter().zip(&queries) {
            let mut session = Session::new(catalogue.clone(), goal);
            session.step(&format!("search[{query}]"));
            let link = session.available().clickables.get(2).cloned().unwrap_or_default();
            for action in [format!("click[{link}]"), "click[small]".into(), "click[buy now]".into()] {
                session.step(&action);
                black_box(session.text());
            }
        }
        println!(
            "{:.2} ms an episode of four actions; {}",
            begun.elapsed().as_secs_f64() * 1e3 / QUERIES as f64,
            memory()
        );
    }
}
