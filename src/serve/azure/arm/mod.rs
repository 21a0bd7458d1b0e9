//! The resource manager: subscriptions, groups, disks, snapshots, machines, deployments.

mod deploy;
mod entry;
mod operations;
mod state;
mod template;
mod work;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use serde_json::{Value, json};

use self::deploy::Place;
use self::entry::{Key, Kind};
use self::operations::Operations;
use self::state::{Group, State, check_group};
use super::blobs::{Granted, Grants};
use super::http::{Request, Response};
use super::identity::{Identity, same};
use super::refusal::{Answered, refuse};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Audience;

/// Maximum number of entries in one response.
const PAGE: usize = 100;

/// The oldest supported API version.
const OLDEST: &str = "2016-01-01";

/// The resource manager.
#[derive(Debug)]
pub(super) struct Manager {
    state: Arc<State>,
    operations: Operations,
}

fn answer(status: u16, value: &Value) -> Response {
    Response::new(status).with_body("application/json; charset=utf-8", value.to_string())
}

fn not_found<T>(path: &str) -> Answered<T> {
    refuse(
        404,
        "ResourceNotFound",
        format!("The Resource '{path}' was not found."),
    )
}

/// A path, with its words in lower case beside it.
struct Parts<'a> {
    said: Vec<&'a str>,
    low: Vec<String>,
}

impl<'a> Parts<'a> {
    fn of(path: &'a str) -> Self {
        let said: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let low = said.iter().map(|part| part.to_ascii_lowercase()).collect();
        Self { said, low }
    }
}

impl Manager {
    /// Returns whether a request is for it, by its path.
    pub(super) fn is_for(path: &str) -> bool {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or("");
        ["subscriptions", "tenants", "providers"]
            .iter()
            .any(|known| first.eq_ignore_ascii_case(known))
    }

    pub(super) fn open(
        folder: &Path,
        identity: &Identity,
        copy_rate: Option<u64>,
        audience: &Audience,
    ) -> Result<Self> {
        let names = (identity.subscription.as_str(), identity.location.as_str());
        let state = Arc::new(State::open(folder, names, copy_rate, audience)?);
        work::resume(&state).map_err(|refusal| {
            Error::new(ErrorKind::Io, "cannot take up what the last server left")
                .with_path(folder)
                .with_found(refusal.message)
        })?;
        Ok(Self {
            state,
            operations: Operations::default(),
        })
    }

    /// Stops copies in the background; the next start resumes them.
    pub(super) fn interrupt(&self) {
        let copies = self
            .state
            .copies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        copies.values().for_each(|copy| copy.stop());
    }

    pub(super) fn close(&self) -> Result<()> {
        self.state.close()
    }

