//! Common parts of `vhd serve` and `vhd mount`: opening what is served, and waiting until the end.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, mpsc};
use std::thread;

use super::args::{Parents, SaidFormat};
use super::context::{Context, Reading};
use super::exit::Outcome;
use super::message::Topic;
use super::names::is_store;
use super::{far, signals, store_path};
use crate::api::PointName;
use crate::error::{Error, Result};
use crate::serve::{Faults, Shelf};
use crate::storage::allow_many_files;
use crate::text::shown;

/// Opens the given source: a file, `STORE::DISK@SNAPSHOT`, `STORE::DISK` with all its snapshots, or a store.
pub(super) fn shelf(
    what: &Path,
    format: SaidFormat,
    parents: &Parents,
    context: &Context,
) -> Result<Shelf> {
    allow_many_files();
    if let Some(point) = PointName::parse(what)
        && point.snapshot.is_none()
    {
        let store = store_path::store_of(&point)?;
        refuse_format(what, format)?;
        if far::is_address(&store) {
            return Err(
                Error::unsupported("of a container, one point in time is served at a time")
                    .with_path(what)
                    .with_expected("CONTAINER::DISK@SNAPSHOT")
                    .with_hint("vhd snapshot list shows the snapshots; for all of them, copy them to a folder first"),
            );
        }
        if point.disk.is_empty() {
            return whole_store(store, context);
        }
        return Shelf::of_disk(store, point.disk);
    }
    if is_store(what)? {
        refuse_format(what, format)?;
        return whole_store(what.to_path_buf(), context);
    }
    if let Some(mut point) = store_path::open(what)? {
        refuse_format(what, format)?;
        if !point.hold_files()? {
            context.warn(Topic::LockHeld, format_args!(
                "{}: it can't be kept open without its lock, so nobody can change the disk while it is served",
                shown(what)
            ));
        }
        return Ok(Shelf::of_point(point));
    }
    let image = context.open_source(what, format, parents, Reading::default())?;
    Ok(Shelf::of_image(image))
}

/// All disks of a store. Those that can't be read now are told: nothing of them is in the list until they can be.
fn whole_store(store: PathBuf, context: &Context) -> Result<Shelf> {
    let shelf = Shelf::of_store(store)?;
    for disk in shelf.disks()? {
        if let Err(error) = shelf.points(&disk) {
            context.warn(
                Topic::NotServed,
                format_args!("{disk} isn't served: {error}"),
            );
        }
    }
    Ok(shelf)
}

fn refuse_format(what: &Path, format: SaidFormat) -> Result<()> {
    if format.format.is_none() {
        return Ok(());
    }
    Err(
        Error::usage("the format of a point in time can't be chosen")
            .with_path(what)
            .with_hint("omit the option"),
    )
}

/// Collects read errors, and reports them on stderr.
pub(super) fn faults(context: &Context) -> Arc<Faults> {
    Arc::new(Faults::new(Box::new(context.reporter())))
}

/// Events that end the waiting.
enum Event {
    Signal(i32),
    Ended(std::io::Result<ExitStatus>),
    Gone,
}

/// Reports that what is served has gone.
pub(super) struct Notifier(mpsc::Sender<Event>);

impl Notifier {
    pub(super) fn gone(&self) {
        // If nobody is waiting any more, it is known already.
        let _ = self.0.send(Event::Gone);
    }
}

/// Waits for the end of a command that serves something.
pub(super) struct Waiting(mpsc::Sender<Event>, mpsc::Receiver<Event>);

/// Creates the two ends of the waiting.
pub(super) fn events() -> (Notifier, Waiting) {
    let (sender, events) = mpsc::channel();
    (Notifier(sender.clone()), Waiting(sender, events))
}

