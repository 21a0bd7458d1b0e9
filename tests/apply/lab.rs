//! A folder to work in, disks that change in awkward places, and the programs under test.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use vhdkit::files::{
    Format, NewImage, NewImageOptions, OpenImage, OpenOptions, journal_path, open_image,
};
use vhdkit::image::{CopyOptions, Image as _, RawImage, copy};
use vhdkit::parallel::{Work, Workers};
use vhdkit::progress::Silent;
use vhdkit::storage::{Memory, Overwrite};

pub(crate) const MIB: usize = 1 << 20;
/// Two whole windows and a bit: the last page ends inside a window, a block and a digest window.
pub(crate) const SIZE: usize = 9 * MIB + 512 * 3;
pub(crate) const FORMATS: [Format; 3] = [Format::Raw, Format::Fixed, Format::Dynamic];

const VHD: &str = env!("CARGO_BIN_EXE_vhd");
const VHD_DIFF: &str = env!("CARGO_BIN_EXE_vhd-diff");
const VHD_APPLY: &str = env!("CARGO_BIN_EXE_vhd-apply");

pub(crate) struct Lab(TempDir);

impl Lab {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Creates a lab in a folder of a particular file system.
    pub(crate) fn at(folder: &Path) -> Self {
        Self(tempfile::tempdir_in(folder).unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Creates an image that holds `bytes`.
    pub(crate) fn make(&self, name: &str, format: Format, bytes: &[u8]) {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        let options = NewImageOptions {
            format,
            virtual_size: bytes.len() as u64,
            block_size: None,
            identity: None,
            parent: None,
            overwrite: Overwrite::No,
            made_from: vhdkit::storage::Audience::default(),
            dense: false,
        };
        let mut image = NewImage::create(&path, &options).unwrap();
        let source = RawImage::open(Memory::new(bytes.to_vec())).unwrap();
        let workers = Workers::new(NonZeroUsize::new(1)).unwrap();
        let options = CopyOptions {
            work: Work::new(&workers, &Silent),
            digest: false,
        };
        copy(&source, image.image_mut(), options).unwrap();
        image.publish().unwrap();
    }

    /// Creates `base`, `target` and the diff between them, without any stamps or other traces.
    pub(crate) fn pair(&self, format: Format, base: &[u8], target: &[u8]) {
        self.make("base", format, base);
        self.make("target", format, target);
        self.diff("base", "target", "diff", &[]);
    }

    pub(crate) fn diff(&self, base: &str, target: &str, diff: &str, more: &[&str]) {
        let args = [base, target, "-o", diff, "--force", "-q"];
        self.good("vhd-diff", &[&args, more].concat());
    }

    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let program = match program {
            "vhd" => VHD,
            "vhd-diff" => VHD_DIFF,
            "vhd-apply" => VHD_APPLY,
            other => other,
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a program that must exit with `code`, and returns its stderr.
    pub(crate) fn ends(&self, code: i32, program: &str, args: &[&str]) -> String {
        let output = self.command(program, args).output().unwrap();
        check(code, &output, args);
        stderr(&output)
    }

    /// Runs a program that must succeed, and returns its stdout.
    pub(crate) fn good(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program, args).output().unwrap();
        check(0, &output, args);
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn apply(&self, args: &[&str]) -> String {
        self.ends(0, "vhd-apply", args)
    }

    pub(crate) fn json(&self, program: &str, args: &[&str]) -> serde_json::Value {
        let value: serde_json::Value = serde_json::from_str(&self.good(program, args)).unwrap();
        assert_eq!(value["schema_version"], 3, "{args:?}");
        value
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        // Zeros become holes, which saves disk writes.
        let file = fs::File::create(self.path(name)).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        for (n, piece) in bytes.chunks(4096).enumerate() {
            if piece.iter().any(|byte| *byte != 0) {
                file.write_all_at(piece, 4096 * n as u64).unwrap();
            }
        }
    }

    pub(crate) fn copy(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
    }

    pub(crate) fn open(&self, name: &str) -> OpenImage {
        open_image(self.path(name), &OpenOptions::default()).unwrap()
    }

    /// Returns the virtual disk of a file, which must be free of findings.
    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        let image = self.open(name);
        assert!(image.warnings().is_empty(), "{:?}", image.warnings());
        let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
        image.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    pub(crate) fn holds(&self, name: &str, bytes: &[u8]) {
        same(&self.content(name), bytes, name);
    }

    pub(crate) fn journal(&self, name: &str) -> PathBuf {
        journal_path(&self.path(name))
    }

    /// Returns all files, including hidden ones, with their content.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let names = fs::read_dir(self.0.path()).unwrap();
        let paths = names.map(|e| e.unwrap().path()).filter(|p| p.is_file());
        paths
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    }

    /// Returns the names of all files.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = names
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Runs a program that must exit with `code` and change nothing at all; returns its stderr.
    pub(crate) fn refused(&self, code: i32, program: &str, args: &[&str]) -> String {
        let (before, stamps) = (self.files(), self.stamps());
        let said = self.ends(code, program, args);
        assert_eq!(self.stamps(), stamps, "{args:?} wrote something");
        assert!(self.files() == before, "{args:?} changed the folder");
        said
    }

    /// Returns when each file was last modified.
    pub(crate) fn stamps(&self) -> Vec<(PathBuf, std::time::SystemTime)> {
        let entries = fs::read_dir(self.0.path()).unwrap().map(Result::unwrap);
        let files = entries.filter(|entry| entry.path().is_file());
        let mut stamps: Vec<_> = files
            .map(|entry| (entry.path(), entry.metadata().unwrap().modified().unwrap()))
            .collect();
        stamps.sort();
        stamps
    }
}

fn check(code: i32, output: &Output, args: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(
        code < 2 || said.contains("error: "),
        "{args:?} says nothing: {said}"
    );
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts equality without printing megabytes on failure.
#[track_caller]
pub(crate) fn same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let first = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(first, None, "{what}: first difference");
}

/// Returns bytes that differ everywhere and are never zero.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0] | 1
        })
        .collect()
}

