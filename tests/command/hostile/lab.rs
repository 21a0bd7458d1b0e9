//! An intact store, copies of it to tamper with, and the requirements on every command that uses them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::disk::{TestFolder, changed, disk, program};

/// The most memory in KiB that a command may use. With many processors, each needs some.
const MOST_MEMORY: u64 = 512 << 10;

/// A store with the snapshots a, b and c of the disk w, and their contents.
pub(crate) struct Original {
    pub(crate) folder: TestFolder,
    /// Its version: in one of version 2, the base is packed.
    version: u32,
    disks: [Vec<u8>; 3],
    /// The number of commands run on copies of it.
    runs: AtomicUsize,
    /// The highest memory use of any of them in KiB, and the longest time in milliseconds.
    memory: AtomicU64,
    longest: AtomicU64,
}

impl Original {
    /// Runs `test` on a store of each version.
    pub(crate) fn each_version(test: impl Fn(&Self)) {
        for version in [1, 2] {
            test(&Self::new(version));
        }
    }

    pub(crate) fn new(version: u32) -> Self {
        let folder = TestFolder::in_memory();
        let a = disk(1, 1 << 20);
        let b = changed(2, &a);
        let c = changed(3, &b);
        let mut init = program("vhd");
        let number = version.to_string();
        init.args(["snapshot", "init", "-q", "--store-version", &number, "S"])
            .current_dir(folder.path("."));
        assert!(init.status().unwrap().success());
        for (name, bytes) in [("a", &a), ("b", &b), ("c", &c)] {
            folder.file(&format!("{name}.raw"), bytes);
            let mut command = program("vhd");
            command.args([
                "snapshot", "create", "-q", "--store", "S", "--disk", "w", "--name", name,
            ]);
            let made = command
                .arg(format!("{name}.raw"))
                .current_dir(folder.path("."))
                .status();
            assert!(made.unwrap().success());
        }
        Self {
            folder,
            version,
            disks: [a, b, c],
            runs: AtomicUsize::default(),
            memory: AtomicU64::default(),
            longest: AtomicU64::default(),
        }
    }

    /// Runs `case` for each of `cases`, several at a time.
    pub(crate) fn each<T: Sync>(cases: &[T], case: impl Fn(&T) + Sync) {
        let next = AtomicUsize::new(0);
        let workers = thread::available_parallelism().map_or(2, usize::from);
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(one) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        case(one);
                    }
                });
            }
        });
    }

    /// The data of the base.
    pub(crate) fn base(&self) -> Vec<u8> {
        let w = self.folder.path("S/w");
        fs::read(w.join(base(&w))).unwrap()
    }

    /// What was tried, in words.
    pub(crate) fn tell(&self, cases: usize, what: &str, commands: &[&str]) {
        println!(
            "{cases} {what}, version {}, {} commands on each: {} runs, {} MiB of memory and {} ms at most",
            self.version,
            commands.len(),
            self.runs.load(Ordering::Relaxed),
            self.memory.load(Ordering::Relaxed) >> 10,
            self.longest.load(Ordering::Relaxed)
        );
        assert!(cases >= 40, "{cases}");
    }
}

/// A folder with a copy of the store in S, and a valuable file beside it.
pub(crate) struct Lab<'a> {
    folder: TestFolder,
    original: &'a Original,
}

