//! A symbolic link that is turned while a command is at work: what was opened by it is changed, or made anew, and nothing
//! else is.
//!
//! The link is turned before each call of the command in turn, and left so or turned back before the next one.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use vhdkit::files::Format;
use vhdkit::storage::fault::{Answer, Call, Observer, watch};

use crate::disk::is_temporary;
use crate::explore::{Outcome, Scratch, Writer};
use crate::ground::apply_options;
use crate::recorder::{Files, Unsynced, read_folder};
use crate::writers::{self, interrupted_pair};

/// Moments that are tried of each command at most.
const MOMENTS: usize = 12;

/// The folders that the link leads to, first and turned.
const FAR: &str = "far.folder";
const OTHER: &str = "other.folder";

/// Turns a link at one call, and back at another.
struct Turns {
    link: PathBuf,
    at: usize,
    back: usize,
    calls: AtomicUsize,
    turning: Mutex<()>,
    unsynced: Unsynced,
}

impl Turns {
    fn point_to(&self, folder: &str) {
        let _alone = self.turning.lock().unwrap();
        let new = self.link.with_extension("turning");
        let name = self.link.file_name().unwrap();
        symlink(Path::new(folder).join(name), &new).unwrap();
        fs::rename(new, &self.link).unwrap();
    }
}

impl Observer for Turns {
    fn before(&self, path: &Path, call: &Call<'_>) -> Answer {
        let n = self.calls.fetch_add(1, Ordering::SeqCst);
        if n == self.at {
            self.point_to(OTHER);
        } else if n == self.back {
            self.point_to(FAR);
        }
        self.unsynced.before(path, call)
    }

    fn after(&self, path: &Path, call: &Call<'_>) {
        self.unsynced.after(path, call);
    }
}

/// What there is after the link was turned.
struct Left {
    /// Calls that were made.
    calls: usize,
    /// What the command sees if it is the file that was opened.
    far: Files,
    /// What is in the folder of the other file.
    other: Files,
}

/// Runs `writer`, whose file `name` is a link to such a file in one folder; turned, it leads to the one in the other.
fn run(writer: &Writer, name: &str, other: &Files, scratch: &Scratch, turns: [usize; 2]) -> Left {
    let folder = scratch.folder(&Files::new());
    let at = folder.path();
    for (place, files) in [("", &writer.before), (FAR, &writer.before), (OTHER, other)] {
        fs::create_dir_all(at.join(place)).unwrap();
        for (file, bytes) in files {
            // What belongs to an image lies beside it.
            let belongs = file
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            if belongs != place.is_empty() {
                fs::write(at.join(place).join(file), &**bytes).unwrap();
            }
        }
    }
    let observer = Arc::new(Turns {
        link: at.join(name),
        at: turns[0],
        back: turns[1],
        calls: AtomicUsize::new(0),
        turning: Mutex::default(),
        unsynced: Unsynced {
            clones: writer.clones,
        },
    });
    observer.point_to(FAR);
    let watching = watch(at, Arc::clone(&observer) as _);
    // It may well be noticed.
    let _ = (writer.run)(at);
    drop(watching);
    let mut far = read_folder(&at.join(FAR));
    let there = fs::read_dir(at).unwrap().map(|entry| entry.unwrap());
    for entry in there.filter(|entry| entry.file_type().unwrap().is_file()) {
        let bytes = fs::read(entry.path()).unwrap();
        far.insert(entry.file_name().into_string().unwrap(), Arc::new(bytes));
    }
    Left {
        calls: observer.calls.load(Ordering::SeqCst),
        far,
        other: read_folder(&at.join(OTHER)),
    }
}

