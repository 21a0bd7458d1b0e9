//! The same work on one thread and on more: what is serial shows here.

use super::Result;
use super::cases::{Bench, Pair, vhd, vhd_diff};
use super::run::{Case, Contender};

/// Warm reading, comparing, hashing, packing and copying with one thread and with two.
pub(crate) fn threads(bench: &Bench) -> Result<Case> {
    let Pair { base, target, .. } = bench.pair()?;
    let (diff, image) = (bench.file("changes.vhddiff")?, bench.file("image.vhd")?);
    let listing = |name, threads| {
        let step = vhd_diff().arg(&base).arg(&target).words(threads);
        Contender::new(name).step(step.ends_with(1))
    };
    let written = |name, threads| {
        let step = vhd_diff().arg(&base).arg(&target).words(threads);
        Contender::new(name)
            .step(step.arg("-o").arg(&diff))
            .output(&diff)
    };
    let hashed = |name, threads| Contender::new(name).step(vhd("hash").words(threads).arg(&base));
    let converted = |name, threads| {
        let step = vhd("convert").words(threads);
        Contender::new(name)
            .step(step.arg(&base).arg(&image))
            .output(&image)
    };
    let (one, two) = ("--threads 1", "--threads 2");
    Ok(Case {
        contenders: vec![
            listing("vhd-diff, listing, 1 thread", one),
            listing("vhd-diff, listing, 2 threads", two),
            written("vhd-diff -o, 1 thread", one),
            written("vhd-diff -o, 2 threads", two),
            hashed("vhd hash, 1 thread", one),
            hashed("vhd hash, 2 threads", two),
            converted("vhd convert, 1 thread", one),
            converted("vhd convert, 2 threads", two),
        ],
        targets: Vec::new(),
    })
}
