//! Resource groups: where snapshots and disks are created.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::api::Asked;
use super::manager::Cloud;
use super::name::ResourceName;
use super::resource::Resource;
use crate::blob::Failure;
use crate::error::{Error, Result};

/// API version of requests about resource groups.
const VERSION: &str = "2021-04-01";

/// The name of a resource group: `azure:GROUP`, or its resource id `/subscriptions/ID/resourceGroups/GROUP`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupName {
    subscription: Option<String>,
    group: String,
    shown: PathBuf,
}

impl GroupName {
    /// Parses a name.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::ErrorKind::Usage) unless it has one of the forms.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = || {
            Error::usage("this is not the name of a resource group")
                .with_path(crate::text::without_secrets(text).into_owned())
                .with_hint("write azure:GROUP, or /subscriptions/ID/resourceGroups/GROUP")
        };
        let (subscription, group) = match text.strip_prefix('/') {
            Some(id) => match id.trim_end_matches('/').split('/').collect::<Vec<_>>()[..] {
                [a, subscription, b, group]
                    if a.eq_ignore_ascii_case("subscriptions")
                        && b.eq_ignore_ascii_case("resourceGroups") =>
                {
                    (Some(subscription), group)
                }
                _ => return Err(refuse()),
            },
            None => match text.split_once(':') {
                Some((scheme, group)) if scheme.eq_ignore_ascii_case("azure") => {
                    (None, group.trim_matches('/'))
                }
                _ => return Err(refuse()),
            },
        };
        if group.contains('/') {
            return Err(refuse().override_hint(
                "name the group alone, as azure:GROUP: the new resources are named like their sources",
            ));
        }
        // The rules for groups are those of the names of resources in them.
        let id = format!(
            "/subscriptions/{}/resourceGroups/{group}/providers/Microsoft.Compute/disks/x",
            subscription.unwrap_or("x")
        );
        ResourceName::parse(&id).map_err(|_| refuse())?;
        Ok(Self {
            subscription: subscription.map(str::to_owned),
            group: group.to_owned(),
            shown: text.into(),
        })
    }

    /// Returns whether `path` is such a name, and not that of a disk or snapshot in a group.
    pub fn is_name(path: &Path) -> bool {
        path.to_str().is_some_and(|text| Self::parse(text).is_ok())
            && std::fs::symlink_metadata(path).is_err()
    }

    /// As it was typed.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The name within its subscription.
    pub fn name(&self) -> &str {
        &self.group
    }
}

/// A resource group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// Its subscription.
    pub subscription: String,
    /// Its name.
    pub name: String,
    /// The region of its description, in which new resources are created by default.
    pub location: String,
}

impl Group {
    /// The name of a snapshot in it.
    pub fn snapshot(&self, name: &str) -> Result<ResourceName> {
        let id = format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Compute/snapshots/{name}",
            self.subscription, self.name
        );
        ResourceName::parse(&id)
    }
}

impl Cloud {
    /// Finds the resource group called `name`; `None` if its subscription has none. Groups aren't created by this program.
    pub fn group(&self, name: &GroupName) -> Result<Option<Group>> {
        let subscription = match &name.subscription {
            Some(id) => id.as_str(),
            None => self.subscription()?,
        };
        let place = format!(
            "/subscriptions/{subscription}/resourceGroups/{}",
            name.group
        );
        let found = self.api().send(Asked {
            method: "GET",
            place: &format!("{place}?api-version={VERSION}"),
            body: None,
            doing: "cannot look at the resource group",
            about: name.shown(),
        });
        let found = match found {
            Err(failure) if failure.is("ResourceGroupNotFound") => return Ok(None),
            answer => answer.map_err(Failure::into_error)?.body,
        };
        let location = found.get("location").and_then(Value::as_str);
        let location = location.ok_or_else(|| {
            Error::unsupported("the resource manager describes a group in a way that isn't known")
                .with_path(name.shown())
                .with_found("no location")
        })?;
        Ok(Some(Group {
            subscription: subscription.to_owned(),
            name: name.group.clone(),
            location: location.to_owned(),
        }))
    }

    /// The snapshots in a group, of any disk.
    pub fn snapshots_in(&self, group: &Group) -> Result<Vec<Resource>> {
        self.snapshots(&group.subscription, Some(&group.name))
            .map_err(Failure::into_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_named_alone() {
        for (text, subscription) in [
            ("azure:dr", None),
            ("azure:dr/", None),
            ("/subscriptions/0-1/resourceGroups/dr", Some("0-1")),
        ] {
            let name = GroupName::parse(text).unwrap();
            assert_eq!(
                (name.name(), name.subscription.as_deref()),
                ("dr", subscription)
            );
        }
        for text in [
            "azure:",
            "azure:dr/web",
            "dr",
            "azure:a b",
            "azure:dr.",
            "/subscriptions/s/resourceGroups/",
            "/subscriptions/s/groups/dr",
            "azure:dr?sig=hidden",
        ] {
            let error = GroupName::parse(text).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(error.hint().is_some() && !said.contains("hidden"), "{said}");
        }
    }
}
