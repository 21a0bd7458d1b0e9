//! The cases. To add one, write a function that makes it and name it in [`ALL`].

use std::cell::RefCell;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::OnceLock;

use super::Result;
use super::blobs;
use super::data::{bytes_in_changed_pages, make_clones, make_pair, make_patch, must_be_same};
use super::large;
use super::listed;
use super::memory;
use super::mounts::Mounted;
use super::peers::{copy, qemu, qemu_compare, qemu_overlay, sync};
use super::random;
use super::run::{Case, Contender, NeedsRoot, Step, Target};
use super::scaling;
use super::served;

/// Makes a case, with the files that it needs.
type Make = fn(&Bench) -> Result<Case>;

/// Every case, in the order of the table.
pub(crate) const ALL: &[(&str, Make)] = &[
    ("diff", diff),
    ("compare equal images", compare_equal),
    ("apply to a new image", apply_new),
    ("apply in place", apply_in_place),
    ("squash", squash),
    ("apply in place on XFS", apply_on_clone),
    ("convert raw to dynamic", convert_to_dynamic),
    ("convert dynamic to raw", convert_to_raw),
    ("sparse", large::sparse),
    ("look at 2 TiB", large::look),
    ("scattered pages", large::scattered),
    ("chain of diffs", large::chain),
    ("cold", cold),
    ("one image instead of two", one_image),
    ("clones on XFS", |bench| clones(bench, "xfs")),
    ("clones on btrfs", |bench| clones(bench, "btrfs")),
    ("a list of changes", listed::changes),
    ("memory at 16 threads", memory::at_16_threads),
    ("random reads", random::random_reads),
    ("served, random reads", served::served_random),
    ("served, all of it", served::served_whole),
    ("mounted, random reads", served::mounted_random),
    ("threads", scaling::threads),
    ("download of a page blob", blobs::download),
    ("upload to a page blob", blobs::upload),
];

/// Where the cases work.
pub(crate) struct Bench {
    folder: PathBuf,
    size: u64,
    quick: bool,
    points: Option<u64>,
    pair: OnceLock<Pair>,
    mounted: RefCell<Option<Mounted>>,
}

/// The images that most cases use.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) base: PathBuf,
    /// The same bytes as `base`.
    same: PathBuf,
    pub(crate) target: PathBuf,
}

impl Bench {
    pub(crate) fn new(folder: &Path, size: u64, quick: bool, points: Option<u64>) -> Self {
        Self {
            points,
            folder: folder.to_path_buf(),
            size,
            quick,
            pair: OnceLock::new(),
            mounted: RefCell::default(),
        }
    }

    pub(crate) fn pair(&self) -> Result<Pair> {
        if let Some(pair) = self.pair.get() {
            return Ok(pair.clone());
        }
        let name = |name| self.folder.join(name);
        let pair = Pair {
            base: name("base.img"),
            same: name("same.img"),
            target: name("target.img"),
        };
        make_pair(&pair.base, &pair.same, &pair.target, self.size)?;
        Ok(self.pair.get_or_init(|| pair).clone())
    }

    /// Whether this is only to show that everything works.
    pub(crate) fn quick(&self) -> bool {
        self.quick
    }

    /// Size of the images.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// How many points in time are asked for.
    pub(crate) fn points(&self) -> Option<u64> {
        self.points
    }

    /// A path for a file of one case.
    pub(crate) fn file(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join("case");
        fs::create_dir_all(&folder)?;
        Ok(folder.join(name))
    }

