//! The client against every form of answer that the resource manager may give.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use vhdkit::ErrorKind;
use vhdkit::blob::{Connector, Retry, Route};
use vhdkit::cloud::{Cloud, NewSnapshot, Resource};

use super::cloud_lab::name;

const DISK: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/d";

/// A request: its method, the path with parameters, and how many came before of the same kind.
type Script = dyn Fn(&str, &str, usize) -> (u16, Vec<(&'static str, String)>, String) + Send + Sync;

struct Fake {
    root: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Answers each request as `script` says; tokens are given to everybody.
    fn new(script: Box<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let root = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (script, seen, own): (Arc<Script>, _, _) =
            (script.into(), Arc::clone(&asked), root.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, seen, own) = (Arc::clone(&script), Arc::clone(&seen), own.clone());
                std::thread::spawn(move || serve(stream, &*script, &seen, &own));
            }
        });
        Self { root, asked }
    }

    fn cloud(&self) -> Cloud {
        let root = self.root.clone();
        let lookup = move |name: &str| {
            Some(match name {
                "AZURE_RESOURCE_MANAGER_ENDPOINT" => root.clone(),
                "IDENTITY_ENDPOINT" => format!("{root}/msi"),
                "IDENTITY_HEADER" => "x".to_owned(),
                "AZURE_SUBSCRIPTION_ID" => "s".to_owned(),
                _ => return None,
            })
        };
        let connector = Connector::new(&Route::default(), lookup.clone()).unwrap();
        let connector = connector.with_retry(Retry::new(
            Arc::new(Still::default()),
            vhdkit::blob::PATIENCE,
        ));
        Cloud::new(&connector, lookup, None)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A clock that only advances by waiting.
#[derive(Debug, Default)]
struct Still(Mutex<std::time::Duration>);

impl vhdkit::blob::Clock for Still {
    fn now(&self) -> std::time::Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, wait: std::time::Duration) {
        *self.0.lock().unwrap() += wait;
    }

    fn chance(&self) -> f64 {
        1.0
    }
}

fn serve(stream: TcpStream, script: &Script, seen: &Mutex<Vec<String>>, own: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let (mut length, mut token) = (0, false);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            token |= line == "authorization: bearer token";
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let (status, headers, body) = if path.starts_with("/msi") {
            let body = r#"{"access_token":"token","expires_in":"3600"}"#;
            (200, Vec::new(), body.to_owned())
        } else if path.starts_with("/metadata/endpoints") {
            let body = format!(
                r#"{{"authentication":{{"audiences":["{own}"],"loginEndpoint":"{own}"}}}}"#
            );
            (200, Vec::new(), body)
        } else {
            assert!(token, "{first}");
            let line = format!("{method} {path}");
            let before = {
                let mut seen = seen.lock().unwrap();
                let before = seen.iter().filter(|known| **known == line).count();
                seen.push(line);
                before
            };
            script(method, path, before)
        };
        let body = body.replace("ROOT", own);
        let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            write!(text, "{name}: {}\r\n", value.replace("ROOT", own)).unwrap();
        }
        text += "\r\n";
        text += &body;
        if writer.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn described(kind: &str, name: &str, state: &str) -> String {
    format!(
        r#"{{"id":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/{kind}/{name}","location":"eastus","properties":{{"provisioningState":"{state}","uniqueId":"u","creationData":{{"createOption":"Copy","sourceResourceId":"{DISK}","sourceUniqueId":"u"}},"incremental":true,"timeCreated":"2026-11-2{}T00:00:00Z","completionPercent":100.0}}}}"#,
        name.len().min(9)
    )
}

