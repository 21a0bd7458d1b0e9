//! Cases of size and number: sparse giants, scattered pages, long chains.

use std::fs;
use std::path::{Path, PathBuf};

use super::Result;
use super::cases::{Bench, vhd, vhd_apply, vhd_diff};
use super::data::{
    PIECE, SCATTERED, Version, make_dense_pair, make_scattered, make_sparse_pair, must_be_same,
    rewrite_regions, write_scattered,
};
use super::peers::{copy, sync};
use super::run::{Case, Contender, Step, Target};

/// Memory that no case may exceed, in MiB.
const MOST_MIB: f64 = 128.0;
/// The largest dynamic VHD: 2040 GiB.
const DYNAMIC: u64 = 2040 << 30;

/// The same 2 GiB in a small image, in a raw one of 8 TiB, and in a dynamic VHD of 2 TiB.
pub(crate) fn sparse(bench: &Bench) -> Result<Case> {
    let pieces = if bench.quick() { 512 } else { 8192 };
    let pair = |name: &str| -> Result<[PathBuf; 2]> {
        Ok([
            bench.file(&format!("{name}-base"))?,
            bench.file(&format!("{name}-target"))?,
        ])
    };
    let [dense, raw, dynamic] = [pair("dense")?, pair("raw")?, pair("dynamic")?];
    make_dense_pair(&dense[0], &dense[1], pieces)?;
    make_sparse_pair(&raw[0], &raw[1], 8 << 40, pieces)?;
    make_dynamic_pair(bench, &dynamic, pieces)?;
    let diff = |name, pair: &[PathBuf; 2], words: &str| -> Result<Contender> {
        let out = bench.file("changes.vhddiff")?;
        let step = vhd_diff().arg(&pair[0]).arg(&pair[1]).words(words);
        Ok(Contender::new(name)
            .step(step.arg("-o").arg(&out))
            .output(&out))
    };
    let limits = [
        (
            "vhd-diff --no-digest, 8 TiB raw",
            "vhd-diff --no-digest, dense",
        ),
        (
            "vhd-diff --no-digest, 2 TiB dynamic",
            "vhd-diff --no-digest, dense",
        ),
        ("vhd-diff, 8 TiB raw", "vhd-diff, dense"),
        ("vhd-diff, 2 TiB dynamic", "vhd-diff, dense"),
    ];
    let times = limits.map(|(ours, peer)| Target::AtMostTimesAsLong {
        ours,
        peer,
        limit: 1.3,
    });
    let memory = limits.map(|(ours, _)| Target::PeakMiB {
        ours,
        limit: MOST_MIB,
    });
    Ok(Case {
        contenders: vec![
            diff("vhd-diff --no-digest, dense", &dense, "--no-digest")?,
            diff("vhd-diff --no-digest, 8 TiB raw", &raw, "--no-digest")?,
            diff(
                "vhd-diff --no-digest, 2 TiB dynamic",
                &dynamic,
                "--no-digest",
            )?,
            diff("vhd-diff, dense", &dense, "")?,
            diff("vhd-diff, 8 TiB raw", &raw, "")?,
            diff("vhd-diff, 2 TiB dynamic", &dynamic, "")?,
        ],
        targets: times.into_iter().chain(memory).collect(),
    })
}

fn make_dynamic_pair(bench: &Bench, pair: &[PathBuf; 2], pieces: u64) -> Result<()> {
    let raw = ["raw-1", "raw-2"].map(|name| bench.file(name));
    let [base, target] = raw;
    let raw = [base?, target?];
    make_sparse_pair(&raw[0], &raw[1], DYNAMIC, pieces)?;
    for (raw, vhd_file) in raw.iter().zip(pair) {
        vhd("-q convert -O dynamic").arg(raw).arg(vhd_file).run()?;
        fs::remove_file(raw)?;
    }
    Ok(())
}

/// What looks at an image, on a dynamic VHD of 2 TiB.
pub(crate) fn look(bench: &Bench) -> Result<Case> {
    let pair = [bench.file("base.vhd")?, bench.file("target.vhd")?];
    make_dynamic_pair(bench, &pair, if bench.quick() { 512 } else { 8192 })?;
    let names = ["vhd info", "vhd check", "vhd map"];
    let words = ["info", "check", "map"];
    let contenders = names.iter().zip(words);
    Ok(Case {
        contenders: contenders
            .map(|(name, words)| Contender::new(name).step(vhd(words).arg(&pair[0])))
            .collect(),
        targets: names
            .map(|ours| Target::Seconds { ours, limit: 1.0 })
            .into(),
    })
}

