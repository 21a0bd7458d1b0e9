//! Error responses of the service.

use super::http::{Request, Response};
use super::text::xml;
use crate::error::{Error, ErrorKind};

/// An error response: status, code and message of the service.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
}

/// The outcome of a request.
pub(super) type Answered<T = Response> = Result<T, Refusal>;

/// Refuses.
pub(super) fn refuse<T>(status: u16, code: &str, message: impl Into<String>) -> Answered<T> {
    Err(Refusal {
        status,
        code: code.to_owned(),
        message: message.into(),
    })
}

/// Refuses a body that is too long.
pub(super) fn refuse_too_long<T>() -> Answered<T> {
    refuse(
        413,
        "RequestBodyTooLarge",
        "The request body is too large and exceeds the maximum permissible limit.",
    )
}

/// Refuses a request that a signature or a grant doesn't allow.
pub(super) fn refuse_permission<T>() -> Answered<T> {
    refuse(
        403,
        "AuthorizationPermissionMismatch",
        "This request is not authorized to perform this operation using this permission.",
    )
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, code) = match error.kind() {
            ErrorKind::Locked | ErrorKind::Pending => (503, "ServerBusy"),
            _ => (500, "InternalError"),
        };
        Self {
            status,
            code: code.to_owned(),
            message: error.to_string(),
        }
    }
}

impl Refusal {
    /// The response in the format of the storage service.
    pub(super) fn as_xml(&self, request: &Request) -> Response {
        let response = Response::new(self.status).with("x-ms-error-code", &self.code);
        if request.method == "HEAD" || self.status == 304 {
            return response;
        }
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{}</Code><Message>{}</Message></Error>",
            xml(&self.code),
            xml(&self.message)
        );
        response.with_body("application/xml", body)
    }

    /// The response in the format of the resource manager.
    pub(super) fn as_json(&self) -> Response {
        let body = serde_json::json!({ "error": { "code": self.code, "message": self.message } });
        Response::new(self.status)
            .with("x-ms-failure-cause", "gateway")
            .with_body("application/json; charset=utf-8", body.to_string())
    }
}
