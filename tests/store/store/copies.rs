//! `vhd snapshot copy`: another store holds the same snapshots, whatever interrupted the way there.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::disk::{Random, assert_same, changed, content, disk, pipe, run, run_to};
use crate::store::lab::{Lab, ends, flip};

/// All files of a disk but those that each store has for itself.
pub(crate) fn files(lab: &Lab, disk: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(lab.path(disk)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| !["lock", "copy.lock", "newest.windows"].contains(&name.as_str()))
        .map(|name| (name.clone(), content(lab.path(disk).join(name))))
        .collect()
}

/// The same snapshots, with the same files; what a base takes depends on the file system.
pub(crate) fn assert_same_disks(lab: &Lab, from: &str, to: &str) {
    let [from, to] = [from, to].map(|disk| {
        let mut files = files(lab, disk);
        for (name, bytes) in &mut files {
            if ends(name, "json") {
                let text = String::from_utf8(std::mem::take(bytes)).unwrap();
                let own = |line: &&str| !line.contains("used_size") && !line.contains("checksum");
                *bytes = text.lines().filter(own).collect::<String>().into_bytes();
            }
        }
        files
    });
    assert_eq!(
        from.keys().collect::<Vec<_>>(),
        to.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in &from {
        assert_same(&to[name], bytes, name);
    }
}

/// The window hashes of a disk are those of its newest snapshot.
pub(crate) fn assert_list_is_current(lab: &Lab, store: &str) {
    let newest = lab.json(&["show", "--store", store]);
    let list = content(lab.path(store).join("web/newest.windows"));
    let digest: String = list[list.len() - 32..]
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    assert_eq!(newest["content_digest"], digest, "{store}");
}

/// Whatever the source has of a list: the next snapshot at the new place reads the new image alone.
#[test]
fn window_hashes_come_along() {
    for seed in 50..54 {
        let lab = Lab::new();
        history(&lab, seed, 5, 5 << 20);
        for source_has_one in [true, false] {
            let list = lab.path("store/web/newest.windows");
            if !source_has_one {
                fs::remove_file(&list).unwrap();
            }
            for round in 0..2 {
                let bytes = fs::read(&list).ok();
                lab.good(&["copy", "--init", "--to", "far"]);
                assert_list_is_current(&lab, "far");
                pipe(
                    &mut lab.command("vhd", &["snapshot", "send"]),
                    &mut lab.command("vhd", &["snapshot", "receive", "--init", "--store", "sent"]),
                );
                assert_list_is_current(&lab, "sent");
                // A new one makes the source's list, whether it was lost or not.
                if round == 0 {
                    history_goes_on(&lab, seed + 100, 1 + u64::from(source_has_one));
                    assert_list_is_current(&lab, "store");
                    if !source_has_one {
                        fs::remove_file(&list).unwrap();
                    }
                } else {
                    assert_eq!(bytes.is_some(), source_has_one);
                }
            }
            for store in ["far", "sent"] {
                fs::remove_dir_all(lab.path(store)).unwrap();
            }
        }
    }
}

/// A history of `count` snapshots of `web` that begins with `size` bytes: grown, cut, with more than one base, and with
/// some deleted.
pub(crate) fn history(lab: &Lab, seed: u64, count: usize, size: usize) {
    let mut random = Random::new(seed);
    let mut bytes = disk(seed, size);
    for n in 0..count {
        lab.0.file("disk.raw", &bytes);
        let name = format!("s{n}");
        let mut args = vec!["create", "--disk", "web", "--name", &name, "disk.raw"];
        if random.below(5) == 0 {
            args.push("--full");
        }
        lab.good(&args);
        if n > 1 && random.below(4) == 0 {
            let listed = lab.json(&["list"]);
            let points = listed["disks"][0]["snapshots"].as_array().unwrap();
            let victim = points[random.below(points.len() - 1)]["name"].clone();
            lab.good(&["delete", victim.as_str().unwrap()]);
        }
        bytes = changed(random.next(), &bytes);
        if random.below(4) == 0 {
            let to = size + random.below(size / 512) * 512;
            bytes.resize(to, 3);
        }
    }
}

#[test]
fn random_histories_arrive_whole_and_go_on() {
    for seed in 0..6 {
        let lab = Lab::new();
        for round in 0..3 {
            history_goes_on(&lab, seed * 3 + round, round);
            let copied = lab.json(&["copy", "--init", "--to", "far/er"]);
            assert!(copied["disks"][0]["error"].is_null());
            assert!(copied["disks"][0]["copied_bytes"].as_u64().unwrap() > 0);
            lab.good(&["verify", "--store", "far/er", "--read-data"]);
            let [from, to] = ["store", "far/er"]
                .map(|store| digests(&lab, &["hash", "--all", "--store", store]));
            assert!(to.ends_with(&from[from.len() - 1..]), "{from:?} {to:?}");
            if round == 0 {
                assert_same_disks(&lab, "store/web", "far/er/web");
            }
        }
        let said = lab.good(&["copy", "--init", "--to", "far/er"]);
        assert!(
            said.contains("web: nothing to copy; the newest is "),
            "{said}"
        );
    }
}

/// The first round is a history of any kind; in the later ones all but the newest may be deleted from the source.
fn history_goes_on(lab: &Lab, seed: u64, round: u64) {
    if round == 0 {
        return history(lab, seed, 5, 2 << 20);
    }
    let mut random = Random::new(seed);
    let newest = lab.json(&["show"])["name"].as_str().unwrap().to_owned();
    lab.good(&["restore", &newest, "-o", "disk.raw", "--force"]);
    let bytes = changed(seed, &content(lab.path("disk.raw")));
    lab.0.file("disk.raw", &bytes);
    lab.add(&format!("r{round}"), "disk.raw");
    // What was folded or rolled forward since the last copy, the target has as it was.
    let listed = lab.json(&["list"]);
    for point in listed["disks"][0]["snapshots"].as_array().unwrap() {
        let name = point["name"].as_str().unwrap();
        if name != newest && name != format!("r{round}") && random.below(2) == 0 {
            lab.good(&["delete", name]);
        }
    }
}

fn digests(lab: &Lab, args: &[&str]) -> Vec<String> {
    let said = lab.good(args);
    said.lines().map(|line| line[..64].to_owned()).collect()
}

/// SIGKILL at ever other moments: what is listed as complete is, and the next copy goes on.
#[test]
fn killed_copies_go_on_where_they_stopped() {
    let lab = Lab::new();
    history(&lab, 7, 4, 6 << 20);
    let mut random = Random::new(8);
    let (mut killed, mut seen, mut done) = (0, 0, 0);
    let mut limit = Duration::from_millis(60);
    while killed < 24 || seen == 0 {
        let mut child = lab
            .command("vhd", &["snapshot", "copy", "--init", "--to", "far", "-q"])
            .spawn()
            .unwrap();
        let micros = u64::try_from(limit.as_micros()).unwrap();
        sleep(Duration::from_micros(random.next() % micros));
        let _ = child.kill();
        if child.wait().unwrap().success() {
            assert_same_disks(&lab, "store/web", "far/web");
            fs::remove_dir_all(lab.path("far")).unwrap();
            (limit, done) = (limit * 2 / 3, done + 1);
            continue;
        }
        (killed, limit) = (killed + 1, limit * 21 / 20);
        if !lab.path("far/web").exists() {
            continue;
        }
        let listed = lab.json(&["list", "--store", "far", "--disk", "web"]);
        for point in listed["disks"][0]["snapshots"].as_array().unwrap() {
            let name = point["name"].as_str().unwrap();
            if point["state"] == "complete" {
                lab.good(&["hash", "--store", "far", name]);
            } else {
                assert_eq!(point["state"], "copying");
                assert!(point["completion_percent"].as_u64().unwrap() < 100);
                lab.ends(5, &["hash", "--store", "far", name]);
                seen += 1;
            }
        }
        assert!(killed < 2000, "never seen under way ({done} done)");
    }
    lab.good(&["copy", "--init", "--to", "far"]);
    assert_same_disks(&lab, "store/web", "far/web");
    lab.good(&["verify", "--store", "far", "--read-data"]);
}

/// A copy that ran against a limit in the middle of the base: its files are there.
fn half_copied() -> Lab {
    let lab = Lab::new();
    let bytes = Random::new(3).bytes(8 << 20);
    lab.0.file("a.raw", &bytes);
    lab.0.file("b.raw", &changed(1, &bytes));
    lab.add("a", "a.raw");
    lab.add("b", "b.raw");
    let limited = "ulimit -f 10000; exec \"$0\" snapshot copy --init --to far";
    let args = ["-c", limited, env!("CARGO_BIN_EXE_vhd")];
    let output = run_to(&mut lab.command("sh", &args), 2);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("000001-a.vhd.part: cannot write"), "{said}");
    lab
}

