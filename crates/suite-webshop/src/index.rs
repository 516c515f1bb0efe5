//! The catalogue's index: products and Lucene-exact BM25 over them, in one file that is mapped into memory.
//!
//! Layout: [`MAGIC`], the header's length (u64), the header (JSON: sections with their places), then the sections. Numbers are
//! little-endian; places are checked when they are used, so that a damaged file gives wrong answers at worst.

use crate::analyzer::terms;
use crate::product::Product;
use crate::ranking::{Cursor, END, Hit, SLACK, Top};
use memmap2::Mmap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What the file begins with; the number is the layout's version.
const MAGIC: &[u8; 8] = b"RGSHOP02";
/// Products that are analysed at once.
const BATCH: usize = 2048;
/// Bytes of an id in the file.
const ASIN: usize = 10;
/// Longest record of a product, in bytes.
const LONGEST: usize = 64 << 20;
/// Postings of a block.
pub(crate) const BLOCK: usize = 128;
/// Bytes of what is known of a block: its last document, where its bytes end, and the most that it gives.
pub(crate) const BLOCK_HEAD: usize = 12;
/// Numbers of a term in its table: where its name and its postings begin, in how many documents it is, the most that it gives.
const COLUMNS: usize = 4;
/// BM25's parameters, upstream's.
const K1: f32 = 0.9;
const B: f32 = 0.4;

/// A file that the index was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was changed, in nanoseconds since 1970.
    pub changed: u128,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Header {
    sources: Vec<SourceFile>,
    documents: u32,
    /// Terms of all documents together.
    length: u64,
    categories: Vec<String>,
    queries: Vec<String>,
    sections: BTreeMap<String, (u64, u64)>,
}

/// Lucene's one-byte document lengths (`SmallFloat.intToByte4`): small ones exact, larger ones to four bits.
fn encode_length(length: u32) -> u8 {
    let int4 = |i: u32| -> u32 {
        let bits = u32::BITS - i.leading_zeros();
        if bits < 4 { i } else { ((i >> (bits - 4)) & 7) | ((bits - 3) << 3) }
    };
    if length < 24 { length as u8 } else { (24 + int4(length - 24)).min(255) as u8 }
}

fn decode_length(byte: u8) -> u32 {
    let decode4 = |b: u32| if b >> 3 == 0 { b } else { ((b & 7) | 8) << ((b >> 3) - 1) };
    if byte < 24 { u32::from(byte) } else { 24 + decode4(u32::from(byte) - 24) }
}

/// The four bytes at a place, as a number; 0 beyond the end.
pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn write_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn read_number(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
        shift += 7;
        if shift > 28 {
            return None;
        }
    }
}

#[derive(Default)]
struct Postings {
    bytes: Vec<u8>,
    last: u32,
    documents: u32,
}

impl Postings {
    /// The postings as they are stored: heads of blocks, then the blocks. And the most that one of them gives, of the term's weight.
    fn in_blocks(&self, lengths: &[u8], factors: &[f32; 256]) -> (Vec<u8>, f32) {
        let (mut heads, mut body) = (Vec::new(), Vec::new());
        let (mut at, mut document, mut count) = (0, 0_u32, 0);
        let (mut most, mut most_of_block) = (0.0_f32, 0.0_f32);
        while let (Some(step), Some(frequency)) = (read_number(&self.bytes, &mut at), read_number(&self.bytes, &mut at))
        {
            document += step;
            count += 1;
            write_number(&mut body, step);
            write_number(&mut body, frequency);
            let factor = factors[usize::from(lengths.get(document as usize).copied().unwrap_or(0))];
            most_of_block = most_of_block.max(1.0 - 1.0 / (1.0 + frequency as f32 * factor));
            if count % BLOCK as u32 == 0 || count == self.documents {
                heads.extend(document.to_le_bytes());
                heads.extend((body.len() as u32).to_le_bytes());
                heads.extend(most_of_block.to_le_bytes());
                (most, most_of_block) = (most.max(most_of_block), 0.0);
            }
        }
        heads.extend(body);
        (heads, most)
    }
}

/// `1 / (k1 · (1 − b + b · length / mean length))` by stored length.
fn length_factors(length: u64, documents: u32) -> [f32; 256] {
    let mean = (length as f64 / f64::from(documents.max(1))) as f32;
    let mut factors = [0.0; 256];
    for (byte, factor) in factors.iter_mut().enumerate() {
        *factor = 1.0 / (K1 * ((1.0 - B) + B * decode_length(byte as u8) as f32 / mean));
    }
    factors
}

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

