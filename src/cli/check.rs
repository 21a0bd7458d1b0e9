//! `vhd check`: lists all problems of an image, and repairs what can be repaired without loss.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::Parents;
use super::context::Context;
use super::exit::Outcome;
use super::output::Output;
use super::several::Several;
use super::size::Count;
use super::{cloud, remedy};
use crate::error::{Error, Result, quoted};
use crate::files::{self, Repaired};
use crate::text::shown;
use crate::vhd::{CheckOptions, DiskType, Finding, Fix, Kind, Report, Severity, Unlisted};

/// Find every problem of VHD files, and fix what can be fixed without data loss.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(after_help = concat!(
    "Each problem is listed with its severity, its field and its offset in the file. An error keeps the image from \
     being read, or read completely; a repairable problem can be repaired without loss, and the image is read as it will be then; a warning is worth knowing. docs/check.md lists all of them.\n\n",
    "--repair first saves the bytes that it replaces to IMAGE.before-repair, and --take-back restores them. An \
     interrupted repair is finished by running it again. Anything that can't be repaired isn't changed.\n\n",
    "Examples:\n",
    "  vhd check disk.vhd\n",
    "  vhd check *.vhd --json | jq '.findings[].id'\n",
    "  vhd check disk.vhd --repair --dry-run            what a repair would do\n",
    "  vhd check disk.vhd --repair\n",
    "  vhd check disk.vhd --take-back disk.vhd.before-repair\n",
    "  vhd check upload.vhd --azure                     would Azure accept it?\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The images to check.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Apply Azure's rules for uploads, too.
    #[arg(long)]
    azure: bool,
    /// Fix what can be fixed without data loss.
    #[arg(long)]
    repair: bool,
    /// Only report what --repair would do.
    #[arg(long, requires = "repair")]
    dry_run: bool,
    /// Undo a repair: restore the bytes saved in FILE to the image.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["repair", "azure"])]
    take_back: Option<PathBuf>,
    #[command(flatten)]
    parents: Parents,
    /// Print JSON, one document for each image.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if let Some(saved) = &args.take_back {
        return take_back(args, saved, context);
    }
    let mut all = Several::new(context);
    let mut sum = Sum::default();
    for path in &args.images {
        let checked = check(path, args, context);
        sum.add(checked.as_ref().ok());
        let checked = checked.map(|(clean, _)| if clean { Outcome::Done } else { Outcome::No });
        all.take(path, checked)?;
    }
    if args.images.len() > 1 && !args.json && !(context.quiet() && sum.is_clean()) {
        let mut output = Output::text()?;
        output.line(sum)?;
        output.finish()?;
    }
    all.finish()
}

/// The totals for several images.
#[derive(Debug, Default)]
struct Sum {
    images: u64,
    clean: u64,
    errors: u64,
    repairable: u64,
    warnings: u64,
    unread: u64,
}

impl Sum {
    /// Adds an image: whether it is clean, and its findings; `None` if it couldn't be checked.
    fn add(&mut self, checked: Option<&(bool, [u64; 3])>) {
        self.images += 1;
        match checked {
            None => self.unread += 1,
            Some((clean, [errors, repairable, warnings])) => {
                self.clean += u64::from(*clean);
                self.errors += errors;
                self.repairable += repairable;
                self.warnings += warnings;
            }
        }
    }

