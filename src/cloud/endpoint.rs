//! The resource manager to use, and the tokens that it accepts.

use serde_json::Value;

use crate::blob::{Call, Http, Secret, Tokens};
use crate::error::{Error, ErrorKind, Result};

/// The environment variable with the address of another resource manager.
pub(super) const VARIABLE: &str = "AZURE_RESOURCE_MANAGER_ENDPOINT";

/// The resource manager of the public cloud.
const PUBLIC: &str = "https://management.azure.com";

/// The longest description of a cloud that is read.
const LONGEST: u64 = 1 << 20;

/// A resource manager.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Scheme, host and port.
    pub(super) root: String,
    pub(super) tokens: Tokens,
}

impl Endpoint {
    /// The resource manager set in the environment, or the public one.
    pub(super) fn find(environment: &dyn Fn(&str) -> Option<String>, http: &Http) -> Result<Self> {
        let lookup = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let root = lookup(VARIABLE).unwrap_or_else(|| PUBLIC.to_owned());
        let root = checked(root.trim())?;
        let (resource, authority) = if root == PUBLIC {
            (PUBLIC.to_owned(), None)
        } else {
            described(&root, http)?
        };
        let tokens = Tokens::find(&lookup, http, (&resource, authority.as_deref()))?;
        let tokens = tokens.ok_or_else(|| {
            Error::usage("there is no identity to ask the resource manager with")
                .with_path(&root)
                .with_hint(
                    "sign in with: az login; or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
                )
        })?;
        Ok(Self { root, tokens })
    }

    /// The address of a path, or of an address returned by the service.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported) for an address on another host: the token isn't sent there.
    pub(super) fn address(&self, place: &str) -> Result<String> {
        if place.starts_with('/') {
            return Ok(format!("{}{place}", self.root));
        }
        let (scheme, rest) = place.split_once("://").unwrap_or(("", place));
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let root = format!(
            "{}://{}",
            scheme.to_ascii_lowercase(),
            host.to_ascii_lowercase()
        );
        let root = root.strip_suffix(":443").unwrap_or(&root);
        let (_, own) = self.root.split_once("://").unwrap_or(("", &self.root));
        // Regions have subdomains of the service's host.
        let regional = root.starts_with("https://") && root.ends_with(&format!(".{own}"));
        if root == self.root || regional {
            return Ok(format!("{root}{path}"));
        }
        Err(
            Error::unsupported("the resource manager refers to another host, which isn't trusted")
                .with_path(&self.root)
                .with_found(root)
                .with_hint(
                    "check the address of the resource manager, and what is between here and it",
                ),
        )
    }
}

/// The address without a trailing slash. Tokens are sent only over TLS, unless they stay on this machine.
fn checked(root: &str) -> Result<String> {
    let root = root.trim_end_matches('/').to_ascii_lowercase();
    let local = ["http://127.0.0.1:", "http://localhost:"];
    let host = if local.iter().any(|start| root.starts_with(start)) {
        root.strip_prefix("http://")
    } else {
        root.strip_prefix("https://")
    };
    let host = host.unwrap_or("");
    if host.is_empty() || host.contains(['/', '?', '#', '@']) || host.contains(char::is_whitespace)
    {
        return Err(Error::usage(format!("{VARIABLE} is not an https address"))
            .with_hint("set it as https://HOST, or unset it"));
    }
    Ok(root.strip_suffix(":443").unwrap_or(&root).to_owned())
}

/// The resource that a cloud's tokens are for, and their issuer, from the cloud's description of itself.
fn described(root: &str, http: &Http) -> Result<(String, Option<String>)> {
    let address = format!("{root}/metadata/endpoints?api-version=2022-09-01");
    let call = Call {
        method: "GET",
        url: &Secret::new(address),
        headers: &[],
        body: &[],
    };
    let doing = "cannot ask for the description of the cloud at";
    let reply = http
        .send_within(&call, None)
        .map_err(|e| http.failure(doing, root.as_ref(), &e).into_error())?;
    let wrong = |found: String| {
        Error::new(
            ErrorKind::Unsupported,
            "this is not the address of a resource manager",
        )
        .with_path(root)
        .with_found(found)
        .with_hint(format!("check {VARIABLE}"))
    };
    let status = reply.status();
    if status != 200 {
        return Err(wrong(format!("status {status}")));
    }
    let body = reply
        .read_all(LONGEST)
        .map_err(|e| Error::io(doing, e).with_path(root))?;
    let value: Value = serde_json::from_slice(&body).map_err(|e| wrong(e.to_string()))?;
    // Older answers are lists.
    let cloud = value.get(0).unwrap_or(&value);
    let text = |pointer: &str| cloud.pointer(pointer).and_then(Value::as_str);
    let resource = text("/authentication/audiences/0")
        .ok_or_else(|| wrong("no authentication.audiences".to_owned()))?;
    let authority = text("/authentication/loginEndpoint").map(str::to_owned);
    Ok((resource.trim_end_matches('/').to_owned(), authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stay_with_the_resource_manager() {
        for (text, root) in [
            ("https://127.0.0.1:10443/", "https://127.0.0.1:10443"),
            ("http://127.0.0.1:7", "http://127.0.0.1:7"),
            (
                "https://Management.Azure.com:443",
                "https://management.azure.com",
            ),
        ] {
            assert_eq!(checked(text).unwrap(), root);
        }
        for text in [
            "http://10.0.0.1:1",
            "https://",
            "https://a/b",
            "https://u@h",
            "management.azure.com",
        ] {
            assert!(checked(text).is_err(), "{text}");
        }
    }
}
