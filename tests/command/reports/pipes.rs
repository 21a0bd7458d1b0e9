//! Names and pipes that mislead, what passed for success without being one, and mistakes on the command line.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::reports::lab::{Case, Ended, Lab, tell};

/// What must never be seen again.
const SECRET: &str = "TOPSECRET";

/// Two states of a disk as raw images and fixed VHDs, the diff between them, and a child.
fn images(lab: &Lab) {
    let mut bytes = vec![0; 3 << 20];
    for at in [0, 4096, 1 << 20, (2 << 20) + 512] {
        bytes[at..at + 512].fill(u8::try_from(at >> 12 & 0x7F).unwrap() | 1);
    }
    lab.file("a.raw", &bytes);
    bytes[4096..4608].fill(0);
    bytes[1 << 20..(1 << 20) + 1024].fill(7);
    lab.file("b.raw", &bytes);
    lab.shell(
        "vhd convert -q a.raw a.vhd -O fixed && vhd convert -q b.raw b.vhd -O fixed && \
         vhd-diff -q a.vhd b.vhd -o ab.vhddiff && vhd create -q child.vhd --parent a.vhd",
    )
    .code(0);
}

/// A store with two points in time of one disk.
fn store(lab: &Lab) {
    images(lab);
    lab.shell(
        "vhd snapshot create -q --init --store st --disk web --name mon a.vhd --time 2026-11-16T06:00:00Z && \
         vhd snapshot create -q --init --store st --disk web --name tue b.vhd --time 2026-11-17T06:00:00Z",
    )
    .code(0);
}

/// Every command line in `lines` is refused with exit code 2 and a hint, and leaves no file that wasn't there.
#[track_caller]
fn refused(lab: &Lab, lines: &[&str], says: &str) {
    for line in lines {
        let before = lab.names();
        let ended = lab.shell(line).code(2).says(says).says("hint: ");
        assert_eq!(lab.names(), before, "{line}\n{}", ended.err);
    }
}

/// Runs a command on a terminal of its own, and gives what that shows.
fn on_terminal(lab: &Lab, line: &str) -> Ended {
    let ours = std::path::Path::new(env!("CARGO_BIN_EXE_vhd"));
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = lab.command("script", &["-qec", line, "/dev/null"]);
    command
        .env(
            "PATH",
            format!("{}:{path}", ours.parent().unwrap().display()),
        )
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command.output().unwrap().into()
}

