//! A base, its target and the diff between them, in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::disk::{Random, assert_same, memory, program, write_sparse};
use crate::kill::{NO_LOG, injected};

const MIB: usize = 1 << 20;

/// Long enough for a test to do something meanwhile; nothing waits that long unless something is wrong.
const PAUSE: Duration = Duration::from_secs(2);

pub(crate) struct Scene {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) base: Vec<u8>,
    pub(crate) target: Vec<u8>,
}

impl Scene {
    /// Raw images of 8 MiB with 2 MiB changed, in memory.
    pub(crate) fn new() -> Self {
        Self::at(&memory())
    }

    pub(crate) fn at(place: &Path) -> Self {
        let mut random = Random::new(1);
        let base = random.bytes(8 * MIB);
        let mut target = base.clone();
        target[MIB..3 * MIB].copy_from_slice(&random.bytes(2 * MIB));
        target[5 * MIB..6 * MIB].fill(0);
        Self::of(place, base, target)
    }

    pub(crate) fn of(place: &Path, base: Vec<u8>, target: Vec<u8>) -> Self {
        let folder = tempfile::tempdir_in(place).unwrap();
        write_sparse(&folder.path().join("base.raw"), &base);
        write_sparse(&folder.path().join("target.raw"), &target);
        let scene = Self {
            folder,
            base,
            target,
        };
        scene.ends(0, "vhd-diff base.raw target.raw -o diff -q");
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = program(words.next().unwrap());
        command.args(words).current_dir(self.folder.path());
        command
    }

    /// Runs a command that must end with `code`; gives what it said.
    #[track_caller]
    pub(crate) fn ends(&self, code: i32, line: &str) -> String {
        ended(&self.command(line).output().unwrap(), code)
    }

    /// The content digest of an image.
    #[track_caller]
    pub(crate) fn hash(&self, name: &str) -> String {
        let output = self.command(&format!("vhd hash {name}")).output().unwrap();
        ended(&output, 0);
        String::from_utf8_lossy(&output.stdout)[..64].to_owned()
    }

    #[track_caller]
    pub(crate) fn holds(&self, name: &str, bytes: &[u8]) {
        assert_same(&fs::read(self.path(name)).unwrap(), bytes, name);
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Only what was there from the beginning is there.
    #[track_caller]
    pub(crate) fn no_trace(&self) {
        assert_eq!(self.names(), ["base.raw", "diff", "target.raw"]);
    }

    /// Starts a command that pauses when it comes to the call `point`, such as `fsync:when=2`, on `file` if that is
    /// given, and goes on by itself after a while.
    pub(crate) fn paused(&self, line: &str, point: &str, file: Option<&str>) -> Child {
        let (call, when) = point.split_once(':').unwrap();
        let what = format!("{call}:delay_enter={}:{when}", PAUSE.as_micros());
        let files: Vec<_> = file.iter().map(|name| self.path(name)).collect();
        let mut paused = injected(&self.command(line), &what, &files, NO_LOG);
        paused.stdout(Stdio::piped()).stderr(Stdio::piped());
        paused.spawn().unwrap()
    }

    /// Waits until `there` is true of the names in the folder.
    pub(crate) fn wait(&self, there: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        while !self.names().iter().any(|name| there(name)) {
            assert!(
                begun.elapsed() < PAUSE * 10,
                "it never came: {:?}",
                self.names()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[track_caller]
pub(crate) fn ended(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(
        !(2..=100).contains(&code) || said.contains("error: "),
        "{said}"
    );
    said
}