fn nothing() -> (u16, Vec<(&'static str, String)>, String) {
    (
        404,
        Vec::new(),
        r#"{"error":{"code":"ResourceNotFound","message":"gone"}}"#.to_owned(),
    )
}

fn snapshot(cloud: &Cloud) -> vhdkit::Result<Resource> {
    let disk = cloud.find(&name("azure:g/disks/d"))?;
    cloud.create_snapshot(&NewSnapshot {
        group: "g",
        name: "a",
        source: &disk,
        region: None,
        incremental: true,
        sku: Some("Standard_ZRS"),
        tags: &BTreeMap::new(),
    })
}

/// A snapshot is made and deleted, whatever the form of the answers.
#[test]
fn every_form_of_a_long_answer_is_understood() {
    for form in [
        "at once",
        "location",
        "both",
        "operation",
        "created",
        "nothing",
        "going",
    ] {
        let fake = Fake::new(Box::new(move |method, path, before| {
            let ok = |body: String| (200, Vec::new(), body);
            let is_there = before > 0;
            let (operation, result) = (
                ("azure-asyncoperation", "ROOT/op?x=1".to_owned()),
                ("location", "ROOT/result".to_owned()),
            );
            let headers = match form {
                "location" => vec![result],
                "both" => vec![operation, result, ("retry-after", "3".to_owned())],
                "operation" | "created" => vec![operation],
                _ => Vec::new(),
            };
            match (method, path) {
                ("GET", path) if path.contains("/disks/d?") => {
                    ok(described("disks", "d", "Succeeded"))
                }
                ("GET", path) if path.contains("/snapshots/a?") && !is_there => nothing(),
                ("GET", path) if path.contains("/snapshots/a?") => match (form, before) {
                    ("nothing" | "going", 1) => ok(described("snapshots", "a", "Creating")),
                    ("nothing", 3) => nothing(),
                    _ => ok(described("snapshots", "a", "Succeeded")),
                },
                ("PUT", _) => match form {
                    "at once" => ok(described("snapshots", "a", "Succeeded")),
                    "going" => ok(described("snapshots", "a", "Creating")),
                    "created" => (201, headers, described("snapshots", "a", "Creating")),
                    _ => (202, headers, String::new()),
                },
                ("DELETE", _) => match form {
                    "at once" | "going" => (204, Vec::new(), String::new()),
                    _ => (202, headers, String::new()),
                },
                ("GET", "/op?x=1") => {
                    let word = if before % 3 < 2 {
                        "InProgress"
                    } else {
                        "Succeeded"
                    };
                    ok(format!(r#"{{"status":"{word}"}}"#))
                }
                ("GET", "/result") if before % 2 == 0 && form == "location" => (
                    202,
                    vec![("location", "ROOT/result".to_owned())],
                    String::new(),
                ),
                ("GET", "/result") if before < 2 => ok(described("snapshots", "a", "Succeeded")),
                ("GET", "/result") => (204, Vec::new(), String::new()),
                other => panic!("{form}: {other:?}"),
            }
        }));
        let cloud = fake.cloud();
        let made = snapshot(&cloud).unwrap();
        assert!(made.name == "a" && made.is_complete(), "{form}");
        cloud
            .delete(&made)
            .unwrap_or_else(|error| panic!("{form}: {error}: {:?}", fake.asked()));
    }
}

#[test]
fn an_operation_that_fails_is_an_error_with_its_reason() {
    let fake = Fake::new(Box::new(|method, path, _| match (method, path) {
        ("GET", path) if path.contains("/disks/d?") => {
            (200, Vec::new(), described("disks", "d", "Succeeded"))
        }
        ("PUT", _) => (
            202,
            vec![("azure-asyncoperation", "ROOT/op".to_owned())],
            String::new(),
        ),
        ("GET", "/op") => {
            let body = r#"{"status":"Failed","error":{"code":"OutOfSpace","message":"see https://h/x?sig=hidden"}}"#;
            (200, Vec::new(), body.to_owned())
        }
        _ => nothing(),
    }));
    let error = snapshot(&fake.cloud()).unwrap_err().to_string();
    assert!(
        error.contains("OutOfSpace") && !error.contains("hidden"),
        "{error}"
    );
}

/// A list goes on where its answer says; a service that is busy is asked again, as it says; tokens go to no other host.
#[test]
fn lists_go_on_and_busy_services_are_waited_for() {
    let fake = Fake::new(Box::new(|_, path, before| {
        let page = |names: &[&str], next: &str| {
            let all: Vec<String> = names
                .iter()
                .map(|name| described("snapshots", name, "Succeeded"))
                .collect();
            (
                200,
                Vec::new(),
                format!(r#"{{"value":[{}],"nextLink":{next}}}"#, all.join(",")),
            )
        };
        match path {
            path if path.contains("/disks/d?") => {
                (200, Vec::new(), described("disks", "d", "Succeeded"))
            }
            path if path.contains("/snapshots?") && before < 2 => {
                let body = r#"{"error":{"code":"TooManyRequests","message":"slow down"}}"#;
                (429, vec![("retry-after", "7".to_owned())], body.to_owned())
            }
            path if path.contains("/snapshots?") => page(&["ccc", "a"], r#""ROOT/next?x""#),
            "/next?x" => page(&["bb"], r#""ROOT/last""#),
            "/last" => page(&["dddd"], "null"),
            _ => nothing(),
        }
    }));
    let family = fake.cloud().family(&name("azure:g/d")).unwrap();
    let names: Vec<&str> = family
        .snapshots
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["a", "bb", "ccc", "dddd"]);

    for (next, said) in [
        ("\"https://evil.example/next\"", "refers to another host"),
        ("\"\"", ""),
    ] {
        let fake = Fake::new(Box::new(move |_, path, _| {
            if path.contains("/disks/d?") {
                return (200, Vec::new(), described("disks", "d", "Succeeded"));
            }
            (
                200,
                Vec::new(),
                format!(r#"{{"value":[],"nextLink":{next}}}"#),
            )
        }));
        match fake.cloud().family(&name("azure:g/d")) {
            Ok(_) => assert_eq!(said, ""),
            Err(error) => assert!(
                error.to_string().contains(said) && !said.is_empty(),
                "{error}"
            ),
        }
    }

    let busy = Fake::new(Box::new(|_, _, _| {
        (429, vec![("retry-after", "60".to_owned())], String::new())
    }));
    let error = busy.cloud().find(&name("azure:g/disks/d")).unwrap_err();
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("it was tried") && hint.contains("limits"),
        "{hint}"
    );
    assert!(busy.asked().len() < 8);
}

/// Every refusal has its own words, and most of them say what to do.
#[test]
fn refusals_are_told_with_what_to_do() {
    for (status, code, kind, hint) in [
        (401, "InvalidAuthenticationToken", ErrorKind::Io, "az login"),
        (403, "AuthorizationFailed", ErrorKind::Io, "role"),
        (
            404,
            "SubscriptionNotFound",
            ErrorKind::Io,
            "AZURE_SUBSCRIPTION_ID",
        ),
        (
            404,
            "ResourceGroupNotFound",
            ErrorKind::Io,
            "resource group",
        ),
        (409, "OperationNotAllowed", ErrorKind::Locked, ""),
        (400, "InvalidParameter", ErrorKind::Io, ""),
    ] {
        let fake = Fake::new(Box::new(move |_, _, _| {
            (
                status,
                Vec::new(),
                format!(r#"{{"error":{{"code":"{code}","message":"why not"}}}}"#),
            )
        }));
        let error = fake.cloud().find(&name("azure:g/disks/d")).unwrap_err();
        assert_eq!(error.kind(), kind, "{code}");
        let said = error.to_string();
        assert!(said.contains(code) && said.contains("why not"), "{said}");
        assert!(
            error.hint().unwrap_or("").contains(hint),
            "{code}: {:?}",
            error.hint()
        );
    }
}
