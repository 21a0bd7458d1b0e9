//! Which store, which disk, which snapshots: the options that name them.

use std::path::{Path, PathBuf};

use crate::cli::size::Count;
use crate::cli::store_path::STORE_VARIABLE;
use crate::error::{Error, Result, quoted};
use crate::snapshot::disks;

// Which store. (A comment for the documentation would become the description of each command.)
#[derive(Debug, Clone, clap::Args)]
pub(super) struct StoreArgs {
    /// The store (see `kinds`, where its description is made).
    #[arg(long, value_name = "STORE", env = STORE_VARIABLE, hide_env_values = true)]
    pub(super) store: PathBuf,
}

// Which disk of which store.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct DiskArgs {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// The disk [default: the only one in the store].
    #[arg(long, value_name = "NAME")]
    pub(super) disk: Option<String>,
}

impl DiskArgs {
    /// The name of the disk of which these snapshots are, each named as SNAPSHOT or DISK@SNAPSHOT, and their names in it.
    pub(super) fn meant<'a>(
        &self,
        snapshots: impl IntoIterator<Item = &'a String>,
    ) -> Result<(String, Vec<&'a str>)> {
        let mut meant = self.disk.clone();
        let mut names = Vec::new();
        for snapshot in snapshots {
            refuse_address(snapshot)?;
            let Some((disk, name)) = snapshot.split_once('@') else {
                names.push(snapshot.as_str());
                continue;
            };
            let disk = disk.to_owned();
            let before = meant.get_or_insert_with(|| disk.clone());
            if *before != disk {
                return Err(Error::usage("these are snapshots of two disks")
                    .with_found(format_args!("{before} and {disk}"))
                    .with_expected("one disk, named with --disk or before an @"));
            }
            names.push(name);
        }
        let this = Self {
            disk: meant,
            ..self.clone()
        };
        Ok((this.name()?, names))
    }

    /// The disk, or the only one in the store.
    fn name(&self) -> Result<String> {
        let store = &self.store.store;
        if let Some(name) = &self.disk {
            return Ok(name.clone());
        }
        let names = disks_there(store)?;
        if let [name] = names.as_slice() {
            return Ok(name.clone());
        }
        let some = names.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        let Some(first) = names.first() else {
            return Err(Error::usage("there is no disk in this store")
                .with_path(store)
                .with_hint("vhd snapshot create makes the first snapshot of a disk"));
        };
        Err(
            Error::usage("the store has several disks, and none is specified")
                .with_path(store)
                .with_found(format_args!(
                    "{}: {some}",
                    Count(names.len() as u64, "disk")
                ))
                .with_expected("--disk NAME, or DISK@SNAPSHOT")
                .with_hint(format!("specify one of them: --disk {first}")),
        )
    }
}

/// The names that were given, or those of all disks of the store, in order.
pub(super) fn chosen(store: &Path, disks: &[String]) -> Result<Vec<String>> {
    let mut names = disks.to_vec();
    if names.is_empty() {
        names = disks_there(store)?;
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// A snapshot is named within its store here.
pub(super) fn refuse_address(snapshot: &str) -> Result<()> {
    let Some((store, point)) = snapshot.rsplit_once("::") else {
        return Ok(());
    };
    let named = if store.is_empty() {
        String::new()
    } else {
        format!("--store {} ", quoted(store))
    };
    Err(
        Error::usage("here the store is specified separately from the snapshot")
            .with_found(snapshot)
            .with_hint(format!("write {named}{}", quoted(point))),
    )
}

/// The disks of a store, of which there must be one: nothing at all is not a result.
pub(super) fn disks_there(store: &Path) -> Result<Vec<String>> {
    let names = disks(store)?;
    if names.is_empty() {
        return Err(
            Error::usage("there is nothing here: there is no disk in this store")
                .with_path(store)
                .with_hint("vhd snapshot create makes the first snapshot of a disk"),
        );
    }
    Ok(names)
}
