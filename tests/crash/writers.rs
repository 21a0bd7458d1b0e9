//! Every command that writes. Another one is a few lines: the folder before it, the command, and which of the judges
//! in `ground` says what its promise is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use vhdkit::Result;
use vhdkit::diff::BaseCheck;
use vhdkit::files::{
    ApplyOptions, Format, FormatChoice, InPlace, MergeOptions, Output, ResizeOptions,
    apply_to_child, apply_to_new, merge, repair, resize, roll_back, take_back,
};
use vhdkit::image::{CopyOptions, Image as _, copy};
use vhdkit::progress::Silent;
use vhdkit::storage::Overwrite;
use vhdkit::storage::fault::watch;
use vhdkit::vhd::CheckOptions;

use crate::explore::{Ground, Judged, Outcome, Scratch, Writer};
use crate::ground::{
    Disk, InPlaceJudge, NewFileJudge, WORKERS, Whole, apply, apply_options, chain, content, diff,
    fill, holds, holds_after_repair, make, new_options, only, open, parents,
};
use crate::recorder::{Files, Kind, Plan, Recorder, Trouble, read_folder};

const KIB: usize = 1 << 10;
/// Ten blocks and three pages.
pub(crate) const SIZE: usize = 41 * KIB + 512;
const LARGER: usize = 55 * KIB;
const SMALLER: usize = 18 * KIB;
/// More than the 4 MiB that are compared at once.
const FAR: usize = (4 << 20) + 64 * KIB;

/// Bytes that are different in each page and never zero.
fn data(seed: usize, len: usize) -> Vec<u8> {
    let byte = |n: usize| u8::try_from((seed * 31 + n / 512 * 7 + n % 5) % 255 + 1).unwrap();
    (0..len).map(byte).collect()
}

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    let end = disk.len().min(at + bytes.len());
    if at < end {
        disk[at..end].copy_from_slice(&bytes[..end - at]);
    }
}

/// Some blocks hold data, some of them in part, others nothing.
pub(crate) fn monday() -> Disk {
    let mut disk = vec![0; SIZE];
    for (at, len) in [(0, 4), (4, 6), (13, 2), (24, 4), (32, 9)] {
        put(&mut disk, at * KIB, &data(at, len * KIB));
    }
    disk
}

/// The same disk of another size later: pages changed and cleared in blocks that hold data, and data where there was
/// nothing.
pub(crate) fn tuesday(size: usize) -> Disk {
    let mut disk = monday();
    disk.resize(size, 0);
    put(&mut disk, 512, &data(90, 512));
    put(&mut disk, 6 * KIB, &data(91, 1024));
    put(&mut disk, 8 * KIB, &[0; 2048]);
    put(&mut disk, 17 * KIB, &data(92, 512));
    put(&mut disk, 24 * KIB, &[0; 4096]);
    put(&mut disk, 28 * KIB + 512, &data(93, 512));
    put(&mut disk, size - 512, &data(94, 512));
    disk
}

/// The files that `build` makes in a folder.
fn files(build: impl FnOnce(&Path) -> Result<()>) -> Files {
    let scratch = Scratch::new();
    let folder = scratch.folder(&BTreeMap::new());
    build(folder.path()).unwrap();
    read_folder(folder.path())
}

/// A base and a diff to a target, of the disks given.
fn pair(format: Format, old: &[u8], new: &[u8]) -> Files {
    let mut files = files(|at| {
        make(&at.join("base"), format, old, None)?;
        make(&at.join("target"), format, new, None)?;
        diff(
            &at.join("base"),
            &at.join("target"),
            &at.join("diff"),
            Overwrite::No,
        )
    });
    files.remove("target");
    files
}

