//! Runs a writer, causes everything that could go wrong, and counts the results.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;
use vhdkit::Result;
use vhdkit::snapshot::{STORE_VERSION, init};
use vhdkit::storage::fault::{Watch, watch};
use vhdkit::storage::{seal_store, unseal_store};

use crate::disk::{State, States, is_temporary, states, surely_there, tears};
use crate::recorder::{Files, Kind, Log, Plan, Recorder, Trouble, Unsynced, read_folder};
use crate::sealed::OpenNames;

/// How the names of writers begin whose files are encrypted.
pub(crate) const ENCRYPTED: &str = "encrypted store: ";

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EOPNOTSUPP: i32 = 95;

/// The kinds of acceptable states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The state before the command.
    Old,
    /// The state after it.
    New,
    /// Every command refuses it; one leads to the new state, another back to the old one.
    Between,
}

/// Describes the fault of a state, if it has one.
pub(crate) type Judged = std::result::Result<Outcome, String>;

/// A command, run in a folder.
pub(crate) type Run = Box<dyn Fn(&Path) -> Result<()> + Send + Sync>;
type BaseVerifier = Box<dyn Fn(&Ground<'_>) -> Judged + Send + Sync>;

/// A command that writes, and its promise.
pub(crate) struct Writer {
    pub(crate) name: String,
    /// The folder before it.
    pub(crate) before: Files,
    /// The command, in such a folder.
    pub(crate) run: Run,
    /// Continues from a state that a crash left, as a user would, in every possible way.
    pub(crate) judge: BaseVerifier,
    /// The state after success.
    pub(crate) done: Outcome,
    /// Whether it reads back its output.
    pub(crate) verifies: bool,
    /// Whether the file system supports clones.
    pub(crate) clones: bool,
}

/// A folder to work in, in which syncs are only simulated.
pub(crate) struct Scratch {
    _folder: TempDir,
    path: PathBuf,
    used: AtomicUsize,
    judged: Mutex<HashMap<blake3::Hash, Judged>>,
    _watch: Watch,
}

impl Scratch {
    /// Creates it on a file system without clones.
    pub(crate) fn new() -> Self {
        Self::that(false)
    }

    /// Creates it on a file system that `clones` or not.
    pub(crate) fn that(clones: bool) -> Self {
        // In memory if possible: the requests to the disk matter, not its behaviour.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.unwrap();
        let path = fs::canonicalize(folder.path()).unwrap();
        // The folders in it may be disks.
        init(&path, STORE_VERSION).unwrap();
        let watch = watch(&path, Arc::new(Unsynced { clones }));
        Self {
            _folder: folder,
            path,
            used: AtomicUsize::new(0),
            judged: Mutex::default(),
            _watch: watch,
        }
    }

    /// Creates it with the files in its folders encrypted.
    pub(crate) fn sealed() -> Self {
        let scratch = Self::new();
        seal_store(&scratch.path, Arc::new(OpenNames));
        scratch
    }

    /// Creates a new folder with these files.
    pub(crate) fn folder(&self, files: &Files) -> Folder {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(number.to_string());
        lay_out(&path, files);
        Folder(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        unseal_store(&self.path);
    }
}

/// Creates the folder `path` with these files.
pub(crate) fn lay_out(path: &Path, files: &Files) {
    fs::create_dir(path).unwrap();
    fill(path, files);
}

/// Puts these files into the folder `path`.
pub(crate) fn fill(path: &Path, files: &Files) {
    for (name, bytes) in files {
        write_sparse(&path.join(name), bytes);
    }
}

fn write_sparse(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    const PIECE: usize = 32 << 10;
    let file = fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (n, piece) in bytes.chunks(PIECE).enumerate() {
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all_at(piece, (PIECE * n) as u64).unwrap();
        }
    }
}

/// A folder that is removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A state left by a crash, which can be recreated any number of times.
pub(crate) struct Ground<'a> {
    pub(crate) files: &'a Files,
    /// Whether faults that `vhd check --repair` fixes are tolerated: if a device lost a write, only the content is
    /// promised.
    pub(crate) may_need_repair: bool,
    scratch: &'a Scratch,
}

impl Ground<'_> {
    pub(crate) fn fresh(&self) -> Folder {
        self.scratch.folder(self.files)
    }
}

