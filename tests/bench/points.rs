//! Points in time: a disk that changes from day to day, kept by our store and by those of others.
//!
//! One image is changed from point to point, the same way for every program; each has its turn with the whole history,
//! and its store is removed before the next one's is made. So there is one full image, one store and one restored
//! image at a time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Result;
use super::cases::{Bench, vhd};
use super::data::{change_disk, make_disk};
use super::peers::{qemu, sync};
use super::run::{self, Case, CaseResult, Contender, ContenderResult, Step, Target};

/// What all of these cases are called.
pub(crate) const NAME: &str = "points in time";

/// The cases: what is made, then what is asked of it.
const CASES: [&str; 5] = [
    "points in time: create one, size of all",
    "points in time: restore the first",
    "points in time: restore the middle",
    "points in time: restore the last",
    "points in time: diff of the middle and the last",
];

/// Runs all programs through the history.
pub(crate) fn cases(bench: &Bench, rounds: usize) -> Result<Vec<CaseResult>> {
    let count = match (bench.points(), bench.quick()) {
        (Some(count), _) => count,
        (None, true) => 4,
        (None, false) => 100,
    };
    let mut results: Vec<CaseResult> = CASES.map(CaseResult::new).into();
    let mut expected = None;
    for tool in [Tool::Vhd, Tool::Qemu, Tool::Borg, Tool::Restic] {
        eprintln!("{NAME}: {}, {count} points ...", tool.name());
        let history = History::make(bench, tool, count)?;
        // The same disk for everybody.
        if *expected.get_or_insert(history.digests) != history.digests {
            return Err("the image didn't change in the same way".into());
        }
        let restores = history.restores(rounds)?;
        let diffs = history.diffs(rounds)?;
        // At once, since the next one may take long.
        eprintln!(
            "{NAME}: {}: create {:.2} s, restore the first {:.2} s, the last {:.2} s, diff {:.2} s, {} MiB stored",
            tool.name(),
            history.created.seconds(),
            restores[0].seconds(),
            restores[2].seconds(),
            diffs[0].seconds(),
            history.created.stored.unwrap_or_default() >> 20,
        );
        results[0].contenders.push(history.created);
        for (case, restored) in results[1..4].iter_mut().zip(restores) {
            case.contenders.push(restored);
        }
        results[4].contenders.extend(diffs);
        bench.clear()?;
    }
    results[0].targets.push(Target::PeakMiB {
        ours: Tool::Vhd.name(),
        limit: 128.0,
    });
    Ok(results)
}

/// Who keeps the points in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    /// Checks by digests what it restores, and syncs whatever it writes.
    Vhd,
    /// A chain of qcow2 overlays. Checks and syncs nothing.
    Qemu,
    /// Fixed chunks of 64 KiB, as for disk images, but smaller than usual: its 4 MiB would store each scattered page
    /// 1024 times. Checks chunks by their ids; syncs its segments.
    Borg,
    /// Chunks by content, about a mebibyte. Checks chunks by their ids; syncs its packs.
    Restic,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Vhd => "vhd snapshot",
            Self::Qemu => "qemu-img, a chain of qcow2",
            Self::Borg => "borg, fixed chunks of 64 KiB",
            Self::Restic => "restic",
        }
    }
}

/// A store with all points in time.
struct History {
    tool: Tool,
    /// The folder with the image, in which all commands run.
    folder: PathBuf,
    store: PathBuf,
    count: u64,
    created: ContenderResult,
    /// Digests of the first, the middle and the last.
    digests: [blake3::Hash; 3],
}

