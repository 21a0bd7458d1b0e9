//! Random damage: a check never panics, always ends, and images it calls clean can be opened.

use proptest::prelude::*;
use vhdkit::image::{Image, whole};
use vhdkit::storage::Memory;
use vhdkit::vhd::{DiskType, Kind, ParentPolicy, RepairPlan, VhdImage, check};

use super::{TINY, lines, options};
use crate::vhd_writers::Writer;

fn files() -> Vec<Vec<u8>> {
    let tapdisk = Writer {
        creator: b"tap\0",
        version: 0x0001_0003,
        ..TINY
    };
    let child = Writer {
        size: 64 << 10,
        block_size: 64 << 10,
        ..Writer::WINDOWS
    };
    vec![
        TINY.dynamic(0xFF, false),
        TINY.fixed(),
        tapdisk.tapdisk(true, true),
        child.windows_child(),
        super::table::cases().swap_remove(30).1,
    ]
}

#[derive(Debug, Clone)]
enum Damage {
    /// Replaces any byte.
    Byte(prop::sample::Index, u8),
    /// Replaces four bytes within the first 3 KiB, which hold all structures.
    Word(usize, u32),
    Cut(prop::sample::Index),
    Grow(usize, u8),
    /// Recomputes all checksums.
    Seal,
}

fn damage() -> impl Strategy<Value = Damage> {
    let word = prop_oneof![
        Just(0),
        Just(u32::MAX),
        Just(1 << 31),
        0..100_u32,
        any::<u32>()
    ];
    prop_oneof![
        2 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        4 => (0..800_usize, word).prop_map(|(at, word)| Damage::Word(at * 4, word)),
        1 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        1 => (1..3000_usize, any::<u8>()).prop_map(|(len, byte)| Damage::Grow(len, byte)),
        3 => Just(Damage::Seal),
    ]
}

fn apply(file: &mut Vec<u8>, damage: &Damage) {
    match damage {
        Damage::Byte(at, byte) => {
            if !file.is_empty() {
                let at = at.index(file.len());
                file[at] ^= byte;
            }
        }
        Damage::Word(at, word) => {
            if let Some(bytes) = file.get_mut(*at..at + 4) {
                bytes.copy_from_slice(&word.to_be_bytes());
            }
        }
        Damage::Cut(at) => file.truncate(at.index(file.len() + 1)),
        Damage::Grow(len, byte) => file.extend(std::iter::repeat_n(*byte, *len)),
        Damage::Seal => {
            if file.len() >= 2048 {
                crate::vhd_writers::seal(&mut file[..512]);
                crate::vhd_writers::seal(&mut file[512..1536]);
                let copy: Vec<u8> = file[..512].to_vec();
                let at = file.len() - 512;
                if file[512..520] == *b"cxsparse" {
                    file[at..].copy_from_slice(&copy);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_has_no_errors_can_be_opened_and_nothing_else(
        which in 0..5_usize,
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let mut file = files().swap_remove(which);
        for damage in &damages {
            apply(&mut file, damage);
        }
        let storage = Memory::new(file);
        let report = check(&storage, &options()).unwrap();
        let opened = VhdImage::open(&storage);
        match report.kind {
            Kind::Vhd(DiskType::Fixed | DiskType::Dynamic) => {
                let (errors, opened) = (report.errors, opened.map(|_| ()));
                prop_assert_eq!(errors == 0, opened.is_ok(), "{:?}: {:?}", lines(&report), opened);
            }
            Kind::Raw => prop_assert!(opened.is_err()),
            Kind::Vhd(_) => {}
        }
        if let Ok(image) = VhdImage::salvage(&storage, ParentPolicy::Refused)
            && image.virtual_size() < 1 << 20
        {
            let content = crate::checks::read_all(&image);
            for range in image.lost() {
                let start = usize::try_from(range.start()).unwrap().min(content.len());
                let end = usize::try_from(range.end()).unwrap().min(content.len());
                prop_assert!(content[start..end].iter().all(|byte| *byte == 0));
            }
        }
        let plan = RepairPlan::new(&report);
        if report.errors == 0 && report.repairable > 0 {
            plan.apply(&storage).unwrap();
            let after = check(&storage, &options()).unwrap();
            let left = after.errors + after.repairable;
            prop_assert!(left == 0, "{:?} became {:?}", lines(&report), lines(&after));
        }
    }

    /// Whatever the damage, a repair changes no byte of the disk, whether read or salvaged.
    #[test]
    fn a_repair_never_changes_the_disk(
        which in 0..5_usize,
        damages in prop::collection::vec(damage(), 1..6),
        label in prop::option::of(prop_oneof![0..6_u32, any::<u32>()]),
    ) {
        let mut file = files().swap_remove(which);
        for damage in &damages {
            apply(&mut file, damage);
        }
        // A trailing footer of another type with a right checksum.
        if let (Some(label), Some(at)) = (label, file.len().checked_sub(512)) {
            crate::vhd_writers::put32(&mut file, at + 60, label);
            crate::vhd_writers::seal(&mut file[at..]);
        }
        let before = Memory::new(file);
        let report = check(&before, &options()).unwrap();
        let plan = RepairPlan::new(&report);
        if plan.is_empty() {
            return Ok(());
        }
        let after = Memory::new(before.to_vec());
        plan.apply(&after).unwrap();
        for salvage in [false, true] {
            let (before, after) = (content(&before, salvage), content(&after, salvage));
            if before.is_some() {
                prop_assert!(before == after, "{:?}: {:?}", lines(&report), plan.mends());
            }
        }
    }
}

/// Returns the part of the disk in its own file, or `None` if it can't be read or is absurdly large.
fn content(storage: &Memory, salvage: bool) -> Option<Vec<u8>> {
    let image = if salvage {
        VhdImage::salvage(storage, ParentPolicy::LeftOut)
    } else {
        VhdImage::open_over(storage, ParentPolicy::LeftOut)
    };
    let image = image.ok().filter(|image| image.virtual_size() < 1 << 20)?;
    let mut bytes = vec![0xEE; usize::try_from(image.virtual_size()).unwrap()];
    for run in image.stored_runs(whole(&image)) {
        let Ok(run) = run else { continue };
        let place = usize::try_from(run.range.start()).unwrap();
        let len = usize::try_from(run.range.len()).unwrap();
        if run.is_stored() {
            let stored = &mut bytes[place..place + len];
            image.read_exact_at(stored, run.range.start()).ok()?;
        }
    }
    Some(bytes)
}
