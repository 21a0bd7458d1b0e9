//! Names of page blobs: addresses with a printable part and a secret part.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::secret::Secret;
use crate::error::{Error, Result};

/// The longest name of a blob, in characters.
const LONGEST_BLOB: usize = 1024;

/// Host suffixes of the service itself, which receives bearer tokens, and only over TLS.
const SERVICE_SUFFIXES: &[&str] = &[
    ".blob.core.windows.net",
    ".blob.core.chinacloudapi.cn",
    ".blob.core.usgovcloudapi.net",
    ".blob.core.cloudapi.de",
    ".blob.storage.azure.net",
];

/// The form of an address, for advice.
const FORM: &str = "an address looks like https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB";

/// Parameters that requests add themselves: not part of a name.
const RESERVED: &[&str] = &[
    "comp",
    "restype",
    "prevsnapshot",
    "marker",
    "maxresults",
    "include",
    "prefix",
    "delimiter",
];

/// The host of a service, and the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    tls: bool,
    /// Host and port, in lower case.
    authority: String,
    account: String,
    /// Whether the account is the first part of the path, as in emulators.
    path_style: bool,
}

impl Endpoint {
    /// The storage account.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Returns whether it is the service itself, by its host.
    pub fn is_service(&self) -> bool {
        let host = self.host();
        SERVICE_SUFFIXES.iter().any(|suffix| host.ends_with(suffix))
    }

    /// Returns whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let ip: Option<IpAddr> = host.parse().ok();
        ip.is_some_and(|ip| ip.is_loopback()) || host == "localhost" || host.ends_with(".localhost")
    }

    /// Returns whether requests use TLS.
    pub fn is_encrypted(&self) -> bool {
        self.tls
    }

    fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => &self.authority,
        }
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// Scheme and host, as in the beginning of an address.
    pub(super) fn root(&self) -> String {
        format!("{}://{}", self.scheme(), self.authority)
    }

    /// The path of a container, or of a blob in it, percent-encoded as it is sent and signed.
    pub(super) fn path(&self, container: &str, blob: &str) -> String {
        let mut path = String::new();
        if self.path_style {
            path.push('/');
            path += &self.account;
        }
        for part in [container, blob]
            .into_iter()
            .filter(|part| !part.is_empty())
        {
            path.push('/');
            path += &encoded(part, "/");
        }
        path
    }
}

/// The name of a container, of a page blob in it, or of a snapshot of one.
///
/// `https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB[?snapshot=TIME][&SAS]`, the same with another host and the
/// account as the first part of the path (`http://127.0.0.1:10000/ACCOUNT/CONTAINER/BLOB`), or the address by which
/// access to a managed disk is granted. Credentials are never shown: not by `Debug`, not by [`shown`](Self::shown).
#[derive(Clone, PartialEq, Eq)]
pub struct BlobName {
    endpoint: Endpoint,
    container: String,
    blob: String,
    snapshot: Option<String>,
    sas: Option<Secret>,
    shown: PathBuf,
}

