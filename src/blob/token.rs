//! Tokens of an identity: of an application, a workload, a machine, or the user of `az login`.

use std::fmt;
use std::fs;
use std::io::ErrorKind as IoKind;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::http::{Call, Http};
use super::name::encoded;
use super::secret::Secret;
use super::times;
use crate::error::{Error, ErrorKind, Result};

/// The resource for whose requests tokens are, if it is page blobs.
pub(super) const STORAGE: &str = "https://storage.azure.com";

/// Where identities of people and applications get their tokens.
const AUTHORITY: &str = "https://login.microsoftonline.com";

/// Where a machine requests its own token.
const MACHINE: &str = "http://169.254.169.254";

/// The remaining lifetime that a token must have to be used.
const MARGIN: i64 = 300;

/// How long to wait for a response about identities. Without a machine identity there is no response at all.
const WAIT: Duration = Duration::from_secs(30);
const MACHINE_WAIT: Duration = Duration::from_secs(2);

const LONGEST: u64 = 1 << 20;

/// Fetches tokens, and caches the last one as long as it is valid.
pub(crate) struct Tokens {
    /// The resource for which tokens are requested.
    resource: String,
    source: Source,
    kept: Mutex<Option<Token>>,
}

struct Token {
    text: Secret,
    /// In seconds since 1970.
    until: i64,
}

enum Source {
    /// An application with its own secret.
    Application {
        address: String,
        id: String,
        secret: Secret,
    },
    /// A workload, whose token in a file is exchanged.
    Workload {
        address: String,
        id: String,
        file: String,
    },
    /// An endpoint from which a machine or a service gets its own token.
    Machine {
        address: String,
        header: (&'static str, Secret),
        limit: Duration,
    },
    /// The login of the program `az`.
    Cli(String),
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.origin())
    }
}

impl Tokens {
    /// The first available source of tokens for `resource`, or `None`. They come from `authority` unless the environment
    /// names another one.
    pub(crate) fn find(
        lookup: &dyn Fn(&str) -> Option<String>,
        http: &Http,
        (resource, authority): (&str, Option<&str>),
    ) -> Result<Option<Self>> {
        let id = lookup("AZURE_CLIENT_ID");
        let tenant = lookup("AZURE_TENANT_ID");
        let authority =
            lookup("AZURE_AUTHORITY_HOST").unwrap_or_else(|| authority.unwrap_or(AUTHORITY).into());
        let authority = authority.trim_end_matches('/').to_owned();
        if let (Some(id), Some(tenant)) = (&id, &tenant) {
            check_authority(&authority)?;
            let address = format!(
                "{authority}/{}/oauth2/v2.0/token",
                encoded(tenant.trim(), "")
            );
            let id = id.trim().to_owned();
            if let Some(secret) = lookup("AZURE_CLIENT_SECRET") {
                let secret = Secret::new(secret);
                return Ok(Some(Self::of(
                    resource,
                    Source::Application {
                        address,
                        id,
                        secret,
                    },
                )));
            }
            if let Some(file) = lookup("AZURE_FEDERATED_TOKEN_FILE") {
                return Ok(Some(Self::of(
                    resource,
                    Source::Workload { address, id, file },
                )));
            }
        } else if lookup("AZURE_CLIENT_SECRET").is_some() {
            return Err(Error::usage("AZURE_CLIENT_SECRET is set alone")
                .with_hint("set AZURE_CLIENT_ID and AZURE_TENANT_ID, too, or unset it"));
        }
        let asked = encoded(resource, ":/");
        let of_user = id.map_or_else(String::new, |id| {
            format!("&client_id={}", encoded(id.trim(), ""))
        });
        if let (Some(endpoint), Some(header)) =
            (lookup("IDENTITY_ENDPOINT"), lookup("IDENTITY_HEADER"))
        {
            let address = format!("{endpoint}?api-version=2019-08-01&resource={asked}{of_user}");
            let header = ("x-identity-header", Secret::new(header));
            return Ok(Some(Self::of(
                resource,
                Source::Machine {
                    address,
                    header,
                    limit: WAIT,
                },
            )));
        }
        let machine = lookup("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or_else(|| MACHINE.into());
        let machine = Self::of(
            resource,
            Source::Machine {
                address: format!(
                    "{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={asked}{of_user}",
                    machine.trim_end_matches('/')
                ),
                header: ("metadata", Secret::new("true")),
                limit: MACHINE_WAIT,
            },
        );
        if machine.get(http).is_ok() {
            return Ok(Some(machine));
        }
        let cli = Self::of(resource, Source::Cli("az".into()));
        match cli.get(http) {
            Ok(_) => Ok(Some(cli)),
            // Without any identity, public data can still be read.
            Err(_) => Ok(None),
        }
    }

    fn of(resource: &str, source: Source) -> Self {
        Self {
            resource: resource.to_owned(),
            source,
            kept: Mutex::new(None),
        }
    }

    /// The origin of the tokens, for display.
    pub(crate) fn origin(&self) -> &'static str {
        match &self.source {
            Source::Application { .. } => "AZURE_CLIENT_SECRET",
            Source::Workload { .. } => "AZURE_FEDERATED_TOKEN_FILE",
            Source::Machine {
                header: ("metadata", _),
                ..
            } => "the identity of this machine",
            Source::Machine { .. } => "IDENTITY_ENDPOINT",
            Source::Cli(_) => "az login",
        }
    }