/// The results of all states.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) calls: usize,
    pub(crate) states: usize,
    pub(crate) distinct: usize,
    pub(crate) old: usize,
    pub(crate) new: usize,
    pub(crate) between: usize,
    pub(crate) losses: Vec<String>,
}

impl Tally {
    fn count(&mut self, when: &str, judged: Judged) {
        match judged {
            Ok(Outcome::Old) => self.old += 1,
            Ok(Outcome::New) => self.new += 1,
            Ok(Outcome::Between) => self.between += 1,
            Err(loss) => self.losses.push(format!("{when}: {loss}")),
        }
    }
}

impl Writer {
    /// Records everything that the command does.
    pub(crate) fn record(&self, scratch: &Scratch) -> Log {
        let folder = scratch.folder(&self.before);
        let recorder = Arc::new(Recorder::new(folder.path(), None, self.clones));
        let watch = watch(folder.path(), Arc::clone(&recorder) as _);
        (self.run)(folder.path()).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        drop(watch);
        recorder.log()
    }

    /// A folder on the file system that it is for.
    pub(crate) fn scratch(&self) -> Scratch {
        if self.name.starts_with(ENCRYPTED) {
            return Scratch::sealed();
        }
        Scratch::that(self.clones)
    }

    /// Returns an error unless the command refuses to run and changes nothing.
    pub(crate) fn refuses(&self) -> std::result::Result<(), String> {
        let scratch = self.scratch();
        let folder = scratch.folder(&self.before);
        let result = (self.run)(folder.path());
        if read_folder(folder.path()) != self.before {
            return Err("something was written".into());
        }
        result.err().map(drop).ok_or("success was said".into())
    }

    /// Recreates every state that a crash could leave, and continues from it.
    pub(crate) fn crash_everywhere(&self, limit: usize) -> Tally {
        let scratch = self.scratch();
        self.judge_log(&self.record(&scratch), limit, &scratch, usize::MAX)
    }

    /// Judges the states of a log until `enough` losses are found.
    pub(crate) fn judge_log(
        &self,
        log: &Log,
        limit: usize,
        scratch: &Scratch,
        enough: usize,
    ) -> Tally {
        let mut found = States::default();
        states(log, limit, &mut found);
        let tally = Mutex::new(Tally {
            calls: log.events.len(),
            states: found.all,
            distinct: found.distinct.len(),
            ..Tally::default()
        });
        let sure = surely_there(log);
        let ends_well = match self.judge_files(&sure, scratch) {
            Ok(outcome) if outcome == self.done => Ok(outcome),
            Ok(outcome) => Err(format!("a success that isn't durable: {outcome:?}")),
            Err(loss) => Err(loss),
        };
        let when = "after success, without all that wasn't synced";
        tally.lock().unwrap().count(when, ends_well);
        self.judge_states(&found.distinct, scratch, enough, tally)
    }

