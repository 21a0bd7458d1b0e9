//! Page blobs on the command line: addresses, credentials, and how the service is reached.
//!
//! Credentials go no further than this module: from the arguments on, a blob is known by the printable form of its
//! name.

use std::env;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::blob::{BlobName, Connector, DEPTH, Route, Secret};
use crate::error::{Error, Result, quoted};

/// The longest file from which an address is read.
const LONGEST_FILE: u64 = 64 << 10;

/// Limits on all requests: bytes in a second, and requests under way for one blob.
static LIMITS: OnceLock<(Option<u64>, Option<usize>)> = OnceLock::new();

static CONNECTOR: OnceLock<Arc<Connector>> = OnceLock::new();

/// Returns whether `path` is an address.
pub(super) fn is_address(path: &Path) -> bool {
    path.to_str().is_some_and(BlobName::is_address)
}

/// Resolves an argument: itself, or the address in the file given as `@FILE`.
pub(super) fn from_file(path: PathBuf) -> Result<PathBuf> {
    let named = path.to_str().and_then(|text| text.strip_prefix('@'));
    let Some(file) = named.filter(|file| !file.is_empty()) else {
        return Ok(path);
    };
    if fs::symlink_metadata(&path).is_ok() {
        return Ok(path);
    }
    let failed = |e| {
        let error = Error::io("cannot read the address in", e).with_path(file);
        error.with_hint(format!(
            "{} is a file of that name",
            quoted(Path::new(".").join(&path))
        ))
    };
    // A pipe would keep the command waiting.
    if !fs::metadata(file).map_err(failed)?.is_file() {
        return Err(
            Error::usage("this is not a plain file, so no address is read from it")
                .with_path(file)
                .with_hint("write the address of a blob into a file"),
        );
    }
    let mut text = String::new();
    let mut reader = fs::File::open(file).map_err(failed)?.take(LONGEST_FILE);
    reader.read_to_string(&mut text).map_err(failed)?;
    let address = text.trim();
    if !BlobName::is_address(address) {
        return Err(Error::usage("there is no address in this file")
            .with_path(file)
            .with_hint("write the address of a blob into it, and nothing else; ./@… is a file of that name"));
    }
    Ok(PathBuf::from(address))
}

/// Registers the address of a container, or of a part of one, and returns its printable form.
pub(super) fn admit_store(path: &Path) -> Result<PathBuf> {
    register(BlobName::parse(path.to_str().unwrap_or_default())?)
}

/// Splits the name of a point in time in a container, with the signature of the container after it or at the end:
/// `https://…/CONTAINER[?SAS]::DISK[@SNAPSHOT][?SAS]`. Returns the address of the container, and the rest.
pub(super) fn split_point(path: &Path) -> Option<(PathBuf, String)> {
    let text = path.to_str().filter(|text| BlobName::is_address(text))?;
    let (before, after) = text.rsplit_once("::")?;
    let (point, query) = match after.split_once('?') {
        Some((point, query)) => (point, Some(query)),
        None => (after, None),
    };
    if point.contains('/') || !before.contains("//") {
        return None;
    }
    let store = match query {
        Some(query) => format!(
            "{before}{}{query}",
            if before.contains('?') { '&' } else { '?' }
        ),
        None => before.to_owned(),
    };
    Some((PathBuf::from(store), point.to_owned()))
}

/// Registers an address, and returns its printable form.
pub(super) fn admit(path: &Path) -> Result<PathBuf> {
    let name = BlobName::parse(path.to_str().unwrap_or_default())?;
    if name.blob().is_empty() {
        return Err(Error::usage("this is a container, not a blob in it")
            .with_path(name.shown())
            .with_hint("add the name of a blob after a slash"));
    }
    register(name)
}

fn register(name: BlobName) -> Result<PathBuf> {
    let shown = name.shown().to_path_buf();
    if name.has_signature() {
        connector()?.remember(name);
    }
    Ok(shown)
}

/// The connection to the service.
pub(super) fn connector() -> Result<Arc<Connector>> {
    if let Some(connector) = CONNECTOR.get() {
        return Ok(Arc::clone(connector));
    }
    let mut connector = Connector::new(&route()?, variable)?;
    if let Some((rate, jobs)) = LIMITS.get() {
        connector.http().limit_rate(rate.unwrap_or(0));
        connector = connector.with_depth(jobs.unwrap_or(DEPTH));
    }
    let connector = Arc::new(connector);
    Ok(Arc::clone(CONNECTOR.get_or_init(|| connector)))
}

/// Sets what the options say, before anything is sent.
pub(super) fn set_limits(rate: Option<u64>, jobs: Option<usize>) {
    // Only one command runs in a process.
    let _ = LIMITS.set((rate, jobs));
}

/// The number of requests, and the bytes sent and received; `None` if no blob was used.
pub(super) fn traffic() -> Option<(u64, u64, u64)> {
    let traffic = CONNECTOR.get()?.http().traffic();
    Some((traffic.requests(), traffic.sent(), traffic.received()))
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

fn route() -> Result<Route> {
    let first = |names: &[&str]| {
        let mut found = names.iter().filter_map(|name| variable(name));
        found.find(|value| !value.trim().is_empty())
    };
    let authorities = first(&["SSL_CERT_FILE"]);
    let authorities = authorities.map(|file| {
        let failed = |e| Error::io("cannot read the certificates that SSL_CERT_FILE names", e);
        fs::read(&file).map_err(|e| failed(e).with_path(&file))
    });
    Ok(Route {
        proxy: first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]).map(Secret::new),
        direct: first(&["NO_PROXY", "no_proxy"]),
        authorities: authorities.transpose()?,
    })
}