impl BlobName {
    /// Returns whether `text` is an address, valid or not, rather than a path.
    pub fn is_address(text: &str) -> bool {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|s| s.eq_ignore_ascii_case("https") || s.eq_ignore_ascii_case("http"))
    }

    /// Parses an address.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::ErrorKind::Usage) unless it is the address of a container or blob.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |message: &str, hint: &str| {
            let shown = crate::text::without_secrets(text).into_owned();
            Err(Error::usage(message).with_path(shown).with_hint(hint))
        };
        if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return refuse("the address has white space in it", "write a blank as %20");
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return refuse("this is not an address", FORM);
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return refuse("this is not the address of a blob", FORM),
        };
        if rest.contains('#') {
            return refuse("the address has a # in it", "write it as %23");
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        if authority.contains('@') {
            return refuse(
                "the address contains a user or password, which the service doesn't support",
                "access is given by a signature (SAS) in the address, or by the environment",
            );
        }
        let authority = authority.to_ascii_lowercase();
        if authority.is_empty() || authority.starts_with(':') {
            return refuse("the address has no host", FORM);
        }
        let in_host = match authority.split_once('.') {
            Some((account, rest)) if format!(".{rest}").contains(".blob.") => Some(account),
            _ => None,
        };
        let (account, path) = match in_host {
            Some(account) => (account, path),
            None => path.split_once('/').unwrap_or((path, "")),
        };
        let account = decoded(account);
        let account = match account.as_deref() {
            // A host with that suffix has the account's copy in another region.
            Some(account) if in_host.is_some() => account
                .strip_suffix("-secondary")
                .unwrap_or(account)
                .to_owned(),
            Some(account) if !account.is_empty() => account.to_owned(),
            _ => return refuse("the address contains no storage account", FORM),
        };
        let endpoint = Endpoint {
            tls,
            account,
            path_style: in_host.is_none(),
            authority,
        };
        if endpoint.is_service() && !endpoint.tls {
            return refuse(
                "this address would send the disk and the right to read it without encryption",
                "write https instead of http",
            );
        }
        let (container, blob) = path.split_once('/').unwrap_or((path, ""));
        let (Some(container), Some(blob)) = (decoded(container), decoded(blob)) else {
            return refuse(
                "the address is not percent-encoded text",
                "write a percent sign as %25",
            );
        };
        if let Err(rule) = check_container(&container) {
            return refuse(rule, FORM);
        }
        if blob.chars().count() > LONGEST_BLOB {
            return refuse("the name of the blob is longer than 1024 characters", FORM);
        }
        let Parameters { snapshot, sas } = match parameters(query) {
            Ok(parameters) => parameters,
            Err((message, hint)) => return refuse(message, hint),
        };
        if blob.is_empty() && snapshot.is_some() {
            return refuse("the address contains a snapshot, but no blob", FORM);
        }
        Ok(Self::new(endpoint, container, blob, snapshot, sas))
    }

    fn new(
        endpoint: Endpoint,
        container: String,
        blob: String,
        snapshot: Option<String>,
        sas: Option<Secret>,
    ) -> Self {
        let mut shown = endpoint.root() + &endpoint.path(&container, &blob);
        if let Some(time) = &snapshot {
            shown += "?snapshot=";
            shown += &encoded(time, ":");
        }
        Self {
            endpoint,
            container,
            blob,
            snapshot,
            sas,
            shown: shown.into(),
        }
    }

    /// The address without credentials: its name in messages and files.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The container.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// The blob; empty for a container.
    pub fn blob(&self) -> &str {
        &self.blob
    }

    /// The time that identifies a snapshot; `None` for the blob itself.
    pub fn snapshot(&self) -> Option<&str> {
        self.snapshot.as_deref()
    }

    /// The signature in it.
    pub(super) fn sas(&self) -> Option<&Secret> {
        self.sas.as_ref()
    }

    /// Returns whether it contains a signature.
    pub fn has_signature(&self) -> bool {
        self.sas.is_some()
    }

    /// Returns whether this is a managed disk or a snapshot of one, to which access was granted: it supports fewer
    /// requests.
    pub fn is_managed_disk(&self) -> bool {
        // User-created accounts can't have a hyphen in their name.
        self.endpoint.account.starts_with("md-")
    }

    /// Another blob, or another snapshot, in the same container, with the same credentials.
    #[must_use]
    pub fn sibling(&self, blob: &str, snapshot: Option<&str>) -> Self {
        Self::new(
            self.endpoint.clone(),
            self.container.clone(),
            blob.to_owned(),
            snapshot.map(str::to_owned),
            self.sas.clone(),
        )
    }

    /// The whole address, including credentials: for the service only.
    pub(super) fn address(&self) -> Secret {
        let mut address = self.endpoint.root() + &self.endpoint.path(&self.container, &self.blob);
        let snapshot = self.snapshot.as_ref();
        let snapshot = snapshot.map(|time| format!("snapshot={}", encoded(time, "")));
        let sas = self.sas.as_ref().map(|sas| sas.expose().to_owned());
        let query: Vec<String> = snapshot.into_iter().chain(sas).collect();
        if !query.is_empty() {
            address.push('?');
            address += &query.join("&");
        }
        Secret::new(address)
    }
}

impl fmt::Debug for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown)?;
        if self.sas.is_some() {
            f.write_str(" (signed)")?;
        }
        Ok(())
    }
}

/// The part after the question mark.
struct Parameters {
    snapshot: Option<String>,
    sas: Option<Secret>,
}

