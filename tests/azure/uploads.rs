//! Images and points in time as new managed disks: written through access that is always revoked, or made by the service.

use std::fs;
use std::io::{BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vhdkit::cloud::{Access, ResourceKind};

use super::cloud_lab::{Lab, name, noise};

const MIB: usize = 1 << 20;

/// A disk of 4 MiB with a hole and 512 bytes more, as a file and in a store; a group to create disks in.
fn lab() -> Lab {
    let lab = Lab::new();
    let mut bytes = noise(4, 4 * MIB + 512);
    bytes[MIB..3 * MIB].fill(0);
    fs::write(lab.path("disk.raw"), &bytes).unwrap();
    lab.disk("other", &noise(1, MIB));
    lab.good("vhd snapshot create --store shelf --init --disk web --name mon disk.raw");
    lab
}

fn find(lab: &Lab, disk: &str) -> Option<vhdkit::cloud::Resource> {
    lab.cloud.get(&name(disk), ResourceKind::Disk).unwrap()
}

/// The disk holds the image, and zeros up to a whole MiB; nothing is granted, and nothing marks it as incomplete.
#[track_caller]
fn assert_uploaded(lab: &Lab, disk: &str) {
    let _ = fs::remove_file(lab.path("back.raw"));
    lab.good(&format!("vhd convert {disk} back.raw"));
    let mut expected = fs::read(lab.path("disk.raw")).unwrap();
    expected.resize(5 * MIB, 0);
    assert!(
        fs::read(lab.path("back.raw")).unwrap() == expected,
        "{disk}"
    );
    assert!(lab.good(&format!("vhd info {disk}")).contains("fixed"));
    let found = find(lab, disk).unwrap();
    assert!(!found.is_granted() && found.tags.is_empty(), "{found:?}");
    assert_eq!(found.state.as_deref(), Some("Unattached"));
    lab.assert_nothing_granted();
}

#[test]
fn an_image_becomes_a_managed_disk() {
    let lab = lab();
    let told = lab.good("vhd convert disk.raw azure:prod/a --verify -v");
    assert!(
        told.contains("to make whole MiB") && told.contains("a managed disk"),
        "{told}"
    );
    assert_uploaded(&lab, "azure:prod/a");
    // Only the data was written.
    let map = lab.good("vhd map azure:prod/a --json");
    assert!(map.contains("\"zero\""), "{map}");
    lab.good("vhd snapshot restore --store shelf web@mon -o azure:prod/b");
    assert_uploaded(&lab, "azure:prod/b");
    lab.good("vhd convert shelf::web@mon azure:prod/disks/c --json");
    assert_uploaded(&lab, "azure:prod/c");
    // The service makes a disk of its own snapshot itself.
    lab.good("vhd snapshot create --store azure:prod/a --name tue");
    let told = lab.good("vhd snapshot restore --store azure:prod/a tue -o azure:prod/d");
    assert!(told.contains("from a@tue"), "{told}");
    assert_uploaded(&lab, "azure:prod/d");
    assert_eq!(
        find(&lab, "azure:prod/d").unwrap().create_option.as_deref(),
        Some("Copy")
    );
    // A disk that is there is never overwritten.
    for line in [
        "vhd convert disk.raw azure:prod/a",
        "vhd snapshot restore --store shelf web@mon -o azure:prod/a",
        "vhd snapshot restore --store azure:prod/a tue -o azure:prod/a",
    ] {
        let (code, text) = lab.run(line);
        assert!(
            code == 2 && text.contains("there is a disk of this name already"),
            "{line}: {text}"
        );
        assert_uploaded(&lab, "azure:prod/a");
    }
}

#[test]
fn what_cannot_become_a_managed_disk_is_told() {
    let mut lab = lab();
    for (line, said, hint) in [
        (
            "vhd convert disk.raw azure:nothing/a",
            "there is no resource group of this name",
            "az group create -n nothing",
        ),
        (
            "vhd convert disk.raw azure:prod",
            "not the name of a disk or snapshot",
            "azure:GROUP/NAME",
        ),
        (
            "vhd convert disk.raw azure:prod/snapshots/a",
            "can't be created as a snapshot",
            "azure:prod/a",
        ),
        (
            "vhd convert disk.raw azure:prod/a --dense",
            "--dense",
            "omit --dense",
        ),
        (
            "vhd convert disk.raw azure:prod/a -O dynamic",
            "-O dynamic",
            "omit -O",
        ),
        (
            "vhd convert disk.raw azure:prod/a --force",
            "--force",
            "omit --force",
        ),
        (
            "vhd snapshot restore --store shelf web@mon -o azure:prod/a --force",
            "--force",
            "omit --force",
        ),
        (
            "vhd snapshot restore --store shelf web@mon -o azure:prod/a --in-place",
            "--in-place",
            "omit --in-place",
        ),
    ] {
        let (code, text) = lab.run(line);
        assert!(
            code == 2 && text.contains(said) && text.contains("hint: ") && text.contains(hint),
            "{line}: {code} {text}"
        );
        assert!(find(&lab, "azure:prod/a").is_none(), "{line}");
    }
    // A store whose data is damaged leaves no disk.
    let data = super::names_in(&lab.path("shelf"))
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&data, bytes).unwrap();
    let (code, text) = lab.run("vhd snapshot restore --store shelf web@mon -o azure:prod/a");
    assert!(
        code == 3 && find(&lab, "azure:prod/a").is_none(),
        "{code} {text}"
    );
    lab.assert_nothing_granted();
    let good = lab.server.as_ref().unwrap().identity().subscription.clone();
    lab.set(
        "AZURE_SUBSCRIPTION_ID",
        "11111111-2222-3333-4444-555555555555",
    );
    let (code, text) = lab.run("vhd convert disk.raw azure:prod/a");
    assert!(code == 2 && text.contains("SubscriptionNotFound"), "{text}");
    lab.set("AZURE_SUBSCRIPTION_ID", &good);
    lab.good("vhd convert disk.raw azure:prod/a");
    assert_uploaded(&lab, "azure:prod/a");
}

