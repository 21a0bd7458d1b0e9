//! `vhd snapshot family`: the cloud's snapshots of one disk, and which of them a store lacks.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Context, Count, Disk, Error, Outcome, Output, Result, Short, disks};
use crate::cli::message::{Topic, Warning};
use crate::cli::stdin::{self, Expected, STDIN};
use crate::cli::store_path::STORE_VARIABLE;
use crate::error::quoted;
use crate::snapshot::{
    CloudLimit, CloudSnapshot, Family, LONGEST_LIST, families, limits, read_cloud_list,
};
use crate::storage::File;
use crate::text::shown;

/// List the cloud's incremental snapshots of one disk, and which ones a store lacks.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The list is what `az snapshot list -o json` or `Get-AzSnapshot | ConvertTo-Json -Depth 5` prints. Incremental \
     snapshots are of one disk when their source resource ids and source unique ids are the same: a disk that was \
     deleted and made again under its name has another unique id. They are shown in the order in which they were made, \
     which is the order in which they must be copied. A snapshot is in the store if the disk there has one of that \
     name. What the service's limits mean for them is printed to stderr.\n\n\
     If the list has snapshots of several disks, choose with --source-resource-id or --source-unique-id; with --disk, the \
     ids that the store knows choose.\n\n",
    "Examples:\n",
    "  az snapshot list -o json | vhd snapshot family -\n",
    "  vhd snapshot family list.json --source-unique-id 7f1e9a52-0d3c-4b68-9d5e-2f6a1c8b4e70\n",
    "  vhd snapshot family list.json --store /backup --disk web --json | jq -r '.missing[]'\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The list; - is stdin.
    #[arg(value_name = "FILE")]
    list: PathBuf,
    /// Only snapshots of this disk: its resource id (`SourceResourceId`), or the end of it, such as the name of the
    /// disk.
    #[arg(long, value_name = "ID")]
    source_resource_id: Option<String>,
    /// Only snapshots of this disk instance (`SourceUniqueId`).
    #[arg(long, value_name = "ID")]
    source_unique_id: Option<String>,
    /// The store that may lack some of them.
    #[arg(long, value_name = "DIR", env = STORE_VARIABLE, hide_env_values = true)]
    store: Option<PathBuf>,
    /// The disk there.
    #[arg(long, value_name = "NAME", requires = "store")]
    disk: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The contents of the store.
struct Stored {
    family: Family,
    names: Vec<String>,
}

#[derive(Serialize)]
struct View {
    source_resource_id: Option<String>,
    source_unique_id: Option<String>,
    snapshots: Vec<PointView>,
    /// The names of those that the store lacks, in the order in which they must be added.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Vec<String>>,
    warnings: Vec<Warning>,
}