fn parameters(query: &str) -> Result<Parameters, (&'static str, &'static str)> {
    let (mut snapshot, mut sas, mut signed) = (None, Vec::new(), false);
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let key = key.to_ascii_lowercase();
        match key.as_str() {
            "snapshot" => match decoded(value) {
                Some(time) if is_time(&time) && snapshot.is_none() => snapshot = Some(time),
                _ => {
                    return Err((
                        "the address contains no valid time of a snapshot",
                        "write it as the service lists it: ?snapshot=2026-11-28T10:00:00.0000000Z",
                    ));
                }
            },
            "versionid" => {
                return Err((
                    "versions of blobs aren't supported",
                    "use a snapshot, or copy the version to a blob of its own",
                ));
            }
            reserved if RESERVED.contains(&reserved) => {
                return Err((
                    "the address is that of a request, not of a blob",
                    "omit the question mark and what comes after it, unless that is a signature",
                ));
            }
            _ => {
                signed |= key == "sig" && !value.is_empty();
                sas.push(part);
            }
        }
    }
    if !sas.is_empty() && !signed {
        return Err((
            "the address has parameters, but no signature among them",
            "a shell ends a word at an &: put the address between single quotes",
        ));
    }
    let sas = signed.then(|| Secret::new(sas.join("&")));
    Ok(Parameters { snapshot, sas })
}

/// Parses the parameters of a signature that doesn't come from the address, with or without a question mark.
pub(super) fn signature(text: &str) -> Option<Secret> {
    let text = text.trim().trim_start_matches('?');
    if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '#') {
        return None;
    }
    let found = parameters(text).ok()?;
    found.sas.filter(|_| found.snapshot.is_none())
}

/// Returns whether it may be the time of a snapshot, which the service writes as `2026-11-28T10:00:00.1234567Z`.
fn is_time(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_digit() || b"-:.TZ".contains(&b);
    text.len() >= 20 && text.len() <= 40 && text.bytes().all(allowed)
}

fn check_container(name: &str) -> Result<(), &'static str> {
    let special = matches!(name, "$root" | "$web" | "$logs");
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() {
        return Err("this is not the address of a blob: it contains no container");
    }
    if !special && (!name.bytes().all(allowed) || !(3..=63).contains(&name.len())) {
        return Err(
            "a container has a name of 3 to 63 lower-case letters, digits and hyphens, which this isn't",
        );
    }
    Ok(())
}

