//! Operations on managed disks and snapshots.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Once, OnceLock};

use serde_json::{Value, json};

use super::api::{Api, Asked, VERSION};
use super::grant::{Access, Grants};
use super::granted::Granted;
use super::name::{ResourceKind, ResourceName};
use super::resource::Resource;
use crate::blob::{Answer, BlobFile, BlobId, Connector, Failure, PageStore};
use crate::error::{Error, ErrorKind, Result};

/// API version of requests about subscriptions.
const SUBSCRIPTIONS: &str = "2022-12-01";

/// Managed disks and snapshots of the cloud.
#[derive(Debug)]
pub struct Cloud {
    grants: Arc<Grants>,
    depth: usize,
    subscription: OnceLock<String>,
    cleaned: Once,
}

/// A snapshot to be created.
#[derive(Debug, Clone)]
pub struct NewSnapshot<'a> {
    /// Its resource group.
    pub group: &'a str,
    /// Its name there.
    pub name: &'a str,
    /// The source: a disk, or a snapshot to be copied.
    pub source: &'a Resource,
    /// The region, if it isn't that of the source: then the service copies in the background.
    pub region: Option<&'a str>,
    /// Whether it holds only what changed since the one before.
    pub incremental: bool,
    /// The kind of storage.
    pub sku: Option<&'a str>,
    /// Its tags.
    pub tags: &'a BTreeMap<String, String>,
}

/// A disk to be created, to which an image is then written.
#[derive(Debug, Clone)]
pub struct NewDisk<'a> {
    /// The region.
    pub region: &'a str,
    /// Bytes of the fixed VHD, with its footer.
    pub bytes: u64,
    /// The kind of storage.
    pub sku: Option<&'a str>,
    /// Its tags.
    pub tags: &'a BTreeMap<String, String>,
}

impl Cloud {
    /// Uses the connections of `connector`, and the variables that `environment` returns: `AZURE_SUBSCRIPTION_ID`,
    /// `AZURE_RESOURCE_MANAGER_ENDPOINT`, and those of identities. Granted access is recorded in `folder` until it is
    /// revoked.
    pub fn new(
        connector: &Connector,
        environment: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        folder: Option<PathBuf>,
    ) -> Self {
        let http = connector.shared_http();
        let api = Api::new(http, connector.retry().clone(), Box::new(environment));
        Self {
            grants: Arc::new(Grants::new(api, folder)),
            depth: connector.depth(),
            subscription: OnceLock::new(),
            cleaned: Once::new(),
        }
    }

    pub(super) fn api(&self) -> &Api {
        &self.grants.api
    }

    /// The address of the resource manager.
    pub fn endpoint(&self) -> Result<&str> {
        Ok(&self.api().endpoint()?.root)
    }

