//! HTTP: one request, one response, with time limits on everything that could take forever.

use std::fmt;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy, Timeout, http};

use super::failure::{Done, Failure};
use super::secret::Secret;
use crate::error::{Error, ErrorKind, Result};

/// Idle connections that are kept open.
const IDLE: usize = 64;

/// How requests reach the service, as configured by the program's environment.
#[derive(Debug, Clone, Default)]
pub struct Route {
    /// The address of a proxy.
    pub proxy: Option<Secret>,
    /// Hosts that are reached without it, separated by commas.
    pub direct: Option<String>,
    /// Certificates of authorities to trust instead of the built-in ones, as PEM.
    pub authorities: Option<Vec<u8>>,
}

/// Totals of what was sent and received.
#[derive(Debug, Default)]
pub struct Traffic {
    requests: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Number of requests sent, including repeated ones.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes of bodies sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes of bodies received.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// Sends requests. One per program is enough: it pools connections.
pub struct Http {
    agent: Agent,
    traffic: Traffic,
    pace: Pace,
    /// Whether a server ever responded.
    reached: AtomicBool,
}

/// Holds bodies back, so that no more than so many bytes go through in a second.
#[derive(Debug, Default)]
struct Pace {
    /// Bytes in a second; 0 for no limit.
    rate: AtomicU64,
    /// When the next body may go through.
    free: Mutex<Option<Instant>>,
}

impl Pace {
    /// Returns when a body of `len` bytes may go through.
    fn wait(&self, len: u64) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 || len == 0 {
            return;
        }
        let nanoseconds = u128::from(len) * 1_000_000_000 / u128::from(rate);
        let takes = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let begin = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let begin = free.map_or(now, |free| free.max(now));
            *free = begin.checked_add(takes);
            begin
        };
        thread::sleep(begin.saturating_duration_since(Instant::now()));
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the proxy, whose address may contain a password.
        f.debug_struct("Http")
            .field("traffic", &self.traffic)
            .finish_non_exhaustive()
    }
}

/// Returns whether requests with this method have a body, which may be empty, and its length.
pub(crate) fn has_body(method: &str) -> bool {
    matches!(method, "PUT" | "POST" | "PATCH")
}

/// A request to be sent.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: &'static str,
    /// The whole address, including credentials.
    pub(crate) url: &'a Secret,
    pub(crate) headers: &'a [(&'a str, String)],
    pub(crate) body: &'a [u8],
}

