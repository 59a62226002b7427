//! A filter: tells which ids a part of a run does not hold, without reading it.
//!
//! A Bloom filter in blocks of one cache line, so that asking costs one access to memory. 16 bits an id and a
//! bit in each of a line's eight words let one absent id in a thousand through.
//!
//! # Invariants
//!
//! - A pure function of the entries: nothing random, so that a filter can be checked against them.

use super::entry::{Entry, Prefix};

/// Bits of a line by bits of an id.
const IDS_PER_LINE: usize = 512 / 16;
const LINE_BYTES: usize = 64;

/// Aligned like a cache line, or it would mostly lie across two.
#[derive(Clone, PartialEq, Eq)]
#[repr(align(64))]
struct Line([u64; LINE_BYTES / 8]);

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Filter(Box<[Line]>);

/// Which line, of as many, and the bit in each of its words.
fn place(prefix: Prefix, lines: usize) -> (usize, [u64; 8]) {
    // Its end: ids of one part begin alike.
    let hash = prefix.0 as u64;
    let line = ((hash & u64::from(u32::MAX)) * lines as u64) >> 32;
    // What chose the line must not choose the bits: Fibonacci hashing (Knuth, volume 3, section 6.4) mixes in
    // the rest.
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (line as usize, std::array::from_fn(|word| 1 << ((mixed >> (16 + 6 * word)) & 63)))
}

impl Filter {
    pub(super) fn of(entries: &[Entry]) -> Filter {
        let mut lines = vec![Line([0; 8]); Self::lines(entries.len())].into_boxed_slice();
        for entry in entries {
            let (line, bits) = place(entry.prefix(), lines.len());
            lines[line].0.iter_mut().zip(bits).for_each(|(word, bit)| *word |= bit);
        }
        Filter(lines)
    }

    fn lines(entries: usize) -> usize {
        entries.div_ceil(IDS_PER_LINE)
    }

    /// `false` where it is certain that the id is not there.
    pub(super) fn may_hold(&self, prefix: Prefix) -> bool {
        let (line, bits) = place(prefix, self.0.len());
        self.0[line].0.iter().zip(bits).all(|(word, bit)| word & bit != 0)
    }

    pub(super) fn encode_into(&self, bytes: &mut Vec<u8>) {
        self.0.iter().flat_map(|line| line.0).for_each(|word| bytes.extend(word.to_be_bytes()));
    }

    /// The filter of so many entries; `None` where the length is another's.
    pub(super) fn decode(bytes: &[u8], entries: usize) -> Option<Filter> {
        let (lines, []) = bytes.as_chunks::<LINE_BYTES>() else { return None };
        let word = |line: &[u8; LINE_BYTES], n: usize| u64::from_be_bytes(line.as_chunks().0[n]);
        let lines: Box<[Line]> = lines.iter().map(|line| Line(std::array::from_fn(|n| word(line, n)))).collect();
        (lines.len() == Self::lines(entries)).then_some(Filter(lines))
    }
}
