//! The commands where only what changed is read, sent or written.

use std::fs;

use vhdkit::blob::memory::MemoryStore;
use vhdkit::blob::{BlobId, Conditions, Metadata, PageStore as _};

use crate::cli::{DISK, Lab, disk};
use crate::server::Server;

/// A member of the document that a command prints.
fn member(lab: &Lab, code: i32, program: &str, args: &[&str], name: &str) -> serde_json::Value {
    let said = lab.ends(code, program, args);
    let json = said
        .lines()
        .filter(|line| line.starts_with(['{', ' ', '}', '"', '[', ']']));
    let json: String = json.collect();
    let parsed: serde_json::Value =
        serde_json::from_str(&json).unwrap_or_else(|e| panic!("{said}: {e}"));
    parsed[name].clone()
}

fn mark(lab: &Lab, blob: &str, entries: &[(&str, &str)]) {
    let metadata: Metadata = entries
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let any = Conditions::default();
    lab.server
        .store
        .set_metadata(&BlobId::live(blob), &metadata, &any)
        .unwrap();
}

#[test]
fn a_blob_is_brought_from_one_point_in_time_to_the_next() {
    let lab = Lab::new();
    let mut bytes = disk();
    fs::write(lab.path("mon.raw"), &bytes).unwrap();
    bytes[8192..9216].fill(0xAA);
    bytes[20 << 20..(20 << 20) + 4096].fill(0xBB);
    fs::write(lab.path("tue.raw"), &bytes).unwrap();
    for name in ["mon", "tue"] {
        let (raw, vhd) = (format!("{name}.raw"), format!("{name}.vhd"));
        lab.ends(0, "vhd", &["convert", "--azure", &raw, &vhd]);
    }
    lab.ends(
        0,
        "vhd-diff",
        &["-q", "-o", "tue.vhddiff", "mon.vhd", "tue.vhd"],
    );
    lab.upload(&lab.path("mon.vhd"), "web.vhd");
    let web = lab.server.url("web.vhd");
    lab.ends(0, "vhd-apply", &["--dry-run", &web, "tue.vhddiff"]);
    lab.ends(0, "vhd-diff", &["-q", "mon.vhd", &web]);
    let time = member(
        &lab,
        0,
        "vhd-apply",
        &[
            "--json",
            "--verify",
            &web,
            "tue.vhddiff",
            "--blob-snapshot",
            "tue",
        ],
        "blob_snapshot",
    );
    lab.ends(0, "vhd-diff", &["-q", "tue.vhd", &web]);
    lab.ends(0, "vhd", &["check", "--azure", &web]);
    let at = format!("{web}&snapshot={}", time.as_str().unwrap());
    lab.ends(0, "vhd-diff", &["-q", "tue.vhd", &at]);
    // It holds the target already.
    let said = lab.ends(0, "vhd-apply", &[&web, "tue.vhddiff"]);
    assert!(said.contains("already"), "{said}");

    for args in [
        &[web.as_str(), "tue.vhddiff", "--undo", "back"][..],
        &[&web, "tue.vhddiff", "--in-place", "clone"],
        &[&web, "tue.vhddiff", "--dense"],
        &[&web, "tue.vhddiff", "--blob-snapshot", "a/b"],
        &["mon.vhd", "tue.vhddiff", "--blob-snapshot", "a"],
        &[&at, "tue.vhddiff"],
        &["--rollback", &web],
        &[&web, "tue.vhddiff", "-o", &web],
    ] {
        let said = lab.ends(2, "vhd-apply", args);
        assert!(said.contains("error: "), "{said}");
    }
    // New blobs, from a file, a blob and a point of a store.
    let new = |name: &str| lab.server.url(name);
    lab.ends(
        0,
        "vhd-apply",
        &["mon.vhd", "tue.vhddiff", "-o", &new("a.vhd")],
    );
    lab.ends(0, "vhd-diff", &["-q", "tue.vhd", &new("a.vhd")]);
    lab.upload(&lab.path("mon.vhd"), "b.vhd");
    lab.ends(
        0,
        "vhd-apply",
        &[
            "--verify",
            &new("b.vhd"),
            "tue.vhddiff",
            "-o",
            &new("c.vhd"),
        ],
    );
    lab.ends(0, "vhd-diff", &["-q", "tue.vhd", &new("c.vhd")]);
    // Of another base, nothing is made.
    fs::write(lab.path("odd.raw"), vec![7; DISK]).unwrap();
    lab.ends(
        4,
        "vhd-apply",
        &["odd.raw", "tue.vhddiff", "-o", &new("d.vhd")],
    );
    lab.ends(2, "vhd", &["info", &new("d.vhd")]);
    let create = [
        "snapshot", "create", "--init", "--store", "store", "--disk", "web", "--name", "tue",
        "tue.vhd",
    ];
    lab.ends(0, "vhd", &create);
    lab.ends(
        0,
        "vhd",
        &[
            "snapshot",
            "restore",
            "--store",
            "store",
            "web@tue",
            "-o",
            &new("e.vhd"),
        ],
    );
    lab.ends(0, "vhd-diff", &["-q", "tue.vhd", &new("e.vhd")]);
    lab.ends(
        2,
        "vhd",
        &[
            "snapshot",
            "restore",
            "--store",
            "store",
            "web@tue",
            "-o",
            &new("e.vhd"),
        ],
    );
    lab.check_secrets();
}

