//! A store in a folder of its own, and the images that it was made of.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::disk::{TestFolder, assert_same, content, program, run, run_to};

/// A folder with a store.
pub(crate) struct Lab(pub(crate) TestFolder);

impl Lab {
    /// A folder with a store of version 1.
    pub(crate) fn new() -> Self {
        let lab = Self::empty();
        lab.run(
            "vhd",
            &["snapshot", "init", "--store-version", "1", "store", "-q"],
        );
        lab
    }

    /// A folder without a store.
    pub(crate) fn empty() -> Self {
        Self(TestFolder::new())
    }

    /// A folder with a store of the newest version.
    pub(crate) fn packed() -> Self {
        let lab = Self::empty();
        lab.run("vhd", &["snapshot", "init", "store", "-q"]);
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// A command in the folder, with the store in the environment.
    pub(crate) fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = program(name);
        command
            .args(args)
            .current_dir(self.path("."))
            .env("VHDKIT_STORE", self.path("store"));
        command
    }

    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Output {
        run(&mut self.command(program, args))
    }

    /// A line for the shell.
    pub(crate) fn run_shell(&self, line: &str) -> Output {
        run(Command::new("sh")
            .args(["-c", line])
            .current_dir(self.path(".")))
    }

    /// `vhd snapshot` with `args`, which must end with `code`. Returns stdout and stderr as one text.
    pub(crate) fn ends(&self, code: i32, args: &[&str]) -> String {
        let output = run_to(self.command("vhd", &["snapshot"]).args(args), code);
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    }

    pub(crate) fn good(&self, args: &[&str]) -> String {
        self.ends(0, args)
    }

    /// Adds a snapshot `name` of the image `name` to the disk `web`.
    pub(crate) fn add(&self, name: &str, image: &str) -> String {
        self.good(&["create", "--disk", "web", "--name", name, image])
    }

    /// An image of these bytes in this format; its name.
    pub(crate) fn image(&self, name: &str, bytes: &[u8], format: &str) -> String {
        let raw = format!("{name}.raw");
        self.0.file(&raw, bytes);
        if format == "raw" {
            return raw;
        }
        let vhd = format!("{name}.vhd");
        let _ = std::fs::remove_file(self.path(&vhd));
        self.run("vhd", &["convert", &raw, &vhd, "-O", format, "-q"]);
        vhd
    }

    /// Restores `name` and compares it with these bytes.
    pub(crate) fn assert_restores(&self, name: &str, bytes: &[u8]) {
        self.good(&["restore", name, "-o", "restored", "--force"]);
        assert_same(&content(self.path("restored")), bytes, name);
    }

    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = self.good(&[args, &["--json", "-q"]].concat());
        let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
        // What is another in each run.
        for member in ["started", "seconds", "bytes_read", "bytes_written"] {
            document.as_object_mut().unwrap().remove(member);
        }
        document
    }

    /// The file of the disk `web` whose name ends so.
    pub(crate) fn file(&self, ending: &str) -> PathBuf {
        let mut files: Vec<_> = self.files();
        files.retain(|file| file.ends_with(ending));
        assert_eq!(files.len(), 1, "{ending}: {files:?}");
        self.path("store/web").join(&files[0])
    }

    /// The names of the files of the disk `web`, in order.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path("store/web"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Flips a bit of a file.
pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = content(path);
    bytes[at] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

/// Whether a file's name has this extension.
pub(crate) fn ends(file: &str, extension: &str) -> bool {
    Path::new(file)
        .extension()
        .is_some_and(|found| found == extension)
}
