//! Copies of snapshots that the service makes itself, in another region or resource group.

use serde::Serialize;

use super::super::copy::Args;
use super::super::{Context, Count, Outcome, Output, Result};
use super::Managed;
use super::follow::follow;
use crate::cli::cloud;
use crate::cli::signals::goes_on;
use crate::cloud::{Group, GroupName, NewCopy, Resource};
use crate::error::{Error, ErrorKind, quoted};
use crate::snapshot::{RegionalStep, plan_regional, still_there};
use crate::text::shown;

#[derive(Serialize)]
struct View {
    disk: String,
    group: String,
    region: String,
    dry_run: bool,
    copied: Vec<CopyView>,
}

#[derive(Serialize)]
struct CopyView {
    name: String,
    /// The resource id of the copy; `None` if it wasn't started.
    id: Option<String>,
    source_id: String,
    /// `planned`, `copying` or `complete`.
    state: &'static str,
    completion_percent: Option<f64>,
    virtual_size: Option<u64>,
}

impl CopyView {
    fn of(copy: &Resource, source: &Resource) -> Self {
        Self {
            name: copy.name.clone(),
            id: Some(copy.id.clone()),
            source_id: source.id.clone(),
            state: if copy.is_complete() {
                "complete"
            } else {
                "copying"
            },
            completion_percent: copy.percent,
            virtual_size: copy.size,
        }
    }

    fn planned(name: &str, source: &Resource) -> Self {
        Self {
            name: name.to_owned(),
            id: None,
            source_id: source.id.clone(),
            state: "planned",
            completion_percent: None,
            virtual_size: source.size,
        }
    }
}

/// The error for a resource group as the target of a copy that this program would make.
pub(in super::super) fn not_a_store(args: &Args) -> Error {
    let error = Error::usage("a resource group isn't a store").with_path(&args.to);
    if !super::is_wanted(&args.store.store) {
        return error.with_hint("name a folder or a container with --to");
    }
    error.with_hint(format!(
        "to let the service copy the snapshots there: vhd snapshot copy --managed --store {} --to {}; or name a folder or a container",
        quoted(&args.store.store),
        quoted(&args.to)
    ))
}

pub(in super::super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let name = GroupName::parse(args.to.to_str().unwrap_or_default())?;
    let managed = Managed::open(&args.store.store, context)?;
    if managed.family.snapshots.is_empty() {
        managed.find(None)?;
    }
    let group = cloud::group(&managed.cloud, &name, args.region.as_deref())?;
    let region = args.region.as_deref().unwrap_or(&group.location);
    let job = Job {
        managed: &managed,
        group: &group,
        region,
        context,
    };
    let (steps, stopped) = plan_regional(
        &managed.family,
        &managed.cloud.snapshots_in(&group)?,
        region,
    )?;
    if steps.is_empty() && stopped.is_none() {
        context.note(format_args!(
            "{}: nothing to copy; {} has the newest snapshot",
            managed.name,
            shown(name.shown())
        ));
    }
    let mut copied = Vec::new();
    let result = if args.dry_run {
        job.tell_plan(&steps, &mut copied);
        Ok(())
    } else {
        steps.iter().try_for_each(|step| job.run(step, &mut copied))
    };
    let error = result.err().or(stopped);
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            disk: managed.name.clone(),
            group: group.name.clone(),
            region: region.to_owned(),
            dry_run: args.dry_run,
            copied,
        })?;
        output.finish()?;
    }
    error.map_or(Ok(Outcome::Done), Err)
}

struct Job<'a> {
    managed: &'a Managed,
    group: &'a Group,
    region: &'a str,
    context: &'a Context,
}

impl Job<'_> {
    fn tell_plan(&self, steps: &[RegionalStep], copied: &mut Vec<CopyView>) {
        let (disk, group) = (&self.managed.name, &self.group.name);
        let mut count: u64 = 0;
        for step in steps {
            let source = &step.source;
            if let Some(copy) = &step.copy {
                let percent = copy.percent.unwrap_or(0.0);
                self.context.note(format_args!(
                    "{disk}@{}: the service is copying it to azure:{}/{}: {percent:.0} %",
                    source.name, copy.group, copy.name
                ));
                if !step.elsewhere {
                    copied.push(CopyView::of(copy, source));
                }
                continue;
            }
            let name = &step.name;
            self.context.note(format_args!(
                "{disk}@{}: would be copied to azure:{group}/{name} in {}",
                source.name, self.region
            ));
            copied.push(CopyView::planned(name, source));
            count += 1;
        }
        self.context.note(format_args!(
            "{disk}: the service would copy {}, one after the other",
            Count(count, "snapshot")
        ));
    }

    fn run(&self, step: &RegionalStep, copied: &mut Vec<CopyView>) -> Result<()> {
        let disk = &self.managed.name;
        let (source, name) = (&step.source, &step.name);
        let place = step
            .copy
            .as_ref()
            .map_or(&self.group.name, |copy| &copy.group);
        let what = format!("{disk}@{} to azure:{place}/{name}", source.name);
        // Also while it is being started, since the service may have got the request.
        let _goes_on = goes_on(
            &format!("the copy of {what} goes on in the cloud, if it had begun"),
            "run the same command again, which follows it",
        );
        let copy = match &step.copy {
            Some(copy) => copy.clone(),
            None => self.managed.cloud.start_copy(&NewCopy {
                family: &self.managed.family,
                source: &still_there(&self.managed.cloud, source)?,
                group: self.group,
                name,
                region: self.region,
                sku: None,
            })?,
        };
        let followed = follow(&self.managed.cloud, copy.clone(), |percent| {
            self.context
                .note(format_args!("{what}: {percent:.0} % copied"));
        });
        match followed {
            Ok(complete) => {
                self.context
                    .note(format_args!("{what}: complete, in {}", complete.location));
                if !step.elsewhere {
                    copied.push(CopyView::of(&complete, source));
                }
                Ok(())
            }
            Err(error) => {
                if !step.elsewhere {
                    copied.push(CopyView::of(&copy, source));
                }
                Err(match error.kind() {
                    ErrorKind::Io => error.with_hint(
                        "the copy goes on in the cloud: run the same command again, which follows it",
                    ),
                    _ => error,
                })
            }
        }
    }
}
