//! Parent locators: lossless for all bytes.

use super::input::Input;
use vhdkit::vhd::{LOCATOR_SIZE, ParentLocator};

pub fn run(data: &[u8]) {
    let bytes: [u8; LOCATOR_SIZE] = Input(data).array();
    let locator = ParentLocator::decode(&bytes);
    assert!(locator.encode() == bytes, "decode, encode lost something");
    assert_eq!(locator.is_used(), bytes[..4] != [0; 4]);
    assert!(locator.space_bytes() < 1 << 32);
    assert!(locator.space_bytes() >= u64::from(locator.data_space));
    assert!(!locator.to_string().is_empty());
}
