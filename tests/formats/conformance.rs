//! One suite for every image that can be written: whatever the format, it behaves like a vector of bytes.
use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;
use vhdkit::image::{Image, ImageMut, RawImage};
use vhdkit::page::{PAGE_SIZE, PageRange};
use vhdkit::storage::{File, Memory, ReadAt, WriteAt};
use vhdkit::vhd::{
    CreateOptions, DiskType, Footer, NewParent, Parent, ParentRequest, ParentResolver, Timestamp,
    VhdImage,
};
use vhdkit::{ErrorKind, Result};

use crate::checks::{assert_reads_as, read_all};
use crate::recorder::{Event, Recorder};

/// The formats, with block sizes that make blocks smaller, as large and larger than what is written at once.
#[derive(Debug, Clone, Copy)]
enum Format {
    Raw,
    Fixed,
    Dynamic(u32),
    /// Over a raw parent that is smaller.
    Differencing(u32),
}

const FORMATS: [Format; 9] = [
    Format::Raw,
    Format::Fixed,
    Format::Dynamic(512),
    Format::Dynamic(4096),
    Format::Dynamic(32 << 10),
    Format::Dynamic(2 << 20),
    Format::Differencing(512),
    Format::Differencing(8192),
    Format::Differencing(2 << 20),
];

/// What a new image of this format and size holds.
fn initial(format: Format, size: usize) -> Vec<u8> {
    let mut disk = vec![0; size];
    if let Format::Differencing(_) = format {
        for (n, page) in parent_of(size).chunks_mut(512).enumerate() {
            disk[n * 512..][..512].copy_from_slice(page);
        }
    }
    disk
}

/// A disk of three quarters of the pages, at least one, in which every fifth is zero.
fn parent_of(size: usize) -> Vec<u8> {
    let pages = (size / 512 * 3).div_ceil(4);
    let page = |n: usize| {
        vec![
            if n % 5 == 4 {
                0
            } else {
                0x80 + u8::try_from(n % 100).unwrap()
            };
            512
        ]
    };
    (0..pages).flat_map(page).collect()
}

/// Opens that parent.
struct RawParent(u64);

impl RawParent {
    fn open(&self) -> Parent {
        let disk = parent_of(usize::try_from(self.0).unwrap());
        Parent {
            image: Arc::new(RawImage::open(Memory::new(disk)).unwrap()),
            name: "parent".into(),
            unique_id: None,
        }
    }
}

impl ParentResolver for RawParent {
    fn resolve(&mut self, request: &ParentRequest<'_>) -> Result<Parent> {
        assert!(request.parent_id.is_nil());
        assert_eq!(request.parent_name, "parent");
        let texts: Vec<&str> = request
            .paths
            .iter()
            .map(|path| path.text.as_str())
            .collect();
        assert_eq!(texts, [".\\parent", "D:\\disks\\parent"]);
        Ok(self.open())
    }
}

fn options(format: Format, size: u64) -> CreateOptions {
    match format {
        Format::Dynamic(block_size) => CreateOptions {
            block_size,
            ..CreateOptions::new(DiskType::Dynamic, size)
        },
        Format::Differencing(block_size) => CreateOptions {
            block_size,
            ..CreateOptions::child(
                NewParent {
                    parent: RawParent(size).open(),
                    timestamp: Timestamp(77),
                    file_name: "parent".into(),
                    relative: ".\\parent".into(),
                    absolute: Some("D:\\disks\\parent".into()),
                },
                size,
            )
        },
        _ => CreateOptions::new(DiskType::Fixed, size),
    }
}

fn create<'a, S: WriteAt + 'a>(format: Format, storage: S, size: u64) -> Box<dyn ImageMut + 'a> {
    if let Format::Raw = format {
        storage.set_len(size).unwrap();
        return Box::new(RawImage::open(storage).unwrap());
    }
    Box::new(VhdImage::create(storage, &options(format, size)).unwrap())
}