#[test]
fn a_blob_between_two_points_in_time_is_refused_by_all() {
    let lab = Lab::new();
    fs::write(lab.path("disk.raw"), disk()).unwrap();
    lab.ends(0, "vhd", &["convert", "--azure", "disk.raw", "disk.vhd"]);
    lab.ends(
        0,
        "vhd-diff",
        &["-q", "-o", "d.vhddiff", "disk.vhd", "disk.raw"],
    );
    lab.upload(&lab.path("disk.vhd"), "web.vhd");
    let web = lab.server.url("web.vhd");
    for state in ["applying", "melting"] {
        mark(
            &lab,
            "web.vhd",
            &[
                ("vhdkit_state", state),
                ("vhdkit_checkpoint", "2026-11-28T00:00:01.0000000Z"),
                ("vhdkit_diffs", &"0".repeat(64)),
            ],
        );
        let create = [
            "snapshot", "create", "--init", "--store", "store", "--disk", "web", "--name", "tue",
            &web,
        ];
        for (program, args) in [
            ("vhd", &["info", &web][..]),
            ("vhd", &["hash", &web]),
            ("vhd", &["map", &web]),
            ("vhd", &["check", &web]),
            ("vhd", &["convert", &web, "x.raw"]),
            ("vhd", &["convert", "--azure", "--force", "disk.vhd", &web]),
            ("vhd", &create),
            ("vhd-diff", &["disk.vhd", &web]),
            ("vhd-diff", &[&web, "disk.vhd"]),
            ("vhd-apply", &[&web, "d.vhddiff"]),
            ("vhd-apply", &[&web, "d.vhddiff", "-o", "x.raw"]),
            (
                "vhd-apply",
                &["disk.vhd", "d.vhddiff", "--force", "-o", &web],
            ),
        ] {
            let said = lab.ends(5, program, args);
            assert!(said.contains("hint: "), "{args:?}: {said}");
        }
    }
    lab.check_secrets();
}