#[test]
fn a_snapshot_on_its_way_is_shown_and_cannot_be_used() {
    let lab = half_copied();
    let far = |code: i32, args: &[&str]| lab.ends(code, &[args, &["--store", "far"]].concat());
    let shown = lab.json(&["show", "a", "--store", "far", "--disk", "web"]);
    assert_eq!(shown["state"], "copying");
    let percent = shown["completion_percent"].as_u64().unwrap();
    assert!((40..80).contains(&percent), "{percent}");
    let listed = far(0, &["list"]);
    assert!(
        listed.contains(&format!("base  copying {percent} %")),
        "{listed}"
    );
    for args in [
        &["restore", "a", "-o", "x.raw"][..],
        &["hash", "a"],
        &["diff", "a", "b"],
        &["create", "--disk", "web", "--name", "c", "b.raw"],
    ] {
        let said = far(5, args);
        // Of the snapshot itself, or of one that it is made of.
        let told = ["expected 100", "expected complete, 100"];
        assert!(told.iter().any(|told| said.contains(told)), "{said}");
    }
    run_to(&mut lab.command("vhd", &["info", "far::web@a"]), 5);
    far(0, &["verify", "--read-data"]);
    // It goes on there, and not from the beginning.
    let copied = lab.json(&["copy", "--init", "--to", "far"]);
    let points = copied["disks"][0]["copied"].as_array().unwrap();
    assert_eq!(points.len(), 2);
    let bytes = points[0]["copied_bytes"].as_u64().unwrap();
    assert!((3 << 20..5 << 20).contains(&bytes), "{bytes}");
    assert_same_disks(&lab, "store/web", "far/web");
}

