//! Files as other systems, other users and hostile testers meet them: without holes, with no more permissions than what
//! they were made from, and never waited for.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::disk::{assert_same, disk};
use crate::mounts::Mounted;
use crate::reports::lab::{Case, Lab, tell};
use crate::sections::{complete, cut, put_u64, seal, u64_at};

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
         vhd snapshot init -q --store-version 1 S; for n in a b; do vhd snapshot create --store S --disk w --name $n $n.raw; done",
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
    (
        "vhd convert a.raw a.vhd --force --force --dense",
        "a.vhd",
        "a",
    ),
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
        "vhd-apply a.vhd ab.vhddiff --dense --in-place journal --verify --force",
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
    (
        "vhd resize a.vhd --size 12M --dense --force",
        "a.vhd",
        "grown",
    ),
    ("vhd resize a.vhd --size 6M --dense --force", "a.vhd", "cut"),
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

/// Makes `disk.raw` of `size` bytes, with a GPT and data in its partition.
pub(crate) fn gpt_disk(lab: &Lab, size: u64, partition: &str) {
    lab.shell(&format!(
        "rm -f disk.raw; truncate -s {size} disk.raw && PATH=$PATH:/usr/sbin:/sbin sgdisk -n {partition} disk.raw >/dev/null && \
         printf data | dd of=disk.raw bs=512 seek=3000 conv=notrunc status=none"
    ))
    .code(0);
}

/// Fails unless `sgdisk` finds no problem on the disk in `image`, and its partition holds its data.
#[track_caller]
fn sound(lab: &Lab, image: &str) {
    lab.shell(&format!(
        "vhd check {image} && vhd convert {image} looked.raw --force && PATH=$PATH:/usr/sbin:/sbin sgdisk -v looked.raw"
    ))
    .code(0)
    .says("No problems found");
    let looked = lab.read("looked.raw");
    assert_eq!(&looked[3000 * 512..3000 * 512 + 4], b"data");
}