#[test]
fn an_upload_goes_on_and_sends_only_what_is_missing() {
    let lab = Lab::new();
    let bytes = disk();
    fs::write(lab.path("disk.raw"), &bytes).unwrap();
    lab.ends(0, "vhd", &["convert", "--azure", "disk.raw", "disk.vhd"]);
    let blob = lab.upload(&lab.path("disk.vhd"), "web.vhd");
    let any = Conditions::default();
    // Some of it isn't there yet, and some is wrong.
    let store = &lab.server.store;
    let range = |start, end| vhdkit::page::PageRange::covering(start, end);
    store
        .clear_pages(&blob, range(1 << 20, 2 << 20), &any)
        .unwrap();
    store.put_pages(&blob, 8192, &[1; 512], &any).unwrap();
    store.put_pages(&blob, 22 << 20, &[1; 512], &any).unwrap();
    mark(&lab, "web.vhd", &[("vhdkit_state", "writing")]);
    let web = lab.server.url("web.vhd");
    let sent = member(
        &lab,
        0,
        "vhd",
        &["convert", "--json", "disk.vhd", &web],
        "sent_bytes",
    );
    assert!(sent.as_u64().unwrap() < (1 << 20) + 65536, "{sent}");
    lab.ends(0, "vhd-diff", &["-q", "disk.vhd", &web]);
    lab.ends(0, "vhd", &["check", "--azure", &web]);
    // Another size isn't the same upload.
    mark(&lab, "web.vhd", &[("vhdkit_state", "writing")]);
    fs::write(lab.path("long.raw"), vec![1; DISK + (1 << 20)]).unwrap();
    let said = lab.ends(5, "vhd", &["convert", "long.raw", &web]);
    assert!(said.contains("--force"), "{said}");
    lab.ends(
        0,
        "vhd",
        &[
            "convert",
            "--force",
            "--limit-rate",
            "1G",
            "--jobs",
            "2",
            "long.raw",
            &web,
        ],
    );
    lab.ends(0, "vhd-diff", &["-q", "long.raw", &web]);
    lab.check_secrets();
}

