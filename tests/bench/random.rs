//! Random reads of a point in time, as a virtual machine or a file system makes them when the point is served instead of
//! restored.

use std::path::Path;

use vhdkit::files::{OpenOptions, open_image};
use vhdkit::image::Image;
use vhdkit::snapshot::{Access, Disk};

use super::Result;
use super::cases::{Bench, vhd};
use super::data::{make_disk, mix, rewrite_blocks};
use super::run::{Case, Contender, Step, Target};

/// Bytes of a read.
const BLOCK: u64 = 4096;

/// Reads of what has many small frames, and of a plain file.
const MANY: u64 = 200_000;

/// Reads of what has large frames, each of which is unpacked as a whole.
const FEW: u64 = 20_000;

pub(crate) fn random_reads(bench: &Bench) -> Result<Case> {
    let size = bench.size().min(2 << 30);
    let (image, store) = (bench.file("disk.img")?, bench.file("store")?);
    let (days, blocks, runs) = if bench.quick() {
        (4, 200, 2)
    } else {
        (20, 4000, 8)
    };
    make_disk(&image, size)?;
    let add = |disk: &str, day: u64| {
        let step = vhd("snapshot create -q --init --disk")
            .arg(disk)
            .arg("--store");
        step.arg(&store)
            .arg("--name")
            .arg(format!("day{day}"))
            .arg(&image)
            .run()
    };
    add("scattered", 0)?;
    for day in 1..=days {
        rewrite_blocks(&image, day, size, (blocks, BLOCK))?;
        add("scattered", day)?;
    }
    add("runs", 0)?;
    rewrite_blocks(&image, days + 1, size, (runs, (40 << 20).min(size / 16)))?;
    add("runs", 1)?;
    let reads = |name: &str, count: u64| {
        let step = Step::new(std::env::current_exe()?).arg("--random-reads");
        Ok::<_, std::io::Error>(step.arg(name).arg(count.to_string()))
    };
    let point = |disk: &str, day| format!("{}::{disk}@day{day}", store.display());
    let file = image.display().to_string();
    let (scattered, long) = ("a point of 20 scattered diffs", "a point over long runs");
    Ok(Case {
        contenders: vec![
            Contender::new("a raw file").step(reads(&file, MANY)?),
            Contender::new(scattered).step(reads(&point("scattered", days), MANY)?),
            Contender::new(long).step(reads(&point("runs", 1), FEW)?),
        ],
        targets: vec![
            Target::Seconds {
                ours: scattered,
                limit: 200.0 / 70.0,
            },
            Target::Seconds {
                ours: long,
                limit: 20.0 / 6.0,
            },
            Target::PeakMiB {
                ours: scattered,
                limit: 64.0,
            },
            Target::PeakMiB {
                ours: long,
                limit: 64.0,
            },
        ],
    })
}

/// Reads `count` blocks at random places of an image, or of a point in time called `STORE::DISK@SNAPSHOT`.
pub(crate) fn read(words: &[String]) -> Result<()> {
    let [name, count] = words else {
        return Err("--random-reads takes an image and a count".into());
    };
    let image: Box<dyn Image> = match name
        .rsplit_once("::")
        .and_then(|(store, point)| Some((store, point.split_once('@')?)))
    {
        Some((store, (disk, snapshot))) => {
            let disk = Disk::open(Path::new(store), disk, Access::Read)?;
            Box::new(disk.image(disk.find(snapshot)?)?)
        }
        None => Box::new(open_image(name, &OpenOptions::default())?),
    };
    let blocks = image.virtual_size() / BLOCK;
    let mut block = [0; 4096];
    for n in 0..count.parse()? {
        image.read_exact_at(&mut block, mix(n) % blocks * BLOCK)?;
    }
    Ok(())
}
