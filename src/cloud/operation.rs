//! Long-running requests. Their response has one of four forms:
//!
//! | response | completion |
//! | --- | --- |
//! | 200 or 204 | immediate; for a resource, when its `provisioningState` is final |
//! | 202 with `Location` | that responds with 202 until the result is available |
//! | 202 with `Azure-AsyncOperation` and `Location` | the operation reports its progress; then `Location` has the result |
//! | 201 or 202 with `Azure-AsyncOperation` alone | the operation reports its progress, and contains the result or has created the resource |

use std::time::Duration;

use serde_json::Value;

use super::api::{Api, Asked, Reply};
use super::refusal::Refusal;
use crate::blob::{Answer, Retry};
use crate::error::{Error, ErrorKind};

/// The polling interval for operations that don't request another one.
const WAIT: Duration = Duration::from_secs(1);

/// The maximum number of polls of one operation.
const MOST: usize = 20_000;

/// The state of an operation, from the service's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Going,
    Done,
    Failed,
}

impl Stage {
    fn of(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "succeeded" => Self::Done,
            "failed" | "canceled" | "cancelled" => Self::Failed,
            _ => Self::Going,
        }
    }
}

impl Api {
    /// Sends a request, and waits for its completion. Returns the resource after a PUT, the result after a POST.
    pub(super) fn run(&self, asked: Asked<'_>) -> Answer<Value> {
        self.run_with(asked, &self.retry)
    }

    /// Like [`run`](Self::run), retried according to `retry`.
    pub(super) fn run_with(&self, asked: Asked<'_>, retry: &Retry) -> Answer<Value> {
        let reply = self.send_with(asked, retry)?;
        if let Some(operation) = reply.operation.clone() {
            return self.follow(asked, &operation, reply, retry);
        }
        if reply.status == 202 {
            return match reply.location.clone() {
                Some(location) => self.wait_at(asked, location, reply.after, retry),
                None => self.wait_for_resource(asked, retry),
            };
        }
        let state = reply.body.pointer("/properties/provisioningState");
        let going = state
            .and_then(Value::as_str)
            .is_some_and(|word| Stage::of(word) == Stage::Going);
        if matches!(asked.method, "PUT" | "PATCH") && going {
            return self.wait_for_resource(asked, retry);
        }
        Ok(reply.body)
    }

    /// Follows an operation to its end.
    fn follow(
        &self,
        asked: Asked<'_>,
        operation: &str,
        first: Reply,
        retry: &Retry,
    ) -> Answer<Value> {
        let mut after = first.after;
        for _ in 0..MOST {
            pause(retry, after, asked)?;
            let seen = self.send_with(asked.get(operation), retry)?;
            after = seen.after;
            let word = seen
                .body
                .get("status")
                .and_then(Value::as_str)
                .unwrap_or("");
            match Stage::of(word) {
                Stage::Going => {}
                Stage::Failed => {
                    return Err(Refusal::of(0, &seen.body).failure(asked.doing, asked.about));
                }
                Stage::Done if matches!(asked.method, "PUT" | "PATCH") => {
                    return Ok(self.send_with(asked.get(asked.place), retry)?.body);
                }
                Stage::Done => {
                    let output = seen.body.pointer("/properties/output").cloned();
                    return match (first.location, output) {
                        // Some services return the result only with the operation.
                        (Some(location), output) => {
                            match self.wait_at(asked, location, Some(Duration::ZERO), retry)? {
                                Value::Null => Ok(output.unwrap_or(Value::Null)),
                                result => Ok(result),
                            }
                        }
                        (None, output) => Ok(output.unwrap_or(Value::Null)),
                    };
                }
            }
        }
        Err(endless(asked).into())
    }

    /// Polls `location` until the result is available.
    fn wait_at(
        &self,
        asked: Asked<'_>,
        mut location: String,
        mut after: Option<Duration>,
        retry: &Retry,
    ) -> Answer<Value> {
        for _ in 0..MOST {
            pause(retry, after, asked)?;
            let reply = self.send_with(asked.get(&location), retry)?;
            if reply.status != 202 {
                return Ok(reply.body);
            }
            location = reply.location.unwrap_or(location);
            after = reply.after;
        }
        Err(endless(asked).into())
    }

    /// Polls the resource itself until it has the requested state.
    fn wait_for_resource(&self, asked: Asked<'_>, retry: &Retry) -> Answer<Value> {
        if asked.method == "POST" {
            return Err(Error::unsupported(
                "the resource manager doesn't say where the result will be",
            )
            .with_path(asked.about)
            .into());
        }
        let mut after = None;
        for _ in 0..MOST {
            pause(retry, after, asked)?;
            let reply = match self.send_with(asked.get(asked.place), retry) {
                Err(failure) if failure.status() == Some(404) && asked.method == "DELETE" => {
                    return Ok(Value::Null);
                }
                answer => answer?,
            };
            after = reply.after;
            let state = reply.body.pointer("/properties/provisioningState");
            match Stage::of(state.and_then(Value::as_str).unwrap_or("Succeeded")) {
                Stage::Done if matches!(asked.method, "PUT" | "PATCH") => return Ok(reply.body),
                Stage::Failed => {
                    return Err(Refusal::of(0, &reply.body).failure(asked.doing, asked.about));
                }
                Stage::Done | Stage::Going => {}
            }
        }
        Err(endless(asked).into())
    }
}

fn pause(retry: &Retry, after: Option<Duration>, asked: Asked<'_>) -> Answer<()> {
    if retry.pause(after.unwrap_or(WAIT)) {
        return Err(Error::interrupted().with_path(asked.about).into());
    }
    Ok(())
}

fn endless(asked: Asked<'_>) -> Error {
    Error::new(ErrorKind::Io, asked.doing)
        .with_path(asked.about)
        .with_source(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the service doesn't come to an end",
        ))
        .with_hint("look at the resource in the portal, and run the command again")
}