/// Whatever interrupts an upload, its access is taken back, and the same command replaces what it left.
#[test]
fn an_interrupted_upload_is_replaced() {
    let lab = lab();
    let line = "vhd convert disk.raw azure:prod/a --limit-rate 256K";
    for (signal, code) in [("-INT", Some(130)), ("-TERM", Some(143)), ("-KILL", None)] {
        let mut words = line.split(' ');
        let mut child = lab
            .command(words.next().unwrap())
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while !find(&lab, "azure:prod/a").is_some_and(|disk| disk.is_granted()) {
            assert!(begun.elapsed() < Duration::from_secs(60));
            assert!(child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(10));
        }
        let sent = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let mut text = String::new();
        BufReader::new(child.stderr.take().unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), code, "{text}");
        lab.check_secrets(&text);
        if code.is_some() {
            assert!(
                text.contains("tagged as incomplete") && text.contains("which replaces it"),
                "{text}"
            );
        } else {
            let told = lab.good("vhd info azure:prod/other");
            assert!(told.contains("has been taken back"), "{told}");
        }
        lab.assert_nothing_granted();
        let left = find(&lab, "azure:prod/a").unwrap();
        assert!(
            !left.is_granted() && left.tags.contains_key("vhdkit-upload"),
            "{left:?}"
        );
    }
    // While another command writes to it, it isn't replaced.
    let left = find(&lab, "azure:prod/a").unwrap();
    let far = lab.cloud.open(&left, Access::Write, "it".as_ref()).unwrap();
    let (code, text) = lab.run("vhd convert disk.raw azure:prod/a");
    assert!(
        code == 5 && text.contains("isn't complete, and the disk is in use"),
        "{text}"
    );
    drop(far);
    lab.good("vhd convert disk.raw azure:prod/a");
    assert_uploaded(&lab, "azure:prod/a");
    assert_ne!(
        find(&lab, "azure:prod/a").unwrap().unique_id,
        left.unique_id
    );
}
