//! A random base under a chain of random diffs: rebuilt, checked, changed and inverted as a simple model has it.

use std::sync::LazyLock;

use vhdkit::diff::{Applier, BaseCheck, Chain, Touched, WindowChange};
use vhdkit::image::ContentDigest;
use vhdkit::page::{PAGE_SIZE, PageRange};
use vhdkit::parallel::Workers;
use vhdkit::progress::Silent;

use super::diff::{check, ok};
use super::disk::{Disk, WINDOW};
use super::forge::{Forge, PageSection};
use super::input::Input;

/// One thread: the order of work is the same in each run.
pub static WORKERS: LazyLock<Workers> =
    LazyLock::new(|| ok(Workers::new(std::num::NonZeroUsize::new(1))));

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut base = Disk::new(Disk::any_size(&mut input));
    let runs = u64::from(input.u8() % 8);
    base.scribble(&mut input, runs);
    base.coarse = input.one_in(8);
    let (mut target, mut diffs, mut expected) = (base.clone(), Vec::new(), Expected::default());
    for n in 0..=input.u8() % 3 {
        let bytes = diff(&mut target, n.into(), &mut input, &mut expected);
        let Some(diff) = check(&bytes) else {
            panic!("a diff that keeps all rules is refused");
        };
        diffs.push(diff);
    }
    let chain = ok(Chain::new(diffs));
    let layers = Applier::new(&base, &chain, &WORKERS, &Silent);
    rebuild(&layers, &base, &target, &expected);
    let touched = ok(layers.check_touched());
    expected.check(&touched);
    assert_eq!(touched.already_applied, base.reads_as(&target));
    changes(&layers, &base, &target);
}

/// What was made right, wrong or left out on purpose.
#[derive(Default)]
pub struct Expected {
    pub wrong: Vec<(usize, PageRange)>,
    unknown: bool,
}

impl Expected {
    fn check(&self, touched: &Touched) {
        assert_eq!(touched.unknown, self.unknown);
        match &touched.mismatch {
            Some(mismatch) => assert!(self.wrong.contains(&(mismatch.diff, mismatch.range))),
            None => assert!(self.wrong.is_empty(), "{:?} not seen", self.wrong),
        }
    }

    /// The base hash that a frame shall have.
    fn hash(&mut self, n: usize, range: PageRange, right: [u8; 32], choice: u8) -> [u8; 32] {
        match choice {
            0..32 => {
                self.unknown = true;
                [0; 32]
            }
            32..40 => {
                self.wrong.push((n, range));
                right.map(|byte| !byte)
            }
            _ => right,
        }
    }
}

/// Makes a diff from a program and does to `disk` what it says.
pub fn diff(disk: &mut Disk, n: usize, input: &mut Input<'_>, expected: &mut Expected) -> Vec<u8> {
    let before = disk.clone();
    let size = match input.u8() {
        0..32 => Disk::any_size(input),
        32..64 => before.size.saturating_sub(512 + input.below(2) * 512),
        64..96 => before.size + 512 + input.below(2) * 512,
        _ => before.size,
    };
    disk.resize(size);
    let mut forge = Forge::new(before.size, size);
    let mut at = 0;
    for _ in 0..input.u8() % 8 {
        at = match input.u8() {
            0..64 => clear_frame((&before, disk), at, n, input, &mut forge, expected),
            _ => page_frame((&before, disk), at, n, input, &mut forge, expected),
        };
    }
    let digest = |known: bool, disk: &Disk| known.then(|| disk.digest());
    let known = input.u8();
    forge.finish([
        digest(known & 3 == 3, &before),
        digest(known & 0xC == 0xC, disk),
    ])
}

/// Adds a long clear at or behind `at`, and returns its end.
fn clear_frame(
    (before, disk): (&Disk, &mut Disk),
    at: u64,
    n: usize,
    input: &mut Input<'_>,
    forge: &mut Forge,
    expected: &mut Expected,
) -> u64 {
    let start = at.next_multiple_of(WINDOW);
    let end = (start + (1 + input.below(3)) * WINDOW).min(disk.size);
    let Some(range) = PageRange::new(start, end).filter(|range| !range.is_empty()) else {
        return at;
    };
    let mut hasher = blake3::Hasher::new();
    for window in range.windows(WINDOW) {
        hasher.update(&before.hash(&[window]));
    }
    let hash = expected.hash(n, range, *hasher.finalize().as_bytes(), input.u8());
    forge.clear(start, range.len(), hash);
    ok(vhdkit::image::ImageMut::clear(disk, range));
    end
}

