//! Commands that change a store. The folder is that of a disk, so its store is the parent folder.

use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use vhdkit::progress::Silent;
use vhdkit::snapshot::{
    Access, BaseForm, Decision, Disk as StoredDisk, Future, MARKER, NewPoint, OtherPoint, ReadData,
    RepairSources, Span, Verified, Work, add_diff, copy_disk, create, delete, prune, rebase_disk,
    receive, rename_point, repair, send, upgrade, verify,
};
use vhdkit::storage::Overwrite;
use vhdkit::{Error, Result};

use super::{KIB, LARGER, SIZE, data, files, monday, put, tuesday};
use crate::explore::{ENCRYPTED, Ground, Judged, Outcome, Run, Scratch, Writer, fill, lay_out};
use crate::ground::{Disk, WORKERS, Whole, diff, make, open};
use crate::recorder::{Files, read_folder};

const NAMES: [&str; 6] = ["mon", "tue", "wed", "thu", "fri", RENAMED];

/// Another name of the second one.
const RENAMED: &str = "renamed";

/// The contents of the snapshots.
static DISKS: LazyLock<[Disk; 6]> = LazyLock::new(|| {
    let mut days = [
        monday(),
        tuesday(SIZE),
        tuesday(LARGER),
        tuesday(LARGER),
        tuesday(LARGER),
        tuesday(SIZE),
    ];
    for (n, day) in days.iter_mut().enumerate().skip(2).take(3) {
        put(day, (5 * n + 1) * KIB, &data(100 + n, KIB));
        put(day, (7 * n) * KIB, &[0; 1024]);
    }
    days
});

fn work() -> Work<'static> {
    Work {
        workers: &WORKERS,
        progress: &Silent,
    }
}

/// Returns the disk whose folder is `at`.
fn stored(at: &Path, access: Access) -> Result<StoredDisk> {
    let name = at.file_name().unwrap().to_str().unwrap();
    StoredDisk::open(at.parent().unwrap(), name, access)
}

fn new_point(n: usize) -> NewPoint {
    NewPoint {
        name: NAMES[n].to_owned(),
        ..NewPoint::default()
    }
}

fn add(at: &Path, n: usize, full: bool, base: BaseForm) -> Result<()> {
    let image = open(&at.join("image"))?;
    let new = NewPoint {
        full,
        base: Some(base),
        ..new_point(n)
    };
    create(&mut stored(at, Access::Create)?, &image, &new, work()).map(drop)
}

/// Returns the folder of a disk with the first `count` snapshots, of which those in `full` are bases.
fn store(count: usize, full: &[usize], form: BaseForm) -> Files {
    let mut folder = files(|at| {
        for (n, day) in DISKS.iter().enumerate().take(count) {
            std::fs::write(at.join("image"), day).unwrap();
            add(at, n, full.contains(&n), form)?;
        }
        Ok(())
    });
    folder.remove("image");
    folder
}

/// The same, with the image of the next snapshot.
fn with_image(count: usize, form: BaseForm) -> Files {
    let mut folder = store(count, &[], form);
    let image = DISKS[count].clone();
    folder.insert("image".to_owned(), Arc::new(image));
    folder
}

/// The requirements on a store after a crash.
struct StoreJudge {
    /// The snapshots before and afterwards.
    old: Vec<usize>,
    new: Vec<usize>,
    /// Runs the command again, if it still has something to do.
    again: Run,
    /// Suffixes of other files that may be in the folder in the end.
    others: &'static [&'static str],
}

impl StoreJudge {
    fn judge(&self, ground: &Ground<'_>) -> Judged {
        let folder = ground.fresh();
        let outcome = self.listed(folder.path())?;
        // A writer may also come first.
        let folder = ground.fresh();
        if outcome != Outcome::New {
            (self.again)(folder.path()).map_err(|e| format!("{outcome:?}, again: {e}"))?;
        }
        match self.listed(folder.path()) {
            Ok(Outcome::New) => self.clean(folder.path())?,
            other => return Err(format!("{outcome:?}, again: {other:?}")),
        }
        Ok(outcome)
    }