    /// Removes the files of the last case.
    pub(crate) fn clear(&self) -> Result<()> {
        self.mounted.take();
        match fs::remove_dir_all(self.folder.join("case")) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

pub(crate) fn vhd(words: &str) -> Step {
    Step::new(env!("CARGO_BIN_EXE_vhd")).words(words)
}

pub(crate) fn vhd_diff() -> Step {
    Step::new(env!("CARGO_BIN_EXE_vhd-diff"))
}

pub(crate) fn vhd_apply() -> Step {
    Step::new(env!("CARGO_BIN_EXE_vhd-apply"))
}

/// This program as a process of its own: a plain parallel read-and-compare.
fn floor(base: &Path, target: &Path) -> Result<Step> {
    Ok(Step::new(std::env::current_exe()?)
        .arg("--floor")
        .arg(base)
        .arg(target))
}

fn diff(bench: &Bench) -> Result<Case> {
    let Pair { base, target, .. } = bench.pair()?;
    let (list, file) = (bench.file("list.map")?, bench.file("changes.vhddiff")?);
    let (quick_file, overlay) = (bench.file("quick.vhddiff")?, bench.file("overlay.qcow2")?);
    let both = |step: Step| step.arg(&base).arg(&target);

    let listing = Contender::new("vhd-diff, listing")
        .step(
            both(vhd_diff())
                .words("--format map")
                .stdout(&list)
                .ends_with(1),
        )
        .check({
            let (base, target) = (base.clone(), target.clone());
            move || check_listing(&list, &base, &target)
        });
    let no_digest = Contender::new("vhd-diff -o --no-digest")
        .step(
            both(vhd_diff())
                .arg("--no-digest")
                .arg("-o")
                .arg(&quick_file),
        )
        .output(&quick_file);
    let with_digest = Contender::new("vhd-diff -o")
        .step(both(vhd_diff()).arg("-o").arg(&file))
        .check({
            let (base, target) = (base.clone(), target.clone());
            let (file, out) = (file.clone(), bench.file("rebuilt.img")?);
            move || {
                vhd_apply()
                    .arg(&base)
                    .arg(&file)
                    .arg("-o")
                    .arg(&out)
                    .run()?;
                must_be_same(&out, &target)
            }
        })
        .output(&file);
    let [create, rebase] = qemu_overlay(&base, &target, &overlay);
    let qemu = Contender::new("qemu-img rebase")
        .step(create)
        .step(rebase)
        .check({
            let (target, overlay) = (target.clone(), overlay.clone());
            move || qemu_compare(&target, "raw", &overlay, "qcow2")
        })
        .output(&overlay);
    Ok(Case {
        contenders: vec![
            Contender::new("plain read-and-compare").step(floor(&base, &target)?),
            listing,
            no_digest,
            with_digest,
            qemu,
        ],
        targets: vec![
            Target::AtMostTimesAsLong {
                ours: "vhd-diff, listing",
                peer: "plain read-and-compare",
                limit: 1.15,
            },
            Target::AtLeastTimesAsFast {
                ours: "vhd-diff -o --no-digest",
                peer: "qemu-img rebase",
                limit: 3.0,
            },
            Target::AtLeastTimesAsFast {
                ours: "vhd-diff -o",
                peer: "qemu-img rebase",
                limit: 2.0,
            },
        ],
    })
}

/// Fails unless the listing names as many bytes as differ.
fn check_listing(list: &Path, base: &Path, target: &Path) -> Result<()> {
    let mut listed = 0;
    for line in fs::read_to_string(list)?.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, _, "same"] => {}
            [_, length, "data" | "zero"] => listed += length.parse::<u64>()?,
            _ => return Err(format!("not a line of a map: {line}").into()),
        }
    }
    let changed = bytes_in_changed_pages(base, target)?;
    if listed == changed {
        Ok(())
    } else {
        Err(format!("{listed} bytes listed, {changed} changed").into())
    }
}

fn compare_equal(bench: &Bench) -> Result<Case> {
    let Pair { base, same, target } = bench.pair()?;
    let both = |step: Step| step.arg(&base).arg(&same);
    Ok(Case {
        contenders: vec![
            Contender::new("plain read-and-compare").step(floor(&base, &same)?),
            Contender::new("vhd-diff").step(both(vhd_diff())).check({
                // And doesn't call everything equal.
                let unequal = vhd_diff().arg(&base).arg(&target).ends_with(1);
                move || unequal.run()
            }),
            Contender::new("cmp").step(both(Step::new("cmp"))),
            Contender::new("qemu-img compare").step(both(qemu("compare -f raw -F raw"))),
        ],
        targets: vec![Target::AtMostTimesAsLong {
            ours: "vhd-diff",
            peer: "plain read-and-compare",
            limit: 1.15,
        }],
    })
}

