//! Repairs: each leaves the image clean and whole, even if interrupted, and can be undone.

use std::fs;

use vhdkit::files::{ParentOptions, repair, take_back};
use vhdkit::image::content_digest;
use vhdkit::parallel::Workers;
use vhdkit::progress::Silent;
use vhdkit::remedy::{Act, Step};
use vhdkit::storage::Memory;
use vhdkit::vhd::{RepairPlan, VhdImage, check};

use super::{TINY, checked, lines, options};
use crate::recorder::Recorder;
use crate::vhd_writers::{Writer, data, seal, set_batmap};

const SECTOR: usize = 512;

/// Name, damaged file, and the file before the damage.
type Case = (&'static str, Vec<u8>, Vec<u8>);

fn case(name: &'static str, whole: Vec<u8>, damage: impl Fn(&mut Vec<u8>)) -> Case {
    let mut file = whole.clone();
    damage(&mut file);
    (name, file, whole)
}

fn cases() -> Vec<Case> {
    let dynamic = || TINY.dynamic(0xFF, false);
    let end = |file: &[u8]| file.len() - SECTOR;
    let tapdisk = Writer {
        creator: b"tap\0",
        version: 0x0001_0003,
        ..TINY
    };
    let batmap = 1536 + (TINY.blocks() + 700).next_multiple_of(128) * 4;
    vec![
        case("garbage, fixed", TINY.fixed(), |f| f.extend(data(700, 3))),
        case("zeros, fixed", TINY.fixed(), |f| f.extend([0; SECTOR])),
        case("garbage, dynamic", dynamic(), |f| f.extend(data(5000, 3))),
        case("zeros, dynamic", dynamic(), |f| f.extend([0; SECTOR])),
        case("footer cut off", dynamic(), |f| f.truncate(end(f))),
        case("footer half cut off", dynamic(), |f| {
            f.truncate(end(f) + 100);
        }),
        case("footer zeroed", dynamic(), |f| {
            let at = end(f);
            f[at..].fill(0);
        }),
        case("footer's checksum", dynamic(), |f| {
            let at = end(f);
            f[at + 50] ^= 1;
        }),
        case("copy zeroed", dynamic(), |f| f[..SECTOR].fill(0)),
        case("copy's checksum", dynamic(), |f| f[100] ^= 1),
        case("copy of another disk", dynamic(), |f| {
            f[70] ^= 1;
            seal(&mut f[..SECTOR]);
        }),
        case("copy of no type", dynamic(), |f| {
            crate::vhd_writers::put32(f, 60, 99);
            seal(&mut f[..SECTOR]);
        }),
        case("trailer of no type", dynamic(), |f| {
            let at = end(f);
            crate::vhd_writers::put32(f, at + 60, 99);
            seal(&mut f[at..]);
        }),
        case("trailer called fixed", dynamic(), |f| {
            let at = end(f);
            crate::vhd_writers::put32(f, at + 60, 2);
            seal(&mut f[at..]);
        }),
        case("trailer of another size", dynamic(), |f| {
            let at = end(f);
            crate::vhd_writers::put64(f, at + 48, 1 << 30);
            seal(&mut f[at..]);
        }),
        case("fixed, called dynamic", TINY.fixed(), |f| called(f, 3)),
        case("fixed, called differencing", TINY.fixed(), |f| {
            called(f, 4);
        }),
        case("fixed, called none", TINY.fixed(), |f| called(f, 0)),
        case("fixed, called dynamic, zeros", TINY.fixed(), |f| {
            called(f, 3);
            f.extend([0; SECTOR]);
        }),
        case("511 bytes, dynamic", dynamic(), |f| f.truncate(f.len() - 1)),
        case("511 bytes, fixed", TINY.fixed(), |f| {
            f.truncate(f.len() - 1);
        }),
        case("511 bytes and a damaged copy", dynamic(), |f| {
            f.pop();
            f[3] = 0;
        }),
        case("garbage and a damaged copy", dynamic(), |f| {
            f[3] = 0;
            f.extend(data(700, 3));
        }),
        case("stale batmap", tapdisk.tapdisk(false, true), move |f| {
            f[batmap + SECTOR] = 0xC0;
            set_batmap(f, batmap);
        }),
        case("batmap's checksum", tapdisk.tapdisk(true, true), move |f| {
            f[batmap + 26] ^= 1;
        }),
    ]
}

/// Gives a fixed disk's footer another type, and a pointer to a header.
fn called(file: &mut [u8], disk_type: u32) {
    let at = file.len() - SECTOR;
    crate::vhd_writers::put32(file, at + 60, disk_type);
    crate::vhd_writers::put64(file, at + 16, 512);
    seal(&mut file[at..]);
}

fn digest(file: Vec<u8>) -> String {
    let image = VhdImage::open(Memory::new(file)).unwrap();
    let workers = Workers::new(None).unwrap();
    content_digest(&image, &workers, &Silent)
        .unwrap()
        .to_string()
}

fn mended(file: Vec<u8>) -> Vec<u8> {
    let storage = Memory::new(file);
    let report = check(&storage, &options()).unwrap();
    RepairPlan::new(&report).apply(&storage).unwrap();
    storage.into_vec()
}

#[test]
fn a_repaired_file_is_clean_and_whole() {
    for (name, file, whole) in cases() {
        let before = lines(&checked(file.clone()));
        let after = mended(file);
        println!("{name:<32} {}", before.join("; "));
        let left = checked(after.clone());
        assert!(
            left.is_clean() && left.warnings == 0,
            "{name}: {:?}",
            lines(&left)
        );
        assert_eq!(digest(after.clone()), digest(whole.clone()), "{name}");
        if !name.contains("batmap") {
            assert!(after == whole, "{name} is another file than before");
        }
        let again = check(&Memory::new(after), &options()).unwrap();
        assert!(RepairPlan::new(&again).is_empty(), "{name}");
        let sound = check(&Memory::new(whole), &options()).unwrap();
        assert!(RepairPlan::new(&sound).is_empty(), "{name}");
    }
}

#[test]
fn what_cannot_be_mended_is_left_alone() {
    let full = || TINY.dynamic(0xFF, true);
    let cut = |sectors: usize| {
        let mut file = full();
        file.truncate(file.len() - sectors * SECTOR);
        file
    };
    // If other parts of the file are wrong, an intact copy that differs may be the right one.
    let mut differs = full();
    let at = differs.len() - SECTOR;
    differs[at + 27] ^= 1;
    seal(&mut differs[at..]);
    differs[512 + 37] ^= 1;
    // Without a valid header, the first and the last sector may belong to the guest.
    let mut no_header = full();
    no_header[..1536].fill(0x5A);
    let mut damaged = full();
    damaged[at + 66] ^= 1;
    damaged[512 + 37] ^= 1;
    // Shorter than it should be, so nothing proves its type.
    let mut called_dynamic = TINY.fixed();
    called(&mut called_dynamic, 3);
    called_dynamic.drain(..SECTOR);
    for file in [cut(6), cut(10), differs, no_header, damaged, called_dynamic] {
        let report = check(&Memory::new(file), &options()).unwrap();
        let found = lines(&report);
        assert!(report.errors > 0 && report.repairable > 0, "{found:?}");
        assert!(RepairPlan::new(&report).is_empty(), "{found:?}");
        // No finding is called repairable unless it is.
        for finding in &report.findings {
            let remedy = finding.remedy(std::path::Path::new("x.vhd"));
            let repairs = |step: &Step| matches!(step, Step::Do(Act::Repair, _));
            assert!(!remedy.steps().any(repairs), "{found:?}: {remedy:?}");
        }
    }
}

#[test]
fn saved_bytes_bring_the_damaged_file_back() {
    let folder = tempfile::tempdir().unwrap();
    for (n, (name, file, whole)) in cases().into_iter().enumerate() {
        let path = folder.path().join(format!("{n}.vhd"));
        fs::write(&path, &file).unwrap();
        let dry = repair(&path, &options(), &ParentOptions::default(), true).unwrap();
        assert!(!dry.mends.is_empty() && dry.saved.is_none() && dry.after.is_none());
        assert!(fs::read(&path).unwrap() == file, "{name}");
        let done = repair(&path, &options(), &ParentOptions::default(), false).unwrap();
        assert_eq!(done.mends, dry.mends);
        assert!(done.after.unwrap().is_clean(), "{name}");
        assert_eq!(digest(fs::read(&path).unwrap()), digest(whole), "{name}");
        let saved = done.saved.unwrap();
        assert_eq!(
            saved.file_name().unwrap().to_str().unwrap(),
            format!("{n}.vhd.before-repair")
        );
        // Every byte of the saved file matters.
        let text = fs::read(&saved).unwrap();
        let other = folder.path().join("damaged");
        let repaired = fs::read(&path).unwrap();
        for at in (0..text.len()).step_by(97).chain([0, text.len() - 2]) {
            let mut damaged = text.clone();
            damaged[at] ^= 1;
            fs::write(&other, damaged).unwrap();
            assert!(take_back(&path, &other).is_err(), "{name}: byte {at}");
        }
        assert!(fs::read(&path).unwrap() == repaired, "{name}");
        take_back(&path, &saved).unwrap();
        assert!(fs::read(&path).unwrap() == file, "{name}");
        // The first repair's name is taken; the second repair leaves that file alone.
        let second = repair(&path, &options(), &ParentOptions::default(), false)
            .unwrap()
            .saved
            .unwrap();
        assert!(second.to_str().unwrap().ends_with(".before-repair-2"));
    }
}

#[test]
fn an_interrupted_repair_is_finished_by_the_next() {
    for (name, file, whole) in cases() {
        let plan = RepairPlan::new(&check(&Memory::new(file.clone()), &options()).unwrap());
        let mut finished = false;
        for fail_at in 0..20 {
            // The only footer of a fixed disk is one sector, which is either written or not.
            let torn: &[usize] = if name.contains("called") && name.starts_with("fixed") {
                &[0]
            } else {
                &[0, 1, 17, 64, 100, 300, 511]
            };
            for torn in torn.iter().copied() {
                let storage = Recorder::new(file.clone(), fail_at).torn(torn);
                finished = plan.apply(&storage).is_ok();
                let after = mended(storage.inner.into_vec());
                let left = checked(after.clone());
                assert!(
                    left.is_clean(),
                    "{name}, {fail_at}, {torn}: {:?}",
                    lines(&left)
                );
                assert_eq!(
                    digest(after),
                    digest(whole.clone()),
                    "{name}, {fail_at}, {torn}"
                );
            }
        }
        assert!(finished, "{name}");
    }
}

/// A fixed VHD that lost power while it was being extended may have its footer before a hole.
#[test]
fn a_footer_before_a_hole_is_found_however_long_that_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vhd");
    let whole = TINY.fixed();
    for len in [
        1 << 20,
        (1 << 20) + 15 * 1024,
        3 << 20,
        (3 << 30) + 512,
        1 << 40,
    ] {
        fs::write(&path, &whole).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(len).unwrap();
        let done = repair(&path, &options(), &ParentOptions::default(), false).unwrap();
        assert!(done.after.unwrap().is_clean(), "{len}");
        assert!(fs::read(&path).unwrap() == whole, "{len}");
        let saved = done.saved.unwrap();
        assert!(fs::metadata(&saved).unwrap().len() < 1000, "{len}");
        take_back(&path, &saved).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), len);
        fs::remove_file(&saved).unwrap();
    }
    // A raw disk that ends in a hole is fine.
    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    let report = repair(&path, &options(), &ParentOptions::default(), true).unwrap();
    assert!(report.mends.is_empty());
}