/// Adds a frame of pages at or behind `at`, and returns its end.
fn page_frame(
    (before, disk): (&Disk, &mut Disk),
    at: u64,
    n: usize,
    input: &mut Input<'_>,
    forge: &mut Forge,
    expected: &mut Expected,
) -> u64 {
    let mut page = at / PAGE_SIZE;
    match input.u8() {
        0..96 => page += u64::from(input.u8() % 32),
        96..112 => page = page.next_multiple_of(8192),
        112..128 => page += u64::from(input.u16() % 8192),
        _ => {}
    }
    let window = page / 8192 * 8192;
    let room = (window + 8192).min(disk.size / PAGE_SIZE);
    let (mut ranges, mut list, mut payload) = (Vec::new(), Vec::new(), Vec::new());
    // The end and the kind of the range before: neighbours are of different kinds.
    let mut last: Option<(u64, bool)> = None;
    for _ in 0..=input.u8() % 8 {
        let gap = u64::from(input.u8() % 4);
        let byte = input.u8();
        let clear = byte < 80;
        if last == Some((page + gap, clear)) {
            page += 1;
        }
        page += gap;
        let pages = match input.u8() {
            n @ 0..250 => u64::from(n % 16) + 1,
            n => u64::from(n) * 32,
        };
        let end = (page + pages).min(room);
        if page >= end {
            break;
        }
        let count = (end - page - 1) as u16 | if clear { 0x8000 } else { 0 };
        let range = (page - window) << 16 | u64::from(count);
        ranges.push((range as u32).to_be_bytes());
        list.push(PageRange::new(page * 512, end * 512).unwrap_or_default());
        for page in page..end {
            if clear {
                disk.pages.remove(&page);
            } else {
                let data = [byte - 80; 512];
                disk.pages.insert(page, data);
                payload.extend(data);
            }
        }
        last = Some((end, clear));
        page = end;
    }
    let (Some(first), Some(end)) = (list.first(), list.last()) else {
        return at;
    };
    let span = PageRange::new(first.start(), end.end()).unwrap_or_default();
    let hash = expected.hash(n, span, before.hash(&list), input.u8());
    let packed = zstd_of(&payload, input.u8());
    forge.page(&PageSection {
        window: window * PAGE_SIZE,
        ranges: &ranges,
        payload_len: payload.len() as u32,
        codec: [packed.is_some().into(), 0, 0, 0],
        stored: packed.as_ref().unwrap_or(&payload),
        base_hash: hash,
    });
    span.end()
}

/// The payload as a zstd frame of one byte repeated, where it is that.
fn zstd_of(payload: &[u8], choice: u8) -> Option<Vec<u8>> {
    let first = *payload.first()?;
    let blocks = payload.len() / (64 << 10);
    let same = payload.iter().all(|byte| *byte == first);
    if choice >= 128 || !same {
        return None;
    }
    // Magic, a window of 4 MiB without the content's size, blocks of one repeated byte (RFC 8878).
    let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 12 << 3];
    let block = |len: usize, last: bool| {
        let head = ((len << 3) | 2 | usize::from(last)) as u32;
        let [_, a, b, c] = head.to_be_bytes();
        [c, b, a, first]
    };
    let rest = payload.len() - blocks * (64 << 10);
    for n in 0..blocks {
        frame.extend(block(64 << 10, rest == 0 && n + 1 == blocks));
    }
    if rest > 0 {
        frame.extend(block(rest, true));
    }
    Some(frame)
}

fn rebuild(layers: &Applier<'_>, base: &Disk, target: &Disk, expected: &Expected) {
    for check in [BaseCheck::Full, BaseCheck::Touched] {
        let mut made = Disk::new(target.size);
        let (rebuilt, touched) = ok(layers.rebuild(&mut made, check));
        assert!(made.reads_as(target), "another disk than the model's");
        assert_eq!(rebuilt.target_digest, ContentDigest(target.digest()));
        if check == BaseCheck::Full {
            assert_eq!(rebuilt.base_digest, Some(ContentDigest(base.digest())));
        } else {
            assert_eq!(rebuilt.base_digest, None);
            expected.check(&touched);
        }
    }
}

/// The changes lead from the base to the target and their inverse back, and list no page that doesn't differ.
fn changes(layers: &Applier<'_>, base: &Disk, target: &Disk) {
    for inverse in [false, true] {
        let (from, to) = if inverse {
            (target, base)
        } else {
            (base, target)
        };
        let mut disk = from.clone();
        disk.resize(to.size);
        let start = disk.clone();
        let sink = |change: WindowChange| {
            for range in &change.changes {
                for page in range.range.start() / 512..range.range.end() / 512 {
                    assert!(start.page(page) != to.page(page), "page {page} is the same");
                }
            }
            assert!(
                change
                    .changes
                    .span()
                    .is_none_or(|span| span.end() <= to.size)
            );
            change.write_to(&mut disk)
        };
        if inverse {
            ok(layers.inverse(Ok, sink));
        } else {
            ok(layers.changes(Ok, sink));
        }
        assert!(disk.reads_as(to), "inverse: {inverse}");
    }
}
