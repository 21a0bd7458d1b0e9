//! Failed requests: the error for a person, and what a program needs to know to continue.

use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;
use std::time::Duration;

use super::access::Access;
use super::times;
use crate::error::{Error, ErrorKind};
use crate::remedy::{Choice, Remedy, Step};

/// A failed request.
pub struct Failure {
    error: Error,
    status: Option<u16>,
    code: Option<String>,
    done: Done,
    again: bool,
    after: Option<Duration>,
}

/// Whether a failed request was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It wasn't, and never will be.
    No,
    /// It may have been, or still be: a write may land later than everything that is sent after it.
    Perhaps,
}

impl Failure {
    /// A failure that persists when the request is repeated.
    pub fn lasting(error: Error) -> Self {
        Self {
            error,
            status: None,
            code: None,
            done: Done::No,
            again: false,
            after: None,
        }
    }

    /// A failure that may be temporary.
    pub fn passing(error: Error, done: Done) -> Self {
        Self {
            again: true,
            done,
            ..Self::lasting(error)
        }
    }

    /// Adds the service's response.
    #[must_use]
    pub fn answered(mut self, status: u16, code: impl Into<String>) -> Self {
        self.status = Some(status);
        self.code = Some(code.into());
        self
    }

    /// Adds how long the service asks to wait.
    #[must_use]
    pub(crate) fn asked_to_wait(mut self, after: Option<Duration>) -> Self {
        self.after = after;
        self
    }

    /// The error for a person.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Converts it to an [`Error`]. (There is no `From`: a second conversion would make `?` ambiguous in many places.)
    pub fn into_error(self) -> Error {
        self.error
    }

    /// The status of the response, if there was one.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// The reason given by the service.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Returns whether the service gave this reason.
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// Returns whether it was carried out.
    pub fn done(&self) -> Done {
        self.done
    }

    /// Returns whether the same request may succeed later.
    pub fn may_pass(&self) -> bool {
        self.again
    }

    /// How long the service asks to wait.
    pub fn after(&self) -> Option<Duration> {
        self.after
    }

    /// The failure, known to be permanent.
    #[must_use]
    pub fn given_up(mut self, why: &str) -> Self {
        self.again = false;
        let known = self.error.remedy().cloned();
        let known = known.or_else(|| self.error.hint().map(Remedy::from));
        let remedy = Remedy::from(why);
        self.error = self.error.override_remedy(match known {
            Some(known) => remedy.text("; ").then(known),
            None => remedy,
        });
        self
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("error", &self.error)
            .field("status", &self.status)
            .field("done", &self.done)
            .field("again", &self.again)
            .finish_non_exhaustive()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::lasting(error)
    }
}

/// The purpose of a request: its name in messages, and the permission it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Look,
    Read,
    ListPages,
    ListBlobs,
    Create,
    CreateContainer,
    Write,
    Change,
    Snapshot,
    Lease,
    Delete,
}

impl Task {
    pub(super) fn doing(self) -> &'static str {
        match self {
            Self::Look => "cannot look at",
            Self::Read => "cannot read",
            Self::ListPages => "cannot list the pages of",
            Self::ListBlobs => "cannot list the blobs of",
            Self::Create => "cannot create",
            Self::CreateContainer => "cannot create the container",
            Self::Write => "cannot write",
            Self::Change => "cannot change",
            Self::Snapshot => "cannot take a snapshot of",
            Self::Lease => "cannot lease",
            Self::Delete => "cannot delete",
        }
    }

    /// The permission of a signature, and the role that grants it.
    fn right(self) -> (&'static str, &'static str) {
        const READER: &str = "Storage Blob Data Reader";
        const WRITER: &str = "Storage Blob Data Contributor";
        match self {
            Self::Look | Self::Read | Self::ListPages => ("read (r)", READER),
            Self::ListBlobs => ("list (l)", READER),
            Self::Create | Self::CreateContainer | Self::Snapshot => ("create (c)", WRITER),
            Self::Write | Self::Change | Self::Lease => ("write (w)", WRITER),
            Self::Delete => ("delete (d)", WRITER),
        }
    }
}

/// The relevant parts of a response that is a refusal.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The service's code, from the header or the body.
    pub(super) code: String,
    /// Its message.
    pub(super) message: String,
    /// The request's number in the service's logs.
    pub(super) request: String,
    /// The service's clock, in seconds since 1970.
    pub(super) date: Option<i64>,
    pub(super) after: Option<Duration>,
}

