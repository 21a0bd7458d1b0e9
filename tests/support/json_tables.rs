//! The tables of docs/json.md, and whether a document is as its table says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

/// A member as described in docs/json.md.
pub(crate) struct Row {
    pub(crate) types: BTreeSet<String>,
    pub(crate) always: bool,
}

pub(crate) type Table = BTreeMap<String, Row>;

/// Returns the tables of docs/json.md by heading.
pub(crate) fn tables() -> BTreeMap<String, Table> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let text = fs::read_to_string(path).unwrap();
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    let mut heading = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title.replace('`', "");
        }
        let Some(row) = line.strip_prefix("| `") else {
            continue;
        };
        // The table of ids is held by a unit test beside the ids.
        if heading.starts_with("Ids ") {
            continue;
        }
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [member, kind, when, meaning, ..] = cells.as_slice() else {
            panic!("{line}");
        };
        assert!(["always", "if"].contains(when), "{line}");
        assert!(!meaning.is_empty(), "{line}");
        let row = Row {
            types: kind.split(" or ").map(str::to_owned).collect(),
            always: *when == "always",
        };
        let table = tables.entry(heading.clone()).or_default();
        table.insert(member.trim_end_matches('`').to_owned(), row);
    }
    tables
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Checks `value`, found at `path`, against the rows; `free` are objects that may have any members.
fn hold(tables: &[&Table], path: &str, value: &Value, wrong: &mut Vec<String>) {
    let find = |path: &str| tables.iter().find_map(|table| table.get(path));
    match value {
        Value::Object(members) => {
            let below = |row: &str| -> Option<String> {
                let rest = if path.is_empty() {
                    row
                } else {
                    row.strip_prefix(path)?.strip_prefix('.')?
                };
                (!rest.contains(['.', '['])).then(|| rest.to_owned())
            };
            for (row, found) in tables.iter().flat_map(|table| table.iter()) {
                if found.always && below(row).is_some_and(|name| !members.contains_key(&name)) {
                    wrong.push(format!("{row} is missing"));
                }
            }
            for (name, value) in members {
                let at = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let Some(row) = find(&at) else {
                    if find(&format!("{path}.*")).is_none() {
                        wrong.push(format!("{at} ({}) isn't described", type_of(value)));
                    }
                    continue;
                };
                let kind = type_of(value);
                let fits =
                    row.types.contains(kind) || (kind == "integer" && row.types.contains("number"));
                if !fits {
                    wrong.push(format!("{at} is {kind}"));
                }
                hold(tables, &at, value, wrong);
            }
        }
        Value::Array(items) => {
            for item in items {
                hold(tables, &format!("{path}[]"), item, wrong);
            }
        }
        _ => {}
    }
}

/// What of `document` isn't as the table under `heading` says.
pub(crate) fn check_document(
    tables: &BTreeMap<String, Table>,
    heading: &str,
    document: &Value,
) -> Vec<String> {
    // A command that failed may lack its own members.
    let failed = document.get("error").is_some_and(Value::is_object);
    let mut own = Table::new();
    for (member, row) in tables.get(heading).into_iter().flatten() {
        let (types, top) = (row.types.clone(), !member.contains(['.', '[']));
        let always = row.always && !(failed && top);
        own.insert(member.clone(), Row { types, always });
    }
    let mut found = Vec::new();
    hold(&[&tables["Every document"], &own], "", document, &mut found);
    found
}
