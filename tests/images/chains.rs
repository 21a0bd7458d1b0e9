//! Chains of differencing VHDs: how they read, where parents are looked for, and what is refused.
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vhdkit::ErrorKind;
use vhdkit::files::{
    MAX_CHAIN, NewImage, NewImageOptions, OpenImage, OpenOptions, ParentOptions, open_image,
};
use vhdkit::image::{Image, ImageMut, whole};
use vhdkit::page::PageRange;
use vhdkit::remedy::{Choice, Step};
use vhdkit::storage::Overwrite;

use crate::checks::assert_reads_as;
use crate::disk::{Random, TestFolder, assert_same, command, content, run, run_to};
use crate::vhd_builder::{Family, Locator, SECTOR, SHAPES, Shape, TINY, Trailing, patterned};

const KIB: usize = 1 << 10;

/// Opens without locks, because commands started by other tests would hold them for an instant.
fn open(path: &Path, parents: &ParentOptions) -> vhdkit::Result<OpenImage> {
    open_image(path, &unlocked(parents))
}

fn unlocked(parents: &ParentOptions) -> OpenOptions {
    OpenOptions {
        no_lock: true,
        parents: ParentOptions {
            no_lock: true,
            ..parents.clone()
        },
        ..OpenOptions::default()
    }
}

fn plain(path: &Path) -> vhdkit::Result<OpenImage> {
    open(path, &ParentOptions::default())
}

/// Returns a disk over `parent` with some pages of its own, some of them zero, and which pages those are.
fn over(seed: u64, parent: &[u8], size: usize) -> (Vec<u8>, Vec<bool>) {
    let mut random = Random::new(seed);
    let mut disk = parent.to_vec();
    disk.resize(size, 0);
    let mut stored = vec![false; size / SECTOR];
    for _ in 0..=stored.len() / 40 {
        let start = random.below(stored.len());
        let end = (start + 1 + random.below(24)).min(stored.len());
        for page in start..end {
            stored[page] = true;
            let bytes = match random.below(3) {
                0 => vec![0; SECTOR],
                _ => random.bytes(SECTOR),
            };
            disk[page * SECTOR..(page + 1) * SECTOR].copy_from_slice(&bytes);
        }
    }
    (disk, stored)
}

fn with_7zip(vhd: &Path) -> Vec<u8> {
    run(&mut command!("7z", "e", "-so", "-tvhd", vhd)).stdout
}

/// Creates a base, a child and a grandchild of three shapes, each `grown` pages larger than the one before; returns the
/// grandchild and its expected content.
fn three_levels(
    folder: &TestFolder,
    shapes: [&Shape; 3],
    fixed: bool,
    grown: usize,
) -> (PathBuf, Vec<u8>) {
    let base = patterned(800);
    let file = if fixed {
        crate::vhd_builder::fixed(shapes[0], &base)
    } else {
        crate::vhd_builder::dynamic(shapes[0], &base)
    };
    folder.file("base.vhd", &crate::vhd_builder::with_id(file, [1; 16]));
    let (middle, stored) = over(7, &base, base.len() + grown * SECTOR);
    let family = Family::new(2, 1, "base.vhd");
    let file = crate::vhd_builder::differencing(shapes[1], &family, &middle, &stored);
    folder.file("middle.vhd", &file);
    let (top, stored) = over(8, &middle, middle.len() + grown * SECTOR);
    let family = Family::new(3, 2, "middle.vhd");
    let file = crate::vhd_builder::differencing(shapes[2], &family, &top, &stored);
    (folder.file("top.vhd", &file), top)
}

#[test]
fn three_levels_of_any_shape_read_like_the_model_and_in_7zip() {
    let shapes: Vec<&Shape> = SHAPES
        .iter()
        .chain([&TINY])
        .filter(|shape| shape.trailing == Trailing::Whole)
        .collect();
    for n in 0..shapes.len() {
        let of = |k: usize| shapes[(n + k) % shapes.len()];
        let levels = [of(0), of(2), of(5)];
        let names = levels.map(|shape| shape.name).join(" < ");
        for grown in [0, 43] {
            let folder = TestFolder::new();
            let (top, model) = three_levels(&folder, levels, n % 2 == 0, grown);
            let image = plain(&top).unwrap();
            assert!(image.warnings().is_empty(), "{:?}", image.warnings());
            assert_eq!(image.chain().count(), 3);
            assert_reads_as(&image, &model);
            assert_mapped(&image, &model);
            // 7-Zip refuses a BAT that is longer than the disk needs, and can't read beyond the end of a parent.
            if grown == 0 && levels.iter().all(|shape| shape.extra_entries == 0) {
                assert_same(&with_7zip(&top), &model, &names);
            }
        }
    }
}