/// The same with a base that has a parent.
fn pair_over_parent(old: &[u8], new: &[u8]) -> Files {
    let mut files = files(|at| {
        let mut parent = old.to_vec();
        put(&mut parent, 12 * KIB, &data(7, 6 * KIB));
        put(&mut parent, 24 * KIB, &data(8, 6 * KIB));
        make(&at.join("parent"), Format::Dynamic, &parent, None)?;
        make(
            &at.join("base"),
            Format::Differencing,
            old,
            Some(&at.join("parent")),
        )?;
        make(&at.join("target"), Format::Raw, new, None)?;
        diff(
            &at.join("base"),
            &at.join("target"),
            &at.join("diff"),
            Overwrite::No,
        )
    });
    files.remove("target");
    files
}

fn in_place(format: Format) -> InPlace<'static> {
    InPlace {
        format: Some(FormatChoice::Only(format)),
        ..InPlace::default()
    }
}

fn run_apply(format: Format, options: ApplyOptions<'static>) -> impl Fn(&Path) -> Result<()> {
    move |at| apply(at, in_place(format), options)
}

/// An apply in place of a diff between two disks, with options.
pub(crate) fn apply_writer(
    name: &str,
    format: Format,
    [old, new]: [Disk; 2],
    options: ApplyOptions<'static>,
) -> Writer {
    let before = match format {
        Format::Differencing => pair_over_parent(&old, &new),
        _ => pair(format, &old, &new),
    };
    let judge = InPlaceJudge {
        image: "base",
        old,
        new,
        again: Box::new(run_apply(format, apply_options())),
        names: vec!["base", "diff", "parent"],
    };
    Writer {
        name: name.to_owned(),
        before,
        run: Box::new(run_apply(format, options)),
        judge: Box::new(move |ground| judge.judge(ground)),
        done: Outcome::New,
        verifies: options.verify,
    }
}

fn applies() -> Vec<Writer> {
    use Format::{Differencing, Dynamic, Fixed, Raw};
    let mut writers = Vec::new();
    for (format, size, what) in [
        (Raw, SIZE, ""),
        (Raw, LARGER, ", growing"),
        (Raw, SMALLER, ", shrinking"),
        (Fixed, SIZE, ""),
        (Fixed, LARGER, ", growing"),
        (Fixed, SIZE + 512, ", growing by a page"),
        (Fixed, SMALLER, ", shrinking"),
        (Dynamic, SIZE, ""),
        (Dynamic, LARGER, ", growing"),
        (Dynamic, SMALLER, ", shrinking"),
        (Differencing, SIZE, ""),
        (Differencing, LARGER, ", growing"),
    ] {
        let name = format!("apply in place: {format}{what}");
        let disks = [monday(), tuesday(size)];
        writers.push(apply_writer(&name, format, disks, apply_options()));
    }
    // Two pages: few enough for every combination of everything.
    let mut few = monday();
    put(&mut few, 512, &data(90, 512));
    put(&mut few, 17 * KIB, &data(92, 512));
    for format in [Raw, Fixed, Dynamic, Differencing] {
        let name = format!("apply in place: {format}, two pages");
        let disks = [monday(), few.clone()];
        writers.push(apply_writer(&name, format, disks, apply_options()));
    }
    // Two windows of the disk, far apart.
    let mut far = monday();
    far.resize(FAR, 0);
    put(&mut far, FAR - 3 * KIB, &data(40, 3 * KIB));
    let mut later = tuesday(FAR);
    put(&mut later, FAR - 2 * KIB, &data(41, 512));
    for format in [Raw, Dynamic] {
        let name = format!("apply in place: {format}, two windows");
        let disks = [far.clone(), later.clone()];
        writers.push(apply_writer(&name, format, disks, apply_options()));
    }
    writers.push(apply_writer(
        "apply in place: raw, base checked in part",
        Raw,
        [monday(), tuesday(SIZE)],
        ApplyOptions {
            check: BaseCheck::Touched,
            verify: false,
            ..apply_options()
        },
    ));
    writers
}

