//! Metadata checksums.

/// CRC-32C, without the inversions at both ends that some implementations add.
pub(super) fn crc32c(mut crc: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            #[allow(clippy::cast_possible_truncation, reason = "below 256")]
            let mut value = n as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 {
                    value >> 1 ^ 0x82F6_3B78
                } else {
                    value >> 1
                };
                bit += 1;
            }
            table[n] = value;
            n += 1;
        }
        table
    };
    for byte in bytes {
        let index = (crc ^ u32::from(*byte)) & 0xFF;
        crc = crc >> 8 ^ TABLE[index as usize & 0xFF];
    }
    crc
}
