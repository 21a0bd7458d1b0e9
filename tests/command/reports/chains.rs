//! Chains as people keep them: folded, moved, renamed, copied between systems, and with a parent that somebody changes.

use std::fs;

use crate::reports::lab::{Case, Ended, Lab, tell};

use crate::vhd_builder::{Family, Locator, SECTOR, TINY, patterned};

const PAGES: usize = 64;

/// A dynamic VHD with the id `id`, each of whose pages says `k`.
fn base(lab: &Lab, name: &str, id: u8, k: u8) {
    let file = crate::vhd_builder::dynamic(&TINY, &vec![k; PAGES * SECTOR]);
    lab.file(name, &crate::vhd_builder::with_id(file, [id; 16]));
}

/// A child that stores one page, full of `k`, at page `at`.
fn child(lab: &Lab, name: &str, (id, parent): (u8, u8), parent_name: &str, (at, k): (usize, u8)) {
    child_of(lab, name, &Family::new(id, parent, parent_name), (at, k));
}

fn child_of(lab: &Lab, name: &str, family: &Family, (at, k): (usize, u8)) {
    let mut stored = vec![false; PAGES];
    stored[at] = true;
    let disk = vec![k; PAGES * SECTOR];
    lab.file(
        name,
        &crate::vhd_builder::differencing(&TINY, family, &disk, &stored),
    );
}

/// base.vhd ← b.vhd ← c.vhd, by names alone.
fn three(lab: &Lab) {
    base(lab, "base.vhd", 1, 1);
    child(lab, "b.vhd", (2, 1), "base.vhd", (2, 2));
    child(lab, "c.vhd", (3, 2), "b.vhd", (3, 3));
}

/// What an image reads as.
fn hash(lab: &Lab, name: &str) -> String {
    let ended: Ended = lab.command("vhd", &["hash", name]).output().unwrap().into();
    ended.code(0).out[..64].to_owned()
}

fn vhd(lab: &Lab, args: &[&str]) -> Ended {
    lab.command("vhd", args).output().unwrap().into()
}

/// Runs the command that a hint or a remark gives, up to `end`.
fn follow(lab: &Lab, ended: &Ended, word: &str, end: &str) -> Ended {
    let advice = ended.advice(word).remove(0);
    let line = advice.split(end).next().unwrap().to_owned();
    lab.shell(&line)
}

/// A diff that changes page 0 of the image to another disk of the same size.
fn a_diff(lab: &Lab, of: &str) {
    let mut disk = {
        vhd(lab, &["convert", of, "now.raw"]).code(0);
        lab.read("now.raw")
    };
    disk[..SECTOR].fill(0x77);
    lab.file("then.raw", &disk);
    lab.shell("vhd-diff now.raw then.raw -o d -q").code(0);
}

/// A refused change of base.vhd leaves all as it was.
fn refused(lab: &Lab, line: &str) {
    let before = (lab.read("base.vhd"), lab.names());
    lab.shell(line).code(2).says("b.vhd").says("parent");
    assert!(lab.read("base.vhd") == before.0, "{line}");
    assert_eq!(lab.names(), before.1, "{line}");
}