#[test]
fn what_an_interrupted_copy_left_is_never_believed() {
    // Bytes that aren't what was copied: power failed.
    let lab = half_copied();
    fs::rename(lab.path("far"), lab.path("half")).unwrap();
    for at in [0, 513, 1540, 1 << 20] {
        run(&mut lab.command("cp", &["-r", "half", "far"]));
        flip(&lab.path("far/web/000001-a.vhd.part"), at);
        let copied = lab.json(&["copy", "--init", "--to", "far"]);
        assert!(copied["disks"][0]["error"].is_null());
        assert_same_disks(&lab, "store/web", "far/web");
        fs::remove_dir_all(lab.path("far")).unwrap();
    }
    // Longer than it can be; a mark that can't be read; data without its manifest.
    let spoil: [fn(&Lab); 4] = [
        |lab| fs::write(lab.path("far/web/000001-a.vhd.part"), vec![1; 9 << 20]).unwrap(),
        |lab| flip(&lab.path("far/web/000001-a.json.part"), 30),
        |lab| fs::remove_file(lab.path("far/web/000001-a.json.part")).unwrap(),
        |lab| {
            let far = lab.path("far/web");
            fs::remove_file(far.join("000001-a.vhd.part")).unwrap();
            let whole = lab.path("store/web/000001-a.vhd");
            fs::copy(whole, far.join("000001-a.vhd")).unwrap();
        },
    ];
    for spoil in spoil {
        let lab = half_copied();
        spoil(&lab);
        lab.good(&["list", "--store", "far", "--disk", "web"]);
        lab.good(&["copy", "--init", "--to", "far"]);
        assert_same_disks(&lab, "store/web", "far/web");
        lab.good(&["verify", "--store", "far", "--read-data"]);
    }
    // Complete but for the mark, which the next writer removes.
    let lab = half_copied();
    let mark = lab.path("far/web/000001-a.json.part");
    let kept = content(&mark);
    lab.good(&["copy", "--init", "--to", "far"]);
    fs::write(&mark, kept).unwrap();
    assert_eq!(
        lab.json(&["show", "a", "--store", "far"])["state"],
        "complete"
    );
    lab.good(&["delete", "b", "--store", "far"]);
    assert!(!mark.exists());
    // Given up: nothing is left, and the disk can be used otherwise.
    let lab = half_copied();
    lab.good(&["delete", "a", "--store", "far", "--disk", "web"]);
    assert!(files(&lab, "far/web").is_empty());
    let create = ["create", "--disk", "web", "--name", "c", "b.raw"];
    lab.good(&[&create[..], &["--store", "far"]].concat());
}