/// The maximum difference of the clocks in minutes: the service refuses more.
const CLOCK_MINUTES: i64 = 15;

impl Refusal {
    /// The failure of `task` on what is shown as `name`, for requests with `access`, at `now` by this machine's clock.
    pub(super) fn failure(self, task: Task, name: &Path, access: &Access, now: i64) -> Failure {
        let (kind, hint) = self.advice(task, access, now);
        let source = match self.status {
            404 => io::ErrorKind::NotFound,
            401 | 403 => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        let mut said = format!("the service answered {}", self.status);
        if !self.code.is_empty() {
            let _ = write!(said, " {}", plain(&self.code, 80));
        }
        if !self.request.is_empty() {
            let _ = write!(said, ", request {}", plain(&self.request, 80));
        }
        // Some responses continue with what was signed, and with numbers of their own.
        let first = self.message.lines().next().unwrap_or_default();
        let first = first.trim().trim_end_matches('.');
        if !first.is_empty() && first != self.code {
            let _ = write!(said, ": {}", plain(first, 300));
        }
        let mut error = Error::new(kind, task.doing())
            .with_path(name)
            .with_source(io::Error::new(source, said));
        if let Some(hint) = hint {
            error = error.with_remedy(hint);
        }
        let done = if self.status < 500 || self.status == 503 {
            Done::No
        } else {
            Done::Perhaps
        };
        let mismatch = matches!(self.code.as_str(), "Md5Mismatch" | "Crc64Mismatch");
        let passing = matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504);
        let unknown_feature = self.code == "FeatureNotSupported";
        Failure {
            error,
            status: Some(self.status),
            done,
            again: mismatch || passing && !unknown_feature,
            after: self.after,
            code: Some(self.code),
        }
    }

    fn advice(&self, task: Task, access: &Access, now: i64) -> (ErrorKind, Option<Remedy>) {
        let code = self.code.as_str();
        let say = |hint: &'static str| Some(Remedy::new(hint));
        match (self.status, code) {
            (401, _) | (409, "PublicAccessNotPermitted") => {
                (ErrorKind::Io, Some(access.missing().into()))
            }
            (403, _) => (
                ErrorKind::Io,
                Some(self.forbidden(task, access, now).into()),
            ),
            (404, "ContainerNotFound") => (
                ErrorKind::Io,
                say("there is no such container: check the name, or create it first"),
            ),
            (404, _) => (
                ErrorKind::Io,
                say("check the names of account, container and blob, and the time of a snapshot"),
            ),
            (409, "LeaseAlreadyPresent")
            | (412, "LeaseIdMissing" | "LeaseIdMismatchWithBlobOperation") => (
                ErrorKind::Locked,
                say(
                    "another program holds a lease on the blob: wait until it ends; if that program is gone, a lease of \
                     this program ends by itself within a minute, and another one is broken with: az storage blob lease \
                     break",
                ),
            ),
            (412, "LeaseLost" | "LeaseNotPresentWithBlobOperation") => (
                ErrorKind::Locked,
                say(
                    "the lease on the blob was lost, so another program may have written: run the command again",
                ),
            ),
            (412 | 304, _) => (
                ErrorKind::Changed,
                say(
                    "another program changed the blob meanwhile: run the command again, or read a snapshot of it",
                ),
            ),
            (409, "BlobAlreadyExists") => (
                ErrorKind::Usage,
                Some(
                    Remedy::new("name another blob, or replace it")
                        .named(" with ")
                        .step(Step::Choose(Choice::Overwrite), ""),
                ),
            ),
            (409, "SnapshotsPresent") => (
                ErrorKind::Usage,
                say("the blob has snapshots, which would be lost"),
            ),
            (
                409,
                "BlobOverwritten"
                | "BlobGenerationMismatch"
                | "PreviousSnapshotOperationNotSupported",
            ) => (
                ErrorKind::Unsupported,
                say(
                    "the service can't list what changed between these two: compare them by their content",
                ),
            ),
            (409, "InvalidBlobType") => (
                ErrorKind::Unsupported,
                say(
                    "this is not a page blob: upload it again as one, as with azcopy copy --blob-type PageBlob",
                ),
            ),
            (416, _) => (
                ErrorKind::Damaged,
                say("the blob is shorter than it was: another program changed it"),
            ),
            (413, _) => (ErrorKind::Unsupported, None),
            (400, "Md5Mismatch" | "Crc64Mismatch") => (
                ErrorKind::Io,
                say(
                    "the data that arrives is not what was sent: check the memory of this machine and the network",
                ),
            ),
            (408 | 429 | 500..=504, _) => (
                ErrorKind::Io,
                say("the service is busy or in trouble: run the command again later"),
            ),
            _ => (ErrorKind::Io, None),
        }
    }

