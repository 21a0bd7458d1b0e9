//! Refusals of the resource manager.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::blob::{Done, Failure};
use crate::error::{Error, ErrorKind};
use crate::text::without_secrets;

/// The longest part of the service's message that is repeated.
const LONGEST: usize = 300;

/// An error response.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    /// The status; 0 if an operation failed later.
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) request: String,
    pub(super) after: Option<Duration>,
}

impl Refusal {
    /// A refusal with the code and message of a body.
    pub(super) fn of(status: u16, body: &Value) -> Self {
        let error = body.get("error").unwrap_or(body);
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or("");
        Self {
            status,
            code: text("code").to_owned(),
            message: text("message").to_owned(),
            ..Self::default()
        }
    }

    /// Returns the error for an operation that failed on the resource shown as `name`.
    pub(super) fn failure(self, doing: &str, name: &Path) -> Failure {
        let (kind, hint) = self.advice();
        let source = match self.status {
            404 => io::ErrorKind::NotFound,
            401 | 403 => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        let mut said = match self.status {
            0 => "the service ended it".to_owned(),
            status => format!("the service answered {status}"),
        };
        let plain = |text: &str, longest: usize| -> String {
            let text = text
                .lines()
                .next()
                .unwrap_or("")
                .trim()
                .trim_end_matches('.');
            without_secrets(text).chars().take(longest).collect()
        };
        if !self.code.is_empty() {
            let _ = write!(said, " {}", plain(&self.code, 80));
        }
        if !self.request.is_empty() {
            let _ = write!(said, ", request {}", plain(&self.request, 80));
        }
        let message = plain(&self.message, LONGEST);
        if !message.is_empty() {
            let _ = write!(said, ": {message}");
        }
        let mut error = Error::new(kind, doing)
            .with_path(name)
            .with_source(io::Error::new(source, said));
        if let Some(hint) = hint {
            error = error.with_hint(hint);
        }
        let passes = matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504)
            // Two concurrent requests about one resource.
            || matches!(self.code.as_str(), "RetryableError" | "OperationPreempted");
        let failure = if passes {
            // Requests are idempotent, since each names the resource that it creates or deletes.
            Failure::passing(error, Done::Perhaps)
        } else {
            Failure::lasting(error)
        };
        failure
            .answered(self.status, self.code)
            .asked_to_wait(self.after)
    }

    fn advice(&self) -> (ErrorKind, Option<String>) {
        let io = |hint: &str| (ErrorKind::Io, Some(hint.to_owned()));
        match (self.status, self.code.as_str()) {
            (401, _) => io("the token wasn't accepted: sign in again with: az login"),
            (403, "DiskAccessDenied" | "PublicNetworkAccessDenied") => io(
                "the disk doesn't allow access from here: use a private endpoint, or allow access by the network in its settings",
            ),
            (403, _) => io(
                "the identity lacks this right: the role \"Disk Snapshot Contributor\" on the resource group has it for \
                 snapshots, \"Contributor\" for disks",
            ),
            (
                404,
                "SubscriptionNotFound"
                | "InvalidSubscriptionId"
                | "InvalidAuthenticationTokenTenant",
            )
            | (400, "InvalidSubscriptionId") => io(
                "check the subscription: az account list shows those of the identity; AZURE_SUBSCRIPTION_ID names another one",
            ),
            (404, "ResourceGroupNotFound") => {
                io("check the name of the resource group, and the subscription")
            }
            (404, _) => io("check the names of group and disk, and the subscription"),
            (409, "OperationNotAllowed" | "Conflict" | "AttachDiskWhileBeingDetached") => {
                (ErrorKind::Locked, None)
            }
            (409, _) => (ErrorKind::Locked, None),
            (429, _) => {
                io("the service limits how much is asked of it: run the command again later")
            }
            (408 | 500..=504, _) => {
                io("the service is busy or in trouble: run the command again later")
            }
            _ => (ErrorKind::Io, None),
        }
    }
}
