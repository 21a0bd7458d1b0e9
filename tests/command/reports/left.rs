//! Odd names, odd files and odd orders: what nobody listed and somebody will type.

use std::fs;

use crate::reports::lab::{Case, Lab, tell};
use crate::reports::pipes::{interrupted, large};
use crate::reports::samples::fixed;

const SIZE: usize = 4 << 20;

/// Two disks as fixed VHDs, the diff between them, and a child of the first.
fn images(lab: &Lab) {
    let mut disk = vec![0; SIZE];
    for at in (0..SIZE).step_by(65536) {
        disk[at..at + 512].fill(u8::try_from(at >> 16).unwrap() | 1);
    }
    lab.file("a.vhd", &fixed(&disk));
    disk[8192..9216].fill(7);
    lab.file("b.vhd", &fixed(&disk));
    lab.shell("vhd-diff -q a.vhd b.vhd -o d && vhd create -q c.avhd --parent a.vhd")
        .code(0);
}

/// A list as the cloud prints it: name, whether it is incremental, disk and unique id of each.
fn list(lab: &Lab, name: &str, snapshots: &[(&str, bool, &str, &str)]) {
    let one = |(name, incremental, disk, id): &(&str, bool, &str, &str)| {
        format!(
            r#"{{"name": "{name}", "timeCreated": "2026-11-20T06:00:00Z", "incremental": {incremental}, "creationData":
            {{"sourceResourceId": "/subscriptions/1/disks/{disk}", "sourceUniqueId": "{id}"}}}}"#
        )
    };
    let all: Vec<String> = snapshots.iter().map(one).collect();
    lab.file(name, format!("[{}]", all.join(",")).as_bytes());
}