#[test]
fn damage_in_the_source_does_not_arrive() {
    let lab = Lab::new();
    history(&lab, 21, 3, 2 << 20);
    let listed = lab.json(&["list"]);
    let newest = listed["disks"][0]["snapshots"].as_array().unwrap().last();
    let newest = newest.unwrap()["name"].as_str().unwrap().to_owned();
    let mut data = lab.files();
    data.retain(|name| name.contains(&newest) && !ends(name, "json"));
    let file = lab.path("store/web").join(&data[0]);
    let good = content(&file);
    flip(&file, good.len() * 2 / 3);
    let said = lab.ends(3, &["copy", "--init", "--to", "far"]);
    assert!(said.contains("is wrong in the source"), "{said}");
    let listed = lab.json(&["list", "--store", "far"]);
    let points = listed["disks"][0]["snapshots"].as_array().unwrap();
    assert!(points.iter().all(|point| point["name"] != *newest));
    lab.good(&["verify", "--store", "far", "--read-data"]);
    fs::write(&file, &good[..good.len() - 1]).unwrap();
    lab.ends(3, &["copy", "--init", "--to", "far"]);
    fs::write(&file, good).unwrap();
    lab.good(&["copy", "--init", "--to", "far"]);
    assert_same_disks(&lab, "store/web", "far/web");
}

#[test]
fn twenty_disks_at_once_each_a_matter_of_its_own() {
    let lab = Lab::new();
    for n in 0..20 {
        let mut bytes = disk(n, 1 << 20);
        for name in ["a", "b", "c"] {
            lab.0.file("disk.raw", &bytes);
            let disk = format!("d{n}");
            lab.good(&["create", "--disk", &disk, "--name", name, "disk.raw"]);
            bytes = changed(n, &bytes);
        }
    }
    // One of them isn't what it was; another one is in use at the target.
    lab.good(&["init", "--store-version", "1", "far"]);
    lab.good(&[
        "create", "--init", "--store", "far", "--disk", "d3", "--name", "z", "disk.raw",
    ]);
    fs::create_dir_all(lab.path("far/d5")).unwrap();
    let lock = fs::File::create(lab.path("far/d5/lock")).unwrap();
    lock.lock().unwrap();
    let output = run_to(
        &mut lab.command(
            "vhd",
            &["snapshot", "copy", "--init", "--to", "far", "--jobs", "4"],
        ),
        4,
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.matches(": error: ").count(), 2, "{said}");
    assert_eq!(said.matches(": 3 snapshots copied, ").count(), 18, "{said}");
    drop(lock);
    lab.good(&[
        "copy", "--init", "--to", "far", "--disk", "d5", "--disk", "d6",
    ]);
    for n in (0..20).filter(|n| *n != 3) {
        assert_same_disks(&lab, &format!("store/d{n}"), &format!("far/d{n}"));
    }
    lab.good(&["verify", "--store", "far", "--read-data"]);
    lab.ends(2, &["copy", "--init", "--to", "far", "--disk", "none"]);
    lab.ends(2, &["copy", "--init", "--to", "./store"]);
}

