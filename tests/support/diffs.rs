//! Diffs of disks in memory.

use std::num::NonZeroUsize;

use vhdkit::diff::{
    Applier, BaseCheck, Chain, Compression, DiffFile, DiffOptions, DiffReader, Direction, Side,
    SquashOptions, squash, write_diff, write_reversible_diff,
};
use vhdkit::image::{Hash, RawImage};
use vhdkit::page::{ChangeKind, Joiner, PageList};
use vhdkit::parallel::{Work, Workers};
use vhdkit::progress::Silent;
use vhdkit::storage::Memory;

pub(crate) fn raw(bytes: &[u8]) -> RawImage<Memory> {
    RawImage::with_size(Memory::new(bytes.to_vec()), bytes.len() as u64)
}

pub(crate) fn workers(threads: usize) -> Workers {
    Workers::new(NonZeroUsize::new(threads)).unwrap()
}

pub(crate) fn diff_bytes(
    base: &[u8],
    target: &[u8],
    workers: &Workers,
    reversible: bool,
    digests: bool,
) -> Vec<u8> {
    let options = DiffOptions {
        work: Work::new(workers, &Silent),
        compression: Compression::default(),
        digests,
        equal: &vhdkit::image::NoneShared,
        confirm: &|| Ok(()),
    };
    let (base, target) = (raw(base), raw(target));
    let (base, target) = (
        (&base as _, Side::default()),
        (&target as _, Side::default()),
    );
    let written = if reversible {
        write_reversible_diff(base, target, Vec::new(), "memory", options)
    } else {
        write_diff(base, target, Vec::new(), "memory", options)
    };
    written.unwrap().out
}

pub(crate) fn open(bytes: Vec<u8>) -> DiffFile {
    DiffFile::open(Memory::new(bytes), &Silent).unwrap()
}

pub(crate) fn chain(diffs: Vec<Vec<u8>>) -> Chain {
    Chain::new(diffs.into_iter().map(open).collect()).unwrap()
}

/// Returns the diffs between consecutive points in time.
pub(crate) fn chain_of_disks(
    disks: &[Vec<u8>],
    workers: &Workers,
    reversible: bool,
    digests: bool,
) -> Chain {
    let diff = |pair: &[Vec<u8>]| diff_bytes(&pair[0], &pair[1], workers, reversible, digests);
    chain(disks.windows(2).map(diff).collect())
}

pub(crate) fn squashed(chain: &Chain, workers: &Workers) -> Vec<u8> {
    let options = SquashOptions {
        work: Work::new(workers, &Silent),
        compression: Compression::default(),
    };
    squash(chain, Vec::new(), "memory", options).unwrap().out
}

/// Applies the chain; base and result must be what the chain says.
pub(crate) fn rebuild(base: &[u8], chain: &Chain, workers: &Workers, check: BaseCheck) -> Vec<u8> {
    let base = raw(base);
    let mut out = raw(&vec![0; usize::try_from(chain.target_size()).unwrap()]);
    let (rebuilt, touched) = Applier::new(&base, chain, workers, &Silent)
        .rebuild(&mut out, check)
        .unwrap();
    assert_eq!(touched.mismatch, None);
    if check == BaseCheck::Full && chain.base_digest().is_some() {
        assert_eq!(rebuilt.base_digest, chain.base_digest());
    }
    if chain.target_digest().is_some() {
        assert_eq!(Some(rebuilt.target_digest), chain.target_digest());
    }
    out.storage().to_vec()
}

/// Page list, hash of the base, whether it is a long clear, data of updates, whether it leads back.
pub(crate) type Frames = Vec<(PageList, Option<Hash>, bool, Vec<u8>, bool)>;

/// Returns all frames of a diff, including those of the way back.
pub(crate) fn frames(diff: &[u8]) -> Frames {
    let mut reader = DiffReader::new(diff, "memory").unwrap();
    let mut frames = Vec::new();
    while let Some((way, frame)) = reader.next_of_both().unwrap() {
        let (changes, hash, long) = (
            frame.changes().clone(),
            frame.base_hash().copied(),
            frame.is_long_clear(),
        );
        frames.push((
            changes,
            hash,
            long,
            frame.unpack().unwrap().to_vec(),
            way == Direction::Back,
        ));
    }
    frames
}

/// Returns the page ranges of the way forward, joined.
pub(crate) fn pages_of(diff: &[u8]) -> Vec<(u64, u64, ChangeKind)> {
    content_of(diff).0
}

/// Returns the page ranges of the way forward, joined, and the data of all updates.
pub(crate) fn content_of(diff: &[u8]) -> (Vec<(u64, u64, ChangeKind)>, Vec<u8>) {
    let mut joiner = Joiner::default();
    let (mut pages, mut data) = (Vec::new(), Vec::new());
    for (changes, _, _, payload, _) in frames(diff).iter().filter(|frame| !frame.4) {
        pages.extend(changes.iter().filter_map(|change| joiner.push(*change)));
        data.extend(payload);
    }
    pages.extend(joiner.finish());
    let each = pages.iter();
    let pages = each.map(|change| (change.range.start(), change.range.end(), change.kind));
    (pages.collect(), data)
}
