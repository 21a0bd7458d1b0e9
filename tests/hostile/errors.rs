//! No error that passes is taken for damage: every reading command, run once for each call that it makes on its files,
//! with that call failing. It either says that it couldn't read, or gives the very answer that it gives otherwise.
//!
//! The calls are those of the real programs, made to fail by strace.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::disk::{TestFolder, changed, disk, program};

/// The calls that read: bytes, lengths, names, attributes, and where the data is.
const CALLS: &str = "openat,newfstatat,fstat,statx,read,pread64,preadv2,getdents64,lseek,fgetxattr,flistxattr,readlink,readlinkat,access,faccessat,faccessat2,fstatfs,statfs";

const ERRORS: [&str; 4] = ["EIO", "EMFILE", "EACCES", "ENOMEM"];

/// Commands that read, with one thread, so that calls come in the same order each time.
const COMMANDS: &[&str] = &[
    "vhd info a.vhd",
    "vhd check f.vhd",
    "vhd check kid.vhd",
    "vhd map kid.vhd",
    "vhd hash kid.vhd",
    "vhd-diff a.raw b.raw",
    "vhd-diff a.raw b.raw --base-digests a.windows",
    "vhd show ab",
    "vhd squash ab bc -o out",
    "vhd-apply a.raw ab --dry-run",
    "vhd-apply a.vhd ab bc -o out",
    "vhd merge --dry-run kid.vhd",
    "vhd convert kid.vhd out",
    "vhd check --repair --dry-run f.vhd",
    "vhd snapshot list --store S",
    "vhd snapshot show --store S c",
    "vhd snapshot verify --store S",
    "vhd snapshot verify --store S --read-data",
    "vhd snapshot restore c --store S -o out",
    "vhd snapshot hash c --store S",
    "vhd snapshot diff a c --store S -o out",
    "vhd snapshot repair --store S",
    "vhd snapshot repair --store S --drop",
    "vhd snapshot prune --store S --keep-last 1 --dry-run",
];

#[test]
fn a_call_that_fails_is_never_damage() {
    let lab = Lab::new();
    let (mut runs, mut faults) = (0, Vec::new());
    for command in COMMANDS {
        let right = lab.run(command, &[]);
        let calls = lab.calls(command);
        for at in 1..=calls {
            // All numbers in turn: a fallback for one may not be one for another.
            let error = ERRORS[at % ERRORS.len()];
            let inject = format!("inject={CALLS}:error={error}:when={at}");
            let ended = lab.run(command, &["-e", &inject]);
            runs += 1;
            if let Some(fault) = fault(&right, &ended) {
                faults.push(format!("{command}: {error} at call {at}: {fault}"));
            }
        }
    }
    println!(
        "{runs} runs of {} commands, each with one call failing: {} took it for something else",
        COMMANDS.len(),
        faults.len()
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What is wrong with how a command ended of which a call failed.
fn fault(right: &Ended, ended: &Ended) -> Option<String> {
    if ended.left != right.left {
        return Some("the files aren't what they should be".to_owned());
    }
    match ended.code.unwrap_or(-1) {
        code if Some(code) == right.code && ended.out == right.out => None,
        2 if ended.err.contains("os error") => None,
        // An image is described although its parent can't be looked at; that is said.
        code if Some(code) == right.code && ended.out.contains("os error") => None,
        _ => Some(format!(
            "exit code {}: {} {}",
            ended.code.unwrap_or(-1),
            ended.out,
            ended.err
        )),
    }
}

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
    /// Length and hash of every file but the output.
    left: BTreeMap<PathBuf, (u64, String)>,
}

struct Lab(TestFolder);

impl Lab {
    fn new() -> Self {
        let lab = Self(TestFolder::new());
        let a = disk(1, 2 << 20);
        let b = changed(2, &a);
        let c = changed(3, &b);
        for (name, bytes) in [("a.raw", &a), ("b.raw", &b), ("c.raw", &c)] {
            lab.0.file(name, bytes);
        }
        let made = lab.shell(
            "vhd convert -q a.raw a.vhd && vhd convert -q -O fixed b.raw f.vhd \
             && vhd-diff -q a.raw b.raw -o ab && vhd-diff -q b.raw c.raw -o bc \
             && vhd-apply -q a.vhd ab -o kid.vhd -O differencing && vhd hash -q --windows a.windows a.raw \
             && for n in a b c; do vhd snapshot create -q --store S --disk w --name $n $n.raw || exit 1; done",
        );
        assert!(made.status.success(), "{made:?}");
        lab
    }

    fn shell(&self, line: &str) -> Output {
        let ours = Path::new(env!("CARGO_BIN_EXE_vhd")).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = program("bash");
        command.args(["-c", line]).current_dir(self.0.path("."));
        command.env("PATH", format!("{}:{path}", ours.display()));
        command.env_remove("VHDKIT_STORE").output().unwrap()
    }

    /// The calls of a command on the files of the folder, as strace counts them.
    fn traced(&self, command: &str, options: &[&str]) -> Output {
        let mut words = command.split(' ');
        let mut strace = program("strace");
        strace
            .args(["-f", "-qq", "-o", "trace", "-e"])
            .arg(format!("trace={CALLS}"));
        for path in self.files() {
            strace.arg("-P").arg(path);
        }
        strace.args(options);
        let ours = program(words.next().unwrap());
        strace
            .arg(ours.get_program())
            .args(words)
            .args(["--threads", "1"]);
        strace
            .current_dir(self.0.path("."))
            .env_remove("VHDKIT_STORE")
            .output()
            .unwrap()
    }

    fn run(&self, command: &str, options: &[&str]) -> Ended {
        let output = self.traced(command, options);
        let ended = Ended {
            code: output.status.code(),
            out: text(&output.stdout),
            // Not what strace says of the paths.
            err: text(&output.stderr)
                .lines()
                .filter(|line| !line.starts_with("strace"))
                .collect::<Vec<_>>()
                .join("\n"),
            left: self.left(),
        };
        let _ = fs::remove_file(self.0.path("out"));
        ended
    }

    fn calls(&self, command: &str) -> usize {
        self.traced(command, &[]);
        let trace = fs::read_to_string(self.0.path("trace")).unwrap();
        let _ = fs::remove_file(self.0.path("out"));
        trace
            .lines()
            .filter(|line| !line.contains("+++") && !line.contains("resumed"))
            .count()
    }

    /// The files and folders, as the commands name them.
    fn files(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = [
            "S",
            "S/w",
            "S/w/deleting.json",
            "a.raw.undo-journal",
            "kid.vhd.undo-journal",
        ]
        .map(PathBuf::from)
        .into();
        for folder in [".", "S/w"] {
            for entry in fs::read_dir(self.0.path(folder)).unwrap() {
                let name = entry.unwrap().file_name();
                if name != "trace" && name != "out" {
                    all.push(if folder == "." {
                        name.into()
                    } else {
                        Path::new(folder).join(name)
                    });
                }
            }
        }
        all
    }

    fn left(&self) -> BTreeMap<PathBuf, (u64, String)> {
        let files = self.files().into_iter().filter_map(|name| {
            let bytes = fs::read(self.0.path(name.to_str()?)).ok()?;
            Some((
                name,
                (
                    bytes.len() as u64,
                    blake3::hash(&bytes).to_hex().to_string(),
                ),
            ))
        });
        files.collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