    /// Returns a token that is still valid for a while.
    pub(crate) fn get(&self, http: &Http) -> Result<Secret> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = &*kept
            && token.until > times::now() + MARGIN
        {
            return Ok(token.text.clone());
        }
        let token = self.fetch(http)?;
        let text = token.text.clone();
        *kept = Some(token);
        Ok(text)
    }

    /// Drops the cached token. Returns whether there was one.
    pub(crate) fn forget(&self) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take().is_some()
    }

    fn fetch(&self, http: &Http) -> Result<Token> {
        match &self.source {
            Source::Application {
                address,
                id,
                secret,
            } => {
                let proof = format!("client_secret={}", encoded(secret.expose(), ""));
                self.exchange(http, address, id, &proof)
            }
            Source::Workload { address, id, file } => {
                let assertion = fs::read_to_string(file).map_err(|e| {
                    Error::io("cannot read the token of the workload in", e).with_path(file)
                })?;
                let proof = format!(
                    "client_assertion_type={}&client_assertion={}",
                    encoded("urn:ietf:params:oauth:client-assertion-type:jwt-bearer", ""),
                    encoded(assertion.trim(), "")
                );
                self.exchange(http, address, id, &proof)
            }
            Source::Machine {
                address,
                header,
                limit,
            } => {
                let headers = [(header.0, header.1.expose().to_owned())];
                let call = Call {
                    method: "GET",
                    url: &Secret::new(address.as_str()),
                    headers: &headers,
                    body: &[],
                };
                self.ask(http, &call, *limit)
            }
            Source::Cli(program) => self.by_cli(program),
        }
    }

    fn exchange(&self, http: &Http, address: &str, id: &str, proof: &str) -> Result<Token> {
        let body = format!(
            "grant_type=client_credentials&client_id={}&scope={}&{proof}",
            encoded(id, ""),
            encoded(&format!("{}/.default", self.resource), "")
        );
        let headers = [
            (
                "content-type",
                "application/x-www-form-urlencoded".to_owned(),
            ),
            ("content-length", body.len().to_string()),
        ];
        let call = Call {
            method: "POST",
            url: &Secret::new(address),
            headers: &headers,
            body: body.as_bytes(),
        };
        self.ask(http, &call, WAIT)
    }

    fn ask(&self, http: &Http, call: &Call<'_>, limit: Duration) -> Result<Token> {
        let refuse = |what: String| {
            Error::new(
                ErrorKind::Io,
                format!("cannot get a token by {}", self.origin()),
            )
            .with_source(std::io::Error::new(IoKind::PermissionDenied, what))
            .with_hint("check the identity that the environment names, or sign in with: az login")
        };
        let reply = http
            .send_within(call, Some(limit))
            .map_err(|_| refuse("there is no answer".into()))?;
        let status = reply.status();
        let body = reply
            .read_all(LONGEST)
            .map_err(|_| refuse("the answer was truncated".into()))?;
        if status != 200 {
            // Only the code: descriptions repeat what was sent.
            let answer: Option<Value> = serde_json::from_slice(&body).ok();
            let code = answer
                .as_ref()
                .and_then(|answer| answer.get("error")?.as_str());
            return Err(refuse(format!(
                "the answer is {status} {}",
                code.unwrap_or_default()
            )));
        }
        token(&body).ok_or_else(|| refuse("the answer contains no token".into()))
    }

    fn by_cli(&self, program: &str) -> Result<Token> {
        let refuse = |what: &str| {
            Error::new(
                ErrorKind::Io,
                format!("cannot get a token by {}", self.origin()),
            )
            .with_source(std::io::Error::new(
                IoKind::PermissionDenied,
                what.to_owned(),
            ))
            .with_hint("sign in with: az login")
        };
        let output = Command::new(program)
            .args([
                "account",
                "get-access-token",
                "--resource",
                &self.resource,
                "--output",
                "json",
            ])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .map_err(|_| refuse("az isn't installed"))?;
        if !output.status.success() {
            return Err(refuse("az has no token"));
        }
        token(&output.stdout).ok_or_else(|| refuse("az printed no token"))
    }
}

