//! Bech32 without a limit of length, as age uses it for keys: BIP 173.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// Length of the checksum.
const CHECKSUM: usize = 6;

fn polymod(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let sum = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        GENERATOR.iter().enumerate().fold(
            sum,
            |sum, (n, term)| {
                if top >> n & 1 == 1 { sum ^ term } else { sum }
            },
        )
    })
}

fn expanded(prefix: &str) -> impl Iterator<Item = u8> {
    let high = prefix.bytes().map(|c| c >> 5);
    high.chain([0]).chain(prefix.bytes().map(|c| c & 31))
}

/// Encodes `bytes`, in lower case.
pub(super) fn encode(prefix: &str, bytes: &[u8]) -> String {
    let mut values = Vec::with_capacity(bytes.len() * 8 / 5 + 1 + CHECKSUM);
    let (mut bits, mut have) = (0_u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        have += 8;
        while have >= 5 {
            have -= 5;
            values.push(five(bits >> have));
        }
    }
    if have > 0 {
        values.push(five(bits << (5 - have)));
    }
    let all = expanded(prefix).chain(values.iter().copied());
    let sum = polymod(all.chain([0; CHECKSUM])) ^ 1;
    values.extend((0..CHECKSUM).map(|n| five(sum >> (5 * (CHECKSUM - 1 - n)))));
    let mut text = format!("{prefix}1");
    text.reserve_exact(values.len());
    for value in &mut values {
        text.push(char::from(
            ALPHABET.get(usize::from(*value)).copied().unwrap_or(b'q'),
        ));
        *value = 0;
    }
    text
}

fn five(bits: u32) -> u8 {
    u8::try_from(bits & 31).unwrap_or(0)
}

/// Decodes what [`encode`] makes, in either case; `None` if anything about it is wrong.
pub(super) fn decode(prefix: &str, text: &str) -> Option<Vec<u8>> {
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    if text != *lower && text != text.to_ascii_uppercase() {
        return None;
    }
    let data = lower
        .strip_prefix(&prefix.to_ascii_lowercase())?
        .strip_prefix('1')?;
    let values = data
        .bytes()
        .map(|c| {
            let at = ALPHABET.iter().position(|known| *known == c)?;
            u8::try_from(at).ok()
        })
        .collect::<Option<Vec<_>>>()?;
    let values = Zeroizing::new(values);
    let all = expanded(&prefix.to_ascii_lowercase())
        .collect::<Vec<_>>()
        .into_iter()
        .chain(values.iter().copied());
    if polymod(all) != 1 {
        return None;
    }
    let values = values.get(..values.len().checked_sub(CHECKSUM)?)?;
    let mut bytes = Vec::with_capacity(values.len() * 5 / 8);
    let (mut bits, mut have) = (0_u32, 0);
    for value in values {
        bits = (bits << 5 | u32::from(*value)) & 0xfff;
        have += 5;
        if have >= 8 {
            have -= 8;
            bytes.push(u8::try_from(bits >> have & 0xff).ok()?);
        }
    }
    // What is left over is padding: less than a value, and zero.
    (have < 5 && bits & ((1 << have) - 1) == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_and_no_other_text_is_one() {
        for len in [0, 1, 2, 5, 31, 32, 33] {
            let bytes: Vec<u8> = (0..len).map(|n: u8| n.wrapping_mul(37)).collect();
            let text = encode("age", &bytes);
            assert_eq!(decode("age", &text), Some(bytes.clone()));
            assert_eq!(decode("age", &text.to_ascii_uppercase()), Some(bytes));
            assert_eq!(decode("ag", &text), None);
            for at in 4..text.len() {
                let mut other = text.clone().into_bytes();
                other[at] = if other[at] == b'q' { b'p' } else { b'q' };
                assert_eq!(decode("age", &String::from_utf8(other).unwrap()), None);
            }
        }
        // From BIP 173.
        assert_eq!(decode("a", "A12UEL5L"), Some(Vec::new()));
        assert_eq!(decode("a", "a12UEL5L"), None, "mixed case");
        assert_eq!(decode("a", "A1G7SGD8"), None);
        assert_eq!(decode("age", "age1"), None);
        assert_eq!(decode("age", "age1ü"), None);
    }
}
