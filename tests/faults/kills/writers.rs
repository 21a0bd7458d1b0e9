//! Everything that writes images or diffs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use vhdkit::files::journal_path;

use crate::disk::{Random, memory, run, write_sparse};
use crate::kill::{killed_at, points};
use crate::kills::job::{Job, Reads, command, words};
use crate::kills::round::State;
use crate::kills::store;

const MIB: usize = 1 << 20;

/// Bytes of the virtual disks.
const SIZE: usize = 8 * MIB;

/// A command that writes, by what it does.
pub(crate) struct Writer {
    pub(crate) name: &'static str,
    /// Whether it is a way to apply in place, which gets most of the kills.
    pub(crate) in_place: bool,
    /// Whether it needs a file system with clones.
    pub(crate) clones: bool,
    jobs: fn() -> Vec<Make>,
}

/// Makes a job: all of its images, so only when it is wanted.
pub(crate) type Make = Box<dyn Fn() -> Job>;

/// One job for each of these cases.
pub(crate) fn each<T: Copy + 'static>(
    cases: impl IntoIterator<Item = T>,
    job: impl Fn(T) -> Job + Clone + 'static,
) -> Vec<Make> {
    let make = |case| {
        let job = job.clone();
        Box::new(move || job(case)) as Make
    };
    cases.into_iter().map(make).collect()
}

impl Writer {
    pub(crate) fn jobs(&self) -> Vec<Make> {
        (self.jobs)()
    }
}

pub(crate) fn all() -> Vec<Writer> {
    let in_place = |name, jobs| Writer {
        name,
        in_place: true,
        clones: false,
        jobs,
    };
    let other = |name, jobs| Writer {
        name,
        in_place: false,
        clones: false,
        jobs,
    };
    vec![
        in_place("apply in place, journal", || {
            apply_in_place("--in-place journal")
        }),
        Writer {
            clones: true,
            ..in_place("apply in place, clone", || {
                apply_in_place("--in-place clone")
            })
        },
        in_place("apply in place, copy", || apply_in_place("--in-place copy")),
        other("apply --undo", undo),
        other("finish an interrupted apply", finish),
        other("apply --rollback", roll_back),
        other("apply to a new image", apply_to_new),
        other("diff -o", diff),
        other("squash", squash),
        other("merge", merge),
        other("merge -o", merge_to_new),
        other("resize", resize),
        other("check --repair", repair),
        other("check --take-back", take_back),
        other("convert", convert),
        other("create", create),
        other("snapshot create", store::create),
        other("snapshot delete", store::delete),
        other("snapshot prune", store::prune),
        other("snapshot copy", store::copy),
        other("snapshot receive", store::receive),
    ]
}

/// A disk with 6 MiB of data, the same later with writes here and there, and the same once more.
static DISKS: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let mut random = Random::new(1);
    let mut first = random.bytes(6 * MIB);
    first.resize(SIZE, 0);
    let second = later(&first, &mut random);
    let third = later(&second, &mut random);
    [first, second, third]
});

