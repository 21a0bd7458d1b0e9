//! Applying to a new image: a file, a page blob, or stdout.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{Args, diffs_audience, inputs, is_stdout, said};
use super::chain::chain;
use crate::cli::args::{default_format, overwrite};
use crate::cli::context::{Context, Reading, refuse_files};
use crate::cli::convert::refuse_on_stdout;
use crate::cli::create::check_new_parent;
use crate::cli::output::{Output as Stdout, STDOUT};
use crate::cli::upload::format_of as format_in_blob;
use crate::cli::{cloud, far, far_apply, store_path};
use crate::diff::Chain;
use crate::error::{Error, Result};
use crate::files::{
    Applied, ApplyOptions, EmptyDisk, Format, Opened, Output, apply_to_child, apply_to_image,
    apply_to_pipe, beginning_of, check_output, format_of_result, refuse_same_file,
};
use crate::image::Image as _;
use crate::progress::Progress;
use crate::storage::Audience;

pub(super) fn to_new(
    args: &Args,
    output: &Path,
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<(Applied, Format)> {
    if is_stdout(output) {
        return to_stdout(args, options, context).map(|applied| (applied, Format::Raw));
    }
    if far::is_address(output) {
        return to_new_blob(args, output, options, context);
    }
    refuse_same_file(output, &inputs(args))?;
    // Checked before the diffs are read.
    check_output(output, overwrite(args.force))?;
    let base = &args.base;
    if store_path::is_point(base) || cloud::is_far(base) || EmptyDisk::is_named(base) {
        return from_point(args, output, options, context);
    }
    let base = context.open(&args.base, said(args), &args.parents)?;
    refuse_files(output, &base)?;
    let chain = chain(args, output, options.work.progress)?;
    let whole = base.virtual_size();
    let base = Arc::new(beginning_of(base, chain.base_size())?);
    let behind = whole - base.virtual_size();
    let format = output_format(args, output, &*base, &chain)?;
    let made_from = diffs_audience(args)?;
    let out = new_file(args, (output, format), &made_from);
    if format == Format::Differencing {
        check_new_parent(&base, output, args.parents.raw_parent, context)?;
        let parent = args.windows.child_of(base);
        return Ok((apply_to_child(parent, chain, out, options)?, format));
    }
    args.windows.refuse_without_parent()?;
    context.note_device(output);
    let applied = apply_to_image(&*base, &chain, out, options)?;
    Ok((Applied { behind, ..applied }, format))
}

/// The new image, as the options want it.
fn new_file<'a>(
    args: &Args,
    (path, format): (&'a Path, Format),
    made_from: &'a Audience,
) -> Output<'a> {
    Output {
        path,
        format,
        overwrite: overwrite(args.force),
        made_from,
        dense: args.dense,
    }
}

/// Where diffs from a pipe are kept if there is no file that they could lie beside.
pub(super) fn nowhere() -> PathBuf {
    std::env::temp_dir().join("diff")
}

/// Writes the resulting raw disk to stdout.
pub(super) fn to_stdout(
    args: &Args,
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<Applied> {
    refuse_on_stdout("--json", args.json)?;
    refuse_on_stdout("--verify", args.verify)?;
    Stdout::disk(args.output_format, 0)?;
    let reading = Reading::default();
    // There is no output file in whose folder to create it.
    let (base, chain) = open_base(args, &nowhere(), reading, options.work.progress, context)?;
    let mut out = Stdout::disk(args.output_format, chain.target_size())?;
    let applied = apply_to_pipe(&*base, &chain, (&mut out, Path::new(STDOUT)), options)?;
    out.finish()?;
    Ok(applied)
}

/// Opens the diffs, and a base that needn't be a file. An empty disk gets the size that the diffs require.
pub(super) fn open_base(
    args: &Args,
    beside: &Path,
    reading: Reading,
    progress: &dyn Progress,
    context: &Context,
) -> Result<(Box<dyn Opened>, Chain)> {
    if EmptyDisk::is_named(&args.base) {
        let chain = chain(args, beside, progress)?;
        return Ok((Box::new(EmptyDisk::new(chain.base_size())), chain));
    }
    let base = context.open_source(&args.base, said(args), &args.parents, reading)?;
    Ok((base, chain(args, beside, progress)?))
}

/// As [`apply`] for a base that is a point in time of a store, or an empty disk.
pub(super) fn from_point(
    args: &Args,
    output: &Path,
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<(Applied, Format)> {
    let reading = Reading::default();
    let (base, chain) = open_base(args, output, reading, options.work.progress, context)?;
    refuse_files(output, &*base)?;
    let format = output_format(args, output, &*base, &chain)?;
    if format == Format::Differencing {
        EmptyDisk::refuse(&args.base, "create a VHD of another format from it")?;
        let (what, hint) = if cloud::is_far(&args.base) {
            (
                "a page blob can't be the parent of a differencing VHD",
                "make a VHD of it first, with vhd convert",
            )
        } else {
            (
                "a point in time of a store can't be the parent of a differencing VHD",
                "restore it to a VHD first, with vhd snapshot restore",
            )
        };
        return Err(Error::usage(what).with_path(&args.base).with_hint(hint));
    }
    let made_from = diffs_audience(args)?;
    let out = new_file(args, (output, format), &made_from);
    Ok((apply_to_image(&*base, &chain, out, options)?, format))
}

/// Applies the diffs into a new page blob.
pub(super) fn to_new_blob(
    args: &Args,
    output: &Path,
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<(Applied, Format)> {
    far_apply::refuse_options(output, &[("--dense", args.dense)])?;
    args.windows.refuse_without_parent()?;
    if args.base == output {
        return Err(Error::usage("the output is the same blob as the base")
            .with_path(output)
            .with_hint("omit -o to change it, or choose another name"));
    }
    let format = format_in_blob(output, args.output_format.map(Into::into))?;
    let (base, chain) = open_base(
        args,
        &nowhere(),
        Reading::default(),
        options.work.progress,
        context,
    )?;
    let base: &dyn Opened = &*base;
    let new = (output, format, args.force > 0);
    Ok((
        far_apply::to_new(base, &chain, new, options, context)?,
        format,
    ))
}

/// The requested format, otherwise the one implied by name, target and base.
pub(super) fn output_format(
    args: &Args,
    output: &Path,
    base: &dyn Opened,
    chain: &Chain,
) -> Result<Format> {
    if let Some(format) = args.output_format {
        return Ok(format.into());
    }
    default_format(output)?;
    format_of_result(output, base, chain)
}
