//! State stamps: when they count, and when they don't.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vhdkit::files::{Format, STATE_ATTRIBUTE};
use vhdkit::storage::File;

use crate::lab::{FORMATS, Lab, MIB, SIZE, later, monday};

/// Returns why the stamp of an image is stale, the empty string if it is valid, or `None` if there is no stamp.
fn stamp(lab: &Lab, name: &str, more: &[&str]) -> Option<String> {
    let info = lab.json("vhd", &[&["info", name, "--json"], more].concat());
    let stamp = info["state_stamp"].as_object()?;
    let stale = stamp["stale"].as_str().unwrap_or_default().to_owned();
    assert_eq!(stamp["valid"], stale.is_empty());
    Some(stale)
}

fn apply(lab: &Lab, args: &[&str]) -> serde_json::Value {
    lab.json("vhd-apply", &[args, &["--json", "-q"]].concat())
}

/// Returns the value of the stamp's attribute, for putting it where it doesn't belong.
fn attribute(lab: &Lab, name: &str) -> Vec<u8> {
    let file = File::open(lab.path(name)).unwrap();
    file.attribute(STATE_ATTRIBUTE).unwrap().unwrap()
}

fn set_attribute(lab: &Lab, name: &str, value: &[u8]) {
    let file = File::open(lab.path(name)).unwrap();
    assert!(file.set_attribute(STATE_ATTRIBUTE, value).unwrap());
}

/// Creates three days of a disk and the diffs between them.
fn days(lab: &Lab, format: Format) -> [Vec<u8>; 3] {
    let days = [
        monday(),
        later(&monday(), SIZE, 10),
        later(&monday(), SIZE + MIB, 30),
    ];
    for (n, day) in days.iter().enumerate() {
        lab.make(&format!("day{n}"), format, day);
    }
    lab.diff("day0", "day1", "diff0", &[]);
    lab.diff("day1", "day2", "diff1", &[]);
    days
}

#[test]
fn a_stamp_spares_reading_the_base() {
    for format in FORMATS {
        for way in ["copy", "journal"] {
            let lab = Lab::new();
            let days = days(&lab, format);
            let how = ["--in-place", way];
            assert_eq!(stamp(&lab, "day0", &[]), None);
            let first = apply(&lab, &[&["day0", "diff0"], &how[..]].concat());
            assert_eq!(first["base_check"], "full", "{format} {way}");
            assert_eq!(first["stamped"], true, "{format} {way}");
            assert_eq!(
                stamp(&lab, "day0", &[]).as_deref(),
                Some(""),
                "{format} {way}"
            );
            // The stamp proves what the base is but not what it becomes: the result is computed from all of the base,
            // unless the digests of the diffs are trusted.
            let more = ["day0", "diff0", "diff1", "--dry-run"];
            assert_eq!(apply(&lab, &more)["base_check"], "full");
            let trusting = apply(&lab, &[&more[..], &["--base-check", "stamp"]].concat());
            assert_eq!(trusting["base_check"], "stamp", "{format} {way}");
            let second = [
                &["day0", "diff0", "diff1", "--base-check", "stamp"],
                &how[..],
            ]
            .concat();
            let second = apply(&lab, &second);
            assert_eq!(second["base_check"], "stamp", "{format} {way}");
            assert_eq!(second["already_applied"], 1);
            assert_eq!(second["update_bytes"], trusting["update_bytes"]);
            lab.holds("day0", &days[2]);
            // A digest that nobody has verified isn't recorded.
            assert_eq!(second["stamped"], false);
            assert_eq!(stamp(&lab, "day0", &[]), None, "{format} {way}");
            lab.good("vhd", &["hash", "--stamp", "day0"]);
            // Already applied: this is known without reading, and nothing is written.
            let said = lab.refused(0, "vhd-apply", &["day0", "diff1", "-v"]);
            assert!(
                said.contains("already") && said.contains("state stamp"),
                "{said}"
            );
            for check in ["full", "touched"] {
                let again = apply(&lab, &["day0", "diff1", "--base-check", check]);
                assert_eq!(again["outcome"], "already_applied");
                assert_eq!(again["base_check"], check);
            }
        }
    }
}