const FOLDED: &[Case] = &[
    Case {
        name: "`merge b.vhd` in base ← b ← c",
        before: "\"not needed any more\"",
        now: "kept, and it is said whose parent it is",
        run: |lab| {
            three(lab);
            let c = hash(lab, "c.vhd");
            vhd(lab, &["merge", "b.vhd"])
                .code(0)
                .says("b.vhd: kept, it is the parent of c.vhd")
                .omits("not needed");
            assert_eq!(hash(lab, "c.vhd"), c);
        },
    },
    Case {
        name: "`merge b.vhd --delete` in the middle",
        before: "c.vhd is unreadable for good",
        now: "c.vhd reads the same, over base.vhd",
        run: |lab| {
            three(lab);
            let c = hash(lab, "c.vhd");
            vhd(lab, &["merge", "b.vhd", "--delete"])
                .code(0)
                .says("base.vhd: is the parent of c.vhd now");
            assert!(!lab.exists("b.vhd"));
            assert_eq!(hash(lab, "c.vhd"), c);
            vhd(lab, &["check", "c.vhd"]).code(0);
        },
    },
    Case {
        name: "the same with `--dry-run`",
        before: "not a word of c.vhd",
        now: "says what would become of it, writes nothing",
        run: |lab| {
            three(lab);
            let before = ["base.vhd", "b.vhd", "c.vhd"].map(|name| lab.read(name));
            vhd(lab, &["merge", "b.vhd", "--delete", "--dry-run"])
                .code(0)
                .says("base.vhd: would be the parent of c.vhd")
                .says("b.vhd: would be removed");
            assert!(before == ["base.vhd", "b.vhd", "c.vhd"].map(|name| lab.read(name)));
        },
    },
    Case {
        name: "the same while c.vhd is in use",
        before: "c.vhd is lost",
        now: "exit 5 before anything is written",
        run: |lab| {
            three(lab);
            let lock = fs::File::open(lab.path("c.vhd")).unwrap();
            lock.lock().unwrap();
            vhd(lab, &["merge", "b.vhd", "--delete"])
                .code(5)
                .says("c.vhd");
            assert!(lab.exists("b.vhd"));
            drop(lock);
            vhd(lab, &["merge", "b.vhd", "--delete"]).code(0);
            vhd(lab, &["hash", "c.vhd"]).code(0);
        },
    },
    Case {
        name: "c.vhd is in another folder, named by `--parent-path`",
        before: "lost",
        now: "seen there, and mended",
        run: |lab| {
            three(lab);
            let c = hash(lab, "c.vhd");
            fs::create_dir(lab.path("leaves")).unwrap();
            fs::rename(lab.path("c.vhd"), lab.path("leaves/c.vhd")).unwrap();
            vhd(
                lab,
                &["merge", "b.vhd", "--delete", "--parent-path", "leaves"],
            )
            .code(0)
            .says("base.vhd: is the parent of leaves/c.vhd now");
            let read = vhd(lab, &["hash", "leaves/c.vhd", "--parent-path", "."]).code(0);
            assert_eq!(read.out[..64], c);
        },
    },
    Case {
        name: "the last child of all",
        before: "\"not needed any more\", whoever needs it",
        now: "the folder in which was looked is named",
        run: |lab| {
            three(lab);
            vhd(lab, &["merge", "c.vhd"])
                .code(0)
                .says("no other child of b.vhd in the current folder")
                .says("no image in the current folder has it as its parent");
        },
    },
    Case {
        name: "`merge` with a sibling",
        before: "the sibling reads other bytes, exit 0",
        now: "exit 2, with its name; --force goes on",
        run: |lab| {
            three(lab);
            child(lab, "sib ling.vhd", (4, 1), "base.vhd", (9, 4));
            let all = ["b.vhd", "c.vhd", "sib ling.vhd"].map(|name| hash(lab, name));
            refused_merge(lab, &["merge", "b.vhd"]);
            refused_merge(lab, &["merge", "b.vhd", "--delete"]);
            refused_merge(lab, &["merge", "b.vhd", "--dry-run"]);
            assert!(all == ["b.vhd", "c.vhd", "sib ling.vhd"].map(|name| hash(lab, name)));
            vhd(lab, &["merge", "b.vhd", "--delete", "--force"])
                .code(0)
                .says("do not read as before: sib ling.vhd");
            assert_eq!(hash(lab, "c.vhd"), all[1]);
        },
    },
    Case {
        name: "a sibling that is a copy's child",
        before: "-",
        now: "isn't one: it finds the copy",
        run: |lab| {
            three(lab);
            fs::create_dir(lab.path("other")).unwrap();
            base(lab, "copy.vhd", 1, 1);
            child(lab, "of copy.vhd", (4, 1), "copy.vhd", (9, 4));
            let before = hash(lab, "of copy.vhd");
            vhd(lab, &["merge", "b.vhd"])
                .code(0)
                .says("no other child of base.vhd");
            assert_eq!(hash(lab, "of copy.vhd"), before);
        },
    },
    Case {
        name: "a file in the folder can't be judged",
        before: "-",
        now: "told; and nothing is removed on a guess",
        run: |lab| {
            three(lab);
            let mut broken = lab.read("c.vhd");
            let end = broken.len() - SECTOR;
            for at in [100, 700, end + 100] {
                broken[at] ^= 1;
            }
            lab.file("broken.vhd", &broken);
            vhd(lab, &["merge", "b.vhd", "--delete"])
                .code(3)
                .says("broken.vhd: this VHD is damaged");
            assert!(lab.exists("b.vhd"));
            vhd(lab, &["merge", "b.vhd"])
                .code(0)
                .says("broken.vhd: this VHD is damaged");
            vhd(lab, &["merge", "b.vhd", "--delete", "--force"])
                .code(0)
                .says("base.vhd: is the parent of c.vhd now");
        },
    },
];

