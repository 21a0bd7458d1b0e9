//! The checksum of footer and dynamic disk header.

/// Computes the one's complement of the wrapping sum of all bytes except the checksum field itself, four bytes at
/// `field` (specification, "Checksum").
pub fn checksum(bytes: &[u8], field: usize) -> u32 {
    let sum = bytes
        .iter()
        .enumerate()
        .filter(|(at, _)| !(field..field.saturating_add(4)).contains(at))
        .fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)));
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_complement_of_the_sum_without_the_field() {
        let mut bytes = [0; 512];
        assert_eq!(checksum(&bytes, 64), 0xFFFF_FFFF);
        bytes[0] = 1;
        bytes[64] = 200;
        bytes[67] = 200;
        bytes[68] = 2;
        bytes[511] = 255;
        assert_eq!(checksum(&bytes, 64), !258);
    }
}