    /// Answers a request.
    #[allow(clippy::too_many_lines, reason = "a table of paths")]
    pub(super) fn answer(&self, request: &Request, identity: &Identity, root: &str) -> Answered {
        let token = request
            .said("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        if !token.is_some_and(|token| identity.is_valid(token)) {
            return refuse(
                401,
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header has no token of this server, or one that has expired.",
            );
        }
        match request.asked("api-version") {
            None => {
                return refuse(
                    400,
                    "MissingApiVersionParameter",
                    "The api-version query parameter (?api-version=) is required for all requests.",
                );
            }
            Some(version) if version < OLDEST => {
                return refuse(
                    400,
                    "InvalidApiVersionParameter",
                    format!("The api-version '{version}' is invalid."),
                );
            }
            Some(_) => {}
        }
        if request.too_long {
            return refuse(413, "RequestEntityTooLarge", "The request is too long.");
        }
        let parts = Parts::of(&request.path);
        let low: Vec<&str> = parts.low.iter().map(String::as_str).collect();
        let method = request.method.as_str();
        if let ["subscriptions", subscription, ..] = low[..]
            && subscription != identity.subscription
        {
            return refuse(
                404,
                "SubscriptionNotFound",
                format!("The subscription '{subscription}' could not be found."),
            );
        }
        let about = json!({
            "id": format!("/subscriptions/{}", identity.subscription),
            "subscriptionId": identity.subscription,
            "displayName": "vhdkit", "state": "Enabled", "tenantId": identity.tenant,
        });
        match (method, &low[..]) {
            ("GET", ["subscriptions"]) => Ok(answer(200, &json!({ "value": [about] }))),
            ("GET", ["tenants"]) => {
                let tenant = json!({ "id": format!("/tenants/{}", identity.tenant), "tenantId": identity.tenant });
                Ok(answer(200, &json!({ "value": [tenant] })))
            }
            ("GET", ["subscriptions", _]) => Ok(answer(200, &about)),
            ("GET", ["subscriptions", _, "locations"]) => Ok(answer(200, &self.locations())),
            ("GET", ["subscriptions", _, "resources"]) => self.list(request, root, None, None),
            ("GET", ["subscriptions", _, "resourcegroups"]) => Ok(self.groups()),
            (_, ["subscriptions", _, "resourcegroups", _]) => self.group(request, parts.said[3]),
            ("GET", ["subscriptions", _, "resourcegroups", group, "resources"]) => {
                self.list(request, root, Some(group), None)
            }
            (
                "GET",
                [
                    "subscriptions",
                    _,
                    "providers",
                    "microsoft.compute",
                    "locations",
                    _,
                    "operations",
                    _,
                ],
            ) => self.operations.answer(request, root, parts.said[7]),
            ("GET", ["subscriptions", _, "providers", "microsoft.compute", kind]) => {
                self.list_of(request, root, None, kind)
            }
            (
                "GET",
                [
                    "subscriptions",
                    _,
                    "resourcegroups",
                    group,
                    "providers",
                    "microsoft.compute",
                    kind,
                ],
            ) => self.list_of(request, root, Some(group), kind),
            (
                _,
                [
                    "subscriptions",
                    _,
                    "resourcegroups",
                    _,
                    "providers",
                    "microsoft.compute",
                    "virtualmachines",
                    _,
                ],
            ) => self.machine(request, parts.said[3], parts.said[7]),
            (
                _,
                [
                    "subscriptions",
                    _,
                    "resourcegroups",
                    _,
                    "providers",
                    "microsoft.compute",
                    kind,
                    _,
                ],
            ) => match Kind::parse(kind) {
                Some(kind) => self.resource(request, root, (parts.said[3], kind, parts.said[7])),
                None => not_found(&request.path),
            },
            (
                "POST",
                [
                    "subscriptions",
                    _,
                    "resourcegroups",
                    _,
                    "providers",
                    "microsoft.compute",
                    kind,
                    _,
                    action,
                ],
            ) => match Kind::parse(kind) {
                Some(kind) => self.act(request, root, (parts.said[3], kind, parts.said[7]), action),
                None => not_found(&request.path),
            },
            (
                _,
                [
                    "subscriptions",
                    _,
                    "resourcegroups",
                    _,
                    "providers",
                    "microsoft.resources",
                    "deployments",
                    rest @ ..,
                ],
            ) => {
                let place = Place {
                    group: parts.said[3],
                    name: parts.said.get(7).copied().unwrap_or(""),
                    tenant: &identity.tenant,
                };
                self.deployment(request, place, rest.get(1).copied())
            }
            // Anyone with a token may do everything.
            ("GET", [.., "providers", "microsoft.authorization", "permissions"]) => Ok(answer(
                200,
                &json!({ "value": [{ "actions": ["*"], "notActions": [] }] }),
            )),
            _ => not_found(&request.path),
        }
    }

    fn locations(&self) -> Value {
        let resources = self.state.lock();
        let mut names: BTreeSet<String> = resources
            .entries
            .values()
            .map(|entry| entry.location.clone())
            .collect();
        names.insert(self.state.location.clone());
        let list: Vec<Value> = names
            .iter()
            .map(|name| json!({ "id": format!("/subscriptions/{}/locations/{name}", self.state.subscription), "name": name, "displayName": name }))
            .collect();
        json!({ "value": list })
    }

    fn shown_group(&self, group: &Group) -> Value {
        json!({
            "id": format!("/subscriptions/{}/resourceGroups/{}", self.state.subscription, group.name),
            "name": group.name, "type": "Microsoft.Resources/resourceGroups", "location": group.location,
            "tags": group.tags, "properties": { "provisioningState": "Succeeded" },
        })
    }

    fn groups(&self) -> Response {
        let resources = self.state.lock();
        let list: Vec<Value> = resources
            .groups
            .values()
            .map(|group| self.shown_group(group))
            .collect();
        answer(200, &json!({ "value": list }))
    }