    /// Checks which snapshots are listed, that each has its content, and that none has findings.
    fn listed(&self, at: &Path) -> Judged {
        let mut disk = stored(at, Access::Read).map_err(|e| format!("opened: {e}"))?;
        let found: Vec<usize> = disk.points().iter().map(|p| number(&p.name)).collect();
        let outcome = if found == self.new {
            Outcome::New
        } else if found == self.old {
            Outcome::Old
        } else {
            let known = |n: &usize| self.old.contains(n) || self.new.contains(n);
            let kept = self.old.iter().filter(|n| self.new.contains(n));
            let mut lost = kept.filter(|n| !found.contains(n));
            if let Some(n) = lost.next() {
                return Err(format!("{} is gone: {found:?}", NAMES[*n]));
            }
            if !found.iter().all(known) {
                return Err(format!("there is more than there should be: {found:?}"));
            }
            Outcome::Between
        };
        for n in found {
            reads(&disk, n)?;
        }
        let findings = verify(&mut disk, ReadData::All, work())
            .and_then(Verified::into_findings)
            .map_err(|e| e.to_string())?;
        match findings.first() {
            Some(finding) => Err(format!("verify: {}", finding.error)),
            None => Ok(outcome),
        }
    }

    /// After a writer, no files are left that don't belong there.
    fn clean(&self, at: &Path) -> Whole {
        let disk = stored(at, Access::Write).map_err(|e| format!("opened to write: {e}"))?;
        let mut known: Vec<String> = ["lock", "copy.lock", "newest.windows", "image", "diff"]
            .map(str::to_owned)
            .into();
        for point in disk.points() {
            known.extend([point.stem().manifest(), point.data.file.clone()]);
        }
        // As they are called in an encrypted store.
        let encrypted: Vec<String> = known.iter().map(|name| format!("{name}.age")).collect();
        known.extend(encrypted);
        let left = read_folder(at).into_keys();
        let other = |name: &String| self.others.iter().any(|end| name.ends_with(end));
        let mut left = left.filter(|name| !known.contains(name) && !other(name));
        left.next()
            .map_or(Ok(()), |name| Err(format!("{name} is left")))
    }
}

fn number(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).unwrap()
}

/// Returns an error unless a snapshot exists and has its content.
fn reads(disk: &StoredDisk, n: usize) -> Whole {
    use vhdkit::image::Image as _;
    let read = || {
        let image = disk.image(disk.find(NAMES[n])?)?;
        let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
        image.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes == DISKS[n] => Ok(()),
        Ok(_) => Err(format!("{} holds something else", NAMES[n])),
        Err(error) => Err(format!("{}: {}", NAMES[n], Error::to_string(&error))),
    }
}

fn writer(
    form: BaseForm,
    name: &str,
    before: Files,
    [old, new]: [&[usize]; 2],
    run: impl Fn(&Path) -> Result<()> + Send + Sync + Clone + 'static,
) -> Writer {
    let judge = StoreJudge {
        old: old.to_vec(),
        new: new.to_vec(),
        again: Box::new(run.clone()),
        others: &[],
    };
    Writer {
        name: called(form, name),
        before,
        run: Box::new(run),
        judge: Box::new(move |ground| judge.judge(ground)),
        done: Outcome::New,
        verifies: false,
        clones: false,
    }
}

/// Returns the name of a writer that works on bases of this form.
fn called(form: BaseForm, name: &str) -> String {
    match form {
        BaseForm::Packed => format!("store: {name}"),
        BaseForm::Image => format!("store of version 1: {name}"),
    }
}

fn creates(form: BaseForm) -> Vec<Writer> {
    let mut first = with_image(0, form);
    // As a new disk, which doesn't even have its lock file.
    first.retain(|name, _| name == "image");
    let mut by_diff = store(2, &[], form);
    by_diff.extend(files(|at| {
        make(&at.join("old"), vhdkit::files::Format::Raw, &DISKS[1], None)?;
        make(&at.join("new"), vhdkit::files::Format::Raw, &DISKS[2], None)?;
        diff(
            &at.join("old"),
            &at.join("new"),
            &at.join("diff"),
            Overwrite::No,
        )
    }));
    by_diff.retain(|name, _| !["old", "new"].contains(&name.as_str()));
    vec![
        writer(form, "create, the first", first, [&[], &[0]], move |at| {
            add(at, 0, false, form)
        }),
        writer(
            form,
            "create",
            with_image(2, form),
            [&[0, 1], &[0, 1, 2]],
            move |at| add(at, 2, false, form),
        ),
        writer(
            form,
            "create --full",
            with_image(1, form),
            [&[0], &[0, 1]],
            move |at| add(at, 1, true, form),
        ),
        writer(
            form,
            "create --diff",
            by_diff,
            [&[0, 1], &[0, 1, 2]],
            |at| {
                let path = at.join("diff");
                let mut stream = std::fs::File::open(&path).unwrap();
                let mut disk = stored(at, Access::Write)?;
                add_diff(&mut disk, (&mut stream, &path), &new_point(2), work()).map(drop)
            },
        ),
    ]
}

