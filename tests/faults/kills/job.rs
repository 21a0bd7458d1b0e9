//! What is run and killed, and what must be true of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use vhdkit::age::Identity;
use vhdkit::files::{OpenOptions, ParentOptions, open_image};
use vhdkit::image::Image as _;

use crate::disk::{TestFolder, program};
use crate::kills::round::State;
use crate::kills::store::Store;

/// A command line in a folder of its own, and what it turns into what.
pub(crate) struct Job {
    /// What sets it apart from others of the same writer.
    pub(crate) name: String,
    /// The files that it begins with.
    pub(crate) seed: TestFolder,
    /// The command that is killed, and that is run again afterwards.
    pub(crate) words: Vec<String>,
    /// The file that it changes or makes.
    pub(crate) file: &'static str,
    /// How that is read.
    pub(crate) reads: Reads,
    /// What it holds before; `None` if there is no such file.
    pub(crate) old: Option<Vec<u8>>,
    /// What it holds afterwards.
    pub(crate) new: Vec<u8>,
    /// How to get to `old` when it was left in between.
    pub(crate) back: Option<Vec<String>>,
    /// It is in between from the beginning.
    pub(crate) begins_between: bool,
    /// The file that keeps the way back.
    pub(crate) undo: Option<&'static str>,
    /// For what has no journal and may be left half done, to be done again: tells what stands.
    pub(crate) half_done: Option<fn(&Job, &Path) -> State>,
    /// Run again when all is done it ends with this exit code.
    pub(crate) again: i32,
    /// What it does to a store, instead of to a file.
    pub(crate) store: Option<Store>,
}

/// How the content of a file is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// As the virtual disk of an image of this format.
    Disk,
    /// As it is.
    Bytes,
}

impl Job {
    pub(crate) fn new(name: impl Into<String>, line: &str, file: &'static str) -> Self {
        Self {
            name: name.into(),
            seed: TestFolder::in_memory(),
            words: words(line),
            file,
            reads: Reads::Disk,
            old: None,
            new: Vec::new(),
            back: None,
            begins_between: false,
            undo: None,
            half_done: None,
            again: 0,
            store: None,
        }
    }

    /// Whether it mends a damaged image, and keeps the bytes it replaces.
    pub(crate) fn repairs(&self) -> bool {
        self.half_done.is_some() && self.reads == Reads::Disk
    }

    /// The command in `folder`.
    pub(crate) fn command(&self, folder: &Path) -> Command {
        command(&self.words, folder)
    }

    /// Copies the files it begins with to a new folder.
    pub(crate) fn lay_out(&self, place: &Path) -> tempfile::TempDir {
        let folder = tempfile::tempdir_in(place).unwrap();
        for (name, path) in files_in(&self.seed.path("")) {
            let to = folder.path().join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(path, to).unwrap();
        }
        folder
    }

    /// What the file in `folder` holds; `None` if there is none, an error if it can't be read.
    pub(crate) fn content(&self, folder: &Path) -> Result<Option<Vec<u8>>, String> {
        let path = folder.join(self.file);
        if !path.exists() {
            return Ok(None);
        }
        match self.reads {
            Reads::Bytes => Ok(Some(fs::read(&path).unwrap())),
            Reads::Disk => read_disk(&path).map(Some),
        }
    }
}

/// The virtual disk of an image. It is opened without a lock: other tests may be starting programs, which inherit
/// locks until they run.
pub(crate) fn read_disk(path: &Path) -> Result<Vec<u8>, String> {
    let raw = path.extension().is_some_and(|e| e == "raw");
    let options = OpenOptions {
        format: raw.then_some(vhdkit::files::FormatChoice::Only(
            vhdkit::files::Format::Raw,
        )),
        no_lock: true,
        parents: ParentOptions {
            no_lock: true,
            allow_raw: true,
            ..ParentOptions::default()
        },
        ..OpenOptions::default()
    };
    let read = || {
        let image = open_image(path, &options)?;
        let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
        image.read_exact_at(&mut bytes, 0)?;
        vhdkit::Result::Ok(bytes)
    };
    read().map_err(|error: vhdkit::Error| error.to_string())
}

pub(crate) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// The command of `words`, run in `folder`.
pub(crate) fn command(words: &[String], folder: &Path) -> Command {
    let mut command = program(&words[0]);
    command.args(&words[1..]).current_dir(folder);
    // Of the stores that are encrypted.
    command.env("VHDKIT_KEY_FILE", &**KEY);
    command
}

/// A file with a key.
static KEY: LazyLock<tempfile::TempPath> = LazyLock::new(|| {
    let key = Identity::random().unwrap().secret_text();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), key.as_bytes()).unwrap();
    file.into_temp_path()
});

/// The paths of all files in a folder and those in it, with their names from there on, in order.
pub(crate) fn files_in(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            let within = files_in(&entry.path()).into_iter();
            files.extend(within.map(|(file, path)| (format!("{name}/{file}"), path)));
        } else {
            files.push((name, entry.path()));
        }
    }
    files.sort();
    files
}
