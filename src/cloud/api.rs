//! One request to the resource manager, and its response.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;

use super::endpoint::Endpoint;
use super::refusal::Refusal;
use crate::blob::{Answer, Call, Done, Failure, Http, Retry, Secret, has_body};
use crate::error::{Error, ErrorKind, Result};

/// API version of requests about disks and snapshots.
pub(super) const VERSION: &str = "2023-10-02";

/// The longest response that is read.
const LONGEST: u64 = 32 << 20;

/// The maximum number of pages of one list.
const MOST_PAGES: usize = 10_000;

/// The longest polling interval that a service may request.
const LONGEST_WAIT: u64 = 120;

type Environment = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The resource manager, determined with the first request.
pub(super) struct Api {
    pub(super) http: Arc<Http>,
    pub(super) retry: Retry,
    environment: Environment,
    endpoint: OnceLock<Endpoint>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: &'static str,
    /// A path with its parameters, or an address returned by the service.
    pub(super) place: &'a str,
    pub(super) body: Option<&'a Value>,
    /// The beginning of error messages: `cannot look at`.
    pub(super) doing: &'static str,
    /// The name of the resource in messages.
    pub(super) about: &'a Path,
}

impl<'a> Asked<'a> {
    /// Returns a GET request to another address, with the same names in messages.
    pub(super) fn get<'b>(self, place: &'b str) -> Asked<'b>
    where
        'a: 'b,
    {
        Asked {
            method: "GET",
            place,
            body: None,
            ..self
        }
    }
}

/// A successful response.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// The address that reports the progress of an operation.
    pub(super) operation: Option<String>,
    /// The address of its future result.
    pub(super) location: Option<String>,
    pub(super) after: Option<Duration>,
    /// The body; null if there isn't one.
    pub(super) body: Value,
}

impl Api {
    pub(super) fn new(http: Arc<Http>, retry: Retry, environment: Environment) -> Self {
        Self {
            http,
            retry,
            environment,
            endpoint: OnceLock::new(),
        }
    }

    /// An environment variable that isn't empty.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let value = (self.environment)(name)?.trim().to_owned();
        Some(value).filter(|value| !value.is_empty())
    }

    /// The resource manager, according to the environment.
    pub(super) fn endpoint(&self) -> Result<&Endpoint> {
        if let Some(found) = self.endpoint.get() {
            return Ok(found);
        }
        let found = Endpoint::find(&*self.environment, &self.http)?;
        Ok(self.endpoint.get_or_init(|| found))
    }

    /// Gets a token, and returns where it comes from.
    pub(super) fn login(&self) -> Result<&'static str> {
        let tokens = &self.endpoint()?.tokens;
        tokens.get(&self.http)?;
        Ok(tokens.origin())
    }

    /// Sends a request until there is a response, or time is up.
    pub(super) fn send(&self, asked: Asked<'_>) -> Answer<Reply> {
        self.send_with(asked, &self.retry)
    }

    /// Like [`send`](Self::send), retried according to `retry`.
    pub(super) fn send_with(&self, asked: Asked<'_>, retry: &Retry) -> Answer<Reply> {
        let endpoint = self.endpoint()?;
        retry.run(|| match self.send_once(endpoint, asked) {
            Err(failure) if failure.status() == Some(401) && endpoint.tokens.forget() => {
                // The token expired early.
                self.send_once(endpoint, asked)
            }
            answer => answer,
        })
    }

    fn send_once(&self, endpoint: &Endpoint, asked: Asked<'_>) -> Answer<Reply> {
        let Asked { doing, about, .. } = asked;
        let named = |error: Error| error.with_path(about);
        let url = Secret::new(endpoint.address(asked.place).map_err(named)?);
        let token = endpoint.tokens.get(&self.http).map_err(named)?;
        let body = asked.body.map(Value::to_string).unwrap_or_default();
        let mut headers = vec![
            ("authorization", format!("Bearer {}", token.expose())),
            ("accept", "application/json".to_owned()),
            ("x-ms-client-request-id", uuid::Uuid::new_v4().to_string()),
        ];
        if asked.body.is_some() {
            headers.push(("content-type", "application/json".to_owned()));
        }
        if has_body(asked.method) {
            headers.push(("content-length", body.len().to_string()));
        }
        let call = Call {
            method: asked.method,
            url: &url,
            headers: &headers,
            body: body.as_bytes(),
        };
        let sent = self.http.send_within(&call, None);
        let reply = sent.map_err(|e| self.http.failure(doing, about, &e))?;
        let header = |name: &str| reply.header(name).map(str::to_owned);
        let after = header("retry-after").and_then(|text| text.trim().parse().ok());
        let after = after.map(|seconds: u64| Duration::from_secs(seconds.min(LONGEST_WAIT)));
        let status = reply.status();
        let (operation, location) = (header("azure-asyncoperation"), header("location"));
        let request = header("x-ms-request-id").unwrap_or_default();
        let bytes = reply.read_all(LONGEST).map_err(|e| {
            let error = Error::io(
                doing,
                std::io::Error::new(e.kind(), "the answer ended too early"),
            )
            .with_path(about)
            .with_hint("check the connection to the network, and run the command again");
            Failure::passing(error, Done::Perhaps)
        })?;
        let parsed = if bytes.iter().all(u8::is_ascii_whitespace) {
            Ok(Value::Null)
        } else {
            serde_json::from_slice(&bytes)
        };
        if !(200..300).contains(&status) {
            let refusal = Refusal {
                request,
                after,
                ..Refusal::of(status, &parsed.unwrap_or(Value::Null))
            };
            return Err(refusal.failure(doing, about));
        }
        let body = parsed.map_err(|e| {
            let error = Error::new(
                ErrorKind::Unsupported,
                "the answer of the resource manager isn't JSON",
            );
            error
                .with_path(about)
                .with_found(e)
                .with_hint("check what is between here and the service")
        })?;
        Ok(Reply {
            status,
            operation,
            location,
            after,
            body,
        })
    }

    /// Returns all entries of a list, from any number of pages.
    pub(super) fn list(&self, asked: Asked<'_>) -> Answer<Vec<Value>> {
        let mut all = Vec::new();
        let mut place = asked.place.to_owned();
        for _ in 0..MOST_PAGES {
            let mut reply = self.send(asked.get(&place))?;
            match reply.body.get_mut("value").map(Value::take) {
                Some(Value::Array(entries)) => all.extend(entries),
                _ => {
                    return Err(Error::unsupported("the resource manager sent no list")
                        .with_path(asked.about)
                        .into());
                }
            }
            match reply.body.get("nextLink").and_then(Value::as_str) {
                Some(next) if !next.is_empty() && next != place => next.clone_into(&mut place),
                _ => return Ok(all),
            }
        }
        Err(
            Error::unsupported("the list of the resource manager doesn't end")
                .with_path(asked.about)
                .into(),
        )
    }
}
