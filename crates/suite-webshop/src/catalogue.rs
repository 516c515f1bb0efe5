//! A folder with WebShop's three files: read as a stream, indexed once.

use crate::builder::Builder;
use crate::goals::{Goal, HumanInstruction, human_goals, price, synthetic_goals};
use crate::index::{Index, sources};
use crate::layout::SourceFile;
use crate::product::{Product, RawAttributes, RawProduct};
use crate::random::Random;
use crate::ranking::Hit;
use crate::reward::nouns;
use memmap2::Mmap;
use rolegraft_files::Partial;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Hits of a search.
const HITS: usize = 50;
/// The side-car with nouns of titles, as a tagger found them.
const NOUNS: &str = "title_nouns.jsonl";

/// Why a catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum CatalogueError {
    #[error(
        "`{}` is missing: WebShop's catalogue is items_shuffle.json, items_ins_v2.json and items_human_ins.json (Google Drive ids \
         1A2whVgOO0euk5O13n2iYDM0bQRkkRduB, 1s2j6NgHljiZzQNL3veZaAiyW_qDEgBNi, 14Kb5SPBk_jfdLZ_CDBNitW98QLDlKR5O; 5.2 GB)",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error("`{}`: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
    #[error("the index `{}` cannot be written", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("the index `{}`: {reason}; remove it, and it is made anew", path.display())]
    Index { path: PathBuf, reason: String },
}

/// Files and seeds of a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Products.
    pub products: String,
    /// Attributes, and synthetic instructions.
    pub attributes: String,
    /// Instructions that people wrote.
    pub instructions: String,
    /// The generator's seed before prices are drawn; upstream sets none.
    pub price_seed: u64,
    /// Whether goals are those that people wrote.
    pub human_goals: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            products: "items_shuffle.json".into(),
            attributes: "items_ins_v2.json".into(),
            instructions: "items_human_ins.json".into(),
            price_seed: 233,
            human_goals: true,
        }
    }
}

/// Who is told while an index is made how many products it has.
pub type Watch<'w> = &'w (dyn Fn(u32) + Sync);

/// A shop's products and goals.
pub struct Catalogue {
    index: Index,
    goals: Vec<Goal>,
    /// Prices as drawn, by product.
    prices: Vec<f64>,
    /// Whether nouns come from a tagger.
    tagged: bool,
}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalogue").field("products", &self.index.len()).field("goals", &self.goals.len()).finish()
    }
}

fn mapped(path: &Path) -> Result<Mmap, CatalogueError> {
    let file = File::open(path).map_err(|_| CatalogueError::Missing { path: path.to_owned() })?;
    // SAFETY: the map is only read, as bytes, of which all values are valid; changed bytes are an error of the format. A file that
    // someone cuts while it is indexed ends the process (SIGBUS), before anything of it is kept: the index gets its name at the end.
    #[allow(unsafe_code, reason = "the map itself; see the SAFETY comment")]
    let map = unsafe { Mmap::map(&file) };
    map.map_err(|e| CatalogueError::Format { path: path.to_owned(), reason: e.to_string() })
}

fn json<'t, T: Deserialize<'t>>(path: &Path, bytes: &'t [u8]) -> Result<T, CatalogueError> {
    serde_json::from_slice(bytes).map_err(|e| CatalogueError::Format { path: path.to_owned(), reason: e.to_string() })
}

/// An array whose elements are handed on one by one.
struct Each<F>(F);

impl<'d, F: FnMut(RawProduct) -> Result<(), String>> Visitor<'d> for Each<F> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of products")
    }
    fn visit_seq<A: SeqAccess<'d>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element()? {
            (self.0)(item).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