/// An id as it is stored.
fn key(asin: &str) -> Option<[u8; ASIN]> {
    let mut key = [0; ASIN];
    key.get_mut(..asin.len())?.copy_from_slice(asin.as_bytes());
    Some(key)
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

/// An index, mapped into memory.
pub struct Index {
    file: File,
    map: Mmap,
    header: Header,
    factors: [f32; 256],
}

/// What an index at a path was made from; none if there is no index.
#[must_use]
pub fn sources(path: &Path) -> Option<Vec<SourceFile>> {
    let mut file = File::open(path).ok()?;
    let mut head = [0; 24];
    file.read_exact(&mut head).ok()?;
    let (at, length) = placed(&head)?;
    file.seek(SeekFrom::Start(at)).ok()?;
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).ok()?;
    serde_json::from_slice::<Header>(&header).ok().map(|header| header.sources)
}

/// Where the header is.
fn placed(head: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
    (head.get(..8)? == MAGIC).then_some(())?;
    Some((number(8)?, number(16)?))
}

impl Index {
    /// Opens an index.
    ///
    /// # Errors
    /// If it is missing, or is none.
    pub fn open(path: &Path) -> Result<Self, String> {
        Self::of(&File::open(path).map_err(|e| e.to_string())?)
    }

    /// Opens an index that is open already.
    ///
    /// # Errors
    /// If it is none.
    pub fn of(file: &File) -> Result<Self, String> {
        // SAFETY: nothing of ours changes an index once it has its name; whoever else does could as well change the catalogue.
        #[allow(unsafe_code, reason = "the map itself; see the SAFETY comment")]
        let map = unsafe { Mmap::map(file) }.map_err(|e| e.to_string())?;
        let part = placed(&map).and_then(|(at, length)| map.get(at as usize..at.checked_add(length)? as usize));
        let header: Header =
            part.and_then(|part| serde_json::from_slice(part).ok()).ok_or("it is no index, or cut off")?;
        if header.sections.values().any(|(at, length)| at.checked_add(*length).is_none_or(|end| end > map.len() as u64))
        {
            return Err("it is cut off".into());
        }
        let factors = length_factors(header.length, header.documents);
        Ok(Self { file: file.try_clone().map_err(|e| e.to_string())?, map, header, factors })
    }

    fn section(&self, name: &str) -> &[u8] {
        let place = self.header.sections.get(name).copied().unwrap_or_default();
        self.map.get(place.0 as usize..(place.0 + place.1) as usize).unwrap_or_default()
    }