/// Pages of 4 KiB, changed all over a disk of 64 GiB.
pub(crate) fn scattered(bench: &Bench) -> Result<Case> {
    let count = if bench.quick() {
        SCATTERED / 20
    } else {
        SCATTERED
    };
    let [base, target] = [bench.file("base.img")?, bench.file("target.img")?];
    let diff = bench.file("changes.vhddiff")?;
    make_scattered(&base, &target, count)?;
    let (image, plain) = (bench.file("image.img")?, bench.file("plain.img")?);
    let before = |image: &Path| {
        let (base, image) = (base.clone(), image.to_path_buf());
        move || {
            if image.exists() {
                return write_scattered(&image, Version::Before, count);
            }
            copy(&base, &image)
        }
    };
    let is_target = |image: &Path| {
        let (image, target) = (image.to_path_buf(), target.clone());
        move || must_be_same(&image, &target)
    };
    let write = Step::new(std::env::current_exe()?).arg("--write-scattered");
    let apply = vhd_apply()
        .arg(&image)
        .arg(&diff)
        .words("--base-check touched");
    Ok(Case {
        contenders: vec![
            Contender::new("vhd-diff -o --no-digest --compress none")
                .step(
                    vhd_diff()
                        .arg(&base)
                        .arg(&target)
                        .words("--no-digest --compress none -o")
                        .arg(&diff),
                )
                .output(&diff),
            Contender::new("plain writes, sync")
                .before(before(&plain))
                .step(write.arg(count.to_string()).arg(&plain))
                .check(is_target(&plain)),
            Contender::new("vhd-apply --base-check touched")
                .before(before(&image))
                .step(apply)
                .check(is_target(&image)),
        ],
        targets: vec![
            Target::StoredAtMost {
                ours: "vhd-diff -o --no-digest --compress none",
                bytes: count * 4096 * 101 / 100,
            },
            Target::AtMostTimesAsLong {
                ours: "vhd-apply --base-check touched",
                peer: "plain writes, sync",
                limit: 1.3,
            },
        ],
    })
}

/// A hundred diffs, restored in one call.
pub(crate) fn chain(bench: &Bench) -> Result<Case> {
    let (count, pieces) = if bench.quick() {
        (10, 256)
    } else {
        (100, 4096)
    };
    let [base, last] = [bench.file("base.img")?, bench.file("last.img")?];
    make_dense_pair(&base, &last, pieces)?;
    fs::copy(&base, &last)?;
    let before = bench.file("before.img")?;
    let mut apply = vhd_apply().arg(&base);
    for n in 0..count {
        fs::copy(&last, &before)?;
        rewrite_regions(&last, n, pieces * PIECE)?;
        let diff = bench.file(&format!("{n}.vhddiff"))?;
        vhd_diff()
            .arg(&before)
            .arg(&last)
            .arg("-o")
            .arg(&diff)
            .run()?;
        apply = apply.arg(diff);
    }
    fs::remove_file(before)?;
    let (out, copied) = (bench.file("out.img")?, bench.file("copied.img")?);
    let same = |path: &Path| {
        let (path, last) = (path.to_path_buf(), last.clone());
        move || must_be_same(&path, &last)
    };
    let cp = Step::new("cp")
        .arg("--sparse=always")
        .arg(&last)
        .arg(&copied);
    Ok(Case {
        contenders: vec![
            Contender::new("vhd-apply -o, all diffs")
                .step(apply.arg("-o").arg(&out))
                .output(&out)
                .check(same(&out)),
            Contender::new("cp of the result, sync")
                .step(cp)
                .step(sync(&copied))
                .output(&copied)
                .check(same(&copied)),
        ],
        targets: vec![Target::AtMostTimesAsLong {
            ours: "vhd-apply -o, all diffs",
            peer: "cp of the result, sync",
            limit: 1.3,
        }],
    })
}
