//! Deployments: the disks and snapshots of a template, in the order of their dependencies.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::entry::{Key, Kind};
use super::state::State;
use super::template::Scope;
use super::work;
use crate::serve::azure::refusal::{Answered, Refusal, refuse};
use crate::serve::azure::text::{iso_time, now, uuid};

/// A validated template.
#[derive(Debug)]
pub(super) struct Deployment {
    id: String,
    name: String,
    group: String,
    mode: String,
    parameters: BTreeMap<String, Value>,
    resources: Vec<Value>,
    outputs: Map<String, Value>,
}

/// Where it is deployed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) group: &'a str,
    pub(super) name: &'a str,
    pub(super) tenant: &'a str,
}

fn invalid<T>(why: impl std::fmt::Display) -> Answered<T> {
    refuse(
        400,
        "InvalidTemplate",
        format!("Deployment template validation failed: {why}."),
    )
}

/// Validates a request: evaluates parameters and expressions, without creating anything.
#[allow(clippy::too_many_lines, reason = "one check after the other")]
pub(super) fn plan(state: &State, place: Place<'_>, body: &Value) -> Answered<Deployment> {
    let Some(properties) = body.get("properties") else {
        return refuse(
            400,
            "InvalidRequestContent",
            "The request has no properties.",
        );
    };
    let Some(template) = properties.get("template").and_then(Value::as_object) else {
        return refuse(
            400,
            "InvalidRequestContent",
            "The request has no template in it (a link to one isn't followed).",
        );
    };
    let location = {
        let resources = state.lock();
        let group = resources.groups.get(&place.group.to_lowercase());
        group.map_or_else(|| state.location.clone(), |group| group.location.clone())
    };
    let mut scope = Scope {
        subscription: state.subscription.clone(),
        tenant: place.tenant.to_owned(),
        group: place.group.to_owned(),
        location,
        parameters: BTreeMap::new(),
        variables: BTreeMap::new(),
    };
    let given = properties
        .get("parameters")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let declared = template
        .get("parameters")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    for name in given.keys() {
        if !declared
            .keys()
            .any(|known| known.eq_ignore_ascii_case(name))
        {
            return invalid(format_args!("the template parameter '{name}' is not found"));
        }
    }
    let mut parameters = BTreeMap::new();
    for (name, about) in &declared {
        let mut said = given
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = match (
            said.next().and_then(|(_, said)| said.get("value")),
            about.get("defaultValue"),
        ) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => scope.evaluate(default, 0)?,
            (None, None) => {
                return invalid(format_args!(
                    "the value for the template parameter '{name}' is not provided"
                ));
            }
        };
        check_type(name, about, &value)?;
        scope
            .parameters
            .insert(name.to_ascii_lowercase(), value.clone());
        parameters.insert(name.clone(), value);
    }
    for (name, value) in template
        .get("variables")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        scope
            .variables
            .insert(name.to_ascii_lowercase(), value.clone());
    }
    let mut resources = Vec::new();
    for resource in listed(template.get("resources")) {
        let resource = scope.evaluate(resource, 0)?;
        if resource.get("condition") == Some(&Value::Bool(false)) {
            continue;
        }
        if resource.get("copy").is_some_and(|copy| !copy.is_null()) {
            return invalid("this server doesn't know copies of a resource in a template");
        }
        resource_kind(&resource)?;
        resources.push(resource);
    }
    let mut outputs = Map::new();
    for (name, output) in template
        .get("outputs")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        outputs.insert(name.clone(), scope.evaluate(output, 0)?);
    }
    let mode = properties
        .get("mode")
        .and_then(Value::as_str)
        .unwrap_or("Incremental");
    if !mode.eq_ignore_ascii_case("Incremental") {
        return invalid("this server knows the mode Incremental only");
    }
    Ok(Deployment {
        id: format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Resources/deployments/{}",
            state.subscription, place.group, place.name
        ),
        name: place.name.to_owned(),
        group: place.group.to_owned(),
        mode: mode.to_owned(),
        parameters,
        resources: in_order(resources)?,
        outputs,
    })
}

/// Resources are a list or, in newer templates, have names.
fn listed(resources: Option<&Value>) -> Vec<&Value> {
    match resources {
        Some(Value::Array(all)) => all.iter().collect(),
        Some(Value::Object(all)) => all.values().collect(),
        _ => Vec::new(),
    }
}