#[derive(Serialize)]
struct PointView {
    name: String,
    id: Option<String>,
    time: String,
    virtual_size: Option<u64>,
    completion_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_store: Option<bool>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let (bytes, path) = read(&args.list)?;
    let list = read_cloud_list(&bytes, &path)?;
    drop(bytes);
    let stored = stored(args, context)?;
    let (family, all) =
        choose(args, list, stored.as_ref(), context).map_err(|e| e.with_path(path))?;
    let view = view(&family, &all, stored.as_ref());
    // With --json they are part of the document.
    let told = view
        .warnings
        .iter()
        .filter(|_| !(args.json && context.quiet()));
    for warning in told {
        context.warn_of(warning);
    }
    let mut output = Output::text()?;
    if args.json {
        output.json(&view)?;
    } else {
        text(&view, &mut output)?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}

fn read(list: &Path) -> Result<(Vec<u8>, PathBuf)> {
    let mut bytes = Vec::new();
    let file;
    let (path, reader): (PathBuf, Box<dyn io::Read + '_>) = if list == Path::new("-") {
        (STDIN.into(), Box::new(stdin::open(Expected::List)?))
    } else {
        // Refuses pipes, which would wait for their writers.
        file = File::open(list)?;
        (list.to_path_buf(), Box::new(file.reader()))
    };
    reader
        .take(LONGEST_LIST + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io("cannot read the list", e).with_path(&path))?;
    if bytes.len() as u64 > LONGEST_LIST {
        return Err(Error::damaged("this is too long for a list of snapshots")
            .with_path(path)
            .with_expected(format_args!("at most {LONGEST_LIST} bytes")));
    }
    Ok((bytes, path))
}

/// The contents of the store's disk, if one is given. It may be new.
fn stored(args: &Args, context: &Context) -> Result<Option<Stored>> {
    let (Some(store), Some(name)) = (&args.store, &args.disk) else {
        return Ok(None);
    };
    crate::snapshot::check_disk_name(name)?;
    if !disks(store)?.contains(name) {
        context.note(format_args!(
            "{}: there is no disk {name} yet: the store lacks all of them",
            shown(&store)
        ));
        return Ok(Some(Stored {
            family: Family::default(),
            names: Vec::new(),
        }));
    }
    let mut disk = Disk::look(store, name)?;
    if let Some(error) = disk.take_damaged().pop() {
        return Err(error);
    }
    let points = disk.points();
    let families = points.iter().map(|point| &point.family);
    Ok(Some(Stored {
        family: families
            .clone()
            .try_fold(Family::default(), |known, family| known.join(family))?,
        names: points.iter().map(|point| point.name.clone()).collect(),
    }))
}

/// Chooses the family.
fn choose(
    args: &Args,
    list: Vec<CloudSnapshot>,
    stored: Option<&Stored>,
    context: &Context,
) -> Result<(Family, Vec<CloudSnapshot>)> {
    let listed = list.len();
    let all = families(list);
    let found = all.len();
    let said = Family {
        source_resource_id: match &args.source_resource_id {
            Some(id) => Some(whole_id(id, &all)?),
            None => None,
        },
        source_unique_id: args.source_unique_id.clone(),
    };
    let args_ids = &said.clone();
    // If the command line and the store contradict each other, reports both ids.
    let wanted = match stored {
        Some(stored) => stored.family.join(&said)?,
        None => said,
    };
    let full = listed - all.iter().map(|(_, all)| all.len()).sum::<usize>();
    if full > 0 {
        context.note(format_args!(
            "{} not incremental and omitted",
            if full == 1 {
                "1 snapshot is".to_owned()
            } else {
                format!("{full} snapshots are")
            }
        ));
    }
    // A requested id must exist; one that is merely unknown says nothing.
    let fits = |family: &Family| {
        let has =
            |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || found.is_some();
        has(&args.source_resource_id, &family.source_resource_id)
            && has(&args.source_unique_id, &family.source_unique_id)
            && wanted.join(family).is_ok()
    };
    let others: Vec<(Family, usize)> = all
        .iter()
        .map(|(family, all)| (family.clone(), all.len()))
        .collect();
    let mut all: Vec<_> = all.into_iter().filter(|(family, _)| fits(family)).collect();
    match (all.len(), all.pop()) {
        (1, Some(one)) => Ok(one),
        (_, None) if found == 0 => Err(Error::usage("the list has no incremental snapshot")
            .with_found(Count(listed as u64, "snapshot"))
            .with_hint("is it the whole list, of the right subscription and resource group? az snapshot list -o json")),
        (_, None) => {
            for (family, all) in &others {
                context.note(family_line(family, *all));
            }
            Err(
                Error::usage("the list has no incremental snapshot of this disk")
                    .with_found(Count(found as u64, "other disk"))
                    .with_hint(if *args_ids == Family::default() {
                        "the ids are those of the disk in the store: specify the right one with --disk".to_owned()
                    } else {
                        choose_hint(args, others.first().map(|(family, _)| family))
                    }),
            )
        }
        (several, Some(last)) => {
            all.push(last);
            for (family, all) in &all {
                context.note(family_line(family, all.len()));
            }
            Err(Error::usage("the list has snapshots of several disks")
                .with_found(Count(several as u64, "disk"))
                .with_hint(choose_hint(args, all.first().map(|(family, _)| family))))
        }
    }
}

/// How to choose one of the disks, with the ids of the first.
fn choose_hint(args: &Args, first: Option<&Family>) -> String {
    let id = first.and_then(|family| {
        let unique = family.source_unique_id.as_deref();
        let unique = unique.map(|id| ("--source-unique-id", id));
        let resource = family.source_resource_id.as_deref();
        unique.or(resource.map(|id| ("--source-resource-id", id)))
    });
    match id {
        Some((option, id)) => format!(
            "choose one by its id, as in: vhd snapshot family {} {option} {}",
            quoted(&args.list),
            quoted(id)
        ),
        None => "choose one: --source-unique-id ID, or --source-resource-id ID".to_owned(),
    }
}

/// Completes a resource id: it may be the whole id, or the end of one, such as the disk's name.
fn whole_id(said: &str, all: &[(Family, Vec<CloudSnapshot>)]) -> Result<String> {
    let ids = all
        .iter()
        .filter_map(|(family, _)| family.source_resource_id.as_deref());
    let ends = |id: &&str| {
        let part = id.len().checked_sub(said.len()).and_then(|at| id.get(at..));
        let whole = id.len() == said.len();
        let before = id.len().checked_sub(said.len() + 1);
        let at_part = before.and_then(|at| id.as_bytes().get(at)) == Some(&b'/');
        part.is_some_and(|part| part.eq_ignore_ascii_case(said)) && (whole || at_part)
    };
    let mut found: Vec<&str> = ids.filter(ends).collect();
    found.dedup_by(|a, b| a.eq_ignore_ascii_case(b));
    match found.as_slice() {
        [] => Ok(said.to_owned()),
        [one] => Ok((*one).to_owned()),
        [first, ..] if found.iter().all(|id| id.eq_ignore_ascii_case(first)) => {
            Ok((*first).to_owned())
        }
        [first, ..] => Err(Error::usage("several disks in the list have this name")
            .with_field("source resource id")
            .with_found(found.join(", "))
            .with_hint(format!(
                "give the whole id, as in --source-resource-id {}",
                quoted(first)
            ))),
    }
}

fn family_line(family: &Family, count: usize) -> String {
    let show = |id: &Option<String>| id.as_deref().unwrap_or("unknown").to_owned();
    format!(
        "{} with source resource id {}, source unique id {}",
        Count(count as u64, "snapshot"),
        show(&family.source_resource_id),
        show(&family.source_unique_id)
    )
}

fn view(family: &Family, all: &[CloudSnapshot], stored: Option<&Stored>) -> View {
    let has = |stored: &Stored, listed: &CloudSnapshot| {
        let mut names = stored.names.iter();
        names.any(|name| name.eq_ignore_ascii_case(&listed.name))
    };
    let there: Vec<bool> = all
        .iter()
        .map(|listed| stored.is_some_and(|stored| has(stored, listed)))
        .collect();
    let last_there = there.iter().rposition(|there| *there);
    let late = |at: usize| last_there.is_some_and(|last| at < last);
    let lacking = || {
        let all = all.iter().zip(&there).enumerate();
        all.filter(|(_, (_, there))| stored.is_some() && !**there)
            .map(|(at, (listed, _))| (listed.name.as_str(), late(at)))
    };
    let missing: Vec<&str> = lacking()
        .filter_map(|(name, late)| (!late).then_some(name))
        .collect();
    let of_limit = |(limit, text): (CloudLimit, String)| {
        let topic = match limit {
            CloudLimit::Incomplete => Topic::Incomplete,
            CloudLimit::Size => Topic::SizeChanged,
            CloudLimit::Access => Topic::AccessLimit,
            CloudLimit::Snapshots => Topic::SnapshotLimit,
        };
        Warning::new(topic, text)
    };
    let mut warnings: Vec<Warning> = limits(all, &missing).into_iter().map(of_limit).collect();
    warnings.extend(lacking().filter(|(_, late)| *late).map(|(name, _)| {
        Warning::new(
            Topic::TooLate,
            format_args!(
                "{name}: the store already has a later one, so this one can't be added any more"
            ),
        )
    }));
    View {
        source_resource_id: family.source_resource_id.clone(),
        source_unique_id: family.source_unique_id.clone(),
        missing: stored.map(|_| missing.iter().map(|name| (*name).to_owned()).collect()),
        snapshots: all
            .iter()
            .zip(&there)
            .map(|(listed, there)| PointView {
                name: listed.name.clone(),
                id: listed.id.clone(),
                time: listed.time.to_string(),
                virtual_size: listed.size,
                completion_percent: listed.completion_percent,
                in_store: stored.map(|_| *there),
            })
            .collect(),
        warnings,
    }
}

fn text(view: &View, output: &mut Output) -> Result<()> {
    let width =
        |head: &str, lengths: &mut dyn Iterator<Item = usize>| lengths.fold(head.len(), usize::max);
    let names: Vec<String> = view
        .snapshots
        .iter()
        .map(|point| shown(&point.name).to_string())
        .collect();
    let name_width = width("NAME", &mut names.iter().map(String::len));
    let time_width = width("TIME", &mut view.snapshots.iter().map(|p| p.time.len()));
    let stored = view.missing.is_some();
    let mut row = |[name, time, size, done, there]: [&str; 5]| {
        let line = format!("{name:<name_width$}  {time:<time_width$}  {size:>10}  {done:>8}");
        if stored {
            output.line(format_args!("{line}  {there}"))
        } else {
            output.line(line)
        }
    };
    row(["NAME", "TIME", "SIZE", "COMPLETE", "IN STORE"])?;
    for (point, name) in view.snapshots.iter().zip(&names) {
        let size = point
            .virtual_size
            .map_or_else(|| "?".to_owned(), |size| Short(size).to_string());
        let done = point.completion_percent;
        let done = done.map_or_else(|| "?".to_owned(), |percent| format!("{percent} %"));
        let there = if point.in_store == Some(true) {
            "yes"
        } else {
            "no"
        };
        row([name, &point.time, &size, &done, there])?;
    }
    let count = Count(view.snapshots.len() as u64, "snapshot");
    match &view.missing {
        None => output.line(count),
        Some(missing) => output.line(format_args!(
            "{count}, of which {} are to be added to the store",
            missing.len()
        )),
    }
}