impl History {
    fn make(bench: &Bench, tool: Tool, count: u64) -> Result<Self> {
        let store = bench.file("store")?;
        fs::create_dir_all(&store)?;
        // Absolute: an overlay's backing file is looked for from where the overlay is.
        let store = store.canonicalize()?;
        let image = store.with_file_name("disk.img");
        let folder = store.with_file_name("");
        let mut history = Self {
            tool,
            folder,
            store,
            count,
            created: ContenderResult {
                name: tool.name(),
                samples: Vec::new(),
                stored: None,
            },
            digests: [blake3::Hash::from_bytes([0; 32]); 3],
        };
        make_disk(&image, bench.size())?;
        for step in history.begin() {
            step.run()?;
        }
        for point in 0..count {
            if point > 0 {
                change_disk(&image, bench.size(), point)?;
            }
            if let Some(n) = history.chosen().iter().position(|chosen| *chosen == point) {
                history.digests[n] = digest(&image)?;
            }
            let sample = run::measured(&history.create(point))?;
            // The base is another matter: what counts is what every day costs.
            if point > 0 {
                history.created.samples.push(sample);
            }
        }
        history.created.stored = Some(stored(&history.store)?);
        Ok(history)
    }

    /// The first, the middle and the last point.
    fn chosen(&self) -> [u64; 3] {
        [0, self.count / 2, self.count - 1]
    }

    /// A command in the folder of the image, with what these programs want to find in the environment.
    fn step(&self, words: &str) -> Step {
        Step::new("env")
            .arg("-C")
            .arg(&self.folder)
            .arg(format!("BORG_BASE_DIR={}", self.folder.display()))
            .words("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes RESTIC_PASSWORD=bench")
            .words(words)
    }

    fn begin(&self) -> Vec<Step> {
        match self.tool {
            Tool::Vhd | Tool::Qemu => Vec::new(),
            Tool::Borg => vec![self.step("borg init -e none store")],
            Tool::Restic => vec![self.step("restic -q -r store init")],
        }
    }

    /// Makes the point and brings it to stable storage.
    fn create(&self, point: u64) -> Vec<Step> {
        let made = match self.tool {
            Tool::Vhd => vec![
                vhd("-q snapshot create --init --disk d --name")
                    .arg(format!("p{point}"))
                    .arg("--store")
                    .arg(&self.store)
                    .arg(self.folder.join("disk.img")),
            ],
            Tool::Qemu if point == 0 => {
                vec![self.step("qemu-img convert -f raw -O qcow2 disk.img store/0.qcow2")]
            }
            // Begun as an empty overlay of the image, then moved over to the one before.
            Tool::Qemu => vec![
                qemu("create -q -f qcow2 -F raw -b")
                    .arg(self.folder.join("disk.img"))
                    .arg(self.overlay(point)),
                qemu("rebase -f qcow2 -F qcow2 -b")
                    .arg(self.overlay(point - 1))
                    .arg(self.overlay(point)),
            ],
            Tool::Borg => vec![
                self.step("borg create --chunker-params fixed,65536 --sparse")
                    .arg(format!("store::p{point}"))
                    .arg("disk.img"),
            ],
            Tool::Restic => vec![
                self.step("restic -q -r store --cache-dir cache backup --tag")
                    .arg(format!("p{point}"))
                    .arg("disk.img"),
            ],
        };
        self.then_sync(made)
    }

    fn then_sync(&self, mut steps: Vec<Step>) -> Vec<Step> {
        steps.push(Step::new("sync").arg("-f").arg(&self.folder));
        steps
    }

    fn overlay(&self, point: u64) -> PathBuf {
        self.store.join(format!("{point}.qcow2"))
    }

    /// Restores the chosen points; each is checked by its digest.
    fn restores(&self, rounds: usize) -> Result<Vec<ContenderResult>> {
        let folder = self.folder.join("restored");
        fs::create_dir_all(&folder)?;
        let out = folder.join("disk.img");
        let chosen = self.chosen().into_iter().zip(self.digests);
        let restored = CASES[1..4]
            .iter()
            .zip(chosen)
            .map(|(name, (point, expected))| {
                let check = {
                    let out = out.clone();
                    move || {
                        if digest(&out)? == expected {
                            return Ok(());
                        }
                        Err("another disk than was put in".into())
                    }
                };
                let contender = Contender::new(self.tool.name()).output(&out).check(check);
                let contender = contender.step(self.restore(point, &out)).step(sync(&out));
                only(name, contender, rounds)
            });
        restored.collect()
    }

