//! No error that passes is taken for damage: every reading command, run once for each call that it makes on its files,
//! with that call failing, and with too few descriptors. It either says that it couldn't read, or gives the very answer
//! that it gives otherwise.
//!
//! The calls are those of the real programs, made to fail by strace. Each worker has a folder of its own, in memory: what
//! is tried is what the programs do with an error, not how long a device takes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::disk::{TestFolder, changed, disk, program};

/// The calls that read: bytes, lengths, names, attributes, where the data is, and the locks that are taken for it.
const CALLS: &str = "openat,newfstatat,fstat,statx,read,pread64,preadv2,getdents64,lseek,ioctl,flock,fcntl,fgetxattr,getxattr,flistxattr,readlink,readlinkat,access,faccessat,faccessat2,fstatfs,statfs";

const ERRORS: [&str; 4] = ["EIO", "EMFILE", "EACCES", "ENOMEM"];

/// Commands that read, with one thread, so that calls come in the same order each time. The longest come first.
const COMMANDS: &[&str] = &[
    "vhd snapshot repair --store D --from S --dry-run",
    "vhd snapshot copy --init --store S --to out",
    "vhd snapshot repair --store S",
    "vhd snapshot repair --store S --drop",
    "vhd snapshot repair --store S --dry-run",
    "vhd snapshot repair --store D --drop --dry-run",
    "vhd snapshot verify --store S --read-data",
    "vhd snapshot verify --store D --read-data",
    "vhd snapshot diff a c --store S -o out",
    "vhd snapshot diff c a --store S",
    "vhd snapshot restore c --store S -o out",
    "vhd snapshot restore b --store S -o out -O raw",
    "vhd snapshot restore c --store S -o -",
    "vhd snapshot send --store S",
    "vhd snapshot send --store S --after a",
    "vhd snapshot hash --store S",
    "vhd snapshot hash c --store S",
    "vhd snapshot verify --store S",
    "vhd snapshot show --store S c",
    "vhd snapshot list --store S",
    "vhd snapshot list --store S --json",
    "vhd snapshot prune --store S --keep-last 1 --dry-run",
    "vhd snapshot family list.json --store S --disk w",
    "vhd snapshot verify --store P --read-data",
    "vhd snapshot repair --store P --dry-run",
    "vhd snapshot restore c --store P -o out",
    "vhd snapshot hash --store P",
    "vhd snapshot stats --store P",
    "vhd snapshot stats --store S --json",
    "vhd snapshot show --store P b --json",
    "vhd snapshot copy --init --store P --to out",
    "vhd snapshot send --store P",
    "vhd snapshot diff a c --store P",
    "vhd snapshot diff a b --store P --files",
    "vhd-diff P::w@a P::w@c --format svg",
    "vhd serve --threads 1 P -- true",
    "vhd serve --threads 1 P::w@c -- true",
    "vhd serve --threads 1 kid.vhd -- true",
    "vhd files ls a.raw",
    "vhd files ls ext.raw/",
    "vhd files find ext.raw/",
    "vhd files get ext.raw/kid.vhd",
    "vhd files get ext.raw/ -o out",
    "vhd diff ext.raw changed.raw --files",
    "vhd map ext.raw",
    "vhd-diff S::w@a S::w@c -o out",
    "vhd-diff a.raw b.raw",
    "vhd-diff a.raw b.raw -o out",
    "vhd-diff a.vhd kid.vhd",
    "vhd-apply a.raw ab --dry-run",
    "vhd-apply a.raw ab bc -o out -O raw",
    "vhd-apply a.vhd ab bc -o out",
    "vhd-apply kid.vhd bc -o out -O raw",
    "vhd show ab",
    "vhd show ab --json",
    "vhd squash ab bc -o out",
    "vhd merge --dry-run kid.vhd",
    "vhd merge kid.vhd -o out",
    "vhd rebase --dry-run kid.vhd --parent same.vhd",
    "vhd resize --dry-run same.vhd --size 2M",
    "vhd create out --parent a.vhd",
    "vhd convert kid.vhd out",
    "vhd convert kid.vhd out -O raw",
    "vhd convert a.raw out -O fixed",
    "vhd tree T",
    "vhd info a.vhd",
    "vhd info kid.vhd --json",
    "vhd check f.vhd",
    "vhd check kid.vhd",
    "vhd check --azure f.vhd",
    "vhd check --repair --dry-run f.vhd",
    "vhd map kid.vhd",
    "vhd map a.raw",
    "vhd hash kid.vhd",
    "vhd hash a.raw f.vhd",
];

