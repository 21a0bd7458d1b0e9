//! Long-running requests: answered directly if they finish soon, else with an address to poll.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::serve::azure::http::{Request, Response};
use crate::serve::azure::refusal::{Answered, Refusal, refuse};
use crate::serve::azure::text::{iso_time, now, uuid};

/// Maximum time that a request waits for its work to finish.
const SOON: Duration = Duration::from_millis(1500);

/// Operations that are remembered.
const MOST: usize = 1000;

/// The result of an operation: a body, or none.
type End = Result<Option<Value>, Refusal>;

#[derive(Debug)]
struct Operation {
    id: String,
    begun: i64,
    end: Mutex<Option<End>>,
    ended: Condvar,
}

/// By their ids, and the ids in order.
type Known = (HashMap<String, Arc<Operation>>, Vec<String>);

/// The operations of this run.
#[derive(Debug, Default)]
pub(super) struct Operations {
    all: Mutex<Known>,
}

impl Operations {
    /// Runs `work` on a separate thread. If it ends soon, the response contains the result; else it contains the address
    /// to poll.
    pub(super) fn run(
        &self,
        (request, root, subscription): (&Request, &str, &str),
        location: &str,
        accepted: Option<Value>,
        work: impl FnOnce() -> End + Send + 'static,
    ) -> Answered {
        let operation = Arc::new(Operation {
            id: uuid(),
            begun: now(),
            end: Mutex::default(),
            ended: Condvar::new(),
        });
        let worker = Arc::clone(&operation);
        let started = std::thread::Builder::new()
            .name("azure operation".into())
            .spawn(move || {
                let end = work();
                let mut place = worker.end.lock().unwrap_or_else(PoisonError::into_inner);
                *place = Some(end);
                worker.ended.notify_all();
            });
        if started.is_err() {
            return refuse(
                503,
                "ServerBusy",
                "There are too many operations at a time.",
            );
        }
        if let Some(end) = operation.wait(SOON) {
            return Ok(body(end?));
        }
        self.remember(&operation);
        let version = request.asked("api-version").unwrap_or("2023-10-02");
        let address = format!(
            "{root}/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{location}/operations/{}?api-version={version}",
            operation.id
        );
        let mut response = Response::new(202)
            .with("azure-asyncoperation", &address)
            .with("location", format!("{address}&monitor=true"))
            .with("retry-after", 1);
        if let Some(value) = accepted {
            response = response.with_body("application/json; charset=utf-8", value.to_string());
        }
        Ok(response)
    }

    fn remember(&self, operation: &Arc<Operation>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *all;
        known.insert(operation.id.clone(), Arc::clone(operation));
        order.push(operation.id.clone());
        if order.len() > MOST {
            let oldest = order.remove(0);
            known.remove(&oldest);
        }
    }

    /// The progress of an operation.
    pub(super) fn answer(&self, request: &Request, root: &str, id: &str) -> Answered {
        let found = self
            .all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .get(id)
            .cloned();
        let Some(operation) = found else {
            return refuse(404, "NotFound", "There is no such operation.");
        };
        let end = operation.wait(SOON);
        if request.asked("monitor") == Some("true") {
            let Some(end) = end else {
                let address = format!("{root}{}?{}", request.raw_path, raw_query(request));
                return Ok(Response::new(202)
                    .with("location", address)
                    .with("retry-after", 1));
            };
            return Ok(body(end?));
        }
        let mut told = json!({ "name": operation.id, "startTime": iso_time(operation.begun), "status": "InProgress" });
        if let (Some(end), Some(told)) = (end, told.as_object_mut()) {
            let status = if end.is_ok() { "Succeeded" } else { "Failed" };
            told.insert("status".to_owned(), json!(status));
            told.insert("endTime".to_owned(), json!(iso_time(now())));
            match end {
                Ok(Some(value)) => {
                    told.insert("properties".to_owned(), json!({ "output": value }));
                }
                Ok(None) => {}
                Err(refusal) => {
                    let error = json!({ "code": refusal.code, "message": refusal.message });
                    told.insert("error".to_owned(), error);
                }
            }
        }
        let response = Response::new(200).with("retry-after", 1);
        Ok(response.with_body("application/json; charset=utf-8", told.to_string()))
    }
}

fn raw_query(request: &Request) -> String {
    let pairs = request
        .query
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join("&")
}

fn body(value: Option<Value>) -> Response {
    match value {
        Some(value) => {
            Response::new(200).with_body("application/json; charset=utf-8", value.to_string())
        }
        None => Response::new(200),
    }
}

impl Operation {
    fn wait(&self, limit: Duration) -> Option<End> {
        let deadline = Instant::now() + limit;
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        while end.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            end = self
                .ended
                .wait_timeout(end, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        end.clone()
    }
}