/// On successive nights a disk changes a little: thanks to its window hashes, each apply reads only what changes, and
/// the disk stays stamped.
#[test]
fn a_kept_list_makes_a_chain_that_is_never_read() {
    for format in FORMATS {
        for way in ["copy", "journal"] {
            let lab = Lab::new();
            let days: Vec<_> = (0..4)
                .map(|n| later(&monday(), SIZE, 10 + 10 * n))
                .collect();
            for (n, day) in days.iter().enumerate() {
                lab.make(&format!("day{n}"), format, day);
            }
            for n in 1..4 {
                let [base, target] = [n - 1, n].map(|n| format!("day{n}"));
                lab.diff(&base, &target, &format!("diff{n}"), &[]);
            }
            lab.good("vhd", &["hash", "--stamp", "day0"]);
            let permissions = fs::metadata(lab.path("day0")).unwrap().permissions();
            for (n, day) in days.iter().enumerate().skip(1) {
                let done = apply(&lab, &["day0", &format!("diff{n}"), "--in-place", way]);
                assert_eq!(done["base_check"], "stamp", "{format} {way} {n}");
                assert_eq!(done["stamped"], true, "{format} {way} {n}");
                lab.holds("day0", day);
                let digest = lab.good("vhd", &["hash", &format!("day{n}")]);
                let info = lab.json("vhd", &["info", "day0", "--json"]);
                assert_eq!(
                    info["state_stamp"]["content_digest"],
                    digest[..64],
                    "{format} {way}"
                );
            }
            let list = fs::metadata(lab.path("day0.windows")).unwrap();
            assert_eq!(list.permissions(), permissions);
            // The list can be used like any other.
            let image = format!("day{}", days.len() - 1);
            lab.good(
                "vhd-diff",
                &["--base-digests", "day0.windows", "day0", &image, "-q"],
            );
            // After an outside write everything is read, which makes a new list.
            lab.write("day0", &lab.read("day1"));
            let done = apply(&lab, &["day0", "diff2", "--in-place", way]);
            assert_eq!(done["base_check"], "full", "{format} {way}");
            let done = apply(&lab, &["day0", "diff3", "--in-place", way]);
            assert_eq!(done["base_check"], "stamp", "{format} {way}");
            lab.holds("day0", &days[3]);
        }
    }
}

/// A file with the name of the list that doesn't belong to the current state of the image is neither used nor replaced.
#[test]
fn only_a_list_of_this_state_is_believed_or_replaced() {
    let lab = Lab::new();
    let days = days(&lab, Format::Raw);
    lab.good("vhd", &["hash", "--stamp", "day1"]);
    let other = lab.read("day1.windows");
    lab.good("vhd", &["hash", "--stamp", "day0"]);
    let mut damaged = lab.read("day0.windows");
    *damaged.last_mut().unwrap() ^= 1;
    for (list, kept) in [
        (other, false),
        (damaged, false),
        (b"my own notes".to_vec(), true),
        // What a crash may leave of a list, which isn't synced.
        (Vec::new(), false),
    ] {
        lab.write("day0", &days[0]);
        lab.good("vhd", &["hash", "--stamp", "day0"]);
        lab.write("day0.windows", &list);
        let done = apply(&lab, &["day0", "diff0", "--in-place", "journal"]);
        assert_eq!(done["base_check"], "full");
        assert_eq!(done["stamped"], true);
        lab.holds("day0", &days[1]);
        assert_eq!(lab.read("day0.windows") == list, kept);
        lab.good("vhd", &["hash", "--stamp", "day0"]);
        assert_eq!(lab.read("day0.windows") == list, kept);
        fs::remove_file(lab.path("day0.windows")).unwrap();
    }
    // The list of another image.
    lab.write("day0", &days[0]);
    lab.good("vhd", &["hash", "--stamp", "day0"]);
    let open = fs::Permissions::from_mode(0o666);
    fs::set_permissions(lab.path("day0.windows"), open).unwrap();
    let done = apply(&lab, &["day0", "diff0", "--dry-run"]);
    assert_eq!(done["base_check"], "full");
}

