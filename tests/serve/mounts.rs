//! What other programs see of a mount. These tests need root, `/dev/fuse` and loop devices.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{SeekFrom as Seek, seek};
use rustix::process::{Pid, Signal, kill_process};

use crate::disk::{assert_same, changed, command, content, disk, run, run_to};
use crate::lab::{Lab, flip};

/// Two snapshots of a disk with holes, and the folder to mount at; `None` where nothing can be mounted.
fn store(lab: &Lab) -> Option<[Vec<u8>; 2]> {
    if !Path::new("/dev/fuse").exists() {
        println!("NOT TESTED: mounting, which needs /dev/fuse");
        return None;
    }
    let mut first = disk(61, 9 << 20);
    first[2 << 20..5 << 20].fill(0);
    let mut second = changed(62, &first);
    second.resize(11 << 20, 0);
    for (name, bytes) in [("mon", &first), ("tue", &second)] {
        let image = lab.image(name, bytes, "fixed");
        lab.add(name, &image);
    }
    fs::create_dir(lab.path("m")).unwrap();
    Some([first, second])
}

/// A mount in the background, which goes with this.
struct Mount<'a>(&'a Lab, PathBuf);

impl<'a> Mount<'a> {
    fn of(lab: &'a Lab, what: &str) -> Self {
        lab.run("vhd", &["mount", what, "m", "--detach"]);
        Self(lab, lab.path("m"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.1.join(name)
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn end(self) {
        self.0.run("vhd", &["unmount", "m"]);
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-lq").arg(&self.1).status();
    }
}

#[test]
#[ignore = "mounts file systems: needs root"]
fn an_image_is_a_folder_of_files() {
    let lab = Lab::new();
    let Some(bytes) = store(&lab) else { return };
    let mount = Mount::of(&lab, "::web@tue");
    assert_eq!(mount.names("."), ["disk.raw", "disk.vhd"]);
    assert_same(&content(mount.path("disk.raw")), &bytes[1], "disk.raw");
    lab.good(&["restore", "tue", "-o", "restored.vhd", "-O", "fixed"]);
    let vhd = content(lab.path("restored.vhd"));
    assert_same(&content(mount.path("disk.vhd")), &vhd, "disk.vhd");
    // The footer, across its beginning.
    let file = fs::File::open(mount.path("disk.vhd")).unwrap();
    let mut end = [0; 1000];
    file.read_exact_at(&mut end, vhd.len() as u64 - 1000)
        .unwrap();
    assert_same(&end, &vhd[vhd.len() - 1000..], "the end");
    drop(file);
    run(&mut command!(
        "qemu-img",
        "compare",
        "-f",
        "vpc",
        "-F",
        "vpc",
        mount.path("disk.vhd"),
        lab.path("restored.vhd")
    ));
    // What is stored, and where, is what `vhd map` says.
    let map = lab.run("vhd", &["map", "::web@tue", "--json"]);
    let map: serde_json::Value = serde_json::from_slice(&map.stdout).unwrap();
    let extents = map["extents"].as_array().unwrap();
    let raw = fs::File::open(mount.path("disk.raw")).unwrap();
    let (mut data, mut found) = (0, Vec::new());
    for extent in extents {
        let (start, len) = (
            extent["start"].as_u64().unwrap(),
            extent["length"].as_u64().unwrap(),
        );
        let is_data = extent["state"] == "data";
        data += if is_data { len } else { 0 };
        let other = if start + len == 11 << 20 {
            if is_data { Some(11 << 20) } else { None }
        } else {
            Some(start + len)
        };
        let (here, there) = if is_data {
            (Seek::Data(start), Seek::Hole(start))
        } else {
            (Seek::Hole(start), Seek::Data(start))
        };
        assert_eq!(seek(&raw, here).unwrap(), start);
        assert_eq!(seek(&raw, there).ok(), other);
        found.push(start);
    }
    assert!(found.len() > 3);
    let about = fs::metadata(mount.path("disk.raw")).unwrap();
    assert_eq!(about.blocks() * 512, data);
    assert_eq!(about.len(), 11 << 20);
    assert_eq!(about.mode() & 0o777, 0o444);
    run(&mut command!(
        "cp",
        "--sparse=auto",
        mount.path("disk.raw"),
        lab.path("copy.raw")
    ));
    assert_same(&content(lab.path("copy.raw")), &bytes[1], "a copy");
    assert!(
        fs::metadata(lab.path("copy.raw")).unwrap().blocks() * 512
            <= data + 8192 * found.len() as u64
    );
    assert!(
        fs::OpenOptions::new()
            .write(true)
            .open(mount.path("disk.raw"))
            .is_err()
    );
    assert!(fs::write(mount.path("new"), b"x").is_err());
    let mut file = raw;
    file.seek(SeekFrom::Start((11 << 20) - 3)).unwrap();
    assert_eq!(file.read(&mut end).unwrap(), 3);
    drop(file);
    mount.end();
    assert!(fs::read_dir(lab.path("m")).unwrap().next().is_none());
}

#[test]
#[ignore = "mounts file systems: needs root"]
fn a_store_may_change_under_its_mount() {
    let lab = Lab::new();
    let Some(bytes) = store(&lab) else { return };
    let mount = Mount::of(&lab, "::");
    assert_eq!(mount.names("."), ["web"]);
    assert_eq!(mount.names("web"), ["mon.raw", "tue.raw"]);
    let open = fs::File::open(mount.path("web/mon.raw")).unwrap();
    let image = lab.image("wed", &bytes[0], "raw");
    lab.add("wed", &image);
    lab.good(&["delete", "web@mon"]);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(mount.names("web"), ["tue.raw", "wed.raw"]);
    assert!(fs::File::open(mount.path("web/mon.raw")).is_err());
    let _ = fs::write("/proc/sys/vm/drop_caches", "1");
    let mut read = vec![0; bytes[0].len()];
    open.read_exact_at(&mut read, 0).unwrap();
    assert_same(&read, &bytes[0], "mon");
    assert_same(&content(mount.path("web/tue.raw")), &bytes[1], "tue");
    assert_same(&content(mount.path("web/wed.raw")), &bytes[0], "wed");
    // It is in use, so it stays; then it goes.
    let mut command = lab.command("vhd", &["unmount", "m"]);
    let said = run_to(&mut command, 5);
    assert!(String::from_utf8_lossy(&said.stderr).contains("fuser -vm"));
    lab.run("vhd", &["unmount", "--lazy", "m"]);
    open.read_exact_at(&mut read, 0).unwrap();
    drop(open);
    let mount = Mount::of(&lab, "::web");
    assert_eq!(mount.names("."), ["tue.raw", "wed.raw"]);
    mount.end();
}

/// A partition of a disk as a file, and the file system in it as the kernel reads it.
#[test]
#[ignore = "mounts file systems: needs root"]
fn partitions_are_files_that_can_be_mounted() {
    let lab = Lab::new();
    let Some(_) = store(&lab) else { return };
    let raw = lab.path("gpt.raw");
    fs::File::create(&raw).unwrap().set_len(64 << 20).unwrap();
    run(&mut command!(
        "sgdisk",
        "-n",
        "1:2048:+1M",
        "-n",
        "2:0:0",
        &raw
    ));
    let part = lab.path("part.raw");
    let files = lab.path("files");
    fs::create_dir_all(files.join("a/b")).unwrap();
    fs::write(files.join("a/b/c"), disk(3, 300_000)).unwrap();
    let len = (64 << 20) - (4 << 20);
    fs::File::create(&part).unwrap().set_len(len).unwrap();
    run(&mut command!("mkfs.ext4", "-q", "-d", &files, &part));
    let file = fs::OpenOptions::new().write(true).open(&raw).unwrap();
    file.write_all_at(&content(&part), 4096 * 512).unwrap();
    lab.good(&["create", "--disk", "db", "--name", "x", "gpt.raw"]);
    let mount = Mount::of(&lab, "::db@x");
    assert_eq!(
        mount.names("."),
        ["disk.raw", "disk.vhd", "p1.raw", "p2.raw"]
    );
    let bytes = content(mount.path("p2.raw"));
    assert_same(
        &bytes[..1 << 20],
        &content(&part)[..1 << 20],
        "the partition",
    );
    fs::create_dir(lab.path("fs")).unwrap();
    run(&mut command!(
        "mount",
        "-o",
        "loop,ro,noload",
        mount.path("p2.raw"),
        lab.path("fs")
    ));
    let read = fs::read(lab.path("fs/a/b/c"));
    run(&mut command!("umount", lab.path("fs")));
    assert_same(&read.unwrap(), &disk(3, 300_000), "a file");
    mount.end();
}

#[test]
#[ignore = "mounts file systems: needs root"]
fn a_mount_ends_as_it_should() {
    let lab = Lab::new();
    let Some(bytes) = store(&lab) else { return };
    let m = lab.path("m");
    // With a command, whose exit code counts.
    lab.0.file("mon.bytes", &bytes[0]);
    let with = |code: i32, what: &str, script: &str| {
        let args = ["mount", what, "m", "--", "sh", "-ec", script, "sh", "{}"];
        let output = run_to(&mut lab.command("vhd", &args), code);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    with(
        0,
        "::web@mon",
        "cmp $1/disk.raw mon.bytes; cmp \"$VHD_MOUNT/disk.raw\" mon.bytes",
    );
    with(7, "::web@mon", "exit 7");
    // A termination unmounts.
    let mut args = lab.command("vhd", &["mount", "mon.vhd", "m", "-q"]);
    let start = || {
        let child = lab
            .command("vhd", &["mount", "mon.vhd", "m", "-q"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !m.join("disk.raw").exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        child
    };
    let mut child = start();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!m.join("disk.raw").exists());
    // Unmounting ends the program.
    let mut child = start();
    run(&mut command!("umount", &m));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // A killed one leaves a dead mount, which is recognised and goes.
    let mut child = start();
    let said = String::from_utf8_lossy(&run_to(&mut args, 2).stderr).into_owned();
    assert!(
        said.contains("already") && said.contains("vhd unmount"),
        "{said}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let said = String::from_utf8_lossy(&run_to(&mut args, 2).stderr).into_owned();
    assert!(said.contains("whose program has ended"), "{said}");
    lab.run("vhd", &["unmount", "m"]);
    // What else can't be done.
    for (args, text) in [
        (&["unmount", "m"][..], "nothing is mounted here"),
        (&["mount", "mon.vhd", "nothing"], "mkdir -p"),
        (&["mount", "mon.vhd", "store"], "isn't empty"),
        (&["mount", "mon.vhd", "mon.vhd"], "isn't a folder"),
        (&["mount", "nothing.vhd", "m", "--detach"], "cannot open"),
        (&["unmount", "/"], "not mounted by vhd mount"),
    ] {
        let output = run_to(&mut lab.command("vhd", args), 2);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(text), "{args:?}: {said}");
    }
    // Damage.
    let diff = lab.file(".vhddiff");
    let len = content(&diff).len();
    flip(&diff, len / 2);
    let said = with(
        3,
        "::web@tue",
        "cat $1/disk.raw > /dev/null && exit 1 || true",
    );
    assert!(said.contains("hint: rebuild it"), "{said}");
}
