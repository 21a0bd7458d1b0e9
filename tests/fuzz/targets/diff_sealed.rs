//! Bytes as the sections of a diff: checksums, sequence, index, totals and digest are made right around them, so that
//! what stands behind those checks is reached.

use super::diff::check;
use super::forge::{Forge, PageSection};
use super::input::Input;

const HEAD: usize = 48;

/// Leaves the header's fixed fields alone.
const HEAD_AS_IT_IS: u8 = 1;
/// Leaves lengths, alignment and codec of frames alone.
const FRAMES_AS_THEY_ARE: u8 = 2;
/// Makes reserved bytes zero.
const CANONICAL: u8 = 4;

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.u8();
    let sealed = seal(flags, &mut input);
    let accepted = check(&sealed).is_some();
    if accepted {
        damage(sealed, &mut Input(data));
    }
}

/// No bit of an accepted diff can be flipped, and none of its bytes cut off.
fn damage(mut sealed: Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..2 {
        let hash = blake3::hash(input.0);
        let place = Input(hash.as_bytes()).u64();
        let at = (place / 8 % sealed.len() as u64) as usize;
        sealed[at] ^= 1 << (place % 8);
        assert!(check(&sealed).is_none(), "a flipped bit at {at} is taken");
        sealed[at] ^= 1 << (place % 8);
        assert!(
            check(&sealed[..at]).is_none(),
            "a diff cut at {at} is taken"
        );
        input.take(1);
    }
}

/// What the bytes of an accepted diff become when all is written again that isn't free: the same.
pub fn canonical(diff: &[u8]) -> Vec<u8> {
    seal(
        HEAD_AS_IT_IS | FRAMES_AS_THEY_ARE | CANONICAL,
        &mut Input(diff),
    )
}

/// The diff that the bytes describe.
fn seal(flags: u8, input: &mut Input<'_>) -> Vec<u8> {
    let mut forge = Forge::with_head(head(flags & HEAD_AS_IT_IS != 0, input));
    let mut digests = [None, None];
    while !input.is_empty() {
        let kind: [u8; 4] = input.array();
        let count = input.u32();
        input.take(8);
        // The way back is in lower case, where the header says that there is one.
        forge.back = forge.out[15] & 1 == 1 && kind.iter().all(u8::is_ascii_lowercase);
        let kind = if forge.back {
            kind.map(|letter| letter.to_ascii_uppercase())
        } else {
            kind
        };
        match &kind {
            b"PAGE" => page(flags, count, input, &mut forge),
            b"CLER" => {
                let (mut start, mut length) = (input.u64(), input.u64());
                if flags & FRAMES_AS_THEY_ARE == 0 {
                    (start, length) = (start & !0x3F_FFFF, length & !0x1FF);
                }
                forge.clear(start, length, input.array());
                input.take(4);
            }
            b"INDX" => {
                input.take((count as usize % 4097) * 24 + 4);
            }
            b"TAIL" => {
                input.take(40);
                let known = input.u32();
                input.take(4);
                let [base, target] = [input.array(), input.array()];
                digests = [
                    (known & 1 != 0).then_some(base),
                    (known & 2 != 0).then_some(target),
                ];
                break;
            }
            _ => {
                let len = usize::from(input.u8());
                forge.other(kind, count, input.take(len));
                forge.back = false;
                break;
            }
        }
    }
    forge.finish(digests)
}

fn head(as_is: bool, input: &mut Input<'_>) -> Vec<u8> {
    let mut head = input.array::<HEAD>().to_vec();
    let length = u32::from_be_bytes([head[16], head[17], head[18], head[19]]) as usize;
    head.extend(input.take(length.saturating_sub(HEAD + 4)));
    input.take(4);
    if !as_is {
        let right = Forge::new(0, 0).out;
        let length = head.len() as u32 + 4;
        let reversible = head[15] & 1;
        head[..32].copy_from_slice(&right[..32]);
        head[15] = reversible;
        head[16..20].copy_from_slice(&length.to_be_bytes());
        for size in [32, 40] {
            head[size] = 0;
            head[size + 1] &= 3;
            head[size + 6] &= 0xFE;
            head[size + 7] = 0;
        }
    }
    head
}

fn page(flags: u8, count: u32, input: &mut Input<'_>, forge: &mut Forge) {
    let mut window = input.u64();
    let (mut payload_len, stored_len) = (input.u32(), input.u32());
    let mut codec: [u8; 4] = input.array();
    input.take(4);
    let base_hash = input.array();
    let ranges = input.take(4 * (count as usize % 8194));
    let ranges = ranges.as_chunks::<4>().0;
    input.take(4);
    let mut stored = input.take(stored_len as usize).to_vec();
    if flags & CANONICAL != 0 {
        codec = [codec[0], 0, 0, 0];
    }
    if flags & FRAMES_AS_THEY_ARE == 0 {
        let updates = ranges.iter().filter(|[_, _, c, _]| c & 0x80 == 0);
        let pages: u32 = updates
            .map(|[_, _, c, d]| u32::from(u16::from_be_bytes([*c, *d])) + 1)
            .sum();
        (window, codec) = (window & !0x3F_FFFF, [codec[0] & 1, 0, 0, 0]);
        payload_len = pages * 512;
        if codec[0] == 0 && pages <= 8192 {
            stored.resize(payload_len as usize, window.to_be_bytes()[5]);
        }
    }
    forge.page(&PageSection {
        window,
        ranges,
        payload_len,
        codec,
        stored: &stored,
        base_hash,
    });
}