fn check_type(name: &str, about: &Value, value: &Value) -> Answered<()> {
    let kind = about
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_ascii_lowercase();
    let fits = match kind.as_str() {
        "string" | "securestring" => value.is_string(),
        "int" => value.is_i64() || value.is_u64(),
        "bool" => value.is_boolean(),
        "array" => value.is_array(),
        "object" | "secureobject" => value.is_object(),
        _ => {
            return invalid(format_args!(
                "the parameter '{name}' has no type that there is"
            ));
        }
    };
    let allowed = about.get("allowedValues").and_then(Value::as_array);
    if !fits || allowed.is_some_and(|allowed| !allowed.contains(value)) {
        return invalid(format_args!(
            "the value of the template parameter '{name}' is not one that is allowed"
        ));
    }
    Ok(())
}

fn text<'a>(resource: &'a Value, name: &str) -> &'a str {
    resource.get(name).and_then(Value::as_str).unwrap_or("")
}

fn resource_kind(resource: &Value) -> Answered<Kind> {
    let kind = text(resource, "type").to_ascii_lowercase();
    let found = kind
        .strip_prefix("microsoft.compute/")
        .and_then(Kind::parse);
    match found {
        Some(found) if !text(resource, "name").is_empty() => Ok(found),
        Some(_) => invalid("a resource has no name"),
        None => invalid(format_args!(
            "this server deploys disks and snapshots, not '{}'",
            text(resource, "type")
        )),
    }
}

/// Each after those that it depends on.
fn in_order(mut left: Vec<Value>) -> Answered<Vec<Value>> {
    let mut done = Vec::new();
    while !left.is_empty() {
        let names: Vec<String> = left
            .iter()
            .map(|resource| text(resource, "name").to_ascii_lowercase())
            .collect();
        let waits = |resource: &Value| {
            let needs = resource
                .get("dependsOn")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            needs.filter_map(Value::as_str).any(|need| {
                let need = need.rsplit('/').next().unwrap_or(need).to_ascii_lowercase();
                names.contains(&need)
            })
        };
        let (later, now): (Vec<Value>, Vec<Value>) = left.iter().cloned().partition(waits);
        if now.is_empty() {
            return invalid("resources depend on each other in a circle");
        }
        done.extend(now);
        left = later;
    }
    Ok(done)
}

impl Deployment {
    /// The description returned to clients, in this state.
    pub(super) fn shown(&self, state: &str, error: Option<&Refusal>) -> Value {
        let parameters: Map<String, Value> = self
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), json!({ "type": "String", "value": value })))
            .collect();
        let subscription = self.id.split('/').nth(2).unwrap_or("");
        let made: Vec<Value> = self
            .resources
            .iter()
            .map(|resource| {
                json!({ "id": format!("/subscriptions/{subscription}/resourceGroups/{}/providers/{}/{}",
                    self.group, text(resource, "type"), text(resource, "name")) })
            })
            .collect();
        let mut properties = json!({
            "provisioningState": state,
            "mode": self.mode,
            "timestamp": iso_time(now()),
            "duration": "PT1S",
            "correlationId": uuid(),
            "templateHash": "0",
            "parameters": parameters,
            "outputs": self.outputs,
            "providers": [],
            "dependencies": [],
            "outputResources": made,
            "validatedResources": made,
        });
        if let (Some(error), Some(properties)) = (error, properties.as_object_mut()) {
            let detail = json!({ "code": error.code, "message": error.message });
            let whole = json!({
                "code": "DeploymentFailed",
                "message": "At least one resource deployment operation failed.",
                "details": [detail],
            });
            properties.insert("error".to_owned(), whole);
        }
        json!({
            "id": self.id,
            "name": self.name,
            "type": "Microsoft.Resources/deployments",
            "properties": properties,
        })
    }

    /// Creates the resources of the template; existing ones are updated.
    pub(super) fn carry_out(&self, state: &Arc<State>) -> Answered<()> {
        for resource in &self.resources {
            let kind = resource_kind(resource)?;
            let name = text(resource, "name");
            let key = Key::new(&self.group, kind, name);
            if state.entry(&key).is_some() {
                work::update(state, &key, resource, true)?;
            } else {
                work::plan(state, (&self.group, kind, name), resource)?.carry_out(state)?;
            }
        }
        Ok(())
    }
}