fn apply_new(bench: &Bench) -> Result<Case> {
    let Pair { base, target, .. } = bench.pair()?;
    let (diff, overlay) = (bench.file("changes.vhddiff")?, bench.file("overlay.qcow2")?);
    make_diffs(&base, &target, &diff, &overlay)?;
    let new = |name, out: &Path, step: Step| {
        let (out, target) = (out.to_path_buf(), target.clone());
        Contender::new(name)
            .step(step)
            .step(sync(&out))
            .output(&out)
            .check(move || must_be_same(&out, &target))
    };
    let (ours, theirs, copied) = (
        bench.file("ours.img")?,
        bench.file("theirs.img")?,
        bench.file("copied.img")?,
    );
    Ok(Case {
        contenders: vec![
            new(
                "vhd-apply -o",
                &ours,
                vhd_apply().arg(&base).arg(&diff).arg("-o").arg(&ours),
            ),
            new(
                "qemu-img convert, sync",
                &theirs,
                qemu("convert -f qcow2 -O raw").arg(&overlay).arg(&theirs),
            ),
            // No more than a copy of the target: the least that any program has to write.
            new(
                "cp --sparse=always, sync",
                &copied,
                Step::new("cp")
                    .arg("--sparse=always")
                    .arg(&target)
                    .arg(&copied),
            ),
        ],
        targets: Vec::new(),
    })
}

fn make_diffs(base: &Path, target: &Path, diff: &Path, overlay: &Path) -> Result<()> {
    vhd_diff().arg(base).arg(target).arg("-o").arg(diff).run()?;
    let steps = qemu_overlay(base, target, overlay);
    steps.iter().try_for_each(Step::run)
}

/// Two diffs that change the same places: there and back, but each goes one way only.
fn squash(bench: &Bench) -> Result<Case> {
    let Pair { base, target, .. } = bench.pair()?;
    let (there, back) = (bench.file("there.vhddiff")?, bench.file("back.vhddiff")?);
    for (from, to, diff) in [(&base, &target, &there), (&target, &base, &back)] {
        vhd_diff().arg(from).arg(to).arg("-o").arg(diff).run()?;
    }
    let (one, copied) = (bench.file("one.vhddiff")?, bench.file("copied")?);
    let both = |step: Step| step.arg(&there).arg(&back);
    Ok(Case {
        contenders: vec![
            Contender::new("vhd squash")
                .step(both(vhd("squash")).arg("-o").arg(&one))
                .output(&one)
                .check({
                    let (one, out) = (one.clone(), bench.file("out.img")?);
                    let base = base.clone();
                    move || {
                        let apply = vhd_apply().arg(&base).arg(&one).arg("-o").arg(&out);
                        apply.arg("--force").run()?;
                        must_be_same(&out, &base)
                    }
                }),
            // No more than reading and writing what both diffs hold.
            Contender::new("cat, sync")
                .step(both(Step::new("cat")).stdout(&copied))
                .step(sync(&copied)),
        ],
        targets: Vec::new(),
    })
}

fn apply_in_place(bench: &Bench) -> Result<Case> {
    let Pair { base, target, .. } = bench.pair()?;
    let (diff, back) = (bench.file("changes.vhddiff")?, bench.file("back.vhddiff")?);
    let image = bench.file("image.img")?;
    let (kept, overlay) = (bench.file("kept.qcow2")?, bench.file("overlay.qcow2")?);
    make_diffs(&base, &target, &diff, &kept)?;
    vhd_diff()
        .arg(&target)
        .arg(&base)
        .arg("-o")
        .arg(&back)
        .run()?;
    copy(&base, &image)?;
    // From now on each apply keeps stamp and window hashes up to date.
    vhd("hash --stamp -q").arg(&image).run()?;

    let contender = |name| {
        let (image, target, back) = (image.clone(), target.clone(), back.clone());
        let before = vhd_apply().arg(&image).arg(&back);
        let checked = image.clone();
        Contender::new(name)
            .before(move || before.run())
            .before(move || sync(&image).run())
            .check(move || must_be_same(&checked, &target))
    };
    let fresh_overlay = {
        let (kept, overlay, image) = (kept.clone(), overlay.clone(), image.clone());
        move || {
            copy(&kept, &overlay)?;
            qemu("rebase -u -f qcow2 -F raw -b")
                .arg(&image)
                .arg(&overlay)
                .run()
        }
    };
    let ours = vhd_apply().arg(&image).arg(&diff);
    Ok(Case {
        contenders: vec![
            // The way back before each round has left a state stamp.
            contender("vhd-apply, stamped").step(ours.clone()),
            contender("vhd-apply --base-check full").step(ours.clone().words("--base-check full")),
            contender("vhd-apply --base-check touched").step(ours.words("--base-check touched")),
            contender("qemu-img commit, sync")
                .before(fresh_overlay)
                .step(qemu("commit -q -d -f qcow2").arg(&overlay))
                .step(sync(&image)),
        ],
        targets: vec![Target::AtMostTimesAsLong {
            ours: "vhd-apply, stamped",
            peer: "qemu-img commit, sync",
            limit: 1.5,
        }],
    })
}