    fn group(&self, request: &Request, name: &str) -> Answered {
        let key = name.to_lowercase();
        let missing = || {
            refuse(
                404,
                "ResourceGroupNotFound",
                format!("Resource group '{name}' could not be found."),
            )
        };
        match request.method.as_str() {
            "GET" => match self.state.lock().groups.get(&key) {
                Some(group) => Ok(answer(200, &self.shown_group(group))),
                None => missing(),
            },
            "HEAD" => {
                let there = self.state.lock().groups.contains_key(&key);
                Ok(Response::new(if there { 204 } else { 404 }))
            }
            "PUT" | "PATCH" => {
                check_group(name)?;
                let body = body(request)?;
                let mut resources = self.state.lock();
                let known = resources.groups.get(&key).cloned();
                let location = body.get("location").and_then(Value::as_str);
                let location = location.map(|text| text.replace(' ', "").to_ascii_lowercase());
                let Some(location) =
                    location.or_else(|| known.as_ref().map(|group| group.location.clone()))
                else {
                    return refuse(
                        400,
                        "LocationRequired",
                        "The location property is required for this definition.",
                    );
                };
                let status = if known.is_some() { 200 } else { 201 };
                let group = Group {
                    name: known.map_or_else(|| name.to_owned(), |group| group.name),
                    location,
                    tags: body
                        .get("tags")
                        .and_then(Value::as_object)
                        .cloned()
                        .unwrap_or_default(),
                };
                resources.groups.insert(key, group.clone());
                self.state.keep_groups(&resources)?;
                drop(resources);
                Ok(answer(status, &self.shown_group(&group)))
            }
            "DELETE" => {
                let mut resources = self.state.lock();
                if !resources.groups.contains_key(&key) {
                    return missing();
                }
                // The service would delete everything in it.
                if resources.entries.keys().any(|entry| entry.group == key) {
                    return refuse(
                        409,
                        "ResourceGroupNotEmpty",
                        format!(
                            "Resource group '{name}' has disks or snapshots: delete them first."
                        ),
                    );
                }
                resources.groups.remove(&key);
                self.state.keep_groups(&resources)?;
                Ok(Response::new(200))
            }
            _ => refuse(
                405,
                "MethodNotAllowed",
                "That can't be done with a resource group.",
            ),
        }
    }

    fn list_of(&self, request: &Request, root: &str, group: Option<&str>, kind: &str) -> Answered {
        if kind == "virtualmachines" {
            let resources = self.state.lock();
            let list: Vec<&Value> = resources
                .machines
                .iter()
                .filter(|((of, _), _)| group.is_none_or(|group| group == of))
                .map(|(_, machine)| machine)
                .collect();
            return Ok(answer(200, &json!({ "value": list })));
        }
        match Kind::parse(kind) {
            Some(kind) => self.list(request, root, group, Some(kind)),
            None => not_found(&request.path),
        }
    }

    /// Resources in the order of their names, so many at a time.
    fn list(
        &self,
        request: &Request,
        root: &str,
        group: Option<&str>,
        kind: Option<Kind>,
    ) -> Answered {
        if let Some(group) = group
            && !self.state.lock().groups.contains_key(group)
        {
            return refuse(
                404,
                "ResourceGroupNotFound",
                format!("Resource group '{group}' could not be found."),
            );
        }
        let after = request.asked("$skiptoken").unwrap_or("");
        let resources = self.state.lock();
        let found: Vec<_> = resources
            .entries
            .iter()
            .filter(|(key, _)| {
                group.is_none_or(|group| key.group == group)
                    && kind.is_none_or(|kind| key.kind == kind)
            })
            .map(|(key, entry)| {
                (
                    format!("{}/{}/{}", key.group, key.kind.plural(), key.name),
                    entry.clone(),
                )
            })
            .filter(|(place, _)| place.as_str() > after)
            .take(PAGE + 1)
            .collect();
        drop(resources);
        let list: Vec<Value> = found
            .iter()
            .take(PAGE)
            .map(|(_, entry)| self.state.shown(entry))
            .collect();
        let mut whole = json!({ "value": list });
        if let (Some(last), true, Some(whole)) = (
            found.get(PAGE - 1),
            found.len() > PAGE,
            whole.as_object_mut(),
        ) {
            let next = format!(
                "{root}{}?api-version={}&$skiptoken={}",
                request.raw_path,
                request.asked("api-version").unwrap_or(""),
                super::text::percent_encoded(&last.0)
            );
            whole.insert("nextLink".to_owned(), json!(next));
        }
        Ok(answer(200, &whole))
    }

