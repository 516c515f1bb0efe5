//! The catalogue's index: products and Lucene-exact BM25 over them, in one file that is mapped into memory.
//!
//! Places are checked when they are used, so that a damaged file gives wrong answers at worst.

use crate::analyzer::terms;
use crate::layout::{COLUMNS, Header, MAGIC, SourceFile, asin, key};
use crate::postings::{BLOCK, BLOCK_HEAD, length_factors, word};
use crate::product::Product;
use crate::ranking::{Cursor, END, Hit, SLACK, Top};
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Longest record of a product, in bytes.
const LONGEST: usize = 64 << 20;

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

    fn asin(&self, document: u32) -> &[u8] {
        asin(self.section("asins"), document)
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
        let mut top = Top::new(self.section("asins"), k);
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