    /// Why a request was forbidden, as far as the response reveals it.
    fn forbidden(&self, task: Task, access: &Access, now: i64) -> String {
        let service = self.date.unwrap_or(now);
        let skew = now - service;
        let clock = || {
            let (minutes, way) = (
                skew.abs() / 60,
                if skew > 0 { "ahead of" } else { "behind" },
            );
            format!(
                "the clock of this machine is {minutes} minutes {way} the service's: set it right"
            )
        };
        let code = self.code.as_str();
        if let Access::Signature { from, until, .. } = access {
            if let Some(until) = until.filter(|until| service >= *until) {
                return format!(
                    "the signature (SAS) in use expired on {}: get a new one",
                    times::shown(until)
                );
            }
            if let Some(from) = from.filter(|from| service < *from) {
                let from = times::shown(from);
                return if skew.abs() > 60 {
                    format!(
                        "the signature (SAS) in use is valid from {from} on; {}",
                        clock()
                    )
                } else {
                    format!("the signature (SAS) in use is valid from {from} on: wait until then")
                };
            }
        }
        let (permission, role) = task.right();
        match code {
            "AuthenticationFailed" if skew.abs() > CLOCK_MINUTES * 60 => clock(),
            "AuthenticationFailed" => match access {
                Access::Signature { .. } => {
                    "the signature (SAS) isn't for this blob, is truncated, or its key was changed: get a new one, and put \
                     the address between single quotes"
                        .into()
                }
                Access::Key { from } => format!(
                    "the account key ({from}) is not one of this account's: copy it again, or get it with: az storage \
                     account keys list"
                ),
                Access::Token { .. } | Access::None => access.missing(),
            },
            "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions"
            | "AuthorizationResourceTypeMismatch" | "AuthorizationServiceMismatch" => match access {
                Access::Signature { permissions, .. } => {
                    let has = permissions.as_deref().unwrap_or("unknown");
                    format!(
                        "this needs the permission {permission}, and the signature (SAS) has sp={}: get one that has it",
                        plain(has, 40)
                    )
                }
                _ => format!(
                    "this needs a role such as {role}, which Owner and Contributor don't include: az role assignment create \
                     --role '{role}' assigns it"
                ),
            },
            "KeyBasedAuthenticationNotPermitted" => {
                "the account accepts no keys and no signatures made with them: omit them, so that az login or another identity \
                 is used"
                    .into()
            }
            "AuthorizationProtocolMismatch" | "AccountRequiresHttps" => {
                "the signature or the account allows only https: write https in the address".into()
            }
            "AuthorizationSourceIPMismatch" | "IpAuthorizationFailure" => {
                "the signature or the firewall of the account doesn't allow the address of this machine".into()
            }
            "AccountIsDisabled" => "the storage account is disabled: ask its owner".into(),
            "AuthorizationFailure" => format!(
                "either the firewall of the account doesn't let this machine in, or what is used for access ({}) doesn't \
                 allow it: look at Networking of the storage account, and for the permission {permission}",
                access.what()
            ),
            _ => format!("this needs the permission {permission}, or a role such as {role}"),
        }
    }
}

