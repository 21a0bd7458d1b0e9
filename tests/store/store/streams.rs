//! `vhd snapshot send` and `receive`: the same as a copy, through a pipe.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::disk::{Random, changed, content, disk, pipe, program, run, run_to};
use crate::store::copies::{assert_same_disks, files, history};
use crate::store::lab::{Lab, ends};

/// The stream of these snapshots.
pub(crate) fn sent(lab: &Lab, args: &[&str]) -> Vec<u8> {
    let mut command = lab.command("vhd", &["snapshot", "send", "-q"]);
    run(command.args(args)).stdout
}

/// Receives a stream into a store; it must end with this code.
pub(crate) fn receive(lab: &Lab, code: i32, stream: &[u8], store: &str) -> String {
    lab.0.file("stream", stream);
    let mut command = lab.command("vhd", &["snapshot", "receive", "--init", "--store", store]);
    let input = fs::File::open(lab.path("stream")).unwrap();
    let Output { stderr, .. } = run_to(command.stdin(input), code);
    String::from_utf8(stderr).unwrap()
}

#[test]
fn a_pipe_brings_what_a_copy_brings() {
    for seed in 30..34 {
        let lab = Lab::new();
        history(&lab, seed, 6, 2 << 20);
        lab.good(&["copy", "--init", "--to", "copied"]);
        pipe(
            &mut lab.command("vhd", &["snapshot", "send"]),
            &mut lab.command("vhd", &["snapshot", "receive", "--init", "--store", "sent"]),
        );
        assert_same_disks(&lab, "copied/web", "sent/web");
        lab.good(&["verify", "--store", "sent", "--read-data"]);
        // In parts, each from where the receiver says that it stands, under another name.
        let listed = lab.json(&["list"]);
        let points = listed["disks"][0]["snapshots"].as_array().unwrap();
        let mut after = Vec::new();
        for point in points {
            let name = point["name"].as_str().unwrap();
            let after_that: Vec<&str> = after.iter().map(String::as_str).collect();
            let stream = sent(&lab, &[&["--until", name], &after_that[..]].concat());
            lab.0.file("stream", &stream);
            let args = [
                "snapshot", "receive", "--init", "--store", "parts", "--disk", "other",
            ];
            let input = fs::File::open(lab.path("stream")).unwrap();
            run(lab.command("vhd", &args).stdin(input));
            let shown = lab.json(&["show", "--store", "parts"]);
            assert_eq!(shown["name"], name);
            after = vec!["--after".to_owned(), name.to_owned()];
        }
        assert_same_disks(&lab, "sent/web", "parts/other");
    }
}

#[test]
fn what_is_there_is_skipped_and_what_does_not_fit_is_refused() {
    let lab = Lab::new();
    let bytes = disk(6, 1 << 20);
    for (n, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        lab.0.file("disk.raw", &changed(n as u64, &bytes));
        lab.add(name, "disk.raw");
    }
    let (all, later) = (sent(&lab, &[]), sent(&lab, &["--after", "b"]));
    let said = receive(&lab, 4, &later, "far");
    assert!(
        said.contains("send from the beginning, without --after"),
        "{said}"
    );
    receive(&lab, 0, &sent(&lab, &["--until", "b"]), "far");
    let said = receive(&lab, 4, &sent(&lab, &["--after", "c"]), "far");
    assert!(said.contains("vhd snapshot send --after b"), "{said}");
    let said = receive(&lab, 0, &all, "far");
    assert!(said.contains("2 snapshots received, 2 skipped"), "{said}");
    assert_same_disks(&lab, "store/web", "far/web");
    // The receiver keeps fewer of the old ones.
    lab.good(&["delete", "a", "--store", "far"]);
    let said = receive(&lab, 0, &all, "far");
    assert!(said.contains("0 snapshots received, 4 skipped"), "{said}");
    let said = receive(&lab, 4, &sent(&lab, &["--until", "a"]), "far");
    assert!(
        said.contains("none of the received snapshots continues"),
        "{said}"
    );
    // Another history.
    lab.good(&["delete", "d"]);
    lab.add("e", "disk.raw");
    let said = receive(&lab, 4, &sent(&lab, &[]), "far");
    assert!(said.contains("have diverged"), "{said}");
    lab.ends(2, &["send", "--after", "e", "--until", "a"]);
    lab.ends(2, &["send", "--after", "none"]);
}