fn deletes(form: BaseForm) -> Vec<Writer> {
    let mut writers = Vec::new();
    for (what, count, full, n) in [
        ("the base", 3, &[][..], 0),
        ("in the middle", 3, &[], 1),
        ("the newest", 3, &[], 2),
        ("before another base", 3, &[1], 0),
        ("the last", 1, &[], 0),
    ] {
        let old: Vec<usize> = (0..count).collect();
        let new: Vec<usize> = old.iter().copied().filter(|other| *other != n).collect();
        let run = move |at: &Path| {
            let mut disk = stored(at, Access::Write)?;
            delete(&mut disk, NAMES[n], true, work()).map(drop)
        };
        let name = format!("delete, {what}");
        writers.push(writer(
            form,
            &name,
            store(count, full, form),
            [&old, &new],
            run,
        ));
    }
    let mut onto_a_clone = writer(
        form,
        "delete, the base, on a clone",
        store(3, &[], form),
        [&[0, 1, 2], &[1, 2]],
        |at| delete(&mut stored(at, Access::Write)?, "mon", true, work()).map(drop),
    );
    onto_a_clone.clones = true;
    if form == BaseForm::Image {
        writers.push(onto_a_clone);
    }
    for (keep, what) in [
        (&[2, 4][..], "the base and one between"),
        (&[0, 4], "three in a row"),
    ] {
        let run = move |at: &Path| {
            let mut disk = stored(at, Access::Write)?;
            let reasons = |name| {
                if keep.contains(&number(name)) {
                    vec!["kept".to_owned()]
                } else {
                    Vec::new()
                }
            };
            let decisions: Vec<Decision> = disk
                .points()
                .iter()
                .map(|point| Decision {
                    point: point.clone(),
                    reasons: reasons(&point.name),
                })
                .collect();
            prune(&mut disk, &decisions, work()).map(drop)
        };
        let name = format!("prune, {what}");
        let before = store(5, &[], form);
        writers.push(writer(form, &name, before, [&[0, 1, 2, 3, 4], keep], run));
    }
    writers
}

/// Lets `run` work with a disk of the same name in another store, with these files.
fn beside<T>(at: &Path, other: &Files, run: impl FnOnce(&Path, &str) -> T) -> T {
    let scratch = tempfile::tempdir_in(at.parent().unwrap()).unwrap();
    let name = at.file_name().unwrap().to_str().unwrap();
    lay_out(&scratch.path().join(name), other);
    run(scratch.path(), name)
}

fn arrivals(form: BaseForm) -> Vec<Writer> {
    let source = store(3, &[], form);
    let folder = Scratch::new();
    let stream = {
        let at = folder.folder(&source);
        let mut bytes = Vec::new();
        let mut disk = stored(at.path(), Access::Read).unwrap();
        send(
            &mut disk,
            Span::default(),
            (&mut bytes, Path::new("stream")),
            work(),
        )
        .unwrap();
        bytes
    };
    let mut some = source.clone();
    some.retain(|name, _| name == "lock" || name.starts_with("000001"));
    let copies = {
        let source = source.clone();
        move |at: &Path| {
            beside(at, &source, |store, name| {
                let copied = copy_disk((store, at.parent().unwrap()), name, work());
                copied.error.map_or(Ok(()), Err)
            })
        }
    };
    let receives = move |at: &Path| {
        let name = at.file_name().unwrap().to_str();
        let input = (&stream[..], Path::new("stream"));
        let received = receive(at.parent().unwrap(), name, input, Future::Refused, work());
        received.error.map_or(Ok(()), Err)
    };
    let all: [&[usize]; 2] = [&[], &[0, 1, 2]];
    vec![
        writer(form, "copy, all", Files::new(), all, copies.clone()),
        writer(
            form,
            "copy, what is new",
            some.clone(),
            [&[0], &[0, 1, 2]],
            copies,
        ),
        writer(form, "receive, all", Files::new(), all, receives.clone()),
        writer(
            form,
            "receive, what is new",
            some,
            [&[0], &[0, 1, 2]],
            receives,
        ),
    ]
}

