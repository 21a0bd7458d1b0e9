//! Resizing in place: what is read afterwards, and what a crash at any point leaves.
use std::path::PathBuf;
use std::sync::Arc;

use vhdkit::Result;
use vhdkit::image::{Image, ImageMut as _, RawImage};
use vhdkit::page::PageRange;
use vhdkit::storage::{Memory, ReadAt, WriteAt};
use vhdkit::vhd::{
    CreateOptions, DiskType, NewParent, Parent, ParentRequest, ParentResolver, Timestamp, VhdImage,
};

use crate::checks::{assert_reads_as, read_all};
use crate::recorder::{Event, Recorder};

const KIB: u64 = 1 << 10;

/// Type, block size, size before, sizes after.
const CASES: [(DiskType, u32, u64, &[u64]); 6] = [
    (
        DiskType::Fixed,
        0,
        8 * KIB,
        &[512, 8 * KIB - 512, 8 * KIB + 512, 64 * KIB],
    ),
    // 20 entries, in a sector that has room for 128.
    (
        DiskType::Dynamic,
        4096,
        80 * KIB,
        &[512, 41 * KIB, 80 * KIB + 512, 200 * KIB, 512 * KIB],
    ),
    // 200 entries fill a sector and a half; more than 256 need a new table.
    (
        DiskType::Dynamic,
        512,
        100 * KIB,
        &[KIB, 99 * KIB, 128 * KIB, 129 * KIB, 300 * KIB],
    ),
    (
        DiskType::Dynamic,
        32 << 10,
        33 * KIB + 512,
        &[32 * KIB, 34 * KIB, 900 * KIB],
    ),
    // The parent has 30 KiB.
    (
        DiskType::Differencing,
        4096,
        41 * KIB,
        &[30 * KIB, 41 * KIB + 512, 200 * KIB],
    ),
    (
        DiskType::Differencing,
        512,
        60 * KIB,
        &[31 * KIB, 70 * KIB, 90 * KIB],
    ),
];

struct RawParent;

impl RawParent {
    fn open() -> Parent {
        Parent {
            image: Arc::new(RawImage::open(Memory::new(vec![0x77; 30 << 10])).unwrap()),
            name: PathBuf::from("parent.raw"),
            unique_id: None,
        }
    }
}

impl ParentResolver for RawParent {
    fn resolve(&mut self, _: &ParentRequest<'_>) -> Result<Parent> {
        Ok(Self::open())
    }
}

fn open<S: ReadAt>(storage: S) -> Result<VhdImage<S>> {
    VhdImage::open_with(storage, &mut RawParent)
}

/// Returns a disk with data here and there, including its last page.
fn make(disk_type: DiskType, block_size: u32, size: u64) -> Memory {
    let storage = Memory::new(Vec::new());
    let mut options = CreateOptions::new(disk_type, size);
    options.block_size = block_size.max(512);
    if disk_type == DiskType::Differencing {
        options.parent = Some(NewParent {
            parent: RawParent::open(),
            timestamp: Timestamp(0),
            file_name: "parent.raw".into(),
            relative: ".\\parent.raw".into(),
            absolute: None,
        });
    }
    let mut image = VhdImage::create(&storage, &options).unwrap();
    let pages = size / 512;
    // Out of order, so that the last block of the disk isn't the last of the file.
    for (value, page) in (1..).zip([pages - 1, 0, pages / 2, pages / 3, 1]) {
        let range = PageRange::from_len(page * 512, 512).unwrap();
        image.update(range, &[value; 512]).unwrap();
    }
    image.flush().unwrap();
    storage
}

fn resized(model: &[u8], size: u64) -> Vec<u8> {
    let mut model = model.to_vec();
    model.resize(usize::try_from(size).unwrap(), 0);
    model
}

#[test]
fn every_size_reads_as_it_should_and_back_again() {
    for (disk_type, block_size, size, sizes) in CASES {
        for new in sizes {
            let storage = make(disk_type, block_size, size);
            let mut image = open(&storage).unwrap();
            let (identity, model) = (image.footer().unique_id, read_all(&image));
            let model = resized(&model, *new);
            image.resize(*new).unwrap();
            assert_reads_as(&image, &model);
            let again = open(&storage).unwrap();
            assert!(again.warnings().is_empty(), "{:?}", again.warnings());
            assert_reads_as(&again, &model);
            let footer = again.footer();
            assert_eq!((footer.unique_id, footer.original_size), (identity, size));
            let bytes = storage.to_vec();
            if disk_type == DiskType::Fixed {
                assert_eq!(bytes.len() as u64, new + 512);
            } else {
                assert_eq!(bytes[..512], bytes[bytes.len() - 512..]);
            }
            drop(again);

            // Data cut off stays gone when the disk grows again, and new blocks have room.
            image.resize(size).unwrap();
            let mut model = resized(&model, size);
            let last = PageRange::new(size - 512, size).unwrap();
            image.update(last, &[9; 512]).unwrap();
            image.flush().unwrap();
            let start = model.len() - 512;
            model[start..].fill(9);
            assert_reads_as(&open(&storage).unwrap(), &model);
        }
    }
}