/// A disk with data at both ends of 3 TiB: its base is raw, with holes, and nothing is sent of them.
#[test]
fn holes_are_not_sent() {
    let lab = Lab::new();
    let size = 3_u64 << 40;
    let image = fs::File::create(lab.path("large.raw")).unwrap();
    image.set_len(size).unwrap();
    let data = Random::new(1).bytes(8192);
    image.write_all_at(&data, 4096).unwrap();
    image.write_all_at(&data, size - 8192).unwrap();
    lab.add("a", "large.raw");
    assert!(lab.files().contains(&"000001-a.raw".to_owned()));
    image.write_all_at(&data, 1 << 40).unwrap();
    lab.add("b", "large.raw");
    let stream = sent(&lab, &[]);
    assert!(stream.len() < 1 << 20, "{}", stream.len());
    receive(&lab, 0, &stream, "far");
    lab.good(&["copy", "--init", "--to", "copied"]);
    let digests = lab.good(&["hash", "--all"]);
    for store in ["far", "copied"] {
        let theirs = lab.good(&["hash", "--all", "--store", store]);
        assert_eq!(theirs.replace(&format!("{store}::"), "store::"), {
            let path = lab.path("store");
            digests.replace(path.to_str().unwrap(), "store")
        });
    }
}

/// The records of a stream, the header first; as `docs/send-format.md` has them.
fn records(stream: &[u8]) -> Vec<&[u8]> {
    let number = |at: usize| u32::from_be_bytes(stream[at..at + 4].try_into().unwrap()) as usize;
    let mut starts = vec![0, 24 + number(16)];
    loop {
        let at = *starts.last().unwrap();
        let body = match &stream[at..at + 4] {
            b"SNAP" => number(at + 4),
            b"DATA" => 8 + number(at + 4),
            b"DONE" => 8,
            kind => {
                assert_eq!(kind, b"ENDS");
                assert_eq!(stream.len(), at + 16 + 32 + 4 + 8);
                break;
            }
        };
        starts.push(at + 16 + body + 4);
    }
    starts.push(stream.len());
    starts
        .windows(2)
        .map(|pair| &stream[pair[0]..pair[1]])
        .collect()
}

fn three() -> (Lab, Vec<u8>) {
    let lab = Lab::new();
    let bytes = disk(8, 1 << 20);
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        lab.0.file("disk.raw", &changed(n as u64, &bytes));
        lab.add(name, "disk.raw");
    }
    let stream = sent(&lab, &[]);
    (lab, stream)
}

/// What was received of a damaged stream: complete snapshots, from the first on, and nothing else.
fn check_kept(lab: &Lab, what: &str) {
    let Ok(entries) = fs::read_dir(lab.path("far/web")) else {
        return;
    };
    drop(entries);
    let (kept, all) = (files(lab, "far/web"), files(lab, "store/web"));
    assert!(kept.len().is_multiple_of(2), "{what}: {:?}", kept.keys());
    for ((name, bytes), (expected, right)) in kept.iter().zip(&all) {
        assert_eq!(name, expected, "{what}");
        if !ends(name, "json") {
            assert_eq!(bytes, right, "{what}");
        }
    }
    fs::remove_dir_all(lab.path("far")).unwrap();
}