/// What changes an encrypted store. The images are elsewhere: in its folders they would be encrypted.
fn encrypted() -> Vec<Writer> {
    let add = |at: &Path, n: usize, full: bool| {
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(elsewhere.path(), &DISKS[n]).unwrap();
        let image = open(elsewhere.path())?;
        let new = NewPoint {
            full,
            ..new_point(n)
        };
        create(&mut stored(at, Access::Create)?, &image, &new, work()).map(drop)
    };
    let store = |count: usize| {
        let scratch = Scratch::sealed();
        let folder = scratch.folder(&Files::new());
        for n in 0..count {
            add(folder.path(), n, false).unwrap();
        }
        read_folder(folder.path())
    };
    let plain = self::store(3, &[], BaseForm::Packed);
    let mut writers = vec![
        writer(
            BaseForm::Packed,
            "create, the first",
            Files::new(),
            [&[], &[0]],
            move |at| add(at, 0, false),
        ),
        writer(
            BaseForm::Packed,
            "create",
            store(2),
            [&[0, 1], &[0, 1, 2]],
            move |at| add(at, 2, false),
        ),
        writer(
            BaseForm::Packed,
            "create --full",
            store(1),
            [&[0], &[0, 1]],
            move |at| add(at, 1, true),
        ),
        writer(
            BaseForm::Packed,
            "delete, the base",
            store(3),
            [&[0, 1, 2], &[1, 2]],
            |at| delete(&mut stored(at, Access::Write)?, "mon", true, work()).map(drop),
        ),
        writer(
            BaseForm::Packed,
            "delete, in the middle",
            store(3),
            [&[0, 1, 2], &[0, 2]],
            |at| delete(&mut stored(at, Access::Write)?, "tue", true, work()).map(drop),
        ),
        writer(
            BaseForm::Packed,
            "copy, all",
            Files::new(),
            [&[], &[0, 1, 2]],
            move |at| {
                beside(at, &plain, |store, name| {
                    let copied = copy_disk((store, at.parent().unwrap()), name, work());
                    copied.error.map_or(Ok(()), Err)
                })
            },
        ),
    ];
    for writer in &mut writers {
        writer.name = writer.name.replace("store: ", ENCRYPTED);
    }
    writers
}

/// Truncates a manifest or a diff; changes a base where it holds data.
fn damage(files: &mut Files, file: &str) {
    let bytes = Arc::make_mut(files.get_mut(file).unwrap());
    let page = bytes.chunks(512).position(|page| page == &DISKS[0][..512]);
    match page {
        Some(page) => bytes[page * 512] ^= 4,
        None => bytes.truncate(20),
    }
}

/// A repair is judged by its starting point: intact files stay intact, and repeating the command finishes it.
fn repairs(form: BaseForm) -> Vec<Writer> {
    let sound = Arc::new(store(3, &[], form));
    let base = match form {
        BaseForm::Packed => "000001-mon.vhddiff",
        BaseForm::Image => "000001-mon.vhd",
    };
    let mut writers = Vec::new();
    for (what, file, damaged) in [
        ("a base", base, &[0, 1, 2][..]),
        ("a diff", "000002-tue.vhddiff", &[1, 2]),
        ("the newest diff", "000003-wed.vhddiff", &[2]),
        ("a manifest", "000002-tue.json", &[1, 2]),
    ] {
        let mut before = (*sound).clone();
        damage(&mut before, file);
        let others = [0, 1, 2];
        let from = Arc::clone(&sound);
        let run = move |at: &Path| {
            beside(at, &from, |store, name| {
                let means = RepairSources {
                    stores: vec![StoredDisk::open(store, name, Access::Read)?],
                    ..RepairSources::default()
                };
                let repaired = repair(&mut stored(at, Access::Write)?, &means, work())?;
                let mut left = repaired.left.into_iter();
                left.next().map_or(Ok(()), |finding| Err(finding.error))
            })
        };
        let judge = StoreJudge {
            old: others.to_vec(),
            new: others.to_vec(),
            again: Box::new(run.clone()),
            others: &[".damaged"],
        };
        let judge = move |ground: &Ground<'_>| -> Judged {
            let folder = ground.fresh();
            let disk = stored(folder.path(), Access::Read).map_err(|e| e.to_string())?;
            for n in others.iter().filter(|n| !damaged.contains(n)) {
                reads(&disk, *n)?;
            }
            drop(disk);
            let outcome = judge.listed(folder.path()).unwrap_or(Outcome::Old);
            let folder = ground.fresh();
            (judge.again)(folder.path()).map_err(|e| format!("{outcome:?}, again: {e}"))?;
            judge
                .listed(folder.path())
                .map_err(|e| format!("{outcome:?}, again: {e}"))?;
            judge.clean(folder.path())?;
            Ok(outcome)
        };
        writers.push(Writer {
            name: called(form, &format!("repair, {what}")),
            before,
            run: Box::new(run),
            judge: Box::new(judge),
            done: Outcome::New,
            verifies: false,
            clones: false,
        });
    }
    writers
}