fn refused_merge(lab: &Lab, args: &[&str]) {
    let before = (lab.read("base.vhd"), lab.names());
    vhd(lab, args).code(2).says("sib ling.vhd");
    assert!(lab.read("base.vhd") == before.0);
    assert_eq!(lab.names(), before.1);
}

const CHANGED: &[Case] = &[
    Case {
        name: "`vhd-apply` in place onto a parent",
        before: "its children read other bytes, exit 0",
        now: "exit 2; --force goes on",
        run: |lab| {
            three(lab);
            a_diff(lab, "base.vhd");
            refused(lab, "vhd-apply base.vhd d");
            refused(lab, "vhd-apply base.vhd d --dry-run");
            refused(lab, "vhd-apply base.vhd d --in-place copy");
            lab.shell("vhd-apply base.vhd d -o new.vhd").code(0);
            lab.shell("vhd-apply base.vhd d --force").code(0);
        },
    },
    Case {
        name: "`vhd resize` of a parent",
        before: "its children can't be read, exit 0",
        now: "exit 2; --force goes on, and back is allowed",
        run: |lab| {
            three(lab);
            let c = hash(lab, "c.vhd");
            refused(lab, "vhd resize base.vhd --size 1M");
            refused(lab, "vhd resize base.vhd --size 1M --dry-run");
            refused(lab, "vhd resize base.vhd --size 4K --allow-data-loss");
            lab.shell("vhd resize base.vhd --size 1M --force").code(0);
            let ended = vhd(lab, &["hash", "c.vhd"]).code(3);
            follow(lab, &ended, "vhd resize", " takes").code(0);
            assert_eq!(hash(lab, "c.vhd"), c);
        },
    },
    Case {
        name: "`vhd snapshot restore --in-place` onto a parent",
        before: "its children read other bytes, exit 0",
        now: "exit 2; --force goes on",
        run: |lab| {
            three(lab);
            a_diff(lab, "base.vhd");
            lab.shell("vhd snapshot create --init --store s --disk d --name a then.raw")
                .code(0);
            refused(
                lab,
                "vhd snapshot restore --store s --disk d a -o base.vhd --in-place",
            );
            lab.shell("vhd snapshot restore --store s --disk d a -o base.vhd --in-place --force")
                .code(0);
        },
    },
    Case {
        name: "another file in place of a parent, with `--force`",
        before: "its children are lost, exit 0",
        now: "exit 2; --force twice replaces it",
        run: |lab| {
            three(lab);
            a_diff(lab, "base.vhd");
            lab.shell("vhd snapshot create --init --store s --disk d --name a then.raw")
                .code(0);
            for line in [
                "vhd convert then.raw base.vhd --force",
                "vhd create base.vhd --size 1M --force",
                "vhd-apply now.raw d -o base.vhd --force",
                "vhd-apply now.raw d -o base.vhd --force --dry-run",
                "vhd snapshot restore --store s --disk d a -o base.vhd --force",
            ] {
                refused(lab, line);
            }
            lab.shell("vhd convert then.raw base.vhd --force --force")
                .code(0);
        },
    },
    Case {
        name: "the parent is raw",
        before: "silently changed",
        now: "a child that names the file is seen",
        run: |lab| {
            lab.file("base.raw", &patterned(PAGES));
            lab.shell("vhd create b.vhd --parent base.raw --raw-parent")
                .code(0);
            lab.shell("vhd resize base.raw --size 1M")
                .code(2)
                .says("b.vhd");
            lab.shell("vhd convert b.vhd base.raw --raw-parent -O raw --force")
                .code(2);
        },
    },
];

