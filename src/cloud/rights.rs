//! The rights of an identity, according to the resource manager.

use std::path::Path;

use serde_json::Value;

use super::api::Asked;
use super::manager::Cloud;
use super::resource::Resource;
use crate::blob::Failure;
use crate::error::Result;

/// API version of requests about rights.
const VERSION: &str = "2022-04-01";

/// The rights of an identity on a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    /// The actions that each role allows, and those that it excludes.
    roles: Vec<(Vec<String>, Vec<String>)>,
}

impl Rights {
    fn parse(roles: &[Value]) -> Self {
        let texts = |role: &Value, name: &str| -> Vec<String> {
            let list = role
                .get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            list.filter_map(|text| Some(text.as_str()?.to_ascii_lowercase()))
                .collect()
        };
        let both = |role| (texts(role, "actions"), texts(role, "notActions"));
        Self {
            roles: roles.iter().map(both).collect(),
        }
    }

    /// Returns whether an action is allowed: `Microsoft.Compute/snapshots/read`.
    pub fn allow(&self, action: &str) -> bool {
        let action = action.to_ascii_lowercase();
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, &action));
        self.roles
            .iter()
            .any(|(allowed, taken)| any(allowed) && !any(taken))
    }
}

/// Returns whether `pattern`, in which `*` matches anything, matches all of `text`.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or(""),
            None => return false,
        }
    }
    rest.ends_with(last)
}

impl Cloud {
    /// Returns the rights of the identity on a disk, and on the snapshots in its group.
    pub fn rights(&self, resource: &Resource) -> Result<Rights> {
        let place = format!(
            "{}/providers/Microsoft.Authorization/permissions?api-version={VERSION}",
            resource.id
        );
        let roles = self.api().list(Asked {
            method: "GET",
            place: &place,
            body: None,
            doing: "cannot ask for the rights on",
            about: Path::new(&resource.id),
        });
        Ok(Rights::parse(&roles.map_err(Failure::into_error)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn actions_are_matched_by_their_patterns() {
        let rights = Rights::parse(&[
            json!({ "actions": ["Microsoft.Compute/snapshots/*", "*/read"], "notActions": ["Microsoft.Compute/*/delete"] }),
            json!({ "actions": ["Microsoft.Compute/disks/beginGetAccess/action"], "notActions": [] }),
            json!({}),
        ]);
        for (action, allowed) in [
            ("Microsoft.Compute/snapshots/read", true),
            ("microsoft.compute/SNAPSHOTS/beginGetAccess/action", true),
            ("Microsoft.Compute/disks/read", true),
            ("Microsoft.Compute/snapshots/delete", false),
            ("Microsoft.Compute/disks/write", false),
            ("Microsoft.Compute/disks/beginGetAccess/action", true),
        ] {
            assert_eq!(rights.allow(action), allowed, "{action}");
        }
        assert!(!Rights::default().allow("x"));
    }
}