/// An upgrade is judged by what it had to begin with, which it never changes, and leaves no image in the end.
fn upgrades() -> Writer {
    let run = |at: &Path| upgrade(&mut stored(at, Access::Write)?, work()).map(drop);
    let all = vec![0, 1, 2];
    let judge = StoreJudge {
        old: all.clone(),
        new: all,
        again: Box::new(run),
        others: &[],
    };
    let judge = move |ground: &Ground<'_>| -> Judged {
        let folder = ground.fresh();
        let outcome = judge.listed(folder.path())?;
        let folder = ground.fresh();
        let again = |e| format!("{outcome:?}, again: {e}");
        (judge.again)(folder.path()).map_err(|e| again(e.to_string()))?;
        judge.listed(folder.path()).map_err(again)?;
        judge.clean(folder.path())?;
        Ok(outcome)
    };
    Writer {
        name: called(BaseForm::Image, "upgrade"),
        before: store(3, &[1], BaseForm::Image),
        run: Box::new(run),
        judge: Box::new(judge),
        done: Outcome::New,
        verifies: false,
        clones: false,
    }
}

/// The copy of what comes after a snapshot that the source doesn't have any more.
fn bridges(form: BaseForm) -> Writer {
    let source = Arc::new(store(4, &[], form));
    let mut pruned = files(|at| {
        fill(at, &source);
        for name in ["mon", "tue"] {
            delete(&mut stored(at, Access::Write)?, name, false, work())?;
        }
        Ok(())
    });
    pruned.remove("image");
    let mut some = (*source).clone();
    some.retain(|name, _| {
        name == "lock" || name.starts_with("000001") || name.starts_with("000002")
    });
    writer(
        form,
        "copy, past what was pruned",
        some,
        [&[0, 1], &[0, 1, 2, 3]],
        move |at| {
            beside(at, &pruned, |store, name| {
                let copied = copy_disk((store, at.parent().unwrap()), name, work());
                copied.error.map_or(Ok(()), Err)
            })
        },
    )
}

/// A snapshot gets another name.
fn renames(form: BaseForm) -> Writer {
    writer(
        form,
        "rename",
        store(3, &[], form),
        [&[0, 1, 2], &[0, 5, 2]],
        |at| rename_point(&mut stored(at, Access::Write)?, "tue", RENAMED, work()).map(drop),
    )
}

/// The disk beside the one that is worked on, as whose snapshot that begins.
static OTHER: LazyLock<Files> = LazyLock::new(|| store(1, &[], BaseForm::Packed));
const OTHER_NAME: &str = "other";

/// Puts the other disk beside the folder `at`, and lets the marker say that there may be such disks.
fn lay_other(at: &Path) {
    // Others may do so at the same time.
    static ONE: Mutex<()> = Mutex::new(());
    let other = LazyLock::force(&OTHER);
    let _one = ONE.lock().unwrap();
    let store = at.parent().unwrap();
    if !store.join(OTHER_NAME).exists() {
        lay_out(&store.join(OTHER_NAME), other);
        let marker = store.join(MARKER);
        let text = std::fs::read_to_string(&marker).unwrap();
        let text = text.replace("\"vhdkit_store\": 2", "\"vhdkit_store\": 4");
        std::fs::write(&marker, text).unwrap();
    }
}