const FOUND: &[Case] = &[
    Case {
        name: "the child says PARENT.VHD, the file is parent.vhd",
        before: "exit 2, also with --parent-path",
        now: "read",
        run: |lab| {
            base(lab, "parent.vhd", 1, 1);
            child(lab, "c.vhd", (2, 1), "PARENT.VHD", (2, 2));
            vhd(lab, &["hash", "c.vhd"]).code(0);
            fs::create_dir(lab.path("Base Disks")).unwrap();
            fs::rename(lab.path("parent.vhd"), lab.path("Base Disks/Parent.VHD")).unwrap();
            vhd(lab, &["hash", "c.vhd"]).code(2);
            vhd(lab, &["hash", "c.vhd", "--parent-path", "Base Disks"]).code(0);
            let family = Family {
                locators: vec![Locator::new(*b"W2ru", r".\BASE disks\PARENT.vhd")],
                ..Family::new(2, 1, "")
            };
            child_of(lab, "c.vhd", &family, (2, 2));
            vhd(lab, &["hash", "c.vhd"]).code(0);
        },
    },
    Case {
        name: "two files differ in case alone, both with the id",
        before: "exit 2, none is mentioned",
        now: "exit 2, both are named; the id decides if it can",
        run: |lab| {
            base(lab, "parent.vhd", 1, 1);
            base(lab, "Parent.vhd", 1, 9);
            child(lab, "c.vhd", (2, 1), "PARENT.VHD", (2, 2));
            vhd(lab, &["hash", "c.vhd"])
                .code(2)
                .says("parent.vhd")
                .says("Parent.vhd");
            vhd(lab, &["hash", "c.vhd", "--parent", "parent.vhd"]).code(0);
            base(lab, "Parent.vhd", 7, 9);
            vhd(lab, &["hash", "c.vhd"]).code(0);
        },
    },
    Case {
        name: "only `MacX`, with escapes",
        before: "exit 2 although it is beside the child",
        now: "read",
        run: |lab| {
            base(lab, "base disk.vhd", 1, 1);
            let mut locator = Locator::new(*b"MacX", "");
            locator.data = b"file://localhost/Users/x/Documents/base%20disk.vhd".to_vec();
            let family = Family {
                locators: vec![locator],
                ..Family::new(2, 1, "")
            };
            child_of(lab, "mac.vhd", &family, (2, 2));
            vhd(lab, &["hash", "mac.vhd"]).code(0);
        },
    },
    Case {
        name: "only `Mac `, an alias",
        before: "exit 2",
        now: "read by the name in it",
        run: |lab| {
            base(lab, "base.vhd", 1, 1);
            let mut locator = Locator::new(*b"Mac ", "");
            locator.data = vec![0; 150];
            locator.data[7] = 2;
            locator.data[50] = 8;
            locator.data[51..59].copy_from_slice(b"base.vhd");
            let family = Family {
                locators: vec![locator],
                ..Family::new(2, 1, "")
            };
            child_of(lab, "mac.vhd", &family, (2, 2));
            vhd(lab, &["hash", "mac.vhd"]).code(0);
        },
    },
    Case {
        name: "only `W2ku`, with a drive",
        before: "exit 2",
        now: "read by its last part",
        run: |lab| {
            base(lab, "base.vhd", 1, 1);
            let family = Family {
                locators: vec![Locator::new(*b"W2ku", r"C:\Virtual Machines\base.vhd")],
                ..Family::new(2, 1, "")
            };
            child_of(lab, "c.vhd", &family, (2, 2));
            vhd(lab, &["hash", "c.vhd"]).code(0);
        },
    },
    Case {
        name: "the parent is in the folder above",
        before: "refused by rule, without saying where it is",
        now: "refused, and the option that takes it is printed",
        run: |lab| {
            base(lab, "base.vhd", 1, 1);
            fs::create_dir(lab.path("Snap shots")).unwrap();
            let family = Family {
                locators: vec![Locator::new(*b"W2ru", r"..\base.vhd")],
                ..Family::new(2, 1, "base.vhd")
            };
            child_of(lab, "Snap shots/c.vhd", &family, (2, 2));
            let ended = vhd(lab, &["hash", "Snap shots/c.vhd"]).code(2);
            let option = ended.advice("--parent-path").remove(0);
            lab.shell(&format!("vhd hash 'Snap shots/c.vhd' {option}"))
                .code(0);
            vhd(lab, &["info", "Snap shots/c.vhd"])
                .code(0)
                .says("--parent-path");
        },
    },
    Case {
        name: "another disk is above under that name",
        before: "-",
        now: "it isn't offered",
        run: |lab| {
            base(lab, "base.vhd", 9, 1);
            fs::create_dir(lab.path("s")).unwrap();
            let family = Family {
                locators: vec![Locator::new(*b"W2ru", r"..\base.vhd")],
                ..Family::new(2, 1, "base.vhd")
            };
            child_of(lab, "s/c.vhd", &family, (2, 2));
            vhd(lab, &["hash", "s/c.vhd"])
                .code(2)
                .omits("where the child says");
        },
    },
    Case {
        name: "the parent was renamed",
        before: "exit 2, the file beside it isn't mentioned",
        now: "it is, with the command that mends it",
        run: |lab| {
            three(lab);
            let c = hash(lab, "c.vhd");
            fs::rename(lab.path("b.vhd"), lab.path("Mid dle.vhd")).unwrap();
            let ended = vhd(lab, &["hash", "c.vhd"]).code(2);
            follow(lab, &ended, "vhd rebase", "\n").code(0);
            assert_eq!(hash(lab, "c.vhd"), c);
        },
    },
    Case {
        name: "`--parent` of another disk",
        before: "the message says that the wanted parent has the child's id",
        now: "each id with its own file",
        run: |lab| {
            base(lab, "base.vhd", 1, 1);
            child(lab, "leaf.vhd", (3, 2), "mid.vhd", (1, 1));
            vhd(lab, &["hash", "leaf.vhd", "--parent", "base.vhd"])
                .code(3)
                .says("found the unique id 01010101-0101-0101-0101-010101010101 in base.vhd")
                .says("the unique id 02020202-0202-0202-0202-020202020202 of mid.vhd")
                .says("this image (unique id 03030303-0303-0303-0303-030303030303)");
        },
    },
    Case {
        name: "`check` of a child whose parent is missing",
        before: "a message within a message, over 500 characters",
        now: "one sentence",
        run: |lab| {
            child(lab, "leaf.vhd", (3, 2), "mid.vhd", (1, 1));
            let ended = vhd(lab, &["check", "leaf.vhd"])
                .code(1)
                .says("found no mid.vhd");
            let found = ended
                .out
                .lines()
                .find(|line| line.contains("found "))
                .unwrap();
            assert_eq!(found.matches("found").count(), 1, "{found}");
        },
    },
    Case {
        name: "a locator leads to /etc",
        before: "not followed",
        now: "not followed, nor its last part out of the folder",
        run: |lab| {
            let mut url = Locator::new(*b"MacX", "");
            url.data = b"file:///x/..%2F..%2Fbase.vhd".to_vec();
            fs::create_dir_all(lab.path("a/b")).unwrap();
            base(lab, "base.vhd", 1, 1);
            for locator in [
                Locator::new(*b"W2ku", "/etc/passwd"),
                Locator::new(*b"W2ru", r"..\..\base.vhd"),
                url,
            ] {
                let family = Family {
                    locators: vec![locator],
                    ..Family::new(2, 1, "")
                };
                child_of(lab, "a/b/c.vhd", &family, (2, 2));
                vhd(lab, &["hash", "a/b/c.vhd"]).code(2);
            }
        },
    },
];