/// Those that ask a file system on a device more than one in memory: where data is, what is in the page cache, and whether
/// anything was changed.
const ON_A_DEVICE: &[&str] = &[
    "vhd-diff a.raw b.raw --base-digests a.windows",
    "vhd hash --windows out a.raw",
    "vhd-diff a.raw b.raw",
    "vhd map a.raw",
    "vhd hash a.raw f.vhd",
    "vhd convert a.raw out -O fixed",
];

#[test]
fn a_call_that_fails_is_never_damage() {
    let start = Instant::now();
    let tried = Mutex::new(Tried::default());
    in_turn(COMMANDS, Lab::in_memory, |lab, n, command| {
        each_call_fails(lab, n, command, &tried);
    });
    in_turn(ON_A_DEVICE, Lab::new, |lab, n, command| {
        each_call_fails(lab, n, command, &tried);
    });
    let tried = tried.into_inner().unwrap();
    println!(
        "{} runs of {} commands, each with one call failing: {} took it for something else; {:.0} s\n",
        tried.runs.values().flatten().sum::<usize>(),
        COMMANDS.len(),
        tried.faults.len(),
        start.elapsed().as_secs_f64()
    );
    println!(
        "| call | {} |\n| --- | ---: | ---: | ---: | ---: |",
        ERRORS.join(" | ")
    );
    for (call, [a, b, c, d]) in &tried.runs {
        println!("| {call} | {a} | {b} | {c} | {d} |");
    }
    assert!(tried.faults.is_empty(), "{}", tried.faults.join("\n"));
    for call in ["openat", "statx", "pread64", "getdents64", "flock", "lseek"] {
        let runs = tried.runs.get(call).copied().unwrap_or_default();
        assert!(!runs.contains(&0), "{call}: {runs:?}");
    }
}

#[test]
fn too_few_descriptors_are_never_damage() {
    const ENOUGH: usize = 200;
    let start = Instant::now();
    let (runs, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    in_turn(COMMANDS, Lab::in_memory, |lab, _, command| {
        let right = lab.right(command);
        for limit in 4..ENOUGH {
            let ended = lab.run(command, &format!("ulimit -n {limit}"));
            // The system's loader couldn't open the libraries.
            if ended.code == Some(127) {
                continue;
            }
            runs.fetch_add(1, Ordering::Relaxed);
            if let Some(fault) = fault(&right, &ended) {
                let mut faults = faults.lock().unwrap();
                faults.push(format!("{command}: {limit} descriptors: {fault}"));
            }
            if ended.code == right.code && ended.out == right.out {
                return;
            }
        }
        let mut faults = faults.lock().unwrap();
        faults.push(format!("{command}: {ENOUGH} descriptors aren't enough"));
    });
    let faults = faults.into_inner().unwrap();
    println!(
        "{} runs of {} commands with too few descriptors: {} took it for something else; {:.0} s",
        runs.into_inner(),
        COMMANDS.len(),
        faults.len(),
        start.elapsed().as_secs_f64()
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Hands each command, with its number, to one of several workers, each with a folder of its own.
fn in_turn(
    commands: &[&'static str],
    lab: fn() -> Lab,
    work: impl Fn(&Lab, usize, &'static str) + Sync,
) {
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(2, |n| n.get() + 1);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let lab = lab();
                while let Some(command) = commands.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let n = commands.iter().position(|other| other == command);
                    work(&lab, n.unwrap(), command);
                }
            });
        }
    });
}

/// How often each call failed with each error, and what was taken for something else.
#[derive(Default)]
struct Tried {
    runs: BTreeMap<String, [usize; 4]>,
    faults: Vec<String>,
}

fn each_call_fails(lab: &Lab, n: usize, command: &str, tried: &Mutex<Tried>) {
    let right = lab.right(command);
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    for line in lab.calls(command) {
        let call = line.split('(').next().unwrap();
        let at = met.entry(call.to_owned()).or_default();
        *at += 1;
        // The standard library's look whether a descriptor is open, in programs made for tests.
        if line.contains("F_GETFD") {
            continue;
        }
        // Each call meets all errors in turn: a fallback for one may not be one for another.
        let which = (n + *at) % ERRORS.len();
        let error = ERRORS[which];
        // Only calls of this name are stopped at, which takes a third of the time.
        let inject = format!("inject={call}:error={error}:when={at}");
        let ended = lab.traced(command, call, &inject);
        let fault = fault(&right, &ended);
        let mut tried = tried.lock().unwrap();
        tried.runs.entry(call.to_owned()).or_default()[which] += 1;
        if let Some(fault) = fault {
            let fault = format!("{command}: {error} at {call} {at}: {fault}");
            tried.faults.push(fault);
        }
    }
}

