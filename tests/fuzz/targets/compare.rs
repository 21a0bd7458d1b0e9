//! The first law on small random pairs: what is compared and applied is the target.

use std::sync::LazyLock;

use vhdkit::diff::{
    Applier, BaseCheck, Chain, Comparison, Compression, DiffOptions, Side, page_list, write_diff,
};
use vhdkit::image::{ContentDigest, Image, NoneShared};
use vhdkit::page::{Change, ChangeKind, PAGE_SIZE, PageList, PageRange};
use vhdkit::parallel::{Work, Workers};
use vhdkit::progress::Silent;

use super::diff::{check, ok};
use super::disk::Disk;
use super::input::Input;
use super::layers::WORKERS;

static TWO: LazyLock<Workers> = LazyLock::new(|| ok(Workers::new(std::num::NonZeroUsize::new(2))));

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut base = Disk::new(Disk::any_size(&mut input));
    let runs = u64::from(input.u8() % 8);
    base.scribble(&mut input, runs);
    let mut target = base.clone();
    base.coarse = input.one_in(8);
    target.coarse = input.one_in(8);
    if input.one_in(4) {
        target.resize(Disk::any_size(&mut input));
    }
    let runs = u64::from(input.u8() % 8);
    target.scribble(&mut input, runs);
    let compression = match input.u8() % 4 {
        0 => Compression::None,
        1 => Compression::Zstd(3),
        _ => Compression::default(),
    };
    let digests = input.u8() & 1 == 0;
    let (bytes, comparison) = diff(&base, &target, &WORKERS, compression, digests);
    assert_eq!(comparison.is_same(), {
        base.size == target.size && base.reads_as(&target)
    });
    let expected = changed(&base, &target);
    assert!(ok(page_list(&base, &target, &WORKERS)) == expected);
    let of = |kind| expected.bytes(kind);
    assert_eq!(
        (comparison.update_bytes, comparison.clear_bytes),
        (of(ChangeKind::Update), of(ChangeKind::Clear))
    );
    assert_eq!(comparison.ranges, expected.len() as u64);
    if digests {
        let found = [comparison.base_digest, comparison.target_digest];
        let expected = [&base, &target].map(|disk| Some(ContentDigest(disk.digest())));
        assert_eq!(found, expected);
    }
    if input.one_in(4) {
        let (again, _) = diff(&base, &target, &TWO, compression, digests);
        assert!(again == bytes, "threads change the diff");
    }
    assert!(ok(page_list(&base, &base, &WORKERS)).is_empty());
    apply(&bytes, &base, &target, digests);
}

fn diff(
    base: &dyn Image,
    target: &dyn Image,
    workers: &Workers,
    compression: Compression,
    digests: bool,
) -> (Vec<u8>, Comparison) {
    let side = Side::default;
    let options = DiffOptions {
        work: Work::new(workers, &Silent),
        compression,
        digests,
        equal: &NoneShared,
        confirm: &|| Ok(()),
    };
    let written = ok(write_diff(
        (base, side()),
        (target, side()),
        Vec::new(),
        "memory",
        options,
    ));
    assert_eq!(written.len, written.out.len() as u64);
    (written.out, written.comparison)
}

/// The pages that differ, found one by one.
fn changed(base: &Disk, target: &Disk) -> PageList {
    let mut list = PageList::new();
    for page in 0..target.size / PAGE_SIZE {
        let (before, after) = (base.page(page), target.page(page));
        let kind = if after == [0; 512] {
            ChangeKind::Clear
        } else {
            ChangeKind::Update
        };
        if before != after {
            let range = PageRange::new(page * 512, (page + 1) * 512).unwrap_or_default();
            ok(list.push(Change { range, kind }));
        }
    }
    list
}

fn apply(bytes: &[u8], base: &Disk, target: &Disk, digests: bool) {
    let Some(diff) = check(bytes) else {
        panic!("our own diff is refused");
    };
    let chain = ok(Chain::new(vec![diff]));
    assert_eq!(chain.base_digest().is_some(), digests);
    let layers = Applier::new(base, &chain, &WORKERS, &Silent);
    let mut made = Disk::new(target.size);
    let (rebuilt, touched) = ok(layers.rebuild(&mut made, BaseCheck::Touched));
    assert!(made.reads_as(target), "apply(compare(a, b), a) isn't b");
    assert!(touched.mismatch.is_none() && !touched.unknown);
    if let Some(expected) = chain.target_digest() {
        assert_eq!(rebuilt.target_digest, expected);
    }
    assert_eq!(
        ok(layers.check_touched()).already_applied,
        base.reads_as(target)
    );
}