fn open<'a, S: WriteAt + 'a>(format: Format, storage: S) -> Box<dyn ImageMut + 'a> {
    if let Format::Raw = format {
        return Box::new(RawImage::open(storage).unwrap());
    }
    let image = open_vhd(storage).unwrap();
    assert!(image.warnings().is_empty(), "{:?}", image.warnings());
    Box::new(image)
}

fn open_vhd<S: ReadAt>(storage: S) -> Result<VhdImage<S>> {
    let mut end = [0; 512];
    storage.read_exact_at(&mut end, 0)?;
    // Of a fixed disk this is data, and no parent is asked for.
    let size = Footer::decode(&end).current_size;
    VhdImage::open_with(storage, &mut RawParent(size))
}

#[derive(Debug, Clone)]
enum Step {
    Update(Range<usize>, u8),
    Clear(Range<usize>),
    Flush,
    Reopen,
}

/// Runs `steps` on an image of `pages` pages and on a vector, and compares the two all along.
fn run(format: Format, storage: &(impl WriteAt + std::fmt::Debug), pages: usize, steps: &[Step]) {
    let page = usize::try_from(PAGE_SIZE).unwrap();
    let bytes = |range: &Range<usize>| range.start.min(pages) * page..range.end.min(pages) * page;
    let range =
        |bytes: &Range<usize>| PageRange::new(bytes.start as u64, bytes.end as u64).unwrap();
    let mut model = initial(format, pages * page);
    let mut image = create(format, storage, model.len() as u64);
    for step in steps {
        match step {
            Step::Update(pages, value) => {
                let bytes = bytes(pages);
                // Every other page of an update holds zeros.
                for (n, byte) in model[bytes.clone()].iter_mut().enumerate() {
                    *byte = if n / page % 2 == 0 { *value } else { 0 };
                }
                image.update(range(&bytes), &model[bytes]).unwrap();
            }
            Step::Clear(pages) => {
                let bytes = bytes(pages);
                image.clear(range(&bytes)).unwrap();
                model[bytes].fill(0);
            }
            Step::Flush => image.flush().unwrap(),
            Step::Reopen => {
                image.flush().unwrap();
                drop(image);
                image = open(format, storage);
            }
        }
        assert!(read_all(&*image) == model, "{format:?} after {step:?}");
    }
    assert_reads_as(&*image, &model);
    let end = model.len() as u64;
    let beyond = PageRange::new(end, end + PAGE_SIZE).unwrap();
    assert!(image.update(beyond, &[1; 512]).is_err());
    assert!(image.clear(beyond).is_err());
    image.flush().unwrap();
    drop(image);
    assert_reads_as(&*open(format, storage), &model);
}

fn steps(pages: usize) -> impl Strategy<Value = Vec<Step>> {
    // Ends of the disk come up more often than chance would have it.
    let start = prop_oneof![Just(0), Just(pages - 1), 0..pages];
    let len = prop_oneof![Just(1), 0..20_usize, Just(pages)];
    let range = (start, len).prop_map(|(start, len)| start..start + len);
    let step = prop_oneof![
        4 => (range.clone(), 0_u8..4).prop_map(|(r, value)| Step::Update(r, value)),
        2 => range.prop_map(Step::Clear),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_format_behaves_like_a_vector(
        (pages, steps) in prop_oneof![Just(1_usize), Just(64), 1..200_usize]
            .prop_flat_map(|pages| (Just(pages), steps(pages)))
    ) {
        for format in FORMATS {
            run(format, &Memory::new(Vec::new()), pages, &steps);
        }
    }
}

#[test]
fn blocks_of_the_usual_size_behave_too() {
    let steps = [
        Step::Update(4090..4103, 7),
        Step::Clear(4095..4097),
        Step::Update(9000..9001, 8),
        Step::Reopen,
        Step::Update(100..101, 9),
        Step::Update(4000..9001, 1),
    ];
    for format in [
        Format::Dynamic(2 << 20),
        Format::Dynamic(16 << 20),
        Format::Differencing(16 << 20),
        Format::Fixed,
    ] {
        run(format, &Memory::new(Vec::new()), 9001, &steps);
    }
}

#[test]
fn holes_in_files_are_seen_as_zeros() {
    let folder = tempfile::tempdir().unwrap();
    for (n, format) in FORMATS.into_iter().enumerate() {
        let path = folder.path().join(n.to_string());
        let std_file = std::fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        let file = File::from_std(std_file, &path).unwrap();
        let steps = [
            Step::Update(0..900, 1),
            Step::Clear(128..700),
            Step::Reopen,
            Step::Update(800..4096, 2),
            Step::Clear(1000..4096),
        ];
        run(format, &file, 4096, &steps);
    }
}

/// Data of another length than its range is refused by every format, and nothing is written.
#[test]
fn an_update_is_as_long_as_its_range() {
    const SIZE: u64 = 64 << 10;
    for format in FORMATS {
        let storage = Memory::new(Vec::new());
        let mut image = create(format, &storage, SIZE);
        image
            .update(PageRange::covering(0, 2048), &[7; 2048])
            .unwrap();
        image.flush().unwrap();
        let before = storage.to_vec();
        for len in [0, 512, 2047, 2049, 4096] {
            let refused = image
                .update(PageRange::covering(0, 2048), &vec![9; len])
                .unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Usage, "{format:?}, {len} bytes");
        }
        let beyond = image
            .update(PageRange::covering(SIZE - 512, SIZE + 512), &[9; 1024])
            .unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::Usage, "{format:?}");
        assert_eq!(storage.to_vec(), before, "{format:?}");
    }
}

