//! A container as a store of points in time.

use std::fs;

use vhdkit::blob::{BlobId, Conditions, Lease, Metadata, PageStore as _};
use vhdkit::page::PageRange;

use crate::cli::{Lab, disk};

/// Disks that follow one another: changes, zeros where there was data, growth, and a smaller one.
pub(crate) fn family() -> Vec<Vec<u8>> {
    let mut all = vec![disk()];
    let mut next = disk();
    next[5 << 20..(5 << 20) + 8192].fill(3);
    next[8192..1 << 20].fill(0);
    all.push(next.clone());
    next.resize(26 << 20, 0);
    next[(24 << 20) - 512..(25 << 20) + 4096].fill(4);
    for at in (0..3 << 20).step_by(20_000) {
        let at = at / 512 * 512;
        next[at..at + 512].fill(at as u8);
    }
    all.push(next.clone());
    next.truncate(22 << 20);
    next[21 << 20..22 << 20].fill(6);
    all.push(next.clone());
    next[4096..8192].fill(1);
    all.push(next);
    all
}

pub(crate) const NAMES: [&str; 5] = ["mon", "tue", "wed", "thu", "fri"];

/// Makes a store in a folder of the first `points` of the family.
pub(crate) fn folder(lab: &Lab, points: usize) -> String {
    folder_of(lab, &family()[..points])
}

/// Makes a store in a folder of these points in time.
pub(crate) fn folder_of(lab: &Lab, points: &[Vec<u8>]) -> String {
    let store = lab.path("store");
    lab.ends(0, "vhd", &["snapshot", "init", &store]);
    for (n, point) in points.iter().enumerate() {
        add(lab, &store, n, point);
    }
    store
}

fn extend(lab: &Lab, store: &str, points: std::ops::Range<usize>) {
    for n in points {
        add(lab, store, n, &family()[n]);
    }
}

fn add(lab: &Lab, store: &str, n: usize, content: &[u8]) {
    let (image, time, tag) = (
        lab.path("image.raw"),
        format!("2026-11-2{n}T06:00:00Z"),
        format!("n={n}"),
    );
    fs::write(&image, content).unwrap();
    let mut args = vec![
        "snapshot", "create", "--init", "--store", store, "--disk", "web",
    ];
    args.extend(["--name", NAMES[n], "--time", &time, "--tag", &tag, &image]);
    lab.ends(0, "vhd", &args);
}

fn restored(lab: &Lab, store: &str, name: &str) -> Vec<u8> {
    let out = lab.path("restored.raw");
    let point = format!("web@{name}");
    lab.ends(
        0,
        "vhd",
        &[
            "snapshot", "restore", "--store", store, &point, "-o", &out, "--force",
        ],
    );
    fs::read(out).unwrap()
}

fn check_all(lab: &Lab, store: &str, points: &[usize]) {
    for n in points {
        assert!(
            restored(lab, store, NAMES[*n]) == family()[*n],
            "{}",
            NAMES[*n]
        );
    }
}

