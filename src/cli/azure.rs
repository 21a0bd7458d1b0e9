//! `vhd azure`: looks at the cloud without changing anything.

use clap::Subcommand;
use serde::Serialize;

use super::cloud;
use super::context::Context;
use super::exit::Outcome;
use super::output::Output;
use super::size::{Count, Size};
use crate::cloud::{Cloud, Family, Resource, ResourceName};
use crate::error::{Error, Result};

/// Look at managed disks in the cloud, and at what the identity may do with them.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:\n",
    "  vhd azure check azure:prod/web\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
}

/// Check whether a managed disk can be backed up: login, subscription, disk, snapshots, rights, network.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Nothing is changed, no access is granted: whether the bytes of a snapshot can be reached from here is found out only \
     when one is read. What isn't known is said. Exit code 1 if something is missing.\n\n",
    "Examples:\n",
    "  vhd azure check azure:prod/web\n",
    "  vhd azure check azure:prod/web --json | jq '.checks[] | select(.result != \"ok\")'\n\n",
    super::args::exit_codes!(),
))]
struct Check {
    /// The managed disk: azure:GROUP/DISK, or its resource id.
    #[arg(value_name = "DISK")]
    source: std::path::PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View {
    disk: String,
    checks: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    /// `ok`, `missing` or `unknown`.
    result: &'static str,
    found: String,
    hint: Option<String>,
}

/// The actions that a backup needs, and the jobs that need them.
const ACTIONS: [(&str, &str); 6] = [
    ("Microsoft.Compute/disks/read", "looking at the disk"),
    ("Microsoft.Compute/snapshots/read", "listing snapshots"),
    ("Microsoft.Compute/snapshots/write", "taking snapshots"),
    (
        "Microsoft.Compute/snapshots/beginGetAccess/action",
        "reading snapshots",
    ),
    (
        "Microsoft.Compute/snapshots/endGetAccess/action",
        "taking access back",
    ),
    (
        "Microsoft.Compute/snapshots/delete",
        "deleting old snapshots",
    ),
];

/// The most incremental snapshots that the service keeps of a disk.
const MOST: usize = 500;

/// The most snapshots of a disk to which access may be granted at a time.
const MOST_GRANTS: usize = 5;

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let Command::Check(args) = &args.command;
    if !cloud::is_name(&args.source) {
        return Err(Error::usage("this is not the name of a managed disk")
            .with_path(&args.source)
            .with_expected("azure:GROUP/DISK, or a resource id"));
    }
    let name = cloud::name(&args.source)?;
    let checks = check(&*cloud::cloud()?, &name);
    let bad = checks.iter().any(|check| check.result == "missing");
    let mut output = Output::text()?;
    if args.json {
        output.json(&View {
            disk: args.source.to_string_lossy().into_owned(),
            checks,
        })?;
    } else if !context.quiet() || bad {
        for check in &checks {
            let Finding {
                what,
                result,
                found,
                ..
            } = check;
            output.line(format_args!("{result:<8}{what:<14}{found}"))?;
            if let Some(hint) = &check.hint {
                output.line(format_args!("{:<22}{hint}", ""))?;
            }
        }
    }
    output.finish()?;
    Ok(if bad { Outcome::No } else { Outcome::Done })
}

fn ok(what: &'static str, found: impl std::fmt::Display) -> Finding {
    Finding {
        what,
        result: "ok",
        found: found.to_string(),
        hint: None,
    }
}

fn missing(what: &'static str, error: &Error) -> Finding {
    Finding {
        what,
        result: "missing",
        found: error.to_string(),
        hint: super::remedy::hint(error),
    }
}