/// In place on a file system with clones; without contenders where none can be mounted, which was said then.
fn apply_on_clone(bench: &Bench) -> Result<Case> {
    let Pair { base, target, .. } = bench.pair()?;
    let mut case = Case {
        contenders: Vec::new(),
        targets: [
            "vhd-apply on a clone, stamped",
            "vhd-apply -o as a clone, stamped",
        ]
        .map(|ours| Target::AtMostTimesAsLong {
            ours,
            peer: "plain writes, sync",
            limit: 2.0,
        })
        .into(),
    };
    case.targets.push(Target::AtMostTimesAsLong {
        ours: "vhd-apply on a clone, stamped",
        peer: "clone, writes, hashes, syncs: the limit",
        limit: 2.0,
    });
    let room = bench.size.saturating_mul(2) + (1 << 30);
    let Some(mounted) = Mounted::sized("xfs", room, &bench.folder).map(Rc::new) else {
        return Ok(case);
    };
    let image = mounted.path().join("image.img");
    copy(&base, &image)?;
    let (diff, back) = (bench.file("changes.vhddiff")?, bench.file("back.vhddiff")?);
    let patch = bench.file("changes.patch")?;
    for (from, to, diff) in [(&base, &target, &diff), (&target, &base, &back)] {
        vhd_diff().arg(from).arg(to).arg("-o").arg(diff).run()?;
    }
    make_patch(&base, &target, &patch)?;
    let in_place = |how: &str| vhd_apply().arg(&image).words(how);
    let contender = |name, step: Step| {
        let (image, target, mounted) = (image.clone(), target.clone(), Rc::clone(&mounted));
        let (before, written) = (in_place("").arg(&back), image.clone());
        Contender::new(name)
            .before(move || before.run())
            .before(move || sync(&written).run())
            .step(step)
            .check(move || {
                let _mounted = &mounted;
                must_be_same(&image, &target)
            })
    };
    let plain = Step::new(std::env::current_exe()?).arg("--patch");
    let limit = Step::new(std::env::current_exe()?).arg("--patch-clone");
    let new = mounted.path().join("new.img");
    let make_new = |name, steps: Vec<Step>| {
        let (image, base, target, mounted) = (
            image.clone(),
            base.clone(),
            target.clone(),
            Rc::clone(&mounted),
        );
        let (before, written) = (in_place("").arg(&back), image.clone());
        let made = new.clone();
        let new = Contender::new(name)
            .before(move || before.run())
            .before(move || sync(&written).run())
            .output(&new)
            .check(move || {
                let _mounted = &mounted;
                must_be_same(&image, &base)?;
                must_be_same(&made, &target)
            });
        steps.into_iter().fold(new, Contender::step)
    };
    let cloned = Step::new("cp")
        .arg("--reflink=always")
        .arg(&image)
        .arg(&new);
    case.contenders = vec![
        contender(
            "vhd-apply on a clone, stamped",
            in_place("--in-place clone").arg(&diff),
        ),
        contender(
            "vhd-apply by the journal, stamped",
            in_place("--in-place journal").arg(&diff),
        ),
        contender(
            "clone, writes, hashes, syncs: the limit",
            limit.arg(&patch).arg(&image),
        ),
        contender("plain writes, sync", plain.clone().arg(&patch).arg(&image)),
        make_new(
            "vhd-apply -o as a clone, stamped",
            vec![in_place("").arg(&diff).arg("-o").arg(&new)],
        ),
        make_new(
            "cp --reflink, plain writes, sync",
            vec![cloned, plain.arg(&patch).arg(&new)],
        ),
    ];
    Ok(case)
}