impl Http {
    /// Creates a client over this route.
    pub fn new(route: &Route) -> Result<Self> {
        let second = Duration::from_secs;
        let mut config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("vhdkit/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .max_idle_connections(IDLE)
            .max_idle_connections_per_host(IDLE)
            .timeout_resolve(Some(second(20)))
            .timeout_connect(Some(second(20)))
            .timeout_per_write(Some(second(60)))
            .timeout_per_read(Some(second(60)))
            // The service itself gives up on a request after about 30 seconds per MiB.
            .timeout_recv_response(Some(second(150)))
            .proxy(proxy(route)?);
        if let Some(pem) = &route.authorities {
            let roots = RootCerts::new_with_certs(&certificates(pem)?);
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self {
            agent: config.build().new_agent(),
            traffic: Traffic::default(),
            pace: Pace::default(),
            reached: AtomicBool::new(false),
        })
    }

    /// The totals so far.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// From now on no more than so many bytes of bodies go through in a second, sent and received together; 0 is no limit.
    pub fn limit_rate(&self, bytes_per_second: u64) {
        self.pace.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Sends a request and waits for the head of the response.
    pub(super) fn send(&self, call: &Call<'_>) -> std::result::Result<Reply<'_>, ureq::Error> {
        self.send_within(call, None)
    }

    /// As [`send`](Self::send), with a limit for the whole request.
    pub(crate) fn send_within(
        &self,
        call: &Call<'_>,
        limit: Option<Duration>,
    ) -> std::result::Result<Reply<'_>, ureq::Error> {
        let mut request = http::Request::builder()
            .method(call.method)
            .uri(call.url.expose());
        for (name, value) in call.headers {
            request = request.header(*name, value);
        }
        self.traffic.requests.fetch_add(1, Ordering::Relaxed);
        let len = call.body.len() as u64;
        self.traffic.sent.fetch_add(len, Ordering::Relaxed);
        self.pace.wait(len);
        let agent = &self.agent;
        let answer = if has_body(call.method) {
            let request = request.body(call.body)?;
            let request = agent
                .configure_request(request)
                .timeout_global(limit)
                .build();
            agent.run(request)
        } else {
            let request = request.body(())?;
            let request = agent
                .configure_request(request)
                .timeout_global(limit)
                .build();
            agent.run(request)
        }?;
        self.reached.store(true, Ordering::Relaxed);
        let (head, body) = answer.into_parts();
        Ok(Reply {
            http: self,
            head,
            body,
        })
    }

    /// The failure on what is shown as `name` while `doing` something, without a response.
    pub(crate) fn failure(&self, doing: &str, name: &Path, e: &ureq::Error) -> Failure {
        // A name that was never reached may be wrong; one that was reached will come back.
        let reached = self.reached.load(Ordering::Relaxed);
        let (kind, what, hint, again, done) = match e {
            ureq::Error::HostNotFound | ureq::Error::Timeout(Timeout::Resolve) => (
                io::ErrorKind::HostUnreachable,
                "the host has no address".to_owned(),
                "check the name of the account, and the connection to the network",
                reached,
                Done::No,
            ),
            ureq::Error::Timeout(Timeout::Connect) | ureq::Error::ConnectionFailed => (
                io::ErrorKind::HostUnreachable,
                "no connection".into(),
                "check the address, and the connection to the network",
                reached,
                Done::No,
            ),
            ureq::Error::Io(e) if is_never_connected(e) => (
                e.kind(),
                format!("no connection: {}", e.kind()),
                "check the address and the port, and the connection to the network",
                reached,
                Done::No,
            ),
            ureq::Error::ConnectProxyFailed(_) | ureq::Error::InvalidProxyUrl => (
                io::ErrorKind::Other,
                "the proxy could not connect".into(),
                "check HTTPS_PROXY, and NO_PROXY for hosts that need none",
                reached,
                Done::No,
            ),
            ureq::Error::Timeout(_) => (
                io::ErrorKind::TimedOut,
                "no answer in time".into(),
                "run the command again later",
                true,
                Done::Perhaps,
            ),
            e if is_untrusted(e) => (
                io::ErrorKind::Other,
                "the certificate of the server isn't trusted".into(),
                "check the address; a private authority is named by SSL_CERT_FILE",
                false,
                Done::No,
            ),
            ureq::Error::Http(_) | ureq::Error::BadUri(_) => (
                io::ErrorKind::InvalidInput,
                "the address can't be sent".into(),
                "check the address for characters that must be percent-encoded",
                false,
                Done::No,
            ),
            ureq::Error::Io(e) => (
                e.kind(),
                format!("the connection ended: {}", e.kind()),
                "check the connection to the network, and run the command again",
                true,
                Done::Perhaps,
            ),
            // The texts of other errors may repeat the address.
            _ => (
                io::ErrorKind::Other,
                "the answer isn't one of HTTP".into(),
                "check the address, and what is between here and the service",
                true,
                Done::Perhaps,
            ),
        };
        let error = Error::new(ErrorKind::Io, doing)
            .with_path(name)
            .with_source(io::Error::new(kind, what))
            .with_hint(hint);
        if again {
            Failure::passing(error, done)
        } else {
            Failure::lasting(error)
        }
    }
}

fn is_never_connected(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable
    )
}

fn is_untrusted(e: &ureq::Error) -> bool {
    let of_tls = match e {
        ureq::Error::Rustls(e) => Some(e),
        ureq::Error::Io(e) => e.get_ref().and_then(|e| e.downcast_ref()),
        _ => None,
    };
    matches!(
        of_tls,
        Some(
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::InvalidCertRevocationList(_)
                | rustls::Error::NoCertificatesPresented
        )
    )
}

fn proxy(route: &Route) -> Result<Option<Proxy>> {
    let Some(address) = &route.proxy else {
        return Ok(None);
    };
    // The address is in no message: it may contain a password.
    let refuse = || {
        Error::usage("the address of the proxy isn't one")
            .with_hint("write it as http://HOST:PORT in HTTPS_PROXY")
    };
    let parsed = Proxy::new(address.expose()).map_err(|_| refuse())?;
    let mut proxy = Proxy::builder(parsed.protocol())
        .host(parsed.host())
        .port(parsed.port());
    if let Some(user) = parsed.username() {
        proxy = proxy.username(user);
    }
    if let Some(password) = parsed.password() {
        proxy = proxy.password(password);
    }
    for host in route.direct.iter().flat_map(|hosts| hosts.split(',')) {
        proxy = proxy.no_proxy(host.trim());
    }
    Ok(Some(proxy.build().map_err(|_| refuse())?))
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(_) => found.clear(),
        }
    }
    if found.is_empty() {
        return Err(
            Error::usage("the file of certificate authorities has no certificates")
                .with_hint("name a file of certificates in PEM form in SSL_CERT_FILE, or omit it"),
        );
    }
    Ok(found)
}

/// A response whose head has arrived.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    http: &'a Http,
    head: http::response::Parts,
    body: ureq::Body,
}

impl Reply<'_> {
    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// The value of a header, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// Names and values of all text headers.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.head.headers.iter();
        all.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    }

    /// Fills `buf`; the body must have exactly its length.
    pub(super) fn read_exact(mut self, buf: &mut [u8]) -> io::Result<()> {
        self.http
            .pace
            .wait(u64::try_from(buf.len()).unwrap_or(u64::MAX));
        let mut reader = self.body.as_reader();
        reader.read_exact(buf)?;
        let traffic = &self.http.traffic.received;
        traffic.fetch_add(buf.len() as u64, Ordering::Relaxed);
        // Reading to the end also makes the connection reusable.
        match reader.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "more than was asked for",
            )),
        }
    }

    /// Reads the whole body, if it has at most `longest` bytes.
    pub(crate) fn read_all(mut self, longest: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut reader = self.body.as_reader().take(longest.saturating_add(1));
        let len = u64::try_from(reader.read_to_end(&mut bytes)?).unwrap_or(u64::MAX);
        self.http.traffic.received.fetch_add(len, Ordering::Relaxed);
        if len > longest {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the answer is too long",
            ));
        }
        Ok(bytes)
    }
}
