//! Ctrl-C and termination: nothing half-written is left behind, and the state of what was being written is reported.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::{cloud, document, exit, far, keys, progress, take_back};
use crate::error::{Error, Result};
use crate::files::{fetched_path, refuse_pending};
use crate::storage::remove_temporary_files;
use crate::text::shown;

/// Waits for a signal on a separate thread; then removes the temporary files and exits with 128 plus the signal's
/// number: 130 for Ctrl-C, 143 for termination, 129 when the terminal is gone. An in-place apply is protected by its
/// undo journal.
pub(super) fn watch(program: &'static str) -> Result<()> {
    let failed = |e| Error::io("cannot watch for signals", e);
    // If a limit is set, a file that grows too large is an error to report, not a reason to die.
    let ignored = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGXFSZ, ignored).map_err(failed)?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    if !ignored_by_caller(SIGHUP) {
        signals.add_signal(SIGHUP).map_err(failed)?;
    }
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                let handler = HANDED.lock().unwrap_or_else(PoisonError::into_inner);
                if handler.as_ref().is_some_and(|handler| handler(signal)) {
                    continue;
                }
                drop(handler);
                // Afterwards no file can be written any more.
                take_back::interrupted(program);
                remove_temporary_files();
                keys::echo_again();
                progress::wipe();
                let how = match signal {
                    SIGTERM => "terminated",
                    SIGHUP => "hung up",
                    _ => "interrupted",
                };
                let work = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
                exit::ended(
                    program,
                    how,
                    &work.iter().map(Work::became).collect::<Vec<_>>(),
                );
                drop(work);
                document::interrupted(u8::try_from(128 + signal).unwrap_or(130));
                std::process::exit(128 + signal);
            }
        })
        .map_err(failed)?;
    Ok(())
}

/// The handler of signals.
static HANDED: Mutex<Option<Handler>> = Mutex::new(None);

/// Handles a signal. Returns whether it did.
type Handler = Box<dyn Fn(i32) -> bool + Send>;

/// Passes signals to `handler`, for a command that they end regularly. A signal that it doesn't handle ends the program
/// at once.
pub(super) fn hand_to(handler: impl Fn(i32) -> bool + Send + 'static) {
    let mut handed = HANDED.lock().unwrap_or_else(PoisonError::into_inner);
    *handed = Some(Box::new(handler));
}

/// The output that the command is about to write.
static UNDER_WAY: Mutex<Vec<Work>> = Mutex::new(Vec::new());

/// Something that a command writes, whose state is reported on an interruption.
enum Work {
    /// A file, with its previous state.
    File(PathBuf, Option<State>),
    /// A store.
    Store(PathBuf),
    /// A page blob.
    Blob(PathBuf),
    /// Something that a service does by itself: what becomes of it, and advice.
    Elsewhere(String, String),
}

/// The state by which a file is recognized as unchanged.
#[derive(PartialEq, Eq)]
struct State {
    file: (u64, u64),
    len: u64,
    written: (i64, i64),
    device: bool,
}

impl State {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            file: (found.dev(), found.ino()),
            len: found.len(),
            written: (found.mtime(), found.mtime_nsec()),
            device: found.file_type().is_block_device(),
        })
    }
}

/// Registers a file that will be created, replaced or changed, so that an interrupted command can report its state.
pub(super) fn writes(path: &Path) {
    let work = if cloud::is_name(path) {
        Work::Elsewhere(
            format!(
                "{}: if writing had begun, the disk is tagged as incomplete",
                shown(&path)
            ),
            "run the same command again, which replaces it".to_owned(),
        )
    } else if far::is_address(path) {
        Work::Blob(path.to_path_buf())
    } else {
        Work::File(path.to_path_buf(), State::of(path))
    };
    let mut all = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let known =
        |work: &Work| matches!(work, Work::File(known, _) | Work::Blob(known) if known == path);
    if !all.iter().any(known) {
        all.push(work);
    }
}

/// As [`writes`], for a store.
pub(super) fn writes_store(path: &Path) {
    let mut all = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(Work::Store(path.to_path_buf()));
}

/// As [`writes`], for what a service does by itself, until the result is dropped.
pub(super) fn goes_on(text: &str, advice: &str) -> GoesOn {
    let mut all = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(Work::Elsewhere(text.to_owned(), advice.to_owned()));
    GoesOn(text.to_owned())
}

/// Something that goes on by itself if the command is interrupted now.
pub(super) struct GoesOn(String);

impl Drop for GoesOn {
    fn drop(&mut self) {
        let mut all = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|work| !matches!(work, Work::Elsewhere(text, _) if *text == self.0));
    }
}

impl Work {
    /// Its state, and advice.
    fn became(&self) -> (String, Option<String>) {
        let (path, before) = match self {
            Self::File(path, before) => (path, before),
            Self::Store(store) => {
                let text = format!(
                    "{}: complete snapshots are unchanged; anything unfinished is completed or removed by the next \
                     command that changes the disk",
                    shown(store)
                );
                return (text, None);
            }
            Self::Elsewhere(text, advice) => return (text.clone(), Some(advice.clone())),
            Self::Blob(blob) => {
                return (
                    format!(
                        "{}: if writing had begun, the blob is marked as incomplete",
                        shown(blob)
                    ),
                    Some("run the same command again to continue".to_owned()),
                );
            }
        };
        let name = shown(path);
        if let Err(pending) = refuse_pending(path) {
            let hint = super::remedy::hint(&pending);
            return (format!("{name} is half changed"), hint);
        }
        let fetched = fetched_path(path);
        if before.is_none() && State::of(path).is_none() && State::of(&fetched).is_some() {
            return (
                format!(
                    "{name} was not made; what was fetched so far is kept in {}",
                    shown(&fetched)
                ),
                Some("run the same command again, which continues from there".to_owned()),
            );
        }
        let again = Some("run the same command again".to_owned());
        match (before, State::of(path)) {
            (None, None) => (format!("{name} was not made"), None),
            (Some(before), _) if before.device => {
                (format!("{name} is a device and may be half written"), again)
            }
            (Some(before), Some(now)) if *before == now => (format!("{name} is unchanged"), None),
            (Some(before), Some(now)) if before.file == now.file => {
                (format!("{name} was being changed"), again)
            }
            // A new file gets its name when it is complete.
            (_, Some(_)) => (format!("{name} is complete"), None),
            (Some(_), None) => (format!("{name} is gone"), None),
        }
    }
}

/// Returns whether the caller of this program wants it to ignore the signal, as `nohup` does. If that can't be
/// determined, yes: the system's default behaviour is kept then.
fn ignored_by_caller(signal: i32) -> bool {
    let mask = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("SigIgn:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        });
    let bit = u32::try_from(signal - 1)
        .ok()
        .and_then(|n| 1_u64.checked_shl(n));
    match (mask, bit) {
        (Some(mask), Some(bit)) => mask & bit != 0,
        _ => true,
    }
}