/// Returns a disk with data around every MiB, holes in between, one MiB of data, and a larger hole.
pub(crate) fn monday() -> Vec<u8> {
    const PIECE: usize = 16 << 10;
    let mut disk = vec![0; SIZE];
    for (n, start) in (0..SIZE).step_by(MIB).enumerate() {
        let data = start.saturating_sub(PIECE)..(start + PIECE).min(SIZE);
        let bytes = noise(n as u64, data.len());
        disk[data].copy_from_slice(&bytes);
    }
    disk[4 * MIB..5 * MIB].copy_from_slice(&noise(20, MIB));
    disk[6 * MIB - PIECE..7 * MIB].fill(0);
    disk
}

/// Returns the same disk at a later time, with `size` bytes and changes at every kind of boundary.
pub(crate) fn later(disk: &[u8], size: usize, seed: u64) -> Vec<u8> {
    let mut disk = disk.to_vec();
    let old = disk.len();
    disk.resize(size, 0);
    let starts = [
        0,
        MIB - 512,
        MIB + 4096,
        2 * MIB,
        4 * MIB - 512,
        4 * MIB,
        6 * MIB + 512,
        8 * MIB - 512,
        8 * MIB,
        old - 512,
        size - 512,
    ];
    for (n, start) in starts.into_iter().enumerate() {
        if start < size {
            let data = noise(seed + n as u64, 512);
            disk[start..start + 512].copy_from_slice(&data);
        }
    }
    for clear in [512..1024, 3 * MIB..4 * MIB - 512, 5 * MIB - 512..5 * MIB] {
        if clear.end <= size {
            disk[clear].fill(0);
        }
    }
    disk
}
