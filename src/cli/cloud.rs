//! Managed disks on the command line: their names, and the resource manager.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::far;
use super::role::Role;
use crate::blob::{BlobFile, BlobName};
use crate::cloud::{Access, Cloud, Group, GroupName, ResourceName};
use crate::error::{Error, Result, quoted};

static CLOUD: OnceLock<Arc<Cloud>> = OnceLock::new();

/// Returns whether `path` is the name of a managed disk or a snapshot of one.
pub(super) fn is_name(path: &Path) -> bool {
    ResourceName::is_name(path)
}

/// Returns whether `path` is the name of a resource group.
pub(super) fn is_group(path: &Path) -> bool {
    GroupName::is_name(path)
}

/// Fails if `path` is not a name that an argument with this role can be.
pub(super) fn admit(role: Role, path: &Path) -> Result<()> {
    match role {
        Role::StoreTo if GroupName::is_name(path) => Ok(()),
        _ => name(path).map(drop),
    }
}

/// The name that `path` is.
pub(super) fn name(path: &Path) -> Result<ResourceName> {
    ResourceName::parse(path.to_str().unwrap_or_default())
}

/// The connection to the resource manager.
pub(super) fn cloud() -> Result<Arc<Cloud>> {
    if let Some(cloud) = CLOUD.get() {
        return Ok(Arc::clone(cloud));
    }
    let connector = far::connector()?;
    let cloud = Arc::new(Cloud::new(&connector, |name| env::var(name).ok(), folder()));
    Ok(Arc::clone(CLOUD.get_or_init(|| cloud)))
}

/// The connection to the resource manager, if it was needed.
pub(super) fn used() -> Option<&'static Arc<Cloud>> {
    CLOUD.get()
}

/// Where access is noted until it is taken back.
fn folder() -> Option<PathBuf> {
    let variable = |name: &str| {
        let value = env::var_os(name).filter(|value| !value.is_empty())?;
        std::path::absolute(value).ok()
    };
    let state = variable("VHDKIT_STATE_DIR").or_else(|| {
        let of_user = variable("XDG_STATE_HOME");
        let of_user = of_user.or_else(|| Some(variable("HOME")?.join(".local/state")));
        Some(of_user?.join("vhdkit"))
    });
    Some(state?.join("grants"))
}

/// Returns whether `path` is an address, or the name of a managed disk.
pub(super) fn is_far(path: &Path) -> bool {
    far::is_address(path) || is_name(path)
}

/// Opens the blob, or the managed disk, called `path`.
pub(super) fn open(path: &Path) -> Result<BlobFile> {
    if is_name(path) {
        let (cloud, name) = (cloud()?, name(path)?);
        return cloud.open(&cloud.find(&name)?, Access::Read, path);
    }
    far::connector()?.open(&BlobName::parse(path.to_str().unwrap_or_default())?)
}

/// The group called `name`, which has to be there.
pub(super) fn group(cloud: &Cloud, name: &GroupName, region: Option<&str>) -> Result<Group> {
    cloud.group(name)?.ok_or_else(|| {
        Error::usage("there is no resource group of this name")
            .with_path(name.shown())
            .with_hint(format!(
                "check the name and the subscription, or create it: az group create -n {} -l {}",
                quoted(name.name()),
                quoted(region.unwrap_or("REGION"))
            ))
    })
}
