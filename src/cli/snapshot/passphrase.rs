//! `vhd snapshot passphrase`: another passphrase for an encrypted store.

use std::path::PathBuf;

use serde::Serialize;

use super::{Context, Outcome, Output, Result};
use crate::age::WORK_FACTOR;
use crate::cli::keys;
use crate::cli::store_path::STORE_VARIABLE;
use crate::snapshot::{change_passphrase, open_for_passphrase};
use crate::text::shown;

/// Give an encrypted store another passphrase.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The file vhdkit-store.key.age is replaced: it has the key of the store, encrypted with the passphrase. Nothing \
     else changes, and the recovery key stays what it is. A copy of the old file still opens with the old \
     passphrase, so this doesn't help where both are known to others.\n\n\
     The store is opened with the old passphrase, or with the recovery key: --key-file. That also makes a missing or \
     damaged vhdkit-store.key.age again.\n\n",
    "Examples:\n",
    "  vhd snapshot passphrase /backup\n",
    "  vhd snapshot passphrase /backup --passphrase-file old --new-passphrase-file new\n",
    "  vhd snapshot passphrase /backup --key-file recovery.txt\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The folder of the store.
    #[arg(value_name = "DIR", env = STORE_VARIABLE, hide_env_values = true)]
    store: PathBuf,
    /// The file with the new passphrase, instead of asking for it on the terminal.
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View {
    store: String,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let store = args.store.as_path();
    open_for_passphrase(store)?;
    let new = match &args.new_passphrase_file {
        Some(file) => keys::read_passphrase(file)?,
        None => keys::ask_new(store)?,
    };
    change_passphrase(store, &new, WORK_FACTOR)?;
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            store: shown(store).to_string(),
        })?;
        output.finish()?;
    } else {
        context.note(format_args!(
            "{}: it has another passphrase now",
            shown(store)
        ));
    }
    Ok(Outcome::Done)
}
