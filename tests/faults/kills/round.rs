//! A run, a kill, and the way on from there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vhdkit::files::journal_path;

use crate::disk::Random;
use crate::kill::{Point, grouped, killed_after, killed_at, points, time};
use crate::kills::job::{Job, Reads, command, files_in, words};
use crate::kills::store::STORE;
use crate::kills::table::Row;

/// Kills that come after the end of the run don't count; so many may before it is given up.
const TOO_LATE: usize = 20;

/// What stands when nothing runs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Old,
    New,
    Between,
}

/// Kills `job` so many times on the file system of `place`, and counts in `row`.
pub(crate) fn kills(
    job: &Job,
    points: &[Vec<Point>],
    place: &Path,
    kills: usize,
    random: &mut Random,
    row: &mut Row,
) {
    let whole = trial(job, place);
    for n in 0..kills {
        let folder = kill(job, place, &whole, points, random, n);
        row.kills += 1;
        if let Err(what) = go_on(job, folder.path(), row) {
            row.losses += 1;
            let kept = folder.keep();
            println!(
                "LOSS: {} on {}, {}, kill {n}: {what}; the files are in {}",
                row.writer,
                row.place,
                job.name,
                kept.display()
            );
        }
    }
}

/// How long the job takes when nobody kills it; it must do what it is said to do.
fn trial(job: &Job, place: &Path) -> Duration {
    let folder = job.lay_out(place);
    let whole = time(&mut job.command(folder.path()));
    if let Some(store) = &job.store {
        let found = store.state(folder.path());
        assert!(found == Ok(State::New), "{}: {found:?}", job.name);
        return whole;
    }
    let found = job.content(folder.path());
    assert!(
        found.as_ref().ok().and_then(Option::as_ref) == Some(&job.new),
        "{}: without a kill, the result is wrong ({:?})",
        job.name,
        found.err()
    );
    whole
}

/// The calls it makes on the file system of `place`, grouped by name.
pub(crate) fn trial_points(job: &Job, place: &Path) -> Vec<Vec<Point>> {
    let folder = job.lay_out(place);
    let points = points(&job.command(folder.path()));
    grouped(points).into_values().collect()
}

/// Runs the job until a kill has come before its end, and gives the folder it was in.
fn kill(
    job: &Job,
    place: &Path,
    whole: &Duration,
    points: &[Vec<Point>],
    random: &mut Random,
    n: usize,
) -> tempfile::TempDir {
    for late in 0..=TOO_LATE {
        let folder = job.lay_out(place);
        let mut command = job.command(folder.path());
        let hit = if (n + late).is_multiple_of(2) {
            let micros = usize::try_from(whole.as_micros()).unwrap().max(1);
            let delay = Duration::from_micros(random.below(micros) as u64);
            killed_after(&mut command, delay)
        } else {
            let group = &points[random.below(points.len())];
            killed_at(&command, &group[random.below(group.len())])
        };
        if hit {
            return folder;
        }
    }
    panic!("{}: no kill came in time", job.name);
}

/// Looks at what stands, goes on in one of the ways there are, and looks again. An error is a loss.
pub(crate) fn go_on(job: &Job, folder: &Path, row: &mut Row) -> Result<(), String> {
    let strays = strays(folder);
    row.strays += strays.len();
    untouched(job, folder)?;
    let state = match &job.store {
        Some(store) => store.state(folder)?,
        None => state(job, folder)?,
    };
    match state {
        State::Old => row.old += 1,
        State::New => row.new += 1,
        State::Between => row.between += 1,
    }
    if let Some(store) = &job.store {
        row.forward += usize::from(state == State::Between);
        if state != State::New {
            ends(job.command(folder), 0)?;
        }
        return store.ends_well(folder);
    }
    if state == State::Between {
        let back = way_back(job, folder);
        match back.filter(|_| row.forward > row.back) {
            Some(words) => {
                row.back += 1;
                ends(command(&words, folder), 0)?;
                holds(job, folder, State::Old)?;
            }
            None => row.forward += 1,
        }
    }
    let last = journal_or_none(job, folder);
    if state == State::New && last.is_none() {
        ends(job.command(folder), job.again)?;
    } else if job.begins_between && last.is_none() {
        // Taken to where it came from: there is nothing left to go on with.
        return Ok(());
    } else {
        ends(job.command(folder), 0)?;
    }
    holds(job, folder, State::New)?;
    untouched(job, folder)?;
    for stray in strays {
        // It was in nobody's way, and nobody took it for anything; later commands may have cleared it away.
        let _ = fs::remove_file(stray);
    }
    no_trace(job, folder)?;
    undoes(job, folder)
}

