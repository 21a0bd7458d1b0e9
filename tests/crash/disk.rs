//! Computes every state that a crash could leave, from the log of the operations.
//!
//! A kill leaves the operations so far. After a loss of power, each file has what was synced, and any part of the
//! writes since: each may have happened or not, in any combination, or have changed only the length of the file, or
//! be torn between two sectors. Names are durable once their folder was synced; later changes to them may be lost as
//! well, in any combination.
//!
//! A crash within an epoch, which is the time between two syncs, leaves a state that a crash at its end could leave
//! as well: the one in which all later writes are lost. So only the ends of the epochs are examined.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::recorder::{Event, Files, Id, Log};

const SECTOR: usize = 512;

/// A file: its durable content, and the operations since.
#[derive(Debug, Clone, Default)]
struct File {
    safe: Arc<Vec<u8>>,
    unsynced: Vec<Event>,
}

/// The possible contents of a disk at some moment.
#[derive(Debug, Clone, Default)]
struct Disk {
    files: Vec<File>,
    /// The durable names.
    names: BTreeMap<String, Id>,
    /// The names as programs see them.
    seen: BTreeMap<String, Id>,
    unsynced: Vec<Named>,
}

/// An operation on a name.
#[derive(Debug, Clone)]
enum Named {
    Appears(String, Id),
    Moves(String, String, Id),
    Goes(String),
}

/// The fate of an operation that wasn't synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lost,
    Kept,
    /// Only the length of the file has reached the disk.
    Length,
    /// Its first bytes, up to the end of a sector.
    Front(usize),
    /// All but its first bytes.
    Back(usize),
}

/// Pseudo-random numbers that are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// A state of a folder, and how it came about.
pub(crate) struct State {
    pub(crate) files: Files,
    pub(crate) when: String,
}

/// All distinct states, and how many there were in total.
#[derive(Default)]
pub(crate) struct States {
    pub(crate) distinct: Vec<State>,
    pub(crate) all: usize,
    known: HashSet<blake3::Hash>,
}

/// Files that are first written under another name: leftovers of these are never read.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with(".vhdkit-")
}

/// What an interrupted download keeps: another download to the same file continues with it, and checks it first.
pub(crate) fn is_kept(name: &str) -> bool {
    name.ends_with(".fetched") || name.ends_with(".fetched.log")
}

impl States {
    fn add(&mut self, files: Files, when: impl FnOnce() -> String) {
        self.all += 1;
        let mut hasher = blake3::Hasher::new();
        for (name, bytes) in &files {
            if is_temporary(name) {
                hasher.update(b"something is left");
                continue;
            }
            hasher.update(name.as_bytes());
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(blake3::hash(bytes).as_bytes());
        }
        if self.known.insert(hasher.finalize()) {
            let when = when();
            self.distinct.push(State { files, when });
        }
    }
}

/// Adds every state that a crash could leave to `found`; for an epoch with more than `limit` of them, the most
/// dangerous ones and a sample of the others.
pub(crate) fn states(log: &Log, limit: usize, found: &mut States) {
    let mut disk = Disk::new(&log.before);
    found.add(disk.seen(), || "before the first call".to_owned());
    for (n, event) in log.events.iter().enumerate() {
        let ends = matches!(event, Event::Sync(_) | Event::SyncFolder);
        if ends {
            disk.lose_power(n, limit, found);
        }
        disk.happens(event);
        if !ends {
            found.add(disk.seen(), || format!("killed after call {n}"));
        }
    }
    disk.lose_power(log.events.len(), limit, found);
}

/// Returns the state after the last operation if a loss of power takes everything that wasn't synced.
pub(crate) fn surely_there(log: &Log) -> Files {
    let mut disk = Disk::new(&log.before);
    for event in &log.events {
        disk.happens(event);
    }
    let fates = vec![Fate::Lost; disk.pending().len()];
    disk.with(&fates)
}

