//! Copies the snapshots of a managed disk to another store.

use serde::Serialize;

use super::super::copy::Args;
use super::super::{Context, Count, Outcome, Output, Result, Short, Size, check_disk_name};
use super::Managed;
use crate::cli::rate::RateArgs;
use crate::error::{Error, ErrorKind};
use crate::snapshot::{
    AddedPoint, FarTarget, FolderTarget, ManagedStep, Needed, PointTarget, Work, bring, needed,
    plan,
};

#[derive(Serialize)]
struct View {
    disk: String,
    dry_run: bool,
    copied: Vec<PointView>,
}

#[derive(Serialize)]
struct PointView {
    name: String,
    id: String,
    /// The way in which it is copied: `base`, `changes` or `compared`.
    how: &'static str,
    read_bytes: Option<u64>,
    requests: Option<u64>,
    update_bytes: Option<u64>,
    clear_bytes: Option<u64>,
    stored_bytes: Option<u64>,
    content_digest: Option<String>,
}

impl PointView {
    fn of(step: &ManagedStep) -> Self {
        Self {
            name: step.name.clone(),
            id: step.snapshot.id.clone(),
            how: match (step.way.reason(), &step.before) {
                (Some(_), _) => "compared",
                (None, Some(_)) => "changes",
                (None, None) => "base",
            },
            read_bytes: None,
            requests: None,
            update_bytes: None,
            clear_bytes: None,
            stored_bytes: None,
            content_digest: None,
        }
    }

    fn needing(self, needed: Needed) -> Self {
        Self {
            read_bytes: Some(needed.bytes),
            requests: Some(needed.requests),
            ..self
        }
    }

    fn made(self, point: &AddedPoint, listed: Option<u64>) -> Self {
        Self {
            read_bytes: listed,
            update_bytes: Some(point.updated),
            clear_bytes: Some(point.cleared),
            stored_bytes: Some(point.stored),
            content_digest: point.content_digest.map(|digest| digest.to_string()),
            ..self
        }
    }
}

pub(in super::super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if args.disk.len() > 1 {
        return Err(Error::usage("a managed disk becomes one disk of the store")
            .with_found(args.disk.join(", "))
            .with_expected("at most one --disk"));
    }
    let managed = Managed::open(&args.store.store, context)?;
    let name = args
        .disk
        .first()
        .map_or(managed.name.as_str(), String::as_str);
    let job = Job {
        to: &args.to,
        init: args.init,
        name,
        check: args.check_changes,
        rate: args.rate,
        dry_run: args.dry_run,
    };
    let (copied, error) = job.run(&managed, context)?;
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            disk: name.to_owned(),
            dry_run: args.dry_run,
            copied,
        })?;
        output.finish()?;
    }
    error.map_or(Ok(Outcome::Done), Err)
}

/// A copy to the disk called `name` of a store.
pub(crate) struct Job<'a> {
    pub(crate) to: &'a std::path::Path,
    /// Whether to create the store if it doesn't exist.
    pub(crate) init: bool,
    pub(crate) name: &'a str,
    pub(crate) check: Option<f64>,
    pub(crate) rate: RateArgs,
    pub(crate) dry_run: bool,
}