#[test]
fn zeros_are_never_allocated() {
    let storage = Memory::new(Vec::new());
    let mut image = VhdImage::create(&storage, &options(Format::Dynamic(4096), 1 << 20)).unwrap();
    let len = storage.byte_len().unwrap();
    let all = PageRange::new(0, 1 << 20).unwrap();
    image.update(all, &vec![0; 1 << 20]).unwrap();
    image.clear(all).unwrap();
    image.flush().unwrap();
    assert_eq!(image.allocated_blocks(), 0);
    assert_eq!(storage.byte_len().unwrap(), len);
    let mut data = vec![0; 1 << 20];
    data[(1 << 20) - 1] = 1;
    image.update(all, &data).unwrap();
    assert_eq!(image.allocated_blocks(), 1);
}

#[test]
fn the_same_updates_give_the_same_file() {
    let identity = Footer::for_disk(DiskType::Dynamic, 1 << 20, None);
    let make = || {
        let storage = Memory::new(Vec::new());
        let options = CreateOptions {
            identity: Some(identity.clone()),
            ..options(Format::Dynamic(16 << 10), 1 << 20)
        };
        let mut image = VhdImage::create(&storage, &options).unwrap();
        for n in [1_u64, 2, 9, 40, 63] {
            let range = PageRange::from_len(n << 14, 4096).unwrap();
            image.update(range, &[9; 4096]).unwrap();
        }
        image.flush().unwrap();
        drop(image);
        storage.into_vec()
    };
    assert!(make() == make());
}

#[test]
fn data_is_aligned_and_both_footers_are_the_same() {
    for block_size in [4096, 64 << 10, 2 << 20, 8 << 20] {
        let storage = Memory::new(Vec::new());
        let mut image =
            VhdImage::create(&storage, &options(Format::Dynamic(block_size), 20 << 20)).unwrap();
        for offset in [0, 17 << 20, 5 << 20] {
            let range = PageRange::from_len(offset, 512).unwrap();
            image.update(range, &[1; 512]).unwrap();
            let place = image.locate(offset).unwrap().unwrap();
            assert_eq!(place % 4096, 0);
            assert_eq!(image.locate(offset + 511).unwrap(), Some(place + 511));
            assert_eq!(image.locate(offset + 512).unwrap(), None);
        }
        assert!(image.locate(20 << 20).is_err());
        image.flush().unwrap();
        let bytes = storage.to_vec();
        assert_eq!(bytes[..512], bytes[bytes.len() - 512..]);
        assert_eq!(bytes[..512], image.footer().encode());
        let header = image.header().unwrap();
        let end = 1536 + usize::try_from(header.max_table_entries).unwrap() * 4;
        let padding = &bytes[end..end.next_multiple_of(512)];
        assert!(padding.iter().all(|byte| *byte == 0xFF));
    }
}