/// What is left of `writer`'s folder when writes to the image fail half-way, with the journal standing.
fn interrupted(writer: &Writer) -> Files {
    let scratch = Scratch::new();
    let record = |plan| {
        let folder = scratch.folder(&writer.before);
        let recorder = Arc::new(Recorder::new(folder.path(), plan));
        let watch = watch(folder.path(), Arc::clone(&recorder) as _);
        let result = (writer.run)(folder.path());
        drop(watch);
        (recorder.calls().0, result, read_folder(folder.path()))
    };
    let calls = record(None).0;
    let named = calls.iter().rposition(|kind| *kind == Kind::Rename);
    let gone = calls.iter().rposition(|kind| *kind == Kind::Remove);
    let at = usize::midpoint(named.unwrap(), gone.unwrap());
    let (_, result, files) = record(Some(Plan {
        reads: false,
        at,
        trouble: Trouble::FailsFrom(28),
    }));
    assert!(result.is_err() && files.contains_key("base.undo-journal"));
    files
}

/// Finishing an interrupted apply, and taking it back.
fn recoveries() -> Vec<Writer> {
    let mut writers = Vec::new();
    for (format, size) in [
        (Format::Raw, LARGER),
        (Format::Fixed, SMALLER),
        (Format::Fixed, LARGER),
        (Format::Dynamic, SIZE),
        (Format::Dynamic, LARGER),
        (Format::Differencing, SIZE),
    ] {
        let disks = || [monday(), tuesday(size)];
        let name = format!("finish: {format} to {size}");
        let mut finish = apply_writer(&name, format, disks(), apply_options());
        finish.before = interrupted(&finish);
        let name = format!("roll back: {format} from {size}");
        let mut back = apply_writer(&name, format, disks(), apply_options());
        back.before.clone_from(&finish.before);
        back.run = Box::new(|at| roll_back(&at.join("base"), apply_options()).map(drop));
        back.done = Outcome::Old;
        back.verifies = false;
        writers.extend([finish, back]);
    }
    writers
}

/// An apply that keeps the way back: once it is done, the undo diff is there and leads back.
fn keeps_undo(format: Format) -> Writer {
    let [old, new] = [monday(), tuesday(SIZE)];
    let run = move |at: &Path| {
        let undo = at.join("undo");
        let how = InPlace {
            undo: Some(&undo),
            ..in_place(format)
        };
        apply(at, how, apply_options())
    };
    let plain = InPlaceJudge {
        image: "base",
        old: old.clone(),
        new: new.clone(),
        again: Box::new(run_apply(format, apply_options())),
        names: vec!["base", "diff", "undo"],
    };
    let judge = move |ground: &Ground<'_>| -> Judged {
        let outcome = plain.judge(ground)?;
        if outcome == Outcome::New {
            let folder = ground.fresh();
            let base = folder.path().join("base");
            let undo = chain(folder.path(), "undo").map_err(|e| format!("undo: {e}"))?;
            vhdkit::files::apply_in_place(&base, undo, in_place(format), apply_options())
                .map_err(|e| format!("undo: {e}"))?;
            holds(&base, &old).map_err(|e| format!("undone: {e}"))?;
        } else if ground.files.contains_key("undo") {
            return Err(format!(
                "the undo diff is there before it is needed: {outcome:?}"
            ));
        }
        Ok(outcome)
    };
    Writer {
        name: format!("apply in place, --undo: {format}"),
        before: pair(format, &monday(), &new),
        run: Box::new(run),
        judge: Box::new(judge),
        done: Outcome::New,
        // What is read back is the image.
        verifies: false,
    }
}

/// A writer of a new file, which may replace one.
fn new_file(
    name: &str,
    file: &'static str,
    before: Files,
    run: impl Fn(&Path, Overwrite) -> Result<()> + Send + Sync + Clone + 'static,
    whole: impl Fn(&Path) -> Whole + Send + Sync + Clone + 'static,
) -> [Writer; 2] {
    let writer = |name: String, before: Files, overwrite| {
        let again = run.clone();
        let judge = NewFileJudge {
            name: file,
            whole: Box::new(whole.clone()),
            before: before.clone(),
            again: Box::new(move |at| again(at, overwrite)),
        };
        let run = run.clone();
        Writer {
            name,
            before,
            run: Box::new(move |at| run(at, overwrite)),
            judge: Box::new(move |ground| judge.judge(ground)),
            done: Outcome::New,
            verifies: false,
        }
    };
    let mut replaced = before.clone();
    replaced.insert(file.to_owned(), Arc::new(data(200, 3000)));
    [
        writer(name.to_owned(), before, Overwrite::No),
        writer(format!("{name}, replacing"), replaced, Overwrite::Yes),
    ]
}

