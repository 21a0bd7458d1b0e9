//! The command line: cases as data in `tests/cmd`, and what data can't say.
//!
//! `TRYCMD=overwrite cargo test --test command cli` writes what the programs say now into the cases; look at the changes
//! before you commit them.

// Helpers of a test may panic just like the test itself.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const VHD: &str = env!("CARGO_BIN_EXE_vhd");

/// Runs every case in a new folder.
#[test]
fn cases() {
    trycmd::TestCases::new()
        .register_bin("vhd", Path::new(VHD))
        .register_bin("vhd-diff", Path::new(env!("CARGO_BIN_EXE_vhd-diff")))
        .register_bin("vhd-apply", Path::new(env!("CARGO_BIN_EXE_vhd-apply")))
        .env("NO_COLOR", "1")
        .case("tests/cmd/*.trycmd");
}

/// Creates a folder with a raw image of 3 MiB and a page, in which some pages hold data.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let mut bytes = vec![0; (3 << 20) + 512];
        for at in [0, 4096, 1 << 20, (2 << 20) + 512, 3 << 20] {
            bytes[at..at + 512].fill(u8::try_from(at >> 12 & 0xFF).unwrap() | 1);
        }
        fs::write(folder.path("disk.raw"), bytes).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn vhd(&self, args: &[&str]) -> Command {
        let mut command = Command::new(VHD);
        command.args(args).current_dir(self.0.path());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.vhd(args).output().unwrap()
    }

    /// Runs a command that must succeed and returns its output.
    fn stdout(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns all files, including hidden ones, with their content.
    fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = fs::read_dir(self.0.path())
            .unwrap()
            .map(|e| e.unwrap().path());
        files
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An interrupted apply can only be finished with the same diff and in the same direction.
#[test]
fn an_interrupted_apply_is_not_finished_backwards() {
    let folder = Folder::new();
    let (disk, other) = (folder.path("disk.raw"), folder.path("other.raw"));
    fs::copy(&disk, &other).unwrap();
    let file = File::options().write(true).open(&other).unwrap();
    file.write_all_at(&[9; 512], 8192).unwrap();
    drop(file);
    folder.stdout(&[
        "diff",
        "disk.raw",
        "other.raw",
        "-o",
        "diff",
        "--reversible",
    ]);
    for (how, start) in [(&["apply"][..], &disk), (&["apply", "--reverse"], &other)] {
        let after = if start == &disk { &other } else { &disk };
        let (before, after) = (fs::read(start).unwrap(), fs::read(after).unwrap());
        fs::write(folder.path("image"), &before).unwrap();
        let apply = |how: &[&str]| folder.run(&[how, &["image", "diff"]].concat());
        folder.stdout(
            &[
                how,
                &["image", "diff", "--undo", "undo", "--in-place", "journal"],
            ]
            .concat(),
        );
        assert!(fs::read(folder.path("image")).unwrap() == after);
        // As after a crash at the very end or in the middle, when the image may hold any mixture of the two.
        fs::rename(folder.path("undo"), folder.path("image.undo-journal")).unwrap();
        let wrong: &[&str] = if how.len() == 1 {
            &["apply", "--reverse"]
        } else {
            &["apply"]
        };
        let refused = apply(wrong);
        assert_eq!(code(&refused), 5, "{}", stderr(&refused));
        assert_eq!(code(&apply(how)), 0);
        assert!(fs::read(folder.path("image")).unwrap() == after);
        fs::remove_file(folder.path("image")).unwrap();
    }
}

/// A failing command changes nothing: inputs, existing outputs and the set of files stay the same.
#[test]
fn failures_leave_the_folder_as_it_was() {
    let folder = Folder::new();
    fs::write(folder.path("cut.raw"), [1; 700]).unwrap();
    fs::write(folder.path("old"), b"old").unwrap();
    fs::hard_link(folder.path("disk.raw"), folder.path("other-name")).unwrap();
    let before = folder.content();
    let failures: [(&[&str], i32); 9] = [
        (&["convert", "disk.raw", "old"], 2),
        (&["convert", "cut.raw", "old", "--force"], 3),
        (&["convert", "disk.raw", "other-name", "--force"], 2),
        (&["convert", "disk.raw", "new", "-f", "vhd"], 3),
        (&["convert", "disk.raw", "new", "-O", "raw", "--azure"], 2),
        (&["convert", "disk.raw", "new", "--block-size", "1M"], 2),
        (&["create", "old", "--size", "1M"], 2),
        (&["create", "new.vhd", "--size", "2041G"], 2),
        (
            &["create", "new.vhd", "--size", "1M", "--block-size", "1000"],
            2,
        ),
    ];
    for (args, expected) in failures {
        let output = folder.run(args);
        assert_eq!(code(&output), expected, "{args:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains("\n  hint: "),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty(), "{args:?}");
        assert_eq!(folder.content(), before, "{args:?}");
    }
}

/// A writer has exclusive use of the image.
#[test]
fn an_image_that_is_being_written_is_locked() {
    let folder = Folder::new();
    let writer = File::options()
        .write(true)
        .open(folder.path("disk.raw"))
        .unwrap();
    writer.lock().unwrap();
    for args in [
        &["info", "disk.raw"][..],
        &["convert", "disk.raw", "new"],
        &["create", "disk.raw", "--size", "1M", "--force"],
    ] {
        let output = folder.run(args);
        assert_eq!(code(&output), 5, "{args:?}: {}", stderr(&output));
    }
    writer.unlock().unwrap();
    writer.lock_shared().unwrap();
    folder.stdout(&["info", "disk.raw"]);
}

/// The reader of a pipe may stop at any time.
#[test]
fn a_closed_pipe_is_success() {
    let folder = Folder::new();
    for args in [
        &["map", "disk.raw"][..],
        &["--help"],
        &["hash", "disk.raw"],
        &["man"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = folder.vhd(args).stdout(writer).output().unwrap();
        assert_eq!(
            (code(&output), stderr(&output)),
            (0, String::new()),
            "{args:?}"
        );
    }
}

/// Output that can't be written is reported as an error.
#[test]
fn a_full_stdout_is_a_failure() {
    let folder = Folder::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = folder
        .vhd(&["info", "disk.raw"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("(standard output): cannot write"),
        "{}",
        stderr(&output)
    );
}

/// A full disk, simulated by a limit on file sizes, which works everywhere and needs no privileges.
#[test]
fn a_full_disk_leaves_no_partial_output() {
    let folder = Folder::new();
    let before = folder.content();
    for target in ["new.raw", "new.vhd"] {
        let script = "ulimit -f 1000; exec \"$0\" convert disk.raw \"$1\"";
        let mut command = Command::new("sh");
        command
            .args(["-c", script, VHD, target])
            .current_dir(folder.0.path());
        let output = command.output().unwrap();
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(
            stderr(&output).contains("File too large"),
            "{}",
            stderr(&output)
        );
        assert_eq!(folder.content(), before);
    }
}

/// Ctrl-C and SIGTERM end the program at once and leave no temporary files.
#[test]
fn signals_clean_up() {
    for (signal, expected) in [("INT", 130), ("TERM", 143)] {
        let folder = Folder::new();
        // A page of data in each window: little to store, much to read.
        let source = File::create(folder.path("large.raw")).unwrap();
        source.set_len(64 << 30).unwrap();
        for window in 0..16 << 10 {
            source.write_all_at(&[1; 512], window << 22).unwrap();
        }
        let before = names(&folder);
        let mut child = folder
            .vhd(&["convert", "large.raw", "copy.raw"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until(|| names(&folder) > before);
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(child.wait().unwrap().code(), Some(expected), "{signal}");
        assert_eq!(names(&folder), before, "{signal}");
    }
}

fn names(folder: &Folder) -> usize {
    fs::read_dir(folder.0.path()).unwrap().count()
}

fn wait_until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(5));
    }
}

/// Progress is shown on request and never mixes with data.
#[test]
fn progress_goes_to_stderr_and_only_when_wanted() {
    let folder = Folder::new();
    let hash = folder.run(&["hash", "disk.raw"]);
    assert!(hash.stderr.is_empty());
    let shown = folder.run(&["hash", "disk.raw", "--progress", "always"]);
    assert_eq!(shown.stdout, hash.stdout);
    assert!(
        stderr(&shown).contains("hashing: 100%, "),
        "{}",
        stderr(&shown)
    );
    for args in [["--progress", "never"], ["--progress=always", "-q"]] {
        let hidden = folder.run(&[&["hash", "disk.raw"][..], &args].concat());
        assert!(hidden.stderr.is_empty(), "{args:?}");
    }
}

/// The plain digests equal those of the usual tools, and no digest depends on threads or format.
#[test]
fn digests_agree_with_the_usual_tools() {
    let folder = Folder::new();
    let sum = Command::new("sha256sum")
        .arg("disk.raw")
        .current_dir(folder.0.path())
        .output()
        .unwrap();
    assert_eq!(
        folder.stdout(&["hash", "-a", "sha256", "disk.raw"]),
        String::from_utf8(sum.stdout).unwrap()
    );
    let bytes = fs::read(folder.path("disk.raw")).unwrap();
    assert_eq!(
        folder.stdout(&["hash", "-a", "blake3", "disk.raw"]),
        format!("{}  disk.raw\n", blake3::hash(&bytes).to_hex())
    );
    for algorithm in ["content", "sha256", "blake3"] {
        let hash =
            |threads| folder.stdout(&["hash", "-a", algorithm, "--threads", threads, "disk.raw"]);
        assert_eq!(hash("1"), hash("7"), "{algorithm}");
    }
}

/// From raw through both kinds of VHD and back, bytes, digest and identity stay the same.
#[test]
fn conversion_keeps_the_disk_and_its_identity() {
    let folder = Folder::new();
    for args in [
        &[
            "convert",
            "disk.raw",
            "fixed.vhd",
            "-O",
            "fixed",
            "--verify",
        ][..],
        &["convert", "fixed.vhd", "dynamic.vhd", "--verify"],
        &[
            "convert",
            "dynamic.vhd",
            "again.vhd",
            "-O",
            "fixed",
            "--verify",
        ],
        &["convert", "again.vhd", "again.raw", "--verify"],
        &[
            "convert",
            "dynamic.vhd",
            "small-blocks.vhd",
            "--block-size",
            "512K",
            "--verify",
        ],
    ] {
        folder.stdout(args);
    }
    let read = |name: &str| fs::read(folder.path(name)).unwrap();
    assert!(read("disk.raw") == read("again.raw"));
    assert!(read("fixed.vhd") == read("again.vhd"));
    let all = [
        "disk.raw",
        "fixed.vhd",
        "dynamic.vhd",
        "again.vhd",
        "again.raw",
        "small-blocks.vhd",
    ];
    let hashes = folder.stdout(&[&["hash"][..], &all].concat());
    let digests: Vec<_> = hashes
        .lines()
        .map(|line| line.split_once("  ").unwrap().0)
        .collect();
    assert_eq!(digests, [digests[0]; 6]);
}

/// A dynamic VHD whose end was lost in a transfer can still be inspected thanks to the copy of its footer, with a
/// warning.
#[test]
fn a_lost_footer_is_replaced_by_its_copy_with_a_warning() {
    let folder = Folder::new();
    folder.stdout(&["convert", "disk.raw", "disk.vhd"]);
    let digest = folder.stdout(&["hash", "disk.raw"]);
    let vhd = File::options()
        .write(true)
        .open(folder.path("disk.vhd"))
        .unwrap();
    vhd.set_len(vhd.metadata().unwrap().len() - 512).unwrap();
    let output = folder.run(&["hash", "disk.vhd"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        stderr(&output).starts_with("vhd: warning: disk.vhd: "),
        "{}",
        stderr(&output)
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).split(' ').next(),
        digest.split(' ').next()
    );
    let info = folder.stdout(&["info", "disk.vhd", "--json"]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["warnings"].as_array().map(Vec::len), Some(1), "{info}");
}

/// Azure requires a fixed VHD of whole mebibytes whose footer agrees.
#[test]
fn azure_gets_whole_mebibytes() {
    let folder = Folder::new();
    let output = folder.run(&["convert", "disk.raw", "upload.vhd", "--azure", "--verify"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("20 MiB"), "{}", stderr(&output));
    assert_eq!(
        fs::metadata(folder.path("upload.vhd")).unwrap().len(),
        (4 << 20) + 512
    );
    let info = folder.stdout(&["info", "upload.vhd", "--json"]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(
        (&info["format"], &info["virtual_size"]),
        (&"fixed".into(), &(4 << 20).into())
    );
    assert_eq!(info["footer"]["current_size"], 4 << 20);
    let mut bytes = Vec::new();
    File::open(folder.path("upload.vhd"))
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    let disk = fs::read(folder.path("disk.raw")).unwrap();
    assert!(bytes[..disk.len()] == disk && bytes[disk.len()..4 << 20].iter().all(|b| *b == 0));
    // Without --azure the size is kept, and -v mentions that Azure won't accept it.
    let output = folder.run(&["convert", "disk.raw", "exact.vhd", "-O", "fixed", "-v"]);
    assert!(stderr(&output).contains("4194304"), "{}", stderr(&output));
    let output = folder.run(&["convert", "disk.raw", "again.vhd", "-O", "fixed"]);
    assert!(!stderr(&output).contains("Azure"), "{}", stderr(&output));
    assert_eq!(
        fs::metadata(folder.path("exact.vhd")).unwrap().len(),
        disk.len() as u64 + 512
    );
}

/// The largest dynamic disk takes no space until it is written.
#[test]
fn huge_sparse_disks_are_made_and_read_in_no_time() {
    let folder = Folder::new();
    let begun = Instant::now();
    folder.stdout(&["create", "huge.vhd", "--size", "2040G"]);
    let map = folder.stdout(&["map", "huge.vhd", "--json"]);
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    assert_eq!(
        map["extents"],
        serde_json::json!([{"start": 0, "length": 2040_u64 << 30, "state": "zero"}])
    );
    folder.stdout(&["hash", "huge.vhd"]);
    folder.stdout(&["convert", "huge.vhd", "huge.raw"]);
    folder.stdout(&["hash", "huge.raw"]);
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
}

/// Makes two images from `disk.raw` and the diff between them.
fn with_diff() -> Folder {
    let folder = Folder::new();
    let mut bytes = fs::read(folder.path("disk.raw")).unwrap();
    bytes[4096..4608].fill(0);
    bytes[1 << 20..(1 << 20) + 1024].fill(7);
    fs::write(folder.path("later.raw"), bytes).unwrap();
    folder.stdout(&["diff", "disk.raw", "later.raw", "-o", "diff", "-q"]);
    folder
}

/// The list of ranges in machine-readable form is the same from two images, from a diff, and from stdin.
#[test]
fn ranges_are_one_list_wherever_they_come_from() {
    let folder = with_diff();
    let parse = |text: &[u8]| -> serde_json::Value { serde_json::from_slice(text).unwrap() };
    let compared = folder.run(&["diff", "disk.raw", "later.raw", "--json"]);
    assert_eq!(code(&compared), 1);
    let compared = parse(&compared.stdout);
    let mut shown = parse(folder.stdout(&["show", "diff", "--json"]).as_bytes());
    let stdin = File::open(folder.path("diff")).unwrap();
    let piped = folder
        .vhd(&["show", "-", "--json"])
        .stdin(stdin)
        .output()
        .unwrap();
    assert_eq!(code(&piped), 0, "{}", stderr(&piped));
    let mut piped = parse(&piped.stdout);
    assert_eq!(piped["diff"], "-");
    piped["diff"] = "diff".into();
    for list in [&mut piped, &mut shown] {
        for of_the_run in ["started", "seconds", "bytes_read"] {
            assert!(list.as_object_mut().unwrap().remove(of_the_run).is_some());
        }
    }
    assert_eq!(piped, shown);
    let expected = serde_json::json!([
        {"start": 4096, "length": 512, "kind": "clear"},
        {"start": 1 << 20, "length": 1024, "kind": "update"},
    ]);
    for list in [&compared, &shown] {
        assert_eq!(list["schema_version"], 3);
        assert_eq!(list["ranges"], expected);
    }
    assert_eq!(compared["range_count"], 2);
    assert_eq!(shown["totals"]["range_count"], 2);
}

/// Damage, newer formats and mismatched files are distinguished, and none of these files is used.
#[test]
fn damaged_and_future_diffs_are_refused() {
    let folder = with_diff();
    let diff = fs::read(folder.path("diff")).unwrap();
    let show = |bytes: &[u8], expected: &str| {
        fs::write(folder.path("bad"), bytes).unwrap();
        for more in [&[][..], &["--json"], &["--ranges"]] {
            let output = folder.run(&[&["show", "bad"], more].concat());
            assert_eq!(code(&output), 3, "{}", stderr(&output));
            assert!(stderr(&output).contains(expected), "{}", stderr(&output));
            assert!(
                stderr(&output).contains("\n  hint: "),
                "{}",
                stderr(&output)
            );
        }
    };
    show(&diff[..diff.len() - 1], "bad: ");
    show(&diff[..40], "bad: ");
    let changed = |at: usize| {
        let mut bytes = diff.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    show(&changed(11), "version of the diff format is not supported");
    show(
        &changed(15),
        "needs a feature that this program doesn't support",
    );
    show(&changed(diff.len() / 2), "bad: ");
    show(&changed(diff.len() - 10), "bad: ");
}

/// Listings and diffs are streams: readers may stop early, and failures to write are reported.
#[test]
fn listings_and_diffs_go_to_any_reader() {
    let folder = with_diff();
    for args in [
        &["diff", "disk.raw", "later.raw"][..],
        &["diff", "disk.raw", "later.raw", "--format", "xml"],
        &["diff", "disk.raw", "later.raw", "-o", "-"],
        &["show", "diff", "--ranges"],
        &["show", "diff", "--json"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = folder.vhd(args).stdout(writer).output().unwrap();
        assert_eq!(
            (code(&output), stderr(&output)),
            (0, String::new()),
            "{args:?}"
        );
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = folder.vhd(args).stdout(full).output().unwrap();
        assert_eq!(code(&output), 2, "{args:?}");
        assert!(
            stderr(&output).contains("cannot write"),
            "{}",
            stderr(&output)
        );
    }
}

/// A diff is never written to a terminal.
#[test]
fn a_diff_is_not_sent_to_a_terminal() {
    let folder = with_diff();
    // Gives the program its own terminal and copies its output.
    let output = Command::new("script")
        .args([
            "-qec",
            &format!("'{VHD}' diff disk.raw later.raw -o -"),
            "/dev/null",
        ])
        .current_dir(folder.0.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        shown.contains("binary data is not sent to a terminal"),
        "{shown}"
    );
    assert!(!shown.contains("VHDDIF"), "{shown}");
    assert_eq!(code(&output), 2);
}

/// New files get the permissions of the umask, not those of a temporary file.
#[test]
fn new_files_obey_the_mask() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = with_diff();
    for input in ["disk.raw", "later.raw", "diff"] {
        // They are also limited by the permissions of their sources.
        let open = fs::Permissions::from_mode(0o666);
        fs::set_permissions(folder.path(input), open).unwrap();
    }
    for (mask, expected) in [("022", 0o644), ("077", 0o600), ("002", 0o664)] {
        for args in [
            "diff disk.raw later.raw -o new -q",
            "apply disk.raw diff -o new -q",
            "convert disk.raw new -q",
            "create new --size 1M -q",
        ] {
            let script = format!("umask {mask}; exec \"$0\" {args}");
            let mut command = Command::new("sh");
            command
                .args(["-c", &script, VHD])
                .current_dir(folder.0.path());
            let output = command.output().unwrap();
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            let mode = fs::metadata(folder.path("new"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, expected, "{mask} {args}");
            fs::remove_file(folder.path("new")).unwrap();
        }
    }
}
