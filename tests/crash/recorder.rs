//! Logs what a writer does to the files of a folder, and injects faults.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use vhdkit::storage::fault::{Answer, Call, Observer};

const EOPNOTSUPP: i32 = 95;

/// A folder's files by name.
pub(crate) type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// A file, regardless of its current name.
pub(crate) type Id = usize;

/// An operation on a file or the folder.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Write(Id, u64, Arc<Vec<u8>>),
    Zero(Id, Range<u64>),
    SetLen(Id, u64),
    Sync(Id),
    /// Data that wasn't synced by then never will be: the system drops it and reports success for later syncs.
    FailedSync(Id),
    Create(String, Id),
    Rename(String, String),
    Remove(String),
    SyncFolder,
}

/// Events, and the files that existed before: file `n` of the log is the `n`th of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) before: Files,
    pub(crate) events: Vec<Event>,
}

impl Log {
    /// Returns the files that are called `name` at some time.
    pub(crate) fn called(&self, name: &str) -> Vec<Id> {
        let mut names: Vec<&str> = self.before.keys().map(String::as_str).collect();
        let mut called: Vec<Id> = (0..names.len()).filter(|id| names[*id] == name).collect();
        for event in &self.events {
            match event {
                Event::Create(name, _) => names.push(name),
                Event::Rename(from, to) => {
                    if let Some(id) = names.iter().rposition(|name| name == from) {
                        names[id] = to;
                        called.extend((to == name).then_some(id));
                    }
                }
                _ => {}
            }
        }
        called
    }
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The call fails with this error number.
    Fails(i32),
    /// The call and all later ones that write or create fail with this error number, as on a full disk.
    FailsFrom(i32),
    /// Only this many of the bytes arrive.
    Torn(usize, i32),
    /// The call reports success without doing anything.
    Lies,
}

/// The call that the fault hits: the `at`th of those that change something, or of those that read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) reads: bool,
    pub(crate) at: usize,
    pub(crate) trouble: Trouble,
}

/// The kind of each call, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Write { offset: u64, len: usize },
    Punch,
    SetLen,
    Sync,
    Attributes,
    Clone,
    Create,
    Rename,
    Remove,
    SyncFolder,
}

#[derive(Debug, Default)]
struct Seen {
    log: Log,
    files: HashMap<u64, Id>,
    next: Id,
    kinds: Vec<Kind>,
    reads: usize,
    fired: bool,
}

/// Writes the log. Syncs are only simulated, since nothing here needs to outlive the machine.
#[derive(Debug)]
pub(crate) struct Recorder {
    folder: PathBuf,
    plan: Option<Plan>,
    clones: bool,
    seen: Mutex<Seen>,
}

impl Recorder {
    /// Creates a recorder of `folder` in its current state, on a file system that `clones` or not.
    pub(crate) fn new(folder: &Path, plan: Option<Plan>, clones: bool) -> Self {
        let mut seen = Seen::default();
        seen.log.before = read_folder(folder);
        for name in seen.log.before.keys() {
            let inode = fs::metadata(folder.join(name)).unwrap().ino();
            seen.files.insert(inode, seen.next);
            seen.next += 1;
        }
        Self {
            folder: folder.to_path_buf(),
            plan,
            clones,
            seen: Mutex::new(seen),
        }
    }

    pub(crate) fn log(&self) -> Log {
        self.seen.lock().unwrap().log.clone()
    }

    /// Returns the calls that change something, and the number of reads.
    pub(crate) fn calls(&self) -> (Vec<Kind>, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.kinds.clone(), seen.reads)
    }

    /// Returns whether the planned fault happened.
    pub(crate) fn fired(&self) -> bool {
        self.seen.lock().unwrap().fired
    }

    fn name(&self, path: &Path) -> String {
        let name = path.strip_prefix(&self.folder).unwrap();
        name.to_str().unwrap().to_owned()
    }
}

/// All files of a folder; removed files have no name.
pub(crate) fn read_folder(folder: &Path) -> Files {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Files::new(),
        entries => entries.unwrap().map(Result::unwrap),
    };
    entries
        .map(|entry| {
            let bytes = fs::read(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), Arc::new(bytes))
        })
        .collect()
}

fn kind(call: &Call<'_>) -> Option<Kind> {
    Some(match call {
        Call::Write { offset, bytes, .. } => Kind::Write {
            offset: *offset,
            len: bytes.len(),
        },
        Call::Punch { .. } => Kind::Punch,
        Call::SetLen { .. } | Call::Allocate { .. } => Kind::SetLen,
        Call::Sync { .. } => Kind::Sync,
        Call::Attributes { .. } => Kind::Attributes,
        Call::Clone { .. } => Kind::Clone,
        Call::Create | Call::CreateNameless => Kind::Create,
        Call::Rename { .. } => Kind::Rename,
        Call::Remove => Kind::Remove,
        Call::SyncFolder => Kind::SyncFolder,
        _ => return None,
    })
}

