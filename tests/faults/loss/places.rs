//! Odd places: folders that can't be written, links, file systems that lack things, very long files, and outputs
//! that take nothing.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::process::{Command, Stdio};

use crate::disk::{Random, memory, program};
use crate::kill::{killed_at, points};
use crate::loss::scene::{Scene, ended};
use crate::mounts::Mounted;

/// The command as somebody who isn't the superuser runs it.
fn as_nobody(scene: &Scene, line: &str) -> Command {
    let words: Vec<_> = line.split_whitespace().collect();
    // The program may lie where nobody may look.
    let copy = scene.path(words[0]);
    if !copy.exists() {
        fs::copy(program(words[0]).get_program(), &copy).unwrap();
    }
    let mut command = program("setpriv");
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command.arg("--").arg(copy).args(&words[1..]);
    command.current_dir(scene.folder.path());
    command
}

#[test]
fn in_a_folder_that_cannot_be_written_nothing_happens() {
    let scene = Scene::new();
    for name in ["base.raw", "diff"] {
        fs::set_permissions(scene.path(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    let lines = [
        "vhd-apply base.raw diff",
        "vhd-apply base.raw diff --in-place journal",
        "vhd-apply base.raw diff -o new",
        "vhd-diff base.raw target.raw -o new",
    ];
    // The programs are copied there first.
    for line in lines {
        as_nobody(&scene, line);
    }
    fs::set_permissions(scene.folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let names = scene.names();
    for line in lines {
        let said = ended(&as_nobody(&scene, line).output().unwrap(), 2);
        assert!(said.contains("Permission denied"), "{line}: {said}");
        assert_eq!(scene.names(), names, "{line}");
        scene.holds("base.raw", &scene.base);
    }
    fs::set_permissions(scene.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_read_only_file_system_is_read_and_no_more() {
    let Some(mounted) = Mounted::sized("ext4", 80 << 20, &memory()) else {
        return;
    };
    let scene = Scene::at(&mounted.path());
    mounted.remount("ro");
    scene.ends(1, "vhd-diff base.raw target.raw");
    scene.ends(0, "vhd-apply base.raw diff --dry-run");
    for line in [
        "vhd-apply base.raw diff",
        "vhd-apply base.raw diff -o new",
        "vhd resize base.raw --size 9M",
    ] {
        let said = scene.ends(2, line);
        assert!(said.contains("Read-only file system"), "{said}");
    }
    mounted.remount("rw");
    scene.holds("base.raw", &scene.base);
    scene.no_trace();
}

#[test]
fn through_a_symbolic_link_the_file_itself_is_changed() {
    for how in ["auto", "journal", "copy"] {
        let scene = Scene::new();
        fs::create_dir(scene.path("elsewhere")).unwrap();
        symlink("../base.raw", scene.path("elsewhere/link")).unwrap();
        let line = format!("vhd-apply elsewhere/link diff --in-place {how}");
        let journal = points(&scene.command(&line));
        assert!(!journal.is_empty());
        scene.holds("base.raw", &scene.target);
        assert!(
            fs::symlink_metadata(scene.path("elsewhere/link"))
                .unwrap()
                .is_symlink()
        );
        assert_eq!(fs::read_dir(scene.path("elsewhere")).unwrap().count(), 1);
    }
}

#[test]
fn a_file_with_two_names_keeps_both() {
    let scene = Scene::new();
    fs::hard_link(scene.path("base.raw"), scene.path("other")).unwrap();
    scene.ends(0, "vhd-apply base.raw diff");
    scene.holds("base.raw", &scene.target);
    scene.holds("other", &scene.target);
    assert_eq!(fs::metadata(scene.path("other")).unwrap().nlink(), 2);
}

#[test]
fn without_extended_attributes_and_holes() {
    let Some(mounted) = Mounted::new("ramfs") else {
        return;
    };
    let scene = Scene::at(&mounted.path());
    scene.ends(0, "vhd-apply base.raw diff --undo back");
    scene.holds("base.raw", &scene.target);
    scene.ends(0, "vhd-apply base.raw back --verify");
    scene.holds("base.raw", &scene.base);
    scene.ends(0, "vhd-apply base.raw diff -o new -O raw --verify");
    scene.holds("new", &scene.target);
}

#[test]
fn files_of_three_tebibytes() {
    const SIZE: u64 = 3 << 40;
    let scene = Scene::new();
    let mut random = Random::new(9);
    let (old, new) = (random.bytes(4096), random.bytes(4096));
    let make = |name: &str, bytes: &[u8]| {
        let file = fs::File::create(scene.path(name)).unwrap();
        file.set_len(SIZE).unwrap();
        for at in [0, (2 << 40) - 2048, SIZE - 4096] {
            file.write_all_at(bytes, at).unwrap();
        }
    };
    make("long.raw", &old);
    make("longer.raw", &new);
    let holds = |bytes: &[u8]| {
        let file = fs::File::open(scene.path("long.raw")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), SIZE);
        for at in [0, (2 << 40) - 2048, SIZE - 4096] {
            let mut found = [0; 4096];
            file.read_exact_at(&mut found, at).unwrap();
            assert!(found == bytes, "at {at}");
        }
    };
    scene.ends(0, "vhd-diff long.raw longer.raw -o long-diff -q");
    let line = "vhd-apply long.raw long-diff -q --in-place journal";
    let mut writes = points(&scene.command(line));
    holds(&new);
    scene.ends(0, "vhd-diff longer.raw long.raw");
    make("long.raw", &old);
    writes.retain(|point| point.call == "pwrite64");
    assert!(killed_at(&scene.command(line), writes.last().unwrap()));
    scene.ends(5, "vhd info long.raw");
    scene.ends(0, "vhd-apply --rollback long.raw");
    holds(&old);
    scene.ends(0, line);
    holds(&new);
}

#[test]
fn an_output_that_takes_nothing_is_an_error() {
    let scene = Scene::new();
    let full = || {
        Stdio::from(
            fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .unwrap(),
        )
    };
    for line in [
        "vhd-diff base.raw target.raw",
        "vhd-diff base.raw target.raw --format json",
        "vhd-diff base.raw target.raw -o -",
        "vhd hash base.raw",
        "vhd info base.raw",
        "vhd map base.raw",
        "vhd show diff",
    ] {
        let output = scene.command(line).stdout(full()).output().unwrap();
        let said = ended(&output, 2);
        assert!(said.contains("No space left"), "{line}: {said}");
    }
    // What is said of it fails, what was done stands.
    let apply = "vhd-apply base.raw diff --json";
    ended(&scene.command(apply).stdout(full()).output().unwrap(), 2);
    scene.holds("base.raw", &scene.target);
    // Closed: nobody listens, and no image may be taken for stdout.
    let closed = "exec \"$0\" base.raw target.raw --format json >&-";
    let mut command = scene.command("sh");
    command
        .arg("-c")
        .arg(closed)
        .arg(program("vhd-diff").get_program());
    let output = command.output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "base and target are the same now"
    );
    scene.holds("base.raw", &scene.target);
    scene.no_trace();
}
