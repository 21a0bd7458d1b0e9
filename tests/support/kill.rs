//! Kills the real programs, after a delay or at an exact system call.
//!
//! Used by a test with `#[path = "support/kill.rs"] mod kill;`, beside `disk`.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "test helpers, of which each test uses some"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::disk::program;

/// The calls that change files, make changes durable, or report to the user. Not every processor has all of them.
const CALLS: &str = "write,pwrite64,?pwritev2,ftruncate,fallocate,copy_file_range,ioctl,fsync,fdatasync,\
                     ?sync_file_range,?rename,renameat,renameat2,?link,linkat,?unlink,unlinkat,fchmod,fchown,fsetxattr";

/// A system call: the `nth` call of that name by any of the program's threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) call: String,
    pub(crate) nth: usize,
}

/// Measures how long `command` takes; it must succeed.
pub(crate) fn time(command: &mut Command) -> Duration {
    let start = Instant::now();
    crate::disk::run(command);
    start.elapsed()
}

/// Runs `command`, which must succeed, and returns its calls that change files, in order.
pub(crate) fn points(command: &Command) -> Vec<Point> {
    calls(command, CALLS, &[])
}

/// Runs `command` and returns its calls in `which`, a comma-separated list, on the files in `paths`, or on any file if
/// there are none.
pub(crate) fn calls(command: &Command, which: &str, paths: &[PathBuf]) -> Vec<Point> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut traced = strace(command, |strace| {
        strace.args(["-s", "0", "-e", "signal=none", "-e"]);
        strace.arg(format!("trace={which}")).arg("-o");
        strace.arg(log.path());
        only(strace, paths);
    });
    crate::disk::run(&mut traced);
    let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
    let text = fs::read_to_string(log.path()).unwrap();
    let calls = text.lines().filter_map(|line| {
        let (thread, rest) = line.split_once(' ')?;
        let (call, _) = rest.trim_start().split_once('(')?;
        let name = call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        name.then(|| (thread.to_owned(), call.to_owned()))
    });
    calls
        .map(|key| {
            let nth = seen.entry(key.clone()).or_default();
            *nth += 1;
            Point {
                call: key.1,
                nth: *nth,
            }
        })
        .collect()
}

/// Groups calls by name.
pub(crate) fn grouped(points: Vec<Point>) -> BTreeMap<String, Vec<Point>> {
    let mut groups: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for point in points {
        groups.entry(point.call.clone()).or_default().push(point);
    }
    groups
}

/// Runs `command` and kills it after `delay`. Returns whether it was killed before it ended.
pub(crate) fn killed_after(command: &mut Command, delay: Duration) -> bool {
    let mut running = silent(command).spawn().unwrap();
    thread::sleep(delay);
    running.kill().unwrap();
    was_killed(running.wait().unwrap())
}

/// Runs `command` and kills it on entry to the call `point`. Returns whether it got that far.
pub(crate) fn killed_at(command: &Command, point: &Point) -> bool {
    let Point { call, nth } = point;
    let what = format!("{call}:signal=SIGKILL:when={nth}");
    was_killed(
        silent(&mut injected(command, &what, &[], NO_LOG))
            .status()
            .unwrap(),
    )
}

/// For callers that don't ask whether the injection happened.
pub(crate) const NO_LOG: &str = "/dev/null";

/// The command under `strace`, which makes something else of a system call: `what` is the argument of
/// `strace -e inject=`. Only calls on the files in `paths` count, if there are any.
/// `log` then lists these calls, and says `INJECTED` where it came to that.
pub(crate) fn injected(
    command: &Command,
    what: &str,
    paths: &[PathBuf],
    log: impl AsRef<Path>,
) -> Command {
    strace(command, |strace| {
        let call = what.split(':').next().unwrap_or_default();
        // Without --seccomp-bpf, which prevents the injection of signals.
        strace
            .args(["-y", "-s", "0", "-o"])
            .arg(log.as_ref())
            .arg("-e");
        strace.arg(format!("trace={call}"));
        strace.arg("-e").arg(format!("inject={what}"));
        only(strace, paths);
    })
}

fn only(strace: &mut Command, paths: &[PathBuf]) {
    for path in paths {
        strace.arg("-P").arg(path);
    }
}

fn strace(command: &Command, options: impl FnOnce(&mut Command)) -> Command {
    let mut strace = program("strace");
    strace.args(["-f", "-qq"]);
    options(&mut strace);
    strace.arg("--").arg(command.get_program());
    strace.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        strace.current_dir(folder);
    }
    strace
}

fn silent(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::null()).stderr(Stdio::null())
}

fn was_killed(status: ExitStatus) -> bool {
    // Either strace itself or the traced program may have died of it.
    status.signal() == Some(9)
}