impl<'a> Lab<'a> {
    pub(crate) fn of(original: &'a Original) -> Self {
        let folder = TestFolder::in_memory();
        for name in ["S", "S/w", "out", "outside"] {
            fs::create_dir(folder.path(name)).unwrap();
        }
        for entry in fs::read_dir(original.folder.path("S/w")).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, folder.path("S/w").join(from.file_name().unwrap())).unwrap();
        }
        // One without a marker is of version 1.
        if original.version > 1 {
            let marker = "S/vhdkit-store.json";
            fs::copy(original.folder.path(marker), folder.path(marker)).unwrap();
        }
        folder.file("x.raw", &original.disks[2]);
        folder.file("outside/secret", &disk(9, 1 << 20));
        Self { folder, original }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// Changes a manifest and seals it again.
    pub(crate) fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.path("S/w").join(file);
        let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        manifest.as_object_mut().unwrap().remove("checksum");
        change(&mut manifest);
        fs::write(path, sealed(&manifest)).unwrap();
    }

    /// Runs a line in the folder, with limited memory and time.
    fn shell(&self, line: &str) -> Output {
        let ours = Path::new(env!("CARGO_BIN_EXE_vhd")).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let _ = fs::remove_file(self.path("memory"));
        let limited = format!(
            r#"ulimit -v 2000000; exec timeout 60 {} -q -o memory -f %M bash -c 'set -o pipefail; eval "$0"' "$0""#,
            program("time").get_program().display()
        );
        let mut command = program("bash");
        command
            .args(["-c", &limited, line])
            .current_dir(self.path("."));
        command.env("PATH", format!("{}:{path}", ours.display()));
        command.env_remove("VHDKIT_STORE").output().unwrap()
    }

    #[track_caller]
    pub(crate) fn runs(&self, line: &str, code: i32) {
        let ended = self.shell(line);
        assert_eq!(ended.status.code(), Some(code), "{line}: {ended:?}");
    }

    /// Fails unless every command ends by itself, prints only displayable text, leaves everything outside of the store
    /// alone, and restores nothing wrong.
    #[track_caller]
    pub(crate) fn survives(&self, what: &str, commands: &[&str]) {
        let outside = tree(&self.path("outside"));
        for line in commands {
            let start = Instant::now();
            let ended = self.shell(line);
            let code = ended.status.code();
            let memory = fs::read_to_string(self.path("memory")).unwrap_or_default();
            let memory: u64 = memory.trim().parse().unwrap_or(0);
            assert!(memory < MOST_MEMORY, "{what}: {line}: {memory} KiB");
            let took = u64::try_from(start.elapsed().as_millis()).unwrap();
            self.original.runs.fetch_add(1, Ordering::Relaxed);
            self.original.memory.fetch_max(memory, Ordering::Relaxed);
            self.original.longest.fetch_max(took, Ordering::Relaxed);
            assert!(
                matches!(code, Some(0..=5)),
                "{what}: {line}: {:?} {ended:?}",
                ended.status.signal()
            );
            for text in [&ended.stdout, &ended.stderr] {
                let text = std::str::from_utf8(text).unwrap();
                let raw = text
                    .chars()
                    .find(|c| *c != '\n' && vhdkit::text::is_unseen(*c));
                assert_eq!(raw, None, "{what}: {line}: {text}");
                assert!(!text.contains("panicked"), "{what}: {line}: {text}");
            }
            assert!(
                tree(&self.path("outside")) == outside,
                "{what}: {line} wrote outside"
            );
            for (name, disk) in ["a", "b", "c"].into_iter().zip(&self.original.disks) {
                let restored = line.starts_with(&format!("vhd snapshot restore {name} "));
                if restored && code == Some(0) {
                    let found = fs::read(self.path("out").join(name)).unwrap();
                    assert!(
                        found == *disk,
                        "{what}: {line}: the restored image is wrong"
                    );
                }
            }
        }
    }
}

/// The file with the base in the folder of a disk.
pub(crate) fn base(folder: &Path) -> &'static str {
    let images = ["000001-a.vhd", "000001-a.vhddiff"];
    let found = images.iter().find(|name| folder.join(name).exists());
    found.unwrap()
}

/// Returns a manifest with its checksum, whatever its content.
pub(crate) fn sealed(manifest: &Value) -> String {
    let text = serde_json::to_string_pretty(manifest).unwrap();
    let head = format!("{},\n", text.strip_suffix("\n}").unwrap());
    let checksum = blake3::hash(head.as_bytes()).to_hex();
    format!("{head}  \"checksum\": \"{checksum}\"\n}}\n")
}

/// Returns the content of all files in a folder.
pub(crate) fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}
