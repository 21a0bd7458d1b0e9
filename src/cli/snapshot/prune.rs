//! `vhd snapshot prune`: thins out snapshots by rules.

use serde::Serialize;

use super::{
    Access, Context, Count, Disk, Error, Failures, LockArgs, Outcome, Output, Patience, Result,
    Short, StoreArgs, chosen, far, managed,
};
use crate::cli::document::ErrorView;
use crate::error::ErrorKind;
use crate::snapshot::{Amount, Decision, Policy, Pruned, TagRule, Within, Work, decide, prune};

/// Delete the snapshots that no rule keeps.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "A snapshot is kept if at least one rule keeps it; the newest is always kept, and so is one as which another disk \
     begins. Those that are kept don't change. \
     --keep-daily 7 keeps the newest snapshot of each of the last seven days that have one; days without a snapshot \
     aren't counted. So with hours, weeks, months and years. Periods are those of UTC, weeks begin on Monday (ISO 8601). \
     N may be unlimited. --keep-within 30d keeps what is less than 30 days older than the newest snapshot; y, m (months), \
     w, d and h may be put together, as in 1y6m.\n\n\
     Consecutive snapshots that go are folded at once into the next one that stays. An interrupted prune has deleted some of them; run the same command again to continue. A disk that \
     is in use, or can't be pruned, doesn't keep the others from being pruned.\n\n",
    "Examples:\n",
    "  vhd snapshot prune --store /backup --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run\n",
    "  vhd snapshot prune --store /backup --disk web --keep-within 30d --keep-yearly unlimited\n",
    "  vhd snapshot prune --store /backup --keep-last 10 --keep-tag keep=yes\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// Only this disk; may be given several times [default: all].
    #[arg(long, value_name = "NAME")]
    pub(super) disk: Vec<String>,
    /// Report what would be kept and deleted; delete nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) lock: LockArgs,
    #[command(flatten)]
    pub(super) rules: Rules,
}

// What is kept.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Rules")]
#[allow(clippy::struct_field_names, reason = "the names of the options")]
pub(crate) struct Rules {
    /// Keep the newest N.
    #[arg(long, value_name = "N", value_parser = parse::<Amount>)]
    keep_last: Option<Amount>,
    /// Keep the newest of each of the last N hours that have one.
    #[arg(long, value_name = "N", value_parser = parse::<Amount>)]
    keep_hourly: Option<Amount>,
    /// Keep the newest of each of the last N days that have one.
    #[arg(long, value_name = "N", value_parser = parse::<Amount>)]
    keep_daily: Option<Amount>,
    /// Keep the newest of each of the last N weeks that have one.
    #[arg(long, value_name = "N", value_parser = parse::<Amount>)]
    keep_weekly: Option<Amount>,
    /// Keep the newest of each of the last N months that have one.
    #[arg(long, value_name = "N", value_parser = parse::<Amount>)]
    keep_monthly: Option<Amount>,
    /// Keep the newest of each of the last N years that have one.
    #[arg(long, value_name = "N", value_parser = parse::<Amount>)]
    keep_yearly: Option<Amount>,
    /// Keep everything younger than this, counted back from the newest.
    #[arg(long, value_name = "TIME", value_parser = parse::<Within>)]
    keep_within: Option<Within>,
    /// Keep everything with this tag; may be given several times.
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = parse::<TagRule>)]
    keep_tag: Vec<TagRule>,
}

fn parse<T: std::str::FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

impl Rules {
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
            within: self.keep_within,
            tags: self.keep_tag.clone(),
        }
    }
}

#[derive(Serialize)]
struct View {
    dry_run: bool,
    disks: Vec<DiskView>,
}

#[derive(Serialize)]
struct DiskView {
    disk: String,
    kept_count: usize,
    deleted_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_used_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_size: Option<u64>,
    snapshots: Vec<PointView>,
    /// The error that kept the disk from being pruned completely.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
}

#[derive(Serialize)]
struct PointView {
    name: String,
    id: String,
    time: String,
    keep: bool,
    reasons: Vec<String>,
}

impl DiskView {
    fn failed(disk: String, error: &Error) -> Self {
        Self {
            disk,
            kept_count: 0,
            deleted_count: 0,
            old_used_size: None,
            used_size: None,
            snapshots: Vec::new(),
            error: Some(ErrorView::from(error)),
        }
    }

    fn new(disk: &Disk, decisions: &[Decision], pruned: Option<Pruned>) -> Self {
        let kept = decisions.iter().filter(|d| d.is_kept()).count();
        Self {
            disk: disk.name().to_owned(),
            kept_count: kept,
            deleted_count: decisions.len() - kept,
            old_used_size: pruned.map(|pruned| pruned.used[0]),
            used_size: pruned.map(|pruned| pruned.used[1]),
            snapshots: decisions.iter().map(PointView::new).collect(),
            error: None,
        }
    }
}