#[test]
fn stamps_come_with_new_images_undo_and_hash() {
    for format in FORMATS {
        let lab = Lab::new();
        let days = days(&lab, format);
        let out = ["day0", "diff0", "-o", "new", "-O", format.name()];
        assert_eq!(apply(&lab, &out)["stamped"], true, "{format}");
        assert_eq!(stamp(&lab, "new", &[]).as_deref(), Some(""));
        let done = apply(&lab, &["new", "diff1", "--undo", "undo"]);
        assert_eq!(done["base_check"], "full", "{format}");
        assert_eq!(apply(&lab, &["new", "undo"])["base_check"], "full");
        lab.holds("new", &days[1]);
        assert_eq!(stamp(&lab, "new", &[]).as_deref(), Some(""));
        let digest = lab.good("vhd", &["hash", "--stamp", "day0"]);
        let info = lab.json("vhd", &["info", "day0", "--json"]);
        assert_eq!(info["state_stamp"]["content_digest"], digest[..64]);
        assert_eq!(apply(&lab, &["day0", "diff0"])["base_check"], "stamp");
        let said = lab.ends(2, "vhd", &["hash", "--stamp", "-a", "sha256", "day0"]);
        assert!(said.contains("content digest"), "{said}");
    }
}

#[test]
fn what_is_not_known_for_certain_gets_no_stamp() {
    let lab = Lab::new();
    days(&lab, Format::Raw);
    let done = apply(&lab, &["day0", "diff0", "--base-check", "touched"]);
    assert_eq!(done["stamped"], false);
    assert_eq!(stamp(&lab, "day0", &[]), None);
    lab.diff("day0", "day2", "blind", &["--no-digest"]);
    assert_eq!(apply(&lab, &["day0", "blind"])["stamped"], false);
    assert_eq!(stamp(&lab, "day0", &[]), None);
    // Reading it back makes it certain.
    lab.copy("day1", "base");
    let done = apply(
        &lab,
        &["base", "diff1", "--base-check", "touched", "--verify"],
    );
    assert_eq!(done["stamped"], true);
}

