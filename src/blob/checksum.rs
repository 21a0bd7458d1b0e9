//! Checksums of data sent and received: the service's CRC-64, or MD5 for servers without it.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use byteorder::{ByteOrder as _, LittleEndian};
use md5::{Digest as _, Md5};

use crate::page::to_usize;

/// The polynomial of CRC-64/NVME, reflected.
const POLYNOMIAL: u64 = 0x9A6C_9329_AC4B_C9B5;

/// Bytes processed at a time.
const STEP: usize = 16;

/// For each position within a step, the contribution of each byte value.
static TABLES: LazyLock<[[u64; 256]; STEP]> = LazyLock::new(|| {
    let mut tables = [[0; 256]; STEP];
    for (byte, entry) in (0_u64..).zip(&mut tables[0]) {
        *entry = (0..8).fold(byte, |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
        });
    }
    let first = tables[0];
    for place in 1..STEP {
        let before = tables[place - 1];
        for (entry, before) in tables[place].iter_mut().zip(before) {
            *entry = (before >> 8) ^ first[low_byte(before)];
        }
    }
    tables
});

fn low_byte(crc: u64) -> usize {
    to_usize(crc & 0xFF)
}

/// Computes the CRC-64/NVME of `bytes`.
pub fn crc64(bytes: &[u8]) -> u64 {
    let tables = &*TABLES;
    let (steps, rest) = bytes.as_chunks::<STEP>();
    let mut crc = !0;
    for step in steps {
        let mut mixed = *step;
        let low = LittleEndian::read_u64(&mixed[..8]) ^ crc;
        LittleEndian::write_u64(&mut mixed[..8], low);
        crc = mixed
            .iter()
            .zip(tables.iter().rev())
            .fold(0, |crc, (byte, table)| crc ^ table[usize::from(*byte)]);
    }
    for byte in rest {
        crc = (crc >> 8) ^ tables[0][low_byte(crc) ^ usize::from(*byte)];
    }
    !crc
}

/// The checksum in requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// `x-ms-content-crc64`, the cheaper one.
    Crc64,
    /// `Content-MD5`, for servers that support nothing else.
    Md5,
}

impl Checksum {
    /// The header that contains it.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Crc64 => "x-ms-content-crc64",
            Self::Md5 => "content-md5",
        }
    }

    /// Computes the checksum of `bytes` in the form of that header.
    pub fn of(self, bytes: &[u8]) -> String {
        match self {
            Self::Crc64 => {
                let mut crc = [0; 8];
                LittleEndian::write_u64(&mut crc, crc64(bytes));
                BASE64_STANDARD.encode(crc)
            }
            Self::Md5 => BASE64_STANDARD.encode(Md5::digest(bytes)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "sizes are those of tests")]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(crc64(b""), 0);
        assert_eq!(crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
        assert_eq!(Checksum::Crc64.of(&[b'a'; 512]), "u661BimQ84c=");
        assert_eq!(Checksum::Md5.of(b""), "1B2M2Y8AsgTpgAmY7PhCfg==");
        assert_eq!(Checksum::Md5.of(&[b'B'; 512]), "9ceyfgr1Qz6rvvmyu5B5Gw==");
    }

    #[test]
    fn steps_and_single_bytes_agree() {
        let bytes: Vec<u8> = (0..1000_u32).map(|n| (n * 7 % 251) as u8).collect();
        for len in [0, 1, 15, 16, 17, 31, 32, 33, 999, 1000] {
            let slow = !bytes[..len].iter().fold(!0_u64, |crc, byte| {
                (0..8).fold(crc ^ u64::from(*byte), |crc, _| {
                    (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
                })
            });
            assert_eq!(crc64(&bytes[..len]), slow, "{len}");
        }
    }
}
