//! `vhd snapshot init`: a new store.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::value_parser;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Context, Error, Outcome, Output, Result};
use crate::age::WORK_FACTOR;
use crate::cli::store_path::STORE_VARIABLE;
use crate::snapshot::{Marker, Protection, STORE_VERSION, init, init_encrypted};
use crate::storage::{AtomicFile, Audience, Overwrite, WriteAt as _};
use crate::text::shown;

/// Make a folder a store.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The folder gets a marker, vhdkit-store.json, by which every command knows that it is a store, and not the place \
     where the disk with the store isn't mounted. What else is in the folder stays as it is. The folder is made if it \
     isn't there.\n\n\
     A store of version 1 has bases that are dynamic VHDs instead of packed ones, which take more room; older \
     programs can read it.\n\n\
     With --encrypt, everything in the folders of the disks is encrypted, in the format of age: contents, names of \
     disks and snapshots, manifests. Who can't open the store still sees how many disks and snapshots there are, how \
     long their files are, and when they were written. The key is kept in the store, encrypted with a passphrase \
     (--passphrase-file, or it is asked for), or it is that of --key-file, as age-keygen makes one, and not in the \
     store. With a passphrase, the key is also printed once, as a recovery key: without it and without the \
     passphrase nothing can be read any more.\n\n",
    "Examples:\n",
    "  vhd snapshot init /backup\n",
    "  vhd snapshot init --store-version 1 /backup\n",
    "  vhd snapshot init --encrypt /mnt/usb --recovery-key recovery.txt\n",
    "  vhd snapshot init --encrypt /mnt/usb --key-file key.txt\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The folder.
    #[arg(value_name = "DIR", env = STORE_VARIABLE, hide_env_values = true)]
    store: PathBuf,
    /// The version of the store.
    #[arg(long, value_name = "N", default_value_t = STORE_VERSION, value_parser = value_parser!(u32).range(1..=i64::from(STORE_VERSION)))]
    store_version: u32,
    /// Encrypt everything that will be stored.
    #[arg(long, conflicts_with = "store_version")]
    encrypt: bool,
    /// Write the recovery key into this new file, which only you can read, instead of printing it.
    #[arg(long, value_name = "FILE", requires = "encrypt")]
    recovery_key: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View {
    store: String,
    store_version: u32,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<String>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let folder = args.store.as_path();
    let marker = if args.encrypt {
        encrypted(args, context)?
    } else {
        init(folder, args.store_version)?
    };
    let Marker {
        version,
        id,
        encryption,
    } = marker;
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            store: shown(folder).to_string(),
            store_version: version,
            id,
            recipient: encryption.map(|encryption| encryption.recipient),
        })?;
        output.finish()?;
    } else {
        context.note(format_args!("{}: a new store", shown(folder)));
    }
    Ok(Outcome::Done)
}

fn encrypted(args: &Args, context: &Context) -> Result<Marker> {
    let folder = args.store.as_path();
    let keys = context.keys();
    let protection = match keys.identity(context.program())? {
        Some(identity) => Protection::Identity(identity),
        None => Protection::Passphrase(keys.new_passphrase(folder)?, WORK_FACTOR),
    };
    let by_passphrase = matches!(protection, Protection::Passphrase(..));
    let file = match (&args.recovery_key, by_passphrase) {
        (Some(path), _) => {
            let begun = AtomicFile::begin(path, Overwrite::No, Audience::nobody_else())?;
            Some((path, begun))
        }
        // What is printed must reach somebody.
        (None, true) if !io::stderr().is_terminal() => {
            return Err(Error::usage(
                "the recovery key can't be printed: stderr is not a terminal",
            )
            .with_hint("have it written into a file with --recovery-key FILE"));
        }
        (None, _) => None,
    };
    let (marker, identity) = init_encrypted(folder, &protection, &Audience::default())?;
    let text = identity.secret_text();
    if let Some((path, file)) = file {
        let comment = format!(
            "# recovery key of the store {}\n# public key: {}\n",
            marker.id,
            identity.recipient()
        );
        let lines = Zeroizing::new(format!("{comment}{}\n", *text));
        file.file().write_all_at(lines.as_bytes(), 0)?;
        file.publish(Overwrite::No)?;
        context.note(format_args!(
            "{}: the recovery key, which opens the store without its passphrase; keep it elsewhere",
            shown(path)
        ));
    } else if by_passphrase {
        eprintln!(
            "The recovery key, which opens the store without its passphrase. It isn't shown again: write it down, and \
             keep it elsewhere.\n\n    {}\n",
            *text
        );
    }
    Ok(marker)
}
