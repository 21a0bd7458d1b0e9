//! This program as a client: managed disks and snapshots by their names, and access that is always taken back.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::cloud_lab::{Lab, noise};

const MIB: usize = 1 << 20;

/// A disk of 4 MiB with two snapshots, and what each holds, in files.
fn two_snapshots(lab: &Lab) {
    let mut bytes = noise(1, 4 * MIB);
    bytes[MIB..2 * MIB].fill(0);
    let disk = lab.disk("web", &bytes);
    lab.snapshot(&disk, "mon");
    fs::write(lab.path("mon.raw"), &bytes).unwrap();
    let change = noise(2, 8192);
    lab.write(&disk, 2 * MIB as u64, &change);
    bytes[2 * MIB..][..8192].copy_from_slice(&change);
    lab.snapshot(&disk, "tue");
    fs::write(lab.path("tue.raw"), &bytes).unwrap();
}

fn hash(lab: &Lab, image: &str) -> String {
    let text = lab.good(&format!("vhd hash {image}"));
    text.split(' ').next().unwrap().to_owned()
}

/// Every command that reads an image reads a snapshot, and gives the same answers as for a file with the same bytes.
#[test]
fn a_snapshot_is_read_by_its_name() {
    let lab = Lab::new();
    two_snapshots(&lab);
    let id = lab
        .cloud
        .find(&super::cloud_lab::name("azure:prod/tue"))
        .unwrap()
        .id;
    for (far, near) in [
        ("azure:prod/mon", "mon.raw"),
        (id.as_str(), "tue.raw"),
        ("azure:prod/snapshots/tue", "tue.raw"),
    ] {
        assert_eq!(hash(&lab, far), hash(&lab, near), "{far}");
        let info = lab.good(&format!("vhd info {far}"));
        assert!(info.contains("format                fixed"), "{info}");
        let map = lab.good(&format!("vhd map {far} --json"));
        assert!(map.contains("\"zero\""), "{map}");
        lab.good(&format!("vhd check {far}"));
        lab.assert_nothing_granted();
    }
    assert_eq!(hash(&lab, "azure:prod/web"), hash(&lab, "tue.raw"));
    lab.good("vhd convert azure:prod/tue copy.vhd");
    assert_eq!(hash(&lab, "copy.vhd"), hash(&lab, "tue.raw"));
    // The service tells what changed, so only that is read.
    let told = lab.good("vhd-diff azure:prod/mon azure:prod/tue -o far.vhddiff -v");
    assert!(told.contains("8192 bytes (8 KiB) updated"), "{told}");
    lab.good("vhd-apply mon.raw far.vhddiff -o applied.raw");
    assert_eq!(
        fs::read(lab.path("applied.raw")).unwrap(),
        fs::read(lab.path("tue.raw")).unwrap()
    );
    lab.good("vhd-apply azure:prod/mon far.vhddiff -o again.raw");
    assert_eq!(
        fs::read(lab.path("again.raw")).unwrap(),
        fs::read(lab.path("tue.raw")).unwrap()
    );
    lab.assert_nothing_granted();
}

