//! A snapshot of a large disk from a list of what changed: it should cost the changes, not the disk.

use std::fs;
use std::path::Path;

use super::Result;
use super::cases::{Bench, vhd, vhd_diff};
use super::data::{PIECE, make_listed};
use super::run::{Case, Contender, Target};

/// Bytes of a change.
pub(crate) const CHANGE: u64 = 64 << 10;

pub(crate) fn changes(bench: &Bench) -> Result<Case> {
    let (size, count) = if bench.quick() {
        (64 << 30, 320)
    } else {
        (1 << 40, 3200)
    };
    let image = bench.file("disk.img")?;
    let (alone, list) = (bench.file("changes-alone.img")?, bench.file("list.json")?);
    let (store, diff) = (bench.file("store")?, bench.file("alone.vhddiff")?);
    let pieces = (bench.size() / PIECE).max(count);
    let create = |name: &str| {
        let step = vhd("snapshot create -q --init --disk web --name").arg(name);
        step.arg("--store").arg(&store)
    };
    let changed = make_listed(&image, &alone, (size, pieces, count), || {
        create("mon").arg(&image).run()
    })?;
    fs::write(&list, json(&changed))?;
    let kept = bench.file("newest.windows")?;
    fs::copy(store.join("web/newest.windows"), &kept)?;
    let forget = || {
        let (disk, kept) = (store.join("web"), kept.clone());
        move || forget(&disk, &kept)
    };
    let is_image = || {
        let (point, image) = (format!("{}::web@tue", store.display()), image.clone());
        move || {
            let same = vhd_diff().arg(&point).arg(&image).words("--quiet");
            same.run()
        }
    };
    let (listed, compared) = ("vhd snapshot create --changes", "vhd snapshot create");
    let floor = "reading and packing the changes alone";
    Ok(Case {
        contenders: vec![
            Contender::new(floor)
                .step(vhd_diff().arg("/dev/null").arg(&alone).arg("-o").arg(&diff))
                .output(&diff),
            Contender::new(listed)
                .before(forget())
                .step(create("tue").arg("--changes").arg(&list).arg(&image))
                .check(is_image()),
            Contender::new(compared)
                .before(forget())
                .step(create("tue").arg(&image))
                .check(is_image()),
        ],
        targets: vec![
            Target::AtMostTimesAsLong {
                ours: listed,
                peer: floor,
                limit: 1.5,
            },
            Target::PeakMiB {
                ours: listed,
                limit: 64.0,
            },
        ],
    })
}

/// Returns the disk to how it was before the snapshot of an earlier round.
fn forget(disk: &Path, window_hashes: &Path) -> Result<()> {
    for file in ["000002-tue.json", "000002-tue.vhddiff"] {
        if disk.join(file).exists() {
            fs::remove_file(disk.join(file))?;
        }
    }
    fs::copy(window_hashes, disk.join("newest.windows"))?;
    Ok(())
}

/// The list as `nbdinfo` prints a bitmap of changes.
fn json(changed: &[u64]) -> String {
    let ranges: Vec<String> = changed
        .iter()
        .map(|at| format!(r#"{{"offset":{at},"length":{CHANGE},"type":1,"description":"dirty"}}"#))
        .collect();
    format!("[{}]", ranges.join(",\n"))
}
