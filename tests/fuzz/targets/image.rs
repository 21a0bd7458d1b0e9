//! Any bytes as a VHD: it is refused with a format error, or every read keeps the promises of an image and agrees
//! with a second, simple reader; what is written comes back.

use std::sync::Arc;

use vhdkit::image::{ExtentState, Image, ImageMut, whole};
use vhdkit::page::{PAGE_SIZE, PageRange};
use vhdkit::storage::Memory;
use vhdkit::vhd::{DiskType, Parent, ParentRequest, ParentResolver, VhdImage, bitmap_bytes};
use vhdkit::{ErrorKind, Result};

use super::diff::ok;
use super::disk::Disk;
use super::input::Input;

/// Disks up to this size are read as a whole.
const SMALL: u64 = 1 << 20;

pub fn run(data: &[u8]) {
    check(data, data, None);
}

/// What lies beneath a differencing disk.
type Beneath<'a> = Option<&'a Arc<Disk>>;

/// Hands in the one parent that there is, as the one that is asked for.
struct TheParent<'a>(&'a Arc<Disk>);

impl ParentResolver for TheParent<'_> {
    fn resolve(&mut self, request: &ParentRequest<'_>) -> Result<Parent> {
        assert!(request.paths.len() <= 8);
        Ok(Parent {
            image: Arc::<Disk>::clone(self.0),
            name: "parent".into(),
            unique_id: (!request.parent_id.is_nil()).then_some(request.parent_id),
        })
    }
}

fn open(storage: Memory, beneath: Beneath<'_>) -> Result<VhdImage<Memory>> {
    match beneath {
        Some(parent) => VhdImage::open_with(storage, &mut TheParent(parent)),
        None => VhdImage::open(storage),
    }
}