/// Writes a diff to `name` that makes a disk of `from` bytes one of `to`, and clears all of it.
fn long_clear(lab: &Lab, name: &str, to: u64) {
    let size = to.to_string();
    lab.shell(&format!("truncate -s 8M grown.raw; cp a.raw from.raw; vhd-diff from.raw grown.raw -o {name} --no-digest --force"))
        .code(0);
    let mut parts = cut(&lab.read(name));
    let tail = parts.pop().unwrap();
    parts.truncate(1);
    // The sizes of base and target.
    for at in [32, 40] {
        assert_eq!(u64_at(&parts[0], at), 8 << 20, "{size}");
    }
    put_u64(&mut parts[0], 40, to);
    let mut clear = b"CLER".to_vec();
    clear.extend([0; 12]);
    clear.extend(0_u64.to_be_bytes());
    clear.extend(to.to_be_bytes());
    clear.extend([0; 36]);
    parts.push(clear);
    let diff = seal(&complete(parts, &tail[56..128]));
    fs::write(lab.path(name), diff).unwrap();
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
        name: "convert --azure of a GPT disk of 24 MiB and 3584 bytes",
        before: "zeros are added; sgdisk -v: the secondary header isn't at the end of the disk; no word of it",
        now: "a note with a command that mends it; --fix-gpt does so at once; sgdisk finds no problem",
        run: |lab| {
            gpt_disk(lab, (24 << 20) + 3584, "1:2048:40000");
            lab.shell("vhd convert disk.raw up.vhd --azure")
                .code(0)
                .says("is not at the end");
            let advised = lab
                .shell("vhd convert disk.raw up.vhd --azure --force")
                .code(0)
                .advice("vhd resize");
            lab.shell(&advised[0])
                .code(0)
                .says("is at the end of the disk now");
            sound(lab, "up.vhd");
            lab.shell("vhd convert disk.raw fix.vhd --azure --fix-gpt --verify")
                .code(0);
            sound(lab, "fix.vhd");
            lab.shell("vhd convert disk.raw same.vhd --fix-gpt")
                .code(0)
                .omits("GPT");
            lab.shell("vhd convert same.vhd same.raw && cmp same.raw disk.raw")
                .code(0);
        },
    },
    Case {
        name: "vhd resize of GPT disks: longer, shorter, and by less than the table takes; raw, fixed, dynamic",
        before: "not a word of the backup; cutting was refused because of it",
        now: "a note, or with --fix-gpt a table that sgdisk finds no problem in",
        run: |lab| {
            for (format, size) in [
                ("raw", "64M"),
                ("fixed", "32770K"),
                ("dynamic", "64M"),
                ("dynamic", "25M"),
                ("raw", "25M"),
                ("fixed", "25M"),
            ] {
                gpt_disk(lab, 32 << 20, "1:2048:40000");
                lab.shell(&format!(
                    "rm -f d.img; vhd convert disk.raw d.img -O {format}"
                ))
                .code(0);
                let fix = format!("vhd resize d.img --size {size} --fix-gpt");
                lab.shell(&format!("{fix} --dry-run"))
                    .code(0)
                    .says("would be moved");
                lab.shell(&fix)
                    .code(0)
                    .says("is at the end of the disk now");
                sound(lab, "d.img");
                // Once more there is nothing to do.
                lab.shell(&fix).code(0).omits("GPT");
                lab.shell("vhd resize d.img --size 128M --json")
                    .code(0)
                    .says("\"gpt_backup\": \"elsewhere\"");
            }
        },
    },
    Case {
        name: "--fix-gpt where it can't be clean: no room, data in the way, a damaged table, a disk without one",
        before: "no such option",
        now: "refused before anything is written, or said that there is nothing to do",
        run: |lab| {
            gpt_disk(lab, 32 << 20, "1:2048:60000");
            let whole = lab.read("disk.raw");
            lab.shell("vhd resize disk.raw --size 20M --fix-gpt --allow-data-loss")
                .code(2)
                .says("no room");
            lab.file("data.raw", &{
                let mut data = whole.clone();
                data[33_280_000] = 1;
                data
            });
            lab.shell("vhd resize data.raw --size 32513K --fix-gpt --allow-data-loss")
                .code(2)
                .says("there is data");
            lab.file("bad.raw", &{
                let mut bad = whole.clone();
                bad[600] ^= 1;
                bad
            });
            for command in [
                "vhd resize bad.raw --size 64M",
                "vhd convert bad.raw out.vhd",
            ] {
                lab.shell(&format!("{command} --fix-gpt"))
                    .code(3)
                    .says("checksum");
            }
            assert!(!lab.exists("out.vhd"));
            assert_same(&lab.read("disk.raw"), &whole, "disk.raw");
            assert_eq!(lab.read("data.raw").len(), whole.len());
            lab.file("none.raw", &holes());
            lab.shell("vhd resize none.raw --size 64M --fix-gpt")
                .code(0)
                .says("nothing to do");
        },
    },
    Case {
        name: "a diff of 500 bytes that clears a pebibyte, over a small base",
        before: "2.5 s for each TiB: three quarters of an hour",
        now: "a few seconds, in place, as a count, as a check and squashed; the digest of an empty pebibyte is one of them",
        run: |lab| {
            lab.shell("truncate -s 15T big.raw && printf x | dd of=big.raw bs=1 seek=1000000 conv=notrunc status=none && cp --sparse=always big.raw new.raw && printf y | dd of=new.raw bs=1 seek=14000000000000 conv=notrunc status=none")
                .code(0);
            lab.shell("vhd-diff big.raw new.raw -o d.vhddiff && timeout 60 vhd-apply big.raw d.vhddiff --in-place journal").code(0);
            lab.file("a.raw", &holes());
            long_clear(lab, "clear.vhddiff", 1 << 50);
            for command in [
                "vhd show clear.vhddiff",
                "vhd-apply a.raw clear.vhddiff --dry-run --base-check touched",
                "vhd squash clear.vhddiff -o squashed.vhddiff",
            ] {
                let ended = lab.shell(&format!("timeout 120 {command}"));
                assert_eq!(ended.code, 0, "{command}: {ended:?}");
            }
            // As large as the file system takes.
            long_clear(lab, "clear.vhddiff", 15 << 40);
            for command in [
                "vhd-apply a.raw clear.vhddiff -o out.raw --base-check touched",
                "vhd-apply a.raw clear.vhddiff --base-check touched --verify --in-place journal --undo back.vhddiff",
                "vhd hash a.raw",
                "vhd-diff a.raw out.raw",
            ] {
                let ended = lab.shell(&format!("timeout 60 {command}"));
                assert_eq!(ended.code, 0, "{command}: {ended:?}");
            }
            assert_eq!(fs::metadata(lab.path("out.raw")).unwrap().len(), 15 << 40);
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
                    "vhd snapshot create --init --store S --disk w --name c X",
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

#[test]
#[ignore = "mounts file systems, which needs root"]
fn files_without_holes_on_other_file_systems() {
    for mounted in Mounted::all(&["xfs", "btrfs", "ext4"]) {
        every_dense_command(|| Lab::within(&mounted.path()));
    }
}