/// However a command ends, access is taken back; after a kill, by the next one.
#[test]
fn access_is_taken_back_however_a_command_ends() {
    let lab = Lab::new();
    two_snapshots(&lab);
    // An error after access was granted.
    fs::write(lab.path("taken.raw"), "x").unwrap();
    let (code, text) = lab.run("vhd convert -f raw -O raw azure:prod/mon taken.raw");
    assert_eq!(code, 2, "{text}");
    lab.assert_nothing_granted();
    let slow = |signal: &str| {
        let mut child = lab
            .command("vhd")
            .args([
                "convert",
                "azure:prod/mon",
                "slow.vhd",
                "--limit-rate",
                "256K",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until(|| {
            lab.cloud
                .find(&super::cloud_lab::name("azure:prod/mon"))
                .unwrap()
                .is_granted()
        });
        let id = child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
        let status = child.wait().unwrap();
        let output = child.wait_with_output().unwrap();
        (status, lab.printed(&output).1)
    };
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let (status, text) = slow(signal);
        assert_eq!(status.code(), Some(code), "{text}");
        assert!(text.contains("revoking the access"), "{text}");
        lab.assert_nothing_granted();
    }
    let (status, _) = slow("-KILL");
    assert_eq!(status.code(), None);
    let granted = lab
        .cloud
        .find(&super::cloud_lab::name("azure:prod/mon"))
        .unwrap();
    assert!(granted.is_granted());
    let text = lab.good("vhd info azure:prod/tue");
    assert!(text.contains("has been taken back"), "{text}");
    lab.assert_nothing_granted();
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Access that somebody else was granted stays: it isn't this program's to take back.
#[test]
fn access_of_others_is_left_to_them() {
    let lab = Lab::new();
    two_snapshots(&lab);
    let found = lab
        .cloud
        .find(&super::cloud_lab::name("azure:prod/mon"))
        .unwrap();
    let theirs = lab
        .cloud
        .open(&found, vhdkit::cloud::Access::Read, "theirs".as_ref())
        .unwrap();
    let text = lab.good("vhd hash azure:prod/mon");
    assert!(text.contains("had been granted to somebody else"), "{text}");
    assert!(lab.cloud.refresh(&found).unwrap().is_granted());
    drop(theirs);
    lab.assert_nothing_granted();
}

/// Whatever is wrong with a name is told in one line, with what to do.
#[test]
fn what_is_wrong_with_a_name_is_told() {
    let mut lab = Lab::new();
    two_snapshots(&lab);
    lab.disk("mon", &noise(3, MIB));
    for (image, said) in [
        (
            "azure:prod/nothing",
            "there is no disk or snapshot of this name",
        ),
        (
            "azure:prod/snapshots/web",
            "there is no snapshot of this name",
        ),
        (
            "azure:prod/mon",
            "both a disk and a snapshot have this name",
        ),
        ("azure:prod", "this is not the name of a disk or snapshot"),
        (
            "azure:prod/vms/x",
            "this is not the name of a disk or snapshot",
        ),
    ] {
        let (code, text) = lab.run(&format!("vhd info {image}"));
        assert!(
            code == 2 && text.contains(said) && text.contains("hint: "),
            "{image}: {text}"
        );
    }
    let (code, text) = lab.run("vhd apply azure:prod/tue x.vhddiff");
    assert!(
        code == 2 && text.contains("can't be changed in place"),
        "{text}"
    );
    lab.set(
        "AZURE_SUBSCRIPTION_ID",
        "11111111-2222-3333-4444-555555555555",
    );
    let (code, text) = lab.run("vhd info azure:prod/tue");
    assert!(
        code == 2
            && text.contains("SubscriptionNotFound")
            && text.contains("AZURE_SUBSCRIPTION_ID names"),
        "{text}"
    );
    lab.set("AZURE_SUBSCRIPTION_ID", "");
    lab.good("vhd info azure:prod/tue");
    lab.set("AZURE_CLIENT_SECRET", "wrong");
    let (code, text) = lab.run("vhd info azure:prod/tue");
    assert!(code == 2 && text.contains("cannot get a token"), "{text}");
    lab.set("AZURE_RESOURCE_MANAGER_ENDPOINT", "http://example.org");
    let (code, text) = lab.run("vhd info azure:prod/tue");
    assert!(
        code == 2 && text.contains("is not an https address"),
        "{text}"
    );
}

/// Access that ends while a disk is read is granted again.
#[test]
fn access_that_expires_is_granted_again() {
    use vhdkit::storage::ReadAt as _;
    let lab = Lab::new();
    two_snapshots(&lab);
    let found = |name: &str| lab.cloud.find(&super::cloud_lab::name(name)).unwrap();
    let (mon, tue) = (found("azure:prod/mon"), found("azure:prod/tue"));
    let open = |one| {
        lab.cloud
            .open(one, vhdkit::cloud::Access::Read, "it".as_ref())
            .unwrap()
    };
    let (before, after) = (open(&mon), open(&tue));
    for one in [&mon, &tue] {
        lab.cloud.revoke(one).unwrap();
    }
    let mut bytes = vec![0; MIB];
    before.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, fs::read(lab.path("mon.raw")).unwrap()[..MIB]);
    lab.cloud.revoke(&tue).unwrap();
    // The other address is the new one, too.
    let since = vhdkit::blob::Since::Disk(Box::new(before.granted().unwrap().clone()));
    assert_eq!(after.changes_since(&since).unwrap().iter().count(), 1);
    drop((before, after));
    lab.assert_nothing_granted();
}