impl PointView {
    fn new(decision: &Decision) -> Self {
        Self {
            name: decision.point.name.clone(),
            id: decision.point.id.clone(),
            time: decision.point.time.to_string(),
            keep: decision.is_kept(),
            reasons: decision.reasons.clone(),
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let policy = args.rules.policy();
    if !policy.has_rules() {
        return Err(Error::usage("no rule selects what to keep")
            .with_expected("at least one of --keep-last, --keep-hourly, --keep-daily, --keep-weekly, --keep-monthly, --keep-yearly, --keep-within and --keep-tag")
            .with_hint("vhd snapshot delete deletes a snapshot by its name"));
    }
    if managed::is_wanted(&args.store.store) {
        return managed::prune::run(args, &policy, context);
    }
    if let Some(store) = far::store(&args.store.store, context)? {
        let how = (args.dry_run, args.json);
        let patience = args.lock.patience(context);
        return far::prune(&*store, &args.disk, &policy, how, (&patience, context));
    }
    let names = chosen(&args.store.store, &args.disk)?;
    let patience = args.lock.patience(context);
    let (mut all, mut failures) = (Vec::with_capacity(names.len()), Failures::default());
    // Those that are free first: while they are pruned, another command may end.
    let mut busy = Vec::new();
    let mut take = |name: String, result: Result<DiskView>, failures: &mut Failures| match result {
        Ok(view) => all.push(view),
        Err(error) => {
            all.push(DiskView::failed(name, &error));
            failures.0.push(error);
        }
    };
    for name in names {
        match prune_disk(args, &name, &policy, None, context) {
            Err(error) if error.kind() == ErrorKind::Locked => busy.push(name),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            result => take(name, result, &mut failures),
        }
    }
    for name in busy {
        let result = prune_disk(args, &name, &policy, Some(&patience), context);
        take(name, result, &mut failures);
    }
    all.sort_by(|a, b| a.disk.cmp(&b.disk));
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            dry_run: args.dry_run,
            disks: all,
        })?;
        output.finish()?;
    }
    failures.end(context)?;
    Ok(Outcome::Done)
}

fn prune_disk(
    args: &Args,
    name: &str,
    policy: &Policy,
    patience: Option<&Patience<'_>>,
    context: &Context,
) -> Result<DiskView> {
    let store = &args.store.store;
    let open = || match (args.dry_run, patience) {
        (true, _) => Disk::look(store, name),
        (false, None) => Disk::open(store, name, Access::Write),
        (false, Some(patience)) => patience.wait_for(|| Disk::open(store, name, Access::Write)),
    };
    let mut disk = open()?;
    let decisions = decide(&mut disk, policy)?;
    // What is about to happen is said before it does.
    let told = !args.json && (!context.quiet() || args.dry_run);
    if told {
        let mut output = Output::text()?;
        text(&disk, &decisions, &mut output)?;
        output.finish()?;
    }
    let mut pruned = None;
    if !args.dry_run {
        let workers = context.workers()?;
        let progress = context.progress();
        let work = Work {
            workers: &workers,
            progress: &*progress,
        };
        pruned = Some(prune(&mut disk, &decisions, work)?);
    }
    let view = DiskView::new(&disk, &decisions, pruned);
    if told {
        let mut output = Output::text()?;
        summary(&view, &mut output)?;
        output.finish()?;
    }
    Ok(view)
}

fn text(disk: &Disk, decisions: &[Decision], output: &mut Output) -> Result<()> {
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.fold(0, usize::max);
    let name_width = width(&mut decisions.iter().map(|d| d.point.name.len()));
    let time_width = width(&mut decisions.iter().map(|d| d.point.time.to_string().len()));
    let disk = disk.name();
    for decision in decisions {
        let (name, time) = (&decision.point.name, decision.point.time.to_string());
        let line = format!("{disk}@{name:<name_width$}  {time:<time_width$}");
        if decision.is_kept() {
            output.line(format_args!(
                "{line}  keep    {}",
                decision.reasons.join(", ")
            ))?;
        } else {
            output.line(format_args!("{line}  delete"))?;
        }
    }
    Ok(())
}

fn summary(view: &DiskView, output: &mut Output) -> Result<()> {
    let (disk, kept) = (&view.disk, view.kept_count);
    let gone = Count(view.deleted_count as u64, "snapshot");
    match (view.old_used_size, view.used_size) {
        (Some(before), Some(after)) => output.line(format_args!(
            "{disk}: {kept} kept, {gone} deleted: {} used, before {}",
            Short(after),
            Short(before)
        )),
        _ => output.line(format_args!(
            "{disk}: {kept} would be kept, {gone} would be deleted"
        )),
    }
}