impl Disk {
    fn new(files: &Files) -> Self {
        let safe = |bytes: &Arc<Vec<u8>>| File {
            safe: Arc::clone(bytes),
            unsynced: Vec::new(),
        };
        let names: BTreeMap<_, _> = (0..)
            .zip(files.keys())
            .map(|(n, name)| (name.clone(), n))
            .collect();
        Self {
            files: files.values().map(safe).collect(),
            seen: names.clone(),
            names,
            unsynced: Vec::new(),
        }
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Write(id, ..) | Event::Zero(id, _) | Event::SetLen(id, _) => {
                self.files[*id].unsynced.push(event.clone());
            }
            Event::Sync(id) => {
                let file = &mut self.files[*id];
                let mut bytes = file.safe.to_vec();
                for event in file.unsynced.drain(..) {
                    apply(&mut bytes, &event, Fate::Kept);
                }
                file.safe = Arc::new(bytes);
            }
            Event::FailedSync(id) => self.files[*id].unsynced.clear(),
            Event::Create(name, id) => {
                assert_eq!(*id, self.files.len());
                self.files.push(File::default());
                self.names_change(Named::Appears(name.clone(), *id));
            }
            Event::Rename(from, to) => {
                let id = self.seen[from];
                self.names_change(Named::Moves(from.clone(), to.clone(), id));
            }
            Event::Remove(name) => self.names_change(Named::Goes(name.clone())),
            Event::SyncFolder => {
                self.names.clone_from(&self.seen);
                self.unsynced.clear();
            }
        }
    }

    fn names_change(&mut self, change: Named) {
        change.apply(&mut self.seen);
        self.unsynced.push(change);
    }

    /// Returns the state that programs see, and that remains when one is killed.
    fn seen(&self) -> Files {
        let fates = vec![Fate::Kept; self.pending().len()];
        self.with(&fates)
    }

    /// Returns all operations that aren't durable, with the possible fates of each: first those of all files in order,
    /// then those of names.
    fn pending(&self) -> Vec<Vec<Fate>> {
        let mut pending = Vec::new();
        for file in &self.files {
            let mut len = file.safe.len() as u64;
            for event in &file.unsynced {
                let end = end_of(event);
                let grows = end.is_some_and(|end| end > len) && matches!(event, Event::Write(..));
                pending.push(if grows {
                    vec![Fate::Lost, Fate::Kept, Fate::Length]
                } else {
                    vec![Fate::Lost, Fate::Kept]
                });
                len = match event {
                    Event::SetLen(_, to) => *to,
                    _ => len.max(end.unwrap_or(0)),
                };
            }
        }
        let names = self.unsynced.iter().map(|_| vec![Fate::Lost, Fate::Kept]);
        pending.extend(names);
        pending
    }

    /// Returns the folder in which the operations that aren't durable have met these fates.
    fn with(&self, fates: &[Fate]) -> Files {
        let mut fates = fates.iter().copied();
        let mut contents = Vec::new();
        for file in &self.files {
            let mut bytes = Arc::clone(&file.safe);
            for event in &file.unsynced {
                let fate = fates.next().unwrap();
                if fate != Fate::Lost {
                    apply(Arc::make_mut(&mut bytes), event, fate);
                }
            }
            contents.push(bytes);
        }
        let mut names = self.names.clone();
        for change in &self.unsynced {
            if fates.next() == Some(Fate::Kept) {
                change.apply(&mut names);
            }
        }
        let named = names.into_iter();
        named
            .map(|(name, id)| (name, Arc::clone(&contents[id])))
            .collect()
    }

    fn lose_power(&self, n: usize, limit: usize, found: &mut States) {
        let choices = self.pending();
        let mut add = |fates: &[Fate]| {
            found.add(self.with(fates), || {
                format!("power lost before call {n}, of what wasn't synced: {fates:?}")
            });
        };
        let combinations = choices
            .iter()
            .try_fold(1_usize, |product, choices| {
                product.checked_mul(choices.len())
            })
            .filter(|product| *product <= limit);
        if let Some(combinations) = combinations {
            for number in 0..combinations {
                let mut rest = number;
                let fates = choices.iter().map(|choices| {
                    let fate = choices[rest % choices.len()];
                    rest /= choices.len();
                    fate
                });
                add(&fates.collect::<Vec<_>>());
            }
        } else {
            sample(&choices, limit, n as u64, &mut add);
        }
        self.tear(&choices, &mut add);
    }

    /// Tears each write between two sectors, with the writes before and after it done or not.
    fn tear(&self, choices: &[Vec<Fate>], add: &mut impl FnMut(&[Fate])) {
        let events = self.files.iter().flat_map(|file| &file.unsynced);
        for (n, event) in events.enumerate() {
            let Event::Write(_, offset, bytes) = event else {
                continue;
            };
            for at in tears(*offset, bytes.len()) {
                for torn in [Fate::Front(at), Fate::Back(at)] {
                    for rest in [Fate::Kept, Fate::Lost] {
                        let mut fates = vec![Fate::Kept; choices.len()];
                        fates[n] = torn;
                        fates[n + 1..].fill(rest);
                        add(&fates);
                    }
                }
            }
        }
    }
}

