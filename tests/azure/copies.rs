//! Copies of snapshots that the service makes in another region: in order, one at a time, followed to the end.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use vhdkit::cloud::{NewDisk, Resource};
use vhdkit::serve::azure::Options;

use super::cloud_lab::{Lab, name, noise};

const MIB: usize = 1 << 20;
const COPY: &str = "vhd snapshot copy --managed --store azure:prod/web --to azure:dr";

/// A disk with three snapshots, and a group in another region; what each snapshot holds is in files.
fn lab(copy_rate: Option<u64>) -> Lab {
    let lab = Lab::with(&Options {
        copy_rate,
        ..super::options()
    });
    let mut bytes = noise(1, 4 * MIB);
    let disk = lab.disk("web", &bytes);
    for (n, day) in ["mon", "tue", "wed"].iter().enumerate() {
        if n > 0 {
            let change = noise(n as u64 + 5, MIB);
            lab.write(&disk, (n * MIB) as u64, &change);
            bytes[n * MIB..][..MIB].copy_from_slice(&change);
        }
        lab.snapshot(&disk, day);
        fs::write(lab.path(&format!("{day}.raw")), &bytes).unwrap();
    }
    group(&lab, "azure:dr/other", "westus");
    lab
}

/// A group comes with the first disk in it.
pub(crate) fn group(lab: &Lab, disk: &str, region: &str) {
    let new = NewDisk {
        region,
        bytes: (1 << 20) + 512,
        sku: None,
        tags: &BTreeMap::new(),
    };
    lab.cloud.create_disk(&name(disk), &new).unwrap();
}

fn json(text: &str) -> Value {
    let end = text.rfind("\n}").map_or(text.len(), |at| at + 2);
    serde_json::from_str(&text[text.find('{').unwrap()..end])
        .unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn states(told: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let copied = told["copied"].as_array().unwrap().iter();
    copied
        .map(|one| (text(&one["name"]), text(&one["state"])))
        .collect()
}

fn states_are(told: &Value, expected: &[(&str, &str)]) {
    let found = states(told);
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    assert_eq!(found, expected, "{told}");
}

fn copies(lab: &Lab) -> Vec<Resource> {
    let subscription = lab.server.as_ref().unwrap().identity().subscription.clone();
    let mut found = lab
        .cloud
        .snapshots(&subscription, Some("dr"))
        .unwrap_or_default();
    found.sort_by_key(|one| one.created);
    found
}

/// What is restored at the target is what the snapshot held, by name and as the snapshots of the disk there.
fn assert_restored(lab: &Lab, days: &[&str]) {
    for day in days {
        let expected = fs::read(lab.path(&format!("{day}.raw"))).unwrap();
        for line in [
            format!("vhd convert azure:dr/{day} back.raw"),
            format!("vhd snapshot restore --store azure:dr/web {day} -o back.raw"),
        ] {
            let _ = fs::remove_file(lab.path("back.raw"));
            lab.good(&line);
            assert!(
                fs::read(lab.path("back.raw")).unwrap() == expected,
                "{line}"
            );
        }
    }
    lab.assert_nothing_granted();
}

fn spawn(lab: &Lab, line: &str) -> Child {
    let mut words = line.split(' ');
    lab.command(words.next().unwrap())
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn the_service_copies_what_a_group_lacks() {
    let lab = lab(None);
    let told = json(&lab.good(&format!("{COPY} --dry-run --json")));
    states_are(
        &told,
        &[("mon", "planned"), ("tue", "planned"), ("wed", "planned")],
    );
    assert!(copies(&lab).is_empty());
    let told = json(&lab.good(&format!("{COPY} --json")));
    states_are(
        &told,
        &[
            ("mon", "complete"),
            ("tue", "complete"),
            ("wed", "complete"),
        ],
    );
    assert!(
        told["region"] == "westus" && told["group"] == "dr" && told["error"].is_null(),
        "{told}"
    );
    assert!(
        copies(&lab)
            .iter()
            .all(|one| one.location == "westus" && one.incremental)
    );
    assert_restored(&lab, &["mon", "tue", "wed"]);
    let again = lab.good(COPY);
    assert!(again.contains("nothing to copy"), "{again}");
    // Between copies only the changes are read, as between their sources; they are a store like the disk.
    let told = lab.good("vhd-diff azure:dr/mon azure:dr/tue -o far.vhddiff -v");
    assert!(told.contains("1 MiB) updated"), "{told}");
    let listed = json(&lab.good("vhd snapshot list --store azure:dr/web --json"));
    let changed: Vec<Option<u64>> = listed["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["changed_bytes"].as_u64())
        .collect();
    assert_eq!(changed, [None, Some(MIB as u64), Some(MIB as u64)]);
    lab.good("vhd snapshot copy --store azure:dr/web --to shelf --init");
    // What comes later is copied alone; what was deleted at the target isn't copied again.
    let disk = lab.cloud.find(&name("azure:prod/disks/web")).unwrap();
    lab.snapshot(&disk, "thu");
    lab.good("vhd snapshot delete --store azure:dr/web mon");
    let told = json(&lab.good(&format!("{COPY} --json")));
    states_are(&told, &[("thu", "complete")]);
    // A second region in the same group: the names are taken.
    let told = json(&lab.good(&format!("{COPY} --region northeurope --json")));
    states_are(
        &told,
        &[
            ("mon", "complete"),
            ("tue-northeurope", "complete"),
            ("wed-northeurope", "complete"),
            ("thu-northeurope", "complete"),
        ],
    );
    lab.assert_nothing_granted();
}

/// Whatever interrupts the command, the service goes on with the copy, and the next run follows it: one at a time, and the source
/// is needed until the end.
#[test]
fn an_interrupted_copy_is_followed() {
    let mut lab = lab(Some(4 << 10));
    for (signal, code) in [("-INT", Some(130)), ("-TERM", Some(143)), ("-KILL", None)] {
        let mut child = spawn(&lab, COPY);
        let mut told = BufReader::new(child.stderr.take().unwrap());
        let mut text = String::new();
        while !text.contains("% copied") {
            assert!(told.read_line(&mut text).unwrap() > 0, "{text}");
        }
        let id = child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.unwrap().success());
        told.read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), code, "{text}");
        lab.check_secrets(&text);
        if code.is_some() {
            for said in ["goes on in the cloud", "run the same command again"] {
                assert!(text.contains(said), "{text}");
            }
        }
        assert_eq!(under_way(&lab), 1);
    }
    let (code, text) = lab.run("vhd snapshot delete --store azure:prod/web mon");
    assert!(
        code == 5 && text.contains("is copying the snapshot") && text.contains("100 %"),
        "{text}"
    );
    let told = lab.good("vhd snapshot prune --store azure:prod/web --keep-last 1");
    assert!(told.contains("being copied"), "{told}");
    assert!(
        lab.cloud
            .get(
                &name("azure:prod/mon"),
                vhdkit::cloud::ResourceKind::Snapshot
            )
            .unwrap()
            .is_some()
    );
    let (code, text) = lab.run("vhd convert azure:dr/mon early.raw");
    assert!(code == 5 && text.contains("isn't complete yet"), "{text}");
    let told = lab.good(&format!("{COPY} --dry-run"));
    assert!(told.contains("the service is copying it"), "{told}");
    // The server goes on with it after a restart. There is never more than one at a time.
    lab.restart(super::options());
    let mut child = spawn(&lab, COPY);
    while child.try_wait().unwrap().is_none() {
        assert!(under_way(&lab) <= 1);
    }
    let (code, text) = lab.printed(&child.wait_with_output().unwrap());
    assert!(code == 0 && text.contains("complete, in westus"), "{text}");
    assert_restored(&lab, &["mon", "wed"]);
}