/// Starts a command, sends it a signal when `ready` says so, and gives how it ended.
pub(crate) fn interrupted(
    lab: &Lab,
    args: &[&str],
    signal: &str,
    ready: impl Fn() -> bool,
) -> Ended {
    let mut command = lab.command("vhd", args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = child.id().to_string();
    assert!(
        lab.command("kill", &["-s", signal, &pid])
            .status()
            .unwrap()
            .success()
    );
    child.wait_with_output().unwrap().into()
}

/// A disk that takes long: a page of data in each window.
pub(crate) fn large(lab: &Lab, name: &str, windows: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::File::create(lab.path(name)).unwrap();
    file.set_len(windows << 22).unwrap();
    for window in 0..windows {
        file.write_all_at(&[1; 512], window << 22).unwrap();
    }
}

fn has_temporary(lab: &Lab) -> bool {
    lab.names().iter().any(|name| name.starts_with(".vhdkit-"))
}

const CASES: &[Case] = &[
    Case {
        name: "an image to stdout: convert, apply, merge, restore with -o -",
        before: "a file called - was written, the pipe got nothing, exit 0",
        now: "the raw disk on stdout, a note that says so on stderr",
        run: |lab| {
            store(lab);
            for (line, expected) in [
                ("vhd convert a.vhd -", "a.raw"),
                ("vhd convert b.raw - -O raw", "b.raw"),
                ("vhd convert st::web@tue -", "b.raw"),
                ("vhd-apply a.vhd ab.vhddiff -o -", "b.raw"),
                ("vhd-apply st::web@mon ab.vhddiff -o -", "b.raw"),
                ("vhd-apply a.vhd - -o - < ab.vhddiff", "b.raw"),
                ("vhd merge child.vhd -o -", "a.raw"),
                ("vhd snapshot restore --store st tue -o -", "b.raw"),
            ] {
                let ended = lab
                    .shell(&format!("set -o pipefail; {line} | cmp - {expected}"))
                    .code(0);
                assert!(
                    ended.err.contains("(standard output): "),
                    "{line}: {}",
                    ended.err
                );
            }
            assert!(!lab.exists("-"));
        },
    },
    Case {
        name: "a base that the diff isn't for, with -o -",
        before: "-",
        now: "not one byte goes into the pipe",
        run: |lab| {
            images(lab);
            for how in ["", "--base-check touched"] {
                let line = format!("vhd-apply child.vhd ab.vhddiff {how} -o - | wc -c");
                lab.shell(&format!(
                    "printf x | dd of=a.raw bs=1 seek=1048580 conv=notrunc status=none; {line}"
                ));
                let ended = lab.shell(&format!("vhd-apply a.raw ab.vhddiff {how} -o - | wc -c"));
                assert_eq!(ended.out.trim(), "0", "{how}: {}", ended.err);
            }
        },
    },
    Case {
        name: "- where an image can't go into a pipe, or come from one",
        before: "a file called - was made, read or not found",
        now: "refused with the reason, the same in every command",
        run: |lab| {
            store(lab);
            refused(
                lab,
                &[
                    "vhd info -",
                    "vhd check -",
                    "vhd check a.vhd -",
                    "vhd map -",
                    "vhd hash -",
                    "cat a.vhd | vhd convert - x.raw",
                    "vhd-diff - b.vhd",
                    "vhd-diff a.vhd -",
                    "vhd-diff --from-child -",
                    "vhd-apply - ab.vhddiff",
                    "vhd-apply --rollback -",
                    "vhd merge -",
                    "vhd resize - --size 4M",
                    "vhd create c.vhd --parent -",
                    "vhd info child.vhd --parent -",
                    "vhd snapshot create --init --store st --disk web --name x -",
                    "vhd snapshot restore --store st tue -o c.vhd -O differencing --parent -",
                ],
                "an image can't be read from a pipe",
            );
            refused(
                lab,
                &[
                    "vhd create - --size 1M",
                    "vhd hash --windows - a.vhd",
                    "vhd-apply a.vhd ab.vhddiff --undo -",
                ],
                "can't be written to a pipe",
            );
            refused(
                lab,
                &[
                    "vhd-diff --base-digests - a.vhd b.vhd",
                    "vhd check a.vhd --take-back -",
                ],
                "can't be read from a pipe",
            );
            refused(
                lab,
                &[
                    "vhd snapshot list --store -",
                    "vhd snapshot copy --init --store st --to -",
                ],
                "a store is a folder, not a pipe",
            );
            refused(
                lab,
                &["vhd man --dir -", "vhd info a.vhd --parent-path -"],
                "a folder is needed",
            );
            refused(
                lab,
                &[
                    "vhd convert a.vhd - -O dynamic",
                    "vhd-apply a.vhd ab.vhddiff -o - -O fixed",
                    "vhd merge child.vhd -o - -O fixed",
                    "vhd snapshot restore --store st tue -o - -O fixed",
                ],
                "only the raw disk can be written to stdout",
            );
            refused(
                lab,
                &[
                    "vhd convert a.vhd - --azure",
                    "vhd convert a.vhd - --verify",
                    "vhd-apply a.vhd ab.vhddiff -o - --json",
                    "vhd merge child.vhd -o - --json",
                    "vhd snapshot restore --store st tue -o - --in-place",
                ],
                "can't be used with the raw disk on stdout",
            );
            // A file of that name can be had.
            lab.shell("vhd create -q ./- --size 1M && vhd info ./- && rm ./-")
                .code(0);
        },
    },
    Case {
        name: "a raw disk, a diff or a stream to a terminal",
        before: "refused for diffs and restore only",
        now: "refused everywhere",
        run: |lab| {
            store(lab);
            for line in [
                "vhd convert a.vhd -",
                "vhd-apply a.vhd ab.vhddiff -o -",
                "vhd merge child.vhd -o -",
                "vhd-diff a.vhd b.vhd -o -",
                "vhd snapshot restore --store st tue -o -",
                "vhd snapshot send --store st",
            ] {
                on_terminal(lab, line)
                    .code(2)
                    .says("binary data is not sent to a terminal");
            }
        },
    },
    Case {
        name: "an address of another machine as a store",
        before: "a folder backup@nas:/srv/web beside the data, exit 0",
        now: "refused, with the line that works",
        run: |lab| {
            store(lab);
            lab.shell("vhd snapshot copy --init --store st --to backup@nas:/srv/web")
                .code(2)
                .says("vhd snapshot send --store st --disk web | ssh backup@nas vhd snapshot receive --store /srv/web");
            lab.shell("vhd snapshot copy --init --store st --to 'ssh://backup@nas/srv/my web'")
                .code(2)
                .says(r"| ssh backup@nas 'vhd snapshot receive --store '\''/srv/my web'\'''");
            for address in [
                "backup@nas:/srv/web",
                "nas:web",
                "[fe80::1]:/srv",
                "ssh://nas/srv",
                "sftp://me@nas/srv",
                "rsync://nas/m",
                "http://nas/x",
                "s3://bucket/p",
                "s3:bucket",
                "nfs://nas/x",
                r"'C:\backup'",
                r"'\\nas\share'",
                "//no-such-server/share",
                "gs://b",
                "FTP://nas/x",
            ] {
                refused(
                    lab,
                    &[
                        &format!(
                            "vhd snapshot create --init --store {address} --disk w --name n a.vhd"
                        ),
                        &format!("vhd snapshot copy --init --store st --to {address}"),
                        &format!("vhd snapshot list --store {address}"),
                        &format!("vhd snapshot verify --store {address}"),
                        &format!("vhd snapshot receive --init --store {address} </dev/null"),
                        &format!("VHDKIT_STORE={address} vhd snapshot list"),
                        &format!("vhd info {address}::web@mon"),
                        &format!("vhd snapshot repair --store st --from {address}"),
                    ],
                    "this is",
                );
            }
            // What is said to be here is here.
            lab.shell("vhd snapshot copy --init -q --store st --to ./nas:web && vhd snapshot list --store ./nas:web").code(0);
            lab.shell("vhd snapshot list --store nas:web").code(0);
        },
    },
    Case {
        name: "an address as an image, a diff, an output",
        before: "a file or a folder of that name, or: cannot open",
        now: "refused, with a way",
        run: |lab| {
            store(lab);
            for address in [
                "me@nas:/x/a.vhd",
                "nas:a.vhd",
                "https://h/a.vhd",
                "s3://b/a.vhd",
                "sftp://nas/a",
                r"'D:\a.vhd'",
            ] {
                refused(
                    lab,
                    &[
                        &format!("vhd info {address}"),
                        &format!("vhd check {address}"),
                        &format!("vhd convert {address} x.raw"),
                        &format!("vhd convert a.vhd {address}"),
                        &format!("vhd create {address} --size 1M"),
                        &format!("vhd-diff {address} b.vhd"),
                        &format!("vhd-diff a.vhd b.vhd -o {address}"),
                        &format!("vhd-apply a.vhd {address}"),
                        &format!("vhd-apply a.vhd ab.vhddiff -o {address}"),
                        &format!("vhd-apply a.vhd ab.vhddiff --undo {address}"),
                        &format!("vhd squash ab.vhddiff -o {address}"),
                        &format!("vhd show {address}"),
                        &format!("vhd merge child.vhd -o {address}"),
                        &format!("vhd hash --windows {address} a.vhd"),
                        &format!("vhd snapshot restore --store st tue -o {address}"),
                        &format!(
                            "vhd snapshot create --init --store st --disk w --name n {address}"
                        ),
                        &format!(
                            "vhd snapshot create --store st --disk web --name n --diff {address}"
                        ),
                        &format!("vhd snapshot family {address}"),
                        &format!("vhd snapshot repair --store st --image mon={address}"),
                    ],
                    "this is",
                );
            }
            lab.shell("vhd create -q ./nas:a.vhd --size 1M && vhd info nas:a.vhd")
                .code(0);
            refused(lab, &["vhd info file:///tmp/a.vhd"], "use /tmp/a.vhd");
        },
    },
    Case {
        name: "a signature in an address or in a file's name",
        before: "printed whole",
        now: "nowhere: not in messages, -v, JSON, diffs, manifests or the parser's own words",
        run: |lab| {
            store(lab);
            let url =
                format!("http://127.0.0.1:1/acct/vhds/a.vhd?sv=2&se=2026&sp=r&sig={SECRET}%3D");
            // As wget names what it has got.
            let file = format!("a.vhd?sv=2&sig={SECRET}");
            fs::copy(lab.path("a.vhd"), lab.path(&file)).unwrap();
            fs::copy(lab.path("ab.vhddiff"), lab.path(&format!("d?sig={SECRET}"))).unwrap();
            let mut said = String::new();
            for name in [&url, &file, &format!("{file}.none")] {
                for line in [
                    "vhd -v info '@'",
                    "vhd info '@' --json",
                    "vhd check '@' --json",
                    "vhd -v check '@'",
                    "vhd map '@' --json",
                    "vhd -v hash '@'",
                    "vhd nonsense '@'",
                    "vhd '@'",
                    "vhd -v convert '@' c1.raw --force",
                    "vhd convert a.raw '@'",
                    "vhd -v convert a.raw '@' --force",
                    "vhd-diff '@' b.vhd --json",
                    "vhd-diff '@' b.vhd -o d2 --force --json",
                    "vhd show d2",
                    "vhd show d2 --json",
                    "vhd-apply '@' d2 -v --dry-run --json",
                    "vhd-apply a.vhd '@'",
                    "vhd-apply a.vhd d2 '@'",
                    "vhd-diff a.vhd b.vhd '@'",
                    "vhd info --unknown='@'",
                    "vhd info a.vhd --format '@'",
                    "vhd create '@'",
                    "vhd create '@' --size x",
                    "vhd resize '@' --size 10",
                    "vhd merge '@'",
                    "vhd snapshot create --init --store st2 --disk w --name n '@' --json",
                    "vhd snapshot show --store st2 --json",
                    "vhd snapshot list --store '@'",
                    "vhd snapshot copy --init --store st --to '@'",
                    "VHDKIT_STORE='@' vhd snapshot list",
                    "vhd snapshot show --store st '@'",
                    "vhd snapshot create --init --store st2 --disk w --name '@' a.vhd",
                    "vhd snapshot create --init --store st --disk '@' --name x a.vhd",
                    "vhd info child.vhd --parent '@'",
                    "vhd hash a.vhd --windows '@' --force",
                    "vhd snapshot restore --store st '@' -o x",
                    "vhd snapshot family '@'",
                    "vhd --journal-dir '@' info a.vhd",
                    "vhd man --dir '@'",
                    "vhd snapshot delete --store st mon '@'",
                    "vhd completions '@'",
                ] {
                    let ended = lab.shell(&line.replace('@', name));
                    said.extend(["$ ", line, "\n", &ended.out, &ended.err, "\n"]);
                }
            }
            assert!(!said.contains(SECRET), "{said}");
            let manifest = lab.shell("cat st2/w/*.json; strings d2 2>/dev/null || cat d2");
            assert!(!manifest.out.contains(SECRET), "{}", manifest.out);
            // A command in a hint finds the file all the same.
            lab.shell("vhd info d*sig*").code(3).says("vhd show");
        },
    },
    Case {
        name: "an output that is a folder, in a missing folder, or an input",
        before: "noticed at the end, or without a hint",
        now: "refused before anything is read",
        run: |lab| {
            store(lab);
            fs::create_dir(lab.path("dir")).unwrap();
            for force in ["", " --force"] {
                for output in ["dir", "dir/", "none/", "none/x", "a.raw/x"] {
                    refused(
                        lab,
                        &[
                            &format!("vhd convert a.vhd {output}{force}"),
                            &format!("vhd-diff a.vhd b.vhd -o {output}{force}"),
                            &format!("vhd squash ab.vhddiff -o {output}{force}"),
                            &format!("vhd-apply a.vhd ab.vhddiff -o {output}{force}"),
                            &format!("vhd merge child.vhd -o {output}{force}"),
                            &format!("vhd create {output} --size 1M{force}"),
                            &format!("vhd hash a.vhd --windows {output}{force}"),
                            &format!("vhd snapshot restore --store st tue -o {output}{force}"),
                            &format!("vhd snapshot diff --store st mon tue -o {output}{force}"),
                        ],
                        "folder",
                    );
                }
            }
            refused(
                lab,
                &["vhd-apply a.vhd ab.vhddiff --undo dir"],
                "this is a folder",
            );
            for line in [
                "vhd convert a.vhd a.vhd --force",
                "vhd-diff a.vhd b.vhd -o a.vhd --force",
                "vhd-diff a.vhd b.vhd -o b.vhd --force",
                "vhd-diff --from-child child.vhd -o a.vhd --force",
                "vhd squash ab.vhddiff -o ab.vhddiff --force",
                "vhd-apply a.vhd ab.vhddiff -o a.vhd --force",
                "vhd-apply a.vhd ab.vhddiff -o ab.vhddiff --force",
                "vhd-apply a.vhd ab.vhddiff --undo a.vhd",
                "vhd-apply a.vhd ab.vhddiff --undo ab.vhddiff",
                "vhd merge child.vhd -o child.vhd --force",
                "vhd merge child.vhd -o a.vhd --force",
                "vhd hash a.vhd --windows a.vhd --force",
                "vhd create a.vhd --parent a.vhd --force",
                "vhd snapshot restore --store st tue -o st/web/$(ls st/web | grep -m1 vhddiff) --force",
            ] {
                lab.shell(&format!(
                    "sha256sum a.vhd b.vhd child.vhd ab.vhddiff > sums; {line}"
                ))
                .code(2)
                .says("hint: ");
                lab.shell("sha256sum -c --quiet sums && rm sums").code(0);
            }
        },
    },
    Case {
        name: "nothing on stdin, a diff that was cut off, a packed one, another thing",
        before: "FOLDER/(temporary file): the diff was cut off; hint: get the diff again",
        now: "standard input by name, and what probably happened",
        run: |lab| {
            store(lab);
            for command in [
                "vhd-apply a.vhd -",
                "vhd-apply a.vhd - -o new.vhd",
                "vhd squash - -o new",
                "vhd show -",
                "vhd snapshot create --store st --disk web --name x --diff -",
                "vhd snapshot receive --init --store st",
                "vhd snapshot family -",
            ] {
                let ended = |input: &str| {
                    lab.shell(&format!("{input} | {command}"))
                        .says("(standard input): ")
                        .says("hint: ")
                        .omits("temporary file")
                        .omits("\\\\x")
                };
                ended("true").code(3).says("the input is empty");
                ended("printf '\\x1f\\x8b\\x08\\x00bcdefghijklmnop'")
                    .code(3)
                    .says("packed with gzip")
                    .says("gzip -dc");
                ended("printf '\\x28\\xb5\\x2f\\xfdabcdefghijklmnop'")
                    .code(3)
                    .says("zstd -dc");
                ended("cat child.vhd").code(2).says("VHD image");
            }
            for command in ["vhd-apply a.vhd -", "vhd squash - -o new", "vhd show -"] {
                lab.shell(&format!("head -c 300 ab.vhddiff | {command}"))
                    .code(3)
                    .says("(standard input): ")
                    .says("the command before the pipe failed")
                    .omits("temporary file");
                lab.shell(&format!("vhd snapshot send -q --store st | {command}"))
                    .code(2)
                    .says("vhd snapshot receive accepts it");
            }
            lab.shell("vhd snapshot receive --init --store st < ab.vhddiff")
                .code(2)
                .says("the input is a diff");
        },
    },
    Case {
        name: "a terminal where a diff should come from",
        before: "a bar at 100 percent, then silence",
        now: "refused",
        run: |lab| {
            images(lab);
            for line in [
                "vhd-apply a.vhd -",
                "vhd squash - -o x",
                "vhd show -",
                "vhd snapshot receive --init --store s",
                "vhd snapshot family -",
            ] {
                on_terminal(lab, line)
                    .code(2)
                    .says("doesn't come from a terminal");
            }
        },
    },
    Case {
        name: "an empty folder as a store",
        before: "sound, exit 0",
        now: "exit 2: is the disk mounted?",
        run: |lab| {
            images(lab);
            fs::create_dir_all(lab.path("empty")).unwrap();
            fs::create_dir_all(lab.path("other/folder")).unwrap();
            for store in ["empty", "other"] {
                refused(
                    lab,
                    &[
                        &format!("vhd snapshot list --store {store}"),
                        &format!("vhd snapshot verify --store {store}"),
                        &format!("vhd snapshot verify --read-data --json --store {store}"),
                        &format!("vhd snapshot prune --keep-last 1 --store {store}"),
                        &format!("vhd snapshot copy --init --store {store} --to off"),
                        &format!(
                            "vhd snapshot send --store {store} | cat; exit ${{PIPESTATUS[0]}}"
                        ),
                        &format!("vhd snapshot show --store {store}"),
                        &format!("vhd snapshot restore --store {store} -o x"),
                    ],
                    "mounted",
                );
            }
        },
    },
    Case {
        name: "a new store, a new disk",
        before: "not a word: a mistyped name began a new base",
        now: "a note for each",
        run: |lab| {
            store(lab);
            let create = "vhd snapshot create --init --name x a.vhd";
            lab.shell(&format!("{create} --store ts --disk web"))
                .code(0)
                .says("note: ts: a new store");
            lab.shell(&format!("{create} --store st --disk wbe"))
                .code(0)
                .says("wbe is a new disk");
            lab.shell("vhd snapshot create --init --name wed a.vhd --store st --disk web")
                .code(0)
                .omits("new");
            lab.shell("vhd snapshot copy --init --store st --to off")
                .code(0)
                .says("off: ");
        },
    },
    Case {
        name: "verify without --read-data",
        before: "data read: none: nothing is wrong",
        now: "structure only, and what reads the data",
        run: |lab| {
            store(lab);
            let verify = "vhd snapshot verify --store st";
            lab.shell(verify).code(0).says("web: 2 snapshots, structure only, data not read (--read-data reads it): no problems");
            lab.shell(&format!("{verify} --read-data"))
                .code(0)
                .says("all data read: no problems")
                .omits("not read");
            lab.shell(&format!("{verify} --read-data-subset 50%"))
                .code(0)
                .says("50% of the data read: no problems");
            lab.shell(&format!("{verify} --read-data-subset 50"))
                .code(2)
                .says("50%");
        },
    },
    Case {
        name: "-q when all is well, and when it isn't",
        before: "verify, prune, check and diff print all the same",
        now: "not one byte; what is wrong is still said",
        run: |lab| {
            store(lab);
            for line in [
                "vhd check -q a.vhd b.vhd",
                "vhd-diff -q a.vhd a.raw",
                "vhd snapshot verify -q --store st --read-data",
                "vhd snapshot prune -q --store st --keep-last 5",
                "vhd snapshot diff -q --store st mon mon",
                "vhd convert -q a.vhd q.raw",
                "vhd snapshot copy --init -q --store st --to off",
            ] {
                let ended = lab.shell(line).code(0);
                assert_eq!((ended.out.as_str(), ended.err.as_str()), ("", ""), "{line}");
            }
            for line in [
                "vhd-diff -q a.vhd b.vhd",
                "vhd snapshot diff -q --store st mon tue",
            ] {
                let ended = lab.shell(line).code(1);
                assert_eq!((ended.out.as_str(), ended.err.as_str()), ("", ""), "{line}");
            }
            lab.shell("vhd-diff -q a.vhd b.vhd --format json | grep -q range_count")
                .code(0);
            lab.shell("truncate -s 700 child.vhd; vhd check -q a.vhd child.vhd")
                .says("child.vhd")
                .omits("a.vhd: ");
            lab.shell("echo x >> st/web/000002-tue.vhddiff; vhd snapshot verify -q --store st")
                .code(1)
                .says("tue");
        },
    },
    Case {
        name: "--base-check full that can't be done",
        before: "a note, and with -q silence; exit 0 over a wrong base",
        now: "an error; without being asked for, a warning that -q doesn't silence",
        run: |lab| {
            images(lab);
            lab.shell("vhd-diff -q --no-digest a.vhd b.vhd -o nd")
                .code(0);
            refused(
                lab,
                &[
                    "vhd-apply a.vhd nd --base-check full",
                    "vhd-apply a.vhd nd --base-check full -o n.vhd",
                    "vhd-apply a.vhd nd --base-check full -o - | cat; exit ${PIPESTATUS[0]}",
                ],
                "can't be checked in full",
            );
            lab.shell("vhd-apply -q a.vhd nd -o n.vhd")
                .code(0)
                .says("warning: ");
            lab.shell("vhd-apply -q a.vhd nd --base-check touched -o n2.vhd")
                .code(0)
                .omits("warning: ");
        },
    },
    Case {
        name: "several files, one of them missing",
        before: "the last error decided; a pipe hid it",
        now: "all others are done, the exit code is that of the worst",
        run: |lab| {
            images(lab);
            lab.file(
                "bad.vhd",
                &[&[0; 512][..], b"conectix", &[0xFF; 504]].concat(),
            );
            lab.shell("vhd hash none a.vhd b.vhd")
                .code(2)
                .says("  b.vhd")
                .says("none: ");
            lab.shell("vhd hash a.vhd none bad.vhd b.vhd")
                .code(3)
                .says("  b.vhd")
                .says("none: ");
            lab.shell("vhd hash bad.vhd none b.vhd")
                .code(3)
                .says("  b.vhd");
            lab.shell("vhd check a.vhd none b.vhd")
                .code(2)
                .says("3 images: 2 without errors, 1 not checked");
            lab.shell("vhd check a.vhd b.vhd")
                .code(0)
                .says("2 images: 2 without errors");
        },
    },
    Case {
        name: "several files, and a reader that leaves",
        before: "an error for each; hashing went on",
        now: "quiet, at once",
        run: |lab| {
            images(lab);
            large(lab, "large.raw", 64);
            for command in ["vhd hash", "vhd check", "vhd info", "vhd hash -a sha256"] {
                // The reader is gone before the first line.
                let line = format!(
                    "{command} a.vhd b.vhd none large.raw large.raw large.raw | true; exit ${{PIPESTATUS[0]}}"
                );
                let ended = lab.shell(&format!("sleep 0 | true; ( {line} )"));
                assert!(
                    ended.err.is_empty() || ended.err.contains("none: "),
                    "{command}: {}",
                    ended.err
                );
                assert!(
                    !ended.err.contains("Broken pipe"),
                    "{command}: {}",
                    ended.err
                );
            }
            let mut command = lab.command("vhd", &["hash", "a.vhd", "none", "large.raw"]);
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let ended: Ended = command.stdout(writer).output().unwrap().into();
            assert_eq!((ended.code, ended.err.as_str()), (0, ""));
        },
    },
    Case {
        name: "the progress bar and the first lines of a listing",
        before: "the bar stayed above the listing",
        now: "wiped before anything else is written",
        run: |lab| {
            images(lab);
            large(lab, "large.raw", 32);
            for line in [
                "vhd-diff a.vhd b.vhd",
                "vhd-diff large.raw a.raw",
                "vhd hash a.vhd b.vhd",
                "vhd show ab.vhddiff --ranges",
                "vhd convert large.raw new.raw",
            ] {
                let shown = on_terminal(lab, line).out;
                let bar = |line: &str| line.contains("% ") && line.contains(" of ");
                // What a line shows is what comes after it was last wiped.
                for row in shown.split('\n') {
                    let last = row.rsplit("\u{1b}[2K").next().unwrap_or(row);
                    let text = last
                        .rsplit('\r')
                        .find(|part| !part.is_empty())
                        .unwrap_or(last);
                    assert!(
                        !(bar(last) && (last.contains("START") || text.contains("update"))),
                        "{line}: {shown:?}"
                    );
                    assert!(!bar(last), "{line}: a bar is left: {shown:?}");
                }
            }
        },
    },
    Case {
        name: "Ctrl-C while a new file is made",
        before: "exit 130 without a word",
        now: "what became of it",
        run: |lab| {
            large(lab, "large.raw", 16 << 10);
            for (signal, code, how) in [("INT", 130, "interrupted"), ("TERM", 143, "terminated")] {
                let ended = interrupted(lab, &["convert", "large.raw", "copy.raw"], signal, || {
                    has_temporary(lab)
                });
                assert_eq!(ended.code, code);
                ended.says(&format!("vhd: {how}; copy.raw was not made"));
            }
            lab.file("copy.raw", b"old");
            interrupted(
                lab,
                &["convert", "large.raw", "copy.raw", "--force"],
                "INT",
                || has_temporary(lab),
            )
            .code(130)
            .says("copy.raw is unchanged");
            assert_eq!(lab.read("copy.raw"), b"old");
            lab.shell("vhd snapshot init -q st").code(0);
            let ended = interrupted(
                lab,
                &[
                    "snapshot",
                    "create",
                    "--store",
                    "st",
                    "--disk",
                    "w",
                    "--name",
                    "n",
                    "large.raw",
                ],
                "INT",
                || lab.exists("st/w"),
            );
            ended
                .code(130)
                .says("interrupted; st: complete snapshots are unchanged");
            assert!(!has_temporary(lab));
        },
    },
    Case {
        name: "Ctrl-C in the middle of an apply in place",
        before: "exit 130 without a word of what the image holds",
        now: "unchanged, or half changed with both ways on",
        run: |lab| {
            large(lab, "old.raw", 4 << 10);
            lab.shell("cp --sparse=always old.raw image.raw && cp --sparse=always old.raw new.raw")
                .code(0);
            let new = fs::File::options()
                .write(true)
                .open(lab.path("new.raw"))
                .unwrap();
            for window in 0..4_u64 << 10 {
                use std::os::unix::fs::FileExt as _;
                new.write_all_at(&[2; 4096], window << 22).unwrap();
            }
            lab.shell("vhd-diff -q old.raw new.raw -o d --compress none")
                .code(0);
            let args = ["apply", "image.raw", "d", "--in-place", "journal"];
            // While the journal is being written the image is as it was.
            let ended = interrupted(lab, &args, "INT", || has_temporary(lab));
            if lab.exists("image.raw.undo-journal") {
                ended
                    .code(130)
                    .says("image.raw is half changed")
                    .says("vhd-apply --rollback image.raw");
            } else if ended.code == 130 {
                ended.says("image.raw is unchanged");
            }
            lab.shell("vhd-apply -q --rollback image.raw 2>/dev/null; cp --sparse=always old.raw image.raw").code(0);
            let ended = interrupted(lab, &args, "INT", || lab.exists("image.raw.undo-journal"));
            // It may have been done just before.
            if ended.code == 130 && lab.exists("image.raw.undo-journal") {
                ended
                    .says("image.raw is half changed")
                    .says("hint: ")
                    .says("vhd-apply --rollback image.raw");
                lab.shell("vhd-apply -q image.raw d && cmp image.raw new.raw")
                    .code(0);
            }
        },
    },
    Case {
        name: "mistakes that have a remedy",
        before: "the parser's own words, or: cannot open",
        now: "the command that was meant",
        run: |lab| {
            store(lab);
            for (line, hint) in [
                (
                    "vhd-diff a.vhd b.vhd out.vhddiff",
                    "vhd-diff a.vhd b.vhd -o out.vhddiff",
                ),
                ("vhd-apply a.vhd ab.vhddiff out.vhd", "-o out.vhd"),
                (
                    "vhd-apply a.vhd b.vhd",
                    "takes the base image first, then the diffs",
                ),
                ("vhd create d.vhd 1G", "vhd create d.vhd --size 1G"),
                ("vhd resize d.vhd 64M", "vhd resize d.vhd --size 64M"),
                ("vhd create d.raw --size 0", "512"),
                ("vhd create d.raw --size 10", "512"),
                ("vhd create d.raw --size 10GB", "10G"),
                ("vhd create d.raw --size 1.5G", "1536M"),
                ("vhd resize a.vhd --size +1G", "total size"),
                ("vhd dif a b", "vhd diff"),
                ("vhd restore x", "vhd snapshot restore"),
                ("vhd list", "vhd snapshot list"),
                ("vhd prune", "vhd snapshot prune"),
                ("vhd copy", "vhd snapshot copy"),
                ("vhd verify", "vhd snapshot verify"),
                ("vhd snapshot check", "vhd check"),
                ("vhd a.vhd", "vhd info a.vhd"),
                ("vhd snapshot list", "VHDKIT_STORE"),
                ("VHDKIT_STORE= vhd snapshot list", "VHDKIT_STORE"),
                (
                    "vhd snapshot show --store st st::web@tue",
                    "--store st web@tue",
                ),
                (
                    "vhd resize st::web@tue --size 4M",
                    "vhd snapshot restore --store st web@tue -o tue.vhd",
                ),
                (
                    "vhd check st::web@tue",
                    "vhd snapshot restore --store st web@tue -o tue.vhd",
                ),
                (
                    "vhd-diff a.vhd b.vhd -o st::x",
                    "vhd snapshot create --store st --disk x",
                ),
                ("VHDKIT_STORE=st vhd info web@tue", "::web@tue"),
                ("vhd snapshot list --store st::web", "--store st --disk web"),
                ("vhd-apply a.vhd st::web@tue", "vhd snapshot diff"),
                ("vhd info st", "vhd snapshot list --store st"),
            ] {
                let ended = lab.shell(line);
                assert_eq!(ended.code, 2, "{line}: {}", ended.err);
                assert!(
                    ended.err.contains(hint),
                    "{line}: {hint:?} is missing: {}",
                    ended.err
                );
            }
            lab.shell("vhd-apply ab.vhddiff a.vhd")
                .code(3)
                .says("vhd-apply a.vhd ab.vhddiff");
            lab.shell("vhd snap ls --store st").code(0).says("tue");
            lab.shell("vhd snap rm --store st mon").code(0);
        },
    },
    Case {
        name: "a format that isn't read, in vhd-diff",
        before: "the hint named -f, which vhd-diff hasn't",
        now: "only options that the command has",
        run: |lab| {
            images(lab);
            lab.file("a.vhdx", &[b"vhdxfile", &[0; 4088][..]].concat());
            for line in ["vhd-diff a.vhd a.vhdx", "vhd-diff a.vhdx a.vhd"] {
                lab.shell(line).omits(" -f ").omits("-f raw");
            }
        },
    },
    Case {
        name: "a list of window hashes that is stale, of a name with spaces",
        before: "an unquoted command, without the image, that failed",
        now: "the command that makes it again works",
        run: |lab| {
            images(lab);
            fs::copy(lab.path("a.vhd"), lab.path("web server (1).vhd")).unwrap();
            lab.shell("vhd hash -q --windows 'base list.win' 'web server (1).vhd'; touch -d 2001-01-01 'web server (1).vhd'").code(0);
            let ended =
                lab.shell("vhd-diff --base-digests 'base list.win' 'web server (1).vhd' b.vhd");
            assert_ne!(ended.code, 1, "{}", ended.err);
            let advice = ended.advice("vhd hash");
            let line = advice.first().unwrap();
            lab.shell(line).code(0);
            lab.shell("vhd-diff --base-digests 'base list.win' 'web server (1).vhd' b.vhd")
                .code(1);
        },
    },
    Case {
        name: "-v, -vv and -q twice",
        before: "-vv was refused, and -v told nothing of time",
        now: "how long it took, and how fast",
        run: |lab| {
            images(lab);
            for line in [
                "vhd -v hash a.vhd",
                "vhd convert -vv a.vhd x.raw",
                "vhd-diff -v a.vhd b.vhd -o d",
                "vhd-apply -v a.vhd ab.vhddiff -o y.vhd",
            ] {
                let ended = lab.shell(line).code(0);
                assert!(
                    ended.err.contains("note: took ") && ended.err.contains("/s"),
                    "{line}: {}",
                    ended.err
                );
            }
            lab.shell("vhd hash -qq a.vhd").code(0);
        },
    },
    Case {
        name: "a dry run of an apply that was interrupted",
        before: "would be finished: 0 bytes updated",
        now: "the figures of the run",
        run: |lab| {
            images(lab);
            lab.shell("cp a.raw image.raw && cp a.raw base.raw && vhd-diff -q base.raw b.raw -o d")
                .code(0);
            lab.shell("vhd-apply -q image.raw d --undo undo --in-place journal && mv undo image.raw.undo-journal && cp --sparse=always base.raw image.raw").code(0);
            let figures = |ended: &Ended| {
                let at = ended
                    .err
                    .find("finished: ")
                    .map(|at| at + "finished: ".len());
                ended.err[at.unwrap()..].replace(", verified", "")
            };
            let dry = lab.shell("vhd-apply image.raw d --dry-run").code(0);
            let run = lab.shell("vhd-apply image.raw d").code(0);
            assert_eq!(figures(&dry), figures(&run));
            assert!(!figures(&dry).starts_with("0 bytes"), "{}", dry.err);
        },
    },
    Case {
        name: "what a dry run tells beside what the run does",
        before: "-",
        now: "the same figures",
        run: |lab| {
            store(lab);
            let note = |line: &str| lab.shell(line).code(0);
            let bytes = |ended: &Ended| -> String {
                let words = ended
                    .err
                    .lines()
                    .find(|line| line.contains("updated"))
                    .unwrap_or(&ended.err);
                words[words.rfind(": ").unwrap_or(0)..].to_owned()
            };
            lab.shell("cp a.vhd image.vhd").code(0);
            let (dry, run) = (
                note("vhd-apply image.vhd ab.vhddiff --dry-run"),
                note("vhd-apply image.vhd ab.vhddiff"),
            );
            assert_eq!(bytes(&dry), bytes(&run));
            lab.shell("vhd-apply -q child.vhd ab.vhddiff").code(0);
            let (dry, run) = (
                note("vhd merge child.vhd --dry-run"),
                note("vhd merge child.vhd"),
            );
            assert_eq!(bytes(&dry), bytes(&run));
            let (dry, run) = (
                note("vhd resize b.vhd --size 4M --dry-run"),
                note("vhd resize b.vhd --size 4M"),
            );
            assert_eq!(
                dry.err.replace("would have", "has"),
                run.err.split("vhd: note: Azure").next().unwrap()
            );
            let (dry, run) = (
                note("vhd snapshot prune --store st --keep-last 1 --dry-run"),
                note("vhd snapshot prune --store st --keep-last 1"),
            );
            let decisions = |ended: &Ended| {
                ended
                    .out
                    .lines()
                    .filter(|line| line.contains('@'))
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            assert_eq!(decisions(&dry), decisions(&run));
            assert!(
                dry.out
                    .contains("1 would be kept, 1 snapshot would be deleted")
                    && run.out.contains("1 kept, 1 snapshot deleted")
            );
        },
    },
    Case {
        name: "help: short and long, examples in one piece, the environment in the manual",
        before: "-h of 80 lines; commands cut in two; manual pages without ENVIRONMENT",
        now: "-h fits a screen or so, each example is one line",
        run: |lab| {
            for command in [
                "diff",
                "apply",
                "check",
                "convert",
                "snapshot restore",
                "snapshot send",
                "completions",
            ] {
                let short = lab
                    .shell(&format!("COLUMNS=80 vhd {command} -h"))
                    .code(0)
                    .out;
                assert!(short.lines().count() <= 75, "{short}");
                let long = lab
                    .shell(&format!("COLUMNS=80 vhd {command} --help"))
                    .code(0)
                    .out;
                for help in [&short, &long] {
                    assert!(!help.contains('\u{a0}'), "{help}");
                    let examples = help.split("Examples:\n").nth(1).unwrap_or_default();
                    for line in examples.split("\n\n").next().unwrap_or_default().lines() {
                        let begins = ["vhd", "last=", "at=", "ssh", "zstd"];
                        assert!(
                            begins
                                .iter()
                                .any(|lead| line.trim_start().starts_with(lead)),
                            "{command}: {line:?}"
                        );
                    }
                }
            }
            lab.shell("vhd man --dir man").code(0);
            let page = String::from_utf8(lab.read("man/vhd-snapshot-restore.1")).unwrap();
            for section in ["ENVIRONMENT", "FILES", "SEE ALSO", "EXIT STATUS"] {
                assert!(
                    page.contains(&format!(".SH \"{section}\"")),
                    "{section}: {page}"
                );
            }
            assert!(page.contains("VHDKIT_STORE"), "{page}");
            for code in ["130", "143", "129"] {
                lab.shell("vhd --help").says(code);
            }
        },
    },
    Case {
        name: "completion in bash",
        before: "options only, until a letter was typed; files where a number belongs",
        now: "files where files belong",
        run: |lab| {
            lab.file("my disk.vhd", b"x");
            let complete = |words: &str, at: usize| {
                let cur = words.split(' ').nth(at).unwrap_or("");
                let prev = words.split(' ').nth(at - 1).unwrap();
                lab.shell(&format!(
                    "eval \"$(vhd completions bash)\"; COMP_WORDS=({words}); COMP_CWORD={at}; _vhd vhd '{cur}' {prev} 2>/dev/null; \
                     printf '%s\\n' \"${{COMPREPLY[@]}}\""
                ))
                .code(0)
                .out
            };
            // Nothing is left to the shell, which offers and quotes files.
            assert_eq!(complete("vhd info", 2).trim(), "");
            assert!(complete("vhd", 1).contains("info"));
            assert!(complete("vhd snapshot", 2).contains("restore"));
            assert!(complete("vhd info --", 2).contains("--json"));
            assert!(complete("vhd diff -o", 3).contains("my disk.vhd"));
            assert!(!complete("vhd diff --threads", 3).contains("my disk.vhd"));
        },
    },
];

#[test]
fn names_and_pipes() {
    tell("Names, pipes and what passed for success", CASES);
}