fn other_point() -> OtherPoint {
    OtherPoint {
        disk: OTHER_NAME.to_owned(),
        snapshot: Some(NAMES[0].to_owned()),
    }
}

fn add_like(at: &Path, n: usize) -> Result<()> {
    let image = open(&at.join("image"))?;
    let new = NewPoint {
        like: Some(other_point()),
        ..new_point(n)
    };
    create(&mut stored(at, Access::Create)?, &image, &new, work()).map(drop)
}

/// The second and the third snapshot, as a disk that begins as a snapshot of the other one, or by itself.
fn two(like: bool) -> Files {
    let mut folder = files(|at| {
        lay_other(at);
        std::fs::write(at.join("image"), &DISKS[1]).unwrap();
        if like {
            add_like(at, 1)?;
        } else {
            add(at, 1, false, BaseForm::Packed)?;
        }
        std::fs::write(at.join("image"), &DISKS[2]).unwrap();
        add(at, 2, false, BaseForm::Packed)
    });
    folder.remove("image");
    folder
}

/// What is done with disks that begin as a snapshot of another one.
fn likes() -> Vec<Writer> {
    let form = BaseForm::Packed;
    let image = Files::from([("image".to_owned(), Arc::new(DISKS[1].clone()))]);
    let source = two(true);
    let mut writers = vec![
        writer(form, "create --like", image, [&[], &[1]], |at| {
            lay_other(at);
            add_like(at, 1)
        }),
        writer(
            form,
            "delete, the first of what is like another",
            two(true),
            [&[1, 2], &[2]],
            |at| {
                lay_other(at);
                delete(&mut stored(at, Access::Write)?, NAMES[1], false, work()).map(drop)
            },
        ),
        writer(
            form,
            "copy, what is like another",
            Files::new(),
            [&[], &[1, 2]],
            move |at| {
                lay_other(at);
                beside(at, &source, |store, name| {
                    lay_out(&store.join(OTHER_NAME), &OTHER);
                    let copied = copy_disk((store, at.parent().unwrap()), name, work());
                    copied.error.map_or(Ok(()), Err)
                })
            },
        ),
        rebases("rebase --like", two(false), Some(other_point())),
        rebases("rebase --full", two(true), None),
    ];
    for writer in &mut writers {
        let other = |_: &Ground<'_>| -> Judged { Err(String::new()) };
        let judge = std::mem::replace(&mut writer.judge, Box::new(other));
        writer.judge = Box::new(move |ground| {
            lay_other(ground.fresh().path());
            judge(ground)
        });
    }
    writers
}

/// Whatever the first snapshot is stored as, all hold what they did.
fn rebases(name: &str, before: Files, like: Option<OtherPoint>) -> Writer {
    let is_like = like.is_some();
    let run = move |at: &Path| {
        lay_other(at);
        rebase_disk(&mut stored(at, Access::Write)?, like.as_ref(), work()).map(drop)
    };
    let all = vec![1, 2];
    let judge = StoreJudge {
        old: all.clone(),
        new: all,
        again: Box::new(run.clone()),
        others: &[],
    };
    let judge = move |ground: &Ground<'_>| -> Judged {
        let folder = ground.fresh();
        judge.listed(folder.path())?;
        let disk = stored(folder.path(), Access::Read).map_err(|e| e.to_string())?;
        let outcome = if disk.points()[0].like.is_some() == is_like {
            Outcome::New
        } else {
            Outcome::Old
        };
        drop(disk);
        let folder = ground.fresh();
        let again = |e| format!("{outcome:?}, again: {e}");
        (judge.again)(folder.path()).map_err(|e| again(e.to_string()))?;
        judge.listed(folder.path()).map_err(again)?;
        judge.clean(folder.path())?;
        Ok(outcome)
    };
    Writer {
        name: called(BaseForm::Packed, name),
        before,
        run: Box::new(run),
        judge: Box::new(judge),
        done: Outcome::New,
        verifies: false,
        clones: false,
    }
}

pub(super) fn all() -> Vec<Writer> {
    let mut writers = vec![upgrades()];
    writers.extend(likes());
    for form in [BaseForm::Packed, BaseForm::Image] {
        writers.extend(creates(form));
        writers.extend(deletes(form));
        writers.extend(arrivals(form));
        writers.extend(repairs(form));
        writers.push(bridges(form));
        writers.push(renames(form));
    }
    writers.extend(encrypted());
    writers
}