/// A text of the service on one line, without credentials, and of limited length.
fn plain(text: &str, longest: usize) -> String {
    let text = crate::text::without_secrets(text);
    text.chars().take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn refusal(status: u16, code: &str) -> Refusal {
        Refusal {
            status,
            code: code.into(),
            date: Some(NOW),
            ..Refusal::default()
        }
    }

    fn signature(from: Option<i64>, until: Option<i64>) -> Access {
        Access::Signature {
            from,
            until,
            permissions: Some("r".into()),
            origin: "the address",
        }
    }

    fn hint(refusal: Refusal, task: Task, access: &Access, now: i64) -> String {
        let failure = refusal.failure(task, Path::new("https://h/c/b"), access, now);
        failure.error().hint().unwrap_or_default().to_owned()
    }

    #[test]
    fn forbidden_is_told_apart() {
        let failed = || refusal(403, "AuthenticationFailed");
        let valid = signature(Some(NOW - 100), Some(NOW + 100));
        for (refusal, task, access, now, expected) in [
            (
                failed(),
                Task::Read,
                signature(None, Some(NOW - 1)),
                NOW,
                "expired on 2027-01-15",
            ),
            (
                failed(),
                Task::Read,
                signature(Some(NOW + 50), None),
                NOW,
                "wait until then",
            ),
            (
                failed(),
                Task::Read,
                signature(Some(NOW + 50), None),
                NOW + 900,
                "15 minutes ahead of the service's",
            ),
            (failed(), Task::Read, valid.clone(), NOW, "truncated"),
            (
                failed(),
                Task::Read,
                valid.clone(),
                NOW - 3600,
                "60 minutes behind",
            ),
            (
                failed(),
                Task::Read,
                Access::Key {
                    from: "AZURE_STORAGE_KEY",
                },
                NOW,
                "AZURE_STORAGE_KEY",
            ),
            (
                refusal(403, "AuthorizationPermissionMismatch"),
                Task::Write,
                valid.clone(),
                NOW,
                "write (w), and the signature (SAS) has sp=r",
            ),
            (
                refusal(403, "AuthorizationPermissionMismatch"),
                Task::Read,
                Access::Token { from: "az login" },
                NOW,
                "Storage Blob Data Reader",
            ),
            (
                refusal(403, "AuthorizationFailure"),
                Task::Read,
                valid.clone(),
                NOW,
                "firewall",
            ),
            (
                refusal(403, "AuthorizationSourceIPMismatch"),
                Task::Read,
                valid.clone(),
                NOW,
                "address of this machine",
            ),
            (
                refusal(403, "KeyBasedAuthenticationNotPermitted"),
                Task::Read,
                valid,
                NOW,
                "accepts no keys",
            ),
            (
                refusal(401, ""),
                Task::Read,
                Access::None,
                NOW,
                "AZURE_STORAGE_KEY",
            ),
        ] {
            let said = hint(refusal, task, &access, now);
            assert!(said.contains(expected), "{said}\nexpected: {expected}");
        }
    }

    #[test]
    fn only_some_failures_are_certain_and_only_some_pass() {
        for (status, code, done, again) in [
            (400, "InvalidHeaderValue", Done::No, false),
            (400, "Crc64Mismatch", Done::No, true),
            (403, "AuthenticationFailed", Done::No, false),
            (404, "BlobNotFound", Done::No, false),
            (408, "", Done::No, true),
            (412, "ConditionNotMet", Done::No, false),
            (429, "", Done::No, true),
            (500, "OperationTimedOut", Done::Perhaps, true),
            (500, "FeatureNotSupported", Done::Perhaps, false),
            (501, "NotImplemented", Done::Perhaps, false),
            (502, "", Done::Perhaps, true),
            (503, "ServerBusy", Done::No, true),
            (504, "", Done::Perhaps, true),
        ] {
            let failure =
                refusal(status, code).failure(Task::Write, Path::new("b"), &Access::None, NOW);
            assert_eq!(
                (failure.done(), failure.may_pass()),
                (done, again),
                "{status} {code}"
            );
        }
    }

    #[test]
    fn kinds_fit_the_exit_codes() {
        for (status, code, kind) in [
            (404, "BlobNotFound", ErrorKind::Io),
            (409, "LeaseAlreadyPresent", ErrorKind::Locked),
            (412, "LeaseIdMissing", ErrorKind::Locked),
            (412, "ConditionNotMet", ErrorKind::Changed),
            (409, "BlobAlreadyExists", ErrorKind::Usage),
            (503, "ServerBusy", ErrorKind::Io),
        ] {
            let failure =
                refusal(status, code).failure(Task::Write, Path::new("b"), &Access::None, NOW);
            assert_eq!(failure.error().kind(), kind);
            assert!(failure.error().hint().is_some(), "{code}");
        }
    }

    #[test]
    fn what_the_service_says_is_one_clean_line() {
        let refusal = Refusal {
            status: 403,
            code: "AuthenticationFailed".into(),
            message: "No: https://h/c/b?sv=1&sig=hidden is wrong.\nRequestId:1\nTime:2".into(),
            request: "abc-1".into(),
            ..Refusal::default()
        };
        let failure = refusal.failure(Task::Read, Path::new("https://h/c/b"), &Access::None, NOW);
        let said = format!("{} {failure:?}", failure.error());
        assert!(said.starts_with("https://h/c/b: cannot read: the service answered 403 AuthenticationFailed, request abc-1: No: https://h/c/b?..."), "{said}");
        assert!(!said.contains("hidden") && !said.contains('\n'), "{said}");
    }
}
