//! Files as other systems, other users and hostile testers meet them: without holes, with no more permissions than what
//! they were made from, and never waited for.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::disk::{assert_same, disk};
use crate::lab::{Case, Lab, tell};

const MIB: usize = 1 << 20;

/// A disk with data at both ends of a block of 2 MiB, zeros between and behind.
fn holes() -> Vec<u8> {
    let mut bytes = vec![0; 8 * MIB];
    for at in [0, 2 * MIB - 4096, 5 * MIB] {
        bytes[at..at + 4096].fill(7);
    }
    bytes
}

/// Fails unless the file takes the space of all its bytes, and no tool that asks for its holes finds one.
#[track_caller]
fn assert_dense(path: &Path) {
    let file = fs::File::open(path).unwrap();
    let found = file.metadata().unwrap();
    let name = path.display();
    assert!(
        found.blocks() * 512 >= found.len(),
        "{name}: {} blocks of {} bytes",
        found.blocks(),
        found.len()
    );
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
    assert_eq!(hole, found.len(), "{name}: a hole at {hole}");
}

/// Makes two images with holes, a diff, a child and a store.
fn ground(lab: &Lab) {
    let mut new = holes();
    new[0..4096].fill(0);
    new[6 * MIB..6 * MIB + 512].fill(9);
    lab.file("a.raw", &holes());
    lab.file("b.raw", &new);
    lab.shell(
        "vhd convert a.raw a.vhd && vhd convert a.raw f.vhd -O fixed && vhd-diff a.raw b.raw -o ab.vhddiff && \
         vhd-apply a.vhd ab.vhddiff -o child.vhd -O differencing && \
         for n in a b; do vhd snapshot create --store S --disk w --name $n $n.raw; done",
    )
    .code(0);
}

/// A command that makes or changes `out` without holes, and what it must read as.
const DENSE: &[(&str, &str, &str)] = &[
    ("vhd convert a.raw out.vhd --dense", "out.vhd", "a"),
    (
        "vhd convert a.raw out.vhd -O fixed --dense --verify",
        "out.vhd",
        "a",
    ),
    ("vhd convert a.vhd out.raw --dense", "out.raw", "a"),
    ("vhd convert a.raw out.vhd --azure --dense", "out.vhd", "a"),
    ("vhd convert a.raw a.vhd --force --dense", "a.vhd", "a"),
    ("vhd create out.vhd --size 8M --dense", "out.vhd", "zero"),
    (
        "vhd create out.vhd --size 8M -O fixed --dense",
        "out.vhd",
        "zero",
    ),
    ("vhd create out.raw --size 8M --dense", "out.raw", "zero"),
    ("vhd create out.vhd --parent a.vhd --dense", "out.vhd", "a"),
    (
        "vhd-apply a.raw ab.vhddiff -o out.raw --dense",
        "out.raw",
        "b",
    ),
    (
        "vhd-apply f.vhd ab.vhddiff -o out.vhd --dense --verify",
        "out.vhd",
        "b",
    ),
    (
        "vhd-apply a.vhd ab.vhddiff -o out.vhd --dense",
        "out.vhd",
        "b",
    ),
    (
        "vhd-apply a.vhd ab.vhddiff -o out.vhd -O differencing --dense",
        "out.vhd",
        "b",
    ),
    ("vhd-apply a.raw ab.vhddiff --dense", "a.raw", "b"),
    (
        "vhd-apply a.raw ab.vhddiff --dense --in-place journal",
        "a.raw",
        "b",
    ),
    (
        "vhd-apply f.vhd ab.vhddiff --dense --in-place copy --verify",
        "f.vhd",
        "b",
    ),
    (
        "vhd-apply a.vhd ab.vhddiff --dense --in-place journal --verify",
        "a.vhd",
        "b",
    ),
    (
        "vhd snapshot restore --store S w@b -o out.raw --dense",
        "out.raw",
        "b",
    ),
    (
        "vhd snapshot restore --store S w@b -o out.vhd --dense",
        "out.vhd",
        "b",
    ),
    (
        "vhd snapshot restore --store S w@b -o out.vhd -O fixed --dense",
        "out.vhd",
        "b",
    ),
    (
        "vhd snapshot restore --store S w@b -o a.raw --in-place --dense",
        "a.raw",
        "b",
    ),
    (
        "vhd snapshot restore --store S w@b -o out.vhd --parent a.vhd --dense",
        "out.vhd",
        "b",
    ),
    ("vhd merge child.vhd -o out.vhd --dense", "out.vhd", "b"),
    ("vhd merge child.vhd --dense", "a.vhd", "b"),
    ("vhd resize a.raw --size 12M --dense", "a.raw", "grown"),
    ("vhd resize f.vhd --size 12M --dense", "f.vhd", "grown"),
    ("vhd resize a.vhd --size 12M --dense", "a.vhd", "grown"),
    ("vhd resize a.vhd --size 6M --dense", "a.vhd", "cut"),
];

