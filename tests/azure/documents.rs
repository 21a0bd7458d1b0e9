//! The JSON of the commands on managed disks and on containers against its tables in docs/json.md.

use std::fs;

use serde_json::Value;

use super::cloud_lab::{Lab, noise};
use super::json_tables::{check_document, tables};
use super::managed::make_container;

/// Commands in this order, and how they end. The heading of the table is the command without its arguments, and of what.
const COMMANDS: &[(&str, &str, i32)] = &[
    (
        "vhd snapshot create of a managed disk",
        "vhd snapshot create --store azure:prod/web --name mon --json",
        0,
    ),
    (
        "vhd snapshot create of a managed disk",
        "vhd snapshot create --store azure:prod/web --name mon --json",
        2,
    ),
    (
        "vhd snapshot list of a managed disk",
        "vhd snapshot list --store azure:prod/web --json",
        0,
    ),
    (
        "vhd snapshot list of a managed disk",
        "vhd snapshot list --store azure:prod/none --json",
        2,
    ),
    (
        "vhd snapshot show of a managed disk",
        "vhd snapshot show --store azure:prod/web --json",
        0,
    ),
    (
        "vhd snapshot copy of a managed disk",
        "vhd snapshot copy --store azure:prod/web --to s --init --dry-run --json",
        0,
    ),
    (
        "vhd snapshot copy of a managed disk",
        "vhd snapshot copy --store azure:prod/web --to s --init --json",
        0,
    ),
    (
        "vhd snapshot copy --managed of a managed disk",
        "vhd snapshot copy --managed --store azure:prod/web --to azure:dr --dry-run --json",
        0,
    ),
    (
        "vhd snapshot restore of a managed disk",
        "vhd snapshot restore --store azure:prod/web mon -o mon.raw --json",
        0,
    ),
    (
        "vhd snapshot restore of a managed disk",
        "vhd snapshot restore --store azure:prod/web mon -o azure:prod/new --json",
        0,
    ),
    (
        "vhd convert",
        "vhd convert mon.raw azure:prod/newer --json",
        0,
    ),
    (
        "vhd backup",
        "vhd backup azure:prod/web --to s --name tue --keep-last 1 --json",
        0,
    ),
    ("vhd backup", "vhd backup azure:prod/none --to s --json", 2),
    (
        "vhd snapshot diff",
        "vhd snapshot diff --store azure:prod/web mon tue --json",
        0,
    ),
    (
        "vhd snapshot diff",
        "vhd snapshot diff --store azure:prod/web mon tue -o d1 --json",
        0,
    ),
    (
        "vhd snapshot prune of a managed disk",
        "vhd snapshot prune --store azure:prod/web --keep-last 1 --dry-run --json",
        0,
    ),
    (
        "vhd snapshot delete of a managed disk",
        "vhd snapshot delete --store azure:prod/web mon --json",
        0,
    ),
    (
        "vhd azure check",
        "vhd azure check azure:prod/web --json",
        0,
    ),
    (
        "vhd snapshot copy of a container",
        "vhd snapshot copy --store s --to SHELF --json",
        0,
    ),
    (
        "vhd snapshot create of a container",
        "vhd snapshot create --store SHELF --disk web --name wed mon.raw --json",
        0,
    ),
    (
        "vhd snapshot create of a container",
        "vhd snapshot create --store SHELF --disk web --name wed mon.raw --json",
        2,
    ),
    (
        "vhd snapshot list of a container",
        "vhd snapshot list --store SHELF --json",
        0,
    ),
    (
        "vhd snapshot show of a container",
        "vhd snapshot show --store SHELF --json",
        0,
    ),
    (
        "vhd snapshot diff",
        "vhd snapshot diff --store SHELF tue wed --json",
        0,
    ),
    (
        "vhd snapshot tag of a container",
        "vhd snapshot tag --store SHELF wed --set why=test --json",
        0,
    ),
    (
        "vhd snapshot hold of a container",
        "vhd snapshot hold --store SHELF wed --json",
        0,
    ),
    (
        "vhd snapshot verify of a container",
        "vhd snapshot verify --store SHELF --json",
        0,
    ),
    (
        "vhd snapshot verify of a container",
        "vhd snapshot verify --store SHELF --read-data --json",
        0,
    ),
    (
        "vhd snapshot restore of a container",
        "vhd snapshot restore --store SHELF wed -o wed.raw --json",
        0,
    ),
    (
        "vhd snapshot prune of a container",
        "vhd snapshot prune --store SHELF --keep-last 1 --dry-run --json",
        0,
    ),
    (
        "vhd snapshot delete of a container",
        "vhd snapshot delete --store SHELF none --json",
        2,
    ),
    (
        "vhd snapshot delete of a container",
        "vhd snapshot delete --store SHELF tue --json",
        0,
    ),
];

#[test]
fn the_tables_describe_what_the_commands_on_the_cloud_print() {
    let mut lab = Lab::new();
    lab.disk("web", &noise(3, 4 << 20));
    super::copies::group(&lab, "azure:dr/other", "westus");
    let server = lab.server.as_ref().unwrap();
    let shelf = format!("{}/local/shelf", server.root());
    let key = server.identity().account_key.clone();
    let authority = fs::read(server.authority()).unwrap();
    make_container(&shelf, &key, authority);
    lab.set("AZURE_STORAGE_ACCOUNT", "local");
    lab.set("AZURE_STORAGE_KEY", &key);
    let tables = tables();
    let mut wrong = Vec::new();
    for (heading, command, code) in COMMANDS {
        let line = command.replace("SHELF", &shelf);
        let mut words = line.split(' ');
        let mut program = lab.command(words.next().unwrap());
        let output = program.args(words).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let document = match serde_json::from_slice::<Value>(&output.stdout) {
            Ok(document) => document,
            Err(error) => {
                wrong.push(format!("{command}: {error}: {stderr}"));
                continue;
            }
        };
        if output.status.code() != Some(*code) || document["exit_code"] != *code {
            wrong.push(format!("{command}: ended with {}: {stderr}", output.status));
        }
        if !tables.contains_key(*heading) {
            wrong.push(format!("{heading} has no table: {document:#}"));
        }
        let found = check_document(&tables, heading, &document);
        wrong.extend(found.into_iter().map(|found| format!("{command}: {found}")));
    }
    let held = |heading: &&String| COMMANDS.iter().any(|(known, ..)| known == heading);
    let unheld = tables.keys().filter(|heading| heading.contains(" of a "));
    wrong.extend(
        unheld
            .filter(|heading| !held(heading))
            .map(|heading| format!("{heading}: no command")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
