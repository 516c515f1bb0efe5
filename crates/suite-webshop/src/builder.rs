//! Writes the catalogue's index.

use crate::analyzer::terms;
use crate::layout::{ASIN, Header, MAGIC, SourceFile, key};
use crate::postings::{Postings, encode_length, length_factors, write_number};
use crate::product::Product;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

/// Products that are analysed at once.
const BATCH: usize = 2048;

/// Writes an index, product by product.
pub struct Builder<'f> {
    file: BufWriter<&'f mut File>,
    at: u64,
    header: Header,
    waiting: Vec<Product>,
    seen: BTreeSet<[u8; ASIN]>,
    asins: Vec<[u8; ASIN]>,
    records: Vec<u64>,
    prices: Vec<u8>,
    lengths: Vec<u8>,
    kinds: Vec<u8>,
    categories: HashMap<String, u32>,
    queries: HashMap<String, u32>,
    postings: HashMap<String, Postings>,
}

fn number(known: &mut HashMap<String, u32>, names: &mut Vec<String>, name: &str) -> u32 {
    *known.entry(name.to_owned()).or_insert_with(|| {
        names.push(name.to_owned());
        names.len() as u32 - 1
    })
}

impl<'f> Builder<'f> {
    /// Begins an index of what `sources` hold.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn new(file: &'f mut File, sources: Vec<SourceFile>) -> io::Result<Self> {
        let header = Header {
            sources,
            documents: 0,
            length: 0,
            categories: Vec::new(),
            queries: Vec::new(),
            sections: BTreeMap::new(),
        };
        let mut file = BufWriter::with_capacity(1 << 20, file);
        // The header's place is known at the end.
        file.write_all(&[0; 24])?;
        Ok(Self {
            file,
            at: 24,
            header,
            waiting: Vec::new(),
            seen: BTreeSet::new(),
            asins: Vec::new(),
            records: Vec::new(),
            prices: Vec::new(),
            lengths: Vec::new(),
            kinds: Vec::new(),
            categories: HashMap::new(),
            queries: HashMap::new(),
            postings: HashMap::new(),
        })
    }

    /// Whether a product of that id is there already, or its id is too long for any.
    pub fn has(&self, asin: &str) -> bool {
        key(asin).is_none_or(|key| self.seen.contains(&key))
    }

    /// Adds a product.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add(&mut self, product: Product) -> io::Result<()> {
        self.seen.extend(key(&product.asin));
        self.waiting.push(product);
        if self.waiting.len() == BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        type Analysed = (Vec<u8>, Vec<(String, u32)>, u32);
        let analysed: Vec<Analysed> = waiting
            .par_iter()
            .map(|product| {
                let mut counts: HashMap<String, u32> = HashMap::new();
                let mut length = 0;
                for term in terms(&product.contents()) {
                    *counts.entry(term).or_default() += 1;
                    length += 1;
                }
                (serde_json::to_vec(product).unwrap_or_default(), counts.into_iter().collect(), length)
            })
            .collect();
        for (product, (record, counts, length)) in waiting.iter().zip(analysed) {
            let document = self.header.documents;
            self.header.documents += 1;
            self.header.length += u64::from(length);
            self.records.push(self.at);
            self.file.write_all(&record)?;
            self.at += record.len() as u64;
            self.asins.extend(key(&product.asin));
            for price in [product.pricing.first(), product.pricing.get(1)] {
                self.prices.extend(price.copied().unwrap_or(f64::NAN).to_le_bytes());
            }
            self.lengths.push(encode_length(length));
            let category = number(&mut self.categories, &mut self.header.categories, &product.category);
            let query = number(&mut self.queries, &mut self.header.queries, &product.query);
            self.kinds.extend(category.to_le_bytes());
            self.kinds.extend(query.to_le_bytes());
            for (term, count) in counts {
                let postings = self.postings.entry(term).or_default();
                write_number(&mut postings.bytes, document - postings.last);
                write_number(&mut postings.bytes, count);
                (postings.last, postings.documents) = (document, postings.documents + 1);
            }
        }
        Ok(())
    }

    fn section(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.header.sections.insert(name.to_owned(), (self.at, bytes.len() as u64));
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Writes the rest. How many products there are.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(mut self) -> io::Result<u32> {
        self.flush()?;
        self.records.push(self.at);
        let of = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let bytes = of(&self.records);
        self.section("records", &bytes)?;
        let mut order: Vec<u32> = (0..self.header.documents).collect();
        order.sort_by_key(|document| self.asins[*document as usize]);
        let bytes: Vec<u8> = order.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.section("order", &bytes)?;
        let bytes = std::mem::take(&mut self.asins).concat();
        self.section("asins", &bytes)?;
        for (name, bytes) in [
            ("prices", std::mem::take(&mut self.prices)),
            ("norms", self.lengths.clone()),
            ("kinds", std::mem::take(&mut self.kinds)),
        ] {
            self.section(name, &bytes)?;
        }
        let mut postings: Vec<(String, Postings)> = std::mem::take(&mut self.postings).into_iter().collect();
        postings.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let (mut table, mut names, begin) = (Vec::new(), Vec::new(), self.at);
        let factors = length_factors(self.header.length, self.header.documents);
        let stored = std::mem::take(&mut self.lengths);
        for (term, list) in &postings {
            let (bytes, most) = list.in_blocks(&stored, &factors);
            table.extend([names.len() as u64, self.at - begin, u64::from(list.documents), u64::from(most.to_bits())]);
            names.extend(term.as_bytes());
            self.file.write_all(&bytes)?;
            self.at += bytes.len() as u64;
        }
        table.extend([names.len() as u64, self.at - begin, 0, 0]);
        self.header.sections.insert("postings".into(), (begin, self.at - begin));
        self.section("names", &names)?;
        self.section("terms", &of(&table))?;
        let header = serde_json::to_vec(&self.header)?;
        self.file.write_all(&header)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(MAGIC)?;
        self.file.write_all(&self.at.to_le_bytes())?;
        self.file.write_all(&(header.len() as u64).to_le_bytes())?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok(self.header.documents)
    }
}
