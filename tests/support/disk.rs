//! Test folders, made-up disks and commands, for every test that runs the real binaries.
//!
//! Used by a test with `#[path = "support/disk.rs"] mod disk;`.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test helpers, of which each test uses some"
)]

use std::ffi::OsStr;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A temporary folder, removed when the test ends.
pub(crate) struct TestFolder(tempfile::TempDir);

impl TestFolder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Creates a temporary folder within another folder.
    pub(crate) fn within(folder: &Path) -> Self {
        Self(tempfile::tempdir_in(folder).unwrap())
    }

    /// Creates a folder in memory if possible, for many runs whose syncs needn't reach a device.
    pub(crate) fn in_memory() -> Self {
        Self(tempfile::tempdir_in(memory()).unwrap())
    }

    /// Returns the path of `name` within the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Creates the file `name` with `bytes`; zeros become holes.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        write_sparse(&path, bytes);
        path
    }

    /// Copies a file into the folder as `name`.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::copy(from, &path).unwrap();
        path
    }

    /// Returns the names of the files in the folder in order, which shows what a command left there.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Returns a folder in memory, or else the temporary folder.
pub(crate) fn memory() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    if shared.is_dir() {
        shared
    } else {
        std::env::temp_dir()
    }
}

/// Writes `bytes` to a new file; zeros in whole 4 KiB pieces become holes.
pub(crate) fn write_sparse(path: &Path, bytes: &[u8]) {
    const PIECE: usize = 4096;
    let mut file = fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (n, piece) in bytes.chunks(PIECE).enumerate() {
        if *piece != [0; PIECE][..piece.len()] {
            file.seek(SeekFrom::Start((n * PIECE) as u64)).unwrap();
            file.write_all(piece).unwrap();
        }
    }
}

/// Returns the bytes of a file.
pub(crate) fn content(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Fails with the offset of the first difference; `what` names the bytes.
pub(crate) fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    if found == expected {
        return;
    }
    let at = found.iter().zip(expected).position(|(a, b)| a != b);
    panic!(
        "{what}: {} bytes found, {} expected, first difference at {:?}",
        found.len(),
        expected.len(),
        at.unwrap_or(found.len().min(expected.len()))
    );
}

/// Pseudo-random numbers that are the same each time (`SplitMix64`).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number less than `end`, which isn't zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend(self.next().to_be_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// Returns a disk of `size` bytes with runs of random data, zeros, one repeated byte, and copies of earlier runs; the
/// first and the last page hold data.
pub(crate) fn disk(seed: u64, size: usize) -> Vec<u8> {
    const LONGEST: usize = 300 << 10;
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(size + LONGEST);
    while bytes.len() < size {
        let len = (1 + random.below(LONGEST / 512)) * 512;
        match random.below(8) {
            0..3 => bytes.extend(random.bytes(len)),
            3..6 => bytes.resize(bytes.len() + len, 0),
            6 => bytes.resize(bytes.len() + len, 0xA5),
            _ => {
                let from = random.below(bytes.len() / 512 + 1) * 512;
                let end = (from + len).min(bytes.len());
                bytes.extend_from_within(from..end);
            }
        }
    }
    bytes.truncate(size);
    if let Some(first) = bytes.first_mut() {
        *first |= 1;
    }
    if let Some(last) = bytes.last_mut() {
        *last |= 1;
    }
    bytes
}

/// Returns a used disk some time later: pages written here and there, a run cleared, a run moved.
pub(crate) fn changed(seed: u64, disk: &[u8]) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = disk.to_vec();
    let pages = bytes.len() / 512;
    for _ in 0..(pages / 200).clamp(1, 300) {
        let at = random.below(pages) * 512;
        let page = random.bytes(512);
        bytes[at..at + 512].copy_from_slice(&page);
    }
    for clear in [true, false] {
        let start = random.below(pages) * 512;
        let end = (start + 512 * (1 + random.below(pages / 10 + 1))).min(bytes.len());
        if clear {
            bytes[start..end].fill(0);
        } else {
            bytes.copy_within(start..end, 0);
        }
    }
    bytes
}

/// Builds a command from a program and arguments of any string or path type.
macro_rules! command {
    ($program:expr $(, $argument:expr)* $(,)?) => {{
        let mut command = $crate::disk::program($program);
        $(command.arg($argument);)*
        command
    }};
}
pub(crate) use command;

/// Finds our binaries by name, `7z` and `python` as set up by the test script, and anything else in the system.
pub(crate) fn program(name: &str) -> Command {
    let path = match name {
        "vhd" => env!("CARGO_BIN_EXE_vhd").into(),
        "vhd-diff" => env!("CARGO_BIN_EXE_vhd-diff").into(),
        "vhd-apply" => env!("CARGO_BIN_EXE_vhd-apply").into(),
        "python" => python(),
        "7z" => find("7zz")
            .or_else(|| find("7z"))
            .unwrap_or_else(|| missing("7z")),
        _ => find(name).unwrap_or_else(|| missing(name)),
    };
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).env("LC_ALL", "C");
    command
}

fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/python/bin/python");
    if path.exists() {
        path
    } else {
        missing("the Python environment")
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from); // seldom in a user's PATH
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

fn missing<T>(name: &str) -> T {
    panic!("{name} is missing: run tests/run once, which installs what the tests need");
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    run_to(command, 0)
}

/// Runs a command that must exit with `code`.
pub(crate) fn run_to(command: &mut Command, code: i32) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", line_of(command)));
    assert!(
        output.status.code() == Some(code),
        "{}\nended with {}, expected exit code {code}\nstdout ({} bytes): {}\nstderr: {}",
        line_of(command),
        output.status,
        output.stdout.len(),
        start_of(&output.stdout),
        start_of(&output.stderr),
    );
    output
}

/// Runs `first | second`, both of which must succeed. Returns the output of the second.
pub(crate) fn pipe(first: &mut Command, second: &mut Command) -> Output {
    let mut running = first
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}", line_of(first)));
    let output = run(second.stdin(running.stdout.take().unwrap()));
    let ended = running.wait_with_output().unwrap();
    assert!(
        ended.status.success(),
        "{}\nended with {}\nstderr: {}",
        line_of(first),
        ended.status,
        start_of(&ended.stderr)
    );
    output
}

/// Returns the command as one would type it.
fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

fn start_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned()
}
