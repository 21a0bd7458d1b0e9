//! Applying in place, finishing an interrupted apply and rolling it back.

use std::path::Path;
use std::sync::Arc;

use vhdkit::Result;
use vhdkit::diff::{BaseCheck, Chain};
use vhdkit::files::{
    ApplyOptions, Format, FormatChoice, InPlace, Strategy, apply_in_place, open_diff, roll_back,
};
use vhdkit::progress::Silent;
use vhdkit::storage::fault::watch;

use super::{FAR, KIB, LARGER, SIZE, SMALLER, data, monday, pair, pair_over_parent, put, tuesday};
use crate::explore::{Ground, Judged, Outcome, Writer};
use crate::ground::{Disk, InPlaceJudge, apply, apply_options, chain, holds};
use crate::recorder::{Files, Kind, Plan, Recorder, Trouble, read_folder};

/// With an undo journal, even if the file system supports clones.
fn in_place(format: Format) -> InPlace<'static> {
    InPlace {
        format: Some(FormatChoice::Only(format)),
        strategy: Some(Strategy::Journal),
        ..InPlace::default()
    }
}

/// On a copy or a clone; a clone is the default.
fn replacing(strategy: Strategy, format: Format, size: usize) -> Writer {
    let clones = strategy == Strategy::Clone;
    let how = InPlace {
        strategy: (!clones).then_some(strategy),
        ..in_place(format)
    };
    let name = format!("apply onto a {}: {format}, {size} bytes", strategy.name());
    Writer {
        run: Box::new(move |at| apply(at, how, apply_options())),
        clones,
        ..apply_writer(&name, format, [monday(), tuesday(size)], apply_options())
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
        clones: false,
    }
}

pub(super) fn applies() -> Vec<Writer> {
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
    for (format, size) in [
        (Raw, SIZE),
        (Raw, SMALLER),
        (Fixed, LARGER),
        (Dynamic, LARGER),
        (Differencing, SIZE),
    ] {
        for strategy in [Strategy::Copy, Strategy::Clone] {
            writers.push(replacing(strategy, format, size));
        }
    }
    // Two pages, few enough to try all combinations.
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

/// Two diffs in one command. The second one alone doesn't match the base.
pub(super) fn two_diffs(format: Format) -> Writer {
    let [old, middle] = [monday(), tuesday(SIZE)];
    let mut new = middle.clone();
    put(&mut new, 0, &data(70, 1024));
    put(&mut new, 21 * KIB, &data(71, 1024));
    put(&mut new, 36 * KIB, &[0; 1024]);
    let mut before = pair(format, &old, &middle);
    let mut second = pair(format, &middle, &new);
    before.extend(
        second
            .remove("diff")
            .map(|diff| ("diff-2".to_owned(), diff)),
    );
    let run = move |at: &Path| {
        let diffs = ["diff", "diff-2"].map(|name| open_diff(&at.join(name), &Silent));
        let diffs = diffs.into_iter().collect::<Result<_>>()?;
        let base = at.join("base");
        apply_in_place(&base, Chain::new(diffs)?, in_place(format), apply_options()).map(drop)
    };
    let judge = InPlaceJudge {
        image: "base",
        old,
        new,
        again: Box::new(run),
        names: vec!["base", "diff", "diff-2"],
    };
    Writer {
        name: format!("apply in place: {format}, two diffs"),
        before,
        run: Box::new(run),
        judge: Box::new(move |ground| judge.judge(ground)),
        done: Outcome::New,
        verifies: true,
        clones: false,
    }
}

/// Returns `writer`'s folder after writes to the image failed half-way, with a complete journal.
fn interrupted(writer: &Writer) -> Files {
    let scratch = writer.scratch();
    let record = |plan| {
        let folder = scratch.folder(&writer.before);
        let recorder = Arc::new(Recorder::new(folder.path(), plan, false));
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

/// Finishing an interrupted apply, and rolling it back.
pub(super) fn recoveries() -> Vec<Writer> {
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

/// Two images of the same kind, each left half-way by an apply of its own: finishing that, or taking it `back`.
pub(crate) fn interrupted_pair(
    format: Format,
    options: ApplyOptions<'static>,
    back: bool,
) -> [Writer; 2] {
    [0, 1].map(|other| {
        let mut disks = [monday(), tuesday(SIZE)];
        for disk in &mut disks {
            // Where nothing changes, so that the diff of one fits neither.
            disk[34 * KIB] ^= other;
        }
        let way = if back { "roll back" } else { "finish" };
        let name = format!("{way}, beside another: {format}");
        let mut writer = apply_writer(&name, format, disks, options);
        writer.before = interrupted(&writer);
        if back {
            writer.run = Box::new(|at| roll_back(&at.join("base"), apply_options()).map(drop));
        }
        writer
    })
}

/// An apply that keeps an undo diff: afterwards the undo diff exists and leads back. If it was killed before it changed
/// the image, the same command continues and takes the undo diff for its own.
pub(super) fn keeps_undo(strategy: Strategy, format: Format) -> Writer {
    let [old, new] = [monday(), tuesday(SIZE)];
    let run = move |at: &Path| {
        let undo = at.join("undo");
        let how = InPlace {
            undo: Some(&undo),
            strategy: Some(strategy),
            ..in_place(format)
        };
        apply(at, how, apply_options())
    };
    let plain = InPlaceJudge {
        image: "base",
        old: old.clone(),
        new: new.clone(),
        again: Box::new(run),
        names: vec!["base", "diff", "undo"],
    };
    let judge = move |ground: &Ground<'_>| -> Judged {
        let outcome = plain.judge(ground)?;
        let early = ground.files.contains_key("undo") && outcome != Outcome::New;
        if outcome == Outcome::New || early {
            let folder = ground.fresh();
            run(folder.path()).map_err(|e| format!("again: {e}"))?;
            let base = folder.path().join("base");
            let undo = chain(folder.path(), "undo").map_err(|e| format!("undo: {e}"))?;
            apply_in_place(&base, undo, in_place(format), apply_options())
                .map_err(|e| format!("undo: {e}"))?;
            holds(&base, &old).map_err(|e| format!("undone: {e}"))?;
        }
        if early && strategy == Strategy::Journal {
            return Err(format!(
                "the undo diff is there before it is needed: {outcome:?}"
            ));
        }
        Ok(outcome)
    };
    Writer {
        name: format!("apply in place, --undo, {}: {format}", strategy.name()),
        before: pair(format, &monday(), &new),
        run: Box::new(run),
        judge: Box::new(judge),
        done: Outcome::New,
        // The image itself is read back.
        verifies: false,
        clones: strategy == Strategy::Clone,
    }
}

/// A writer whose base isn't that of the diff: it differs in pages that the diff doesn't change.
pub(crate) fn wrong_base(options: ApplyOptions<'static>) -> Writer {
    let disks = [monday(), tuesday(SIZE)];
    let mut writer = apply_writer("a wrong base", Format::Raw, disks, options);
    if let Some(base) = writer.before.get_mut("base") {
        Arc::make_mut(base)[34 * KIB] ^= 1;
    }
    writer
}