/// Turns the link at every call. `is_sound` says whether the folder of the other file is as it may be.
fn turn(
    writer: &Writer,
    name: &str,
    other: &Files,
    is_sound: &dyn Fn(&Files) -> Result<(), String>,
) -> (usize, Vec<String>) {
    let scratch = writer.scratch();
    let never = usize::MAX;
    let calls = run(writer, name, other, &scratch, [never, never]).calls;
    let (mut runs, mut losses, mut judged) = (0, Vec::new(), BTreeSet::new());
    for at in (0..calls).step_by(calls.div_ceil(MOMENTS).max(1)) {
        for back in [never, at + 1, at + 2] {
            let left = run(writer, name, other, &scratch, [at, back]);
            runs += 1;
            let mut lost = |what: &str, why: String| {
                losses.push(format!(
                    "{}, {name} turned at call {at} of {calls}, back at {back}: {what}: {why}",
                    writer.name
                ));
            };
            if left.other != *other
                && let Err(why) = is_sound(&left.other)
            {
                lost("the other file", why);
            }
            // Most are the same.
            if judged.insert(left.far.clone())
                && let Err(why) = writer.judge_left(&left.far, &scratch)
            {
                lost("the file that was opened", why);
            }
        }
    }
    (runs, losses)
}

fn without_temporary(files: &Files) -> Files {
    let kept = files.iter().filter(|(name, _)| !is_temporary(name));
    kept.map(|(name, bytes)| (name.clone(), Arc::clone(bytes)))
        .collect()
}

#[test]
fn a_link_that_is_turned_leads_nobody_astray() {
    let precious = Arc::new(b"precious, and no disk\n".to_vec());
    let (mut runs, mut losses, mut commands) = (0, Vec::new(), 0);
    for writer in writers::all()
        .iter()
        .filter(|writer| !writer.name.starts_with("store"))
    {
        commands += 1;
        // A child that can't be found, since its link leads elsewhere, isn't given its new parent.
        let heirs = ["first", "second"];
        let is_link = |name: &&String| !name.contains('.') && !heirs.contains(&name.as_str());
        for name in writer.before.keys().filter(is_link) {
            // A file that is made anew takes the place of what somebody named.
            let is_made_anew = name == "new" || (name == "diff" && writer.name.starts_with("diff"));
            let other = Files::from([(name.clone(), Arc::clone(&precious))]);
            let is_sound = |left: &Files| {
                let mut files = writer.before.clone();
                files.extend(without_temporary(left));
                match is_made_anew {
                    true => writer.judge_left(&files, &writer.scratch()),
                    false if without_temporary(left) == other => Ok(()),
                    false => Err(format!("{:?}", left.keys())),
                }
            };
            let (ran, lost) = turn(writer, name, &other, &is_sound);
            runs += ran;
            losses.extend(lost);
        }
    }
    println!(
        "{commands} commands, {runs} turns of a link, {} losses",
        losses.len()
    );
    assert!(losses.is_empty(), "{} losses: {losses:#?}", losses.len());
    assert!(runs > 1000, "{runs}");
}

/// Both images were left between two points in time: neither is taken back by the journal of the other.
#[test]
fn a_link_turned_to_another_interrupted_image_leads_nobody_astray() {
    for format in [Format::Raw, Format::Dynamic] {
        for back in [false, true] {
            let [writer, other] = interrupted_pair(format, apply_options(), back);
            let mut beside = other.before.clone();
            beside.remove("diff");
            let is_sound = |left: &Files| {
                let mut files = other.before.clone();
                files.remove("base.undo-journal");
                files.extend(without_temporary(left));
                other.judge_left(&files, &other.scratch())
            };
            let (runs, losses) = turn(&writer, "base", &beside, &is_sound);
            println!("{}: {runs} turns", writer.name);
            assert!(losses.is_empty(), "{} losses: {losses:#?}", losses.len());
        }
    }
}

impl Writer {
    fn judge_left(&self, files: &Files, scratch: &Scratch) -> Result<(), String> {
        match self.judge_files(files, scratch)? {
            Outcome::Old | Outcome::New | Outcome::Between => Ok(()),
        }
    }
}
