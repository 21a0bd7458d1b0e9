//! Conditions of requests: on unchanged blobs, sequence numbers, leases.

use super::http::Request;
use super::refusal::{Answered, refuse};
use super::text::now;
use super::volume::{Held, Live};
use crate::blob::times::from_header;

/// The state that the conditions are compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) etag: &'a str,
    pub(super) modified: i64,
}

/// Checks the conditions on the existing blob; reads and writes differ only in the refusal.
pub(super) fn check(request: &Request, found: Found<'_>) -> Answered<()> {
    let reads = matches!(request.method.as_str(), "GET" | "HEAD");
    let unmet = || {
        refuse(
            412,
            "ConditionNotMet",
            "The condition specified using HTTP conditional header(s) is not met.",
        )
    };
    let unmodified = || {
        if reads {
            refuse(304, "ConditionNotMet", "")
        } else {
            unmet()
        }
    };
    let matches = |wanted: &str| {
        let mut tags = wanted
            .split(',')
            .map(|tag| tag.trim().trim_start_matches("W/"));
        tags.any(|tag| tag == "*" || tag.trim_matches('"') == found.etag.trim_matches('"'))
    };
    if request
        .said("if-match")
        .is_some_and(|wanted| !matches(wanted))
    {
        return unmet();
    }
    if request.said("if-none-match").is_some_and(matches) {
        return unmodified();
    }
    for (name, newer) in [("if-modified-since", true), ("if-unmodified-since", false)] {
        let Some(text) = request.said(name) else {
            continue;
        };
        let Some(time) = from_header(text) else {
            return refuse(400, "InvalidHeaderValue", format!("{name} is not a time."));
        };
        match newer {
            true if found.modified <= time => return unmodified(),
            false if found.modified > time => return unmet(),
            _ => {}
        }
    }
    Ok(())
}

/// The conditions on the sequence number.
pub(super) fn check_sequence(request: &Request, sequence: u64) -> Answered<()> {
    for (name, met) in [
        (
            "x-ms-if-sequence-number-le",
            (|a, b| a <= b) as fn(u64, u64) -> bool,
        ),
        ("x-ms-if-sequence-number-lt", |a, b| a < b),
        ("x-ms-if-sequence-number-eq", |a, b| a == b),
    ] {
        let Some(text) = request.said(name) else {
            continue;
        };
        let Ok(wanted) = text.parse() else {
            return refuse(
                400,
                "InvalidHeaderValue",
                format!("{name} is not a number."),
            );
        };
        if !met(sequence, wanted) {
            return refuse(
                412,
                "SequenceNumberConditionNotMet",
                "The sequence number condition specified was not met.",
            );
        }
    }
    Ok(())
}

impl Held {
    /// Returns whether others are prevented from writing.
    pub(super) fn is_active(&self) -> bool {
        self.until.is_none_or(|until| now() < until)
    }

    /// State and status as the service calls them.
    pub(super) fn shown(held: Option<&Self>) -> (&'static str, &'static str) {
        match held {
            None => ("available", "unlocked"),
            Some(held) if held.is_active() && held.broken => ("breaking", "locked"),
            Some(held) if held.is_active() => ("leased", "locked"),
            Some(held) if held.broken => ("broken", "unlocked"),
            Some(_) => ("expired", "unlocked"),
        }
    }
}

/// Whether the lease on a blob lets this request write.
pub(super) fn check_lease(request: &Request, live: &Live) -> Answered<()> {
    let said = request.said("x-ms-lease-id");
    match (
        live.record.lease.as_ref().filter(|held| held.is_active()),
        said,
    ) {
        (None, None) => Ok(()),
        (None, Some(_)) => refuse(
            412,
            "LeaseNotPresentWithBlobOperation",
            "There is currently no lease on the blob.",
        ),
        (Some(_), None) => refuse(
            412,
            "LeaseIdMissing",
            "There is currently a lease on the blob and no lease ID was specified in the request.",
        ),
        (Some(held), Some(said)) if held.id.eq_ignore_ascii_case(said) => Ok(()),
        (Some(_), Some(_)) => refuse(
            412,
            "LeaseIdMismatchWithBlobOperation",
            "The lease ID specified did not match the lease ID for the blob.",
        ),
    }
}

/// Checks a read: a lease that the client names has to exist.
pub(super) fn check_lease_of_reader(request: &Request, live: &Live) -> Answered<()> {
    match request.said("x-ms-lease-id") {
        Some(_) => check_lease(request, live),
        None => Ok(()),
    }
}