/// One check after the other, as far as they go.
fn check(cloud: &Cloud, name: &ResourceName) -> Vec<Finding> {
    let mut all = Vec::new();
    match (cloud.endpoint(), cloud.login()) {
        (Ok(endpoint), Ok(identity)) => {
            all.push(ok("login", format_args!("{identity}, at {endpoint}")));
        }
        (Err(error), _) | (_, Err(error)) => {
            all.push(missing("login", &error));
            return all;
        }
    }
    let subscription = name.subscription().map_or_else(|| cloud.subscription(), Ok);
    let subscription = match subscription {
        Ok(id) => id.to_string(),
        Err(error) => {
            all.push(missing("subscription", &error));
            return all;
        }
    };
    let family = cloud.family(name);
    // Its name is only shown to be right by what is found in it.
    all.push(Finding {
        result: if family.is_ok() { "ok" } else { "unknown" },
        ..ok("subscription", subscription)
    });
    match family {
        Ok(family) => {
            of_disk(cloud, &family, &mut all);
            of_snapshots(&family, &mut all);
        }
        Err(error) => all.push(missing("disk", &error)),
    }
    all
}

fn of_disk(cloud: &Cloud, family: &Family, all: &mut Vec<Finding>) {
    let Some(disk) = &family.disk else {
        all.push(Finding {
            what: "disk",
            result: "missing",
            found: "it isn't there any more; its snapshots are".to_owned(),
            hint: None,
        });
        return;
    };
    let size = disk
        .size
        .map_or_else(|| "unknown size".to_owned(), |size| Size(size).to_string());
    all.push(ok(
        "disk",
        format_args!(
            "{size}, {}, in {}",
            disk.state.as_deref().unwrap_or("state unknown"),
            disk.location
        ),
    ));
    all.push(network(disk));
    let rights = match cloud.rights(disk) {
        Ok(rights) => rights,
        Err(error) => {
            all.push(Finding {
                what: "rights",
                result: "unknown",
                ..missing("rights", &error)
            });
            return;
        }
    };
    for (action, needed) in ACTIONS {
        all.push(if rights.allow(action) {
            ok("right", format_args!("{needed}: {action}"))
        } else {
            Finding {
                what: "right",
                result: "missing",
                found: format!("{needed}: {action}"),
                hint: Some("the role \"Disk Snapshot Contributor\" on the resource group has it for snapshots".to_owned()),
            }
        });
    }
}

/// Whether the settings of the disk let anybody read it through the network.
fn network(disk: &Resource) -> Finding {
    let policy = disk.network.as_deref().unwrap_or("AllowAll");
    let public = disk.public_network.as_deref().unwrap_or("Enabled");
    let found = format!("access {policy}, public network {public}");
    if policy.eq_ignore_ascii_case("DenyAll") {
        return Finding {
            what: "network",
            result: "missing",
            found,
            hint: Some(
                "snapshots of the disk can't be read: allow access in its network settings"
                    .to_owned(),
            ),
        };
    }
    if policy.eq_ignore_ascii_case("AllowPrivate") || public.eq_ignore_ascii_case("Disabled") {
        return Finding {
            what: "network",
            result: "unknown",
            found,
            hint: Some("snapshots can be read only through the private endpoint of the disk access: run the copy from its network".to_owned()),
        };
    }
    ok("network", found)
}

fn of_snapshots(family: &Family, all: &mut Vec<Finding>) {
    let count = family.snapshots.len();
    let pending = family
        .snapshots
        .iter()
        .filter(|one| !one.is_complete())
        .count();
    let text = format!(
        "{}, {pending} not complete; {} regular",
        Count(count as u64, "incremental snapshot"),
        family.regular.len()
    );
    all.push(if count < MOST {
        ok("snapshots", text)
    } else {
        Finding {
            what: "snapshots",
            result: "missing",
            found: text,
            hint: Some(format!(
                "the service keeps {MOST} of a disk at most: delete some before the next"
            )),
        }
    });
    let granted = family
        .snapshots
        .iter()
        .filter(|one| one.is_granted())
        .count();
    let text = format!("granted to {} now", Count(granted as u64, "snapshot"));
    all.push(if granted < MOST_GRANTS {
        ok("access", text)
    } else {
        Finding {
            what: "access",
            result: "missing",
            found: text,
            hint: Some(format!("the service grants access to {MOST_GRANTS} snapshots of a disk at a time: take some back, in the portal or with az")),
        }
    });
}