    fn resource(
        &self,
        request: &Request,
        root: &str,
        (group, kind, name): (&str, Kind, &str),
    ) -> Answered {
        let key = Key::new(group, kind, name);
        let known = self.state.entry(&key);
        let state = Arc::clone(&self.state);
        let whom = (request, root, self.state.subscription.as_str());
        match (request.method.as_str(), known) {
            ("GET", Some(entry)) => Ok(answer(200, &self.state.shown(&entry))),
            ("PUT" | "PATCH", Some(entry)) => {
                let (body, whole) = (body(request)?, request.method == "PUT");
                self.operations.run(
                    whom,
                    &entry.location,
                    Some(self.state.shown(&entry)),
                    move || work::update(&state, &key, &body, whole).map(Some),
                )
            }
            ("PUT", None) => {
                let body = body(request)?;
                let plan = work::plan(&self.state, (group, kind, name), &body)?;
                self.state.need_group(group, plan.location())?;
                let shown = plan.shown(&self.state);
                let location = plan.location().to_owned();
                self.operations.run(whom, &location, Some(shown), move || {
                    plan.carry_out(&state).map(Some)
                })
            }
            ("DELETE", Some(entry)) => {
                self.operations.run(whom, &entry.location, None, move || {
                    work::delete(&state, &key).map(|_| None)
                })
            }
            ("HEAD", Some(_)) | ("DELETE", None) => Ok(Response::new(204)),
            ("GET" | "HEAD" | "PATCH", None) => refuse(
                404,
                "ResourceNotFound",
                format!(
                    "The Resource 'Microsoft.Compute/{}/{name}' under resource group '{group}' was not found.",
                    kind.plural()
                ),
            ),
            _ => refuse(
                405,
                "MethodNotAllowed",
                "That can't be done with a disk or snapshot.",
            ),
        }
    }

    fn act(
        &self,
        request: &Request,
        root: &str,
        (group, kind, name): (&str, Kind, &str),
        action: &str,
    ) -> Answered {
        let key = Key::new(group, kind, name);
        let Some(entry) = self.state.entry(&key) else {
            return not_found(&request.path);
        };
        let state = Arc::clone(&self.state);
        let whom = (request, root, self.state.subscription.as_str());
        match action {
            "begingetaccess" => {
                let (body, root) = (body(request)?, root.to_owned());
                self.operations.run(whom, &entry.location, None, move || {
                    work::grant(&state, &key, &body, &root).map(Some)
                })
            }
            "endgetaccess" => self.operations.run(whom, &entry.location, None, move || {
                work::revoke(&state, &key).map(|()| None)
            }),
            _ => not_found(&request.path),
        }
    }

    /// A machine: as it was put here, or one whose name a disk has at its beginning: `NAME_OsDisk...`.
    fn machine(&self, request: &Request, group: &str, name: &str) -> Answered {
        let place = (group.to_lowercase(), name.to_ascii_lowercase());
        let id = format!(
            "/subscriptions/{}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{name}",
            self.state.subscription
        );
        match request.method.as_str() {
            "GET" => {
                let resources = self.state.lock();
                if let Some(known) = resources.machines.get(&place) {
                    return Ok(answer(200, known));
                }
                let prefix = format!("{}_osdisk", place.1);
                let mut disks = resources.entries.values().filter(|entry| {
                    entry.kind == Kind::Disk
                        && entry.group.to_lowercase() == place.0
                        && entry.name.to_ascii_lowercase().starts_with(&prefix)
                });
                let Some(disk) = disks.next() else {
                    return not_found(&request.path);
                };
                Ok(answer(
                    200,
                    &json!({
                        "id": id, "name": name, "type": "Microsoft.Compute/virtualMachines", "location": disk.location,
                        "properties": {
                            "provisioningState": "Succeeded",
                            "storageProfile": {
                                "osDisk": {
                                    "name": disk.name, "osType": disk.properties.get("osType").cloned().unwrap_or(json!("Linux")),
                                    "createOption": "Attach", "diskSizeGB": disk.size.div_ceil(1 << 30),
                                    "managedDisk": { "id": disk.id(), "storageAccountType": disk.sku },
                                },
                                "dataDisks": [],
                            },
                        },
                    }),
                ))
            }
            "PUT" => {
                let mut machine = body(request)?;
                let disk = machine
                    .pointer("/properties/storageProfile/osDisk/managedDisk/id")
                    .and_then(Value::as_str);
                let known = disk.and_then(|id| entry::parse_id(id, &self.state.subscription));
                if known.and_then(|key| self.state.entry(&key)).is_none() {
                    return refuse(
                        400,
                        "InvalidParameter",
                        "properties.storageProfile.osDisk.managedDisk.id is not the id of a disk that is here.",
                    );
                }
                state::check_name(name)?;
                if let Some(machine) = machine.as_object_mut() {
                    for (member, value) in [
                        ("id", id.as_str()),
                        ("name", name),
                        ("type", "Microsoft.Compute/virtualMachines"),
                    ] {
                        machine.insert(member.to_owned(), json!(value));
                    }
                    if let Some(properties) =
                        machine.get_mut("properties").and_then(Value::as_object_mut)
                    {
                        properties.insert("provisioningState".to_owned(), json!("Succeeded"));
                    }
                }
                let mut resources = self.state.lock();
                resources.machines.insert(place, machine.clone());
                self.state.keep_machines(&resources)?;
                Ok(answer(200, &machine))
            }
            "DELETE" => {
                let mut resources = self.state.lock();
                let there = resources.machines.remove(&place).is_some();
                self.state.keep_machines(&resources)?;
                Ok(Response::new(if there { 200 } else { 204 }))
            }
            _ => refuse(
                405,
                "MethodNotAllowed",
                "That can't be done with a machine.",
            ),
        }
    }

