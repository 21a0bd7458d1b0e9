//! The diffs to apply.

use std::io::Read as _;
use std::path::Path;

use super::args::{Args, Check};
use crate::cli::squash::{not_reversible, open_diffs};
use crate::diff::{Chain, DiffFile, MAGIC};
use crate::error::{Error, Result, quoted};
use crate::files::same_file;
use crate::progress::Progress;

pub(super) fn refuse_base_as_diff(args: &Args) -> Result<()> {
    for diff in &args.diffs {
        if same_file(&args.base, diff)? {
            return Err(
                Error::usage("the base and a diff are one and the same file")
                    .with_path(diff)
                    .with_hint("vhd-apply takes the base image first, then the diffs"),
            );
        }
    }
    Ok(())
}

pub(super) fn chain(args: &Args, beside: &Path, progress: &dyn Progress) -> Result<Chain> {
    let diffs = open_diffs(&args.diffs, beside, progress)?;
    if !args.reverse {
        return check_possible(args, Chain::new(diffs)?);
    }
    let hint = "apply the diff that --undo kept; create diffs with vhd-diff --reversible to be able to undo them";
    let back = |diff: &DiffFile| diff.reversed().ok_or_else(|| not_reversible(diff, hint));
    let chain = Chain::new(diffs.iter().map(back).collect::<Result<_>>()?)?;
    check_possible(args, chain)
}

/// Fails if a full check is requested, but the diffs don't contain the base's digest.
pub(super) fn check_possible(args: &Args, chain: Chain) -> Result<Chain> {
    if args.base_check != Check::Full || chain.base_digest().is_some() {
        return Ok(chain);
    }
    let name = chain.first().map_or(Path::new("-"), DiffFile::name);
    Err(
        Error::usage("the base can't be checked in full: this diff has no content digests")
            .with_path(name)
            .with_hint(
                "create the diff again, without --no-digest; or use --base-check touched, which reads only the data under the \
                 changed pages",
            ),
    )
}

/// Refuses images in place of diffs and vice versa, with a hint what was probably meant.
pub(super) fn refuse_misplaced(args: &Args) -> Result<()> {
    let is_diff = |path: &Path| {
        let mut start = [0; MAGIC.len()];
        let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
        read.is_ok() && start == MAGIC
    };
    if let [diff] = args.diffs.as_slice()
        && args.base.is_file()
        && diff.is_file()
        && is_diff(&args.base)
        && !is_diff(diff)
    {
        return Err(Error::unsupported("this is a diff, where the base belongs")
            .with_path(&args.base)
            .with_hint(format!(
                "vhd-apply takes the base image first, then its diffs: vhd-apply {} {}; to see what this one changes: vhd \
                 show {}",
                quoted(diff),
                quoted(&args.base),
                quoted(&args.base)
            )));
    }
    if let (Some(last), None, true) = (args.diffs.last(), &args.output, args.diffs.len() > 1)
        && last != Path::new("-")
        && std::fs::symlink_metadata(last).is_err()
    {
        return Err(Error::usage("there is no such diff")
            .with_path(last)
            .with_hint(format!(
                "if that is the image to create, use -o {}",
                quoted(last)
            )));
    }
    Ok(())
}