    pub(crate) fn judge_states(
        &self,
        states: &[State],
        scratch: &Scratch,
        enough: usize,
        tally: Mutex<Tally>,
    ) -> Tally {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(State { files, when }) =
                        states.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        if tally.lock().unwrap().losses.len() >= enough {
                            break;
                        }
                        let judged = self.judge_files(files, scratch);
                        tally.lock().unwrap().count(when, judged);
                    }
                });
            }
        });
        tally.into_inner().unwrap()
    }

    pub(crate) fn judge_files(&self, files: &Files, scratch: &Scratch) -> Judged {
        self.judge_ground(&Ground {
            files,
            may_need_repair: false,
            scratch,
        })
    }

    /// Judges a state. The verdict depends on its files alone, so the same files are judged once.
    fn judge_ground(&self, ground: &Ground<'_>) -> Judged {
        let mut key = blake3::Hasher::new();
        let mut put = |bytes: &[u8]| {
            key.update(&(bytes.len() as u64).to_be_bytes());
            key.update(bytes);
        };
        put(self.name.as_bytes());
        put(&[u8::from(ground.may_need_repair)]);
        for (name, bytes) in ground.files {
            put(name.as_bytes());
            put(bytes);
        }
        let key = key.finalize();
        let judged = &ground.scratch.judged;
        if let Some(known) = judged.lock().unwrap().get(&key) {
            return known.clone();
        }
        let found = (self.judge)(ground);
        judged.lock().unwrap().insert(key, found.clone());
        found
    }

    /// Makes each call fail in every possible way. Counts the runs as states.
    pub(crate) fn fail_everywhere(&self) -> Tally {
        let scratch = self.scratch();
        let folder = scratch.folder(&self.before);
        let recorder = Arc::new(Recorder::new(folder.path(), None, self.clones));
        let watch = watch(folder.path(), Arc::clone(&recorder) as _);
        (self.run)(folder.path()).unwrap();
        drop(watch);
        let (kinds, reads) = recorder.calls();
        let plans: Vec<Plan> = self.plans(&kinds, reads).collect();
        let tally = Mutex::new(Tally {
            calls: kinds.len() + reads,
            ..Tally::default()
        });
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.fail(*plan, kinds.get(plan.at).copied(), &scratch, &tally);
                    }
                });
            }
        });
        tally.into_inner().unwrap()
    }

    /// Returns everything that can go wrong with each call.
    fn plans(&self, kinds: &[Kind], reads: usize) -> impl Iterator<Item = Plan> {
        // If there are very many reads, only a regular sample of them.
        let reads = (0..reads).step_by(reads.div_ceil(100).max(1));
        let reads = reads.map(|at| Plan {
            reads: true,
            at,
            trouble: Trouble::Fails(EIO),
        });
        let verifies = self.verifies;
        let writes = kinds.iter().enumerate().flat_map(move |(at, kind)| {
            let troubles = match kind {
                Kind::Write { offset, len } => {
                    let torn = tears(*offset, *len).into_iter();
                    let whole = [
                        Trouble::Fails(EIO),
                        Trouble::FailsFrom(ENOSPC),
                        Trouble::Lies,
                    ];
                    torn.map(|at| Trouble::Torn(at, EIO)).chain(whole).collect()
                }
                Kind::Punch | Kind::Clone => {
                    vec![Trouble::Fails(EOPNOTSUPP), Trouble::Fails(EIO)]
                }
                Kind::Create | Kind::SetLen => {
                    vec![Trouble::Fails(EIO), Trouble::FailsFrom(ENOSPC)]
                }
                _ => vec![Trouble::Fails(EIO)],
            };
            troubles.into_iter().map(move |trouble| Plan {
                reads: false,
                at,
                trouble,
            })
        });
        let asked = move |plan: &Plan| verifies || plan.trouble != Trouble::Lies;
        writes.filter(asked).chain(reads)
    }

    fn fail(&self, plan: Plan, kind: Option<Kind>, scratch: &Scratch, tally: &Mutex<Tally>) {
        let folder = scratch.folder(&self.before);
        let recorder = Arc::new(Recorder::new(folder.path(), Some(plan), self.clones));
        let watch = watch(folder.path(), Arc::clone(&recorder) as _);
        let result = (self.run)(folder.path());
        drop(watch);
        let kind = kind.filter(|_| !plan.reads);
        let when = format!("call {} ({kind:?}) {:?}", plan.at, plan.trouble);
        if !recorder.fired() {
            return;
        }
        tally.lock().unwrap().states += 1;
        let live = read_folder(folder.path());
        let left = live.keys().find(|name| is_temporary(name));
        if let (Some(left), false) = (left, kind == Some(Kind::Remove)) {
            let loss = Err(format!("{left} is left"));
            tally.lock().unwrap().count(&when, loss);
        }
        // The state of the running system, and the state that is surely on the disk.
        for (what, files) in [
            ("seen", live),
            ("surely there", surely_there(&recorder.log())),
        ] {
            let lies = plan.trouble == Trouble::Lies;
            if lies && result.is_err() {
                // A device that loses writes can't be prevented from it; noticing the loss is the best that can be
                // done.
                break;
            }
            let judged = self.judge_ground(&Ground {
                files: &files,
                may_need_repair: lies,
                scratch,
            });
            let judged = match (&result, judged) {
                (Ok(()), Ok(outcome)) if outcome != self.done => {
                    Err(format!("success was said, but it is {outcome:?}"))
                }
                (_, judged) => judged,
            };
            let when = format!("{when}, {what}, {:?}", result.as_ref().err());
            tally.lock().unwrap().count(&when, judged);
        }
        // A failed call may be worked around, such as a hole by writing zeros, or an owner that can't be set, but never
        // a sync.
        let needed = matches!(kind, Some(Kind::Sync | Kind::SyncFolder | Kind::Rename));
        if needed && result.is_ok() {
            let loss = Err("success was said".to_owned());
            tally.lock().unwrap().count(&when, loss);
        }
    }
}