fn under_way(lab: &Lab) -> usize {
    let all = copies(lab);
    all.iter().filter(|one| one.is_being_copied()).count()
}

/// One message for each, and nothing is started.
#[test]
fn what_cannot_be_copied_is_told() {
    let lab = lab(None);
    for (line, code, said, hint) in [
        (
            format!("{COPY}/web"),
            2,
            "which this command doesn't take here",
            "azure:GROUP",
        ),
        (
            COPY.replace("azure:dr", "azure:nothing"),
            2,
            "there is no resource group of this name",
            "az group create -n nothing -l REGION",
        ),
        (
            COPY.replace("azure:dr", "shelf"),
            2,
            "not the name of a resource group",
            "azure:GROUP",
        ),
        (
            COPY.replace(" --managed", ""),
            2,
            "a resource group isn't a store",
            "--managed --store azure:prod/web --to azure:dr",
        ),
        (
            COPY.replace("azure:prod/web", "shelf"),
            2,
            "--managed",
            "omit --managed",
        ),
        (
            COPY.replace("azure:prod/web", "azure:prod/disks/nothing"),
            2,
            "no disk of this name",
            "check the names",
        ),
        (
            COPY.replace("azure:prod/web", "azure:dr/other"),
            2,
            "no incremental snapshot yet",
            "vhd snapshot create --store azure:dr/other",
        ),
        (format!("{COPY} --init"), 2, "--init", "omit --init"),
        (
            format!("{COPY} --check-changes 5"),
            2,
            "--check-changes",
            "omit --check-changes",
        ),
        (
            COPY.replace("azure:dr", "/subscriptions/0-1/resourceGroups/dr"),
            2,
            "SubscriptionNotFound",
            "AZURE_SUBSCRIPTION_ID",
        ),
    ] {
        let (found, text) = lab.run(&line);
        assert!(
            found == code && text.contains(said) && text.contains("hint: ") && text.contains(hint),
            "{line}: {found} {text}"
        );
    }
    let (code, text) =
        lab.run("vhd snapshot copy --store azure:prod/web --to shelf --region westus");
    assert!(code == 2 && text.contains("--managed"), "{text}");
    assert!(copies(&lab).is_empty());
    lab.assert_nothing_granted();
}