    fn long(&self, section: &str, at: usize) -> u64 {
        let bytes = self.section(section).get(at * 8..at * 8 + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    }

    /// How many products there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.header.documents
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A product by its number.
    #[must_use]
    pub fn product(&self, document: u32) -> Option<Product> {
        let (from, to) = (self.long("records", document as usize), self.long("records", document as usize + 1));
        // Read, not mapped: records would be most of what is resident.
        let mut record = vec![0; usize::try_from(to.checked_sub(from)?).ok().filter(|n| *n <= LONGEST)?];
        self.file.read_exact_at(&mut record, from).ok()?;
        serde_json::from_slice(&record).ok()
    }

    /// A product's prices: one, or the ends of a range.
    #[must_use]
    pub fn pricing(&self, document: u32) -> Vec<f64> {
        let price =
            |at: usize| Some(f64::from_bits(self.long("prices", document as usize * 2 + at))).filter(|p| !p.is_nan());
        [price(0), price(1)].into_iter().flatten().collect()
    }

    pub(crate) fn asin(&self, document: u32) -> &[u8] {
        let at = document as usize * ASIN;
        self.section("asins").get(at..at + ASIN).unwrap_or_default()
    }

    /// The number of the product with an id.
    #[must_use]
    pub fn find(&self, asin: &str) -> Option<u32> {
        let key = key(asin)?;
        let order = self.section("order");
        let at = |i: usize| word(order, i * 4);
        let (mut low, mut high) = (0, self.len() as usize);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.asin(at(middle)).cmp(&key) {
                std::cmp::Ordering::Equal => return Some(at(middle)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn of_kind(&self, names: &[String], which: usize, name: &str) -> Vec<u32> {
        let Some(wanted) = names.iter().position(|known| known == name) else { return Vec::new() };
        let all = (0..).zip(self.section("kinds").chunks_exact(8));
        all.filter(|(_, chunk)| word(chunk, which * 4) == wanted as u32).map(|(document, _)| document).collect()
    }

    /// All products of a department.
    #[must_use]
    pub fn of_category(&self, category: &str) -> Vec<u32> {
        self.of_kind(&self.header.categories, 0, category)
    }

    /// All products that a search of the catalogue's makers found.
    #[must_use]
    pub fn of_query(&self, query: &str) -> Vec<u32> {
        self.of_kind(&self.header.queries, 1, query)
    }

    /// A way through the postings of a term that counts so often in a query.
    fn cursor(&self, term: &str, count: u32) -> Option<Cursor<'_>> {
        let names = self.section("names");
        let row = |term: usize, column: usize| self.long("terms", term * COLUMNS + column);
        let (mut low, mut high) = (0, (self.section("terms").len() / (8 * COLUMNS)).checked_sub(1)?);
        let found = loop {
            if low == high {
                return None;
            }
            let middle = low + (high - low) / 2;
            match names.get(row(middle, 0) as usize..row(middle + 1, 0) as usize)?.cmp(term.as_bytes()) {
                std::cmp::Ordering::Equal => break middle,
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        };
        let bytes = self.section("postings").get(row(found, 1) as usize..row(found + 1, 1) as usize)?;
        let (documents, with) = (f64::from(self.len()), row(found, 2) as f64);
        let weight = count as f32 * (1.0 + (documents - with + 0.5) / (with + 0.5)).ln() as f32;
        let blocks = (row(found, 2) as usize).div_ceil(BLOCK);
        let (heads, body) = bytes.split_at_checked(blocks * BLOCK_HEAD)?;
        let most = f64::from(weight * f32::from_bits(row(found, 3) as u32));
        Some(Cursor::new(weight, most, heads, body, blocks))
    }

    /// The best `k` products for a query, best first; of equal ones the lower id. What cannot be among them is passed over
    /// (MaxScore, Turtle and Flood 1995, with maxima of blocks), which changes no result.
    #[must_use]
    pub fn search(&self, query: &str, k: usize) -> Vec<Hit> {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for term in terms(query) {
            *counts.entry(term).or_default() += 1;
        }
        let mut cursors: Vec<Cursor<'_>> =
            counts.iter().filter_map(|(term, count)| self.cursor(term, *count)).collect();
        cursors.sort_by(|a, b| a.most.total_cmp(&b.most));
        // The most that the first so many terms give together.
        let mut sums = vec![0.0];
        for cursor in &cursors {
            sums.push(sums[sums.len() - 1] + cursor.most);
        }
        let lengths = self.section("norms");
        let mut top = Top::new(self, k);
        // Terms before this one alone bring nothing into the result.
        let mut first = 0;
        while first < cursors.len() {
            if first + 1 == cursors.len() && !cursors[first].pass(f64::from(top.least()) - SLACK - sums[first]) {
                break;
            }
            let Some(document) = cursors[first..].iter().map(Cursor::document).min().filter(|d| *d != END) else {
                break;
            };
            let Some(length) = lengths.get(document as usize) else { break };
            let factor = self.factors[usize::from(*length)];
            let mut score = 0.0;
            for cursor in &mut cursors[first..] {
                if cursor.document() == document {
                    score += f64::from(cursor.score(factor));
                    cursor.next();
                }
            }
            let mut can = true;
            for term in (0..first).rev() {
                can = score + sums[term + 1] + SLACK >= f64::from(top.least());
                if !can {
                    break;
                }
                cursors[term].seek(document);
                if cursors[term].document() == document {
                    score += f64::from(cursors[term].score(factor));
                }
            }
            if can && top.add(Hit { document, score: score as f32 }) {
                while first < cursors.len() && sums[first + 1] + SLACK < f64::from(top.least()) {
                    first += 1;
                }
            }
        }
        top.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_lucenes() {
        for length in 0..24 {
            assert_eq!(decode_length(encode_length(length)), length);
        }
        for (length, stored) in [(24, 24), (32, 32), (39, 39), (40, 40), (41, 40), (55, 54), (57, 56), (1000, 984)] {
            assert_eq!(decode_length(encode_length(length)), stored, "{length}");
        }
    }

    #[test]
    fn numbers_survive() {
        for number in [0, 1, 127, 128, 300, 1 << 20, u32::MAX] {
            let mut bytes = Vec::new();
            write_number(&mut bytes, number);
            let mut at = 0;
            assert_eq!(read_number(&bytes, &mut at), Some(number));
            assert_eq!((at, read_number(&bytes, &mut at)), (bytes.len(), None));
        }
    }
}
