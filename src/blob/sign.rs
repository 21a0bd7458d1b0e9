//! Shared Key: signing a request with the account key.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::secret::Secret;
use crate::error::{Error, Result};

/// Headers with a line of their own in the signed text, in that order; all but `content-length` are empty if missing.
const STANDARD: &[&str] = &[
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// The key of a storage account.
#[derive(Debug, Clone)]
pub struct AccountKey(Secret);

impl AccountKey {
    /// Parses base64, as shown in the portal.
    pub fn new(base64: &str) -> Result<Self> {
        match BASE64_STANDARD.decode(base64.trim()) {
            Ok(key) if !key.is_empty() => Ok(Self(Secret::new(base64.trim()))),
            _ => Err(Error::usage("the key of the storage account is not base64")
                .with_hint("copy the key again, with the = signs at its end")),
        }
    }

    /// The signature of `text` in base64: an HMAC with SHA-256.
    pub(crate) fn sign(&self, text: &str) -> Result<String> {
        let failed = || Error::usage("the key of the storage account can't be used");
        let key = BASE64_STANDARD.decode(self.0.expose());
        let key = key.map_err(|_| failed())?;
        let mut hmac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| failed())?;
        hmac.update(text.as_bytes());
        Ok(BASE64_STANDARD.encode(hmac.finalize().into_bytes()))
    }
}

/// The signed parts of a request.
#[derive(Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    /// Percent-encoded, as it is sent.
    pub(crate) path: &'a str,
    /// Names and values of the parameters, decoded.
    pub(crate) query: &'a [(&'a str, String)],
    /// All headers, with names in lower case, including `content-length` if there is a body.
    pub(crate) headers: &'a [(&'a str, String)],
}

/// The value of the header `Authorization`.
pub(crate) fn shared_key(account: &str, key: &AccountKey, request: &Signed<'_>) -> Result<String> {
    let signature = key.sign(&string_to_sign(account, request))?;
    Ok(format!("SharedKey {account}:{signature}"))
}

fn string_to_sign(account: &str, request: &Signed<'_>) -> String {
    let value = |name: &str| {
        let mut found = request.headers.iter().filter(|(header, _)| *header == name);
        found.next().map_or("", |(_, value)| value.trim())
    };
    let mut text = request.method.to_owned();
    for name in STANDARD {
        text.push('\n');
        text += match (*name, value(name)) {
            // An empty body is signed as nothing; the time is signed as `x-ms-date`.
            ("content-length", "0") => "",
            ("date", _) if !value("x-ms-date").is_empty() => "",
            (_, value) => value,
        };
    }
    let mut own: Vec<_> = request.headers.iter().collect();
    own.retain(|(name, _)| name.starts_with("x-ms-"));
    own.sort_by_key(|(name, _)| *name);
    for (name, value) in own {
        let _ = write!(text, "\n{name}:{}", value.trim());
    }
    // The account appears twice if it is also the first part of the path.
    let _ = write!(text, "\n/{account}{}", request.path);
    let mut query: Vec<_> = request.query.iter().collect();
    query.sort();
    for (name, value) in query {
        let _ = write!(text, "\n{name}:{value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AccountKey {
        AccountKey::new(&BASE64_STANDARD.encode("vhdkit-local-key-not-secret-0123")).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        pairs
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect()
    }

    /// Requests of other programs, with the signatures that they computed.
    #[test]
    fn other_clients_sign_the_same() {
        let common = [
            ("accept", "application/xml"),
            ("x-ms-version", "2026-04-06"),
        ];
        let create = [
            ("content-length", "0"),
            (
                "x-ms-client-request-id",
                "e50cf614-eaf2-11f1-97ee-02fc00000001",
            ),
            ("x-ms-date", "Sat, 28 Nov 2026 06:13:57 GMT"),
        ];
        let blob = [
            ("content-length", "0"),
            ("if-none-match", "*"),
            ("x-ms-blob-type", "PageBlob"),
            ("x-ms-blob-content-length", "16777728"),
            (
                "x-ms-client-request-id",
                "e5a6fd22-eaf2-11f1-a43c-02fc00000001",
            ),
            ("x-ms-date", "Sat, 28 Nov 2026 06:13:58 GMT"),
        ];
        let put = [
            ("content-length", "4194304"),
            ("content-type", "application/octet-stream"),
            ("x-ms-page-write", "update"),
            ("x-ms-range", "bytes=0-4194303"),
            (
                "x-ms-client-request-id",
                "e5ac1adc-eaf2-11f1-941c-02fc00000001",
            ),
            ("x-ms-date", "Sat, 28 Nov 2026 06:13:58 GMT"),
        ];
        for (path, query, own, signature) in [
            (
                "/vhdkit/disks",
                ("restype", "container"),
                &create[..],
                "18FNC/FigS+bXBLWsyNfewWR201SRb/biEX08b4qDJI=",
            ),
            (
                "/vhdkit/disks/base.vhd",
                ("", ""),
                &blob[..],
                "9CDn8amWyHDqeJwWfaIH2zT4k3GM15WJbuc/mxS6jy0=",
            ),
            (
                "/vhdkit/disks/base.vhd",
                ("comp", "page"),
                &put[..],
                "WXr8w45e1k2IUDplNw+kx9MEXX6H2ynYbLa1bD3J04s=",
            ),
        ] {
            let mut query = vec![(query.0, query.1.to_owned())];
            query.retain(|(name, _)| !name.is_empty());
            let request = Signed {
                method: "PUT",
                path,
                query: &query,
                headers: &headers(&[&common[..], own].concat()),
            };
            assert_eq!(
                shared_key("vhdkit", &key(), &request).unwrap(),
                format!("SharedKey vhdkit:{signature}")
            );
        }
    }

    #[test]
    fn everything_has_its_line() {
        let headers = headers(&[
            ("content-length", "5"),
            ("content-md5", "md5"),
            ("if-match", "\"0x1\""),
            ("x-ms-date", "today"),
            ("x-ms-a", " 1 "),
            ("date", "today"),
        ]);
        let query = [("snapshot", "2026".to_owned()), ("comp", "page".to_owned())];
        let request = Signed {
            method: "PUT",
            path: "/c/b%20b",
            query: &query,
            headers: &headers,
        };
        assert_eq!(
            string_to_sign("acct", &request),
            "PUT\n\n\n5\nmd5\n\n\n\n\"0x1\"\n\n\n\nx-ms-a:1\nx-ms-date:today\n/acct/c/b%20b\ncomp:page\nsnapshot:2026"
        );
    }

    #[test]
    fn a_key_is_base64_and_never_shown() {
        assert!(AccountKey::new("not base64!").is_err());
        assert!(AccountKey::new("").is_err());
        assert!(!format!("{:?}", key()).contains("dmhka"));
    }
}