fn convert_to_dynamic(bench: &Bench) -> Result<Case> {
    let base = bench.pair()?.base;
    let out = bench.file("out.vhd")?;
    convert(&base, "raw", &out, "vpc")
}

fn convert_to_raw(bench: &Bench) -> Result<Case> {
    let base = bench.pair()?.base;
    let (from, out) = (bench.file("from.vhd")?, bench.file("out.img")?);
    qemu("convert -f raw -O vpc -o subformat=dynamic,force_size=on")
        .arg(&base)
        .arg(&from)
        .run()?;
    sync(&from).run()?;
    convert(&from, "vpc", &out, "raw")
}

/// Conversion between formats as qemu-img names them. It doesn't sync by itself, ours does: both ways are shown. And what
/// the device takes at best for as many bytes.
fn convert(
    from: &Path,
    from_format: &'static str,
    out: &Path,
    format: &'static str,
) -> Result<Case> {
    let ours = if format == "vpc" { "dynamic" } else { "raw" };
    let options = if format == "vpc" {
        "-o subformat=dynamic,force_size=on"
    } else {
        ""
    };
    let theirs = |more: &str| {
        qemu(&format!(
            "convert -f {from_format} -O {format} {options} {more}"
        ))
        .arg(from)
        .arg(out)
    };
    let contender = |name, step: Step| {
        let (from, to) = (from.to_path_buf(), out.to_path_buf());
        Contender::new(name)
            .output(out)
            .step(step)
            .check(move || qemu_compare(&from, from_format, &to, format))
    };
    let stored = fs::metadata(from)?.blocks() * 512;
    let fio = Step::new("fio")
        .words("--name=write --rw=write --direct=1 --bs=1m --ioengine=libaio --iodepth=16 --end_fsync=1")
        .arg(format!("--size={stored}"))
        .arg(format!("--filename={}", out.display()));
    Ok(Case {
        contenders: vec![
            contender(
                "vhd convert",
                vhd("convert").arg(from).arg(out).arg("-O").arg(ours),
            ),
            contender("qemu-img convert", theirs("")),
            contender("qemu-img convert, sync", theirs("")).step(sync(out)),
            contender("qemu-img convert -m 2 -W, sync", theirs("-m 2 -W")).step(sync(out)),
            contender(
                "qemu-img convert -m 16 -W -t none, sync",
                theirs("-m 16 -W -t none"),
            )
            .step(sync(out)),
            Contender::new("fio, direct writes, 16 under way, sync")
                .output(out)
                .step(fio),
        ],
        targets: vec![
            Target::AtLeastTimesAsFast {
                ours: "vhd convert",
                peer: "qemu-img convert, sync",
                limit: 1.5,
            },
            Target::AtLeastTimesAsFast {
                ours: "vhd convert",
                peer: "qemu-img convert -m 2 -W, sync",
                limit: 1.5,
            },
            Target::AtLeastTimesAsFast {
                ours: "vhd convert",
                peer: "qemu-img convert -m 16 -W -t none, sync",
                limit: 1.5,
            },
        ],
    })
}

/// A clone with scattered writes, on a file system of its own.
fn clones(bench: &Bench, kind: &'static str) -> Result<Case> {
    let room = 2 * bench.size + (1 << 30);
    let mounted = Mounted::sized(kind, room, &bench.folder)
        .ok_or_else(|| NeedsRoot("it needs to mount a file system".into()))?;
    let [base, target] = ["base.img", "target.img"].map(|name| mounted.path().join(name));
    bench.mounted.replace(Some(mounted));
    make_clones(
        &base,
        &target,
        bench.size,
        if bench.quick { 400 } else { 4000 },
    )?;
    let listing = |name, words: &str| {
        let list = bench.file(&format!("{}.map", words.len()))?;
        let step = vhd_diff()
            .arg(&base)
            .arg(&target)
            .words("--format map")
            .words(words);
        let (base, target) = (base.clone(), target.clone());
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
            Contender::new(name)
                .step(step.stdout(&list).ends_with(1))
                .check(move || check_listing(&list, &base, &target)),
        )
    };
    let (shared, read) = (bench.file("shared.vhddiff")?, bench.file("read.vhddiff")?);
    let diff = |name, out: &Path, words: &str| {
        let step = vhd_diff()
            .arg(&base)
            .arg(&target)
            .words("--no-digest -o")
            .arg(out);
        Contender::new(name).step(step.words(words)).output(out)
    };
    Ok(Case {
        contenders: vec![
            listing("vhd-diff, listing", "")?,
            listing("vhd-diff --no-clones, listing", "--no-clones")?,
            diff("vhd-diff -o --no-digest", &shared, "").check({
                let (shared, read) = (shared.clone(), read.clone());
                let step = vhd_diff().arg(&base).arg(&target);
                let step = step.words("--no-clones --no-digest --force -o").arg(&read);
                move || {
                    step.run()?;
                    must_be_equal_files(&shared, &read)
                }
            }),
            diff("vhd-diff -o --no-digest --no-clones", &read, "--no-clones"),
        ],
        targets: vec![Target::AtLeastTimesAsFast {
            ours: "vhd-diff, listing",
            peer: "vhd-diff --no-clones, listing",
            limit: 10.0,
        }],
    })
}