impl Waiting {
    /// Waits until the user ends it, or what is served has gone. With a command, runs that and waits for its end
    /// instead; in its arguments `{}` is replaced by `place`, which is also in the environment variable `variable`.
    /// Signals are passed on to the command. Without one, `may_end` decides whether a signal ends the waiting.
    ///
    /// Returns the exit code of the command.
    pub(super) fn wait(
        self,
        command: &[OsString],
        (variable, place): (&str, &OsStr),
        mut may_end: impl FnMut() -> bool,
    ) -> Result<u8> {
        let Self(sender, events) = self;
        let on_signal = sender.clone();
        signals::hand_to(move |signal| on_signal.send(Event::Signal(signal)).is_ok());
        // Before the command is started, which nobody would wait for otherwise.
        let (hand_over, started) = mpsc::channel::<Child>();
        let waits = move || {
            if let Ok(mut child) = started.recv() {
                let _ = sender.send(Event::Ended(child.wait()));
            }
        };
        if !command.is_empty() {
            let spawned = thread::Builder::new().spawn(waits);
            spawned.map_err(|e| Error::io("cannot start a thread", e))?;
        }
        let child = start(command, variable, place)?;
        let pid = child.as_ref().map(Child::id);
        if let Some(child) = child {
            let _ = hand_over.send(child);
        }
        loop {
            match (events.recv(), pid) {
                (Ok(Event::Signal(signal)), Some(pid)) => pass_on(pid, signal),
                (Ok(Event::Signal(_)), None) if !may_end() => {}
                (Ok(Event::Gone), Some(_)) => {}
                (Ok(Event::Signal(_) | Event::Gone) | Err(_), _) => return Ok(0),
                (Ok(Event::Ended(Ok(status))), _) => return Ok(code_of(status)),
                (Ok(Event::Ended(Err(e))), _) => {
                    return Err(Error::io("cannot wait for the command", e));
                }
            }
        }
    }
}

fn start(command: &[OsString], variable: &str, place: &OsStr) -> Result<Option<Child>> {
    let Some((program, args)) = command.split_first() else {
        return Ok(None);
    };
    let args = args.iter().map(|arg| with_place(arg, place));
    let child = Command::new(program)
        .args(args)
        .env(variable, place)
        .spawn();
    child.map(Some).map_err(|e| {
        Error::io("cannot start the command", e)
            .with_path(program)
            .with_hint("check the name of the program after --")
    })
}

/// Replaces `{}` in an argument by `place`.
fn with_place(arg: &OsStr, place: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let (mut out, mut rest) = (Vec::new(), arg.as_bytes());
    while let Some(at) = rest.windows(2).position(|two| two == b"{}") {
        let (before, after) = rest.split_at(at);
        out.extend(before);
        out.extend(place.as_bytes());
        rest = after.get(2..).unwrap_or_default();
    }
    out.extend(rest);
    OsString::from_vec(out)
}

/// Terminal signals reach the command without our help.
fn pass_on(pid: u32, signal: i32) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let signal = match signal {
        signal_hook::consts::SIGTERM => rustix::process::Signal::TERM,
        signal_hook::consts::SIGHUP => rustix::process::Signal::HUP,
        _ => return,
    };
    if let Some(pid) = pid {
        // It may just have ended.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The exit code of a command, as a shell reports it.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code();
    let code = code.or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Ends a command that served something: damage that was encountered is reported even if everything else went well.
pub(super) fn end(code: u8, faults: &Faults, context: &Context) -> Result<Outcome> {
    match (code, faults.check()) {
        (0, found) => found.map(|()| Outcome::Done),
        (code, Ok(())) => Ok(Outcome::Code(code)),
        (code, Err(error)) => {
            context.report(&error);
            Ok(Outcome::Code(code))
        }
    }
}

/// Creates a private folder for what needs a name while a command runs.
pub(super) fn private_folder() -> Result<tempfile::TempDir> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|folder| folder.is_dir());
    let within = runtime.unwrap_or_else(std::env::temp_dir);
    tempfile::Builder::new()
        .prefix("vhd-serve-")
        .tempdir_in(&within)
        .map_err(|e| Error::io("cannot make a folder for the socket", e).with_path(within))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_stand_for_the_place() {
        for (arg, expected) in [
            ("{}", "P"),
            ("a{}b{}", "aPbP"),
            ("{", "{"),
            ("{ }", "{ }"),
            ("", ""),
        ] {
            assert_eq!(with_place(OsStr::new(arg), OsStr::new("P")), *expected);
        }
    }
}
