//! A chain of random diffs folded into one, which does the same; a reversible chain becomes the very diff of its ends.

use std::sync::LazyLock;

use vhdkit::diff::{
    Applier, BaseCheck, Chain, Compression, DiffFile, DiffOptions, Side, SquashOptions, squash,
    write_reversible_diff,
};
use vhdkit::image::ContentDigest;
use vhdkit::parallel::{Work, Workers};
use vhdkit::progress::Silent;

use super::diff::{check, ok};
use super::disk::Disk;
use super::input::Input;
use super::layers::{Expected, WORKERS, diff};

static TWO: LazyLock<Workers> = LazyLock::new(|| ok(Workers::new(std::num::NonZeroUsize::new(2))));

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut base = Disk::new(Disk::any_size(&mut input));
    let runs = u64::from(input.u8() % 8);
    base.scribble(&mut input, runs);
    let reversible = input.one_in(2);
    let (mut target, mut diffs, mut expected) = (base.clone(), Vec::new(), Expected::default());
    for n in 0..=input.u8() % 4 {
        let before = target.clone();
        let bytes = diff(&mut target, n.into(), &mut input, &mut expected);
        let bytes = if reversible {
            both_ways(&before, &target)
        } else {
            bytes
        };
        diffs.push(accepted(&bytes));
    }
    let chain = ok(Chain::new(diffs));
    let one = folded(&chain, &WORKERS);
    if input.one_in(4) {
        assert!(one == folded(&chain, &TWO), "threads change the diff");
    }
    // Wrong hashes of the base go on to be wrong.
    let truthful = reversible || expected.wrong.is_empty();
    let squashed = ok(Chain::new(vec![accepted(&one)]));
    follow(&squashed, &base, &target, truthful);
    if reversible {
        assert!(one == both_ways(&base, &target), "not the diff of the ends");
        let Some(back) = squashed.reversed() else {
            panic!("the way back is lost");
        };
        follow(&back, &target, &base, true);
    }
}

fn accepted(bytes: &[u8]) -> DiffFile {
    let Some(diff) = check(bytes) else {
        panic!("a diff that keeps all rules is refused");
    };
    diff
}

fn folded(chain: &Chain, workers: &Workers) -> Vec<u8> {
    let options = SquashOptions {
        work: Work::new(workers, &Silent),
        compression: Compression::default(),
    };
    ok(squash(chain, Vec::new(), "memory", options)).out
}

fn both_ways(base: &Disk, target: &Disk) -> Vec<u8> {
    let options = DiffOptions {
        work: Work::new(&WORKERS, &Silent),
        compression: Compression::default(),
        digests: true,
        equal: &vhdkit::image::NoneShared,
        confirm: &|| Ok(()),
    };
    let (base, target) = ((base as _, Side::default()), (target as _, Side::default()));
    ok(write_reversible_diff(
        base,
        target,
        Vec::new(),
        "memory",
        options,
    ))
    .out
}

fn follow(chain: &Chain, base: &Disk, target: &Disk, truthful: bool) {
    let mut made = Disk::new(target.size);
    let layers = Applier::new(base, chain, &WORKERS, &Silent);
    let (rebuilt, touched) = ok(layers.rebuild(&mut made, BaseCheck::Touched));
    assert!(made.reads_as(target), "another disk than the model's");
    assert_eq!(rebuilt.target_digest, ContentDigest(target.digest()));
    assert!(!truthful || touched.mismatch.is_none(), "{touched:?}");
}