/// Empties the page cache, as after a start of the machine.
fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    let dropped = fs::write("/proc/sys/vm/drop_caches", "3");
    dropped.map_err(|e| NeedsRoot(format!("it needs to empty the page cache: {e}")).into())
}

/// Images that aren't in the page cache.
fn cold(bench: &Bench) -> Result<Case> {
    drop_caches()?;
    let Pair { base, target, .. } = bench.pair()?;
    let fio = Step::new("fio").words(
        "--readonly --rw=read --direct=1 --bs=1m --ioengine=psync --thread --group_reporting",
    );
    let jobs = [("base", &base), ("target", &target)];
    let fio = jobs.into_iter().fold(fio, |fio, (name, path)| {
        fio.arg(format!("--name={name}"))
            .arg(format!("--filename={}", path.display()))
    });
    let out = bench.file("changes.vhddiff")?;
    let both = |words: &str| vhd_diff().arg(&base).arg(&target).words(words);
    let cold = |name, step| Contender::new(name).before(drop_caches).step(step);
    let listing = |name, words: &str| cold(name, both(words).ends_with(1));
    Ok(Case {
        contenders: vec![
            cold("fio, direct reads of both, two jobs", fio),
            listing("vhd-diff, listing", "--io auto"),
            listing("vhd-diff --io direct, listing", "--io direct"),
            listing("vhd-diff --io buffered, listing", "--io buffered"),
            cold("vhd-diff -o", both("-o").arg(&out)).output(&out),
        ],
        targets: ["vhd-diff, listing", "vhd-diff -o"]
            .map(|ours| Target::AtMostTimesAsLong {
                ours,
                peer: "fio, direct reads of both, two jobs",
                limit: 1.15,
            })
            .into(),
    })
}

/// The window hashes of the base instead of the base.
fn one_image(bench: &Bench) -> Result<Case> {
    drop_caches()?;
    let Pair { base, target, .. } = bench.pair()?;
    let list = bench.file("base.digests")?;
    vhd("hash --windows").arg(&list).arg(&base).run()?;
    let [both, one] = ["both.vhddiff", "one.vhddiff"].map(|name| bench.file(name));
    let (both, one) = (both?, one?);
    let diff = |name, out: &Path, step: Step| {
        Contender::new(name)
            .output(out)
            .before(drop_caches)
            .step(step.arg(&base).arg(&target).arg("-o").arg(out))
    };
    Ok(Case {
        contenders: vec![
            diff("vhd-diff -o", &both, vhd_diff()),
            diff(
                "vhd-diff -o --base-digests",
                &one,
                vhd_diff().arg("--base-digests").arg(&list),
            )
            .check({
                let (both, one) = (both.clone(), one.clone());
                let step = vhd_diff()
                    .arg(&base)
                    .arg(&target)
                    .words("--force -o")
                    .arg(&both);
                move || {
                    step.run()?;
                    must_be_equal_files(&one, &both)
                }
            }),
        ],
        targets: vec![Target::AtLeastTimesAsFast {
            ours: "vhd-diff -o --base-digests",
            peer: "vhd-diff -o",
            limit: 1.5,
        }],
    })
}

fn must_be_equal_files(found: &Path, expected: &Path) -> Result<()> {
    if fs::read(found)? == fs::read(expected)? {
        return Ok(());
    }
    Err(format!("{} and {} differ", found.display(), expected.display()).into())
}