/// What the file holds, and whether every command knows.
fn state(job: &Job, folder: &Path) -> Result<State, String> {
    let journal = journal_or_none(job, folder);
    if journal.is_some() {
        let said = ends(
            command(&words(&format!("vhd hash {}", job.file)), folder),
            5,
        )?;
        let again = match job.words[0].as_str() {
            "vhd" => job.words[..3].join(" "),
            apply => apply.to_owned(),
        };
        let ways = [
            format!("the same {again} again"),
            format!("--rollback {}", job.file),
        ];
        if !ways.iter().all(|way| said.contains(way)) {
            return Err(format!("the ways on aren't named: {said}"));
        }
        return Ok(State::Between);
    }
    let found = match job.content(folder) {
        Ok(found) => found,
        Err(_) if job.half_done.is_some() => None,
        Err(error) => return Err(format!("can't be read: {error}")),
    };
    if let Some(half) = job.half_done {
        return Ok(half(job, folder));
    }
    if found.as_ref() == Some(&job.new) {
        Ok(State::New)
    } else if found == job.old && !job.begins_between {
        Ok(State::Old)
    } else {
        Err("it holds neither what it held nor what it shall hold".to_owned())
    }
}

fn holds(job: &Job, folder: &Path, state: State) -> Result<(), String> {
    if let Some(journal) = journal_or_none(job, folder) {
        return Err(format!("{} still stands", journal.display()));
    }
    if state == State::Old && job.repairs() {
        let seed = fs::read(job.seed.path(job.file)).unwrap();
        let same = fs::read(folder.join(job.file)).unwrap() == seed;
        return if same {
            Ok(())
        } else {
            Err("not as before the repair".to_owned())
        };
    }
    let found = job.content(folder)?;
    let expected = match state {
        State::New => Some(&job.new),
        _ => job.old.as_ref(),
    };
    if found.as_ref() != expected {
        return Err(format!("afterwards it isn't {state:?}"));
    }
    let vhd =
        job.reads == Reads::Disk && Path::new(job.file).extension().is_some_and(|e| e == "vhd");
    if vhd {
        ends(
            command(&words(&format!("vhd check {}", job.file)), folder),
            0,
        )?;
    }
    Ok(())
}

/// The command that takes it back.
fn way_back(job: &Job, folder: &Path) -> Option<Vec<String>> {
    if !job.repairs() {
        return job.back.clone();
    }
    let saved = format!("{}.before-repair", job.file);
    let line = format!("vhd check --take-back {saved} {}", job.file);
    folder.join(saved).exists().then(|| words(&line))
}

/// All files that it only reads are as they were.
fn untouched(job: &Job, folder: &Path) -> Result<(), String> {
    for (name, seed) in files_in(&job.seed.path("")) {
        let stored = job.store.is_some() && name.starts_with(STORE);
        // A killed command leaves its name in the lock file, which nothing depends on.
        let lock = Path::new(&name).file_name() == Some("lock".as_ref());
        if name == job.file || name.ends_with("-journal") || stored || lock {
            continue;
        }
        if fs::read(&seed).ok() != fs::read(folder.join(&name)).ok() {
            return Err(format!("{name} was changed"));
        }
    }
    Ok(())
}

/// Nothing is left beside what shall be there.
fn no_trace(job: &Job, folder: &Path) -> Result<(), String> {
    let seed: Vec<String> = files_in(&job.seed.path(""))
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    for (name, _) in files_in(folder) {
        let known = name == job.file
            || Some(name.as_str()) == job.undo
            || seed.contains(&name) && !name.ends_with("-journal")
            || job.repairs() && name.contains(".before-repair");
        if !known {
            return Err(format!("{name} is left"));
        }
    }
    Ok(())
}

/// The file that was asked for leads back.
fn undoes(job: &Job, folder: &Path) -> Result<(), String> {
    let Some(undo) = job.undo else { return Ok(()) };
    ends(
        command(&words(&format!("vhd-apply {} {undo} -q", job.file)), folder),
        0,
    )?;
    holds(job, folder, State::Old)
}

fn journal_or_none(job: &Job, folder: &Path) -> Option<PathBuf> {
    Some(journal_path(&folder.join(job.file))).filter(|path| path.exists())
}

pub(crate) fn strays(folder: &Path) -> Vec<PathBuf> {
    let files = files_in(folder).into_iter();
    files
        .filter(|(name, _)| name.contains(".vhdkit-"))
        .map(|(_, path)| path)
        .collect()
}

/// Runs a command that must end with `code`; gives what it said.
pub(crate) fn ends(mut command: Command, code: i32) -> Result<String, String> {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(code) {
        return Ok(said);
    }
    let line: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    Err(format!(
        "{} ended with {}: {said}",
        line.join(" "),
        output.status
    ))
}
