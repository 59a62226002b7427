use proptest::prelude::*;
use punchline_storage::block::*;

use crate::write::{blocks_after, large_block_after, record};

#[test]
fn what_goes_in_comes_out() {
    let mut builder = BlockBuilder::new();
    for (record, events) in [(&b"one"[..], 1), (b"", 4), (b"three", 2)] {
        builder.push(record, events).unwrap();
    }
    let previous = BlockHash([7; 16]);
    let encoded = builder.finish(100, 99, previous);
    assert!(builder.is_empty() && builder.size_bytes() == HEADER_BYTES, "the builder can be used again");
    assert_eq!((encoded.first_sequence, encoded.last_sequence), (100, 106));
    let block = Block::decode(&encoded.bytes).unwrap();
    assert_eq!((block.first_sequence(), block.last_sequence(), block.synced_to()), (100, 106, 99));
    assert_eq!((block.hash(), block.previous_hash()), (encoded.hash, previous));
    let records: Vec<_> = block.records().collect();
    assert_eq!(records, [(100, 1, &b"one"[..]), (101, 4, b""), (105, 2, b"three")]);
    for (sequence, first) in [(99, None), (100, Some(100)), (104, Some(101)), (106, Some(105)), (107, None)] {
        assert_eq!(block.record_at(sequence).map(|(first, ..)| first), first, "{sequence}");
    }
}

/// The layout of docs/format.md, byte by byte: a change here is a change of the format.
#[test]
fn bytes_are_those_of_the_drawing() {
    let mut builder = BlockBuilder::new();
    builder.push(b"hi", 3).unwrap();
    let bytes = builder.finish(5, 4, BlockHash([0xab; 16])).bytes;
    let mut drawn = b"PNB\x01....\0\0\0\x0a\0\0\0\x01\0\0\0\x03\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x04".to_vec();
    drawn.extend([0xab; 16]);
    drawn.extend(b"\0\0\0\x02\0\0\0\x03hi");
    assert_eq!((&bytes[..4], &bytes[8..]), (&drawn[..4], &drawn[8..]));
    // From a CRC32C written in a dozen lines of Python.
    assert_eq!(bytes[4..8], 0x3ebf_13c5_u32.to_be_bytes(), "{:02x?}", &bytes[4..8]);
}

#[test]
fn records_have_limits() {
    let mut builder = BlockBuilder::new();
    let too_large = vec![0; RECORD_BYTES_MAX + 1];
    assert_eq!(builder.push(&too_large, 1), Err(PushError::RecordTooLarge { bytes: too_large.len() }));
    assert_eq!(builder.push(b"", 0), Err(PushError::NoEvents));
    builder.push(&too_large[1..], 1).unwrap();
    assert_eq!(builder.size_bytes(), BLOCK_BYTES_MAX);
    assert_eq!(builder.push(b"", 1), Err(PushError::NoRoom));
    Block::decode(&builder.finish(1, 0, BlockHash::NONE).bytes).unwrap();
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = &blocks_after(0, BlockHash::NONE, 1)[0].bytes;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut torn = bytes.to_vec();
            torn[at] ^= 1 << bit;
            assert!(Block::decode(&torn).is_err(), "byte {at} bit {bit}");
        }
    }
    for len in 0..bytes.len() {
        assert!(Block::decode(&bytes[..len]).is_err(), "first {len} bytes");
    }
}

/// Gives arbitrary bytes a header and a checksum that hold, so that decoding goes on to the body.
fn with_sound_header(body: &[u8], records: u32, events: u32) -> Vec<u8> {
    let mut bytes = large_block_after(4, BlockHash::NONE, 1).bytes[..HEADER_BYTES].to_vec();
    bytes[8..12].copy_from_slice(&(body.len() as u32).to_be_bytes());
    bytes[12..16].copy_from_slice(&records.to_be_bytes());
    bytes[16..20].copy_from_slice(&events.to_be_bytes());
    bytes.extend(body);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_be_bytes());
    bytes
}

proptest! {
    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Block::decode(&bytes).is_err());
    }

    #[test]
    fn a_checksum_does_not_make_garbage_a_block(
        body in proptest::collection::vec(prop_oneof![4 => Just(0_u8), 1 => any::<u8>()], 0..64),
        records in 0_u32..4,
        events in prop_oneof![0_u32..8, Just(u32::MAX)],
    ) {
        if let Ok(block) = Block::decode(&with_sound_header(&body, records, events)) {
            let found: Vec<_> = block.records().collect();
            prop_assert_eq!(found.len() as u32, records);
            prop_assert_eq!(found.iter().map(|(_, events, _)| *events).sum::<u32>(), events);
            let bytes: usize = found.iter().map(|(_, _, bytes)| bytes.len() + RECORD_HEADER_BYTES).sum();
            prop_assert_eq!(bytes, body.len());
        }
    }

    #[test]
    fn any_records_come_back(
        lens in proptest::collection::vec((0_usize..3000, 1_u32..9), 1..20),
        first in 1_u64..u64::MAX / 2,
    ) {
        let mut builder = BlockBuilder::new();
        let mut expected = vec![];
        let mut sequence = first;
        for (len, events) in lens {
            builder.push(&record(sequence, len), events).unwrap();
            expected.push((sequence, events, record(sequence, len)));
            sequence += u64::from(events);
        }
        let encoded = builder.finish(first, first - 1, BlockHash::NONE);
        let block = Block::decode(&encoded.bytes).unwrap();
        let found: Vec<_> = block.records().map(|(s, e, bytes)| (s, e, bytes.to_vec())).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(block.last_sequence() + 1, sequence);
    }
}