fn new_files() -> Vec<Writer> {
    let whole = |disk: Disk| move |path: &Path| holds(path, &disk);
    let mut writers = Vec::new();
    for format in [Format::Raw, Format::Fixed, Format::Dynamic] {
        writers.extend(new_file(
            &format!("apply to new: {format}"),
            "new",
            pair(Format::Fixed, &monday(), &tuesday(LARGER)),
            move |at, overwrite| {
                let output = Output {
                    path: &at.join("new"),
                    format,
                    overwrite,
                };
                let base = open(&at.join("base"))?;
                apply_to_new(&base, &chain(at, "diff")?, output, apply_options()).map(drop)
            },
            whole(tuesday(LARGER)),
        ));
        writers.extend(new_file(
            &format!("create: {format}"),
            "new",
            Files::new(),
            move |at, overwrite| {
                let mut options = new_options(format, SIZE as u64);
                options.overwrite = overwrite;
                fill(&at.join("new"), &options, &vec![0; SIZE])
            },
            whole(vec![0; SIZE]),
        ));
        writers.extend(new_file(
            &format!("convert: to {format}"),
            "new",
            pair(Format::Dynamic, &monday(), &monday()),
            move |at, overwrite| {
                let source = open(&at.join("base"))?;
                let mut options = new_options(format, source.virtual_size());
                options.overwrite = overwrite;
                let mut new = vhdkit::files::NewImage::create(at.join("new"), &options)?;
                let copying = CopyOptions {
                    workers: &WORKERS,
                    progress: &Silent,
                    digest: false,
                };
                copy(&source, new.image_mut(), copying)?;
                source.check_unchanged()?;
                new.publish()
            },
            whole(monday()),
        ));
    }
    writers.extend(new_file(
        "apply to child",
        "new",
        pair(Format::Dynamic, &monday(), &tuesday(SIZE)),
        |at, overwrite| {
            let output = Output {
                path: &at.join("new"),
                format: Format::Differencing,
                overwrite,
            };
            let base = Arc::new(open(&at.join("base"))?);
            apply_to_child(&base, chain(at, "diff")?, output, apply_options()).map(drop)
        },
        whole(tuesday(SIZE)),
    ));
    let mut two = pair(Format::Fixed, &monday(), &tuesday(SIZE));
    two.extend(files(|at| {
        make(&at.join("target"), Format::Raw, &tuesday(SIZE), None)
    }));
    two.remove("diff");
    writers.extend(new_file(
        "diff",
        "diff",
        two,
        |at, overwrite| {
            diff(
                &at.join("base"),
                &at.join("target"),
                &at.join("diff"),
                overwrite,
            )
        },
        |path| {
            let folder = path.parent().unwrap();
            apply(folder, InPlace::default(), apply_options()).map_err(|e| e.to_string())?;
            holds(&folder.join("base"), &tuesday(SIZE))
        },
    ));
    writers
}

fn run_merge(delete: bool, again: bool) -> impl Fn(&Path) -> Result<()> {
    move |at| {
        let options = MergeOptions {
            workers: &WORKERS,
            progress: &Silent,
            parents: parents(),
            verify: false,
            dry_run: false,
            delete,
        };
        match merge(&at.join("child"), options) {
            // A merge that was done to its end, the child included.
            Err(_) if again && !at.join("child").exists() => Ok(()),
            merged => merged.map(drop),
        }
    }
}

