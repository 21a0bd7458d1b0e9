//! `vhd snapshot init`: a new store.

use std::path::PathBuf;

use clap::value_parser;
use serde::Serialize;

use super::{Context, Outcome, Output, Result};
use crate::cli::store_path::STORE_VARIABLE;
use crate::snapshot::{Marker, STORE_VERSION, init};
use crate::text::shown;

/// Make a folder a store.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The folder gets a marker, vhdkit-store.json, by which every command knows that it is a store, and not the place \
     where the disk with the store isn't mounted. What else is in the folder stays as it is. The folder is made if it \
     isn't there.\n\n\
     A store of version 1 has bases that are dynamic VHDs instead of packed ones, which take more room; older \
     programs can read it.\n\n",
    "Examples:\n",
    "  vhd snapshot init /backup\n",
    "  vhd snapshot init --store-version 1 /backup\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The folder.
    #[arg(value_name = "DIR", env = STORE_VARIABLE, hide_env_values = true)]
    store: PathBuf,
    /// The version of the store.
    #[arg(long, value_name = "N", default_value_t = STORE_VERSION, value_parser = value_parser!(u32).range(1..=i64::from(STORE_VERSION)))]
    store_version: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View {
    store: String,
    store_version: u32,
    id: String,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let folder = args.store.as_path();
    let Marker { version, id } = init(folder, args.store_version)?;
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            store: shown(folder).to_string(),
            store_version: version,
            id,
        })?;
        output.finish()?;
    } else {
        context.note(format_args!("{}: a new store", shown(folder)));
    }
    Ok(Outcome::Done)
}