const CASES: &[Case] = &[
    Case {
        name: "family: several disks, none of that name, the name of a disk, a list without any",
        before: "the ids were to be omitted or named, none of which was shown; a name fitted nothing",
        now: "each is listed, with a command that chooses one; the name of a disk is enough",
        run: |lab| {
            let all = [
                ("web1", true, "web", "u1"),
                ("web2", false, "web", "u1"),
                ("old", true, "web", "u0"),
                ("db1", true, "db", "u2"),
                ("odd", true, "a-db", "u3"),
            ];
            list(lab, "my list.json", &all);
            for (options, disks) in [
                ("", 4),
                ("--source-resource-id WEB", 2),
                ("--source-resource-id nope", 4),
                ("--source-unique-id nope", 4),
                ("--source-resource-id db --source-unique-id u1", 4),
            ] {
                let line = format!("vhd snapshot family 'my list.json' {options}");
                let ended = lab
                    .shell(&line)
                    .code(2)
                    .says("1 snapshot is not incremental");
                let listed = ended.err.matches(", source unique id ").count();
                assert_eq!(listed, disks, "{line}\n{}", ended.err);
                let advice = ended.advice("vhd");
                lab.shell(&advice[0]).code(0).says("1 snapshot");
            }
            for name in ["db", "disks/db", "DB", "/subscriptions/1/disks/db"] {
                lab.shell(&format!(
                    "vhd snapshot family 'my list.json' --source-resource-id {name}"
                ))
                .code(0)
                .says("db1")
                .omits("odd");
            }
            for empty in ["[]", "  []\n"] {
                lab.file("empty.json", empty.as_bytes());
                lab.shell("vhd snapshot family empty.json")
                    .code(2)
                    .says("no incremental snapshot")
                    .says("hint: ");
            }
        },
    },
    Case {
        name: "hash --stamp of a file that can't be written",
        before: "all of it was read, then exit 3 without the reason",
        now: "exit 2 with the reason, before it is read",
        run: |lab| {
            // A program that runs can't be written by anybody.
            lab.shell("cp $(command -v sleep) x.raw && chmod u+w x.raw && truncate -s %4096 x.raw")
                .code(0);
            lab.shell(
                "./x.raw 60 & sleep 0.2; vhd hash --stamp x.raw; code=$?; kill $!; exit $code",
            )
            .code(2)
            .says("cannot open for writing: Text file busy")
            .omits("  x.raw");
        },
    },
    Case {
        name: "a folder where an image is needed: every command",
        before: "Is a directory (os error 21)",
        now: "this is a folder, exit 2",
        run: |lab| {
            images(lab);
            fs::create_dir(lab.path("dir")).unwrap();
            for line in [
                "vhd info dir",
                "vhd check dir",
                "vhd check --repair dir",
                "vhd check a.vhd --take-back dir",
                "vhd map dir",
                "vhd hash dir",
                "vhd hash --stamp dir",
                "vhd hash --windows dir a.vhd",
                "vhd convert dir x.raw",
                "vhd convert a.vhd dir --force",
                "vhd create dir --size 1M --force",
                "vhd create x.vhd --parent dir",
                "vhd resize dir --size 1M",
                "vhd merge dir",
                "vhd merge c.avhd -o dir --force",
                "vhd rebase dir --parent a.vhd",
                "vhd rebase c.avhd --parent dir",
                "vhd show dir",
                "vhd squash dir d -o x",
                "vhd squash d -o dir --force",
                "vhd-diff dir a.vhd",
                "vhd-diff a.vhd dir",
                "vhd-diff a.vhd b.vhd -o dir --force",
                "vhd-diff --from-child dir",
                "vhd-apply dir d",
                "vhd-apply a.vhd dir",
                "vhd-apply a.vhd d -o dir --force",
                "vhd-apply a.vhd d --undo dir",
                "vhd snapshot create --init --store s --disk w --name n dir",
                "vhd snapshot family dir",
            ] {
                let before = lab.names();
                lab.shell(line).code(2).says("this is a folder");
                assert_eq!(lab.names(), before, "{line}");
            }
        },
    },
    Case {
        name: "a disk with a GPT that became longer by a merge, an apply, a restore in place",
        before: "only convert and resize said that its backup isn't at the end",
        now: "all say it, with the command that moves it",
        run: |lab| {
            if lab
                .shell("PATH=$PATH:/usr/sbin:/sbin command -v sgdisk")
                .code
                != 0
            {
                println!("not tried: sgdisk is missing");
                return;
            }
            crate::reports::files::gpt_disk(lab, 8 << 20, "1:2048:0");
            lab.shell("vhd convert -q disk.raw a.vhd && vhd convert -q disk.raw b.vhd && vhd convert -q disk.raw c.vhd")
                .code(0);
            lab.shell("vhd snapshot create -q --init --store s --disk w --name small a.vhd")
                .code(0);
            lab.shell("vhd resize -q b.vhd --size 12M && vhd-diff -q a.vhd b.vhd -o d")
                .code(0);
            lab.shell("vhd snapshot create -q --init --store s --disk w --name large b.vhd")
                .code(0);
            lab.shell(
                "vhd create -q child.vhd --parent a.vhd && vhd resize -q child.vhd --size 12M",
            )
            .code(0);
            for (line, image) in [
                ("vhd-apply a.vhd d -o new.vhd", "new.vhd"),
                ("vhd-apply c.vhd d", "c.vhd"),
                (
                    "vhd snapshot restore --store s w@large -o disk.raw --in-place",
                    "disk.raw",
                ),
            ] {
                let ended = lab.shell(line).code(0);
                let lead =
                    format!("{image}: the backup of the partition table (GPT) is not at the end");
                assert!(ended.err.contains(&lead), "{line}\n{}", ended.err);
                let advice = ended.advice("vhd resize");
                lab.shell(&advice[0]).code(0);
                lab.shell(&format!(
                    "vhd convert -q --force {image} looked.raw && PATH=$PATH:/usr/sbin:/sbin sgdisk -v looked.raw"
                ))
                .code(0)
                .says("No problems found");
            }
        },
    },
    Case {
        name: "a disk above 2040 GiB in a store, whose guest wrote the start of a qcow2 image and the end of a VHD",
        before: "its raw base was judged by those bytes, and refused",
        now: "it is raw, as its name says: verify, hash, restore",
        run: |lab| {
            use std::os::unix::fs::FileExt as _;
            let size = 2041_u64 << 30;
            let file = fs::File::create(lab.path("x.raw")).unwrap();
            file.set_len(size).unwrap();
            file.write_all_at(b"QFI\xFB\0\0\0\x03", 0).unwrap();
            file.write_all_at(&crate::reports::samples::footer(size - 512), size - 512)
                .unwrap();
            lab.shell("vhd convert -q -f raw x.raw x.vhd -O fixed && vhd snapshot create -q --init --store s --disk d --name n x.vhd")
                .code(0);
            lab.shell("vhd snapshot verify --store s --read-data")
                .code(0);
            lab.shell("vhd snapshot hash --store s d@n").code(0);
            lab.shell("vhd snapshot restore -q --store s d@n -O raw -o y.raw && head -c 4 y.raw && tail -c 512 y.raw | head -c 8")
                .code(0)
                .says("conectix");
            lab.shell("vhd hash -f raw x.raw y.raw | cut -c-64 | uniq | wc -l")
                .code(0)
                .says("1");
        },
    },
    Case {
        name: "Ctrl-C in the middle of a merge",
        before: "what it left wasn't tried",
        now: "the parent is unchanged, or half changed with both ways on",
        run: |lab| {
            large(lab, "base.raw", 2 << 10);
            lab.shell(
                "vhd convert -q base.raw base.vhd && vhd create -q child.vhd --parent base.vhd",
            )
            .code(0);
            large(lab, "other.raw", 2 << 10);
            lab.shell(
                "printf changed | dd of=other.raw bs=1 seek=512 conv=notrunc status=none; \
                 vhd-diff -q base.vhd other.raw -o d && vhd-apply -q child.vhd d && vhd hash child.vhd | cut -c-64 > right",
            )
            .code(0);
            let ended = interrupted(lab, &["merge", "child.vhd"], "INT", || {
                fs::metadata(lab.path("base.vhd")).is_ok()
            });
            let ready = ended.code == 130;
            if ready && lab.exists("base.vhd.undo-journal") {
                ended
                    .says("base.vhd is half changed")
                    .says("vhd-apply --rollback base.vhd");
            } else if ready && ended.err.contains("base.vhd") {
                ended.says("base.vhd is unchanged");
            }
            lab.shell("vhd merge -q child.vhd && vhd hash base.vhd | cut -c-64 | cmp - right")
                .code(0);
        },
    },
    Case {
        name: "addresses that nobody thinks of: D:, C:disk.vhd, a module of rsync",
        before: "files of those names, or a command that can't work",
        now: "refused with what works",
        run: |lab| {
            images(lab);
            let before = lab.names();
            for (address, says) in [
                ("D:", "this is a Windows path"),
                ("D:x.vhd", "this is a Windows path"),
                ("nas::backup/x.vhd", "another machine"),
            ] {
                for line in [
                    "vhd convert a.vhd",
                    "vhd info",
                    "vhd create --size 1M",
                    "vhd-diff a.vhd b.vhd -o",
                    "vhd snapshot list --store",
                    "vhd snapshot create --init --disk w --name n a.vhd --store",
                ] {
                    let ended = lab.shell(&format!("{line} {address}")).code(2);
                    ended
                        .says(says)
                        .says("hint: ")
                        .omits("cat > :")
                        .omits("cat > '");
                    assert_eq!(lab.names(), before, "{line} {address}");
                }
            }
            lab.shell("vhd convert -q a.vhd ./D:").code(0);
        },
    },
    Case {
        name: "vhd tree -q, all well and not",
        before: "nothing either way",
        now: "nothing when all is well, else the tree",
        run: |lab| {
            images(lab);
            let ended = lab.shell("vhd tree -q .").code(0);
            assert_eq!((ended.out.as_str(), ended.err.as_str()), ("", ""));
            lab.shell("mv a.vhd gone && mkdir sub && mv gone sub/a.vhd")
                .code(0);
            lab.shell("vhd tree -q .").code(1).says("c.avhd");
        },
    },
    Case {
        name: "an error page, an answer in JSON or a pointer in place of an image or a diff",
        before: "a raw disk where its length was whole pages",
        now: "told, with what to look at; in a pipe, too",
        run: |lab| {
            images(lab);
            let pad = |text: &str| format!("{text:<1024}");
            for (name, text, says) in [
                (
                    "a.html.vhd",
                    "<!DOCTYPE html>\n<title>403 Forbidden</title>",
                    "HTML",
                ),
                ("b.vhd.part", "\r\n<HTML><body>Not found", "HTML"),
                (
                    "c.vhd.xml",
                    "\u{FEFF}<?xml version=\"1.0\"?><Error><Code>X</Code></Error>",
                    "XML",
                ),
                (
                    "d.vhd.json",
                    "{\"error\": {\"code\": \"AuthorizationFailed\"}}",
                    "JSON",
                ),
            ] {
                lab.file(name, pad(text).as_bytes());
                let ended = lab.shell(&format!("vhd info {name}")).code(3).says(says);
                let advice = ended.advice("head");
                let command = advice[0].split(';').next().unwrap();
                lab.shell(command)
                    .code(0)
                    .says(text.trim().trim_start_matches('\u{FEFF}'));
                lab.shell(&format!("vhd-apply a.vhd - < {name}"))
                    .code(3)
                    .says(says)
                    .says("hint: ");
                lab.shell(&format!("vhd snapshot receive --init --store s < {name}"))
                    .code(3)
                    .says(says);
                lab.shell(&format!(
                    "vhd snapshot create --init --store s --disk d --name n {name}"
                ))
                .code(3);
            }
            // Whatever its length.
            lab.file(
                "p.vhd",
                b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            );
            lab.shell("vhd check p.vhd").code(3).says("git lfs pull");
        },
    },
    Case {
        name: "a chain of four with a second branch: the middle folded away, then the oldest, then all",
        before: "right since merge looks for children",
        now: "every image left reads as before",
        run: |lab| {
            images(lab);
            lab.shell("vhd create -q d.avhd --parent c.avhd && vhd create -q e.avhd --parent d.avhd && vhd create -q f.avhd --parent d.avhd")
                .code(0);
            lab.shell("vhd hash e.avhd f.avhd > before").code(0);
            // What each holds of its own.
            for (n, image) in ["c", "d", "e", "f"].iter().enumerate() {
                lab.shell(&format!(
                    "vhd convert -q {image}.avhd t.raw --force && printf own{n} | dd of=t.raw bs=512 seek={} conv=notrunc \
                     status=none && vhd-diff -q {image}.avhd t.raw -o t --force && vhd-apply -q --force {image}.avhd t",
                    n * 5 + 1
                ))
                .code(0);
            }
            lab.shell("vhd hash e.avhd f.avhd > before").code(0);
            lab.shell("vhd merge e.avhd --delete")
                .code(2)
                .says("f.avhd");
            for line in ["vhd merge d.avhd --delete", "vhd merge c.avhd --delete"] {
                lab.shell(line).code(0);
                lab.shell("vhd hash e.avhd f.avhd | cmp - before && vhd check -q e.avhd f.avhd && vhd tree -q .")
                    .code(0);
            }
            lab.shell("vhd merge e.avhd -o whole.vhd && vhd hash whole.vhd | cut -c-64 > x; head -1 before | cut -c-64 | cmp - x")
                .code(0);
        },
    },
    Case {
        name: "rebase --unsafe onto itself, onto a grandchild, onto a raw disk, onto what isn't there",
        before: "right",
        now: "refused, and the child as it was",
        run: |lab| {
            images(lab);
            lab.shell("vhd create -q d.avhd --parent c.avhd && vhd convert -q a.vhd a.raw && b3=$(vhd hash c.avhd) && echo $b3 > before")
                .code(0);
            let child = lab.read("c.avhd");
            for (parent, code) in [
                ("c.avhd", 2),
                ("d.avhd", 2),
                ("a.raw", 2),
                ("gone.vhd", 2),
                (".", 2),
                ("d", 3),
            ] {
                lab.shell(&format!("vhd rebase c.avhd --parent {parent} --unsafe"))
                    .code(code);
                assert!(lab.read("c.avhd") == child, "{parent}");
            }
        },
    },
    Case {
        name: "a footer at the beginning alone, of a fixed VHD",
        before: "no footer at its beginning",
        now: "said to be there",
        run: |lab| {
            images(lab);
            lab.shell("(tail -c 512 a.vhd; head -c -512 a.vhd) > front.vhd")
                .code(0);
            lab.shell("vhd check front.vhd")
                .code(1)
                .says("footer-missing")
                .says("a footer at the beginning");
        },
    },
];

#[test]
fn odd_names_files_and_orders() {
    tell("Odd names, files and orders", CASES);
}
