//! BAT entries: lossless for all bytes, and an offset is one that an entry can hold or it isn't.

use super::input::Input;
use vhdkit::vhd::{ABSENT, BatEntry, table_bytes};

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let bytes = input.array();
    let entry = BatEntry::decode(&bytes);
    assert_eq!(entry.encode(), bytes);
    assert_eq!(entry.offset().is_none(), entry.0 == ABSENT);
    if let Some(offset) = entry.offset() {
        assert_eq!(BatEntry::at(offset), Some(entry));
    }
    let offset = input.u64();
    match BatEntry::at(offset) {
        Some(entry) => assert_eq!(entry.offset(), Some(offset)),
        None => assert!(offset % 512 != 0 || offset / 512 >= u64::from(ABSENT)),
    }
    let entries = input.u32();
    let table = table_bytes(entries);
    assert!(table.is_multiple_of(512));
    assert!((u64::from(entries) * 4..u64::from(entries) * 4 + 512).contains(&table));
}
