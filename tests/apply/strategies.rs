//! Every strategy for changing a base in place: on a clone, on a copy, and with a journal.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use vhdkit::files::Format;
use vhdkit::storage::File;

use crate::lab::{Lab, MIB, SIZE, later, monday, noise, same, stderr};
use crate::mounts::Mounted;

const ALL_FORMATS: [Format; 4] = [
    Format::Raw,
    Format::Fixed,
    Format::Dynamic,
    Format::Differencing,
];

/// Returns the mounted file systems that support clones.
fn cloning() -> Vec<Mounted> {
    Mounted::all(&["xfs", "btrfs"])
}

/// Creates `base`, `target` and `diff`; `base` is a differencing VHD if the format says so.
fn pair(lab: &Lab, format: Format, base: &[u8], target: &[u8]) {
    if format != Format::Differencing {
        return lab.pair(format, base, target);
    }
    lab.make("parent.vhd", Format::Dynamic, base);
    lab.good("vhd", &["create", "base", "--parent", "parent.vhd", "-q"]);
    lab.make("target", Format::Raw, target);
    lab.diff("base", "target", "diff", &[]);
}

/// Applies forwards and backwards, with everything preserved and verified.
fn forth_and_back(lab: &Lab, format: Format, way: &str, strategy: &str) {
    let what = format!("{format} {way}");
    let (base, target) = (monday(), later(&monday(), SIZE + MIB, 10));
    pair(lab, format, &base, &target);
    let before = lab.names();
    let how = ["--in-place", way, "--verify", "--json", "-q"];
    let done = lab.json(
        "vhd-apply",
        &[&["base", "diff", "--undo", "undo"], &how[..]].concat(),
    );
    assert_eq!(done["outcome"], "applied", "{what}");
    assert_eq!(done["strategy"], strategy, "{what}");
    lab.holds("base", &target);
    assert_eq!(lab.open("base").format(), format);
    if matches!(format, Format::Raw | Format::Fixed) {
        same(&lab.read("base"), &lab.read("target"), &what);
    }
    let again = lab.json(
        "vhd-apply",
        &["base", "diff", "--in-place", way, "--json", "-q"],
    );
    assert_eq!(again["outcome"], "already_applied", "{what}");
    lab.json("vhd-apply", &[&["base", "undo"], &how[..]].concat());
    lab.holds("base", &base);
    fs::remove_file(lab.path("undo")).unwrap();
    assert_eq!(lab.names(), before, "{what}");
}

#[test]
fn every_strategy_for_every_format() {
    for format in ALL_FORMATS {
        for way in ["copy", "journal"] {
            forth_and_back(&Lab::new(), format, way, way);
        }
    }
    for mounted in cloning() {
        for format in ALL_FORMATS {
            for (way, strategy) in [
                ("auto", "clone"),
                ("clone", "clone"),
                ("journal", "journal"),
            ] {
                forth_and_back(&Lab::at(&mounted.path()), format, way, strategy);
            }
        }
    }
}

/// On a file system without clones, such as ext4, the journal is used.
#[test]
fn without_clones_it_is_the_journal() {
    for mounted in Mounted::all(&["ext4"]) {
        let lab = Lab::at(&mounted.path());
        forth_and_back(&lab, Format::Raw, "auto", "journal");
        let said = lab.refused(3, "vhd-apply", &["base", "diff", "--in-place", "clone"]);
        assert!(said.contains("can't clone"), "{said}");
        assert!(said.contains("--in-place journal"), "{said}");
    }
}

#[test]
fn what_was_not_changed_stays_shared() {
    for mounted in cloning() {
        let lab = Lab::at(&mounted.path());
        let mut base = noise(1, 64 * MIB);
        lab.write("base", &base);
        base[8 * MIB..8 * MIB + 4096].fill(9);
        base[16 * MIB..24 * MIB].fill(0);
        lab.write("target", &base);
        lab.diff("base", "target", "diff", &[]);
        fs::remove_file(lab.path("target")).unwrap();
        lab.good("cp", &["--reflink=always", "base", "kept"]);
        let before = mounted.free();
        lab.apply(&["base", "diff", "--in-place", "clone"]);
        let used = before.saturating_sub(mounted.free());
        assert!(used < 4 << 20, "{}: {used} bytes", mounted.kind());
        lab.holds("base", &base);
    }
}