    fn restore(&self, point: u64, out: &Path) -> Step {
        match self.tool {
            Tool::Vhd => vhd("-q snapshot restore -O raw")
                .arg(format!("p{point}"))
                .arg("--store")
                .arg(&self.store)
                .arg("-o")
                .arg(out),
            Tool::Qemu => qemu("convert -f qcow2 -O raw")
                .arg(self.overlay(point))
                .arg(out),
            Tool::Borg => self
                .step("env -C restored borg extract --sparse")
                .arg(format!("../store::p{point}")),
            Tool::Restic => self
                .step("restic -q -r store --cache-dir cache restore latest --target restored --tag")
                .arg(format!("p{point}")),
        }
    }

    /// What changed from the middle to the last.
    fn diffs(&self, rounds: usize) -> Result<Vec<ContenderResult>> {
        let [_, from, to] = self.chosen();
        let contenders = match self.tool {
            Tool::Vhd => {
                let out = self.folder.join("changes.vhddiff");
                let diff = || {
                    vhd("-q snapshot diff --store")
                        .arg(&self.store)
                        .arg(format!("p{from}"))
                        .arg(format!("p{to}"))
                };
                vec![
                    Contender::new("vhd snapshot diff: lists pages").step(diff().ends_with(1)),
                    Contender::new("vhd snapshot diff -o: writes a diff")
                        .step(diff().arg("-o").arg(&out))
                        .output(&out),
                ]
            }
            Tool::Qemu => {
                let out = self.folder.join("changes.qcow2");
                let create = qemu("create -q -f qcow2 -F qcow2 -b");
                let rebase = qemu("rebase -f qcow2 -F qcow2 -b");
                vec![
                    Contender::new("qemu-img rebase: writes an overlay")
                        .step(create.arg(self.overlay(to)).arg(&out))
                        .step(rebase.arg(self.overlay(from)).arg(&out))
                        .step(sync(&out))
                        .output(&out),
                ]
            }
            Tool::Borg => vec![
                Contender::new("borg diff: says how much").step(
                    self.step("borg diff")
                        .arg(format!("store::p{from}"))
                        .arg(format!("p{to}")),
                ),
            ],
            Tool::Restic => vec![
                Contender::new("restic diff: says how much").step(
                    self.step("restic -q -r store --cache-dir cache diff")
                        .arg(self.restic_id(from)?)
                        .arg(self.restic_id(to)?),
                ),
            ],
        };
        let measured = contenders
            .into_iter()
            .map(|one| only(CASES[4], one, rounds));
        measured.collect()
    }

    fn restic_id(&self, point: u64) -> Result<String> {
        let list = self.folder.join("list.json");
        self.step("restic -q -r store --cache-dir cache snapshots --json --tag")
            .arg(format!("p{point}"))
            .stdout(&list)
            .run()?;
        let list: serde_json::Value = serde_json::from_slice(&fs::read(list)?)?;
        let id = list[0]["id"]
            .as_str()
            .ok_or("restic doesn't know the point")?;
        Ok(id.to_owned())
    }
}

/// One program alone.
fn only(name: &'static str, contender: Contender, rounds: usize) -> Result<ContenderResult> {
    let case = Case {
        contenders: vec![contender],
        targets: Vec::new(),
    };
    let mut result = run::case(name, case, rounds)?;
    result
        .contenders
        .pop()
        .ok_or_else(|| "nothing was measured".into())
}

fn digest(path: &Path) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize())
}

/// Bytes that a folder's files take on the disk.
fn stored(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        sum += if found.is_dir() {
            stored(&entry.path())?
        } else {
            found.blocks() * 512
        };
    }
    Ok(sum)
}