const REBASED: &[Case] = &[
    Case {
        name: "past an image of the chain",
        before: "no such command",
        now: "reads the same, and what both chains share isn't read",
        run: |lab| {
            three(lab);
            let c = hash(lab, "c.vhd");
            let json = vhd(lab, &["rebase", "c.vhd", "--parent", "base.vhd", "--json"]).code(0);
            let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
            assert_eq!(
                (&json["outcome"], &json["compared"]),
                (&"rebased".into(), &"content".into())
            );
            assert_eq!(
                (&json["compared_bytes"], &json["update_bytes"]),
                (&512.into(), &512.into())
            );
            fs::remove_file(lab.path("b.vhd")).unwrap();
            assert_eq!(hash(lab, "c.vhd"), c);
            vhd(lab, &["check", "c.vhd"]).code(0);
        },
    },
    Case {
        name: "to another disk, by content",
        before: "no such command",
        now: "what differs is stored, zeros too",
        run: |lab| {
            three(lab);
            let c = hash(lab, "c.vhd");
            base(lab, "other.vhd", 8, 0);
            vhd(lab, &["rebase", "c.vhd", "--parent", "other.vhd"]).code(0);
            base(lab, "zero.vhd", 9, 0);
            vhd(lab, &["rebase", "c.vhd", "--parent", "zero.vhd"]).code(0);
            for name in ["base.vhd", "b.vhd", "other.vhd"] {
                fs::remove_file(lab.path(name)).unwrap();
            }
            assert_eq!(hash(lab, "c.vhd"), c);
            child(lab, "z.vhd", (5, 9), "zero.vhd", (1, 1));
            let z = hash(lab, "z.vhd");
            base(lab, "full.vhd", 10, 7);
            vhd(lab, &["rebase", "z.vhd", "--parent", "full.vhd"]).code(0);
            fs::remove_file(lab.path("zero.vhd")).unwrap();
            assert_eq!(hash(lab, "z.vhd"), z);
        },
    },
    Case {
        name: "`--dry-run`",
        before: "no such command",
        now: "the figures of the run, nothing written",
        run: |lab| {
            three(lab);
            base(lab, "other.vhd", 8, 0);
            let before = lab.read("c.vhd");
            vhd(
                lab,
                &["rebase", "c.vhd", "--parent", "other.vhd", "--dry-run"],
            )
            .code(0)
            .says("would have to store 32256 bytes");
            assert!(lab.read("c.vhd") == before);
            vhd(lab, &["rebase", "c.vhd", "--parent", "other.vhd"])
                .code(0)
                .says("stores 32256 bytes");
        },
    },
    Case {
        name: "the old parent is gone, the new one has another id",
        before: "no way",
        now: "refused with the command that does it all the same",
        run: |lab| {
            three(lab);
            let c = hash(lab, "c.vhd");
            vhd(lab, &["merge", "b.vhd"]).code(0);
            fs::remove_file(lab.path("b.vhd")).unwrap();
            let ended = vhd(lab, &["rebase", "c.vhd", "--parent", "base.vhd"]).code(2);
            follow(lab, &ended, "vhd rebase", "\n")
                .code(0)
                .says("nothing was compared");
            assert_eq!(hash(lab, "c.vhd"), c);
        },
    },
    Case {
        name: "the old parent has another name (`--old-parent`)",
        before: "no such command",
        now: "compared with it",
        run: |lab| {
            three(lab);
            let c = hash(lab, "c.vhd");
            fs::rename(lab.path("b.vhd"), lab.path("x.vhd")).unwrap();
            vhd(lab, &["rebase", "c.vhd", "--parent", "base.vhd"]).code(2);
            vhd(
                lab,
                &[
                    "rebase",
                    "c.vhd",
                    "--parent",
                    "base.vhd",
                    "--old-parent",
                    "x.vhd",
                ],
            )
            .code(0);
            assert_eq!(hash(lab, "c.vhd"), c);
        },
    },
    Case {
        name: "twice",
        before: "-",
        now: "the second time nothing is written",
        run: |lab| {
            three(lab);
            vhd(lab, &["rebase", "c.vhd", "--parent", "base.vhd"]).code(0);
            let after = lab.read("c.vhd");
            vhd(lab, &["rebase", "c.vhd", "--parent", "base.vhd"])
                .code(0)
                .says("already");
            assert!(lab.read("c.vhd") == after);
        },
    },
    Case {
        name: "what can't be a parent",
        before: "-",
        now: "refused, nothing written",
        run: |lab| {
            three(lab);
            lab.file("raw.raw", &patterned(PAGES));
            let large = crate::vhd_builder::dynamic(&TINY, &patterned(PAGES + 1));
            lab.file("large.vhd", &crate::vhd_builder::with_id(large, [9; 16]));
            base(lab, "same id.vhd", 3, 1);
            base(lab, "nil.vhd", 0, 1);
            let before = lab.read("c.vhd");
            for (name, code) in [
                ("c.vhd", 2),
                ("raw.raw", 2),
                ("large.vhd", 3),
                ("same id.vhd", 2),
                ("nil.vhd", 2),
                ("none.vhd", 2),
            ] {
                for unsafely in [false, true] {
                    let mut args = vec!["rebase", "c.vhd", "--parent", name];
                    args.extend(unsafely.then_some("--unsafe"));
                    vhd(lab, &args).code(code);
                    assert!(lab.read("c.vhd") == before, "{name}");
                }
            }
            vhd(lab, &["rebase", "b.vhd", "--parent", "c.vhd", "--unsafe"])
                .code(2)
                .says("read through");
            vhd(lab, &["rebase", "base.vhd", "--parent", "c.vhd"]).code(2);
        },
    },
    Case {
        name: "`--windows-dir`",
        before: "an absolute path of this system, right nowhere",
        now: "the absolute path on Windows, or none",
        run: |lab| {
            three(lab);
            vhd(lab, &["rebase", "c.vhd", "--parent", "base.vhd"]).code(0);
            vhd(lab, &["info", "c.vhd"])
                .code(0)
                .says("W2ru")
                .omits("W2ku");
            vhd(
                lab,
                &[
                    "rebase",
                    "c.vhd",
                    "--parent",
                    "base.vhd",
                    "--windows-dir",
                    r"D:\vms",
                ],
            )
            .code(0);
            vhd(lab, &["info", "c.vhd"])
                .code(0)
                .says(r"D:\vms\base.vhd");
            for line in [
                r"vhd create n.vhd --parent base.vhd --windows-dir 'D:\vms'",
                r"vhd-apply base.vhd d -o m.vhd -O differencing --windows-dir 'D:\vms'",
                r"vhd snapshot restore --store s --disk d a -o r.vhd -O differencing --parent base.vhd --windows-dir 'D:\vms'",
            ] {
                if !lab.exists("d") {
                    a_diff(lab, "base.vhd");
                    lab.shell("vhd snapshot create --init --store s --disk d --name a then.raw")
                        .code(0);
                }
                lab.shell(line).code(0);
            }
            for name in ["n.vhd", "m.vhd", "r.vhd"] {
                vhd(lab, &["info", name]).code(0).says(r"D:\vms\base.vhd");
            }
            for folder in ["vms", "/srv/vms", r"D:vms", r"D:\a?"] {
                vhd(
                    lab,
                    &[
                        "create",
                        "x.vhd",
                        "--parent",
                        "base.vhd",
                        "--windows-dir",
                        folder,
                    ],
                )
                .code(2);
            }
            vhd(
                lab,
                &[
                    "create",
                    "x.vhd",
                    "--size",
                    "1M",
                    "--windows-dir",
                    r"D:\vms",
                ],
            )
            .code(2);
        },
    },
];