/// Returns where a write of `len` bytes may be torn: after its first sector, in the middle, before its last one. A
/// sector is written whole or not at all.
pub(crate) fn tears(offset: u64, len: usize) -> Vec<usize> {
    let first = SECTOR - usize::try_from(offset % SECTOR as u64).unwrap();
    let all: Vec<usize> = (first..len).step_by(SECTOR).collect();
    let (Some(first), Some(last)) = (all.first(), all.last()) else {
        return Vec::new();
    };
    let mut some = vec![*first, all[all.len() / 2], *last];
    some.dedup();
    some
}

/// Chooses none and all, each alone lost or kept, everything up to some point or from there on, and a random choice.
fn sample(choices: &[Vec<Fate>], limit: usize, seed: u64, add: &mut impl FnMut(&[Fate])) {
    let count = choices.len();
    // If there are very many, only a regular sample of them.
    let step = (6 * count).div_ceil(limit).max(1);
    for all in [Fate::Lost, Fate::Kept] {
        add(&vec![all; count]);
    }
    for n in (0..count).step_by(step) {
        for (all, fate) in [
            (Fate::Lost, Fate::Kept),
            (Fate::Kept, Fate::Lost),
            (Fate::Kept, Fate::Length),
        ] {
            let mut fates = vec![all; count];
            if choices[n].contains(&fate) {
                fates[n] = fate;
                add(&fates);
            }
        }
        for (before, after) in [(Fate::Kept, Fate::Lost), (Fate::Lost, Fate::Kept)] {
            let mut fates = vec![before; count];
            fates[n..].fill(after);
            add(&fates);
        }
    }
    let mut random = Random(seed);
    for _ in 0..limit / 2 {
        let one = |choices: &Vec<Fate>| {
            choices[usize::try_from(random.next() % choices.len() as u64).unwrap()]
        };
        add(&choices.iter().map(one).collect::<Vec<_>>());
    }
}

impl Named {
    fn apply(&self, names: &mut BTreeMap<String, Id>) {
        match self {
            Self::Appears(name, id) => {
                names.insert(name.clone(), *id);
            }
            Self::Moves(from, to, id) => {
                names.remove(from);
                names.insert(to.clone(), *id);
            }
            Self::Goes(name) => {
                names.remove(name);
            }
        }
    }
}

/// Returns the end of a write.
fn end_of(event: &Event) -> Option<u64> {
    match event {
        Event::Write(_, offset, bytes) => Some(offset + bytes.len() as u64),
        _ => None,
    }
}

fn apply(file: &mut Vec<u8>, event: &Event, fate: Fate) {
    let index = |offset: u64| usize::try_from(offset).unwrap();
    match event {
        Event::Write(_, offset, bytes) => {
            let start = index(*offset);
            let part = match fate {
                Fate::Length => 0..0,
                Fate::Front(at) => 0..at,
                Fate::Back(at) => at..bytes.len(),
                Fate::Kept | Fate::Lost => 0..bytes.len(),
            };
            let end = match fate {
                Fate::Front(_) => start + part.end,
                _ => start + bytes.len(),
            };
            if file.len() < end {
                file.resize(end, 0);
            }
            file[start + part.start..start + part.end].copy_from_slice(&bytes[part]);
        }
        Event::Zero(_, range) => {
            let end = index(range.end).min(file.len());
            file[index(range.start).min(end)..end].fill(0);
        }
        Event::SetLen(_, len) => file.resize(index(*len), 0),
        _ => {}
    }
}