impl Job<'_> {
    /// Copies the snapshots that the target lacks. An error is returned along with those that were copied before it.
    pub(crate) fn run<V: From<Done>>(
        &self,
        managed: &Managed,
        context: &Context,
    ) -> Result<(Vec<V>, Option<Error>)> {
        let mut target = self.target(context)?;
        let held = target.points()?;
        let (steps, stopped) = plan(&managed.family, &held)?;
        if managed.family.snapshots.is_empty() {
            return Err(managed.find(None).err().unwrap_or_else(Error::interrupted));
        }
        let disk = &self.name;
        if steps.is_empty() && stopped.is_none() {
            let newest = held.last().map_or("", |point| point.name.as_str());
            context.note(format_args!(
                "{disk}: nothing to copy; the newest is {newest}"
            ));
        }
        for step in &steps {
            if let Some(reason) = step.way.reason() {
                context.note(format_args!(
                    "{disk}@{}: all of it is read and compared: {reason}",
                    step.name
                ));
            }
        }
        let mut done = Vec::new();
        if self.dry_run {
            let mut sum = Needed::default();
            for step in &steps {
                let needed = needed(&managed.cloud, step)?;
                sum.bytes = sum.bytes.saturating_add(needed.bytes);
                sum.requests = sum.requests.saturating_add(needed.requests);
                context.note(format_args!(
                    "{disk}@{}: {} in about {} would be read",
                    step.name,
                    Size(needed.bytes),
                    Count(needed.requests, "request")
                ));
                done.push(V::from(Done::Needed(step.clone(), needed)));
            }
            context.note(format_args!(
                "{disk}: {} would be copied: {} in about {}",
                Count(steps.len() as u64, "snapshot"),
                Short(sum.bytes),
                Count(sum.requests, "request")
            ));
            return Ok((done, stopped));
        }
        let result = self.bring(managed, (&mut *target, &steps), &mut done, context);
        Ok((done, result.err().or(stopped)))
    }

    fn bring<V: From<Done>>(
        &self,
        managed: &Managed,
        (target, steps): (&mut dyn PointTarget, &[ManagedStep]),
        done: &mut Vec<V>,
        context: &Context,
    ) -> Result<()> {
        let workers = context.workers_far()?;
        for step in steps {
            let progress = self.rate.limit(context.progress());
            let mut brought = None;
            let result = bring(
                &managed.cloud,
                (&managed.family, std::slice::from_ref(step)),
                target,
                self.check,
                Work::new(&workers, &*progress),
                |point| brought = Some(point),
            );
            drop(progress);
            if let Some(brought) = brought {
                let point = &brought.point;
                if let Some(reason) = brought.compared.as_ref().filter(|_| step.before.is_some()) {
                    context.note(format_args!(
                        "{}@{}: all of it was read and compared: {reason}",
                        self.name, point.name
                    ));
                }
                context.note(format_args!(
                    "{}@{}: {} updated and {} cleared, in {}",
                    self.name,
                    point.name,
                    Size(point.updated),
                    Size(point.cleared),
                    Size(point.stored)
                ));
                done.push(V::from(Done::Made(
                    step.clone(),
                    brought.listed,
                    brought.point,
                )));
            }
            result.map_err(|error| match error.kind() {
                ErrorKind::Mismatch => error,
                _ => error.with_hint("what was copied is complete: run the same command again to continue with the rest"),
            })?;
        }
        Ok(())
    }

    /// Fails if the target can't take points of this disk.
    pub(crate) fn check(&self, managed: &Managed, context: &Context) -> Result<()> {
        let held = self.target(context)?.points()?;
        plan(&managed.family, &held).map(drop)
    }

    /// The target of the points.
    pub(crate) fn target(&self, context: &Context) -> Result<Box<dyn PointTarget>> {
        check_disk_name(self.name)?;
        if let Some(store) = super::super::far::store(self.to, context)? {
            return Ok(Box::new(FarTarget::new(store, self.name)));
        }
        if let Some(remote) = crate::cli::remote::Remote::of(self.to) {
            return Err(remote.refusal(crate::cli::role::Role::Store, self.to));
        }
        Ok(Box::new(FolderTarget::new(self.to, self.name, self.init)))
    }
}

/// The outcome for one snapshot.
pub(crate) enum Done {
    /// The estimate of a dry run.
    Needed(ManagedStep, Needed),
    /// It was copied; with the ranges that the service listed as changed.
    Made(ManagedStep, Option<u64>, AddedPoint),
}

impl From<Done> for PointView {
    fn from(done: Done) -> Self {
        match done {
            Done::Needed(step, needed) => Self::of(&step).needing(needed),
            Done::Made(step, listed, point) => Self {
                how: if step.before.is_some() && listed.is_none() {
                    "compared"
                } else {
                    Self::of(&step).how
                },
                ..Self::of(&step)
            }
            .made(&point, listed),
        }
    }
}