const TREES: &[Case] = &[
    Case {
        name: "`vhd tree` of a whole chain",
        before: "no such command",
        now: "exit 0",
        run: |lab| {
            three(lab);
            child(lab, "d.vhd", (4, 1), "base.vhd", (2, 2));
            vhd(lab, &["tree", "."])
                .code(0)
                .says("base.vhd  dynamic")
                .says("├─ b.vhd  differencing")
                .says("│  └─ c.vhd")
                .says("└─ d.vhd");
            let quiet = vhd(lab, &["tree", ".", "-q"]).code(0);
            assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("", ""));
        },
    },
    Case {
        name: "of one with every sort of trouble",
        before: "no such command",
        now: "exit 1; what is missing, wrong, elsewhere, double",
        run: |lab| {
            three(lab);
            fs::create_dir(lab.path("sub")).unwrap();
            base(lab, "sub/there.vhd", 20, 1);
            child(lab, "elsewhere.vhd", (21, 20), "there.vhd", (1, 1));
            child(lab, "missing.vhd", (22, 99), "gone.vhd", (1, 1));
            child(lab, "another.vhd", (23, 98), "base.vhd", (1, 1));
            child(lab, "one.vhd", (24, 25), "two.vhd", (1, 1));
            child(lab, "two.vhd", (25, 24), "one.vhd", (1, 1));
            lab.shell("cp base.vhd copy.vhd; ln -s /etc/passwd link.vhd; ln -s .. up")
                .code(0);
            let listed = vhd(lab, &["tree", ".", "--json"]).code(1);
            let json: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
            let state = |name: &str| {
                let images = json["images"].as_array().unwrap().iter();
                let mut of = images.filter(|image| image["image"] == format!("./{name}"));
                of.next().unwrap()["parent_link"]["state"]
                    .as_str()
                    .unwrap_or("none")
                    .to_owned()
            };
            for (name, expected) in [
                ("base.vhd", "none"),
                ("b.vhd", "found"),
                ("c.vhd", "found"),
                ("elsewhere.vhd", "elsewhere"),
                ("missing.vhd", "missing"),
                ("another.vhd", "another_disk"),
                ("one.vhd", "circle"),
                ("two.vhd", "circle"),
            ] {
                assert_eq!(state(name), expected, "{name}");
            }
            assert_eq!(json["duplicates"][0]["images"].as_array().unwrap().len(), 2);
            assert_eq!(json["links_not_followed"], 2);
            let text = vhd(lab, &["tree", "."])
                .code(1)
                .says("gone.vhd")
                .says("is missing");
            follow(lab, &text, "vhd rebase", " mends").code(0);
            vhd(lab, &["hash", "elsewhere.vhd"]).code(0);
            let quiet = vhd(lab, &["tree", ".", "-q"]).code(1);
            assert!(quiet.out.contains("is missing"), "{}", quiet.out);
        },
    },
    Case {
        name: "of no folder, and of an empty one",
        before: "no such command",
        now: "exit 2 and 0",
        run: |lab| {
            vhd(lab, &["tree", "none"]).code(2);
            base(lab, "base.vhd", 1, 1);
            vhd(lab, &["tree", "base.vhd"]).code(2);
            fs::create_dir(lab.path("empty")).unwrap();
            vhd(lab, &["tree", "empty"]).code(0).says("no VHD");
        },
    },
    Case {
        name: "`create`, `convert` and `merge` of sizes that aren't whole MiB",
        before: "a word about Azure, to everybody",
        now: "only with -v",
        run: |lab| {
            lab.file("odd.raw", &patterned(9));
            vhd(lab, &["convert", "odd.raw", "odd.vhd"])
                .code(0)
                .omits("Azure");
            vhd(lab, &["create", "c.vhd", "--parent", "odd.vhd"])
                .code(0)
                .omits("Azure");
            vhd(lab, &["create", "n.vhd", "--size", "1000K", "-v"])
                .code(0)
                .says("Azure");
            vhd(lab, &["resize", "n.vhd", "--size", "2000K"])
                .code(0)
                .omits("Azure");
            vhd(lab, &["merge", "c.vhd", "-o", "m.vhd"])
                .code(0)
                .omits("Azure");
        },
    },
];

#[test]
fn chains_live_on() {
    tell("Folding deltas", FOLDED);
    tell("Changing and replacing a parent", CHANGED);
    tell("Finding a parent", FOUND);
    tell("Another parent", REBASED);
    tell("Looking at a folder", TREES);
}