/// Asserts that every piece of data is in the file, at the offset that the map gives.
fn assert_mapped(image: &OpenImage, model: &[u8]) {
    let mut at = 0;
    for mapped in image.mapped(whole(image)) {
        let mapped = mapped.unwrap();
        let range = mapped.extent.range;
        assert_eq!(range.start(), at);
        at = range.end();
        if let Some(place) = mapped.image.locate(range.start()).unwrap() {
            let file = content(mapped.image.path());
            let (place, start) = (
                usize::try_from(place).unwrap(),
                usize::try_from(range.start()).unwrap(),
            );
            assert_eq!(file[place..place + SECTOR], model[start..start + SECTOR]);
        }
    }
    assert_eq!(at, image.virtual_size());
}

fn child_options(parent: OpenImage, block_size: u32, virtual_size: u64) -> NewImageOptions {
    NewImageOptions {
        format: vhdkit::files::Format::Differencing,
        virtual_size,
        block_size: Some(block_size),
        identity: None,
        parent: Some(parent.into()),
        overwrite: Overwrite::No,
        made_from: vhdkit::storage::Audience::default(),
        dense: false,
    }
}

/// A page write: start, number of pages, and byte, where zero means a clear.
type Write = (usize, usize, u8);

fn writes() -> impl Strategy<Value = Vec<Vec<Write>>> {
    let write = (0..200_usize, 1..30_usize, 0..4_u8);
    prop::collection::vec(prop::collection::vec(write, 0..12), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_random_chain_written_by_us_reads_like_the_model(
        levels in writes(),
        seed in 0..u64::MAX,
        grows in prop::bool::ANY,
    ) {
        let folder = TestFolder::new();
        let mut random = Random::new(seed);
        let mut model = patterned(120);
        let base = crate::vhd_builder::with_id(crate::vhd_builder::dynamic(&TINY, &model), [1; 16]);
        let mut path = folder.file("0.vhd", &base);
        for (n, writes) in levels.iter().enumerate() {
            let size = model.len() + usize::from(grows) * random.below(3) * 20 * SECTOR;
            model.resize(size, 0);
            let child = folder.path(&format!("{}.vhd", n + 1));
            let block_size = [512, 4096, 16 << 10][random.below(3)];
            let options = child_options(plain(&path).unwrap(), block_size, size as u64);
            let mut new = NewImage::create(&child, &options).unwrap();
            write(new.image_mut(), writes, &mut model);
            new.publish().unwrap();
            path = child;
            // Some are written again later.
            if random.below(2) == 0 {
                let options = OpenOptions { writable: true, ..unlocked(&ParentOptions::default()) };
                let mut image = open_image(&path, &options).unwrap();
                write(&mut image, &[(random.below(100), 9, 7), (3, 5, 0)], &mut model);
                image.flush().unwrap();
            }
            assert_reads_as(&plain(&path).unwrap(), &model);
        }
        if model.len() == 120 * SECTOR {
            // 7-Zip can't read beyond the end of a parent.
            assert_same(&with_7zip(&path), &model, "7-Zip");
        }
    }
}

fn write(image: &mut dyn ImageMut, writes: &[Write], model: &mut [u8]) {
    let pages = model.len() / SECTOR;
    for (start, len, value) in writes {
        let (start, end) = ((*start).min(pages - 1), (start + len).min(pages));
        let bytes = start * SECTOR..end.max(start + 1) * SECTOR;
        let range = PageRange::new(bytes.start as u64, bytes.end as u64).unwrap();
        model[bytes.clone()].fill(*value);
        if *value == 0 {
            image.clear(range).unwrap();
        } else {
            image.update(range, &model[bytes]).unwrap();
        }
    }
}

/// Creates a base with the id 1 and a child whose parent fields are those of `family`.
fn pair(folder: &TestFolder, base: &str, family: &Family) -> (PathBuf, Vec<u8>) {
    let bytes = patterned(64);
    let file = crate::vhd_builder::with_id(crate::vhd_builder::dynamic(&TINY, &bytes), [1; 16]);
    fs::create_dir_all(folder.path(base).parent().unwrap()).unwrap();
    folder.file(base, &file);
    let (model, stored) = over(5, &bytes, bytes.len());
    let file = crate::vhd_builder::differencing(&TINY, family, &model, &stored);
    fs::create_dir_all(folder.path("disks")).unwrap();
    (folder.file("disks/child.vhd", &file), model)
}

fn family(locators: Vec<Locator>, name: &str) -> Family {
    Family {
        locators,
        ..Family::new(2, 1, name)
    }
}

#[test]
fn paths_that_lead_elsewhere_are_never_followed() {
    let folder = TestFolder::new();
    let absolute = folder.path("secret/base.vhd");
    let absolute = absolute.to_str().unwrap();
    let texts = [
        "..\\secret\\base.vhd",
        "../secret/base.vhd",
        ".\\..\\secret\\base.vhd",
        "x\\..\\..\\secret\\base.vhd",
        absolute,
        &absolute.replace('/', "\\"),
        &format!("\\\\?{}", absolute.replace('/', "\\")),
        &format!("\\\\server\\share{}", absolute.replace('/', "\\")),
        &format!("C:{absolute}"),
        "\\\\.\\PhysicalDrive0",
        "/dev/sda",
    ];
    for text in texts {
        for code in [*b"W2ru", *b"W2ku", *b"MacX", *b"Wi2r"] {
            let mut locator = Locator::new(code, text);
            if code == *b"MacX" || code == *b"Wi2r" {
                locator.data = text.as_bytes().to_vec();
            }
            let (child, model) = pair(&folder, "secret/base.vhd", &family(vec![locator], text));
            let error = plain(&child).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{text}: {error}");
            assert!(error.to_string().contains("01010101-0101"), "{error}");
            assert!(error.to_string().contains("02020202-0202"), "{error}");
            let allowed = ParentOptions {
                files: vec![folder.path("secret/base.vhd")],
                ..ParentOptions::default()
            };
            assert_reads_as(&open(&child, &allowed).unwrap(), &model);
            let allowed = ParentOptions {
                folders: vec![folder.path("secret")],
                ..ParentOptions::default()
            };
            if text.ends_with("base.vhd") {
                assert_reads_as(&open(&child, &allowed).unwrap(), &model);
            } else {
                assert!(open(&child, &allowed).is_err());
            }
        }
    }
}

#[test]
fn parents_are_found_below_the_child_by_locator_and_beside_it_by_name() {
    for (base, locator, name) in [
        ("disks/base.vhd", Some(".\\base.vhd"), ""),
        ("disks/base.vhd", Some("base.vhd"), "other.vhd"),
        ("disks/old/base.vhd", Some("old\\base.vhd"), ""),
        ("disks/old/base.vhd", Some("./old/base.vhd"), ""),
        ("disks/base.vhd", None, "base.vhd"),
        ("disks/base.vhd", None, "C:\\somewhere\\base.vhd"),
        ("disks/base.vhd", Some("gone.vhd"), "base.vhd"),
        ("disks/bäse ✓.vhd", Some(".\\bäse ✓.vhd"), ""),
    ] {
        let folder = TestFolder::new();
        let locators = locator.map(|text| Locator::new(*b"W2ru", text));
        let family = family(locators.into_iter().collect(), name);
        let (child, model) = pair(&folder, base, &family);
        assert_reads_as(&plain(&child).unwrap(), &model);
        // Relative paths start at the file itself, not at a link to it.
        let link = folder.path("link.vhd");
        std::os::unix::fs::symlink(&child, &link).unwrap();
        assert_reads_as(&plain(&link).unwrap(), &model);
    }
}

#[test]
fn bad_locators_are_passed_over_with_a_warning() {
    let good = || Locator::new(*b"W2ru", ".\\base.vhd");
    let bad = [
        Locator {
            len: Some(21),
            ..good()
        },
        Locator {
            len: Some(0x7FFF_FFFE),
            ..good()
        },
        Locator {
            at: Some(1 << 40),
            ..good()
        },
        Locator {
            at: Some(u64::MAX),
            ..good()
        },
        Locator::new(*b"????", "base.vhd"),
    ];
    for bad in bad {
        let folder = TestFolder::new();
        let (child, model) = pair(
            &folder,
            "disks/base.vhd",
            &family(vec![bad.clone(), good()], ""),
        );
        let image = plain(&child).unwrap();
        assert_eq!(image.warnings().len(), 1, "{bad:?}");
        assert!(
            image.warnings()[0]
                .field()
                .unwrap()
                .starts_with("header.parent_locator[0].")
        );
        assert_reads_as(&image, &model);
        let (child, _) = pair(&folder, "disks/base.vhd", &family(vec![bad], ""));
        assert_eq!(plain(&child).unwrap_err().kind(), ErrorKind::Io);
    }
    for fine in [
        // Length in sectors as in the specification, and a final NUL that is counted.
        Locator {
            space: Some(1),
            ..good()
        },
        Locator::new(*b"W2ru", "base.vhd\0"),
    ] {
        let folder = TestFolder::new();
        let (child, model) = pair(&folder, "disks/base.vhd", &family(vec![fine], ""));
        let image = plain(&child).unwrap();
        assert!(image.warnings().is_empty(), "{:?}", image.warnings());
        assert_reads_as(&image, &model);
    }
}

#[test]
fn half_a_character_in_a_name_is_no_obstacle() {
    let folder = TestFolder::new();
    let mut lone = Locator::new(*b"W2ru", "x.vhd");
    lone.data[1] = 0xD8;
    let mut family = family(vec![lone, Locator::new(*b"W2ru", "base.vhd")], "");
    family.name = vec![0xD800, 0x61, 0xDC00];
    let (child, model) = pair(&folder, "disks/base.vhd", &family);
    assert_reads_as(&plain(&child).unwrap(), &model);
    run(&mut command!("vhd", "info", &child));
    run(&mut command!("vhd", "info", "--json", &child));
}

#[test]
fn another_disk_is_not_the_parent() {
    let folder = TestFolder::new();
    let (child, model) = pair(&folder, "disks/right.vhd", &Family::new(2, 1, "base.vhd"));
    let wrong =
        crate::vhd_builder::with_id(crate::vhd_builder::dynamic(&TINY, &patterned(64)), [9; 16]);
    for wrong in [&wrong, &patterned(64)] {
        fs::write(folder.path("disks/base.vhd"), wrong).unwrap();
        let error = plain(&child).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        let text = error.to_string();
        for part in ["child.vhd", "base.vhd", "01010101-0101", "02020202-0202"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let files = vec![
            folder.path("disks/base.vhd"),
            folder.path("disks/right.vhd"),
        ];
        let named = |files: &[PathBuf]| ParentOptions {
            files: files.to_vec(),
            ..ParentOptions::default()
        };
        assert_reads_as(&open(&child, &named(&files)).unwrap(), &model);
        assert!(open(&child, &named(&files[..1])).is_err());
    }
    // Named but not needed: a mistake that must still be noticed.
    fs::rename(
        folder.path("disks/right.vhd"),
        folder.path("disks/base.vhd"),
    )
    .unwrap();
    let other = folder.file("disks/other.vhd", &wrong);
    let options = ParentOptions {
        files: vec![other],
        ..ParentOptions::default()
    };
    assert_eq!(open(&child, &options).unwrap_err().kind(), ErrorKind::Usage);
    assert_reads_as(&plain(&child).unwrap(), &model);
}

#[test]
fn chains_that_go_round_in_a_circle_end() {
    let folder = TestFolder::new();
    let child = |name: &str, id, parent_id, parent: &str| {
        let family = Family::new(id, parent_id, parent);
        let file = crate::vhd_builder::differencing(&TINY, &family, &[1; 4096], &[true; 8]);
        folder.file(name, &file)
    };
    let own = child("self.vhd", 4, 4, "self.vhd");
    let (a, b) = (child("a.vhd", 5, 6, "b.vhd"), child("b.vhd", 6, 5, "a.vhd"));
    for path in [own, a, b] {
        let error = plain(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.message().contains("loop"), "{error}");
        assert_eq!(run_to(&mut command!("vhd", "hash", &path), 3).stdout, b"");
    }
    // A child with the id of its parent doesn't count as a loop.
    let base = crate::vhd_builder::with_id(crate::vhd_builder::fixed(&TINY, &[3; 4096]), [7; 16]);
    folder.file("base.vhd", &base);
    let same = child("same.vhd", 7, 7, "base.vhd");
    assert_reads_as(&plain(&same).unwrap(), &[1; 4096]);
}

#[test]
fn a_chain_may_be_long_but_not_endless() {
    let folder = TestFolder::new();
    let id = |n: usize| u8::try_from(n + 1).unwrap();
    let mut model = patterned(80);
    let base = crate::vhd_builder::with_id(crate::vhd_builder::dynamic(&TINY, &model), [1; 16]);
    folder.file("0.vhd", &base);
    for n in 1..=MAX_CHAIN {
        let family = Family::new(id(n), id(n - 1), &format!("{}.vhd", n - 1));
        let mut stored = vec![false; 80];
        stored[n] = true;
        model[n * SECTOR..(n + 1) * SECTOR].fill(id(n));
        let file = crate::vhd_builder::differencing(&TINY, &family, &model, &stored);
        folder.file(&format!("{n}.vhd"), &file);
        if n + 1 == MAX_CHAIN {
            let path = folder.path(&format!("{n}.vhd"));
            let image = plain(&path).unwrap();
            assert_eq!(image.chain().count(), MAX_CHAIN);
            assert_reads_as(&image, &model);
        }
    }
    let error = plain(&folder.path(&format!("{MAX_CHAIN}.vhd"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("longer than 64"), "{error}");
}

#[test]
fn a_raw_parent_is_read_only_if_that_is_wanted() {
    let folder = TestFolder::new();
    let bytes = patterned(64);
    folder.file("base.raw", &bytes);
    let (model, stored) = over(5, &bytes, bytes.len());
    let family = Family::new(2, 0, "base.raw");
    let file = crate::vhd_builder::differencing(&TINY, &family, &model, &stored);
    let child = folder.file("child.vhd", &file);
    let error = plain(&child).unwrap_err();
    let allow = Step::Choose(Choice::RawParent);
    assert!(error.remedy().unwrap().steps().any(|step| *step == allow));
    let raw = ParentOptions {
        allow_raw: true,
        ..ParentOptions::default()
    };
    assert_reads_as(&open(&child, &raw).unwrap(), &model);
    fs::write(
        folder.path("base.raw"),
        crate::vhd_builder::fixed(&TINY, &bytes),
    )
    .unwrap();
    assert_eq!(open(&child, &raw).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn a_child_is_not_smaller_than_its_parent() {
    let folder = TestFolder::new();
    let base =
        crate::vhd_builder::with_id(crate::vhd_builder::fixed(&TINY, &patterned(64)), [1; 16]);
    folder.file("base.vhd", &base);
    let family = Family::new(2, 1, "base.vhd");
    let file = crate::vhd_builder::differencing(&TINY, &family, &patterned(63), &[false; 63]);
    let child = folder.file("child.vhd", &file);
    let error = plain(&child).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(error.field(), Some("footer.current_size"));
    let parent = folder.path("base.vhd");
    let new = folder.path("new.vhd");
    run_to(
        &mut command!("vhd", "create", &new, "--parent", &parent, "--size", "512"),
        3,
    );
    assert!(!new.exists());
}

#[test]
fn a_parent_is_locked_while_its_child_is_read() {
    let folder = TestFolder::new();
    let (child, _) = pair(&folder, "disks/base.vhd", &Family::new(2, 1, "base.vhd"));
    let image = open_image(&child, &OpenOptions::default()).unwrap();
    let write = OpenOptions {
        writable: true,
        ..OpenOptions::default()
    };
    let base = folder.path("disks/base.vhd");
    assert_eq!(
        open_image(&base, &write).unwrap_err().kind(),
        ErrorKind::Locked
    );
    drop(image);
}

/// Checks the bytes of a differencing VHD that we wrote against what Windows expects.
#[test]
fn what_we_write_names_the_parent_as_windows_does() {
    let folder = TestFolder::new();
    fs::create_dir(folder.path("base")).unwrap();
    let base =
        crate::vhd_builder::with_id(crate::vhd_builder::fixed(&TINY, &patterned(64)), [1; 16]);
    let base = folder.file("base/bäse.vhd", &base);
    let child = folder.path("child.vhd");
    // A wrong absolute path is worse than none, and a path of this system is wrong on Windows.
    let plain = folder.path("plain.vhd");
    run(&mut command!("vhd", "create", &plain, "--parent", &base));
    let file = content(&plain);
    assert_eq!(file[512 + 576..512 + 580], *b"W2ru");
    assert_eq!(file[512 + 600..512 + 768], [0; 168], "one locator");
    run(&mut command!(
        "vhd",
        "create",
        &child,
        "--parent",
        &base,
        "--windows-dir",
        r"D:\vms"
    ));
    let file = content(&child);
    assert_eq!(file[..512], file[file.len() - 512..]);
    assert_eq!(file[60..64], [0, 0, 0, 4]);
    let header = &file[512..1536];
    assert_eq!(header[40..56], [1; 16]);
    assert_ne!(header[56..60], [0; 4]);
    let name: Vec<u8> = "bäse.vhd"
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    assert_eq!(header[64..64 + name.len()], name);
    assert_eq!(header[64 + name.len()], 0);
    let number = |at: usize| {
        let bytes = header[at..at + 4].iter();
        bytes.fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let table = number(20);
    let mut end = 1536;
    let absolute = r"D:\vms\base\bäse.vhd";
    for (n, (code, text)) in [(b"W2ru", r".\base\bäse.vhd"), (b"W2ku", absolute)]
        .into_iter()
        .enumerate()
    {
        let at = 576 + n * 24;
        assert_eq!(header[at..at + 4], *code);
        let (space, len, offset) = (number(at + 4), number(at + 8), number(at + 20));
        assert!(
            space.is_multiple_of(512) && len <= space && offset == end,
            "{n}"
        );
        let data: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(file[offset..offset + len], data);
        end = offset + space;
    }
    assert_eq!((table % 512, end), (0, table));
    // 7-Zip takes a Windows path for a file name.
    let beside = folder.path("base/child.vhd");
    run(&mut command!("vhd", "create", &beside, "--parent", &base));
    assert_same(
        &with_7zip(&beside),
        &patterned(64),
        "an empty child in 7-Zip",
    );
}

#[test]
fn a_diff_becomes_a_child_and_a_child_a_diff() {
    for (seed, grown) in [(1, 0), (2, 100 * KIB)] {
        let folder = TestFolder::new();
        let before = crate::disk::disk(seed, 5 << 20);
        let mut after = crate::disk::changed(seed + 1, &before);
        after.resize(after.len() + grown, 0x11);
        let path = |name: &str| folder.path(name);
        let (base, target) = (
            folder.file("base.raw", &before),
            folder.file("target.raw", &after),
        );
        run(&mut command!("vhd", "convert", &base, path("base.vhd")));
        run(&mut command!(
            "vhd-diff",
            path("base.vhd"),
            &target,
            "-o",
            path("d")
        ));
        let child = path("child.vhd");
        run(&mut command!(
            "vhd-apply",
            path("base.vhd"),
            path("d"),
            "-o",
            &child,
            "-O",
            "differencing",
            "--verify"
        ));
        assert_reads_as(&plain(&child).unwrap(), &after);
        assert_same(&with_7zip(&child), &after, "7-Zip");

        run(&mut command!(
            "vhd-diff",
            "--from-child",
            &child,
            "-o",
            path("own")
        ));
        run(&mut command!(
            "vhd-diff",
            path("base.vhd"),
            &child,
            "-o",
            path("full"),
            "--no-digest"
        ));
        assert_same(&content(path("own")), &content(path("full")), "diffs");
        run(&mut command!(
            "vhd-diff",
            "--from-child",
            &child,
            "-o",
            path("digests"),
            "--digest"
        ));
        run(&mut command!(
            "vhd-apply",
            &base,
            path("digests"),
            "-o",
            path("again.raw")
        ));
        assert_same(&content(path("again.raw")), &after, "applied");
        let listed = |command: &mut std::process::Command| run_to(command, 1).stdout;
        assert_eq!(
            listed(&mut command!("vhd-diff", "--from-child", &child)),
            listed(&mut command!("vhd-diff", path("base.vhd"), &child))
        );
        // If the base already includes the diffs, the child stays empty.
        let empty = path("empty.vhd");
        run(&mut command!(
            "vhd-apply",
            &child,
            path("d"),
            "-o",
            &empty,
            "-O",
            "differencing"
        ));
        assert_eq!(plain(&empty).unwrap().vhd().unwrap().allocated_blocks(), 0);
    }
}

#[test]
fn a_child_is_patched_in_place_and_taken_back_without_a_touch_to_its_parent() {
    let folder = TestFolder::new();
    let before = crate::disk::disk(3, 4 << 20);
    let (middle, after) = (
        crate::disk::changed(4, &before),
        crate::disk::changed(5, &before),
    );
    let path = |name: &str| folder.path(name);
    folder.file("base.raw", &before);
    folder.file("middle.raw", &middle);
    folder.file("target.raw", &after);
    run(&mut command!(
        "vhd",
        "convert",
        path("base.raw"),
        path("base.vhd")
    ));
    run(&mut command!(
        "vhd-diff",
        path("base.raw"),
        path("middle.raw"),
        "-o",
        path("1")
    ));
    run(&mut command!(
        "vhd-diff",
        path("middle.raw"),
        path("target.raw"),
        "-o",
        path("2")
    ));
    let child = path("child.vhd");
    run(&mut command!(
        "vhd-apply",
        path("base.vhd"),
        path("1"),
        "-o",
        &child,
        "-O",
        "differencing"
    ));
    let (parent, id) = (content(path("base.vhd")), content(&child)[68..84].to_vec());
    run(&mut command!(
        "vhd-apply",
        &child,
        path("2"),
        "--undo",
        path("back"),
        "--verify"
    ));
    assert_reads_as(&plain(&child).unwrap(), &after);
    assert_same(&with_7zip(&child), &after, "7-Zip");
    run(&mut command!("vhd-apply", &child, path("back"), "--verify"));
    assert_reads_as(&plain(&child).unwrap(), &middle);
    assert_same(&content(path("base.vhd")), &parent, "the parent");
    assert_eq!(content(&child)[68..84], id, "the identity came back");

    // As above, with the journal of an interrupted apply.
    let journal = path("child.vhd.undo-journal");
    fs::copy(path("back"), &journal).unwrap();
    run_to(&mut command!("vhd", "hash", &child), 5);
    run(&mut command!("vhd-apply", &child, path("2")));
    assert_reads_as(&plain(&child).unwrap(), &after);
    fs::copy(path("back"), &journal).unwrap();
    run(&mut command!("vhd-apply", "--rollback", &child));
    assert_reads_as(&plain(&child).unwrap(), &middle);
    assert_eq!(content(&child)[68..84], id, "the identity came back");

    // The child grows with its target.
    let grown = [&middle[..], &[1; 512]].concat();
    folder.file("grown.raw", &grown);
    run(&mut command!(
        "vhd-diff",
        path("middle.raw"),
        path("grown.raw"),
        "-o",
        path("3")
    ));
    run(&mut command!("vhd-apply", &child, path("3"), "--verify"));
    assert_reads_as(&plain(&child).unwrap(), &grown);
}

/// A target that kept the identity of its base: a child with the id of its parent could be mistaken for it.
#[test]
fn a_child_never_takes_its_parents_id() {
    let folder = TestFolder::new();
    let path = |name: &str| folder.path(name);
    let (before, after) = (patterned(64), [patterned(63), vec![9; 512]].concat());
    for (name, bytes) in [("base.vhd", &before), ("target.vhd", &after)] {
        folder.file(
            name,
            &crate::vhd_builder::with_id(crate::vhd_builder::fixed(&TINY, bytes), [1; 16]),
        );
    }
    run(&mut command!(
        "vhd-diff",
        path("base.vhd"),
        path("target.vhd"),
        "-o",
        path("d")
    ));
    let child = path("child.vhd");
    run(&mut command!(
        "vhd-apply",
        path("base.vhd"),
        path("d"),
        "-o",
        &child,
        "-O",
        "differencing"
    ));
    let id = content(&child)[68..84].to_vec();
    assert_ne!(id, [1; 16]);
    assert_reads_as(&plain(&child).unwrap(), &after);
    let other = path("other.vhd");
    run(&mut command!(
        "vhd",
        "create",
        &other,
        "--parent",
        path("base.vhd")
    ));
    let id = content(&other)[68..84].to_vec();
    run(&mut command!("vhd-apply", &other, path("d")));
    assert_eq!(content(&other)[68..84], id);
    assert_reads_as(&plain(&other).unwrap(), &after);
}

#[test]
fn every_command_reads_chains() {
    let folder = TestFolder::new();
    let (top, model) = three_levels(&folder, [&TINY, &SHAPES[5], &TINY], true, 43);
    let raw = folder.file("model.raw", &model);
    run(&mut command!("vhd-diff", &top, &raw));
    run(&mut command!(
        "vhd",
        "convert",
        &top,
        folder.path("copy.raw"),
        "--verify"
    ));
    assert_same(&content(folder.path("copy.raw")), &model, "convert");
    let base = folder.path("base.vhd");
    let kept = content(&base);
    run_to(&mut command!("vhd", "convert", &top, &base, "--force"), 2);
    assert_same(&content(&base), &kept, "the base");
    let hash =
        |path: &Path| String::from_utf8(run(&mut command!("vhd", "hash", path)).stdout).unwrap();
    assert_eq!(hash(&top)[..64], hash(&raw)[..64]);
    let json = |command: &mut std::process::Command| -> serde_json::Value {
        serde_json::from_slice(&run(command).stdout).unwrap()
    };
    let info = json(&mut command!("vhd", "info", "--json", &top));
    let parents: Vec<&str> = (0..2)
        .map(|n| {
            info["parents"][n]["image"]
                .as_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
        })
        .collect();
    assert_eq!(parents, ["middle.vhd", "base.vhd"]);
    let map = json(&mut command!("vhd", "map", "--json", "--offsets", &top));
    for extent in map["extents"].as_array().unwrap() {
        let number = |name: &str| usize::try_from(extent[name].as_u64().unwrap()).unwrap();
        if extent["state"] == "data" {
            let (start, at) = (number("start"), number("offset"));
            let file = content(extent["file"].as_str().unwrap());
            assert_eq!(file[at..at + 512], model[start..start + 512]);
            assert!(number("depth") < 3);
        }
    }
    let text = String::from_utf8(run(&mut command!("vhd", "map", &top)).stdout).unwrap();
    assert!(
        text.contains("DEPTH") && text.contains("base.vhd"),
        "{text}"
    );
    // Without its parent, the child itself can still be inspected.
    fs::remove_file(folder.path("middle.vhd")).unwrap();
    let info = json(&mut command!("vhd", "info", "--json", &top));
    assert_eq!(info["warnings"][0]["id"], "parent-missing");
    run_to(&mut command!("vhd", "hash", &top), 2);
}

#[test]
fn a_raw_base_has_children_only_if_that_is_wanted() {
    let folder = TestFolder::new();
    let base = folder.file("base.raw", &patterned(64));
    let child = folder.path("child.vhd");
    run_to(&mut command!("vhd", "create", &child, "--parent", &base), 2);
    assert!(!child.exists());
    run(&mut command!(
        "vhd",
        "create",
        &child,
        "--parent",
        &base,
        "--raw-parent"
    ));
    assert_eq!(content(&child)[512 + 40..512 + 56], [0; 16]);
    run_to(&mut command!("vhd", "hash", &child), 3);
    run(&mut command!("vhd-diff", &child, &base, "--raw-parent"));
}