    fn is_clean(&self) -> bool {
        self.unread == 0 && self.errors + self.repairable + self.warnings == 0
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bad = self.images - self.clean - self.unread;
        write!(f, "{}: ", Count(self.images, "image"))?;
        let parts = [
            Some(format!("{} without errors", self.clean)),
            (bad > 0).then(|| format!("{bad} with errors")),
            (self.unread > 0).then(|| format!("{} not checked", self.unread)),
            counted(self.errors, "error", "errors"),
            counted(self.repairable, "repairable", "repairable"),
            counted(self.warnings, "warning", "warnings"),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

fn take_back(args: &Args, saved: &Path, context: &Context) -> Result<Outcome> {
    let [image] = args.images.as_slice() else {
        return Err(
            Error::usage("saved bytes can be restored to one image only")
                .with_found(format_args!("{} images", args.images.len()))
                .with_hint("name the image that they were saved from"),
        );
    };
    files::take_back(image, saved)?;
    context.note(format_args!(
        "{}: restored to its state before the repair",
        shown(&image)
    ));
    if args.json {
        let mut output = Output::text()?;
        output.json(&TakenBack {
            image: image.to_string_lossy().into_owned(),
            outcome: "taken_back",
            saved: saved.to_string_lossy().into_owned(),
        })?;
        output.finish()?;
    }
    Ok(Outcome::Done)
}

/// The output of `--json` after a repair was undone.
#[derive(Serialize)]
struct TakenBack {
    image: String,
    outcome: &'static str,
    saved: String,
}

/// Checks one file. Returns whether it is clean, after a repair if one was requested, and the remaining number of
/// errors, repairable problems and warnings.
fn check(path: &Path, args: &Args, context: &Context) -> Result<(bool, [u64; 3])> {
    let progress = context.progress();
    let options = CheckOptions {
        azure: args.azure,
        progress: &*progress,
        ..CheckOptions::default()
    };
    let repaired = if cloud::is_far(path) {
        Repaired {
            before: check_blob(path, args, &options, context)?,
            mends: Vec::new(),
            saved: None,
            after: None,
        }
    } else if args.repair {
        super::signals::writes(path);
        files::repair(path, &options, &args.parents.options(), args.dry_run)?
    } else {
        Repaired {
            before: files::check_file(path, &options, &args.parents.options())?,
            mends: Vec::new(),
            saved: None,
            after: None,
        }
    };
    drop(progress);
    let view = View::new(path, &repaired);
    let left = repaired.after.as_ref().unwrap_or(&repaired.before);
    let counts = [left.errors, left.repairable, left.warnings];
    // There is nothing to report about an image without findings.
    let well = repaired.before.findings.is_empty() && repaired.saved.is_none();
    if args.json || !context.quiet() || !well {
        let mut output = Output::text()?;
        if args.json {
            output.json(&view)?;
        } else {
            print(&view, args, &mut output)?;
        }
        output.finish()?;
    }
    Ok((left.is_clean(), counts))
}

/// Checks a page blob, which is only read.
fn check_blob(
    path: &Path,
    args: &Args,
    options: &CheckOptions<'_>,
    context: &Context,
) -> Result<Report> {
    if args.repair {
        return Err(Error::usage("a page blob can't be repaired in place")
            .with_path(path)
            .with_hint(format!(
                "copy its bytes to a file and repair that: vhd convert -f raw -O raw {} disk.vhd && vhd check --repair disk.vhd",
                quoted(path)
            )));
    }
    let blob = cloud::open(path)?;
    context.tell_access(path)?;
    files::check_blob(&blob, options)
}

/// The output of `--json` for each image.
#[derive(Debug, Serialize)]
struct View<'a> {
    image: String,
    format: String,
    /// The extent of the check: `structure` of a VHD, or only the `length` of a raw image.
    checked: &'static str,
    error_count: u64,
    repairable_count: u64,
    warning_count: u64,
    /// The findings, before a repair if one was requested.
    findings: Vec<FindingView<'a>>,
    /// The scope of the check, as text.
    #[serde(skip)]
    looked_at: String,
    /// The ids with more findings than are listed.
    unlisted: Vec<UnlistedView>,
    /// The repairs that were made, or would be.
    repairs: Vec<MendView<'a>>,
    /// The file with the bytes that were replaced.
    saved: Option<String>,
    /// The findings that remain after a repair.
    left: Option<Vec<FindingView<'a>>>,
}

#[derive(Debug, Serialize)]
struct FindingView<'a> {
    id: &'static str,
    severity: &'static str,
    field: &'a str,
    offset: u64,
    found: &'a str,
    expected: &'a str,
    message: &'static str,
    hint: String,
}

#[derive(Debug, Serialize)]
struct UnlistedView {
    id: &'static str,
    count: u64,
}

#[derive(Debug, Serialize)]
struct MendView<'a> {
    id: &'static str,
    what: &'a str,
}

impl<'a> View<'a> {
    fn new(path: &Path, repaired: &'a Repaired) -> Self {
        let report = &repaired.before;
        let listed = |report: &'a Report| {
            let findings = report.findings.iter();
            findings
                .map(|finding| FindingView::new(finding, path))
                .collect()
        };
        Self {
            image: path.to_string_lossy().into_owned(),
            format: match report.kind {
                Kind::Vhd(disk_type) => disk_type.to_string(),
                Kind::Raw => "raw".to_owned(),
            },
            checked: match report.kind {
                Kind::Vhd(_) => "structure",
                Kind::Raw => "length",
            },
            error_count: report.errors,
            repairable_count: report.repairable,
            warning_count: report.warnings,
            findings: listed(report),
            looked_at: looked_at(report),
            unlisted: report.unlisted.iter().map(UnlistedView::from).collect(),
            repairs: repaired.mends.iter().map(MendView::from).collect(),
            saved: repaired
                .saved
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned()),
            left: repaired.after.as_ref().map(listed),
        }
    }
}