#[test]
fn several_names_stay_one_file() {
    let labs = cloning();
    let places = labs.iter().map(|mounted| Lab::at(&mounted.path()));
    for lab in places.chain([Lab::new()]) {
        let target = later(&monday(), SIZE, 10);
        lab.pair(Format::Raw, &monday(), &target);
        fs::hard_link(lab.path("base"), lab.path("other")).unwrap();
        for way in ["clone", "copy"] {
            let said = lab.refused(2, "vhd-apply", &["base", "diff", "--in-place", way]);
            assert!(said.contains("2 hard links"), "{said}");
        }
        let done = lab.json("vhd-apply", &["base", "diff", "--json", "-q"]);
        assert_eq!(done["strategy"], "journal");
        lab.holds("other", &target);
        let inode = |name: &str| fs::metadata(lab.path(name)).unwrap().ino();
        assert_eq!(inode("base"), inode("other"));
    }
}

#[test]
fn a_link_stays_and_the_file_behind_it_is_replaced() {
    let mounted = cloning();
    let labs = mounted.iter().map(|mounted| Lab::at(&mounted.path()));
    for lab in labs.chain([Lab::new()]) {
        let target = later(&monday(), SIZE, 10);
        lab.pair(Format::Dynamic, &monday(), &target);
        fs::create_dir(lab.path("far")).unwrap();
        fs::rename(lab.path("base"), lab.path("far/base")).unwrap();
        symlink("far/base", lab.path("link")).unwrap();
        let inode = |name: &str| fs::metadata(lab.path(name)).unwrap().ino();
        let before = inode("far/base");
        // With clones this takes no longer than elsewhere.
        lab.apply(&["link", "diff", "--in-place", "copy"]);
        assert!(fs::symlink_metadata(lab.path("link")).unwrap().is_symlink());
        assert_ne!(inode("far/base"), before);
        lab.holds("far/base", &target);
        assert_eq!(fs::read_dir(lab.path("far")).unwrap().count(), 1);
    }
}

/// An access control list that lets another user read.
const ACL: &[u8] = &[
    2, 0, 0, 0, // version
    1, 0, 6, 0, 255, 255, 255, 255, // the owner
    2, 0, 4, 0, 210, 4, 0, 0, // user 1234
    4, 0, 4, 0, 255, 255, 255, 255, // the group
    16, 0, 4, 0, 255, 255, 255, 255, // at most
    32, 0, 0, 0, 255, 255, 255, 255, // others
];

#[test]
fn owner_permissions_and_attributes_stay() {
    let mounted = Mounted::all(&["xfs", "btrfs", "ext4"]);
    let labs = mounted.iter().map(|mounted| Lab::at(&mounted.path()));
    for lab in labs.chain([Lab::new()]) {
        lab.pair(Format::Raw, &monday(), &later(&monday(), SIZE, 10));
        let path = lab.path("base");
        // Only root can give files away; for others there is nothing to preserve.
        let _ = std::os::unix::fs::chown(&path, Some(1234), Some(2345));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let file = File::open_writable(&path).unwrap();
        let names = [
            "user.note",
            "user.empty",
            "system.posix_acl_access",
            "security.vhdkit_test",
        ];
        let values: [&[u8]; 4] = [b"\0\xFFbytes", b"", ACL, b"label"];
        let has: Vec<bool> = names
            .iter()
            .zip(values)
            .map(|(name, value)| file.set_attribute(name, value).unwrap_or(false))
            .collect();
        println!("{names:?}: {has:?}");
        let before = fs::metadata(&path).unwrap();
        drop(file);
        for way in ["copy", "auto"] {
            let begun = SystemTime::now() - Duration::from_secs(1);
            let said = lab.apply(&["base", "diff", "--in-place", way, "--undo", "undo"]);
            assert!(!said.contains("warning"), "{said}");
            let after = fs::metadata(&path).unwrap();
            assert_eq!(after.mode(), before.mode());
            assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
            assert!(after.modified().unwrap() > begun, "{way}");
            let file = File::open(&path).unwrap();
            for ((name, value), has) in names.iter().zip(values).zip(&has) {
                let found = file.attribute(name).unwrap();
                assert_eq!(found.as_deref(), has.then_some(value), "{way} {name}");
            }
            drop(file);
            let undo = fs::metadata(lab.path("undo")).unwrap();
            assert_eq!(undo.mode() & 0o007, 0, "others may not read the undo diff");
            lab.apply(&["base", "undo"]);
            fs::remove_file(lab.path("undo")).unwrap();
        }
    }
}