#[test]
fn every_flipped_byte_is_found_with_its_offset() {
    let (lab, stream) = three();
    let records = records(&stream);
    let mut at = 0;
    let mut places = Vec::new();
    for record in &records {
        places.extend([
            at,
            at + 5,
            at + 12,
            at + record.len() / 2,
            at + record.len() - 1,
        ]);
        at += record.len();
    }
    for at in places {
        let mut bad = stream.clone();
        bad[at] ^= 1;
        let said = receive(&lab, 3, &bad, "far");
        assert!(
            said.contains("(standard input)") && said.contains("offset"),
            "{at}: {said}"
        );
        check_kept(&lab, &format!("flipped at {at}"));
    }
}

#[test]
fn a_cut_stream_keeps_what_came_and_says_how_to_go_on() {
    let (lab, stream) = three();
    let mut random = Random::new(2);
    let mut went_on = 0;
    for n in 0..24 {
        let len = if n < 4 {
            stream.len() - 1 - n
        } else {
            random.below(stream.len())
        };
        let said = receive(&lab, 3, &stream[..len], "far");
        assert!(said.contains("ended too early"), "{len}: {said}");
        assert!(said.contains(&format!("at offset {len})")), "{len}: {said}");
        // What the message says brings the rest.
        if let Some((_, rest)) = said.split_once("vhd snapshot send --after ") {
            let rest = sent(&lab, &["--after", rest.trim()]);
            receive(&lab, 0, &rest, "far");
            assert_same_disks(&lab, "store/web", "far/web");
            went_on += 1;
        } else {
            assert!(said.contains("send again from the beginning"), "{said}");
        }
        check_kept(&lab, &format!("cut at {len}"));
    }
    assert!(went_on > 4);
}

