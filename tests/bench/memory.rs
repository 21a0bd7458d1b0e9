//! The memory of every command that goes over a disk, at 16 threads, on images that differ everywhere: what takes most.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Result;
use super::cases::{Bench, vhd, vhd_apply, vhd_diff};
use super::data::{make_disk, rewrite_blocks};
use super::run::{Case, Contender, Step, Target};

/// The most that any command may hold at once, in MiB.
const MOST: f64 = 128.0;

pub(crate) fn at_16_threads(bench: &Bench) -> Result<Case> {
    let size = if bench.quick() { 160 << 20 } else { 512 << 20 };
    let pair = [bench.file("base.img")?, bench.file("target.img")?];
    let [base, target] = &pair;
    make_disk(base, size)?;
    make_disk(target, size)?;
    rewrite_blocks(target, 1, size, (size >> 22, 4 << 20))?;
    let mut contenders = of_images(bench, &pair)?;
    contenders.extend(of_stores(bench, &pair)?);
    let targets = contenders.iter().map(Contender::name);
    Ok(Case {
        targets: targets
            .map(|ours| Target::PeakMiB { ours, limit: MOST })
            .collect(),
        contenders,
    })
}

fn many(step: Step) -> Step {
    step.words("--threads 16")
}

fn of_images(bench: &Bench, [base, target]: &[PathBuf; 2]) -> Result<Vec<Contender>> {
    let [diff, back] = [bench.file("there.vhddiff")?, bench.file("back.vhddiff")?];
    let (out, image) = (bench.file("out")?, bench.file("image.img")?);
    let compare = |a: &Path, b: &Path| many(vhd_diff().arg(a).arg(b));
    compare(base, target).arg("-o").arg(&diff).run()?;
    compare(target, base).arg("-o").arg(&back).run()?;
    let copied = {
        let (base, image) = (base.clone(), image.clone());
        move || Ok(fs::copy(&base, &image).map(drop)?)
    };
    let to_out = |name, step: Step| {
        Contender::new(name)
            .step(step.arg("-o").arg(&out))
            .output(&out)
    };
    Ok(vec![
        Contender::new("vhd-diff, listing").step(compare(base, target).ends_with(1)),
        to_out("vhd-diff -o", compare(base, target)),
        to_out(
            "vhd-diff --reversible -o",
            compare(base, target).words("--reversible"),
        ),
        to_out("vhd-apply -o", many(vhd_apply().arg(base).arg(&diff))),
        Contender::new("vhd-apply in place")
            .before(copied)
            .step(many(vhd_apply().arg(&image).arg(&diff))),
        Contender::new("vhd hash").step(many(vhd("hash").arg(base))),
        Contender::new("vhd convert -O dynamic")
            .step(many(vhd("convert -q -O dynamic").arg(base).arg(&out)))
            .output(&out),
        to_out("vhd squash", many(vhd("squash -q").arg(&diff).arg(&back))),
    ])
}

fn of_stores(bench: &Bench, pair: &[PathBuf; 2]) -> Result<Vec<Contender>> {
    let [store, other, out] = ["store", "other", "out"].map(|name| bench.file(name));
    let (store, other, out) = (store?, other?, out?);
    let create = |store: &Path, name: &str, image: &Path| {
        let step = vhd("snapshot create -q --init --disk web --name").arg(name);
        step.arg("--store").arg(store).arg(image)
    };
    let [base, target] = pair;
    create(&store, "mon", base).run()?;
    create(&store, "tue", target).run()?;
    let [mon, tue] = ["mon", "tue"].map(|name| format!("{}::web@{name}", store.display()));
    let points = || many(vhd_diff().arg(&mon).arg(&tue));
    let snapshot = |words: &str| many(vhd("snapshot -q").words(words).arg("--store").arg(&store));
    let empty = || {
        let folder = other.clone();
        move || match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    };
    let first = create(&other, "mon", base);
    Ok(vec![
        Contender::new("vhd-diff of two points, listing").step(points().ends_with(1)),
        Contender::new("vhd-diff of two points, -o")
            .step(points().arg("-o").arg(&out))
            .output(&out),
        Contender::new("vhd snapshot create")
            .before(empty())
            .step(many(create(&other, "mon", base))),
        Contender::new("vhd snapshot create, the second")
            .before(empty())
            .before(move || first.run())
            .step(many(create(&other, "tue", target))),
        Contender::new("vhd snapshot verify --read-data").step(snapshot("verify --read-data")),
        Contender::new("vhd snapshot hash").step(snapshot("hash tue")),
        Contender::new("vhd snapshot restore")
            .step(snapshot("restore tue -O raw").arg("-o").arg(&out))
            .output(&out),
    ])
}