#[test]
fn impossible_sizes_change_nothing() {
    for (disk_type, block_size, size, _) in CASES {
        let storage = make(disk_type, block_size, size);
        let before = storage.to_vec();
        let mut image = open(&storage).unwrap();
        for size in [0, 1, 513, u64::MAX, u64::MAX - 511] {
            assert!(image.resize(size).is_err(), "{size}");
        }
        image.resize(size).unwrap();
        if disk_type != DiskType::Fixed {
            assert!(image.resize((2040 << 30) + 512).is_err());
        }
        if disk_type == DiskType::Differencing {
            let error = image.resize(29 * KIB).unwrap_err();
            assert_eq!(error.field(), Some("footer.current_size"));
        }
        assert!(storage.to_vec() == before);
    }
}

/// Asserts that the file opens with the old or the new size, with the old content, and zeros where it grew.
fn assert_between(bytes: Vec<u8>, old: &[u8], new: u64, when: &str) -> bool {
    let image = open(Memory::new(bytes)).unwrap_or_else(|e| panic!("{when}: {e:?}"));
    let size = image.virtual_size();
    assert!(size == old.len() as u64 || size == new, "{when}: {size}");
    assert!(read_all(&image) == resized(old, size), "{when}: content");
    size == new
}

/// Records the writes of a resize.
fn record(storage: &Memory, new: u64) -> Vec<Event> {
    let recorder = Recorder::new(storage.to_vec(), usize::MAX);
    open(&recorder).unwrap().resize(new).unwrap();
    recorder.log.into_inner().unwrap()
}

#[test]
fn a_crash_leaves_the_old_or_the_new_size() {
    for (disk_type, block_size, size, sizes) in CASES {
        for new in sizes {
            let storage = make(disk_type, block_size, size);
            let old = read_all(&open(&storage).unwrap());
            let events = record(&storage, *new);
            let mut turned = false;
            for (n, event) in events.iter().enumerate() {
                event.replay(&storage);
                let when = format!("{disk_type} {size} to {new}, after {n} {event:?}");
                let now = assert_between(storage.to_vec(), &old, *new, &when);
                assert!(now || !turned, "{when}: the old size again");
                turned = now;
            }
            assert!(turned);
        }
    }
}

#[test]
fn a_crash_that_loses_unsynced_writes_leaves_the_old_or_the_new_size() {
    for (disk_type, block_size, size, sizes) in CASES {
        for new in sizes {
            let before = make(disk_type, block_size, size);
            let old = read_all(&open(&before).unwrap());
            let events = record(&before, *new);
            for crash in 0..events.len() {
                let synced = events[..=crash]
                    .iter()
                    .rposition(|event| matches!(event, Event::Sync));
                let first = synced.unwrap_or(0);
                // Every combination of the first ten writes that weren't synced.
                let open_ends = (crash + 1 - first).min(10);
                for mask in 0_u32..1 << open_ends {
                    let storage = Memory::new(before.to_vec());
                    for (n, event) in events[..=crash].iter().enumerate() {
                        let lost = n >= first && mask >> ((n - first) % 32).min(open_ends) & 1 == 1;
                        if !lost {
                            event.replay(&storage);
                        }
                    }
                    let when = format!("{disk_type} {size} to {new}, {crash}, {mask:b}");
                    assert_between(storage.to_vec(), &old, *new, &when);
                }
            }
        }
    }
}

#[test]
fn what_fails_in_the_middle_can_be_done_again() {
    for (disk_type, block_size, size, sizes) in CASES {
        for new in sizes {
            let before = make(disk_type, block_size, size);
            let old = read_all(&open(&before).unwrap());
            for fail_at in 0..record(&before, *new).len() {
                let recorder = Recorder::new(before.to_vec(), fail_at);
                let error = open(&recorder).unwrap().resize(*new).unwrap_err();
                assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull));
                let storage = recorder.inner;
                let mut image = open(&storage).unwrap();
                image.resize(*new).unwrap();
                drop(image);
                let model = resized(&old, *new);
                assert_reads_as(&open(&storage).unwrap(), &model);
            }
        }
    }
}

#[test]
fn blocks_that_are_cut_off_take_no_space() {
    let storage = make(DiskType::Dynamic, 4096, 80 * KIB);
    let before = storage.byte_len().unwrap();
    let mut image = open(&storage).unwrap();
    image.resize(8192).unwrap();
    // The first block stays after the last one, which has become a hole.
    assert_eq!(image.allocated_blocks(), 1);
    assert!(storage.byte_len().unwrap() < before);
    let stored = storage.to_vec();
    // The last page, which was cut off, held this data.
    assert!(!stored.windows(512).any(|page| page == [1; 512]));
}

#[test]
fn a_surplus_before_the_footer_of_a_fixed_disk_does_not_show() {
    for surplus in [1_u64, 3] {
        for size in [512, 2048, 2560, 3072, 3584, 4096, 9216] {
            let storage = Memory::new(Vec::new());
            VhdImage::create(&storage, &CreateOptions::new(DiskType::Fixed, 2048)).unwrap();
            let footer = storage.to_vec()[2048..].to_vec();
            let end = 2048 + surplus * 512;
            storage
                .write_all_at(&vec![8; usize::try_from(surplus * 512).unwrap()], 2048)
                .unwrap();
            storage.write_all_at(&footer, end).unwrap();
            if size != 2048 {
                // Data there would be lost.
                assert!(open(&storage).unwrap().resize(size).is_err(), "{size}");
                storage.write_zeros_at(2048..end).unwrap();
            }
            open(&storage).unwrap().resize(size).unwrap();
            assert!(
                read_all(&open(&storage).unwrap()) == resized(&[], size),
                "{size}"
            );
        }
    }
}