/// A receiver that was killed within a snapshot: a stream begins it again, and a copy goes on with it.
#[test]
fn a_killed_receiver_does_no_harm() {
    for by_copy in [false, true] {
        let (lab, stream) = three();
        // A newer one would get packed bases by a copy.
        lab.good(&["init", "--store-version", "1", "far"]);
        let mut receiver = lab
            .command("vhd", &["snapshot", "receive", "--init", "--store", "far"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let base: usize = records(&stream)[..3]
            .iter()
            .map(|record| record.len())
            .sum();
        let mut input = receiver.stdin.take().unwrap();
        input.write_all(&stream[..base]).unwrap();
        while fs::metadata(lab.path("far/web/000001-a.vhd.part")).map_or(0, |part| part.len()) == 0
        {
            sleep(Duration::from_millis(1));
        }
        receiver.kill().unwrap();
        receiver.wait().unwrap();
        let shown = lab.json(&["show", "a", "--store", "far", "--disk", "web"]);
        assert_eq!(shown["state"], "copying");
        if by_copy {
            lab.good(&["copy", "--init", "--to", "far"]);
        } else {
            receive(&lab, 0, &stream, "far");
        }
        assert_same_disks(&lab, "store/web", "far/web");
    }
}

#[test]
fn lost_repeated_and_swapped_records_are_refused() {
    let (lab, stream) = three();
    let records = records(&stream);
    for n in 1..records.len() {
        let mut lost = records.clone();
        lost.remove(n);
        let mut twice = records.clone();
        twice.insert(n, records[n]);
        let mut swapped = records.clone();
        swapped.swap(n, 1.max(n - 1));
        for (what, bad) in [("lost", lost), ("twice", twice), ("swapped", swapped)] {
            if bad == records {
                continue;
            }
            let said = receive(&lab, 3, &bad.concat(), "far");
            assert!(said.contains("offset"), "{what} {n}: {said}");
            check_kept(&lab, &format!("{what} {n}"));
        }
    }
    // Something behind the end; something that was never a stream; nothing at all.
    let said = receive(&lab, 3, &[&stream[..], b"x"].concat(), "far");
    assert!(said.contains("after the end"), "{said}");
    assert_same_disks(&lab, "store/web", "far/web");
    fs::remove_dir_all(lab.path("far")).unwrap();
    let said = receive(&lab, 3, &content(lab.path("disk.raw")), "far");
    assert!(said.contains("this is not a stream of snapshots"), "{said}");
    receive(&lab, 3, b"", "far");
    assert!(!lab.path("far/web").exists());
}

/// The line that a script has: the far side says where it is, and the sender goes on there, whatever was pruned.
#[test]
fn a_script_goes_on_from_what_the_receiver_says() {
    let lab = Lab::packed();
    lab.good(&["init", "far"]);
    // The second half of the disk never changes.
    let rest = Random::new(3).bytes(4 << 20);
    let image = |n: u64| [changed(n, &disk(6, 2 << 20)), rest.clone()].concat();
    let far = |args: &[&str]| {
        let all = [&["snapshot", "receive", "--store", "far"], args].concat();
        run(&mut lab.command("vhd", &all)).stdout
    };
    let status = || String::from_utf8(far(&["--disk", "web", "--status"])).unwrap();
    let by_point = "vhd snapshot send --store store --disk web --after \"$(vhd snapshot receive --store far --disk web \
                    --status)\" | vhd snapshot receive --store far";
    let by_windows = "vhd snapshot receive --store far --disk web --status --windows | vhd snapshot send --store store \
                      --disk web --after-status - | vhd snapshot receive --store far";
    let shell = |line: &str| {
        let vhd = program("vhd");
        let folder = PathBuf::from(vhd.get_program());
        let line = line.replace("vhd snapshot", &format!("{} snapshot", folder.display()));
        lab.run_shell(&line)
    };
    assert_eq!(status(), "point:none\n");
    let mut before = "";
    for (n, name) in (1..).zip(["a", "b", "c", "d", "e", "f"]) {
        lab.0.file("disk.raw", &image(n));
        lab.add(name, "disk.raw");
        if n % 2 == 1 {
            shell(if n == 1 { by_point } else { by_windows });
            let shown = lab.json(&["show", "--store", "far"]);
            let id = shown["id"].as_str().unwrap();
            let digest = shown["content_digest"].as_str().unwrap();
            assert_eq!(status(), format!("point:{id}:{digest}\n"));
            assert_eq!(shown["name"], name);
            if n > 1 {
                let diff = format!("far/web/00000{n}-{name}.vhddiff");
                let len = fs::metadata(lab.path(&diff)).unwrap().len();
                assert!(len < 3 << 20, "{len}");
            }
            before = name;
        } else {
            // Gone here: it says so, and what to do.
            lab.good(&["delete", before]);
            let said = lab.ends(4, &["send", "--after", status().trim(), "-o", "none"]);
            assert!(said.contains("--after-status -"), "{said}");
        }
    }
    shell(by_windows);
    shell(by_point);
    let said = lab.good(&["verify", "--store", "far", "--read-data"]);
    assert!(!said.contains("damaged"), "{said}");
    lab.good(&["restore", "--store", "far", "f", "-o", "far.raw"]);
    assert_eq!(content(lab.path("far.raw")), image(6));
    // A status that isn't one, and one that the sender is behind.
    lab.ends(2, &["send", "--after", "", "-o", "none"]);
    lab.ends(2, &["send", "--after", "point:x", "-o", "none"]);
    lab.0.file("state", b"vhdkit status 1\n");
    lab.ends(3, &["send", "--after-status", "state", "-o", "none"]);
    lab.0
        .file("state", &far(&["--disk", "web", "--status", "--windows"]));
    lab.good(&["send", "--after-status", "state", "-o", "same"]);
    lab.good(&["delete", "f"]);
    let said = lab.ends(4, &["send", "--after-status", "state", "-o", "none"]);
    assert!(said.contains("doesn't have the newest snapshot"), "{said}");
    let json = lab.0.path("json");
    let printed = far(&["--disk", "web", "--status", "--json"]);
    fs::write(&json, printed).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&content(json)).unwrap();
    assert_eq!(document["point"], status().trim());
    assert_eq!(document["newest"], "f");
    // Neither made anything.
    assert!(!lab.path("none").exists());
}