/// Runs every command with `--dense` in a new folder, made by `lab`.
pub(crate) fn every_dense_command(lab: impl Fn() -> Lab) {
    for (command, out, content) in DENSE {
        let lab = lab();
        ground(&lab);
        lab.shell(command).code(0);
        assert_dense(&lab.path(out));
        let expected = match *content {
            "a" => holes(),
            "b" => lab.read("b.raw"),
            "zero" => vec![0; 8 * MIB],
            "grown" => [holes(), vec![0; 4 * MIB]].concat(),
            _ => holes()[..6 * MIB].to_vec(),
        };
        lab.shell(&format!("vhd check {out} && vhd convert {out} found.raw"))
            .code(0);
        assert_same(&lab.read("found.raw"), &expected, command);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Commands that make files of others: those that are made from, and what is made.
const MADE: &[(&str, &[&str], &[&str])] = &[
    ("vhd convert a.raw out.vhd", &["a.raw"], &["out.vhd"]),
    (
        "vhd convert a.raw out.vhd --azure --dense",
        &["a.raw"],
        &["out.vhd"],
    ),
    ("vhd convert child.vhd out.raw", &["a.vhd"], &["out.raw"]),
    ("vhd convert b.raw a.raw --force", &["b.raw"], &["a.raw"]),
    ("vhd convert b.raw a.raw --force", &["a.raw"], &["a.raw"]),
    (
        "vhd create out.vhd --parent a.vhd",
        &["a.vhd"],
        &["out.vhd"],
    ),
    (
        "vhd-apply a.raw ab.vhddiff -o out.raw",
        &["a.raw"],
        &["out.raw"],
    ),
    (
        "vhd-apply a.raw ab.vhddiff -o out.raw",
        &["ab.vhddiff"],
        &["out.raw"],
    ),
    (
        "vhd-apply a.vhd ab.vhddiff -o out.vhd -O differencing",
        &["a.vhd"],
        &["out.vhd"],
    ),
    (
        "vhd-apply a.raw ab.vhddiff --undo u.vhddiff",
        &["a.raw"],
        &["u.vhddiff"],
    ),
    (
        "vhd-apply a.raw ab.vhddiff --in-place journal --undo u.vhddiff",
        &["a.raw"],
        &["u.vhddiff"],
    ),
    (
        "vhd-apply a.raw ab.vhddiff --in-place copy --undo u.vhddiff",
        &["a.raw"],
        &["u.vhddiff"],
    ),
    (
        "vhd-diff a.raw b.raw -o out.vhddiff",
        &["a.raw"],
        &["out.vhddiff"],
    ),
    (
        "vhd-diff a.raw b.raw -o out.vhddiff --reversible",
        &["b.raw"],
        &["out.vhddiff"],
    ),
    (
        "vhd-diff a.raw b.raw -o ab.vhddiff --force",
        &["ab.vhddiff"],
        &["ab.vhddiff"],
    ),
    (
        "vhd-diff --from-child child.vhd -o out.vhddiff",
        &["child.vhd"],
        &["out.vhddiff"],
    ),
    (
        "vhd-diff S::w@a S::w@b -o out.vhddiff",
        &["S/w/000001-a.vhd"],
        &["out.vhddiff"],
    ),
    (
        "vhd squash ab.vhddiff -o out.vhddiff",
        &["ab.vhddiff"],
        &["out.vhddiff"],
    ),
    (
        "vhd hash a.raw --windows out.windows",
        &["a.raw"],
        &["out.windows"],
    ),
    (
        "vhd merge child.vhd -o out.vhd",
        &["child.vhd"],
        &["out.vhd"],
    ),
    ("vhd merge child.vhd -o out.vhd", &["a.vhd"], &["out.vhd"]),
    (
        "vhd snapshot restore --store S w@b -o out.raw",
        &["S/w/000001-a.vhd"],
        &["out.raw"],
    ),
    (
        "vhd snapshot restore --store S w@b -o out.raw",
        &["S/w/000002-b.vhddiff"],
        &["out.raw"],
    ),
    (
        "vhd snapshot restore --store S w@b -o out.vhd --parent a.vhd",
        &["S/w/000002-b.vhddiff"],
        &["out.vhd"],
    ),
    (
        "vhd snapshot diff --store S --disk w a b -o out.vhddiff",
        &["S/w/000001-a.vhd"],
        &["out.vhddiff"],
    ),
    (
        "printf x >> a.vhd; vhd check a.vhd --repair >/dev/null",
        &["a.vhd"],
        &["a.vhd.before-repair"],
    ),
];

fn every_output_under_every_umask(lab: &Lab) {
    ground(lab);
    lab.shell("mkdir keep; cp -a a.raw b.raw a.vhd f.vhd child.vhd ab.vhddiff S keep")
        .code(0);
    for (command, inputs, outputs) in MADE {
        for limit in [0o600, 0o640, 0o644] {
            for umask in [0o022, 0o077, 0o000] {
                lab.shell("find . -maxdepth 1 -type f -delete; rm -rf S; cp -a keep/. .")
                    .code(0);
                for input in *inputs {
                    set_mode(&lab.path(input), limit);
                }
                lab.shell(&format!("umask {umask:03o}; {command}")).code(0);
                for output in *outputs {
                    let found = mode(&lab.path(output));
                    // All else was made under a umask of 022.
                    let most = 0o644 & limit;
                    assert_eq!(
                        found & !most,
                        0,
                        "{command}: {found:o}, {limit:o}, {umask:o}"
                    );
                    // An image that is replaced keeps what it had.
                    let expected = if *output == "a.raw" {
                        most
                    } else {
                        most & !umask
                    };
                    assert_eq!(
                        found, expected,
                        "{command}: {found:o}, {limit:o}, {umask:o}"
                    );
                }
            }
        }
    }
}

/// Names at which something else is than a file.
fn special(lab: &Lab) -> [&'static str; 4] {
    lab.shell("mkfifo pipe; ln -s pipe link; ln -s /dev/null null; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'")
        .code(0);
    ["pipe", "link", "null", "sock"]
}

/// A name of so many bytes that ends in `.raw`.
fn long_name(len: usize) -> String {
    format!("{}.raw", "n".repeat(len - 4))
}

const CASES: &[Case] = &[
    Case {
        name: "a disk with zeros in a block, for Windows: every command that writes an image, with --dense",
        before: "no such option; fixed and dynamic files always with holes",
        now: "every byte is stored, no tool finds a hole, and the disk is the same",
        run: |_| every_dense_command(Lab::new),
    },
    Case {
        name: "the same without --dense",
        before: "holes",
        now: "holes, as before",
        run: |lab| {
            ground(lab);
            let found = fs::metadata(lab.path("f.vhd")).unwrap();
            assert!(found.blocks() * 512 < found.len());
        },
    },
    Case {
        name: "--dense where there isn't the space",
        before: "no such option",
        now: "exit 2 before anything is written, and nothing is left",
        run: |lab| {
            for command in [
                "vhd create x.raw --size 900T --dense",
                "vhd create x.vhd -O fixed --size 900T --dense",
            ] {
                let before = lab.names();
                lab.shell(command).code(2);
                assert_eq!(lab.names(), before);
            }
            lab.shell("truncate -s 4M a.raw").code(0);
            lab.shell("vhd resize a.raw --size 15T --dense").code(2);
            assert_eq!(lab.read("a.raw").len(), 4 * MIB);
        },
    },
    Case {
        name: "vhd resize cuts a dynamic VHD: its note",
        before: "\"vhd convert makes a file without holes\", which it doesn't",
        now: "says what became of the space; what it advises does what it says",
        run: |lab| {
            lab.file("a.raw", &disk(3, 12 * MIB));
            lab.shell("vhd convert a.raw a.vhd").code(0);
            lab.shell("vhd resize a.vhd --size 4M --allow-data-loss")
                .code(0)
                .omits("without holes");
            lab.shell("vhd convert a.vhd out.vhd --dense").code(0);
            assert_dense(&lab.path("out.vhd"));
        },
    },
    Case {
        name: "outputs of all commands made from files of 0600, 0640 and 0644, under umasks 022, 077 and 000",
        before: "0644 whatever the input was: a diff, a list or saved bytes of a private disk for all to read",
        now: "never more than the umask, and every file that it is made from, allow",
        run: every_output_under_every_umask,
    },
    Case {
        name: "an output while it is written",
        before: "a temporary file of 0644",
        now: "nobody else can open it before it has its name",
        run: |lab| {
            ground(lab);
            lab.shell("strace -f -e trace=openat -o log vhd convert a.raw out.raw")
                .code(0);
            let log = fs::read_to_string(lab.path("log")).unwrap();
            let made: Vec<&str> = log.lines().filter(|l| l.contains("O_CREAT")).collect();
            assert!(
                made.iter().any(|line| line.contains(".vhdkit-")),
                "{made:?}"
            );
            for line in made.iter().filter(|line| line.contains(".vhdkit-")) {
                assert!(line.contains("0600"), "{line}");
            }
        },
    },
    Case {
        name: "pipes, sockets and devices where a file is meant",
        before: "a pipe as list waits for its writer; with --force, /dev/null is replaced by a file",
        now: "exit 2 at once, and what was there is there",
        run: |lab| {
            ground(lab);
            for name in special(lab) {
                for command in [
                    "vhd info X",
                    "vhd hash X",
                    "vhd check X",
                    "vhd map X",
                    "vhd show X",
                    "vhd convert X out.raw",
                    "vhd resize X --size 4M",
                    "vhd merge X",
                    "vhd create out.vhd --parent X",
                    "vhd-diff X b.raw",
                    "vhd-diff a.raw X",
                    "vhd-diff a.raw b.raw --base-digests X",
                    "vhd-apply X ab.vhddiff",
                    "vhd-apply a.raw X",
                    "vhd-apply a.raw X -o out.raw",
                    "vhd squash X -o out.vhddiff",
                    "vhd check a.vhd --take-back X",
                    "vhd convert child.vhd out.raw --parent X",
                    "vhd snapshot create --store S --disk w --name c X",
                    "vhd snapshot family X",
                    "vhd convert a.raw X --force",
                    "vhd convert a.raw X",
                    "vhd create X --size 4M --force",
                    "vhd-apply a.raw ab.vhddiff -o X --force",
                    "vhd-apply a.raw ab.vhddiff --undo X",
                    "vhd-diff a.raw b.raw -o X --force",
                    "vhd squash ab.vhddiff -o X --force",
                    "vhd hash a.raw --windows X --force",
                    "vhd snapshot restore --store S w@a -o X --force",
                    "vhd snapshot restore --store S w@a -o X --in-place",
                    "vhd snapshot diff --store S --disk w a b -o X --force",
                    "vhd merge child.vhd -o X --force",
                ] {
                    let command = command.replace('X', name);
                    let ended = lab.shell(&format!("timeout 20 {command}"));
                    assert!(matches!(ended.code, 2 | 3), "{command}: {ended:?}");
                    let kept = lab.path(name).symlink_metadata().unwrap();
                    assert!(!kept.is_file(), "{command}");
                }
            }
            let null = fs::metadata("/dev/null").unwrap();
            assert!(!null.is_file());
        },
    },
    Case {
        name: "an output whose name no file can have",
        before: "found out when all the work is done",
        now: "exit 2 at once",
        run: |lab| {
            ground(lab);
            let name = long_name(300);
            for command in [
                "vhd convert a.raw X",
                "vhd-diff a.raw b.raw -o X",
                "vhd squash ab.vhddiff -o X",
                "vhd hash a.raw --windows X",
                "vhd-apply a.raw ab.vhddiff --undo X",
                "vhd-apply a.raw ab.vhddiff -o X",
            ] {
                lab.shell(&command.replace('X', &name))
                    .code(2)
                    .says("too long");
            }
            assert_same(&lab.read("a.raw"), &holes(), "a.raw");
        },
    },
    Case {
        name: "images whose names have 240 to 255 bytes",
        before: "from 243 bytes on: exit 2, no journal can have that name; not even info",
        now: "everything works: journals and saved bytes have a shorter name",
        run: |lab| {
            ground(lab);
            for len in [240, 242, 243, 250, 255] {
                let name = long_name(len);
                lab.shell(&format!(
                    "cp a.raw {name}; vhd info {name} && vhd hash {name} && vhd check {name}"
                ))
                .code(0);
                lab.shell(&format!("vhd-diff {name} b.raw -o d.vhddiff --force"))
                    .code(0);
                // Interrupted, it bars the image, and is taken back or finished.
                lab.shell(&format!(
                    "strace -f -qq -o /dev/null -e inject=fsync:error=EIO:when=1+ -P {name} \
                     vhd-apply {name} ab.vhddiff --in-place journal; vhd hash {name}"
                ))
                .code(5);
                lab.shell(&format!("vhd-apply --rollback {name} && cmp {name} a.raw"))
                    .code(0);
                for way in ["journal", "copy"] {
                    lab.shell(&format!(
                        "cp a.raw {name}; vhd-apply {name} ab.vhddiff --in-place {way} && cmp {name} b.raw"
                    ))
                    .code(0);
                }
                lab.shell(&format!(
                    "cp a.vhd {name}; printf x >> {name}; vhd check {name} --repair >/dev/null; vhd check {name}; rm {name} *.before-repair"
                ))
                .code(0);
            }
        },
    },
];

#[test]
fn files_for_other_systems_and_other_users() {
    tell(
        "Files for other systems, other users and hostile testers",
        CASES,
    );
}