/// Opens `file`; `program` says what is written into it.
pub fn check(file: &[u8], program: &[u8], beneath: Beneath<'_>) {
    let storage = Memory::new(file.to_vec());
    let probed = VhdImage::probe(&storage);
    let image = match open(storage, beneath) {
        Ok(image) => image,
        Err(error) => {
            let kinds = [ErrorKind::Damaged, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{error:?}");
            assert!(
                error.path().is_some() && error.hint().is_some(),
                "{error:?}"
            );
            return;
        }
    };
    assert!(ok(probed).is_some(), "opened, but not recognised");
    for warning in image.warnings() {
        assert!(warning.path().is_some() && warning.field().is_some());
    }
    let beneath = beneath.filter(|_| image.disk_type() == DiskType::Differencing);
    let size = image.virtual_size();
    assert!(size > 0 && size % PAGE_SIZE == 0);
    assert!(image.read_exact_at(&mut [0], size).is_err());
    assert!(image.read_exact_at(&mut [0; 2], size - 1).is_err());
    places(&image, file);
    extents(&image, file, beneath);
    if size <= SMALL
        && let Some(content) = read_whole(&image, file, beneath)
        && image.block_size().is_none_or(|size| size <= SMALL)
    {
        write(image, content, program, beneath);
    }
}

/// Where stored data ends at the latest: at the trailing footer, whole or damaged, or where the file ends.
fn data_end(file: &[u8]) -> u64 {
    let is_footer = |at: &usize| {
        let bytes = &file[*at..];
        bytes.starts_with(b"conectix") || bytes.starts_with(b"v_poison")
    };
    let old = file.len().checked_sub(511);
    let old = old.filter(|_| file.len() % 512 == 511).filter(is_footer);
    let usual = || file.len().checked_sub(512).filter(is_footer);
    old.or_else(usual).unwrap_or(file.len()) as u64
}

/// The bits of every block's bitmap are in the file (what pads them to a sector is never asked for), and no block is over another one or over a structure.
fn places(image: &VhdImage<Memory>, file: &[u8]) {
    let Some(header) = image.header() else {
        assert!(image.virtual_size() <= data_end(file));
        return;
    };
    let at = image.footer().data_offset;
    let bat = header.table_offset;
    let mut taken = vec![
        (0, 512),
        (at, at + 1024),
        (bat, bat + u64::from(header.max_table_entries) * 4),
    ];
    let bitmap = bitmap_bytes(header.block_size);
    let bits = u64::from(header.block_size).div_ceil(512).div_ceil(8);
    let blocks = image.virtual_size().div_ceil(u64::from(header.block_size));
    assert!(blocks <= u64::from(header.max_table_entries));
    let entries = &file[bat as usize..(bat + blocks * 4) as usize];
    for entry in entries.as_chunks::<4>().0 {
        let start = u64::from(u32::from_be_bytes(*entry)) * 512;
        if *entry != [0xFF; 4] {
            let end = data_end(file);
            assert!(
                start + bits <= end,
                "bitmap at {start}, {bits} bytes; data ends at {end} of {}, disk of {}, blocks of {}: {:?}",
                file.len(),
                image.virtual_size(),
                header.block_size,
                image.warnings()
            );
            taken.push((start, start + bitmap + u64::from(header.block_size)));
        }
    }
    assert_eq!(image.allocated_blocks(), taken.len() as u64 - 3);
    taken.sort_unstable();
    assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    assert!(taken[..3].iter().all(|(_, end)| *end <= data_end(file)));
}

/// What a page is by a second reader: `None` if the file doesn't say.
fn page(
    image: &VhdImage<Memory>,
    file: &[u8],
    page: u64,
    beneath: Beneath<'_>,
) -> Option<[u8; 512]> {
    let absent = beneath.map_or([0; 512], |parent| parent.page(page));
    let at = |offset: u64, len: usize| {
        let start = usize::try_from(offset).ok()?;
        file.get(start..start.checked_add(len)?)
    };
    let Some(header) = image.header() else {
        return at(page * 512, 512)?.try_into().ok();
    };
    let sectors = u64::from(header.block_size) / 512;
    let (block, sector) = (page / sectors, page % sectors);
    let entry = at(header.table_offset + block * 4, 4)?;
    let entry = u32::from_be_bytes(entry.try_into().ok()?);
    if entry == u32::MAX {
        return Some(absent);
    }
    let start = u64::from(entry) * 512;
    let bits = at(start + sector / 8, 1)?[0];
    if bits & (0x80 >> (sector % 8)) == 0 {
        return Some(absent);
    }
    let data = start + bitmap_bytes(header.block_size) + sector * 512;
    let inside = data + 512 <= data_end(file);
    at(data, 512).filter(|_| inside)?.try_into().ok()
}

fn read_whole(image: &VhdImage<Memory>, file: &[u8], beneath: Beneath<'_>) -> Option<Vec<u8>> {
    let size = image.virtual_size();
    let mut random = size | 1;
    let mut content = vec![0xEE; size as usize];
    let whole_read = image.read_exact_at(&mut content, 0);
    let mut fails = false;
    for number in 0..size / PAGE_SIZE {
        let mut bytes = [0xEE; 512];
        let expected = page(image, file, number, beneath);
        match image.read_exact_at(&mut bytes, number * PAGE_SIZE) {
            Ok(()) => assert!(Some(bytes) == expected, "page {number}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
                assert!(expected.is_none());
                fails = true;
                continue;
            }
        }
        let at = (number * PAGE_SIZE) as usize;
        if whole_read.is_ok() {
            assert!(content[at..at + 512] == bytes, "page {number}");
        }
        // From somewhere in the page to somewhere else.
        random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        let start = at + (random >> 32) as usize % 512;
        let len = 1 + (random >> 41) as usize % 4096;
        let mut part = vec![0xEE; len.min(content.len() - start)];
        if whole_read.is_ok() {
            ok(image.read_exact_at(&mut part, start as u64));
            assert!(content[start..].starts_with(&part), "from {start}");
        } else if image.read_exact_at(&mut part, start as u64).is_ok() {
            assert!(bytes[start - at..].starts_with(&part[..part.len().min(at + 512 - start)]));
        }
        match ok(image.locate(number * PAGE_SIZE + 3)) {
            Some(at) => assert!(file[at as usize..][..509] == bytes[3..]),
            None => assert!(bytes == beneath.map_or([0; 512], |parent| parent.page(number))),
        }
    }
    assert_eq!(whole_read.is_err(), fails);
    let seen = image.extents(whole(image)).any(|extent| extent.is_err());
    assert_eq!(seen, fails, "extents and reads disagree");
    whole_read.ok().map(|()| content)
}

/// Looks at the extents of the whole of a small disk, of some parts of a large one.
fn extents(image: &VhdImage<Memory>, file: &[u8], beneath: Beneath<'_>) {
    let size = image.virtual_size();
    let part = |start: u64, end: u64| PageRange::new(start, end.min(size)).unwrap_or_default();
    if size <= 64 << 20 {
        extents_within(image, file, part(0, size), beneath);
        let third = size / 3 / 512 * 512;
        extents_within(image, file, part(third, size - third), beneath);
        return;
    }
    let middle = size / 3 / 512 * 512;
    for start in [0, middle, size - (16 << 20)] {
        extents_within(image, file, part(start, start + (16 << 20)), beneath);
    }
}

fn extents_within(image: &VhdImage<Memory>, file: &[u8], within: PageRange, beneath: Beneath<'_>) {
    let (mut at, mut last) = (within.start(), None);
    let mut extents = image.extents(within);
    for extent in &mut extents {
        let extent = match extent {
            Ok(extent) => extent,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
                // After an error come at most what was found before it, and the end.
                assert!(extents.count() <= 1);
                return;
            }
        };
        assert!(extent.range.start() == at && !extent.range.is_empty());
        assert_ne!(last.replace(extent.state), Some(extent.state));
        at = extent.range.end();
        let ends = [extent.range.start(), extent.range.end() - PAGE_SIZE];
        for offset in ends {
            let mut bytes = [0xEE; 512];
            let read = image.read_exact_at(&mut bytes, offset);
            let expected = page(image, file, offset / PAGE_SIZE, beneath);
            match extent.state {
                ExtentState::Zero => assert!(read.is_ok() && bytes == [0; 512]),
                ExtentState::Data => assert!(read.is_ok() && Some(bytes) == expected),
            }
        }
    }
    assert_eq!(at, within.end());
}