impl<'d, F: FnMut(RawProduct) -> Result<(), String>> DeserializeSeed<'d> for Each<F> {
    type Value = ();
    fn deserialize<D: Deserializer<'d>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

#[derive(Deserialize)]
struct Tagged {
    asin: String,
    nouns: Vec<String>,
}

/// A folder's files, as an index remembers them.
fn described(folder: &Path, names: &[&str]) -> Result<Vec<SourceFile>, CatalogueError> {
    let mut out = Vec::new();
    for name in names {
        let path = folder.join(name);
        let Ok(found) = std::fs::metadata(&path) else {
            if *name == NOUNS {
                continue;
            }
            return Err(CatalogueError::Missing { path });
        };
        let changed = found.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        out.push(SourceFile { name: (*name).to_owned(), bytes: found.len(), changed: changed.as_nanos() });
    }
    Ok(out)
}

/// Where indexes go that cannot lie beside their catalogue.
fn cache() -> PathBuf {
    dirs::cache_dir().unwrap_or_else(std::env::temp_dir).join("rolegraft")
}

/// Where a catalogue's index may lie: beside it, or in the cache.
fn places(folder: &Path, settings: &Settings) -> [PathBuf; 2] {
    use sha2::{Digest, Sha256};
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let of = format!("{}\n{}\n{}", whole.display(), settings.products, settings.attributes);
    let digest = format!("{:x}", Sha256::digest(of));
    let stem = settings.products.trim_end_matches(".json");
    [folder.join(format!("{stem}.index")), cache().join(format!("webshop-{digest:.16}.index"))]
}

impl Catalogue {
    /// The folder of `data` that holds the products: its `webshop`, or itself.
    #[must_use]
    pub fn folder(data: &Path, settings: &Settings) -> PathBuf {
        let inside = data.join("webshop");
        if inside.join(&settings.products).is_file() { inside } else { data.to_owned() }
    }

    /// Opens a folder's catalogue; its index is made if there is none of these files yet.
    ///
    /// # Errors
    /// If a file is missing or wrong, or the index cannot be written.
    pub fn open(folder: &Path, settings: &Settings, watch: Watch<'_>) -> Result<Self, CatalogueError> {
        let files = described(folder, &[&settings.products, &settings.attributes, &settings.instructions, NOUNS])?;
        let places = places(folder, settings);
        let path = match places.iter().find(|path| sources(path).as_ref() == Some(&files)) {
            Some(path) => path.clone(),
            None => build(folder, settings, &files, &places, watch)?,
        };
        let index = Index::open(&path).map_err(|reason| CatalogueError::Index { path, reason })?;
        let mut random = Random::seeded(settings.price_seed);
        let prices: Vec<f64> = (0..index.len()).map(|document| price(&index.pricing(document), &mut random)).collect();
        let path = folder.join(&settings.instructions);
        let instructions: HashMap<String, Vec<HumanInstruction>> = json(&path, &mapped(&path)?)?;
        let with_price = |document: u32| Some((index.product(document)?, prices[document as usize]));
        let goals = if settings.human_goals {
            let mut documents: Vec<u32> = instructions.keys().filter_map(|asin| index.find(asin)).collect();
            documents.sort_unstable();
            let products: Vec<_> = documents.into_iter().filter_map(with_price).collect();
            human_goals(&products, &instructions, &mut random)
        } else {
            let products: Vec<_> = (0..index.len()).filter_map(with_price).collect();
            synthetic_goals(&products, &mut random)
        };
        let tagged = files.iter().any(|file| file.name == NOUNS);
        Ok(Self { index, goals, prices, tagged })
    }

    /// A small catalogue, without goals.
    ///
    /// # Errors
    /// If no temporary file can be written.
    pub fn of(products: Vec<RawProduct>) -> Result<Self, CatalogueError> {
        let failed = |source| CatalogueError::Write { path: std::env::temp_dir(), source };
        let mut file = tempfile::tempfile().map_err(failed)?;
        let mut builder = Builder::new(&mut file, Vec::new()).map_err(failed)?;
        for product in products {
            if builder.has(&product.asin) {
                continue;
            }
            if let Some(product) = Product::load(product, None) {
                builder.add(product).map_err(failed)?;
            }
        }
        builder.finish().map_err(failed)?;
        let index = Index::of(&file).map_err(|reason| CatalogueError::Index { path: std::env::temp_dir(), reason })?;
        let mut random = Random::seeded(Settings::default().price_seed);
        let prices = (0..index.len()).map(|document| price(&index.pricing(document), &mut random)).collect();
        Ok(Self { index, goals: Vec::new(), prices, tagged: false })
    }

    /// What shoppers want, in upstream's order.
    #[must_use]
    pub fn goals(&self) -> &[Goal] {
        &self.goals
    }

    /// How many products there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.index.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Where nouns of titles come from: a tagger's side-car, or a rule.
    #[must_use]
    pub fn nouns_source(&self) -> &'static str {
        if self.tagged {
            NOUNS
        } else {
            "rule R1 (approximate; a title_nouns.jsonl beside the catalogue makes it exact)"
        }
    }