/// What is wrong with how a command ended of which a call failed.
fn fault(right: &Ended, ended: &Ended) -> Option<String> {
    if ended.left != right.left {
        return Some("the files aren't what they should be".to_owned());
    }
    let same = ended.code == right.code && ended.out == right.out;
    if same && right.made.is_some() && ended.made != right.made {
        return Some("another output".to_owned());
    }
    match ended.code.unwrap_or(-1) {
        _ if same => None,
        2 if ended.err.contains("os error") => None,
        // Whether its times show all changes is a question to the file system.
        2 if ended.err.contains("its file system can't be determined") => None,
        // An image is described although its parent can't be looked at; that is said.
        code if Some(code) == right.code && ended.out.contains("os error") => None,
        code => Some(format!("exit code {code}: {} {}", ended.out, ended.err)),
    }
}

/// What a command prints without the members of its JSON that are others in each run.
fn lasting(out: &str) -> String {
    let mut out = out.to_owned();
    for member in ["started", "seconds", "bytes_read", "bytes_written"] {
        let key = format!("\"{member}\":");
        while let Some(at) = out.find(&key) {
            let rest = &out[at..];
            let end = rest.find([',', '}', '\n']).unwrap_or(rest.len());
            out.replace_range(at..at + end, "");
        }
    }
    out
}

/// Length and hash of files.
type Hashes = BTreeMap<PathBuf, Hash>;

/// What was hashed already, by what tells one state of a file from another: inode, length and times.
#[derive(Default)]
struct Known(RefCell<HashMap<PathBuf, (State, Hash)>>);

type State = [i64; 6];
type Hash = (u64, String);

#[derive(Debug, PartialEq)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
    /// Every file but the output.
    left: Hashes,
    /// The output, if it is the same each time.
    made: Option<Hashes>,
}

struct Lab(TestFolder, Known);

impl Lab {
    fn in_memory() -> Self {
        Self::made_in(TestFolder::in_memory())
    }

    fn new() -> Self {
        Self::made_in(TestFolder::new())
    }

