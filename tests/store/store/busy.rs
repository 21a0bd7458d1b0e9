//! Disks that are read while they are written, and commands that wait for each other.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use vhdkit::parallel::Workers;
use vhdkit::progress::Silent;
use vhdkit::snapshot::{
    Access, Disk, NewPoint, ReadData, Work, create, delete, open_beside, verify_beside,
};
use vhdkit::{ErrorKind, image};

use crate::disk::{changed, content, disk};
use crate::store::lab::Lab;

const SIZE: usize = 3 << 20;

/// Three snapshots of `web`, and their bytes.
fn three(lab: &Lab) -> Vec<Vec<u8>> {
    let mut all = vec![disk(7, SIZE)];
    for n in 1..3 {
        let next = changed(n, all.last().unwrap());
        all.push(next);
    }
    for (bytes, name) in all.iter().zip(["a", "b", "c"]) {
        let image = lab.image(name, bytes, "raw");
        lab.add(name, &image);
    }
    all
}

/// A command that adds a snapshot to `web`: it has the lock until its stdin is closed.
fn writer(lab: &Lab) -> Child {
    let writer = lab
        .command(
            "vhd",
            &[
                "snapshot", "create", "--disk", "web", "--name", "d", "--diff", "-",
            ],
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lock = lab.path("store/web/lock");
    while !fs::read_to_string(&lock).unwrap().contains("since: ") {
        thread::sleep(Duration::from_millis(5));
    }
    writer
}

#[test]
fn what_is_read_while_it_is_written_is_what_it_was() {
    let lab = Lab::new();
    let all = three(&lab);
    let mut writer = writer(&lab);
    let listed = lab.json(&["list"]);
    let disk = &listed["disks"][0];
    assert_eq!(disk["snapshots"].as_array().unwrap().len(), 3);
    assert_eq!(disk["writer"]["command"], "vhd snapshot create");
    assert_eq!(disk["writer"]["process"], writer.id());
    let listed = lab.good(&["list"]);
    assert!(listed.contains("being written: web\n"), "{listed}");
    let said = format!("process {}", writer.id());
    assert!(
        listed.contains("web: is being written by vhd snapshot create (since 2")
            && listed.contains(&said),
        "{listed}"
    );
    assert!(lab.good(&["show"]).contains("is being written by"));
    let verified = lab.json(&["verify", "--read-data"]);
    assert_eq!(verified["sound"], true, "{verified}");
    assert_eq!(
        verified["disks"][0]["writer"]["command"],
        "vhd snapshot create"
    );
    lab.good(&["hash", "--all"]);
    lab.ends(1, &["diff", "a", "c"]);
    lab.good(&["send", "-o", "stream"]);
    lab.assert_restores("b", &all[1]);
    lab.good(&["prune", "--keep-last", "1", "--dry-run"]);
    let point = format!("{}::web@a", lab.path("store").display());
    lab.run("vhd", &["hash", &point]);
    // Who changes it is told who is in the way.
    for args in [
        &["delete", "a"][..],
        &["prune", "--keep-last", "1"],
        &["create", "--disk", "web", "--name", "x", "a.raw"],
        &["repair"],
        &["copy", "--init", "--to", "far"],
    ] {
        let said = lab.ends(5, args);
        assert!(said.contains("by vhd snapshot create (since "), "{said}");
        assert!(said.contains("--lock-timeout 10m"), "{said}");
    }
    drop(writer.stdin.take());
    assert_ne!(writer.wait().unwrap().code(), Some(0), "that was no diff");
    assert_eq!(content(lab.path("store/web/lock")), b"");
    assert!(lab.json(&["list"])["disks"][0]["writer"].is_null());
    lab.good(&["verify"]);
}

/// No luck in it: the waiting command says that it waits, and only then the other one ends.
#[test]
fn commands_wait_for_each_other() {
    let lab = Lab::new();
    three(&lab);
    let far = lab.path("far");
    lab.good(&["copy", "--init", "--to", far.to_str().unwrap()]);
    for args in [
        &["delete", "b"][..],
        &["prune", "--keep-last", "2"],
        &["create", "--disk", "web", "--name", "x", "a.raw"],
        &["repair"],
        &["copy", "--init", "--to", "far"],
        &["restore", "-o", "b.raw", "--in-place"],
    ] {
        let mut writer = writer(&lab);
        let mut waiting = lab
            .command(
                "vhd",
                &[&["snapshot"], args, &["--lock-timeout", "1h"]].concat(),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(waiting.stderr.take().unwrap()).lines();
        let first = said.next().unwrap().unwrap();
        assert!(
            first.contains("waiting up to 3600 s: "),
            "{args:?}: {first}"
        );
        drop(writer.stdin.take());
        writer.wait().unwrap();
        let rest: Vec<String> = said.map(Result::unwrap).collect();
        assert_eq!(
            waiting.wait().unwrap().code(),
            Some(0),
            "{args:?}: {rest:?}"
        );
    }
    let mut writer = writer(&lab);
    let said = lab.ends(5, &["delete", "x", "--lock-timeout", "1s"]);
    assert!(said.contains("after waiting 1 s"), "{said}");
    writer.stdin.take().unwrap().write_all(b"x").unwrap();
    writer.wait().unwrap();
}

#[test]
fn prune_goes_on_with_the_other_disks() {
    let lab = Lab::new();
    three(&lab);
    for disk in ["db", "zoo"] {
        for (name, image) in [("a", "a.raw"), ("b", "b.raw")] {
            lab.good(&["create", "--disk", disk, "--name", name, image]);
        }
    }
    let mut writer = writer(&lab);
    let said = lab.ends(5, &["prune", "--keep-last", "1"]);
    for disk in ["db", "zoo"] {
        assert!(
            said.contains(&format!("{disk}: 1 kept, 1 snapshot deleted")),
            "{said}"
        );
    }
    assert!(said.contains("store/web"), "{said}");
    drop(writer.stdin.take());
    writer.wait().unwrap();
    let said = lab.good(&["prune", "--keep-last", "1"]);
    assert!(said.contains("web: 1 kept, 2 snapshots deleted"), "{said}");
}

/// Adds a snapshot of these bytes, or deletes one, as soon as that can be done.
fn change(store: &Path, run: &dyn Fn(&mut Disk, Work<'_>) -> vhdkit::Result<()>) {
    let workers = Workers::new(None).unwrap();
    let work = Work {
        workers: &workers,
        progress: &Silent,
    };
    loop {
        let done =
            Disk::open(store, "web", Access::Create).and_then(|mut disk| run(&mut disk, work));
        match done {
            // A program that another test is starting has every lock of this one for a moment.
            Err(error) if error.kind() == ErrorKind::Locked => thread::yield_now(),
            done => return done.unwrap(),
        }
    }
}

/// While snapshots come and go without a pause, the base too, whoever reads without a lock sees a disk as it was at some
/// moment, finds nothing wrong with it, and opens what it says.
#[test]
fn readers_without_a_lock_see_one_state_of_the_disk() {
    let lab = Lab::new();
    three(&lab);
    let store = lab.path("store");
    let digests = ["a.raw", "b.raw", "c.raw"].map(|name| {
        let workers = Workers::new(None).unwrap();
        let image = vhdkit::open(lab.path(name)).unwrap();
        image::content_digest(&*image, &workers, &Silent).unwrap()
    });
    let (done, looked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let workers = Workers::new(None).unwrap();
                let work = Work {
                    workers: &workers,
                    progress: &Silent,
                };
                let locked = |error: &vhdkit::Error| error.kind() == ErrorKind::Locked;
                while !done.load(Ordering::Relaxed) {
                    match verify_beside(&store, "web", ReadData::All, work) {
                        Ok((_, found)) => {
                            assert!(found.findings.is_empty(), "{found:?}");
                            assert!(found.unread.iter().all(locked), "{found:?}");
                        }
                        Err(error) => assert!(locked(&error), "{error}"),
                    }
                    let open = |disk: &mut Disk| {
                        let mut image = disk.image(&disk.points()[0].clone())?;
                        let held = image.hold_files()?;
                        Ok((image, held))
                    };
                    match open_beside(&store, "web", open) {
                        Ok((_disk, image)) => {
                            let digest = image::content_digest(&image, &workers, &Silent).unwrap();
                            assert_eq!(digest, image.manifest().content_digest);
                            assert!(digests.contains(&digest));
                            looked.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => assert!(locked(&error), "{error}"),
                    }
                }
            });
        }
        for n in 0..30 {
            let path = lab.path(["a.raw", "b.raw", "c.raw"][n % 3]);
            change(&store, &|disk, work| {
                let image = vhdkit::open(&path)?;
                let new = NewPoint {
                    name: format!("n{n}"),
                    ..NewPoint::default()
                };
                create(disk, &*image, &new, work).map(drop)
            });
            change(&store, &|disk, work| {
                let number = if n % 2 == 0 {
                    0
                } else {
                    disk.points().len() / 2
                };
                let name = disk.points()[number].name.clone();
                delete(disk, &name, false, work).map(drop)
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(looked.load(Ordering::Relaxed) > 0);
    lab.good(&["verify", "--read-data"]);
}