fn merges() -> Vec<Writer> {
    let mut writers = Vec::new();
    for (parent, size, delete, what) in [
        (Format::Fixed, SIZE, false, ""),
        (Format::Dynamic, SIZE, false, ""),
        (
            Format::Dynamic,
            LARGER,
            true,
            ", growing, then removing the child",
        ),
        (Format::Fixed, LARGER, false, ", growing"),
    ] {
        let before = files(|at| {
            make(&at.join("base"), parent, &monday(), None)?;
            make(
                &at.join("child"),
                Format::Differencing,
                &tuesday(size),
                Some(&at.join("base")),
            )
        });
        let in_place = InPlaceJudge {
            image: "base",
            old: monday(),
            new: tuesday(size),
            again: Box::new(run_merge(delete, true)),
            names: vec!["base", "child"],
        };
        let judge = move |ground: &Ground<'_>| -> Judged {
            let outcome = in_place.judge(ground)?;
            if !ground.files.contains_key("child") {
                let gone = delete && outcome == Outcome::New;
                return gone.then_some(outcome).ok_or("the child is gone".into());
            }
            if outcome != Outcome::Between && size == SIZE {
                let child = ground.fresh();
                holds(&child.path().join("child"), &tuesday(size))?;
            }
            Ok(outcome)
        };
        writers.push(Writer {
            name: format!("merge: into {parent}{what}"),
            before,
            run: Box::new(run_merge(delete, false)),
            judge: Box::new(judge),
            done: Outcome::New,
            verifies: true,
        });
    }
    writers
}

/// A resize has no journal: at every moment the file has the old or the new size, and what it held.
fn resizes() -> Vec<Writer> {
    let mut writers = Vec::new();
    for (format, size) in [
        (Format::Raw, LARGER),
        (Format::Raw, SMALLER),
        (Format::Fixed, LARGER),
        (Format::Fixed, SIZE + 512),
        (Format::Fixed, SMALLER),
        (Format::Dynamic, LARGER),
        // The BAT has no room for so many blocks and moves.
        (Format::Dynamic, 3 << 20),
        (Format::Dynamic, SMALLER),
        (Format::Differencing, LARGER),
    ] {
        let mut before = match format {
            Format::Differencing => pair_over_parent(&monday(), &tuesday(SIZE)),
            _ => pair(format, &monday(), &tuesday(SIZE)),
        };
        before.remove("diff");
        let run = move |at: &Path| {
            let options = ResizeOptions {
                virtual_size: size as u64,
                allow_data_loss: true,
                dry_run: false,
                progress: &Silent,
            };
            let open = vhdkit::files::OpenOptions {
                format: Some(FormatChoice::Only(format)),
                ..Default::default()
            };
            resize(&at.join("base"), &open, options).map(drop)
        };
        let mut new = monday();
        new.resize(size, 0);
        let judge = move |ground: &Ground<'_>| -> Judged {
            let folder = ground.fresh();
            let base = folder.path().join("base");
            let mut found = content(&base);
            if format == Format::Fixed && size > SIZE && holds(&base, &monday()).is_err() {
                // Longer already, but no new footer yet: only on file systems that lengthen a file before its bytes
                // are there. The old footer is found again.
                run_repair(folder.path()).map_err(|e| format!("repair: {e}"))?;
                found = content(&base);
            }
            let found = found.map_err(|e| e.to_string())?;
            let outcome = match found {
                found if found == new => Outcome::New,
                found if found == monday() => Outcome::Old,
                found => return Err(format!("{} bytes of something else", found.len())),
            };
            run(folder.path()).map_err(|e| format!("again: {e}"))?;
            holds_after_repair(&base, &new).map_err(|e| format!("{outcome:?}, again: {e}"))?;
            only(&folder, &["base", "parent", "base.before-repair"])?;
            Ok(outcome)
        };
        writers.push(Writer {
            name: format!("resize: {format} to {size}"),
            before,
            run: Box::new(run),
            judge: Box::new(judge),
            done: Outcome::New,
            verifies: false,
        });
    }
    writers
}

fn run_repair(at: &Path) -> Result<()> {
    repair(&at.join("base"), &CheckOptions::default(), parents(), false).map(drop)
}