    fn made_in(folder: TestFolder) -> Self {
        let lab = Self(folder, Known::default());
        let a = disk(1, 256 << 10);
        let b = changed(2, &a);
        let c = changed(3, &b);
        for (name, bytes) in [("a.raw", &a), ("b.raw", &b), ("c.raw", &c)] {
            lab.0.file(name, bytes);
        }
        lab.0.file("list.json", LIST.as_bytes());
        let made = lab.shell(
            "vhd convert -q a.raw a.vhd && cp a.vhd same.vhd && vhd convert -q -O fixed b.raw f.vhd \
             && vhd-diff -q a.raw b.raw -o ab && vhd-diff -q b.raw c.raw -o bc \
             && vhd-apply -q a.vhd ab -o kid.vhd -O differencing && (vhd hash -q --windows a.windows a.raw || [[ $PWD = /dev/shm/* ]]) \
             && for n in a b c; do vhd snapshot create -q --init --store S --disk w --name $n $n.raw || exit 1; done \
             && mkdir T && cp a.vhd ab T && vhd create -q T/kid.vhd --parent T/a.vhd && mke2fs -q -t ext4 -d T ext.raw 1M && cp ext.raw changed.raw && printf x | dd of=changed.raw bs=1 seek=500000 conv=notrunc status=none \
             && vhd snapshot init -q P && for n in a b c; do vhd snapshot create -q --store P --disk w --name $n $n.raw || exit 1; done \
             && cp -r S D && printf x | dd of=D/w/000002-b.vhddiff bs=1 seek=300 conv=notrunc status=none",
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

    /// Runs a command behind strace, which does `what` to its `calls` on the files of the folder.
    fn traced(&self, command: &str, calls: &str, what: &str) -> Ended {
        let mut strace = program("strace");
        strace.args(["-f", "--seccomp-bpf", "-qq", "-o", "trace"]);
        strace.args(["-e", &format!("trace={calls}"), "-e", what]);
        for path in self.files() {
            strace.arg("-P").arg(path);
        }
        let (name, args) = command.split_once(' ').unwrap();
        strace.arg(program(name).get_program());
        strace.args(args.split(' ')).args(["--threads", "1"]);
        strace.current_dir(self.0.path("."));
        self.ended(&strace.env_remove("VHDKIT_STORE").output().unwrap())
    }

    /// Runs a command after another of the shell.
    fn run(&self, command: &str, before: &str) -> Ended {
        self.ended(&self.shell(&format!("{before}; exec {command} --threads 1")))
    }

    /// How a command ends of which no call fails.
    fn right(&self, command: &str) -> Ended {
        let [once, twice] = [(); 2].map(|()| self.run(command, "true"));
        assert!(matches!(once.code, Some(0 | 1)), "{command}: {once:?}");
        assert_eq!(once.left, twice.left, "{command}");
        // Times and ids are others each time.
        let made = (once.made == twice.made).then_some(once.made).flatten();
        Ended { made, ..twice }
    }

    fn ended(&self, output: &Output) -> Ended {
        let made = self.1.hashes(&self.0.path("out"));
        let _ = fs::remove_file(self.0.path("out"));
        let _ = fs::remove_dir_all(self.0.path("out"));
        let mut left = BTreeMap::new();
        for folder in ["", "S/w", "D/w", "P", "P/w"] {
            left.extend(self.1.hashes(&self.0.path(folder)));
        }
        left.remove(&self.0.path("trace"));
        Ended {
            code: output.status.code(),
            out: lasting(&text(&output.stdout)),
            // Not what strace says of the paths.
            err: text(&output.stderr)
                .lines()
                .filter(|line| !line.contains("strace: Requested path"))
                .collect::<Vec<_>>()
                .join("\n"),
            left,
            made: Some(made),
        }
    }

    /// The calls of a command on the files of the folder, as strace counts them.
    fn calls(&self, command: &str) -> Vec<String> {
        self.traced(command, CALLS, "signal=none");
        let trace = fs::read_to_string(self.0.path("trace")).unwrap();
        let lines = trace
            .lines()
            .filter(|line| !line.contains("+++") && !line.contains("resumed"));
        // The number of the thread comes first.
        lines
            .map(|line| line.split_once(' ').unwrap().1.trim_start().to_owned())
            .collect()
    }

    /// The files and folders, as the commands name them.
    fn files(&self) -> BTreeSet<PathBuf> {
        let mut all: BTreeSet<PathBuf> = [
            ".",
            "S",
            "S/w",
            "S/w/deleting.json",
            "D",
            "D/w",
            "P",
            "P/w",
            "P/w/deleting.json",
            "T",
            "a.raw.undo-journal",
            "kid.vhd.undo-journal",
        ]
        .map(PathBuf::from)
        .into();
        for folder in ["", "S/w", "D/w", "P", "P/w", "T"] {
            for entry in fs::read_dir(self.0.path(folder)).unwrap() {
                let name = entry.unwrap().file_name();
                if name != "trace" && name != "out" {
                    all.insert(Path::new(folder).join(name));
                }
            }
        }
        all
    }
}

impl Known {
    /// The hashes of a file, or of all in a folder and its folders but for the stores.
    fn hashes(&self, path: &Path) -> Hashes {
        let mut found = BTreeMap::new();
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                if !path.ends_with("S") && !path.ends_with("D") {
                    found.extend(self.hashes(&path));
                }
            }
        } else if path.ends_with("lock") || path.ends_with("copy.lock") {
            // What it says of its holder is for people, and nothing depends on it.
            found.insert(path.to_owned(), (0, "a lock".to_owned()));
        } else if path.exists() {
            found.insert(path.to_owned(), self.hash(path));
        }
        found
    }

    /// All but the output was written long before the first look at it, so that a change moves its times.
    fn hash(&self, path: &Path) -> Hash {
        let m = fs::metadata(path).unwrap();
        let inode = m.ino().cast_signed();
        let state = [
            inode,
            m.size().cast_signed(),
            m.mtime(),
            m.mtime_nsec(),
            m.ctime(),
            m.ctime_nsec(),
        ];
        let mut known = self.0.borrow_mut();
        if let Some((_, hash)) = known
            .get(path)
            .filter(|(then, _)| *then == state && !path.ends_with("out"))
        {
            return hash.clone();
        }
        let bytes = fs::read(path).unwrap();
        let hash = (
            bytes.len() as u64,
            blake3::hash(&bytes).to_hex().to_string(),
        );
        known.insert(path.to_owned(), (state, hash.clone()));
        hash
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a cloud lists of its snapshots of a disk.
const LIST: &str = r#"[{"name": "a", "incremental": true, "timeCreated": "2026-11-18T06:00:04Z", "diskSizeBytes": 262144,
 "creationData": {"sourceResourceId": "/disks/w", "sourceUniqueId": "7f1e9a52-0d3c-4b68-9d5e-2f6a1c8b4e70"}}]"#;
