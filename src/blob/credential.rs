//! Credentials: a signature, an account key, or a token of an identity; and where they come from.

use std::fmt;
use std::sync::Arc;

use super::BlobName;
use super::access::Access;
use super::http::Http;
use super::name::signature;
use super::secret::Secret;
use super::sign::{AccountKey, Signed, shared_key};
use super::token::{STORAGE, Tokens};
use crate::error::{Error, Result};

/// Returns the value of an environment variable, or `None` if it isn't set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The credentials for requests.
pub struct Credential {
    kind: Kind,
    access: Access,
}

enum Kind {
    Signature(Secret),
    Key { account: String, key: AccountKey },
    Token(Arc<Tokens>),
    None,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.access.what())
    }
}

impl Credential {
    /// No credentials: only public data can be read.
    pub fn none() -> Self {
        Self {
            kind: Kind::None,
            access: Access::None,
        }
    }

    /// Credentials with an account key.
    pub fn key(account: impl Into<String>, key: AccountKey, from: &'static str) -> Self {
        Self {
            kind: Kind::Key {
                account: account.into(),
                key,
            },
            access: Access::Key { from },
        }
    }

    pub(super) fn of_signature(sas: Secret, origin: &'static str) -> Self {
        Self {
            access: Access::of_signature(&sas, origin),
            kind: Kind::Signature(sas),
        }
    }

    /// Finds the first credentials available for `name`: a signature in it, `AZURE_STORAGE_SAS_TOKEN`,
    /// `AZURE_STORAGE_CONNECTION_STRING`, `AZURE_STORAGE_KEY` (with `AZURE_STORAGE_ACCOUNT`), then an identity:
    /// `AZURE_CLIENT_ID` with a secret or a workload's token file, the identity of a machine, and finally that of `az
    /// login`.
    ///
    /// Credentials for another account are not used, and a token is sent only to the service itself or to this machine.
    ///
    /// # Errors
    ///
    /// A variable that is set but invalid is an error; it isn't skipped.
    pub fn resolve(name: &BlobName, environment: Lookup<'_>, http: &Http) -> Result<Self> {
        if let Some(sas) = name.sas() {
            return Ok(Self::of_signature(sas.clone(), "the address"));
        }
        let account = name.endpoint().account();
        let lookup =
            |variable: &str| environment(variable).filter(|value| !value.trim().is_empty());
        // An explicit account name means that account only.
        let said = lookup("AZURE_STORAGE_ACCOUNT");
        let ours = said.as_deref().is_none_or(|said| said.trim() == account);
        if let Some(text) = lookup("AZURE_STORAGE_SAS_TOKEN").filter(|_| ours) {
            const VARIABLE: &str = "AZURE_STORAGE_SAS_TOKEN";
            let sas = signature(&text).ok_or_else(|| {
                Error::usage("the value of AZURE_STORAGE_SAS_TOKEN is not a signature (SAS)").with_hint(
                    "a signature looks like sv=...&sig=...: set it between single quotes, or unset the variable",
                )
            })?;
            return Ok(Self::of_signature(sas, VARIABLE));
        }
        if let Some(text) = lookup("AZURE_STORAGE_CONNECTION_STRING")
            && let Some(credential) = connection(&text, account)?
        {
            return Ok(credential);
        }
        if let Some(key) = lookup("AZURE_STORAGE_KEY").filter(|_| ours) {
            let key = AccountKey::new(&key)
                .map_err(|e| e.with_found("the value of AZURE_STORAGE_KEY"))?;
            return Ok(Self::key(account, key, "AZURE_STORAGE_KEY"));
        }
        let endpoint = name.endpoint();
        let trusted = endpoint.is_service() && endpoint.is_encrypted() || endpoint.is_loopback();
        if !trusted {
            // A token would expose everything of its owner to whoever answers there.
            return Ok(Self::none());
        }
        match Tokens::find(&lookup, http, (STORAGE, None))? {
            Some(tokens) => Ok(Self {
                access: Access::Token {
                    from: tokens.origin(),
                },
                kind: Kind::Token(Arc::new(tokens)),
            }),
            None => Ok(Self::none()),
        }
    }

    /// The kind of access that requests use.
    pub fn access(&self) -> &Access {
        &self.access
    }

    pub(super) fn signature(&self) -> Option<&Secret> {
        match &self.kind {
            Kind::Signature(sas) => Some(sas),
            _ => None,
        }
    }

    /// The value of the header `Authorization`, if these credentials use it.
    pub(super) fn authorization(
        &self,
        http: &Http,
        method: &str,
        path: &str,
        query: &[(&str, String)],
        headers: &[(&str, String)],
    ) -> Result<Option<String>> {
        match &self.kind {
            Kind::Key { account, key } => {
                let request = Signed {
                    method,
                    path,
                    query,
                    headers,
                };
                shared_key(account, key, &request).map(Some)
            }
            Kind::Token(tokens) => Ok(Some(format!("Bearer {}", tokens.get(http)?.expose()))),
            Kind::Signature(_) | Kind::None => Ok(None),
        }
    }

    /// Fetches a new token. Returns whether another attempt may be accepted.
    pub(super) fn renew(&self) -> bool {
        match &self.kind {
            Kind::Token(tokens) => tokens.forget(),
            _ => false,
        }
    }
}