/// A repair is finished by the next; what it replaced is saved before, and can be put back.
fn repairs() -> Vec<Writer> {
    let mut writers = Vec::new();
    let whole = |format| pair(format, &monday(), &monday());
    for (name, format, damage) in [
        (
            "footer cut off",
            Format::Dynamic,
            (|f| f.truncate(f.len() - 512)) as fn(&mut Vec<u8>),
        ),
        ("footer damaged", Format::Dynamic, |f| {
            let at = f.len() - 400;
            f[at] ^= 1;
        }),
        ("copy damaged", Format::Dynamic, |f| f[100] ^= 1),
        ("garbage behind", Format::Fixed, |f| f.extend(data(5, 1500))),
        ("garbage and a short footer", Format::Dynamic, |f| {
            f[3] = 0;
            f.extend(data(5, 700));
        }),
    ] {
        let mut before = whole(format);
        before.remove("diff");
        let mut damaged = before["base"].to_vec();
        damage(&mut damaged);
        let damaged = Arc::new(damaged);
        before.insert("base".to_owned(), Arc::clone(&damaged));
        let was = Arc::clone(&damaged);
        let judge = move |ground: &Ground<'_>| -> Judged {
            let folder = ground.fresh();
            let base = folder.path().join("base");
            let saved = "base.before-repair";
            let outcome = if ground.files["base"] == was {
                Outcome::Old
            } else {
                Outcome::New
            };
            if outcome == Outcome::New {
                take_back(&base, &folder.path().join(saved))
                    .map_err(|e| format!("take back: {e}"))?;
                if std::fs::read(&base).unwrap() != **was {
                    return Err("taken back it is something else".into());
                }
            }
            let folder = ground.fresh();
            let base = folder.path().join("base");
            run_repair(folder.path()).map_err(|e| format!("again: {e}"))?;
            holds(&base, &monday()).map_err(|e| format!("again: {e}"))?;
            only(&folder, &["base", saved, "base.before-repair-2"])?;
            Ok(outcome)
        };
        writers.push(Writer {
            name: format!("repair: {name}"),
            before: before.clone(),
            run: Box::new(run_repair),
            judge: Box::new(judge),
            done: Outcome::New,
            verifies: false,
        });
        writers.push(taking_back(name, &before, damaged));
    }
    writers
}

/// Taking a repair back.
fn taking_back(name: &str, damaged_files: &Files, damaged: Arc<Vec<u8>>) -> Writer {
    let scratch = Scratch::new();
    let folder = scratch.folder(damaged_files);
    run_repair(folder.path()).unwrap();
    let before = read_folder(folder.path());
    let run = |at: &Path| take_back(&at.join("base"), &at.join("base.before-repair"));
    let repaired = Arc::clone(&before["base"]);
    let judge = move |ground: &Ground<'_>| -> Judged {
        let outcome = if ground.files["base"] == repaired {
            Outcome::Old
        } else {
            Outcome::New
        };
        let folder = ground.fresh();
        run(folder.path()).map_err(|e| format!("again: {e}"))?;
        if std::fs::read(folder.path().join("base")).unwrap() != *damaged {
            return Err("taken back it is something else".into());
        }
        Ok(outcome)
    };
    Writer {
        name: format!("take a repair back: {name}"),
        before,
        run: Box::new(run),
        judge: Box::new(judge),
        done: Outcome::New,
        verifies: false,
    }
}

/// A writer whose base isn't the one that the diff was made from: it differs where the diff changes nothing.
pub(crate) fn wrong_base(options: ApplyOptions<'static>) -> Writer {
    let disks = [monday(), tuesday(SIZE)];
    let mut writer = apply_writer("a wrong base", Format::Raw, disks, options);
    if let Some(base) = writer.before.get_mut("base") {
        Arc::make_mut(base)[34 * KIB] ^= 1;
    }
    writer
}

/// All of them.
pub(crate) fn all() -> Vec<Writer> {
    let mut writers = applies();
    writers.extend(recoveries());
    writers.push(keeps_undo(Format::Raw));
    writers.push(keeps_undo(Format::Dynamic));
    writers.extend(merges());
    writers.extend(resizes());
    writers.extend(repairs());
    writers.extend(new_files());
    writers
}