/// Secrets are sent to it.
fn check_authority(authority: &str) -> Result<()> {
    let local = ["http://127.0.0.1:", "http://localhost:"];
    if authority.starts_with("https://") || local.iter().any(|start| authority.starts_with(start)) {
        return Ok(());
    }
    Err(Error::usage("AZURE_AUTHORITY_HOST is not an https address")
        .with_hint("set it as https://HOST, or unset it"))
}

/// Parses the token in a response. Each source describes its expiry in another way.
fn token(json: &[u8]) -> Option<Token> {
    let answer: Value = serde_json::from_slice(json).ok()?;
    let text = answer
        .get("access_token")
        .or_else(|| answer.get("accessToken"))?;
    let text = text
        .as_str()
        .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()))?;
    let number = |name: &str| {
        let value = answer.get(name)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    };
    let until = number("expires_on").or_else(|| Some(times::now() + number("expires_in")?));
    Some(Token {
        text: Secret::new(text),
        // Without an expiry, it is requested again when it might have ended.
        until: until.unwrap_or_else(|| times::now() + MARGIN + 60),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_with_a_token_is_understood() {
        let now = times::now();
        for (json, from, to) in [
            (
                r#"{"access_token":"hidden","expires_in":3600,"token_type":"Bearer"}"#.to_owned(),
                3590,
                3610,
            ),
            (
                format!(
                    r#"{{"access_token":"hidden","expires_on":"{}","expires_in":"1"}}"#,
                    now + 900
                ),
                890,
                910,
            ),
            (
                format!(
                    r#"{{"accessToken":"hidden","expiresOn":"2026-01-01","expires_on":{}}}"#,
                    now + 900
                ),
                890,
                910,
            ),
            (r#"{"accessToken":"hidden"}"#.to_owned(), 300, 400),
        ] {
            let token = token(json.as_bytes()).unwrap();
            assert_eq!(token.text.expose(), "hidden");
            assert!((now + from..now + to).contains(&token.until), "{json}");
        }
        for json in [
            "",
            "{}",
            "[]",
            r#"{"access_token":""}"#,
            r#"{"access_token":7}"#,
            r#"{"access_token":"a\nb"}"#,
        ] {
            assert!(token(json.as_bytes()).is_none(), "{json}");
        }
    }

    #[test]
    fn secrets_go_over_https_only() {
        assert!(check_authority(AUTHORITY).is_ok());
        assert!(check_authority("http://127.0.0.1:7").is_ok());
        assert!(check_authority("http://example.org").is_err());
    }
}