    /// The source of the tokens.
    pub fn identity(&self) -> Result<&'static str> {
        Ok(self.api().endpoint()?.tokens.origin())
    }

    /// Gets a token, and returns the source of it.
    ///
    /// # Errors
    ///
    /// Fails if there is none to be had, as with a wrong password.
    pub fn login(&self) -> Result<&'static str> {
        self.api().login()
    }

    /// Problems to report to a person although no request failed because of them.
    pub fn take_notices(&self) -> Vec<Error> {
        self.grants.take_notices()
    }

    /// Revokes all access that is still granted. Returns the errors.
    pub fn take_back_all(&self) -> Vec<Error> {
        self.grants.take_back_all()
    }

    /// Returns whether access is still granted to anything.
    pub fn is_anything_granted(&self) -> bool {
        self.grants.are_any()
    }

    /// The subscription for names that have none.
    pub fn subscription(&self) -> Result<&str> {
        if let Some(found) = self.subscription.get() {
            return Ok(found);
        }
        let found = self.find_subscription()?;
        Ok(self.subscription.get_or_init(|| found))
    }

    fn find_subscription(&self) -> Result<String> {
        if let Some(id) = self.api().variable("AZURE_SUBSCRIPTION_ID") {
            if id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                return Ok(id);
            }
            return Err(
                Error::usage("AZURE_SUBSCRIPTION_ID is not the id of a subscription")
                    .with_hint("set it as 00000000-0000-0000-0000-000000000000, or unset it"),
            );
        }
        let about = Path::new("the subscriptions");
        let asked = Asked {
            method: "GET",
            place: &format!("/subscriptions?api-version={SUBSCRIPTIONS}"),
            body: None,
            doing: "cannot list",
            about,
        };
        let all = self.api().list(asked).map_err(Failure::into_error)?;
        let ids: Vec<&str> = all
            .iter()
            .filter_map(|one| one.get("subscriptionId").and_then(Value::as_str))
            .collect();
        let chosen = match ids[..] {
            [id] => Some(id.to_owned()),
            [] => None,
            _ => self.chosen_by_az(),
        };
        chosen.ok_or_else(|| {
            let error = if ids.is_empty() {
                Error::usage("the identity sees no subscription")
            } else {
                Error::usage("the identity sees several subscriptions, and none is chosen")
                    .with_found(format_args!(
                        "{}: {}",
                        ids.len(),
                        ids[..ids.len().min(5)].join(", ")
                    ))
            };
            error.with_hint("name one in AZURE_SUBSCRIPTION_ID, or use the resource id of the disk")
        })
    }

    /// The subscription selected in az, if its login is used.
    fn chosen_by_az(&self) -> Option<String> {
        if self.identity().ok()? != "az login" {
            return None;
        }
        let output = Command::new("az")
            .args(["account", "show", "--output", "json"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let value: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(value.get("id")?.as_str()?.to_owned())
    }

    /// Finds the disk or snapshot called `name`.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage) if there is none, or if both a disk and a snapshot have that name.
    pub fn find(&self, name: &ResourceName) -> Result<Resource> {
        if let Some(kind) = name.kind() {
            return self
                .get(name, kind)?
                .ok_or_else(|| missing(name, kind.name()));
        }
        let snapshot = self.get(name, ResourceKind::Snapshot)?;
        let disk = self.get(name, ResourceKind::Disk)?;
        match (snapshot, disk) {
            (Some(found), None) | (None, Some(found)) => Ok(found),
            (None, None) => Err(missing(name, "disk or snapshot")),
            (Some(_), Some(_)) => Err(Error::usage("both a disk and a snapshot have this name")
                .with_path(name.shown())
                .with_hint(format!(
                    "write azure:{0}/disks/{1} or azure:{0}/snapshots/{1}",
                    name.group(),
                    name.name()
                ))),
        }
    }

    /// Finds the disk or snapshot called `name`; `None` if there is none.
    pub fn get(&self, name: &ResourceName, kind: ResourceKind) -> Result<Option<Resource>> {
        let subscription = match name.subscription() {
            Some(_) => "",
            None => self.subscription()?,
        };
        let place = format!("{}?api-version={VERSION}", name.id(subscription, kind));
        match self.look(&place, name.shown()) {
            Ok(value) => Resource::parse(&value)
                .map(Some)
                .map_err(|e| e.with_path(name.shown())),
            // A missing group or subscription is a different error.
            Err(failure) if failure.is("ResourceNotFound") || failure.is("NotFound") => Ok(None),
            Err(failure) => Err(failure.into_error()),
        }
    }

    fn look(&self, place: &str, about: &Path) -> Answer<Value> {
        let asked = Asked {
            method: "GET",
            place,
            body: None,
            doing: "cannot look at",
            about,
        };
        Ok(self.api().send(asked)?.body)
    }

    /// Requests the current description of a disk or snapshot.
    pub fn refresh(&self, resource: &Resource) -> Result<Resource> {
        let name = ResourceName::parse(&resource.id)?;
        self.find(&name)
    }

    /// The snapshots of a resource group, or of the whole subscription.
    pub fn snapshots(&self, subscription: &str, group: Option<&str>) -> Answer<Vec<Resource>> {
        let group = group.map_or(String::new(), |group| format!("/resourceGroups/{group}"));
        let scope = format!("/subscriptions/{subscription}{group}");
        let all = self.api().list(Asked {
            method: "GET",
            place: &format!("{scope}/providers/Microsoft.Compute/snapshots?api-version={VERSION}"),
            body: None,
            doing: "cannot list the snapshots of",
            about: Path::new(&scope),
        })?;
        let parsed: Result<Vec<Resource>> = all.iter().map(Resource::parse).collect();
        Ok(parsed?)
    }

    /// Creates a snapshot, and waits until it exists. A copy to another region continues in the background afterwards.
    pub fn create_snapshot(&self, new: &NewSnapshot<'_>) -> Result<Resource> {
        let name = beside(new.source, new.group, new.name)?;
        if self.get(&name, ResourceKind::Snapshot)?.is_some() {
            return Err(Error::usage("there is a snapshot of this name already")
                .with_path(name.shown())
                .with_hint("choose another name"));
        }
        let far = new
            .region
            .filter(|region| !same_region(region, &new.source.location));
        let option = if far.is_some() { "CopyStart" } else { "Copy" };
        let mut body = json!({
            "location": new.region.unwrap_or(&new.source.location),
            "tags": new.tags,
            "properties": {
                "creationData": { "createOption": option, "sourceResourceId": new.source.id },
                "incremental": new.incremental,
            },
        });
        set_sku(&mut body, new.sku);
        self.put(&name, &body, "cannot make the snapshot")
    }

    /// Creates a disk to which an image will be written.
    pub fn create_disk(&self, name: &ResourceName, new: &NewDisk<'_>) -> Result<Resource> {
        let name = self.new_disk(name)?;
        let mut body = json!({
            "location": new.region,
            "tags": new.tags,
            "properties": {
                "creationData": { "createOption": "Upload", "uploadSizeBytes": new.bytes },
            },
        });
        set_sku(&mut body, new.sku);
        self.put(&name, &body, "cannot make the disk")
    }

    pub(super) fn put(
        &self,
        name: &ResourceName,
        body: &Value,
        doing: &'static str,
    ) -> Result<Resource> {
        let place = format!("{}?api-version={VERSION}", name.shown().to_string_lossy());
        let made = self.api().run(Asked {
            method: "PUT",
            place: &place,
            body: Some(body),
            doing,
            about: name.shown(),
        });
        Resource::parse(&made.map_err(Failure::into_error)?).map_err(|e| e.with_path(name.shown()))
    }

    /// Replaces the tags of a disk or snapshot.
    pub fn set_tags(&self, resource: &Resource, tags: &BTreeMap<String, String>) -> Result<()> {
        let done = self.api().run(Asked {
            method: "PATCH",
            place: &format!("{}?api-version={VERSION}", resource.id),
            body: Some(&json!({ "tags": tags })),
            doing: "cannot change the tags of",
            about: Path::new(&resource.id),
        });
        done.map(drop).map_err(Failure::into_error)
    }

    /// Creates a disk with the content of a snapshot, which the service copies itself.
    pub fn create_disk_from(&self, name: &ResourceName, snapshot: &Resource) -> Result<Resource> {
        check_usable(snapshot, Access::Read, Path::new(&snapshot.id))?;
        let body = json!({
            "location": snapshot.location,
            "properties": {
                "creationData": { "createOption": "Copy", "sourceResourceId": snapshot.id },
            },
        });
        self.put(&self.new_disk(name)?, &body, "cannot make the disk")
    }

    /// The resource id for a new disk called `name`.
    fn new_disk(&self, name: &ResourceName) -> Result<ResourceName> {
        let id = match name.subscription() {
            Some(_) => name.id("", ResourceKind::Disk),
            None => name.id(self.subscription()?, ResourceKind::Disk),
        };
        if name.kind() == Some(ResourceKind::Snapshot) {
            return Err(Error::usage("a disk can't be created as a snapshot")
                .with_path(name.shown())
                .with_hint(format!("write azure:{}/{}", name.group(), name.name())));
        }
        let id = ResourceName::parse(&id)?;
        if self.get(&id, ResourceKind::Disk)?.is_some() {
            return Err(Error::usage("there is a disk of this name already")
                .with_path(name.shown())
                .with_hint("choose another name: a disk that is there is never overwritten"));
        }
        Ok(id)
    }

    /// Deletes a disk or snapshot. Succeeds if it doesn't exist any more.
    pub fn delete(&self, resource: &Resource) -> Result<()> {
        let done = self.api().run(Asked {
            method: "DELETE",
            place: &format!("{}?api-version={VERSION}", resource.id),
            body: None,
            doing: "cannot delete",
            about: Path::new(&resource.id),
        });
        match done {
            Err(failure) if !failure.is("ResourceNotFound") => Err(failure.into_error()),
            _ => Ok(()),
        }
    }

    /// Requests access to `resource`, called `shown` in messages, and opens it for reading or writing. The access is
    /// revoked when the result is dropped.
    pub fn open(&self, resource: &Resource, access: Access, shown: &Path) -> Result<BlobFile> {
        check_usable(resource, access, shown)?;
        self.clean_up();
        let grant = self.grants.grant(resource, access, shown)?;
        let name = grant.current().name;
        let id = BlobId::live(name.blob());
        let store: Arc<dyn PageStore> = Arc::new(Granted(grant));
        let retry = self.api().retry.clone();
        Ok(match access {
            Access::Read => BlobFile::open(store, id, retry)?.granted_by(name),
            Access::Write => BlobFile::open_writable(store, id, retry)?.with_depth(self.depth),
        })
    }

    /// Revokes all access to `resource`, including that of others.
    pub fn revoke(&self, resource: &Resource) -> Result<()> {
        self.grants.revoke(&resource.id, Path::new(&resource.id))
    }

    /// Revokes the access that killed programs left; only on the first call.
    pub fn clean_up(&self) {
        self.cleaned.call_once(|| self.grants.clean_up());
    }
}

pub(super) fn set_sku(body: &mut Value, sku: Option<&str>) {
    if let (Some(sku), Some(body)) = (sku, body.as_object_mut()) {
        body.insert("sku".to_owned(), json!({ "name": sku }));
    }
}

/// Normalizes a region, which may be written as `East US` or `eastus`.
pub(super) fn same_region(a: &str, b: &str) -> bool {
    a.replace(' ', "").eq_ignore_ascii_case(&b.replace(' ', ""))
}

/// The name of a snapshot in the subscription of another resource.
fn beside(source: &Resource, group: &str, name: &str) -> Result<ResourceName> {
    let source = ResourceName::parse(&source.id)?;
    let named = ResourceName::parse(&format!("azure:{group}/snapshots/{name}"))?;
    ResourceName::parse(&named.id(source.subscription().unwrap_or(""), ResourceKind::Snapshot))
}

fn missing(name: &ResourceName, what: &str) -> Error {
    Error::usage(format!("there is no {what} of this name"))
        .with_path(name.shown())
        .with_hint("check the names of group and disk, and the subscription")
}

/// Fails if the bytes of a resource can't be read or written in its current state.
fn check_usable(resource: &Resource, access: Access, shown: &Path) -> Result<()> {
    if let Some(percent) = resource.percent.filter(|_| !resource.is_complete()) {
        return Err(
            Error::new(ErrorKind::Pending, "the snapshot isn't complete yet")
                .with_path(shown)
                .with_found(format_args!("{percent:.0} %"))
                .with_expected("100 %")
                .with_hint("the service is still copying: try again later"),
        );
    }
    let attached = resource
        .state
        .as_deref()
        .is_some_and(|state| state.eq_ignore_ascii_case("Attached"));
    if attached && access == Access::Read {
        return Err(Error::new(
            ErrorKind::Locked,
            "the disk is attached to a running machine",
        )
        .with_path(shown)
        .with_hint("take a snapshot of it, and read that"));
    }
    Ok(())
}
