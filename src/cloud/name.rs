//! Names of managed disks and snapshots.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The forms of a name, for advice.
const FORMS: &str = "write azure:GROUP/NAME, azure:GROUP/snapshots/NAME or a resource id, as \
                     /subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.Compute/disks/NAME";

/// The kind of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// A managed disk.
    Disk,
    /// A snapshot of one.
    Snapshot,
}

impl ResourceKind {
    /// Its name in a path.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Disk => "disks",
            Self::Snapshot => "snapshots",
        }
    }

    /// Its name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Snapshot => "snapshot",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "disks" => Some(Self::Disk),
            "snapshots" => Some(Self::Snapshot),
            _ => None,
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of a managed disk or a snapshot: `azure:GROUP/NAME`, optionally with `disks/` or `snapshots/` before the
/// name, or a resource id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceName {
    subscription: Option<String>,
    group: String,
    kind: Option<ResourceKind>,
    name: String,
    shown: PathBuf,
}

impl ResourceName {
    /// Returns whether `path` is such a name, valid or not. A file or folder of exactly that name takes precedence.
    pub fn is_name(path: &Path) -> bool {
        let Some(text) = path.to_str() else {
            return false;
        };
        let lower = text.to_ascii_lowercase();
        let scheme = lower.starts_with("azure:") && !lower.starts_with("azure::");
        let id =
            lower.starts_with("/subscriptions/") && lower.contains("/providers/microsoft.compute/");
        (scheme || id) && fs::symlink_metadata(path).is_err()
    }

    /// Parses a name.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::ErrorKind::Usage) unless it has one of the forms.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |what: &str| {
            let shown = crate::text::without_secrets(text).into_owned();
            Err(Error::usage(what.to_owned())
                .with_path(shown)
                .with_hint(FORMS))
        };
        let (subscription, group, kind, name) = if text.starts_with('/') {
            let parts: Vec<&str> = text.trim_matches('/').split('/').collect();
            let &[a, subscription, b, group, c, provider, kind, name] = &parts[..] else {
                return refuse("this is not the resource id of a disk or snapshot");
            };
            let words = [a, b, c, provider].map(str::to_ascii_lowercase);
            let kind = ResourceKind::parse(kind);
            if words
                != [
                    "subscriptions",
                    "resourcegroups",
                    "providers",
                    "microsoft.compute",
                ]
                || kind.is_none()
            {
                return refuse("this is not the resource id of a disk or snapshot");
            }
            (Some(subscription), group, kind, name)
        } else {
            let place = text.split_once(':').map_or("", |(_, place)| place);
            match place.trim_start_matches('/').split('/').collect::<Vec<_>>()[..] {
                [group, name] => (None, group, None, name),
                [group, kind, name] => match ResourceKind::parse(kind) {
                    Some(kind) => (None, group, Some(kind), name),
                    None => return refuse("this is not the name of a disk or snapshot"),
                },
                _ => return refuse("this is not the name of a disk or snapshot"),
            }
        };
        let is_word = |text: &str, longest: usize, also: &str| {
            (1..=longest).contains(&text.chars().count())
                && text
                    .chars()
                    .all(|c| c.is_alphanumeric() || also.contains(c))
        };
        if !is_word(group, 90, "_-.()") || group.ends_with('.') {
            return refuse("a resource group can't have such a name");
        }
        if !is_word(name, 80, "_-.") || name.starts_with('.') {
            return refuse("a disk or snapshot can't have such a name");
        }
        if subscription.is_some_and(|id| !is_word(id, 80, "-")) {
            return refuse("a subscription can't have such an id");
        }
        Ok(Self {
            subscription: subscription.map(str::to_owned),
            group: group.to_owned(),
            kind,
            name: name.to_owned(),
            shown: text.into(),
        })
    }

    /// As it was typed.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The subscription, if it is named.
    pub fn subscription(&self) -> Option<&str> {
        self.subscription.as_deref()
    }

    /// The resource group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The kind of the resource, if the name specifies it.
    pub fn kind(&self) -> Option<ResourceKind> {
        self.kind
    }

    /// The name within its group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The resource id in `subscription`, which is used if the name has none.
    pub(super) fn id(&self, subscription: &str, kind: ResourceKind) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Compute/{}/{}",
            self.subscription.as_deref().unwrap_or(subscription),
            self.group,
            kind.plural(),
            self.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        let id = "/subscriptions/0-1/resourcegroups/Prod/providers/microsoft.compute/Disks/web";
        for (text, subscription, kind) in [
            ("azure:Prod/web", None, None),
            ("azure:Prod/disks/web", None, Some(ResourceKind::Disk)),
            (
                "azure:Prod/snapshots/web",
                None,
                Some(ResourceKind::Snapshot),
            ),
            (id, Some("0-1"), Some(ResourceKind::Disk)),
        ] {
            assert!(ResourceName::is_name(Path::new(text)), "{text}");
            let name = ResourceName::parse(text).unwrap();
            assert_eq!((name.group(), name.name()), ("Prod", "web"), "{text}");
            assert_eq!(
                (name.subscription(), name.kind()),
                (subscription, kind),
                "{text}"
            );
            assert_eq!(name.shown(), Path::new(text));
        }
        let name = ResourceName::parse("azure:g/d").unwrap();
        assert_eq!(
            name.id("s", ResourceKind::Disk),
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/d"
        );
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        for text in [
            "azure:",
            "azure:web",
            "azure:/",
            "azure:g/",
            "azure:g/vms/x",
            "azure:g/disks/x/y",
            "azure:g/..",
            "azure:g/a b",
            "azure:g/a?sig=hidden",
            "azure:g./a",
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/images/x",
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks",
        ] {
            let error = ResourceName::parse(text).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(error.hint().is_some() && !said.contains("hidden"), "{said}");
        }
        for text in [
            "azure::web@mon",
            "disk.vhd",
            "/subscriptions",
            "azurelike:x/y",
        ] {
            assert!(!ResourceName::is_name(Path::new(text)), "{text}");
        }
    }
}