    /// A product by its number.
    #[must_use]
    pub fn product(&self, document: u32) -> Option<Product> {
        self.index.product(document)
    }

    /// A product and its price by its id.
    #[must_use]
    pub fn find(&self, asin: &str) -> Option<(Product, f64)> {
        let document = self.index.find(asin)?;
        Some((self.index.product(document)?, *self.prices.get(document as usize)?))
    }

    /// Nouns of a product's title.
    #[must_use]
    pub fn nouns(&self, product: &Product) -> Vec<String> {
        product.nouns.clone().unwrap_or_else(|| nouns(&product.title))
    }

    /// Ranked products for a query.
    #[must_use]
    pub fn search(&self, query: &str, k: usize) -> Vec<Hit> {
        self.index.search(query, k)
    }

    /// What the shop finds: `<r>`, `<c>` and `<q>` before the words ask for any, for a department, or for a search of the catalogue's
    /// makers.
    #[must_use]
    pub fn found(&self, keywords: &[String]) -> Vec<u32> {
        let rest = keywords.get(1..).unwrap_or_default().join(" ");
        match keywords.first().map(String::as_str) {
            Some("<r>") => {
                // upstream draws without a seed.
                let mut random = Random::seeded(0);
                (0..HITS.min(self.len() as usize)).map(|_| random.below(self.len())).collect()
            }
            Some("<a>") => Vec::new(),
            Some("<c>") => self.index.of_category(rest.trim()),
            Some("<q>") => self.index.of_query(&rest),
            _ => self.search(&keywords.join(" "), HITS).into_iter().map(|hit| hit.document).collect(),
        }
    }
}

/// Makes an index beside the catalogue, or where that may not be written in the cache.
fn build(
    folder: &Path,
    settings: &Settings,
    files: &[SourceFile],
    places: &[PathBuf; 2],
    watch: Watch<'_>,
) -> Result<PathBuf, CatalogueError> {
    let [beside, cached] = places;
    let make = |path: &Path| {
        let folder = path.parent().unwrap_or(Path::new("."));
        // Root may write to what its owner has closed.
        if std::fs::metadata(folder).is_ok_and(|m| m.permissions().readonly()) {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        std::fs::create_dir_all(folder)?;
        Partial::create(path)
    };
    let (path, mut file) = match make(beside) {
        Ok(file) => (beside, file),
        Err(_) => {
            let wrong = |source| CatalogueError::Write { path: cached.clone(), source };
            (cached, make(cached).map_err(wrong)?)
        }
    };
    let wrong = |source| CatalogueError::Write { path: path.clone(), source };
    let attributes_path = folder.join(&settings.attributes);
    let attributes: HashMap<String, RawAttributes> = json(&attributes_path, &mapped(&attributes_path)?)?;
    let mut tagged: HashMap<String, Vec<String>> = HashMap::new();
    if files.iter().any(|file| file.name == NOUNS) {
        let path = folder.join(NOUNS);
        let text = mapped(&path)?;
        for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let Tagged { asin, nouns } = json(&path, line)?;
            tagged.insert(asin, nouns);
        }
    }
    let products_path = folder.join(&settings.products);
    let bytes = mapped(&products_path)?;
    let mut builder = Builder::new(file.file(), files.to_vec()).map_err(wrong)?;
    let mut count = 0;
    let mut add = |raw: RawProduct| -> Result<(), String> {
        if builder.has(&raw.asin) {
            return Ok(());
        }
        let asin = raw.asin.clone();
        let Some(mut product) = Product::load(raw, attributes.get(&asin)) else { return Ok(()) };
        product.option_images = Vec::new();
        product.nouns = tagged.remove(&asin);
        count += 1;
        if count % 65_536 == 0 {
            watch(count);
        }
        builder.add(product).map_err(|e| e.to_string())
    };
    let mut reader = serde_json::Deserializer::from_slice(&bytes);
    let read = Each(&mut add).deserialize(&mut reader).and_then(|()| reader.end());
    read.map_err(|e| CatalogueError::Format { path: products_path, reason: e.to_string() })?;
    let products = builder.finish().map_err(wrong)?;
    watch(products);
    file.persist().map_err(wrong)?;
    Ok(path.clone())
}