/// Readers that ignore bitmaps see what lies under clear bits, so that must be zeros; and the places of former
/// footers must not keep them.
#[test]
fn what_was_not_written_is_zero_in_the_file_too() {
    for block_size in [512, 4096, 64 << 10, 2 << 20] {
        let storage = Memory::new(Vec::new());
        let options = options(Format::Dynamic(block_size), 20 << 20);
        let mut image = VhdImage::create(&storage, &options).unwrap();
        let mut places = Vec::new();
        for offset in [0, 16 << 20, 4 << 20] {
            write(&mut image, offset, 512, 1).unwrap();
            places.push(image.locate(offset).unwrap().unwrap());
        }
        image.flush().unwrap();
        let mut bytes = storage.to_vec();
        let end = bytes.len() - 512;
        for place in places {
            let data = usize::try_from(place).unwrap();
            assert_eq!(bytes[data - 512], 0x80);
            bytes[data - 512] = 0;
            bytes[data..data + 512].fill(0);
        }
        let header = image.header().unwrap();
        let blocks_at =
            1536 + usize::try_from(vhdkit::vhd::table_bytes(header.max_table_entries)).unwrap();
        assert!(
            bytes[blocks_at..end].iter().all(|byte| *byte == 0),
            "{block_size}"
        );
    }
}

#[test]
fn an_identity_is_taken_over_and_lands_in_both_footers() {
    let other = Footer {
        saved_state: 1,
        ..Footer::for_disk(DiskType::Fixed, 3 << 20, None)
    }
    .sealed();
    for format in [Format::Fixed, Format::Dynamic(4096)] {
        let storage = Memory::new(Vec::new());
        let mut image = VhdImage::create(&storage, &options(format, 1 << 20)).unwrap();
        image.set_footer(&other);
        let range = PageRange::from_len(8192, 512).unwrap();
        image.update(range, &[5; 512]).unwrap();
        image.flush().unwrap();
        let again = VhdImage::open(&storage).unwrap();
        assert!(again.warnings().is_empty(), "{:?}", again.warnings());
        assert_eq!(again.footer().unique_id, other.unique_id);
        assert_eq!(again.footer().saved_state, 1);
        assert_eq!(again.virtual_size(), 1 << 20);
    }
}

#[test]
fn a_fixed_disk_grows_and_shrinks_without_a_trace_of_its_footer() {
    let storage = Memory::new(Vec::new());
    let mut image = VhdImage::create(&storage, &options(Format::Fixed, 4096)).unwrap();
    let mut model = vec![3; 4096];
    image
        .update(PageRange::new(0, 4096).unwrap(), &model)
        .unwrap();
    for size in [6144, 4608, 4608, 512, 8192] {
        image.resize(size as u64).unwrap();
        model.resize(size, 0);
        assert_eq!(storage.byte_len().unwrap(), size as u64 + 512);
        let image = VhdImage::open(&storage).unwrap();
        assert!(image.warnings().is_empty());
        assert_reads_as(&image, &model);
    }
    assert!(image.resize(0).is_err());
    assert!(image.resize(513).is_err());
    assert!(image.resize(u64::MAX - 511).is_err());
}

/// A disk with some blocks, what happened while more were added, and the content before and after.
struct Growth {
    before: Vec<u8>,
    events: Vec<Event>,
    old: Vec<u8>,
    new: Vec<u8>,
}

fn grow(format: Format, with_identity: bool) -> Growth {
    let storage = Memory::new(Vec::new());
    let mut image = VhdImage::create(&storage, &options(format, 80 << 10)).unwrap();
    write(&mut image, 0, 1024, 1).unwrap();
    write(&mut image, 40 << 10, 8192, 2).unwrap();
    image.flush().unwrap();
    let (before, old) = (storage.to_vec(), read_all(&image));

    let storage = Recorder::new(before.clone(), usize::MAX);
    let mut image = open_vhd(&storage).unwrap();
    add_blocks(&mut image, with_identity).unwrap();
    let new = read_all(&image);
    drop(image);
    Growth {
        before,
        events: storage.log.into_inner().unwrap(),
        old,
        new,
    }
}