impl<'a> FindingView<'a> {
    fn new(finding: &'a Finding, path: &Path) -> Self {
        Self {
            id: finding.id(),
            severity: finding.severity().name(),
            field: &finding.field,
            offset: finding.offset,
            found: &finding.found,
            expected: &finding.expected,
            message: finding.rule.message,
            hint: remedy::said(&finding.remedy(path)),
        }
    }
}

impl From<&Unlisted> for UnlistedView {
    fn from(unlisted: &Unlisted) -> Self {
        Self {
            id: unlisted.rule.id,
            count: unlisted.count,
        }
    }
}

impl<'a> From<&'a Fix> for MendView<'a> {
    fn from(mend: &'a Fix) -> Self {
        Self {
            id: mend.id,
            what: &mend.what,
        }
    }
}

fn print(view: &View<'_>, args: &Args, output: &mut Output) -> Result<()> {
    let image = &view.image;
    let faults = [
        counted(view.error_count, "error", "errors"),
        counted(view.repairable_count, "repairable", "repairable"),
        counted(view.warning_count, "warning", "warnings"),
    ];
    let faults: Vec<String> = faults.into_iter().flatten().collect();
    let summary = if faults.is_empty() {
        format!("no problems found: {}", view.looked_at)
    } else {
        faults.join(", ")
    };
    if view.format != "raw" {
        output.line(format_args!("{image}: {} VHD, {summary}", view.format))?;
    } else if faults.is_empty() {
        // There is nothing else to check: that isn't the same as no problem.
        output.line(format_args!(
            "{image}: a raw image, only the length was checked"
        ))?;
    } else {
        output.line(format_args!("{image}: not a VHD, {summary}"))?;
    }
    list(&view.findings, output)?;
    for UnlistedView { id, count } in &view.unlisted {
        output.line(format_args!("  and {count} more of {id}"))?;
    }
    for MendView { id, what } in &view.repairs {
        let done = if args.dry_run { "would" } else { "done:" };
        output.line(format_args!("  {done} {what} ({id})"))?;
    }
    if let Some(saved) = &view.saved {
        output.line(format_args!("  the replaced bytes are saved in {saved}"))?;
    }
    if args.repair && view.repairs.is_empty() {
        output.line("  nothing to repair, or nothing that could be repaired without loss")?;
    }
    if let Some(left) = view.left.as_ref().filter(|left| !left.is_empty()) {
        output.line("  left after the repair:")?;
        list(left, output)?;
    }
    Ok(())
}

/// The scope of a check without findings: what it covered, and what it didn't.
fn looked_at(report: &Report) -> String {
    let bitmaps = match report.bitmaps {
        0 => "no blocks are stored".to_owned(),
        1 => "1 bitmap".to_owned(),
        count => format!("{count} bitmaps"),
    };
    match report.kind {
        Kind::Raw => "nothing but its length can be checked".to_owned(),
        Kind::Vhd(DiskType::Fixed) => {
            "footer and length; the data isn't compared with anything".to_owned()
        }
        Kind::Vhd(DiskType::Differencing) => format!(
            "both footers, header, BAT, {bitmaps}, parents; the data isn't compared with anything"
        ),
        Kind::Vhd(_) => {
            format!("both footers, header, BAT, {bitmaps}; the data isn't compared with anything")
        }
    }
}

fn counted(count: u64, one: &str, many: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{count} {many}")),
    }
}

/// Lists findings in columns; the same advice for a rule is printed once.
fn list(findings: &[FindingView<'_>], output: &mut Output) -> Result<()> {
    let severity = Severity::Repairable.name().len();
    let field = findings.iter().map(|f| f.field.len()).max().unwrap_or(0);
    let digits = |offset: u64| offset.to_string().len();
    let offset = findings.iter().map(|f| digits(f.offset)).max().unwrap_or(0);
    let margin = severity + field + offset + 8;
    let mut advised: Vec<(&str, &str)> = Vec::new();
    for finding in findings {
        output.line(format_args!(
            "  {:<severity$}  {:<field$}  {:>offset$}  {} ({})",
            finding.severity, finding.field, finding.offset, finding.message, finding.id
        ))?;
        output.line(format_args!(
            "{:margin$}found {}, expected {}",
            "", finding.found, finding.expected
        ))?;
        let advice = (finding.id, finding.hint.as_str());
        if !advised.contains(&advice) {
            advised.push(advice);
            output.line(format_args!("{:margin$}{}", "", finding.hint))?;
        }
    }
    Ok(())
}
