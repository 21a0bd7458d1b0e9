//! Parent locators: a differencing disk's references to its parent.

use std::fmt;

use byteorder::{BigEndian, ByteOrder, LittleEndian};

use super::SECTOR_SIZE;
use super::bytes::array;
use super::creator::write_code;

/// Length of a parent locator entry in bytes.
pub const LOCATOR_SIZE: usize = 24;

/// The format of a parent locator: four bytes, mostly text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlatformCode(pub [u8; 4]);

impl PlatformCode {
    /// An unused entry.
    pub const NONE: Self = Self([0; 4]);
    /// A path relative to the child, UTF-16 little-endian.
    pub const W2RU: Self = Self(*b"W2ru");
    /// An absolute Windows path, UTF-16 little-endian.
    pub const W2KU: Self = Self(*b"W2ku");
    /// A `file://` URL in UTF-8.
    pub const MACX: Self = Self(*b"MacX");

    /// The meaning of the code, if known.
    pub fn name(self) -> Option<&'static str> {
        Some(match &self.0 {
            b"\0\0\0\0" => "none",
            b"W2ru" => "relative path",
            b"W2ku" => "absolute path",
            b"MacX" => "file URL",
            b"Mac " => "Mac OS alias",
            b"Wi2r" => "deprecated relative path",
            b"Wi2k" => "deprecated absolute path",
            _ => return None,
        })
    }
}

impl fmt::Display for PlatformCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_code(f, self.0, self.name())
    }
}

/// One of the eight entries at the end of the dynamic disk header (specification, "Parent Locator Entries").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParentLocator {
    /// Format of the data.
    pub platform_code: PlatformCode,
    /// Space for the data. The specification says sectors, but nearly all writers mean bytes: see
    /// [`space_bytes`](Self::space_bytes).
    pub data_space: u32,
    /// Length of the data in bytes.
    pub data_length: u32,
    /// Zero.
    pub reserved: u32,
    /// Offset of the data in the file, in bytes.
    pub data_offset: u64,
}

impl ParentLocator {
    /// An unused entry.
    pub const NONE: Self = Self {
        platform_code: PlatformCode::NONE,
        data_space: 0,
        data_length: 0,
        reserved: 0,
        data_offset: 0,
    };

    /// Decodes an entry; every array of bytes is valid.
    pub fn decode(bytes: &[u8; LOCATOR_SIZE]) -> Self {
        Self {
            platform_code: PlatformCode(array(bytes, 0)),
            data_space: BigEndian::read_u32(&bytes[4..8]),
            data_length: BigEndian::read_u32(&bytes[8..12]),
            reserved: BigEndian::read_u32(&bytes[12..16]),
            data_offset: BigEndian::read_u64(&bytes[16..24]),
        }
    }

    /// Encodes the entry; the inverse of [`decode`](Self::decode).
    pub fn encode(&self) -> [u8; LOCATOR_SIZE] {
        let mut bytes = [0; LOCATOR_SIZE];
        bytes[0..4].copy_from_slice(&self.platform_code.0);
        BigEndian::write_u32(&mut bytes[4..8], self.data_space);
        BigEndian::write_u32(&mut bytes[8..12], self.data_length);
        BigEndian::write_u32(&mut bytes[12..16], self.reserved);
        BigEndian::write_u64(&mut bytes[16..24], self.data_offset);
        bytes
    }

    /// Returns whether the entry is in use.
    pub fn is_used(&self) -> bool {
        self.platform_code != PlatformCode::NONE
    }

    /// Space for the data in bytes: values below 512 are taken as sectors, as specified, larger ones as bytes, as
    /// written by Windows and nearly everyone else.
    pub fn space_bytes(&self) -> u64 {
        let space = u64::from(self.data_space);
        if space < SECTOR_SIZE {
            space * SECTOR_SIZE
        } else {
            space
        }
    }

    /// Decodes the path, URL or file name in `data`, to which the entry points. Invalid characters become U+FFFD.
    /// Returns `None` for a format that is unknown or not textual, and for an odd number of UTF-16 bytes.
    pub fn text(&self, data: &[u8]) -> Option<String> {
        let text = match &self.platform_code.0 {
            b"W2ru" | b"W2ku" => {
                let (units, rest) = data.as_chunks::<2>();
                let units: Vec<u16> = units.iter().map(|u| LittleEndian::read_u16(u)).collect();
                rest.is_empty().then(|| String::from_utf16_lossy(&units))?
            }
            b"MacX" | b"Wi2r" | b"Wi2k" => String::from_utf8_lossy(data).into_owned(),
            b"Mac " => alias_name(data)?,
            _ => return None,
        };
        // Some writers include the final NUL in the length.
        Some(text.trim_end_matches('\0').to_owned())
    }
}

/// Extracts the file name from a Mac OS alias (an alias record of version 2: the name has a length byte at offset 50).
/// Its path consists of folder numbers. Names beyond ASCII are in a character set that depends on the language.
fn alias_name(data: &[u8]) -> Option<String> {
    const VERSION_AT: usize = 6;
    const NAME_AT: usize = 50;
    const LONGEST: usize = 63;
    let version = data.get(VERSION_AT..VERSION_AT + 2)?;
    let len = usize::from(*data.get(NAME_AT)?);
    let name = data.get(NAME_AT + 1..NAME_AT + 1 + len)?;
    let is_known = version == [0, 2] && (1..=LONGEST).contains(&len);
    let shown = |byte: &u8| {
        if byte.is_ascii() {
            char::from(*byte)
        } else {
            '\u{FFFD}'
        }
    };
    is_known.then(|| name.iter().map(shown).collect())
}

/// Encodes a text as in Windows locators: UTF-16 little-endian, without a final NUL.
pub(super) fn utf16_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() * 2);
    for unit in text.encode_utf16() {
        let mut pair = [0; 2];
        LittleEndian::write_u16(&mut pair, unit);
        bytes.extend(pair);
    }
    bytes
}

impl fmt::Display for ParentLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} of {} bytes at {}",
            self.platform_code, self.data_length, self.data_space, self.data_offset
        )?;
        if self.reserved != 0 {
            write!(f, ", reserved {:#010x}", self.reserved)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_has_a_file_name() {
        let mac = ParentLocator {
            platform_code: PlatformCode(*b"Mac "),
            ..ParentLocator::NONE
        };
        let mut data = vec![0; 150];
        assert_eq!(mac.text(&data), None);
        data[7] = 2;
        data[50] = 8;
        data[51..59].copy_from_slice(b"base.vhd");
        assert_eq!(mac.text(&data).as_deref(), Some("base.vhd"));
        data[51] = 0x8A;
        assert_eq!(mac.text(&data).as_deref(), Some("\u{FFFD}ase.vhd"));
        for (at, wrong) in [(7, 3), (50, 0), (50, 64), (50, 255)] {
            let mut data = data.clone();
            data[at] = wrong;
            assert_eq!(mac.text(&data), None, "{at}");
        }
        assert_eq!(mac.text(&data[..58]), None);
        assert_eq!(mac.text(b""), None);
    }

    #[test]
    fn space_is_read_in_sectors_or_bytes() {
        let with = |data_space| ParentLocator {
            data_space,
            ..ParentLocator::NONE
        };
        assert_eq!(with(1).space_bytes(), 512);
        assert_eq!(with(511).space_bytes(), 511 * 512);
        assert_eq!(with(512).space_bytes(), 512);
        assert_eq!(with(u32::MAX).space_bytes(), u64::from(u32::MAX));
    }
}
