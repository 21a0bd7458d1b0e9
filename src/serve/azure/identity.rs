//! The server's ids and credentials: created at the first start, kept in the folder, readable only by its owner.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::text::{now, uuid};
use super::volume::{load_json, save_json};
use crate::blob::AccountKey;
use crate::error::{Error, Result};
use crate::storage::Audience;

/// The file that it is kept in.
const FILE: &str = "azure.json";

/// Lifetime of a token in seconds.
pub(super) const TOKEN_TIME: i64 = 24 * 3600;

/// Ids, keys and passwords.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    schema_version: u32,
    /// The id of the one subscription.
    pub subscription: String,
    /// The id of the one tenant.
    pub tenant: String,
    /// The id of the one service principal.
    pub client_id: String,
    /// Its password.
    pub client_secret: String,
    /// The default location of resources.
    pub location: String,
    /// The name of the one storage account.
    pub account: String,
    /// Its key, in base64.
    pub account_key: String,
    /// The secret that a program needs to get a token of the managed identity.
    pub identity_header: String,
    /// The key that tokens are signed with.
    token_key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("subscription", &self.subscription)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Returns whether the folder has one, whatever it is.
    pub(super) fn is_in(folder: &Path) -> bool {
        std::fs::symlink_metadata(folder.join(FILE)).is_ok()
    }

    /// Reads the identity from the folder, or creates it.
    pub(super) fn load_or_make(folder: &Path, account: &str, location: &str) -> Result<Self> {
        let path = folder.join(FILE);
        if path.exists() {
            let known: Self = load_json(&path)?;
            if known.schema_version != 1 {
                return Err(
                    Error::unsupported("this folder was made by a newer program")
                        .with_path(path)
                        .with_field("schema_version")
                        .with_found(known.schema_version)
                        .with_expected(1),
                );
            }
            return Ok(known);
        }
        let made = Self {
            schema_version: 1,
            subscription: uuid(),
            tenant: uuid(),
            client_id: uuid(),
            client_secret: random(),
            location: location.to_owned(),
            account: account.to_owned(),
            account_key: BASE64_STANDARD.encode(random()),
            identity_header: random(),
            token_key: BASE64_STANDARD.encode(random()),
        };
        save_json(&path, &made, &Audience::nobody_else())?;
        Ok(made)
    }

    /// A token for `audience`, of the principal `who`.
    pub(super) fn token(&self, audience: &str, who: &str) -> Result<String> {
        let head = json!({ "alg": "HS256", "typ": "JWT" });
        let time = now();
        let claims = json!({
            "aud": audience, "iss": format!("https://vhdkit.invalid/{}/", self.tenant),
            "iat": time, "nbf": time, "exp": time + TOKEN_TIME,
            "tid": self.tenant, "oid": who, "sub": who, "appid": who, "ver": "1.0",
            "xms_mirid": format!("/subscriptions/{}/vhdkit", self.subscription),
        });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&head), part(&claims));
        let signature = self.signed(&text)?;
        Ok(format!("{text}.{signature}"))
    }

    /// Whether a token was made here, and hasn't expired.
    pub(super) fn is_valid(&self, token: &str) -> bool {
        let Some((text, signature)) = token.rsplit_once('.') else {
            return false;
        };
        let Ok(expected) = self.signed(text) else {
            return false;
        };
        if !same(signature.as_bytes(), expected.as_bytes()) {
            return false;
        }
        let claims = text
            .split_once('.')
            .and_then(|(_, claims)| BASE64_URL_SAFE_NO_PAD.decode(claims).ok());
        let claims: Option<Value> = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
        let until = claims.and_then(|claims| claims.get("exp").and_then(Value::as_i64));
        until.is_some_and(|until| now() < until)
    }

    fn signed(&self, text: &str) -> Result<String> {
        let signature = AccountKey::new(&self.token_key)?.sign(text)?;
        Ok(signature
            .replace('+', "-")
            .replace('/', "_")
            .replace('=', ""))
    }
}

/// Thirty-two random bytes as text.
pub(super) fn random() -> String {
    let mut bytes = uuid::Uuid::new_v4().into_bytes().to_vec();
    bytes.extend(uuid::Uuid::new_v4().into_bytes());
    bytes.extend(uuid::Uuid::new_v4().into_bytes());
    // Six bits of each id are fixed.
    BASE64_URL_SAFE_NO_PAD.encode(blake3::hash(&bytes).as_bytes())
}

/// Compares two secrets in a time that doesn't depend on where they differ.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    blake3::hash(a) == blake3::hash(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_tokens_are_good() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_make(folder.path(), "local", "eastus").unwrap();
        let token = identity.token("x", "me").unwrap();
        assert!(identity.is_valid(&token));
        for bad in [
            "",
            "a.b.c",
            &token[..token.len() - 1],
            &token.replace('.', ""),
        ] {
            assert!(!identity.is_valid(bad), "{bad}");
        }
        let (text, _) = token.rsplit_once('.').unwrap();
        assert!(!identity.is_valid(&format!("{text}.")));
        let again = Identity::load_or_make(folder.path(), "other", "westus").unwrap();
        assert!(again.is_valid(&token) && again.account == "local");
        let others = tempfile::tempdir().unwrap();
        let other = Identity::load_or_make(others.path(), "local", "eastus").unwrap();
        assert!(!other.is_valid(&token));
        assert!(!format!("{identity:?}").contains(&identity.client_secret));
    }
}