#[test]
fn a_list_of_changes_spares_reading_the_rest_and_is_checked_if_wanted() {
    let lab = Lab::new();
    let mut bytes = disk();
    fs::write(lab.path("mon.raw"), &bytes).unwrap();
    bytes[8192..9216].fill(0xAA);
    bytes[20 << 20..(20 << 20) + 4096].fill(0xBB);
    fs::write(lab.path("tue.raw"), &bytes).unwrap();
    for name in ["mon", "tue"] {
        lab.upload(&lab.path(&format!("{name}.raw")), &format!("{name}.raw"));
    }
    fs::write(
        lab.path("changes"),
        r#"[{"start":8192,"end":9215},{"start":20971520,"end":20975615}]"#,
    )
    .unwrap();
    fs::write(lab.path("lie"), r#"[{"start":20971520,"end":20975615}]"#).unwrap();
    lab.ends(0, "vhd", &["hash", "--windows", "list", "mon.raw"]);
    lab.ends(
        0,
        "vhd-diff",
        &["-q", "-o", "plain.vhddiff", "mon.raw", "tue.raw"],
    );
    let tue = lab.server.url("tue.raw");
    // Of the base only its hashes are needed, of the target what changed: right digests all the same.
    let made = [
        "--json",
        "--changes",
        "changes",
        "--base-digests",
        "list",
        "-o",
        "d.vhddiff",
        "mon.raw",
        &tue,
    ];
    let received = member(&lab, 0, "vhd-diff", &made, "received_bytes");
    // Two windows of a MiB, and what is looked at to find out the format.
    assert!(
        received.as_u64().unwrap() < (2 << 20) + (300 << 10),
        "{received}"
    );
    let identity = |diff: &str| {
        let shown = lab.ends(0, "vhd", &["show", "--json", diff]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        (
            shown["base"]["content_digest"].clone(),
            shown["target"]["content_digest"].clone(),
        )
    };
    assert_eq!(identity("d.vhddiff"), identity("plain.vhddiff"));
    fs::copy(lab.path("mon.raw"), lab.path("copy.raw")).unwrap();
    lab.ends(0, "vhd-apply", &["copy.raw", "d.vhddiff"]);
    lab.ends(0, "vhd-diff", &["-q", "copy.raw", "tue.raw"]);
    // A list that lies.
    lab.ends(
        1,
        "vhd-diff",
        &["-q", "--changes", "lie", "mon.raw", "tue.raw"],
    );
    let said = lab.ends(
        4,
        "vhd-diff",
        &[
            "--changes",
            "lie",
            "--check-changes",
            "100%",
            "mon.raw",
            "tue.raw",
        ],
    );
    assert!(said.contains("8192"), "{said}");
    lab.ends(
        1,
        "vhd-diff",
        &[
            "-q",
            "--changes",
            "changes",
            "--check-changes",
            "100%",
            "mon.raw",
            "tue.raw",
        ],
    );
    // For a store.
    let create = |name, more: &[&str], code| {
        let start = [
            "snapshot", "create", "--init", "--store", "store", "--disk", "web", "--name", name,
        ];
        lab.ends(code, "vhd", &[&start, more].concat())
    };
    create("mon", &["--changes", "changes", "mon.raw"], 2);
    create("mon", &["mon.raw"], 0);
    create(
        "tue",
        &["--changes", "lie", "--check-changes", "100%", "tue.raw"],
        4,
    );
    create(
        "tue",
        &["--changes", "changes", "--check-changes", "50%", &tue],
        0,
    );
    lab.ends(0, "vhd", &["snapshot", "verify", "--store", "store"]);
    lab.ends(0, "vhd-diff", &["-q", "store::web@tue", "tue.raw"]);
    fs::write(lab.path("none"), "{}").unwrap();
    lab.ends(3, "vhd-diff", &["--changes", "none", "mon.raw", "tue.raw"]);
    // Back to Monday: only the list says where to look.
    let back = |more: &[&str], code| {
        let start = [
            "snapshot",
            "restore",
            "--store",
            "store",
            "mon",
            "--in-place",
            "-o",
            "disk.raw",
        ];
        lab.ends(code, "vhd", &[&start, more].concat())
    };
    back(&["--changes", "changes"], 2);
    fs::copy(lab.path("tue.raw"), lab.path("disk.raw")).unwrap();
    back(&["--changes", "lie", "--check-changes", "100%"], 4);
    lab.ends(0, "vhd-diff", &["-q", "disk.raw", "tue.raw"]);
    let said = back(&["--changes", "lie"], 3);
    // Nothing is lost: the hint leads back.
    if said.contains("--rollback") {
        lab.ends(0, "vhd-apply", &["--rollback", "disk.raw"]);
    }
    lab.ends(0, "vhd-diff", &["-q", "disk.raw", "tue.raw"]);
    back(&["--changes", "changes", "--check-changes", "5%"], 0);
    lab.ends(0, "vhd-diff", &["-q", "disk.raw", "mon.raw"]);
    lab.check_secrets();
}

#[test]
fn snapshots_of_a_managed_disk_are_compared_by_what_changed() {
    let any = Conditions::default();
    let store = MemoryStore::default();
    let lab = Lab::new();
    fs::write(lab.path("disk.raw"), disk()).unwrap();
    let blob = Lab::upload_to(&store, &lab.path("disk.raw"), "abcd");
    let monday = blob.at(store.snapshot(&blob, &Metadata::new(), &any).unwrap());
    store.put_pages(&blob, 1 << 20, &[3; 1024], &any).unwrap();
    let tuesday = blob.at(store.snapshot(&blob, &Metadata::new(), &any).unwrap());
    let disks = [("md-monday", monday), ("md-tuesday", tuesday)];
    let server = Server::with_disks(store, None, &disks);
    let (monday, tuesday) = (server.disk_url("md-monday"), server.disk_url("md-tuesday"));
    let said = lab.ends(
        0,
        "vhd-diff",
        &["-v", "--no-digest", "-o", "d.vhddiff", &monday, &tuesday],
    );
    assert!(
        said.contains("not compared") && !said.contains(" 0 bytes not"),
        "{said}"
    );
    lab.ends(0, "vhd-apply", &["disk.raw", "d.vhddiff", "-o", "new.raw"]);
    lab.ends(0, "vhd-diff", &["-q", "new.raw", &tuesday]);
    let said = lab.ends(2, "vhd-apply", &[&tuesday, "d.vhddiff"]);
    assert!(said.contains("managed disk"), "{said}");
    lab.check_secrets();
}