/// Whatever happens to the file, its stamp becomes stale.
#[test]
fn a_changed_file_has_a_stale_stamp() {
    type Change = fn(&Lab);
    let changes: [(&str, bool, Change); 7] = [
        ("written to", true, |lab| {
            let file = fs::File::options()
                .write(true)
                .open(lab.path("day0"))
                .unwrap();
            file.write_all_at(b"x", 7 * MIB as u64).unwrap();
        }),
        ("something about it", true, |lab| {
            // Written to, with the modification time set back.
            let file = fs::File::options()
                .write(true)
                .open(lab.path("day0"))
                .unwrap();
            let time = file.metadata().unwrap().modified().unwrap();
            file.write_all_at(b"x", 7 * MIB as u64).unwrap();
            file.set_modified(time).unwrap();
        }),
        ("another size", false, |lab| {
            let file = fs::File::options()
                .write(true)
                .open(lab.path("day0"))
                .unwrap();
            file.set_len((SIZE + 512) as u64).unwrap();
        }),
        ("a copy", false, |lab| {
            // With attributes and times preserved, as `cp --archive` does.
            let value = attribute(lab, "day0");
            let time = fs::metadata(lab.path("day0")).unwrap().modified().unwrap();
            lab.copy("day0", "copy");
            set_attribute(lab, "copy", &value);
            let copy = fs::File::options()
                .write(true)
                .open(lab.path("copy"))
                .unwrap();
            copy.set_modified(time).unwrap();
            fs::rename(lab.path("copy"), lab.path("day0")).unwrap();
        }),
        ("a copy", true, |lab| {
            // Another disk under the same name, carrying the old stamp.
            let value = attribute(lab, "day0");
            lab.make("copy", Format::Raw, &later(&monday(), SIZE, 99));
            set_attribute(lab, "copy", &value);
            fs::rename(lab.path("copy"), lab.path("day0")).unwrap();
        }),
        ("something about it", false, |lab| {
            fs::set_permissions(lab.path("day0"), fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("written to", true, |lab| {
            // Overwritten in one go with the same length.
            fs::write(lab.path("day0"), later(&monday(), SIZE, 99)).unwrap();
        }),
    ];
    let labs: Vec<_> = changes.iter().map(|_| Lab::new()).collect();
    for lab in &labs {
        days(lab, Format::Raw);
        lab.good("vhd", &["hash", "--stamp", "day0"]);
        assert_eq!(stamp(lab, "day0", &[]).as_deref(), Some(""));
    }
    // A stamp tolerates a time of change up to a second later.
    std::thread::sleep(Duration::from_millis(1100));
    for ((why, differs, change), lab) in changes.iter().zip(&labs) {
        change(lab);
        let found = stamp(lab, "day0", &[]).unwrap();
        assert!(found.contains(why), "{found:?}, expected {why:?}");
        if *differs {
            let said = lab.refused(4, "vhd-apply", &["day0", "diff0"]);
            assert!(said.contains("content digest"), "{said}");
        } else if why.contains("size") {
            lab.refused(4, "vhd-apply", &["day0", "diff0"]);
        } else {
            let done = apply(lab, &["day0", "diff0"]);
            assert_eq!(done["base_check"], "full");
        }
    }
}

#[test]
fn a_stamp_is_of_one_format() {
    let lab = Lab::new();
    days(&lab, Format::Fixed);
    lab.good("vhd", &["hash", "--stamp", "day0"]);
    let found = stamp(&lab, "day0", &["-f", "raw"]).unwrap();
    assert!(found.contains("another format"), "{found}");
    assert_eq!(stamp(&lab, "day0", &["-f", "fixed"]).as_deref(), Some(""));
}

#[test]
fn a_childs_stamp_covers_its_parents() {
    let lab = Lab::new();
    let (base, target) = (monday(), later(&monday(), SIZE, 10));
    lab.make("grandparent.vhd", Format::Dynamic, &base);
    for (parent, child) in [
        ("grandparent.vhd", "parent.vhd"),
        ("parent.vhd", "child.vhd"),
    ] {
        lab.good("vhd", &["create", child, "--parent", parent, "-q"]);
    }
    lab.make("target", Format::Raw, &target);
    lab.diff("child.vhd", "target", "diff", &[]);
    lab.diff("target", "child.vhd", "back", &[]);
    for ancestor in ["parent.vhd", "grandparent.vhd"] {
        lab.good("vhd", &["hash", "--stamp", "child.vhd"]);
        assert_eq!(stamp(&lab, "child.vhd", &[]).as_deref(), Some(""));
        assert!(!lab.path("child.vhd.windows").exists());
        let trusting = ["child.vhd", "diff", "--base-check", "stamp"];
        assert_eq!(apply(&lab, &trusting)["base_check"], "stamp");
        lab.good("vhd", &["hash", "--stamp", "child.vhd"]);
        assert_eq!(stamp(&lab, "child.vhd", &[]).as_deref(), Some(""));
        let file = fs::File::options()
            .write(true)
            .open(lab.path(ancestor))
            .unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        file.set_modified(time + Duration::from_nanos(1)).unwrap();
        let found = stamp(&lab, "child.vhd", &[]).unwrap();
        assert!(found.contains("a parent"), "{found}");
        // A copy of the same bytes in its place is a different file.
        assert_eq!(apply(&lab, &["child.vhd", "back"])["base_check"], "full");
        lab.good("vhd", &["hash", "--stamp", "child.vhd"]);
        lab.copy(ancestor, "copy");
        fs::rename(lab.path("copy"), lab.path(ancestor)).unwrap();
        assert!(stamp(&lab, "child.vhd", &[]).unwrap().contains("a parent"));
    }
    // A child made by an apply is stamped as well.
    let made = apply(
        &lab,
        &[
            "grandparent.vhd",
            "diff",
            "-o",
            "new.vhd",
            "-O",
            "differencing",
        ],
    );
    assert_eq!(made["stamped"], true);
    assert_eq!(stamp(&lab, "new.vhd", &[]).as_deref(), Some(""));
    // Without its parents, nothing is known about it.
    fs::rename(lab.path("grandparent.vhd"), lab.path("away")).unwrap();
    assert!(!stamp(&lab, "new.vhd", &[]).unwrap().is_empty());
}

/// Writes a stamp that is right except for its digest, as anyone who may write the file can.
fn forge(lab: &Lab, name: &str, digest: &str) {
    let metadata = fs::metadata(lab.path(name)).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let text = format!(
        "vhdkit state 1\ndigest {digest}\nformat raw\nsize {}\nmodified {}.{:09}\ninode {}\nstamped {}.{:09}\n",
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ino(),
        now.as_secs(),
        now.subsec_nanos(),
    );
    set_attribute(lab, name, text.as_bytes());
    assert_eq!(stamp(lab, name, &[]).as_deref(), Some(""));
}

#[test]
fn a_forged_stamp_misleads_no_further_than_who_forged_it_could() {
    let lab = Lab::new();
    let days = days(&lab, Format::Raw);
    let right = lab.good("vhd", &["hash", "day0"])[..64].to_owned();
    // Garbage doesn't count as a stamp.
    let long = "x".repeat(3000);
    for text in [
        "",
        "\0",
        "vhdkit state 1\n",
        "vhdkit state 2\ndigest\n",
        &long,
    ] {
        set_attribute(&lab, "day0", text.as_bytes());
        assert_eq!(stamp(&lab, "day0", &[]), None);
    }
    // A digest that doesn't match isn't trusted: the base is read.
    forge(&lab, "day0", &"5".repeat(64));
    let dry = apply(&lab, &["day0", "diff0", "--dry-run"]);
    assert_eq!(dry["base_check"], "full");
    // A matching digest on a base that differs: the bytes under the changed pages reveal it.
    let mut other = monday();
    other[0] ^= 1;
    for way in ["copy", "journal"] {
        lab.write("day0", &other);
        forge(&lab, "day0", &right);
        for more in [&[][..], &["--undo", "undo"], &["--dry-run"]] {
            let args = [&["day0", "diff0", "--in-place", way], more].concat();
            let said = lab.refused(4, "vhd-apply", &args);
            assert!(said.contains("content digest"), "{said}");
            let args = [&args[..], &["--base-check", "stamp"]].concat();
            let said = lab.refused(4, "vhd-apply", &args);
            assert!(said.contains("state stamp"), "{said}");
            let said = lab.refused(
                4,
                "vhd-apply",
                &["day0", "diff0", "-o", "new.vhd", "-O", "raw"],
            );
            assert!(said.contains("content digest"), "{said}");
        }
    }
    // A difference elsewhere goes unnoticed; reading everything reveals it.
    let mut other = monday();
    other[7 * MIB] = 1;
    lab.write("day0", &other);
    forge(&lab, "day0", &right);
    lab.refused(4, "vhd-apply", &["day0", "diff0", "--base-check", "full"]);
    let said = lab.refused(
        3,
        "vhd-apply",
        &[
            "day0",
            "diff0",
            "--verify",
            "--in-place",
            "copy",
            "--base-check",
            "stamp",
        ],
    );
    assert!(said.contains("content digest"), "{said}");
    lab.refused(4, "vhd-apply", &["day0", "diff0"]);
    apply(&lab, &["day0", "diff0", "--base-check", "stamp"]);
    let mut expected = days[1].clone();
    expected[7 * MIB] = 1;
    lab.holds("day0", &expected);
}

/// After any of our programs that writes, the stamp is gone, stale or right.
#[test]
fn other_writers_leave_no_wrong_stamp() {
    let right_or_none = |lab: &Lab, name: &str, what: &str| {
        let info = lab.json("vhd", &["info", name, "--json"]);
        if info["state_stamp"]["valid"] == true {
            let digest = lab.good("vhd", &["hash", name]);
            assert_eq!(
                info["state_stamp"]["content_digest"],
                digest[..64],
                "{what}"
            );
        }
    };
    let lab = Lab::new();
    days(&lab, Format::Dynamic);
    let stamped = |name: &str| {
        lab.good("vhd", &["hash", "--stamp", name]);
        assert_eq!(stamp(&lab, name, &[]).as_deref(), Some(""), "{name}");
    };
    // Merge.
    lab.make("parent.vhd", Format::Dynamic, &monday());
    lab.good(
        "vhd",
        &["create", "child.vhd", "--parent", "parent.vhd", "-q"],
    );
    lab.apply(&["child.vhd", "diff0"]);
    stamped("parent.vhd");
    stamped("child.vhd");
    lab.good("vhd", &["merge", "child.vhd", "-q"]);
    lab.holds("parent.vhd", &later(&monday(), SIZE, 10));
    right_or_none(&lab, "parent.vhd", "merged parent");
    assert!(stamp(&lab, "child.vhd", &[]).unwrap().contains("a parent"));
    // Resize of a dynamic VHD that keeps its length, and of a raw image.
    for (name, format) in [("grow.vhd", Format::Dynamic), ("grow.raw", Format::Raw)] {
        lab.make(name, format, &monday());
        stamped(name);
        let size = (SIZE + 512).to_string();
        lab.good("vhd", &["resize", name, "--size", &size, "-q"]);
        assert_ne!(stamp(&lab, name, &[]).as_deref(), Some(""), "{name}");
    }
    // Repair and its rollback.
    lab.make("hurt.vhd", Format::Dynamic, &monday());
    stamped("hurt.vhd");
    let file = fs::File::options()
        .write(true)
        .open(lab.path("hurt.vhd"))
        .unwrap();
    let end = file.metadata().unwrap().len();
    file.write_all_at(&[0; 512], end - 512).unwrap();
    drop(file);
    lab.good("vhd", &["check", "--repair", "hurt.vhd"]);
    assert_ne!(stamp(&lab, "hurt.vhd", &[]).as_deref(), Some(""));
    // An interrupted apply, finished and rolled back: stamped again, because the digest was verified.
    for (args, day) in [(&["base", "diff0"][..], 1), (&["base", "--rollback"], 0)] {
        lab.copy("day0", "base");
        lab.apply(&["base", "diff0", "--undo", "undo"]);
        fs::rename(lab.path("undo"), lab.path("base.undo-journal")).unwrap();
        lab.apply(args);
        let info = lab.json("vhd", &["info", "base", "--json"]);
        assert_eq!(info["state_stamp"]["valid"], true, "{args:?}");
        let digest = lab.good("vhd", &["hash", &format!("day{day}")]);
        assert_eq!(
            info["state_stamp"]["content_digest"],
            digest[..64],
            "{args:?}"
        );
    }
}

/// A failure between the old and the new point in time leaves no stamp of either.
#[test]
fn an_apply_by_the_journal_takes_the_old_stamp_away_first() {
    let lab = Lab::new();
    days(&lab, Format::Dynamic);
    lab.good("vhd", &["hash", "--stamp", "day0"]);
    // The first write to the base, when the journal exists, meets a full device.
    let script = "exec strace -f -qq -o /dev/null -P day0 -e inject=pwrite64:error=ENOSPC:when=1 \"$0\" day0 diff0 diff1 --in-place journal";
    let program = env!("CARGO_BIN_EXE_vhd-apply");
    let said = lab.ends(2, "bash", &["-c", script, program]);
    assert!(said.contains("--rollback"), "{said}");
    let file = File::open(lab.path("day0")).unwrap();
    assert_eq!(file.attribute(STATE_ATTRIBUTE).unwrap(), None);
    drop(file);
    lab.apply(&["day0", "--rollback"]);
    lab.holds("day0", &monday());
    assert_eq!(stamp(&lab, "day0", &[]).as_deref(), Some(""));
}