#[test]
fn two_copies_to_one_target_do_no_harm() {
    let lab = Lab::new();
    history(&lab, 4, 3, 4 << 20);
    for _ in 0..6 {
        let start = || {
            let mut command =
                lab.command("vhd", &["snapshot", "copy", "--init", "--to", "far", "-q"]);
            command.stderr(Stdio::null()).spawn().unwrap()
        };
        let codes = [start(), start()].map(|mut child| child.wait().unwrap().code().unwrap());
        assert!(codes.contains(&0), "{codes:?}");
        assert!(codes.iter().all(|code| [0, 5].contains(code)), "{codes:?}");
        assert_same_disks(&lab, "store/web", "far/web");
        fs::remove_dir_all(lab.path("far")).unwrap();
    }
}

/// While a copy is at it: the source can be read and not changed, the target can be read, and nobody else copies.
#[test]
fn a_copy_under_way_protects_both_ends() {
    let lab = Lab::new();
    let bytes = Random::new(5).bytes(24 << 20);
    lab.0.file("a.raw", &bytes);
    lab.add("a", "a.raw");
    lab.add("b", "a.raw");
    for _ in 0..20 {
        let _ = fs::remove_dir_all(lab.path("far"));
        let mut child = lab
            .command("vhd", &["snapshot", "copy", "--init", "--to", "far", "-q"])
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while !lab.path("far/web/000001-a.vhd.part").exists()
            && begun.elapsed() < Duration::from_secs(10)
        {
            sleep(Duration::from_micros(200));
        }
        let signal = |name: &str| {
            let pid = child.id().to_string();
            run(&mut lab.command("kill", &[name, &pid]));
        };
        signal("-STOP");
        let stopped_in_time = lab.path("far/web/000001-a.vhd.part").exists();
        if stopped_in_time {
            lab.good(&["list"]);
            lab.ends(5, &["delete", "a"]);
            let listed = lab.good(&["list", "--store", "far"]);
            assert!(listed.contains("copying "), "{listed}");
            lab.ends(5, &["copy", "--init", "--to", "far"]);
            let create = ["create", "--disk", "web", "--name", "c", "a.raw"];
            lab.ends(5, &[&create[..], &["--store", "far"]].concat());
        }
        signal("-CONT");
        assert!(child.wait().unwrap().success());
        assert_same_disks(&lab, "store/web", "far/web");
        if stopped_in_time {
            return;
        }
    }
    panic!("never stopped a copy under way");
}

#[test]
fn diverged_histories_are_refused_with_both_ids() {
    let lab = Lab::new();
    let bytes = disk(6, 1 << 20);
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        lab.0.file("disk.raw", &changed(n as u64, &bytes));
        lab.add(name, "disk.raw");
    }
    lab.good(&["copy", "--init", "--to", "far"]);
    let far = |args: &[&str]| lab.good(&[args, &["--store", "far"]].concat());
    let before = files(&lab, "far/web");
    let id = |store: &str, name: &str| {
        let shown = lab.json(&["show", name, "--store", store]);
        shown["id"].as_str().unwrap().to_owned()
    };
    // The newest of the target is gone from the source.
    let gone = id("far", "c");
    lab.good(&["delete", "c"]);
    let said = lab.ends(4, &["copy", "--init", "--to", "far"]);
    assert!(
        said.contains(&gone) && said.contains(&id("store", "b")),
        "{said}"
    );
    assert!(said.contains("delete what came after b"), "{said}");
    // Another one has taken its place.
    lab.add("c", "disk.raw");
    let said = lab.ends(4, &["copy", "--init", "--to", "far"]);
    assert!(said.contains("have diverged"), "{said}");
    assert!(
        said.contains(&gone) && said.contains(&id("store", "c")),
        "{said}"
    );
    assert_eq!(files(&lab, "far/web"), before);
    // As the message says.
    far(&["delete", "c"]);
    lab.good(&["copy", "--init", "--to", "far"]);
    assert_same_disks(&lab, "store/web", "far/web");
    // Both went on by themselves.
    lab.add("d", "disk.raw");
    far(&["create", "--disk", "web", "--name", "e", "disk.raw"]);
    let said = lab.ends(4, &["copy", "--init", "--to", "far"]);
    assert!(said.contains("have diverged"), "{said}");
    // Not the same disk at all.
    let args = ["create", "--disk", "web", "--name", "x", "disk.raw"];
    lab.good(&[&args[..], &["--init", "--store", "other"]].concat());
    let said = lab.ends(4, &["copy", "--init", "--to", "other"]);
    assert!(said.contains("have diverged"), "{said}");
}

