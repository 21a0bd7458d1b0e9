//! Block bitmaps against a list of booleans.

use super::input::Input;
use vhdkit::vhd::{Bitmap, bitmap_bytes};

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    // Some bitmaps are parts that begin later, up to where sectors end.
    let first = match input.u8() % 4 {
        0 => 0,
        1 => u64::from(input.u16()) * 8,
        2 => u64::from(input.u32()) * 8,
        _ => (u64::MAX - u64::from(input.u16())) / 8 * 8,
    };
    let len = usize::from(input.u8() % 40);
    let bytes: Vec<u8> = (0..len).map(|_| input.u8()).collect();
    let mut model: Vec<bool> = bytes
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| byte & (0x80 >> bit) != 0))
        .collect();
    let mut bitmap = Bitmap::new(bytes.clone(), first);
    assert!(bitmap.as_bytes() == bytes);
    for _ in 0..8 {
        if input.is_empty() {
            break;
        }
        let (a, b) = (u64::from(input.u16() % 400), u64::from(input.u16() % 400));
        let (start, end) = (a.min(b), a.max(b));
        let (Some(from), Some(to)) = (first.checked_add(start), first.checked_add(end)) else {
            continue;
        };
        let bits = |model: &[bool], at: u64| model.get(at as usize).copied().unwrap_or(false);
        if input.u8() & 1 == 1 {
            let changed = bitmap.set(from..to);
            let inside = start as usize..(end as usize).min(model.len());
            let before = model.get(inside.clone()).unwrap_or_default();
            assert_eq!(changed, before.contains(&false));
            if let Some(bits) = model.get_mut(inside) {
                bits.fill(true);
            }
        }
        assert_eq!(
            bitmap.is_full(from..to),
            (start..end).all(|at| bits(&model, at))
        );
        let (mut at, mut last) = (from, None);
        for run in bitmap.runs(from..to) {
            assert!(run.start == at && run.end > at && run.end <= to);
            assert_ne!(last.replace(run.stored), Some(run.stored), "not maximal");
            for sector in run.start..run.end {
                assert_eq!(bits(&model, sector - first), run.stored);
                assert_eq!(bitmap.is_stored(sector), run.stored);
            }
            at = run.end;
        }
        assert_eq!(at, to);
        assert!(!bitmap.is_stored(first.wrapping_sub(1)));
    }
    let block_size = input.u32() | 1;
    assert!(bitmap_bytes(block_size) * 8 * 512 >= u64::from(block_size));
}