fn add_blocks(image: &mut VhdImage<&Recorder>, with_identity: bool) -> Result<()> {
    if with_identity {
        image.set_footer(&Footer::for_disk(DiskType::Fixed, 512, None));
    }
    write(image, 8192, 512, 3)?;
    write(image, 512, 2048, 4)?;
    write(image, 70 << 10, 4096, 5)?;
    image.flush()?;
    write(image, 24 << 10, 1024, 6)?;
    write(image, (24 << 10) + 4096, 1024, 6)?;
    image.clear(PageRange::from_len(41 << 10, 2048)?)?;
    image.clear(PageRange::from_len(12 << 10, 1024)?)?;
    image.clear(PageRange::from_len(56 << 10, 1024)?)?;
    image.flush()
}

fn write(image: &mut dyn ImageMut, start: u64, len: usize, value: u8) -> Result<()> {
    let range = PageRange::from_len(start, len as u64)?;
    image.update(range, &vec![value; len])
}

/// Asserts that the file opens and that each of its pages is the old or the new one.
fn assert_old_or_new(growth: &Growth, bytes: Vec<u8>, when: &str) {
    let image = open_vhd(Memory::new(bytes)).unwrap_or_else(|e| panic!("{when}: {e:?}"));
    let found = read_all(&image);
    let pages = found
        .chunks(512)
        .zip(growth.old.chunks(512))
        .zip(growth.new.chunks(512));
    for (n, ((found, old), new)) in pages.enumerate() {
        assert!(found == old || found == new, "{when}: page {n}");
    }
}

#[test]
fn a_crash_while_growing_leaves_old_or_new_pages() {
    for (format, with_identity) in growing() {
        let growth = grow(format, with_identity);
        let storage = Memory::new(growth.before.clone());
        for (n, event) in growth.events.iter().enumerate() {
            event.replay(&storage);
            assert_old_or_new(&growth, storage.to_vec(), &format!("after {n} {event:?}"));
        }
        assert_eq!(read_all(&open_vhd(&storage).unwrap()), growth.new);
    }
}

#[test]
fn a_crash_that_loses_unsynced_writes_leaves_old_or_new_pages() {
    for (format, _) in growing().step_by(2) {
        lose_unsynced_writes(&grow(format, true));
    }
}

/// Formats that grow, each with and without a new identity.
fn growing() -> impl Iterator<Item = (Format, bool)> {
    let formats = [Format::Dynamic(8192), Format::Differencing(8192)];
    formats
        .into_iter()
        .flat_map(|format| [false, true].map(|with_identity| (format, with_identity)))
}

fn lose_unsynced_writes(growth: &Growth) {
    let mut seed = 1_u64;
    for round in 0..400 {
        let storage = Memory::new(growth.before.clone());
        let syncs = growth.events.iter().enumerate();
        let synced: Vec<usize> = syncs
            .filter(|(_, event)| matches!(event, Event::Sync))
            .map(|(n, _)| n)
            .collect();
        let crash = round % growth.events.len();
        let durable = synced
            .iter()
            .rev()
            .find(|n| **n <= crash)
            .copied()
            .unwrap_or(0);
        for (n, event) in growth.events[..=crash].iter().enumerate() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if n < durable || seed >> 62 != 0 {
                event.replay(&storage);
            }
        }
        assert_old_or_new(growth, storage.to_vec(), &format!("round {round}"));
    }
}

#[test]
fn a_full_disk_leaves_old_or_new_pages() {
    for (format, _) in growing().step_by(2) {
        fill_the_disk(&grow(format, true));
    }
}

fn fill_the_disk(growth: &Growth) {
    for fail_at in 0..growth.events.len() {
        let storage = Recorder::new(growth.before.clone(), fail_at);
        let mut image = open_vhd(&storage).unwrap();
        let error = add_blocks(&mut image, true).unwrap_err();
        assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull));
        drop(image);
        assert_old_or_new(
            growth,
            storage.inner.into_vec(),
            &format!("full at {fail_at}"),
        );
    }
}