/// Runs `vhd-apply` in the lab as an unprivileged user; returns `None` unless the test runs as root.
fn as_nobody(lab: &Lab, args: &[&str]) -> Option<std::process::Output> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let program = lab.path("vhd-apply");
    if !program.exists() {
        // Copied by another process: a concurrent test's fork could otherwise hold the program open for writing.
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_vhd-apply"))
            .arg(&program)
            .status();
        assert!(copied.unwrap().success());
    }
    let mut command = lab.command(program.to_str().unwrap(), args);
    Some(command.uid(65534).gid(65534).output().unwrap())
}

fn allow(lab: &Lab, name: &str, mode: u32) {
    fs::set_permissions(lab.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn in_a_folder_that_may_not_be_written_nothing_happens() {
    let lab = Lab::new();
    lab.pair(Format::Raw, &monday(), &later(&monday(), SIZE, 10));
    allow(&lab, "", 0o755);
    allow(&lab, "base", 0o666);
    for way in ["auto", "copy", "journal"] {
        let args = ["base", "diff", "--in-place", way];
        let Some(output) = as_nobody(&lab, &args) else {
            eprintln!("NOT TESTED: a read-only folder, which needs root to be set up");
            return;
        };
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{way}: {said}");
        assert!(
            said.contains("cannot create a file in this folder"),
            "{said}"
        );
        lab.holds("base", &monday());
        assert_eq!(lab.names(), ["base", "diff", "target", "vhd-apply"]);
    }
}

/// A file that belongs to another user would be ours once replaced.
#[test]
fn what_cannot_be_kept_is_said_or_keeps_auto_from_replacing() {
    let mounted = cloning();
    let labs = mounted
        .iter()
        .map(|mounted| (Lab::at(&mounted.path()), "clone"));
    for (lab, way) in labs.chain([(Lab::new(), "copy")]) {
        let target = later(&monday(), SIZE, 10);
        lab.pair(Format::Raw, &monday(), &target);
        lab.copy("base", "second");
        allow(&lab, "", 0o777);
        allow(&lab, "base", 0o666);
        allow(&lab, "second", 0o666);
        let Some(output) = as_nobody(&lab, &["base", "diff", "--json", "-q"]) else {
            eprintln!("NOT TESTED: files of another owner, which needs root to be set up");
            return;
        };
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(done["strategy"], "journal");
        assert_eq!(fs::metadata(lab.path("base")).unwrap().uid(), 0);
        let output = as_nobody(&lab, &["second", "diff", "--in-place", way]).unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(
            said.contains("warning") && said.contains("its owner 0"),
            "{said}"
        );
        assert_eq!(fs::metadata(lab.path("second")).unwrap().uid(), 65534);
        lab.holds("base", &target);
        lab.holds("second", &target);
    }
}

#[test]
fn a_journal_goes_first_whatever_was_asked_for() {
    let lab = Lab::new();
    let target = later(&monday(), SIZE, 10);
    lab.pair(Format::Fixed, &monday(), &target);
    lab.copy("base", "old");
    lab.apply(&["base", "diff", "--undo", "undo"]);
    lab.copy("old", "base");
    lab.copy("undo", "base.undo-journal");
    let done = lab.json(
        "vhd-apply",
        &["base", "diff", "--in-place", "copy", "--json", "-q"],
    );
    assert_eq!(done["outcome"], "finished");
    assert_eq!(done["strategy"], "journal");
    lab.holds("base", &target);
    assert!(!lab.journal("base").exists());
}

#[test]
fn what_does_not_fit_is_noticed_before_it_takes_the_place() {
    let lab = Lab::new();
    lab.pair(Format::Raw, &monday(), &later(&monday(), SIZE, 10));
    let mut other = monday();
    other[7 * MIB] = 1;
    lab.write("base", &other);
    let copy = ["base", "diff", "--in-place", "copy"];
    lab.refused(4, "vhd-apply", &copy);
    // Right under the changed pages, wrong elsewhere: only the result reveals it.
    let said = lab.refused(
        3,
        "vhd-apply",
        &[
            &copy[..],
            &["--base-check", "touched", "--verify", "--undo", "undo"],
        ]
        .concat(),
    );
    assert!(said.contains("the base is unchanged"), "{said}");
}

#[test]
fn leftovers_go_unless_somebody_uses_them() {
    for way in ["copy", "journal"] {
        let lab = Lab::new();
        lab.pair(Format::Raw, &monday(), &later(&monday(), SIZE, 10));
        let (left, used) = (".vhdkit-base-abcdef.tmp", ".vhdkit-base-123456.tmp");
        let foreign = ".vhdkit-target-abcdef.tmp";
        for name in [left, used, foreign] {
            lab.write(name, b"something");
        }
        let user = fs::File::open(lab.path(used)).unwrap();
        user.lock().unwrap();
        lab.refused(0, "vhd-apply", &["base", "diff", "--dry-run"]);
        lab.apply(&["base", "diff", "--in-place", way]);
        assert_eq!(lab.names(), [used, foreign, "base", "diff", "target"]);
        drop(user);
        lab.apply(&["base", "diff"]);
        assert_eq!(lab.names(), [foreign, "base", "diff", "target"]);
    }
}

#[test]
fn who_reads_the_old_file_goes_on_reading_it() {
    let lab = Lab::new();
    lab.pair(Format::Raw, &monday(), &later(&monday(), SIZE, 10));
    let reader = fs::File::open(lab.path("base")).unwrap();
    lab.apply(&["base", "diff", "--in-place", "copy"]);
    let mut bytes = vec![0; SIZE];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    same(&bytes, &monday(), "the old file");
    lab.holds("base", &later(&monday(), SIZE, 10));
}

/// Commands that read while the base is replaced over and over see one of the two versions, or are asked to wait.
#[test]
fn readers_and_replacing_writers_do_not_mix() {
    let lab = Lab::new();
    lab.pair(Format::Raw, &monday(), &later(&monday(), SIZE, 10));
    lab.diff("target", "base", "back", &[]);
    let digest = |name: &str| lab.good("vhd", &["hash", name])[..64].to_owned();
    let digests = [digest("base"), digest("target")];
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            for n in 0..40 {
                let diff = ["diff", "back"][n % 2];
                let output = lab
                    .command("vhd-apply", &["base", diff, "--in-place", "copy"])
                    .output()
                    .unwrap();
                match output.status.code() {
                    Some(0) => written += 1,
                    // A reader held it up, and the other diff may not match then.
                    Some(4 | 5) => {}
                    code => panic!("{code:?}: {}", stderr(&output)),
                }
            }
            written
        });
        let mut read = 0;
        while !writer.is_finished() {
            let output = lab.command("vhd", &["hash", "base"]).output().unwrap();
            match output.status.code() {
                Some(0) => {
                    read += 1;
                    let found = String::from_utf8_lossy(&output.stdout)[..64].to_owned();
                    assert!(digests.contains(&found), "{found}");
                }
                Some(5) => {}
                code => panic!("{code:?}: {}", stderr(&output)),
            }
        }
        println!(
            "written {} times, read {read} times",
            writer.join().unwrap()
        );
    });
    assert!(lab.names().iter().all(|name| !name.starts_with('.')));
}