#[test]
fn a_dry_run_says_what_a_copy_then_does() {
    let lab = Lab::packed();
    let mut bytes = disk(5, 2 << 20);
    for name in ["mon", "tue", "wed"] {
        let image = lab.image("disk", &bytes, "raw");
        lab.add(name, &image);
        bytes = changed(6, &bytes);
    }
    let target = lab.path("far");
    let to = target.to_str().unwrap();
    let plan = |more: &[&str]| {
        let plan = lab.json(&[&["copy", "--dry-run", "--to", to], more].concat());
        let copied = plan["disks"][0]["copied"].as_array().unwrap().clone();
        copied
            .iter()
            .map(|point| point["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    lab.ends(2, &["copy", "--dry-run", "--to", to]);
    assert_eq!(plan(&["--init"]), ["mon", "tue", "wed"]);
    assert!(!target.exists());
    lab.good(&["copy", "--init", "--to", to]);
    assert!(plan(&[]).is_empty());
    let image = lab.image("disk", &bytes, "raw");
    lab.add("thu", &image);
    let before = fs::read_dir(target.join("web")).unwrap().count();
    assert_eq!(plan(&[]), ["thu"]);
    assert_eq!(fs::read_dir(target.join("web")).unwrap().count(), before);
    // What isn't known to a copy between folders is refused, not passed over.
    lab.ends(2, &["copy", "--to", to, "--check-changes", "1%"]);
    assert_eq!(fs::read_dir(target.join("web")).unwrap().count(), before);
}

#[test]
fn a_name_that_another_snapshot_has_there_ends_a_copy_before_anything() {
    let lab = Lab::packed();
    let bytes = disk(7, 1 << 20);
    let later = changed(8, &bytes);
    for (name, bytes) in [("mon", &bytes), ("tue", &later)] {
        let image = lab.image("disk", bytes, "raw");
        lab.add(name, &image);
    }
    let target = lab.path("far");
    let to = target.to_str().unwrap();
    lab.good(&["copy", "--init", "--to", to]);
    // Tuesday gets another name, and Wednesday its old one.
    lab.good(&["rename", "tue", "tuesday"]);
    for (name, bytes) in [("wed", &bytes), ("tue", &later)] {
        let image = lab.image("disk", bytes, "raw");
        lab.add(name, &image);
    }
    let before = files(&lab, "far/web");
    for more in [&[][..], &["--dry-run"]] {
        let said = lab.ends(4, &[&["copy", "--to", to], more].concat());
        assert!(said.contains("another name"), "{said}");
        assert!(!said.contains("delete"), "{said}");
        assert_eq!(files(&lab, "far/web"), before);
    }
    // The way on that is told.
    lab.good(&["rename", "--store", to, "tue", "tuesday"]);
    lab.good(&["copy", "--to", to]);
    lab.good(&["verify", "--store", to]);
    // The mark of a store is no place for an image.
    let marker = lab.path("store/vhdkit-store.json");
    let marker = marker.to_str().unwrap();
    lab.ends(2, &["restore", "mon", "-o", marker, "--force"]);
    lab.good(&["list"]);
}
