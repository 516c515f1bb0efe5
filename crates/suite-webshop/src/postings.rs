//! Postings and the lengths of documents as the index stores them.

/// Postings of a block.
pub(crate) const BLOCK: usize = 128;
/// Bytes of what is known of a block: its last document, where its bytes end, and the most that it gives.
pub(crate) const BLOCK_HEAD: usize = 12;
/// BM25's parameters, upstream's.
const K1: f32 = 0.9;
const B: f32 = 0.4;

/// Lucene's one-byte document lengths (`SmallFloat.intToByte4`): small ones exact, larger ones to four bits.
pub(crate) fn encode_length(length: u32) -> u8 {
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

pub(crate) fn write_number(out: &mut Vec<u8>, mut number: u32) {
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

/// A term's postings while they are gathered: numbers of documents, each as the step from the last, and how often.
#[derive(Default)]
pub(crate) struct Postings {
    pub(crate) bytes: Vec<u8>,
    pub(crate) last: u32,
    pub(crate) documents: u32,
}

impl Postings {
    /// The postings as they are stored: heads of blocks, then the blocks. And the most that one of them gives, of the term's weight.
    pub(crate) fn in_blocks(&self, lengths: &[u8], factors: &[f32; 256]) -> (Vec<u8>, f32) {
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
pub(crate) fn length_factors(length: u64, documents: u32) -> [f32; 256] {
    let mean = (length as f64 / f64::from(documents.max(1))) as f32;
    let mut factors = [0.0; 256];
    for (byte, factor) in factors.iter_mut().enumerate() {
        *factor = 1.0 / (K1 * ((1.0 - B) + B * decode_length(byte as u8) as f32 / mean));
    }
    factors
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
