//! A folder for one case, the programs run in it, and the table of all results.
#![allow(dead_code, reason = "each module uses some")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::disk::{TestFolder, content, program};

/// A problem that somebody reported, and the behaviour required now.
pub(crate) struct Case {
    /// The action, in a few words.
    pub(crate) name: &'static str,
    /// The former result.
    pub(crate) before: &'static str,
    /// The required result.
    pub(crate) now: &'static str,
    /// The case itself; panics if the result differs.
    pub(crate) run: fn(&Lab),
}

/// Runs all cases, prints them as a table, and fails if a result differs from its row.
pub(crate) fn tell(title: &str, cases: &[Case]) {
    tell_within(&std::env::temp_dir(), title, cases);
}

/// The same in folders within another.
pub(crate) fn tell_within(folder: &Path, title: &str, cases: &[Case]) {
    let mut failed = Vec::new();
    println!("\n{title}\n");
    println!("| case | before | now | holds |\n| --- | --- | --- | --- |");
    for case in cases {
        let lab = Lab::within(folder);
        let held = catch_unwind(AssertUnwindSafe(|| (case.run)(&lab))).is_ok();
        let mark = if held { "yes" } else { "NO" };
        println!(
            "| {} | {} | {} | {mark} |",
            case.name, case.before, case.now
        );
        if !held {
            failed.push(case.name);
        }
    }
    println!(
        "\n{} cases, {} hold",
        cases.len(),
        cases.len() - failed.len()
    );
    assert!(failed.is_empty(), "{title}: {failed:?}");
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Fails unless the command ended with this exit code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        self
    }

    /// Fails unless stdout or stderr contains `text`.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        let said = self.out.contains(text) || self.err.contains(text);
        assert!(said, "{text:?} is missing in:\n{}\n{}", self.out, self.err);
        self
    }

    /// Fails if stdout or stderr contains `text`.
    #[track_caller]
    pub(crate) fn omits(self, text: &str) -> Self {
        let said = self.out.contains(text) || self.err.contains(text);
        assert!(!said, "{text:?} is in:\n{}\n{}", self.out, self.err);
        self
    }

    /// Returns the commands suggested by hints: the text after `word ` in stderr and stdout, up to the end of its line.
    pub(crate) fn advice(&self, word: &str) -> Vec<String> {
        let lead = format!("{word} ");
        let lines = self.out.lines().chain(self.err.lines());
        lines
            .filter_map(|line| line.find(&lead).map(|at| line[at..].to_owned()))
            .collect()
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            // Shells report a death by signal in the same way.
            code: output.status.code().unwrap_or(128),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A folder for one case.
pub(crate) struct Lab(TestFolder);

impl Lab {
    pub(crate) fn new() -> Self {
        Self(TestFolder::new())
    }

    /// Creates a folder for one case within another folder.
    pub(crate) fn within(folder: &Path) -> Self {
        Self(TestFolder::within(folder))
    }

    /// Returns the folder itself.
    pub(crate) fn folder(&self) -> PathBuf {
        self.0.path(".")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// Creates a file of these bytes; zeros become holes.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        self.0.file(name, bytes)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        content(self.path(name))
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// Returns the names of all files in the folder.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.names()
    }

    /// Returns a command in the folder that hasn't been started.
    pub(crate) fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = program(name);
        command.args(args).current_dir(self.folder());
        command.env_remove("VHDKIT_STORE");
        command
    }

    /// Runs `line` in a shell, in the folder, with our programs in its path.
    pub(crate) fn shell(&self, line: &str) -> Ended {
        let ours = Path::new(env!("CARGO_BIN_EXE_vhd")).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = program("bash");
        command
            .args(["-c", line])
            .current_dir(self.folder())
            .env("PATH", format!("{}:{path}", ours.display()))
            .env_remove("VHDKIT_STORE");
        command.output().unwrap().into()
    }
}
