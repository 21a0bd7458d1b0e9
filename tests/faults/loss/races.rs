//! Changes under our feet, two commands at once, and pipes whose writer dies.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::process::Stdio;

use crate::kill::Point;
use crate::loss::scene::{Scene, ended};

/// Waits until the command has begun its new file, which is private until it is complete. (A file that everyone may
/// read comes earlier: with it, the command looks whether it may create one at all, before it opens anything.)
fn wait_for_new_file(scene: &Scene) {
    scene.wait(|name| {
        name.starts_with(".vhdkit-")
            && fs::metadata(scene.path(name))
                .is_ok_and(|found| found.permissions().mode() & 0o777 == 0o600)
    });
}

/// Changes a byte of a file.
fn touch(scene: &Scene, name: &str) {
    let file = fs::OpenOptions::new()
        .write(true)
        .open(scene.path(name))
        .unwrap();
    file.write_all_at(&[7], 7 << 20).unwrap();
}

#[test]
fn an_image_that_changes_while_it_is_read_makes_no_result() {
    for (line, file) in [
        ("vhd-diff base.raw target.raw -o new", "base.raw"),
        (
            "vhd-diff base.raw target.raw -o new --no-digest",
            "target.raw",
        ),
        ("vhd-apply base.raw diff -o new", "base.raw"),
        ("vhd convert base.raw new.vhd", "base.raw"),
    ] {
        let scene = Scene::new();
        // The new file has been begun, so all is open; its bytes are on their way to the device.
        let running = scene.paused(line, "pwrite64:when=1", None);
        wait_for_new_file(&scene);
        touch(&scene, file);
        let said = ended(&running.wait_with_output().unwrap(), 2);
        assert!(
            said.contains("changed by another program"),
            "{line}: {said}"
        );
        scene.no_trace();
    }
}

#[test]
fn of_two_commands_at_once_one_is_refused() {
    let scene = Scene::new();
    let line = "vhd-apply base.raw diff --in-place journal";
    let running = scene.paused(line, "fsync:when=1", Some("base.raw"));
    scene.wait(|name| name == "base.raw.undo-journal");
    for second in [
        line,
        "vhd-apply --rollback base.raw",
        "vhd-apply base.raw diff -o new",
        "vhd-diff base.raw target.raw",
        "vhd-diff target.raw base.raw -o new",
        "vhd hash base.raw",
        "vhd convert base.raw new",
        "vhd resize base.raw --size 9M",
        "vhd check base.raw",
    ] {
        scene.ends(5, second);
    }
    ended(&running.wait_with_output().unwrap(), 0);
    scene.holds("base.raw", &scene.target);
    scene.no_trace();
}

#[test]
fn what_is_being_read_is_not_written() {
    let scene = Scene::new();
    // It holds its locks until the new file is done.
    let running = scene.paused("vhd-diff base.raw target.raw -o new", "fsync:when=1", None);
    wait_for_new_file(&scene);
    for line in [
        "vhd-apply base.raw diff --in-place journal",
        "vhd-apply base.raw diff --in-place copy",
        "vhd resize base.raw --size 9M",
    ] {
        let said = scene.ends(5, line);
        assert!(said.contains("base.raw"), "{said}");
    }
    ended(&running.wait_with_output().unwrap(), 0);
    scene.holds("base.raw", &scene.base);
}

#[test]
fn a_pipe_whose_writer_dies_changes_nothing() {
    let scene = Scene::new();
    let diff = fs::read(scene.path("diff")).unwrap();
    for (line, names) in [
        ("vhd-apply base.raw -", 3),
        ("vhd-apply base.raw - -o new", 3),
        ("vhd-apply base.raw - --in-place copy", 3),
    ] {
        for len in [0, 1, 100, diff.len() / 2, diff.len() - 1] {
            let mut command = scene.command(line);
            command.stdin(Stdio::piped()).stderr(Stdio::piped());
            let mut running = command.spawn().unwrap();
            // It may have seen enough and have gone.
            let _ = running.stdin.take().unwrap().write_all(&diff[..len]);
            ended(&running.wait_with_output().unwrap(), 3);
            scene.holds("base.raw", &scene.base);
            assert_eq!(scene.names().len(), names);
        }
    }
    // A real writer that is killed.
    let writer = scene.command("vhd-diff base.raw target.raw -o - -q");
    let Point { call, nth } = Point {
        call: "write".to_owned(),
        nth: 3,
    };
    let what = format!("{call}:signal=SIGKILL:when={nth}");
    let mut writer = crate::kill::injected(&writer, &what, &[], crate::kill::NO_LOG)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = scene.command("vhd-apply base.raw -");
    reader.stdin(writer.stdout.take().unwrap());
    let said = ended(&reader.output().unwrap(), 3);
    assert!(!writer.wait().unwrap().success());
    assert!(said.contains("hint: "), "{said}");
    scene.holds("base.raw", &scene.base);
    scene.no_trace();
}