/// The credentials in a connection string for `account`, or `None` if it is for another one.
fn connection(text: &str, account: &str) -> Result<Option<Credential>> {
    const VARIABLE: &str = "AZURE_STORAGE_CONNECTION_STRING";
    let refuse = |what: &str| {
        Error::usage(format!(
            "the value of AZURE_STORAGE_CONNECTION_STRING {what}"
        ))
        .with_hint(
            "copy it again from the storage account, between single quotes, or unset the variable",
        )
    };
    let (mut named, mut key, mut sas, mut blobs) = (None, None, None, None);
    for part in text
        .trim()
        .split(';')
        .filter(|part| !part.trim().is_empty())
    {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| refuse("is not made of NAME=VALUE"))?;
        match name.trim().to_ascii_lowercase().as_str() {
            "accountname" => named = Some(value.trim()),
            "accountkey" => key = Some(value),
            "sharedaccesssignature" => sas = Some(value),
            "blobendpoint" => blobs = Some(value.trim()),
            _ => {}
        }
    }
    // A string with a signature may contain its account in the address only.
    let of_address = blobs.and_then(|address| {
        let container = format!("{}/container", address.trim_end_matches('/'));
        Some(
            BlobName::parse(&container)
                .ok()?
                .endpoint()
                .account()
                .to_owned(),
        )
    });
    let named = named.map(str::to_owned).or(of_address);
    match named {
        Some(named) if named != account => return Ok(None),
        Some(_) => {}
        None => return Err(refuse("contains no account")),
    }
    if let Some(key) = key {
        let key = AccountKey::new(key).map_err(|_| refuse("has a key that is not base64"))?;
        return Ok(Some(Credential::key(account, key, VARIABLE)));
    }
    let sas = sas.ok_or_else(|| refuse("has neither a key nor a signature"))?;
    let sas = signature(sas).ok_or_else(|| refuse("has a truncated signature"))?;
    Ok(Some(Credential::of_signature(sas, VARIABLE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::http::Route;

    const KEY: &str = "aGlkZGVuLWtleS1vZi10aGUtYWNjb3VudA==";
    const SAS: &str = "?sv=2021-12-02&sp=r&sig=hidden";

    fn connected(text: &str) -> (&str, &str) {
        ("AZURE_STORAGE_CONNECTION_STRING", text)
    }

    fn resolve(address: &str, variables: &[(&str, &str)]) -> Result<Credential> {
        let http = Http::new(&Route::default()).unwrap();
        let lookup = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Credential::resolve(&BlobName::parse(address).unwrap(), &lookup, &http)
    }

    #[test]
    fn the_first_that_is_there_is_taken() {
        let plain = "https://example.org/acct/disks/x";
        let string = format!("DefaultEndpointsProtocol=https;AccountName=acct;AccountKey={KEY};");
        let signed = format!(
            "BlobEndpoint=https://acct.blob.core.windows.net/;SharedAccessSignature={}",
            &SAS[1..]
        );
        let other = format!("AccountName=other;AccountKey={KEY}");
        let key = ("AZURE_STORAGE_KEY", KEY);
        let sas = ("AZURE_STORAGE_SAS_TOKEN", SAS);
        for (address, variables, expected) in [
            (
                format!("{plain}{SAS}"),
                vec![sas, key],
                "a signature (SAS) from the address",
            ),
            (
                plain.into(),
                vec![key, sas, connected(&string)],
                "a signature (SAS) from AZURE_STORAGE_SAS_TOKEN",
            ),
            (
                plain.into(),
                vec![key, connected(&string)],
                "the account key from AZURE_STORAGE_CONNECTION_STRING",
            ),
            (
                plain.into(),
                vec![connected(&signed)],
                "a signature (SAS) from AZURE_STORAGE_CONNECTION_STRING",
            ),
            (
                plain.into(),
                vec![key, connected(&other)],
                "the account key from AZURE_STORAGE_KEY",
            ),
            (
                plain.into(),
                vec![key, ("AZURE_STORAGE_ACCOUNT", "acct")],
                "the account key from AZURE_STORAGE_KEY",
            ),
            (
                plain.into(),
                vec![key, sas, ("AZURE_STORAGE_ACCOUNT", "other")],
                "nothing",
            ),
            (plain.into(), vec![("AZURE_STORAGE_KEY", " ")], "nothing"),
            // No token for whoever answers there.
            (
                plain.into(),
                vec![
                    ("IDENTITY_ENDPOINT", "http://127.0.0.1:1"),
                    ("IDENTITY_HEADER", "x"),
                ],
                "nothing",
            ),
        ] {
            let credential = resolve(&address, &variables).unwrap();
            assert_eq!(credential.access().what(), expected);
            let shown = format!("{credential:?}");
            assert!(!shown.contains("hidden") && !shown.contains(KEY), "{shown}");
        }
    }

    #[test]
    fn what_is_set_and_wrong_is_told_without_showing_it() {
        for (variable, value) in [
            ("AZURE_STORAGE_SAS_TOKEN", "sv=hidden"),
            ("AZURE_STORAGE_KEY", "hidden!"),
            ("AZURE_STORAGE_CONNECTION_STRING", "hidden"),
            (
                "AZURE_STORAGE_CONNECTION_STRING",
                "AccountName=acct;AccountKey=hidden!",
            ),
            ("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=hidden"),
            ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=acct"),
        ] {
            let error =
                resolve("https://example.org/acct/disks/x", &[(variable, value)]).unwrap_err();
            let said = format!("{error:?}");
            assert!(
                said.contains(variable) && !said.contains("hidden"),
                "{said}"
            );
        }
    }
}
