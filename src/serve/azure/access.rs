//! Checks the authorization of requests to the storage service: by the key of the account, a signature (SAS) made with it, or
//! a token.

use std::net::IpAddr;

use super::http::Request;
use super::identity::{Identity, same};
use super::refusal::{Answered, refuse, refuse_permission};
use super::text::now;
use crate::blob::times::{from_header, from_signature};
use crate::blob::{AccountKey, Signed, shared_key};

/// How far the clock of a client may be off, in seconds.
const CLOCKS: i64 = 15 * 60;

/// The access that a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted<'a> {
    pub(super) account: &'a str,
    pub(super) container: &'a str,
    pub(super) blob: &'a str,
    pub(super) snapshot: Option<&'a str>,
    /// The permission letters, any of which is sufficient.
    pub(super) any_of: &'a str,
}

/// Fails unless the request is authorized.
pub(super) fn check(request: &Request, wanted: Wanted<'_>, identity: &Identity) -> Answered<()> {
    if wanted.account != identity.account {
        return denied("there is no such storage account here");
    }
    if let Some(authorization) = request.said("authorization") {
        if let Some(token) = authorization.strip_prefix("Bearer ") {
            if identity.is_valid(token) {
                return Ok(());
            }
            return refuse(
                401,
                "InvalidAuthenticationInfo",
                "The token isn't from here, or has expired.",
            );
        }
        return by_key(request, authorization, identity);
    }
    if request.asked("sig").is_some() {
        return by_signature(&request.query, request, wanted, identity);
    }
    refuse(
        401,
        "NoAuthenticationInformation",
        "Server failed to authenticate the request: there is neither a signature, \
        nor a key, nor a token.",
    )
}

fn denied<T>(why: &str) -> Answered<T> {
    refuse(
        403,
        "AuthenticationFailed",
        format!("Server failed to authenticate the request: {why}."),
    )
}

fn by_key(request: &Request, authorization: &str, identity: &Identity) -> Answered<()> {
    let key = AccountKey::new(&identity.account_key)?;
    let query: Vec<(String, String)> = request
        .query
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect();
    let query: Vec<(&str, String)> = query
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    let headers: Vec<(&str, String)> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    let signed = Signed {
        method: &request.method,
        path: &request.raw_path,
        query: &query,
        headers: &headers,
    };
    let expected = shared_key(&identity.account, &key, &signed)?;
    if !same(authorization.as_bytes(), expected.as_bytes()) {
        return denied("the signature made with the account key is wrong");
    }
    let sent = request.said("x-ms-date").or_else(|| request.said("date"));
    match sent.and_then(from_header) {
        Some(sent) if (now() - sent).abs() <= CLOCKS => Ok(()),
        _ => denied("the time of the request is too far from now"),
    }
}

/// The parameters of a signature.
#[derive(Clone, Copy)]
struct Parameters<'a>(&'a [(String, String)]);

impl<'a> Parameters<'a> {
    /// A value; a missing one is signed as empty.
    fn get(self, name: &str) -> &'a str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }
}

/// Checks that the parameters of a signature, from the request or from the source of a copy, allow the access.
pub(super) fn by_signature(
    query: &[(String, String)],
    request: &Request,
    wanted: Wanted<'_>,
    identity: &Identity,
) -> Answered<()> {
    let parameters = Parameters(query);
    let get = |name: &str| parameters.get(name);
    let version = get("sv");
    let (text, covers) = if get("ss").is_empty() {
        service(parameters, wanted)
    } else {
        account(parameters, wanted)
    };
    let expected = AccountKey::new(&identity.account_key)?.sign(&text)?;
    if version.is_empty() || !same(get("sig").as_bytes(), expected.as_bytes()) {
        return denied("the signature (SAS) is wrong");
    }
    if !covers {
        return refuse(
            403,
            "AuthorizationResourceTypeMismatch",
            "The signature is for another resource.",
        );
    }
    let time = now();
    if !get("st").is_empty() && from_signature(get("st")).is_none_or(|start| time < start) {
        return denied("the signature isn't good yet");
    }
    if from_signature(get("se")).is_none_or(|end| time >= end) {
        return denied("the signature has expired");
    }
    if get("spr") == "https" && !request.tls {
        return refuse(
            403,
            "AuthorizationProtocolMismatch",
            "The signature is for https only.",
        );
    }
    if !get("sip").is_empty() && !is_among(request.peer, get("sip")) {
        return refuse(
            403,
            "AuthorizationSourceIPMismatch",
            "The signature is for another address.",
        );
    }
    if get("sp")
        .chars()
        .any(|letter| wanted.any_of.contains(letter))
    {
        return Ok(());
    }
    refuse_permission()
}

fn is_among(peer: Option<IpAddr>, allowed: &str) -> bool {
    let (first, last) = allowed.split_once('-').unwrap_or((allowed, allowed));
    match (peer, first.parse::<IpAddr>(), last.parse::<IpAddr>()) {
        (Some(peer), Ok(first), Ok(last)) => first <= peer && peer <= last,
        _ => false,
    }
}

/// The signed text of a signature for a container or a blob; checks that it is for the right resource.
fn service(parameters: Parameters<'_>, wanted: Wanted<'_>) -> (String, bool) {
    let get = |name: &str| parameters.get(name);
    let version = get("sv");
    let resource = get("sr");
    let covers = match resource {
        "c" => !wanted.container.is_empty(),
        "b" => !wanted.blob.is_empty(),
        "bs" => !wanted.blob.is_empty() && wanted.snapshot.is_some(),
        _ => false,
    };
    let mut name = format!("/blob/{}/{}", wanted.account, wanted.container);
    if resource != "c" {
        name = format!("{name}/{}", wanted.blob);
    }
    let mut lines = vec![
        get("sp"),
        get("st"),
        get("se"),
        name.as_str(),
        get("si"),
        get("sip"),
        get("spr"),
        version,
    ];
    if version >= "2018-11-09" {
        lines.push(resource);
        lines.push(if resource == "bs" {
            wanted.snapshot.unwrap_or("")
        } else {
            ""
        });
    }
    if version >= "2020-12-06" {
        lines.push(get("ses"));
    }
    lines.extend(["rscc", "rscd", "rsce", "rscl", "rsct"].map(|name| parameters.get(name)));
    (lines.join("\n"), covers)
}

/// The signed text of a signature for a whole account, with the same check.
fn account(parameters: Parameters<'_>, wanted: Wanted<'_>) -> (String, bool) {
    let get = |name: &str| parameters.get(name);
    let version = get("sv");
    let kind = match (wanted.container, wanted.blob) {
        ("", _) => 's',
        (_, "") => 'c',
        _ => 'o',
    };
    // To list blobs is an operation on the container.
    let covers = get("ss").contains('b') && get("srt").contains(kind);
    let mut lines = vec![
        wanted.account,
        get("sp"),
        get("ss"),
        get("srt"),
        get("st"),
        get("se"),
        get("sip"),
        get("spr"),
        version,
    ];
    if version >= "2020-12-06" {
        lines.push(get("ses"));
    }
    (lines.join("\n") + "\n", covers)
}
