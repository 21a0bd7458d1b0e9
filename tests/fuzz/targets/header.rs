//! The dynamic disk header: lossless for all bytes, never a panic.

use super::input::Input;
use vhdkit::vhd::{DynamicHeader, HEADER_SIZE};

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let bytes: [u8; HEADER_SIZE] = input.array();
    // What takes long is done for some of the input only.
    let thorough = input.one_in(8);
    let at = input.u64();
    let header = DynamicHeader::decode(&bytes);
    assert!(header.encode() == bytes, "decode, encode lost something");
    let sealed = header.clone().sealed();
    for header in [&header, &sealed] {
        if thorough {
            assert!(!header.fields().is_empty());
            assert!(header.parent_name().chars().count() <= 256);
        }
        if let Err(error) = header.verify(at) {
            assert!(error.offset().is_some_and(|place| place >= at));
            assert!(error.hint().is_some() && error.field().is_some());
            assert!(!error.to_string().is_empty());
        } else {
            assert!(header.block_size.is_power_of_two());
            assert!((512..=1 << 30).contains(&header.block_size));
            assert!(header.max_table_entries > 0 && header.table_offset % 512 == 0);
        }
    }
}