fn later(disk: &[u8], random: &mut Random) -> Vec<u8> {
    let mut disk = disk.to_vec();
    for _ in 0..40 {
        let at = random.below(SIZE / 512 - 64) * 512;
        let len = 512 * (1 + random.below(64));
        let bytes = random.bytes(len);
        disk[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    let long = random.below(SIZE / MIB - 2) * MIB;
    disk[long..long + 2 * MIB].copy_from_slice(&random.bytes(2 * MIB));
    disk[5 * MIB..6 * MIB].fill(0);
    disk
}

/// The disk at one of three times, cut or grown to `size`.
fn disk(time: usize, size: usize) -> Vec<u8> {
    let mut disk = DISKS[time].clone();
    disk.resize(size, 0);
    disk
}

/// The names of images tell raw ones from VHDs.
fn name_of(format: &str) -> &'static str {
    if format == "raw" {
        "disk.raw"
    } else {
        "disk.vhd"
    }
}

/// Makes the image `name` of `format` in the job's folder.
fn image(job: &Job, name: &str, format: &str, bytes: &[u8]) {
    if format == "raw" {
        write_sparse(&job.seed.path(name), bytes);
        return;
    }
    write_sparse(&job.seed.path("plain"), bytes);
    done(
        job,
        &format!("vhd convert plain {name} -f raw -O {format} -q"),
    );
    fs::remove_file(job.seed.path("plain")).unwrap();
}

/// Runs a command in the job's folder.
fn done(job: &Job, line: &str) {
    run(&mut command(&words(line), &job.seed.path("")));
}

/// Formats, and sizes of the target.
const IN_PLACE: [(&str, usize); 6] = [
    ("raw", SIZE),
    ("dynamic", SIZE),
    ("fixed", SIZE + 8 * MIB),
    ("dynamic", SIZE + 300 * MIB),
    ("fixed", SIZE - 4 * MIB),
    ("raw", SIZE + 512),
];

/// The job of applying a diff in place with `options`.
fn in_place(format: &str, size: usize, options: &str) -> Job {
    let file = name_of(format);
    let line = format!("vhd-apply {file} diff -q {options}");
    let mut job = Job::new(format!("{format} to {size}"), &line, file);
    let (old, new) = (disk(0, SIZE), disk(1, size));
    image(&job, file, format, &old);
    image(&job, "target", format, &new);
    let formats = if format == "raw" { "raw" } else { "vhd" };
    done(
        &job,
        &format!(
            "vhd-diff {file} target -o diff -q --base-format {formats} --target-format {formats}"
        ),
    );
    fs::remove_file(job.seed.path("target")).unwrap();
    job.back = Some(words(&format!("vhd-apply --rollback {file} -q")));
    (job.old, job.new) = (Some(old), new);
    job
}

fn apply_in_place(options: &'static str) -> Vec<Make> {
    each(IN_PLACE, move |(format, size)| {
        in_place(format, size, options)
    })
}

fn undo() -> Vec<Make> {
    let job = |(format, size)| {
        let mut job = in_place(format, size, "--undo back.vhddiff");
        job.undo = Some("back.vhddiff");
        job
    };
    each([("raw", SIZE), ("fixed", SIZE), ("dynamic", SIZE)], job)
}

/// A job that begins with an apply that was killed while it wrote the base.
fn interrupted((format, size): (&str, usize)) -> Job {
    let mut job = in_place(format, size, "--in-place journal");
    let whole = fs::read(job.seed.path(job.file)).unwrap();
    let trial = job.lay_out(&memory());
    let mut writes = points(&job.command(trial.path()));
    writes.retain(|point| point.call == "pwrite64");
    // Past the journal's own writes, before the last of the base's.
    let between = writes.iter().rev().skip(5).find(|point| {
        let folder = job.lay_out(&memory());
        assert!(killed_at(&job.command(folder.path()), point));
        let path = folder.path().join(job.file);
        let journal = journal_path(&path);
        let torn = journal.exists() && fs::read(&path).unwrap() != whole;
        if torn {
            for file in [path, journal] {
                let name = file.file_name().unwrap().to_str().unwrap();
                fs::copy(&file, job.seed.path(name)).unwrap();
            }
        }
        torn
    });
    assert!(between.is_some(), "{format}: never in between");
    job.begins_between = true;
    job
}

const INTERRUPTED: [(&str, usize); 4] = [IN_PLACE[0], IN_PLACE[1], IN_PLACE[2], IN_PLACE[4]];

fn finish() -> Vec<Make> {
    each(INTERRUPTED, interrupted)
}

fn roll_back() -> Vec<Make> {
    each(INTERRUPTED, |case| {
        let mut job = interrupted(case);
        let apply = std::mem::replace(
            &mut job.words,
            words(&format!("vhd-apply --rollback {} -q", job.file)),
        );
        job.back = Some(apply);
        let target = std::mem::take(&mut job.new);
        job.new = job.old.replace(target).unwrap();
        // There is nothing to take back any more.
        job.again = 2;
        job
    })
}

/// A job that makes `file` from what `prepare` lays out.
fn making(line: &str, file: &'static str, new: Vec<u8>, prepare: impl Fn(&Job)) -> Job {
    let mut job = Job::new(line, line, file);
    job.new = new;
    prepare(&job);
    if line.contains("--force") {
        let old = disk(2, SIZE);
        let format = if file == "new.raw" { "raw" } else { "dynamic" };
        image(&job, file, format, &old);
        job.old = Some(old);
    } else {
        // A name that is taken is refused.
        job.again = 2;
    }
    job
}

fn pair(format: &'static str) -> impl Fn(&Job) {
    move |job| {
        let name = name_of(format);
        image(job, name, format, &DISKS[0]);
        image(job, "target.vhd", "dynamic", &DISKS[1]);
        let line = format!("vhd-diff {name} target.vhd -o diff -q --base-format {format}");
        done(job, &line);
    }
}

fn apply_to_new() -> Vec<Make> {
    let new = || DISKS[1].clone();
    vec![
        Box::new(move || {
            making(
                "vhd-apply disk.raw diff -o new.raw -q",
                "new.raw",
                new(),
                pair("raw"),
            )
        }),
        Box::new(move || {
            making(
                "vhd-apply disk.vhd diff -o new.vhd -O dynamic -q",
                "new.vhd",
                new(),
                pair("dynamic"),
            )
        }),
        Box::new(move || {
            making(
                "vhd-apply disk.vhd diff -o new.vhd -O fixed -q --force",
                "new.vhd",
                new(),
                pair("fixed"),
            )
        }),
        Box::new(move || {
            making(
                "vhd-apply disk.vhd diff -o new.vhd -O differencing -q",
                "new.vhd",
                new(),
                pair("dynamic"),
            )
        }),
        Box::new(move || {
            making(
                "vhd-apply disk.vhd diff -o new.raw -q --verify --force",
                "new.raw",
                new(),
                pair("dynamic"),
            )
        }),
    ]
}

fn diff() -> Vec<Make> {
    each(
        ["", "--compress none", "--no-digest", "--force"],
        |options| {
            let line = format!("vhd-diff disk.vhd target.vhd -o new.vhddiff -q {options}");
            let mut job = Job::new(options, &line, "new.vhddiff");
            job.reads = Reads::Bytes;
            image(&job, "disk.vhd", "fixed", &DISKS[0]);
            image(&job, "target.vhd", "dynamic", &DISKS[1]);
            // The same inputs always make the same bytes.
            done(&job, &line);
            let made = job.seed.path("new.vhddiff");
            job.new = fs::read(&made).unwrap();
            if options == "--force" {
                let old = Random::new(5).bytes(100_000);
                fs::write(&made, &old).unwrap();
                job.old = Some(old);
            } else {
                fs::remove_file(&made).unwrap();
                job.again = 2;
            }
            job
        },
    )
}

fn squash() -> Vec<Make> {
    each([()], |()| {
        let line = "vhd squash first second -o new.vhddiff -q";
        let mut job = Job::new("two diffs", line, "new.vhddiff");
        job.reads = Reads::Bytes;
        job.again = 2;
        for (n, disk) in DISKS.iter().enumerate() {
            image(&job, &format!("{n}.raw"), "raw", disk);
        }
        done(&job, "vhd-diff 0.raw 1.raw -o first -q");
        done(&job, "vhd-diff 1.raw 2.raw -o second -q");
        for n in 0..DISKS.len() {
            fs::remove_file(job.seed.path(&format!("{n}.raw"))).unwrap();
        }
        // The same inputs always make the same bytes.
        done(&job, line);
        job.new = fs::read(job.seed.path("new.vhddiff")).unwrap();
        fs::remove_file(job.seed.path("new.vhddiff")).unwrap();
        job
    })
}

/// Lays out a parent of `kind`, and a child of `size`; gives the parent's name and the option it needs.
fn family(job: &Job, kind: &str, size: usize) {
    let (parent, raw) = family_names(kind);
    if kind == "differencing" {
        image(job, "base.vhd", "dynamic", &DISKS[2]);
        image(job, "plain.raw", "raw", &DISKS[0]);
        done(job, "vhd-diff base.vhd plain.raw -o first -q");
        done(
            job,
            "vhd-apply base.vhd first -o parent.vhd -O differencing -q",
        );
    } else {
        image(job, parent, kind, &DISKS[0]);
        image(job, "plain.raw", "raw", &DISKS[0]);
    }
    image(job, "target.raw", "raw", &disk(1, size));
    done(job, "vhd-diff plain.raw target.raw -o diff -q");
    done(
        job,
        &format!("vhd-apply {parent} diff -o child.vhd -O differencing -q {raw}"),
    );
    for name in ["plain.raw", "target.raw", "diff"] {
        fs::remove_file(job.seed.path(name)).unwrap();
    }
}

fn family_names(kind: &str) -> (&'static str, &'static str) {
    match kind {
        "raw" => ("parent.raw", "--raw-parent"),
        _ => ("parent.vhd", ""),
    }
}

const FAMILIES: [(&str, usize); 5] = [
    ("dynamic", SIZE),
    ("raw", SIZE + 512),
    ("differencing", SIZE),
    ("fixed", SIZE + MIB),
    ("dynamic", SIZE + 300 * MIB),
];

fn merge() -> Vec<Make> {
    each(FAMILIES, |(kind, size)| {
        let (parent, raw) = family_names(kind);
        let line = format!("vhd merge child.vhd -q {raw}");
        let mut job = Job::new(format!("{kind} to {size}"), &line, parent);
        family(&job, kind, size);
        job.back = Some(words(&format!("vhd-apply --rollback {parent} -q")));
        (job.old, job.new) = (Some(disk(0, SIZE)), disk(1, size));
        job
    })
}

fn merge_to_new() -> Vec<Make> {
    each([FAMILIES[2], FAMILIES[1], FAMILIES[0]], |(kind, size)| {
        let line = format!("vhd merge child.vhd -o new.vhd -q {}", family_names(kind).1);
        making(&line, "new.vhd", disk(1, size), |job| {
            family(job, kind, size);
        })
    })
}

fn resize() -> Vec<Make> {
    let cases = [
        ("dynamic", SIZE, SIZE + 300 * MIB),
        ("fixed", SIZE, SIZE + 4 * MIB),
        ("fixed", SIZE + 8 * MIB, SIZE),
        ("raw", SIZE + MIB, SIZE + 512),
        ("dynamic", SIZE + 300 * MIB, SIZE),
    ];
    each(cases, |(format, from, to)| {
        let file = name_of(format);
        let line = format!("vhd resize {file} --size {to} -q");
        let mut job = Job::new(format!("{format} {from} to {to}"), &line, file);
        (job.old, job.new) = (Some(disk(0, from)), disk(0, to));
        image(&job, file, format, &disk(0, from));
        job
    })
}

/// The image `disk.vhd`, damaged.
fn damaged(format: &str, damage: fn(&mut Vec<u8>)) -> Job {
    let mut job = Job::new(format, "vhd check --repair disk.vhd -q", "disk.vhd");
    image(&job, "disk.vhd", format, &DISKS[0]);
    let path = job.seed.path("disk.vhd");
    let mut bytes = fs::read(&path).unwrap();
    damage(&mut bytes);
    fs::write(&path, bytes).unwrap();
    job.new.clone_from(&DISKS[0]);
    job.half_done = Some(half_repaired);
    job
}

fn half_repaired(job: &Job, folder: &Path) -> State {
    let bytes = fs::read(folder.join(job.file)).unwrap();
    let mut check = command(&words("vhd check disk.vhd"), folder);
    if bytes == fs::read(job.seed.path(job.file)).unwrap() {
        State::Old
    } else if check.output().unwrap().status.success() {
        State::New
    } else {
        State::Between
    }
}

fn half_taken_back(job: &Job, folder: &Path) -> State {
    let bytes = Some(fs::read(folder.join(job.file)).unwrap());
    if bytes == job.old {
        State::Old
    } else if bytes.as_ref() == Some(&job.new) {
        State::New
    } else {
        State::Between
    }
}

type Damage = (&'static str, fn(&mut Vec<u8>));

const DAMAGES: [Damage; 3] = [
    ("dynamic", |bytes| {
        bytes[3] = 0;
        bytes.extend(Random::new(3).bytes(700));
    }),
    ("fixed", |bytes| bytes.extend(Random::new(3).bytes(700))),
    ("dynamic", |bytes| bytes.truncate(bytes.len() - 412)),
];

fn repair() -> Vec<Make> {
    each(DAMAGES, |(format, damage)| damaged(format, damage))
}

fn take_back() -> Vec<Make> {
    each(DAMAGES, |(format, damage)| {
        let mut job = damaged(format, damage);
        let before: PathBuf = job.seed.path("disk.vhd");
        let damaged = fs::read(&before).unwrap();
        done(&job, "vhd check --repair disk.vhd -q");
        let kept = job.seed.path("disk.vhd.before-repair");
        fs::rename(&kept, job.seed.path("saved")).unwrap();
        job.words = words("vhd check --take-back saved disk.vhd -q");
        job.reads = Reads::Bytes;
        job.old = Some(fs::read(&before).unwrap());
        job.new = damaged;
        job.half_done = Some(half_taken_back);
        job
    })
}

fn convert() -> Vec<Make> {
    let source = |format: &'static str| {
        move |job: &Job| {
            image(job, name_of(format), format, &DISKS[0]);
        }
    };
    let new = || DISKS[0].clone();
    vec![
        Box::new(move || {
            making(
                "vhd convert disk.raw new.vhd -q",
                "new.vhd",
                new(),
                source("raw"),
            )
        }),
        Box::new(move || {
            making(
                "vhd convert disk.vhd new.raw -q --force",
                "new.raw",
                new(),
                source("dynamic"),
            )
        }),
        Box::new(move || {
            making(
                "vhd convert disk.vhd new.vhd -O fixed -q",
                "new.vhd",
                new(),
                source("dynamic"),
            )
        }),
        Box::new(move || {
            making(
                "vhd convert disk.vhd new.vhd -O dynamic --block-size 64K -q --force",
                "new.vhd",
                new(),
                source("fixed"),
            )
        }),
    ]
}

fn create() -> Vec<Make> {
    let nothing = |_: &Job| {};
    let zeros = || vec![0; SIZE];
    vec![
        Box::new(move || {
            making(
                "vhd create new.vhd --size 8M -q",
                "new.vhd",
                zeros(),
                nothing,
            )
        }),
        Box::new(move || {
            making(
                "vhd create new.raw --size 8M -q --force",
                "new.raw",
                zeros(),
                nothing,
            )
        }),
        Box::new(move || {
            making(
                "vhd create new.vhd --size 8M -O fixed -q",
                "new.vhd",
                zeros(),
                nothing,
            )
        }),
        Box::new(move || {
            making(
                "vhd create new.vhd --parent disk.vhd -q",
                "new.vhd",
                DISKS[0].clone(),
                |job| {
                    image(job, "disk.vhd", "dynamic", &DISKS[0]);
                },
            )
        }),
    ]
}