/// Writes, and reads back: at once, after a crash, after a flush, and after opening again.
fn write(mut image: VhdImage<Memory>, mut model: Vec<u8>, program: &[u8], beneath: Beneath<'_>) {
    let hash = blake3::hash(program);
    let mut input = Input(hash.as_bytes());
    let before = model.clone();
    let pages = model.len() as u64 / PAGE_SIZE;
    for _ in 0..=input.u8() % 5 {
        let start = input.below(pages);
        let len = (1 + u64::from(input.u8() % 16)).min(pages - start);
        let range = PageRange::from_len(start * 512, len * 512).unwrap_or_default();
        let byte = input.u8();
        let span = range.start() as usize..range.end() as usize;
        if byte < 64 {
            ok(image.clear(range));
            model[span].fill(0);
        } else {
            let data = vec![if byte < 80 { 0 } else { byte }; range.len() as usize];
            ok(image.update(range, &data));
            model[span].copy_from_slice(&data);
        }
        if byte % 8 == 7 {
            ok(image.flush());
        }
        reads_as(&image, &model);
    }
    crashed(&image, &before, &model, beneath);
    ok(image.flush());
    reads_as(&image, &model);
    let again = ok(open(image.into_storage(), beneath));
    reads_as(&again, &model);
    let bytes = again.storage().to_vec();
    extents(&again, &bytes, beneath);
}

fn reads_as(image: &VhdImage<Memory>, model: &[u8]) {
    let mut content = vec![0xEE; model.len()];
    ok(image.read_exact_at(&mut content, 0));
    assert!(content == model, "other bytes than were written");
    for extent in image.extents(whole(image)) {
        let extent = ok(extent);
        let span = extent.range.start() as usize..extent.range.end() as usize;
        let zero = model[span].iter().all(|byte| *byte == 0);
        assert!(zero || extent.state == ExtentState::Data);
    }
}

/// A file whose writer died before the flush opens, and pages that were never written are as before.
fn crashed(image: &VhdImage<Memory>, before: &[u8], after: &[u8], beneath: Beneath<'_>) {
    let left = ok(open(Memory::new(image.storage().to_vec()), beneath));
    let mut content = vec![0xEE; before.len()];
    ok(left.read_exact_at(&mut content, 0));
    let pages = content.chunks(512).zip(before.chunks(512));
    for ((found, before), after) in pages.zip(after.chunks(512)) {
        assert!(before != after || found == before || written(found));
    }
}

/// Whether a page may be one that was written and then written again.
fn written(page: &[u8]) -> bool {
    page.iter().all(|byte| *byte == page[0])
}