/// Kills the real program at many moments: the base is old or new, nothing blocks the next apply, and that cleans up
/// leftovers.
#[test]
fn killed_at_any_moment_the_base_is_whole() {
    const DISK: usize = 24 * MIB;
    let mounted = cloning();
    let labs = mounted
        .iter()
        .map(|mounted| (Lab::at(&mounted.path()), "clone"));
    for (lab, way) in labs.chain([(Lab::new(), "copy")]) {
        let mut base = vec![0; DISK];
        base[MIB..9 * MIB].copy_from_slice(&noise(1, 8 * MIB));
        let mut target = base.clone();
        target[8 * MIB..16 * MIB].copy_from_slice(&noise(2, 8 * MIB));
        target[2 * MIB..3 * MIB].fill(0);
        lab.pair(Format::Fixed, &base, &target);
        lab.copy("base", "kept");
        let args = ["base", "diff", "--in-place", way, "-q"];
        let begun = Instant::now();
        lab.apply(&args);
        let duration = begun.elapsed();
        let (mut seen, mut left) = ([0; 2], 0);
        for n in 0..16_u32 {
            lab.copy("kept", "base");
            let mut child = lab.command("vhd-apply", &args).spawn().unwrap();
            std::thread::sleep(duration * n / 14 + Duration::from_millis(1));
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(!lab.journal("base").exists());
            let content = lab.content("base");
            seen[usize::from(content == target)] += 1;
            assert!(content == base || content == target, "{way} {n}");
            left += usize::from(lab.names().len() > 4);
            lab.apply(&args);
            lab.holds("base", &target);
            assert_eq!(lab.names(), ["base", "diff", "kept", "target"]);
        }
        println!("{way}: {duration:?}, [old, new]: {seen:?}, with leftovers {left}");
    }
}