fn file_of(call: &Call<'_>) -> Option<u64> {
    match call {
        Call::Write { file, .. }
        | Call::Punch { file, .. }
        | Call::SetLen { file, .. }
        | Call::Clone { file, .. }
        | Call::Sync { file } => Some(file.metadata().unwrap().ino()),
        _ => None,
    }
}

impl Seen {
    /// Returns the planned fault of the next call.
    fn trouble(&mut self, plan: Option<Plan>, kind: Option<Kind>) -> Option<Trouble> {
        let number = if let Some(kind) = kind {
            self.kinds.push(kind);
            self.kinds.len() - 1
        } else {
            self.reads += 1;
            self.reads - 1
        };
        let plan = plan.filter(|plan| plan.reads == kind.is_none())?;
        let still = matches!(plan.trouble, Trouble::FailsFrom(_))
            && matches!(kind, Some(Kind::Write { .. } | Kind::Create | Kind::SetLen));
        let now = number == plan.at || (number > plan.at && still);
        self.fired |= now;
        now.then_some(plan.trouble)
    }
}

impl Observer for Recorder {
    fn before(&self, _path: &Path, call: &Call<'_>) -> Answer {
        let mut seen = self.seen.lock().unwrap();
        let kind = kind(call);
        let trouble = seen.trouble(self.plan, kind);
        let failed = matches!(trouble, Some(Trouble::Fails(_) | Trouble::FailsFrom(_)));
        if let (true, Call::Sync { .. }, Some(inode)) = (failed, call, file_of(call))
            && let Some(id) = seen.files.get(&inode).copied()
        {
            seen.log.events.push(Event::FailedSync(id));
        }
        match (trouble, kind) {
            (Some(Trouble::Fails(number) | Trouble::FailsFrom(number)), _) => Answer::Fail(number),
            (Some(Trouble::Torn(len, number)), _) => Answer::Tear(len, number),
            (Some(Trouble::Lies), _) | (None, Some(Kind::Sync | Kind::SyncFolder)) => {
                Answer::Pretend
            }
            (None, Some(Kind::Clone)) => cloned(call, self.clones),
            (None, _) => Answer::Proceed,
        }
    }

    fn after(&self, path: &Path, call: &Call<'_>) {
        let mut seen = self.seen.lock().unwrap();
        let seen = &mut *seen;
        let file = file_of(call).and_then(|inode| seen.files.get(&inode).copied());
        let event = match (call, file) {
            (Call::Write { offset, bytes, .. }, Some(id)) => {
                Event::Write(id, *offset, Arc::new(bytes.to_vec()))
            }
            (Call::Clone { from, .. }, Some(id)) => {
                Event::Write(id, 0, Arc::new(bytes_of(from).unwrap()))
            }
            (Call::Punch { range, .. }, Some(id)) => Event::Zero(id, range.clone()),
            (Call::SetLen { len, .. }, Some(id)) => Event::SetLen(id, *len),
            (Call::Sync { .. }, Some(id)) => Event::Sync(id),
            (Call::Create, _) => {
                let id = seen.next;
                seen.next += 1;
                seen.files.insert(fs::metadata(path).unwrap().ino(), id);
                Event::Create(self.name(path), id)
            }
            (Call::Rename { to, .. }, _) => Event::Rename(self.name(path), self.name(to)),
            (Call::Remove, _) => Event::Remove(self.name(path)),
            (Call::SyncFolder, _) => Event::SyncFolder,
            _ => return,
        };
        seen.log.events.push(event);
    }
}

fn bytes_of(file: &fs::File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap()];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Clones by copying, so that the file system of the tests doesn't matter; or fails like a file system without clones.
fn cloned(call: &Call<'_>, clones: bool) -> Answer {
    match call {
        Call::Clone { file, from } if clones => {
            file.write_all_at(&bytes_of(from).unwrap(), 0).unwrap();
            Answer::Pretend
        }
        _ => Answer::Fail(EOPNOTSUPP),
    }
}

/// Lets everything happen and simulates syncs, and clones if the file system has them.
pub(crate) struct Unsynced {
    pub(crate) clones: bool,
}

impl Observer for Unsynced {
    fn before(&self, _path: &Path, call: &Call<'_>) -> Answer {
        match call {
            Call::Sync { .. } | Call::SyncFolder => Answer::Pretend,
            Call::Clone { .. } => cloned(call, self.clones),
            _ => Answer::Proceed,
        }
    }

    fn after(&self, _path: &Path, _call: &Call<'_>) {}
}
