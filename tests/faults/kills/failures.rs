//! Calls of the system that fail, at every step of every writer: what failed is never called a success, and nothing
//! is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tempfile::NamedTempFile;

use crate::disk::memory;
use crate::kill::{calls, grouped, injected, points};
use crate::kills::job::{Job, files_in};
use crate::kills::round::{go_on, strays};
use crate::kills::table::Row;
use crate::kills::writers::{self, Writer};

/// Writers at a time: each waits for its programs most of the time.
const THREADS: usize = 3;

/// Which calls are made to fail, how, and whether there is another way so that the command may succeed all the same.
const FAILURES: [(&str, &[&str], bool); 13] = [
    ("pwrite64", &["EIO", "ENOSPC"], false),
    ("fsync", &["EIO"], false),
    ("fdatasync", &["EIO", "ENOSPC"], false),
    ("ftruncate", &["EIO", "ENOSPC"], false),
    ("rename", &["EIO"], false),
    ("renameat", &["EIO"], false),
    ("renameat2", &["EIO"], false),
    ("unlink", &["EACCES"], true),
    ("unlinkat", &["EACCES"], true),
    ("fallocate", &["EOPNOTSUPP", "EIO"], true),
    ("copy_file_range", &["EIO"], true),
    ("fsetxattr", &["EOPNOTSUPP"], true),
    ("ioctl", &["EOPNOTSUPP"], true),
];

#[test]
fn no_failed_call_is_called_a_success() {
    let only = std::env::var("VHDKIT_WRITER").unwrap_or_default();
    let writers: Vec<_> = writers::all()
        .into_iter()
        .filter(|writer| !writer.clones && writer.name.contains(&only))
        .collect();
    let (next, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(writer) = writers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    fail_everywhere(writer, &failures, &wrong);
                }
            });
        }
    });
    let (failures, wrong) = (failures.into_inner(), wrong.into_inner().unwrap());
    println!("{failures} failed calls");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(failures > 0);
}

fn fail_everywhere(writer: &Writer, failures: &AtomicUsize, wrong: &Mutex<Vec<String>>) {
    let place = memory();
    let mut row = Row::new(writer.name, "memory");
    let jobs = writer.jobs();
    for make in jobs.iter().take(if writer.in_place { 2 } else { 1 }) {
        let job = make();
        for (what, paths, may_succeed) in steps(&job, &place) {
            match fails(&job, &place, &what, &paths, may_succeed, &mut row) {
                Ok(reached) => {
                    failures.fetch_add(usize::from(reached), Ordering::Relaxed);
                }
                Err(why) => {
                    let why = format!("{}, {}, {what}: {why}", writer.name, job.name);
                    wrong.lock().unwrap().push(why);
                }
            }
        }
    }
}

/// What to inject, on calls for which files, and whether the command may still succeed.
type Step = (String, Vec<String>, bool);

fn steps(job: &Job, place: &Path) -> Vec<Step> {
    let mut steps = Vec::new();
    let folder = job.lay_out(place);
    for (call, points) in grouped(points(&job.command(folder.path()))) {
        let known = FAILURES.iter().find(|(name, ..)| *name == call);
        let Some((_, errors, may_succeed)) = known else {
            continue;
        };
        for (n, point) in points.iter().enumerate() {
            let ends = [0, points.len() / 2, points.len() - 1];
            if !call.contains("sync") && !ends.contains(&n) {
                continue;
            }
            for error in *errors {
                let what = format!("{call}:error={error}:when={}", point.nth);
                steps.push((what, Vec::new(), *may_succeed));
            }
        }
    }
    // Reading what it is given, each file. What else may be there is only looked for, and one of several threads
    // may come that far, or none.
    for (name, _) in files_in(&job.seed.path("")) {
        let folder = job.lay_out(place);
        let path = folder.path().join(&name);
        let reads = calls(&job.command(folder.path()), "pread64", &[path]);
        let last = reads.iter().map(|read| read.nth).max().unwrap_or(0);
        for nth in [1, 2, last.div_ceil(2), last] {
            let what = format!("pread64:error=EIO:when={nth}");
            let step = (what, vec![name.clone()], true);
            if (1..=last).contains(&nth) && !steps.contains(&step) {
                steps.push(step);
            }
        }
    }
    steps
}

/// Whether the command came to that call at all: what writes behind makes more of them or fewer, as time goes.
fn fails(
    job: &Job,
    place: &Path,
    what: &str,
    names: &[String],
    may_succeed: bool,
    row: &mut Row,
) -> Result<bool, String> {
    let folder = job.lay_out(place);
    let log = NamedTempFile::new().unwrap();
    let paths: Vec<PathBuf> = names.iter().map(|name| folder.path().join(name)).collect();
    let output = injected(&job.command(folder.path()), what, &paths, log.path())
        .output()
        .unwrap();
    let log = fs::read_to_string(log.path()).unwrap();
    let reached = log.contains("(INJECTED)");
    // A lock file says who holds the lock, for people; the lock doesn't depend on it.
    let may_succeed = may_succeed
        || log
            .lines()
            .filter(|line| line.contains("(INJECTED)"))
            .all(|line| line.contains("/lock>") || line.contains("/copy.lock>"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) if may_succeed || !reached => {}
        Some(0) => return Err("called a success".to_owned()),
        Some(2) if said.contains("error: ") => {}
        // A file that ends too early and one that can't be read are told apart by what was found.
        other => return Err(format!("ended with {other:?}: {said}")),
    }
    if !strays(folder.path()).is_empty() && !what.starts_with("unlink") {
        return Err(format!("a temporary file is left: {said}"));
    }
    let new = row.new;
    go_on(job, folder.path(), row)?;
    if output.status.success() && row.new == new {
        return Err("called a success, but it isn't done".to_owned());
    }
    Ok(reached)
}
