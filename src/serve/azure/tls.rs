//! The server's own certificate authority, kept in its folder, and a certificate signed by it for each start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::volume::load;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{AtomicFile, Audience, Overwrite, WriteAt as _};

/// Validity of the authority and of its certificates in years.
const AUTHORITY_YEARS: i32 = 20;
const YEARS: i32 = 2;

/// The longest certificate or key that is read.
const LONGEST: u64 = 1 << 20;

/// The certificate of a server, and the file that clients need to trust it.
pub(super) struct Shown {
    pub(super) config: Arc<ServerConfig>,
    pub(super) authority: PathBuf,
}

/// For a server that is known by these names and addresses.
pub(super) fn prepare(folder: &Path, names: &[String]) -> Result<Shown> {
    let (certificate, key) = (folder.join("ca.pem"), folder.join("ca-key.pem"));
    if !key.exists() || !certificate.exists() {
        make_authority(&certificate, &key)?;
    }
    let pem = load(&key, LONGEST)?;
    let pem = std::str::from_utf8(&pem).map_err(|e| broken(&key, e))?;
    let authority_key = KeyPair::from_pem(pem).map_err(|e| broken(&key, e))?;
    let issuer = Issuer::new(authority_params()?, authority_key);
    let mut params = CertificateParams::new(names.to_vec())
        .map_err(|e| Error::usage("the server can't be known by this name").with_source(e))?;
    let year = year();
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + YEARS, 12, 31);
    params.distinguished_name.push(DnType::CommonName, "vhdkit");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let own_key = KeyPair::generate().map_err(failed)?;
    let own = params.signed_by(&own_key, &issuer).map_err(failed)?;
    let authority = CertificateDer::from_pem_slice(&load(&certificate, LONGEST)?)
        .map_err(|e| broken(&certificate, e))?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone(), authority], private)
        .map_err(failed)?;
    Ok(Shown {
        config: Arc::new(config),
        authority: certificate,
    })
}

/// The authority's parameters: identical at every start, except for the key.
fn authority_params() -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
        .distinguished_name
        .push(DnType::CommonName, "vhdkit, authority of this folder");
    params.not_before = date_time_ymd(year() - 1, 1, 1);
    params.not_after = date_time_ymd(year() + AUTHORITY_YEARS, 12, 31);
    Ok(params)
}

fn make_authority(certificate: &Path, key: &Path) -> Result<()> {
    let pair = KeyPair::generate().map_err(failed)?;
    let made = authority_params()?.self_signed(&pair).map_err(failed)?;
    write(certificate, made.pem().as_bytes(), Audience::default())?;
    // Last: a certificate without its key is recreated.
    write(
        key,
        pair.serialize_pem().as_bytes(),
        Audience::nobody_else(),
    )
}

fn write(path: &Path, bytes: &[u8], audience: Audience) -> Result<()> {
    let file = AtomicFile::for_audience(path, audience)?;
    file.file().write_all_at(bytes, 0)?;
    file.publish(Overwrite::Yes)
}

fn year() -> i32 {
    i32::from(
        jiff::Timestamp::now()
            .to_zoned(jiff::tz::TimeZone::UTC)
            .year(),
    )
}

fn failed(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Io, "cannot make a certificate").with_source(source)
}

fn broken(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::damaged("this is not what this program writes")
        .with_path(path)
        .with_source(source)
        .with_hint("remove ca.pem and ca-key.pem of the folder: both are made anew, and clients need the new one")
}