/// Percent-encodes everything except letters, digits, `-._~` and the characters in `also`.
pub(crate) fn encoded(text: &str, also: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-._~".contains(c) || (c.is_ascii() && also.contains(c))
        {
            out.push(c);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Decodes percent-encoding; `None` if the result isn't text.
pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| {
            char::from(b?)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        };
        out.push(digit(bytes.next())? * 16 + digit(bytes.next())?);
    }
    String::from_utf8(out)
        .ok()
        .filter(|text| !text.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAS: &str = "sv=2021-12-02&se=2030-01-01&sr=b&sp=r&sig=hidden%2B%2F%3D";

    #[test]
    fn addresses_come_apart() {
        let time = "2026-11-28T10:00:00.1234567Z";
        for (text, account, container, blob, snapshot, path) in [
            (
                "https://acct.blob.core.windows.net/disks/web.vhd".to_owned(),
                "acct",
                "disks",
                "web.vhd",
                None,
                "/disks/web.vhd",
            ),
            (
                format!(
                    "HTTPS://ACCT.Blob.Core.Windows.net/disks/a/b%20c.vhd?{SAS}&snapshot={time}"
                ),
                "acct",
                "disks",
                "a/b c.vhd",
                Some(time),
                "/disks/a/b%20c.vhd",
            ),
            (
                format!(
                    "http://127.0.0.1:10000/devstoreaccount1/disks/x?snapshot={}",
                    encoded(time, "")
                ),
                "devstoreaccount1",
                "disks",
                "x",
                Some(time),
                "/devstoreaccount1/disks/x",
            ),
            (
                format!("https://md-impexp-42.z1.blob.storage.azure.net/c4d684/abcd?{SAS}"),
                "md-impexp-42",
                "c4d684",
                "abcd",
                None,
                "/c4d684/abcd",
            ),
            (
                "http://azurite:10000/dev/disks".to_owned(),
                "dev",
                "disks",
                "",
                None,
                "/dev/disks",
            ),
            (
                "https://acct.blob.core.windows.net/$root/gr%C3%B6%C3%9Fe".to_owned(),
                "acct",
                "$root",
                "größe",
                None,
                "/%24root/gr%C3%B6%C3%9Fe",
            ),
        ] {
            let name = BlobName::parse(&text).unwrap();
            assert_eq!(name.endpoint().account(), account, "{text}");
            assert_eq!((name.container(), name.blob()), (container, blob));
            assert_eq!(name.snapshot(), snapshot, "{text}");
            assert_eq!(name.endpoint().path(container, blob), path);
            assert_eq!(name.has_signature(), text.contains("sig="));
            let shown = name.shown().to_str().unwrap();
            assert_eq!(BlobName::parse(shown).unwrap().shown(), name.shown());
            for output in [format!("{name:?}"), shown.to_owned()] {
                assert!(
                    !output.contains("hidden") && !output.contains("sig="),
                    "{output}"
                );
                assert_eq!(
                    output.contains("?snapshot="),
                    snapshot.is_some(),
                    "{output}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_blob_is_refused_without_its_signature() {
        for text in [
            "disk.vhd",
            "ftp://acct.blob.core.windows.net/disks/x",
            "https://",
            "https:///disks/x",
            "https://acct.blob.core.windows.net",
            "https://acct.blob.core.windows.net/",
            "https://acct.blob.core.windows.net/Disks/x?sig=hidden",
            "https://acct.blob.core.windows.net/ab/x",
            "http://acct.blob.core.windows.net/disks/x?sig=hidden",
            "https://me:hidden@acct.blob.core.windows.net/disks/x",
            "https://acct.blob.core.windows.net/disks/a b",
            "https://acct.blob.core.windows.net/disks/a#b?sig=hidden",
            "https://acct.blob.core.windows.net/disks/%ff",
            "https://acct.blob.core.windows.net/disks/%0a",
            "https://acct.blob.core.windows.net/disks/%zz",
            "https://acct.blob.core.windows.net/disks/x?sv=2021-12-02",
            "https://acct.blob.core.windows.net/disks/x?sv=2021-12-02&sig=",
            "https://acct.blob.core.windows.net/disks/x?snapshot=yesterday",
            "https://acct.blob.core.windows.net/disks/x?versionid=2026-11-28T10:00:00.1234567Z",
            "https://acct.blob.core.windows.net/disks/x?comp=pagelist&sig=hidden",
            "https://acct.blob.core.windows.net/disks?snapshot=2026-11-28T10:00:00.1234567Z",
            "http://127.0.0.1:10000/",
        ] {
            let error = BlobName::parse(text).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(!said.contains("hidden"), "{said}");
            assert!(error.hint().is_some(), "{said}");
        }
    }

    #[test]
    fn hosts_are_known() {
        let endpoint = |text: &str| BlobName::parse(text).unwrap().endpoint().clone();
        assert!(endpoint("https://a.blob.core.windows.net/abc").is_service());
        assert!(endpoint("https://md-x.z1.blob.storage.azure.net/abc").is_service());
        assert!(!endpoint("https://a.blob.core.windows.net.example.com/abc").is_service());
        for local in [
            "127.0.0.1:1",
            "localhost",
            "[::1]:10000",
            "x.blob.localhost:7",
        ] {
            let endpoint = endpoint(&format!("http://{local}/acct/abc/d"));
            assert!(endpoint.is_loopback() && !endpoint.is_service(), "{local}");
        }
        assert!(!endpoint("http://10.0.0.1/acct/abc").is_loopback());
    }

    #[test]
    fn a_sibling_keeps_the_access_and_the_address_has_it() {
        let name = BlobName::parse(&format!("http://127.0.0.1:1/a/disks/x?{SAS}")).unwrap();
        let time = "2026-11-28T10:00:00.1234567Z";
        let sibling = name.sibling("y z", Some(time));
        let address = sibling.address();
        assert_eq!(
            address.expose(),
            format!(
                "http://127.0.0.1:1/a/disks/y%20z?snapshot=2026-11-28T10%3A00%3A00.1234567Z&{SAS}"
            )
        );
        assert_eq!(BlobName::parse(address.expose()).unwrap(), sibling);
    }

    #[test]
    fn signatures_of_the_environment_are_taken_with_or_without_a_question_mark() {
        assert_eq!(signature(&format!("?{SAS}")), signature(SAS));
        assert!(signature(SAS).is_some());
        for text in [
            "",
            "?",
            "sv=1",
            "sig=a b",
            "snapshot=2026-11-28T10:00:00.1234567Z&sig=x",
        ] {
            assert!(signature(text).is_none(), "{text}");
        }
    }
}