    fn deployment(&self, request: &Request, place: Place<'_>, action: Option<&str>) -> Answered {
        let key = (place.group.to_lowercase(), place.name.to_lowercase());
        let known = || self.state.lock().deployments.get(&key).cloned();
        match (request.method.as_str(), action) {
            ("GET", None) if place.name.is_empty() => {
                let resources = self.state.lock();
                let list: Vec<&Value> = resources
                    .deployments
                    .iter()
                    .filter(|((group, _), _)| *group == key.0)
                    .map(|(_, shown)| shown)
                    .collect();
                Ok(answer(200, &json!({ "value": list })))
            }
            ("GET", None) => match known() {
                Some(shown) => Ok(answer(200, &shown)),
                None => refuse(
                    404,
                    "DeploymentNotFound",
                    format!("Deployment '{}' could not be found.", place.name),
                ),
            },
            ("HEAD", None) => Ok(Response::new(if known().is_some() { 204 } else { 404 })),
            ("GET", Some("operations")) => Ok(answer(200, &json!({ "value": [] }))),
            ("POST", Some("validate")) => {
                let planned = deploy::plan(&self.state, place, &template_of(request)?)?;
                Ok(answer(200, &planned.shown("Succeeded", None)))
            }
            ("PUT", None) => {
                let planned = deploy::plan(&self.state, place, &template_of(request)?)?;
                let location = self.state.location.clone();
                self.state.need_group(place.group, &location)?;
                let done = planned.carry_out(&self.state);
                let shown = match &done {
                    Ok(()) => planned.shown("Succeeded", None),
                    Err(refusal) => planned.shown("Failed", Some(refusal)),
                };
                self.state.lock().deployments.insert(key, shown.clone());
                match done {
                    Ok(()) => Ok(answer(201, &shown)),
                    Err(refusal) => refuse(
                        refusal.status.max(400),
                        "DeploymentFailed",
                        format!(
                            "At least one resource deployment operation failed: {}: {}",
                            refusal.code, refusal.message
                        ),
                    ),
                }
            }
            ("DELETE", None) => {
                self.state.lock().deployments.remove(&key);
                Ok(Response::new(204))
            }
            _ => refuse(
                501,
                "NotImplemented",
                "This server doesn't have that operation on deployments.",
            ),
        }
    }
}

impl Grants for Manager {
    fn granted(&self, path: &str, query: &[(String, String)]) -> Option<Granted> {
        let signature = query
            .iter()
            .find(|(name, _)| name == "sig")
            .map(|(_, value)| value)?;
        let found = {
            let resources = self.state.lock();
            resources.entries.values().find_map(|entry| {
                let good =
                    |grant: &&entry::Grant| same(grant.signature.as_bytes(), signature.as_bytes());
                if entry.grants.is_empty() || !entry.granted_path().eq_ignore_ascii_case(path) {
                    return None;
                }
                let grant = entry.active().find(good)?;
                Some((entry.volume.clone(), entry.time.clone(), grant.write))
            })
        };
        let (volume, time, write) = found?;
        Some(Granted {
            volume: self.state.volume(&volume).ok()?,
            time,
            write,
        })
    }
}

/// The body of a request as JSON.
fn body(request: &Request) -> Answered<Value> {
    let value: std::result::Result<Value, _> = serde_json::from_slice(&request.body);
    match value {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => refuse(
            400,
            "InvalidRequestContent",
            "The request content is not an object.",
        ),
        Err(e) => refuse(
            400,
            "InvalidRequestContent",
            format!("The request content was invalid and could not be deserialized: {e}."),
        ),
    }
}

fn template_of(request: &Request) -> Answered<Value> {
    match std::str::from_utf8(&request.body) {
        Ok(text) => template::as_json(text),
        Err(_) => refuse(
            400,
            "InvalidRequestContent",
            "The request content is not UTF-8.",
        ),
    }
}