fn names(lab: &Lab, store: &str) -> Vec<String> {
    let text = lab.ends(0, "vhd", &["snapshot", "list", "--store", store, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let points = json["disks"][0]["snapshots"].as_array().unwrap().clone();
    points
        .iter()
        .map(|point| point["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_disk_goes_to_a_container_and_back_and_on() {
    let lab = Lab::new();
    let store = folder(&lab, 3);
    let there = lab.server.url("backup");
    let copy = |from: &str, to: &str| {
        lab.ends(
            0,
            "vhd",
            &["snapshot", "copy", "--init", "--store", from, "--to", to],
        )
    };
    let said = copy(&store, &there);
    assert!(said.contains("web: 3 snapshots copied"), "{said}");
    assert_eq!(names(&lab, &there), NAMES[..3]);
    let said = copy(&store, &there);
    assert!(
        said.contains("nothing to copy; the newest is wed"),
        "{said}"
    );
    extend(&lab, &store, 3..5);
    let said = copy(&store, &there);
    assert!(said.contains("web: 2 snapshots copied"), "{said}");
    check_all(&lab, &there, &[0, 1, 2, 3, 4]);
    // Only what changed was written.
    let json = lab.ends(
        0,
        "vhd",
        &["snapshot", "show", "--store", &there, "web@fri", "--json"],
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["tags"]["n"], "4");
    assert_eq!(json["time"], "2026-11-24T06:00:00Z");
    assert!(json["content_digest"].is_string());
    let verified = lab.ends(
        0,
        "vhd",
        &["snapshot", "verify", "--store", &there, "--read-data"],
    );
    assert!(
        verified.contains("5 snapshots, all data read and compared"),
        "{verified}"
    );

    // The blob is a fixed VHD, and the newest point in time.
    lab.ends(
        0,
        "vhd",
        &["check", "--azure", &lab.server.url("backup/web.vhd")],
    );
    // Back, and to another prefix.
    let (back, other) = (lab.path("back"), lab.server.url("other/place"));
    copy(&there, &back);
    check_all(&lab, &back, &[0, 1, 2, 3, 4]);
    lab.ends(
        0,
        "vhd",
        &["snapshot", "verify", "--store", &back, "--read-data"],
    );
    copy(&there, &other);
    assert_eq!(names(&lab, &other), NAMES);
    check_all(&lab, &other, &[0, 1, 2, 3, 4]);
    for (from, to) in [(&there, &back), (&there, &other), (&back, &there)] {
        let said = copy(from, to);
        assert!(said.contains("nothing to copy"), "{said}");
    }
    // What changed, as the service tells it, and as a diff.
    let listed = lab.ends(
        1,
        "vhd",
        &[
            "snapshot", "diff", "--store", &there, "--disk", "web", "thu", "fri",
        ],
    );
    assert!(listed.contains("4096"), "{listed}");
    let xml = lab.ends(
        1,
        "vhd",
        &[
            "snapshot", "diff", "--store", &there, "web@thu", "fri", "--format", "xml",
        ],
    );
    assert!(
        xml.contains("<PageRange><Start>4096</Start><End>8191</End></PageRange>"),
        "{xml}"
    );
    let diff = lab.path("fri.vhddiff");
    lab.ends(
        0,
        "vhd",
        &[
            "snapshot", "diff", "--store", &there, "web@thu", "fri", "-o", &diff,
        ],
    );
    let (image, result) = (lab.path("thu.raw"), lab.path("fri.raw"));
    fs::write(&image, &family()[3]).unwrap();
    lab.ends(0, "vhd-apply", &[&image, &diff, "-o", &result]);
    assert!(fs::read(result).unwrap() == family()[4]);
    lab.check_secrets();
}

#[test]
fn a_dry_run_tells_what_a_copy_brings() {
    let lab = Lab::new();
    let store = folder(&lab, 3);
    let (there, other) = (lab.server.url("backup"), lab.server.url("other/place"));
    let back = lab.path("back");
    let run = |code, from: &str, to: &str, more: &[&str]| {
        let mut all = vec!["snapshot", "copy", "--store", from, "--to", to];
        all.extend(more);
        lab.ends(code, "vhd", &all)
    };
    let told = |from: &str, to: &str| {
        let said = run(0, from, to, &["--dry-run", "--json", "--init"]);
        // Notes come after it.
        let mut documents = serde_json::Deserializer::from_str(&said).into_iter();
        let json: serde_json::Value = documents.next().unwrap().unwrap();
        assert_eq!(json["dry_run"], true);
        let points = json["disks"][0]["copied"].as_array().unwrap().clone();
        let names = points
            .iter()
            .map(|point| point["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(told(&store, &there), NAMES[..3]);
    let said = run(0, &store, &there, &["--dry-run"]);
    assert!(said.contains("web: would copy 3 snapshots"), "{said}");
    // Nothing was: neither a snapshot nor a blob.
    lab.ends(2, "vhd", &["snapshot", "list", "--store", &there]);
    run(0, &store, &there, &[]);
    assert_eq!(told(&store, &there), [""; 0]);
    extend(&lab, &store, 3..4);
    assert_eq!(told(&store, &there), NAMES[3..4]);
    let said = run(0, &store, &there, &["--dry-run"]);
    assert!(said.contains("web: would copy thu, at most "), "{said}");
    for to in [&other, &back] {
        assert_eq!(told(&there, to), NAMES[..3]);
    }
    assert!(!std::path::Path::new(&back).exists());
    // A folder that would not be made a store.
    run(2, &there, &back, &["--dry-run"]);
    run(0, &there, &back, &["--init"]);
    run(0, &store, &there, &[]);
    assert_eq!(told(&there, &back), NAMES[3..4]);
    // As many, and the same, as the copy then brings.
    assert!(run(0, &there, &back, &[]).contains("1 snapshot copied"));
    assert_eq!(told(&there, &back), [""; 0]);
    // What the copy would refuse is refused.
    let strange = lab.path("strange");
    lab.ends(0, "vhd", &["snapshot", "init", &strange]);
    let image = lab.path("strange.raw");
    fs::write(&image, vec![9; 20 << 20]).unwrap();
    let create = [
        "snapshot", "create", "--store", &strange, "--disk", "web", "--name", "x", &image,
    ];
    lab.ends(0, "vhd", &create);
    for (from, to) in [(&strange, &there), (&there, &strange)] {
        let dry = run(4, from, to, &["--dry-run"]);
        assert_eq!(dry, run(4, from, to, &[]));
    }
}

#[test]
fn a_container_is_told_of_times_in_the_future_and_prints_a_straight_table() {
    let lab = Lab::new();
    let there = lab.server.url("backup");
    let image = lab.path("image.raw");
    fs::write(&image, disk()).unwrap();
    let create = |name: &str, time: &str| {
        let create = [
            "snapshot", "create", "--store", &there, "--disk", "web", "--name", name,
        ];
        let mut all = create.to_vec();
        all.extend(["--time", time, "-q", &image]);
        lab.ends(0, "vhd", &all)
    };
    assert_eq!(create("a", "2026-01-01"), "");
    assert_eq!(create("a-long-name", "2026-01-02"), "");
    let said = create("ahead", "2060-01-01");
    let way_back = "--disk web ahead";
    assert!(
        said.contains("is in the future") && said.contains(way_back),
        "{said}"
    );
    let prune = [
        "snapshot",
        "prune",
        "--store",
        &there,
        "--keep-last",
        "1",
        "--dry-run",
    ];
    let said = lab.ends(0, "vhd", &prune);
    let at: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("web@"))
        .collect();
    let column = |line: &str| line.find("20").unwrap();
    assert_eq!(at.len(), 3, "{said}");
    assert!(
        at.iter().all(|line| column(line) == column(at[0])),
        "{said}"
    );
}

#[test]
fn snapshots_are_deleted_and_pruned_and_others_stay() {
    let lab = Lab::new();
    let store = folder(&lab, 5);
    let there = lab.server.url("");
    let run = |code, args: &[&str]| {
        let mut all = vec!["snapshot", args[0], "--store", &there];
        all.extend(&args[1..]);
        lab.ends(code, "vhd", &all)
    };
    lab.ends(
        0,
        "vhd",
        &[
            "snapshot", "copy", "--init", "--store", &store, "--to", &there,
        ],
    );
    run(0, &["delete", "web@tue", "--dry-run"]);
    assert_eq!(names(&lab, &there).len(), 5);
    run(0, &["delete", "web@tue"]);
    check_all(&lab, &there, &[0, 2, 3, 4]);
    // Without the newest, the blob is what the one before it holds.
    run(0, &["delete", "web@fri"]);
    assert_eq!(names(&lab, &there), ["mon", "wed", "thu"]);
    let live = lab.path("live.raw");
    lab.ends(0, "vhd", &["convert", &lab.server.url("web.vhd"), &live]);
    assert!(fs::read(&live).unwrap() == family()[3]);
    // It comes again.
    lab.ends(
        0,
        "vhd",
        &[
            "snapshot", "copy", "--init", "--store", &store, "--to", &there,
        ],
    );
    check_all(&lab, &there, &[0, 2, 3, 4]);
    // Tags can be changed, and keep what they keep; they stay when the disk goes on.
    run(
        0,
        &[
            "tag",
            "web@wed",
            "--set",
            "keep=yes please",
            "--remove",
            "n",
        ],
    );
    run(0, &["hold", "web@mon", "--reason", "audit"]);
    let said = run(
        0,
        &[
            "prune",
            "--keep-last",
            "1",
            "--keep-tag",
            "keep",
            "--dry-run",
        ],
    );
    assert!(said.contains("tag keep") && said.contains("held"), "{said}");
    assert!(
        said.contains("3 would be kept, 1 snapshot would be deleted"),
        "{said}"
    );
    run(0, &["delete", "web@fri"]);
    let shown = run(0, &["show", "web@wed"]);
    assert!(
        shown.contains("keep=yes please") && !shown.contains("n=2"),
        "{shown}"
    );
    run(0, &["hold", "web@mon", "--release"]);
    lab.ends(
        0,
        "vhd",
        &["snapshot", "copy", "--store", &store, "--to", &there],
    );
    let said = run(0, &["prune", "--keep-last", "2"]);
    assert!(said.contains("2 kept, 2 snapshots deleted"), "{said}");
    check_all(&lab, &there, &[3, 4]);
    let said = run(2, &["delete", "web@thu", "fri"]);
    assert!(said.contains("--last"), "{said}");
    run(0, &["delete", "web@thu", "fri", "--last"]);
    let said = run(2, &["list"]);
    assert!(said.contains("no blob with snapshots"), "{said}");
    assert!(
        lab.server
            .store
            .properties(&BlobId::live("web.vhd"))
            .is_err()
    );
}

#[test]
fn a_snapshot_of_an_image_is_added() {
    let lab = Lab::new();
    let there = lab.server.url("x");
    for (n, name) in NAMES.iter().enumerate().take(3) {
        let image = lab.path("image.raw");
        fs::write(&image, &family()[n]).unwrap();
        let time = format!("2026-11-2{n}T06:00:00Z");
        lab.ends(
            0,
            "vhd",
            &[
                "snapshot",
                "create",
                "--store",
                &there,
                "--disk",
                "web",
                "--name",
                name,
                "--time",
                &time,
                "--tag",
                "hold=audit",
                &image,
            ],
        );
    }
    check_all(&lab, &there, &[0, 1, 2]);
    lab.ends(
        0,
        "vhd",
        &["snapshot", "verify", "--store", &there, "--read-data"],
    );
    let image = lab.path("image.raw");
    let create = |name: &str, time: &str| {
        lab.ends(
            2,
            "vhd",
            &[
                "snapshot", "create", "--store", &there, "--disk", "web", "--name", name, "--time",
                time, &image,
            ],
        )
    };
    assert!(create("tue", "2026-11-27").contains("already exists"));
    assert!(create("old", "2026-11-01").contains("order of their times"));
    let said = lab.ends(
        2,
        "vhd",
        &["snapshot", "delete", "--store", &there, "web@mon"],
    );
    assert!(said.contains("--release-hold"), "{said}");
}

#[test]
fn a_blob_with_snapshots_of_others_is_listed_restored_and_copied() {
    let lab = Lab::new();
    let (raw, vhd) = (lab.path("disk.raw"), lab.path("disk.vhd"));
    let any = Conditions::default();
    fs::write(&raw, &family()[0]).unwrap();
    lab.ends(0, "vhd", &["convert", "--azure", &raw, &vhd]);
    let blob = lab.upload(&vhd, "theirs");
    let store = &lab.server.store;
    let first = store.snapshot(&blob, &Metadata::new(), &any).unwrap();
    store.put_pages(&blob, 5 << 20, &[3; 8192], &any).unwrap();
    store
        .clear_pages(&blob, PageRange::covering(8192, 1 << 20), &any)
        .unwrap();
    let second = store.snapshot(&blob, &Metadata::new(), &any).unwrap();
    // One without snapshots isn't a disk of the store.
    lab.upload(&vhd, "alone.vhd");

    let there = lab.server.url("");
    assert_eq!(names(&lab, &there), [first.clone(), second.clone()]);
    let out = lab.path("out.raw");
    for (n, time) in [&first, &second].into_iter().enumerate() {
        let point = format!("theirs@{time}");
        let args = [
            "snapshot", "restore", "--store", &there, &point, "-o", &out, "--force",
        ];
        let said = lab.ends(0, "vhd", &args);
        assert!(said.contains("nothing is recorded"), "{said}");
        assert!(fs::read(&out).unwrap() == family()[n]);
    }
    let said = lab.ends(
        0,
        "vhd",
        &["snapshot", "verify", "--store", &there, "--read-data"],
    );
    assert!(
        said.contains("nothing is recorded of what 2 should hold"),
        "{said}"
    );
    // To a folder and to another prefix; the second time there is nothing to do.
    for to in [lab.path("folder"), lab.server.url("p")] {
        for expected in ["2 snapshots copied", "nothing to copy"] {
            let said = lab.ends(
                0,
                "vhd",
                &[
                    "snapshot", "copy", "--init", "--store", &there, "--to", &to, "--disk",
                    "theirs",
                ],
            );
            assert!(said.contains(expected), "{said}");
        }
        let point = format!("theirs@{}", second.replace(':', "."));
        lab.ends(
            0,
            "vhd",
            &[
                "snapshot", "restore", "--store", &to, &point, "-o", &out, "--force",
            ],
        );
        assert!(fs::read(&out).unwrap() == family()[1]);
    }
}

#[test]
fn what_others_wrote_is_not_overwritten() {
    let lab = Lab::new();
    let store = folder(&lab, 2);
    let there = lab.server.url("");
    let copy = |code| {
        lab.ends(
            code,
            "vhd",
            &[
                "snapshot", "copy", "--init", "--store", &store, "--to", &there,
            ],
        )
    };
    copy(0);
    extend(&lab, &store, 2..3);
    let (blob, any) = (BlobId::live("web.vhd"), Conditions::default());
    lab.server
        .store
        .put_pages(&blob, 1 << 20, &[9; 512], &any)
        .unwrap();
    let before = lab.server.store.bytes(&blob).unwrap();
    let said = copy(4);
    assert!(said.contains("written since its newest snapshot"), "{said}");
    assert!(lab.server.store.bytes(&blob).unwrap() == before);
    // Another program has it.
    lab.server
        .store
        .lease(&blob, &Lease::Acquire("someone".into(), None))
        .unwrap();
    copy(5);
    // Another history.
    let other = lab.path("other");
    lab.ends(0, "vhd", &["snapshot", "init", &other]);
    let image = lab.path("image.raw");
    lab.ends(
        0,
        "vhd",
        &[
            "snapshot", "create", "--init", "--store", &other, "--disk", "web", "--name", "x",
            &image,
        ],
    );
    let said = lab.ends(
        4,
        "vhd",
        &[
            "snapshot", "copy", "--init", "--store", &other, "--to", &there,
        ],
    );
    assert!(said.contains("doesn't have the newest snapshot"), "{said}");
}

#[test]
fn a_copy_goes_on_past_what_the_source_has_deleted() {
    let lab = Lab::new();
    let store = folder(&lab, 3);
    let there = lab.server.url("");
    let copy = || {
        lab.ends(
            0,
            "vhd",
            &[
                "snapshot", "copy", "--init", "--store", &store, "--to", &there,
            ],
        )
    };
    copy();
    extend(&lab, &store, 3..5);
    lab.ends(
        0,
        "vhd",
        &["snapshot", "delete", "--store", &store, "web@wed", "thu"],
    );
    copy();
    assert_eq!(names(&lab, &there), ["mon", "tue", "wed", "fri"]);
    check_all(&lab, &there, &[0, 1, 2, 4]);
}

#[test]
fn what_only_a_folder_has_is_refused_with_what_to_do() {
    let lab = Lab::new();
    let store = folder(&lab, 1);
    let there = lab.server.url("");
    lab.ends(
        0,
        "vhd",
        &[
            "snapshot", "copy", "--init", "--store", &store, "--to", &there,
        ],
    );
    for args in [
        &["snapshot", "stats", "--store", &there][..],
        &["snapshot", "send", "--store", &there, "--disk", "web"],
        &["snapshot", "verify", "--store", &there, "--max-age", "1h"],
        &[
            "snapshot",
            "restore",
            "--store",
            &there,
            "--in-place",
            "-o",
            "x.raw",
        ],
        &[
            "snapshot", "copy", "--init", "--store", &there, "--to", &there,
        ],
        &["snapshot", "show", "--store", &there, "web@nothing"],
        &["snapshot", "list", "--store", &there, "--disk", "nothing"],
    ] {
        let output = lab.output("vhd", args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            [2, 3].contains(&output.status.code().unwrap()),
            "{args:?}: {said}"
        );
        assert!(said.contains("hint: "), "{args:?}: {said}");
    }
    lab.check_secrets();
}

#[test]
fn the_marks_of_an_interrupted_copy_keep_every_command_away_and_can_be_taken_back() {
    let lab = Lab::new();
    let store = folder(&lab, 2);
    let there = lab.server.url("");
    lab.ends(
        0,
        "vhd",
        &[
            "snapshot", "copy", "--init", "--store", &store, "--to", &there,
        ],
    );
    extend(&lab, &store, 2..3);
    let blob = BlobId::live("web.vhd");
    let torn = crate::store_faults::interrupt(&lab, &store, 12);
    assert!(torn, "the copy wasn't interrupted in the middle");
    let address = lab.server.url("web.vhd");
    let said = lab.ends(5, "vhd", &["info", &address]);
    assert!(said.contains("--rollback"), "{said}");
    let said = lab.ends(0, "vhd", &["snapshot", "list", "--store", &there]);
    assert!(said.contains("between two points in time"), "{said}");
    check_all(&lab, &there, &[0, 1]);
    lab.ends(0, "vhd-apply", &["--rollback", &address]);
    let live = lab.path("live.raw");
    lab.ends(0, "vhd", &["convert", &address, &live]);
    assert!(fs::read(&live).unwrap() == family()[1]);
    assert!(
        lab.server
            .store
            .properties(&blob)
            .unwrap()
            .metadata
            .keys()
            .all(|key| key != "vhdkit_state")
    );
    // Or finished.
    assert!(crate::store_faults::interrupt(&lab, &store, 12));
    let said = lab.ends(
        0,
        "vhd",
        &[
            "snapshot", "copy", "--init", "--store", &store, "--to", &there,
        ],
    );
    assert!(said.contains("went on with what was interrupted"), "{said}");
    check_all(&lab, &there, &[0, 1, 2]);
}

#[test]
fn a_copy_that_is_interrupted_lets_go_of_its_lease() {
    let lab = Lab::new();
    // Data that takes seconds at the rate.
    let mut content = vec![0; 12 << 20];
    let mut state = 1_u64;
    for byte in &mut content {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        *byte = (state >> 33) as u8;
    }
    let store = folder_of(&lab, &[content.clone()]);
    let there = lab.server.url("backup");
    let args = ["snapshot", "copy", "--store", &store, "--to", &there];
    let mut copy = lab.command("vhd");
    let running = copy
        .args(args)
        .args(["--limit-rate", "2M"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let blob = BlobId::live("backup/web.vhd");
    let begun = std::time::Instant::now();
    let is_written = || {
        let bytes = lab.server.store.bytes(&blob);
        bytes.is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0))
    };
    while !is_written() {
        assert!(begun.elapsed().as_secs() < 60, "nothing was written");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let pid = running.id().to_string();
    std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status()
        .unwrap();
    let ended = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    // Nobody has to wait until a lease has ended.
    lab.ends(0, "vhd", &args);
    assert!(restored(&lab, &there, "mon") == content);
}

#[test]
fn every_command_that_writes_to_a_container_waits_for_its_lock_if_told_to() {
    let lab = Lab::new();
    let store = folder(&lab, 3);
    let there = lab.server.url("backup");
    lab.ends(
        0,
        "vhd",
        &["snapshot", "copy", "--store", &store, "--to", &there],
    );
    let (image, blob) = (lab.path("image.raw"), BlobId::live("backup/web.vhd"));
    fs::write(&image, &family()[3]).unwrap();
    let at = ["--store", &there];
    let commands: [&[&str]; 4] = [
        &["create", "--disk", "web", "--name", "thu", &image],
        &["delete", "web@thu"],
        &["tag", "web@tue", "--set", "a=b"],
        &["prune", "--keep-last", "1"],
    ];
    for words in commands {
        let (command, rest) = words.split_first().unwrap();
        let args = [&["snapshot", command], &at[..], rest].concat();
        let lease = Lease::Acquire("someone".into(), None);
        lab.server.store.lease(&blob, &lease).unwrap();
        let told = lab.ends(5, "vhd", &args);
        assert!(told.contains("--lock-timeout 10m"), "{told}");
        let too_short = [&args[..], &["--lock-timeout", "1s"]].concat();
        let told = lab.ends(5, "vhd", &too_short);
        assert!(told.contains("after waiting 1 s"), "{told}");
        let server = std::sync::Arc::clone(&lab.server.store);
        let release = std::thread::spawn({
            let blob = blob.clone();
            move || {
                std::thread::sleep(std::time::Duration::from_millis(700));
                server
                    .lease(&blob, &Lease::Release("someone".into()))
                    .unwrap();
            }
        });
        let told = lab.ends(0, "vhd", &[&args[..], &["--lock-timeout", "5m"]].concat());
        assert!(told.contains("waiting up to 300 s"), "{told}");
        release.join().unwrap();
    }
    assert_eq!(names(&lab, &there), ["wed"]);
}

#[test]
fn a_point_in_time_of_a_container_is_an_image_like_one_of_a_folder() {
    let lab = Lab::new();
    let store = folder(&lab, 2);
    let there = lab.server.url("backup");
    lab.ends(
        0,
        "vhd",
        &["snapshot", "copy", "--store", &store, "--to", &there],
    );
    let (address, sas) = there.split_once('?').unwrap();
    let file = lab.path("address");
    fs::write(&file, format!("{there}::web@tue\n")).unwrap();
    let digest = |image: &str| {
        let told = lab.ends(0, "vhd", &["hash", image]);
        told.split_whitespace().next().unwrap().to_owned()
    };
    let expected = digest(&format!("{store}::web@tue"));
    for name in [
        format!("{there}::web@tue"),
        format!("{address}::web@tue?{sas}"),
        // The newest.
        format!("{there}::web"),
        format!("@{file}"),
    ] {
        assert_eq!(digest(&name), expected);
        let info = lab.ends(0, "vhd", &["-v", "info", &name]);
        assert!(
            info.contains("fixed") && info.contains("access by"),
            "{info}"
        );
        let out = lab.path("out.raw");
        lab.ends(0, "vhd", &["convert", "--force", &name, &out]);
        assert!(fs::read(&out).unwrap() == family()[1]);
        lab.ends(0, "vhd", &["map", &name]);
        if !name.ends_with("::web") {
            lab.ends(0, "vhd", &["serve", &name, "--", "/bin/true"]);
        }
        // The service tells what changed.
        let diff = lab.path("out.vhddiff");
        let from = format!("{there}::web@mon");
        lab.ends(0, "vhd-diff", &["--force", "-o", &diff, &from, &name]);
        let base = lab.path("base.raw");
        lab.ends(
            0,
            "vhd",
            &["convert", "--force", &format!("{store}::web@mon"), &base],
        );
        lab.ends(0, "vhd-apply", &[&base, &diff]);
        assert!(fs::read(&base).unwrap() == family()[1]);
        // It can't be written to, and isn't a store.
        let refusals = if name.starts_with('@') { 0..0 } else { 0..3 };
        for args in &[
            &["convert", &base, &name][..],
            &["create", "--size", "1M", &name],
            &["snapshot", "list", "--store", &name],
        ][refusals]
        {
            let told = lab.ends(2, "vhd", args);
            assert!(told.contains("point in time"), "{told}");
        }
        let told = lab.ends(2, "vhd", &["info", &format!("{there}::web@wed")]);
        assert!(told.contains("there is no such snapshot"), "{told}");
    }
    let told = lab.ends(
        3,
        "vhd",
        &["serve", &format!("{there}::"), "--", "/bin/true"],
    );
    assert!(told.contains("one point in time"), "{told}");
    // The store of the environment.
    for name in ["info", "hash", "map"] {
        let mut command = lab.command("vhd");
        command.args([name, "::web@mon"]);
        let output = command.env("VHDKIT_STORE", &there).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let told = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&told).contains("sig="));
    }
}
