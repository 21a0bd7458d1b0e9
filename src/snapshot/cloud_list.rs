//! Lists of snapshots as printed by the cloud's own tools: `az snapshot list -o json`, `Get-AzSnapshot |
//! ConvertTo-Json`, and the REST interface. The case of member names is ignored, as are unknown members.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Family, Time};
use crate::error::{Error, Result};

/// A longer list is refused.
pub const LONGEST_LIST: u64 = 64 << 20;

/// The most snapshots of one family that may have signed links at the same time.
const LINKS: usize = 5;
/// The most incremental snapshots of a disk; newer documentation of the service says 500.
const MOST: usize = 200;
/// There are no differences between sizes on both sides of this.
const BOUNDARY: u64 = 4 << 40;

/// A snapshot in the cloud's list.
#[derive(Debug, Clone, PartialEq)]
pub struct CloudSnapshot {
    /// Its name.
    pub name: String,
    /// Its resource id.
    pub id: Option<String>,
    /// When it was created.
    pub time: Time,
    /// The disk to which it belongs.
    pub family: Family,
    /// Whether it contains only changes.
    pub incremental: bool,
    /// The size of its disk in bytes.
    pub size: Option<u64>,
    /// How complete it is, if the list contains that.
    pub completion_percent: Option<f64>,
}

impl CloudSnapshot {
    /// Returns whether it can be used.
    pub fn is_complete(&self) -> bool {
        self.completion_percent
            .is_none_or(|percent| percent >= 100.0)
    }
}

/// Parses a list, called `path` in messages.
///
/// # Errors
///
/// [`Damaged`](crate::ErrorKind::Damaged) with line and column if it isn't JSON, or with the position in the list and
/// the member if it isn't a list of snapshots.
pub fn read_cloud_list(bytes: &[u8], path: &Path) -> Result<Vec<CloudSnapshot>> {
    let text = text_of(bytes).ok_or_else(|| {
        Error::damaged("this list is not text")
            .with_path(path)
            .with_expected("UTF-8, or UTF-16 with a byte order mark")
    })?;
    let value: Value = serde_json::from_str(&text).map_err(|e| {
        Error::damaged("this is not JSON")
            .with_path(path)
            .with_found(e)
            .with_expected("what az snapshot list -o json prints")
    })?;
    let items = match value {
        Value::Array(items) => items,
        Value::Object(mut object) => match remove(&mut object, "value") {
            Some(Value::Array(items)) => items,
            // A single snapshot, as PowerShell prints it.
            _ => vec![Value::Object(object)],
        },
        _ => {
            return Err(Error::damaged("this is not a list of snapshots")
                .with_path(path)
                .with_expected("a JSON array of objects, as az snapshot list -o json prints it"));
        }
    };
    let items = items.into_iter().enumerate();
    items
        .map(|(at, item)| listed(&item).map_err(|error| place(error, at).with_path(path)))
        .collect()
}

/// Groups the snapshots by disk, each in the order in which they were created; those of the same moment by name.
pub fn families(list: Vec<CloudSnapshot>) -> Vec<(Family, Vec<CloudSnapshot>)> {
    let mut families: Vec<(Family, Vec<CloudSnapshot>)> = Vec::new();
    let key = |family: &Family| {
        let lower = |id: &Option<String>| id.as_deref().map(str::to_ascii_lowercase);
        (
            lower(&family.source_unique_id),
            lower(&family.source_resource_id),
        )
    };
    for listed in list.into_iter().filter(|listed| listed.incremental) {
        let of = families
            .iter_mut()
            .find(|(family, _)| key(family) == key(&listed.family));
        match of {
            Some((_, all)) => all.push(listed),
            None => families.push((listed.family.clone(), vec![listed])),
        }
    }
    for (_, all) in &mut families {
        all.sort_by(|a, b| a.time.cmp(&b.time).then_with(|| a.name.cmp(&b.name)));
    }
    families.sort_by_key(|(family, _)| key(family));
    families
}

/// What a limit of the service is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloudLimit {
    /// A snapshot that isn't complete yet can't be used.
    Incomplete,
    /// The size of the disk changed between two snapshots.
    Size,
    /// The number of snapshots that can have signed links at a time.
    Access,
    /// The number of snapshots of a disk.
    Snapshots,
}

/// The consequences of the service's limits for these snapshots of one disk, of which those in `missing` are still to
/// be copied.
pub fn limits(all: &[CloudSnapshot], missing: &[&str]) -> Vec<(CloudLimit, String)> {
    let mut told = Vec::new();
    for listed in all.iter().filter(|listed| !listed.is_complete()) {
        let percent = listed.completion_percent.unwrap_or_default();
        let text = format!(
            "{}: {percent} % complete: it can't be used before it is 100 %",
            listed.name
        );
        told.push((CloudLimit::Incomplete, text));
    }
    for pair in all.windows(2) {
        let [before, after] = pair else { continue };
        let (Some(old), Some(new)) = (before.size, after.size) else {
            continue;
        };
        if old == new {
            continue;
        }
        let mut text = format!(
            "{}: its disk has {new} bytes, that of {} had {old}",
            after.name, before.name
        );
        if (old < BOUNDARY) != (new < BOUNDARY) {
            let _ = write!(
                text,
                ": the service lists no differences across 4 TiB, so copy it in full"
            );
        }
        told.push((CloudLimit::Size, text));
    }
    if missing.len() > LINKS {
        let text = format!(
            "{} are missing, and at most {LINKS} snapshots of a disk can have signed links at a time: revoke the access \
             to each when it is copied",
            missing.len()
        );
        told.push((CloudLimit::Access, text));
    }
    if all.len() >= MOST {
        let text = format!(
            "the disk has {} incremental snapshots: the service limits them to {MOST} (newer documents say 500); delete \
             old ones there once they are in a store",
            all.len()
        );
        told.push((CloudLimit::Snapshots, text));
    }
    told
}

fn place(error: Error, at: usize) -> Error {
    let field = error.field().map(str::to_owned);
    match field {
        None => error.with_field(format!("[{at}]")),
        Some(field) => error.with_field(format!("[{at}].{field}")),
    }
}

fn listed(item: &Value) -> Result<CloudSnapshot> {
    let wrong = |field: &str, expected: &str| {
        Error::damaged("this is not a snapshot as the cloud lists it")
            .with_field(field)
            .with_expected(expected.to_owned())
    };
    let object = item.as_object().ok_or_else(|| {
        Error::damaged("this is not a snapshot as the cloud lists it").with_expected("an object")
    })?;
    // The REST interface nests most of it one level deeper.
    let inner = member(object, "properties").and_then(Value::as_object);
    let find = |name: &str| {
        let found = member(object, name).filter(|value| !value.is_null());
        found.or_else(|| member(inner?, name))
    };
    let text = |name: &str| find(name).and_then(Value::as_str).map(str::to_owned);
    let name = text("name").ok_or_else(|| wrong("name", "a text"))?;
    let time = find("timeCreated")
        .and_then(time_of)
        .ok_or_else(|| wrong("timeCreated", "a time such as 2026-11-20T06:00:00Z"))?;
    let family = match find("creationData") {
        None | Some(Value::Null) => Family::default(),
        Some(Value::Object(data)) => {
            let id = |name: &str| {
                let text = member(data, name).and_then(Value::as_str);
                text.filter(|text| !text.is_empty()).map(str::to_owned)
            };
            Family {
                source_resource_id: id("sourceResourceId"),
                source_unique_id: id("sourceUniqueId"),
            }
        }
        Some(_) => {
            return Err(wrong("creationData", "an object")
                .with_hint("PowerShell cuts deep structures: use ConvertTo-Json -Depth 5"));
        }
    };
    let bytes = find("diskSizeBytes").and_then(Value::as_u64);
    let gib = find("diskSizeGb").and_then(Value::as_u64);
    Ok(CloudSnapshot {
        name,
        id: text("id"),
        time,
        family,
        incremental: find("incremental").and_then(Value::as_bool) == Some(true),
        size: bytes
            .filter(|bytes| *bytes > 0)
            .or_else(|| gib?.checked_mul(1 << 30)),
        completion_percent: find("completionPercent").and_then(Value::as_f64),
    })
}

fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let mut members = object.iter();
    members
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn remove(object: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let key = object
        .keys()
        .find(|key| key.eq_ignore_ascii_case(name))?
        .clone();
    object.remove(&key)
}

/// Parses a time in the tools' formats: RFC 3339, the same without an offset (which is UTC), or `/Date(milliseconds)/`,
/// alone or as the value of an object.
fn time_of(value: &Value) -> Option<Time> {
    let text = match value {
        Value::String(text) => text,
        Value::Object(object) => {
            return member(object, "value")
                .filter(|v| v.is_string())
                .and_then(time_of);
        }
        _ => return None,
    };
    if let Some(milliseconds) = text
        .strip_prefix("/Date(")
        .and_then(|rest| rest.strip_suffix(")/"))
    {
        let milliseconds = milliseconds.parse().ok()?;
        return jiff::Timestamp::from_millisecond(milliseconds)
            .ok()?
            .to_string()
            .parse()
            .ok();
    }
    text.parse().or_else(|_| format!("{text}Z").parse()).ok()
}

/// Decodes a file that a shell wrote: UTF-8, or UTF-16 from PowerShell's redirection.
fn text_of(bytes: &[u8]) -> Option<String> {
    let units = |big: bool, rest: &[u8]| {
        let (pairs, odd) = rest.as_chunks::<2>();
        let unit = |pair: &[u8; 2]| {
            let [first, second] = pair.map(u16::from);
            if big {
                first << 8 | second
            } else {
                second << 8 | first
            }
        };
        let units: Vec<u16> = pairs.iter().map(unit).collect();
        odd.is_empty()
            .then(|| String::from_utf16(&units).ok())
            .flatten()
    };
    match bytes {
        [0xFF, 0xFE, rest @ ..] => units(false, rest),
        [0xFE, 0xFF, rest @ ..] => units(true, rest),
        [0xEF, 0xBB, 0xBF, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        _ => String::from_utf8(bytes.to_vec()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<CloudSnapshot>> {
        read_cloud_list(text.as_bytes(), Path::new("list.json"))
    }

    #[test]
    fn both_tools_and_the_rest_interface_say_the_same() {
        let az = r#"[{"name": "s1", "id": "/s/s1", "timeCreated": "2026-11-20T06:00:00.25+00:00", "incremental": true,
            "creationData": {"sourceResourceId": "/d/web", "sourceUniqueId": "11", "other": [1]},
            "diskSizeGb": 32, "diskSizeBytes": 34359738368, "completionPercent": 100.0, "more": {}}]"#;
        let powershell = r#"{"Name": "s1", "Id": "/s/s1", "TimeCreated": "\/Date(1795154400250)\/", "Incremental": true,
            "CreationData": {"SourceResourceId": "/d/web", "SourceUniqueId": "11"}, "DiskSizeGB": 32,
            "DiskSizeBytes": null, "CompletionPercent": 100}"#;
        let dated = powershell.replace(
            r#""\/Date(1795154400250)\/""#,
            r#"{"value": "\/Date(1795154400250)\/", "DisplayHint": 2}"#,
        );
        let plain = powershell.replace(r"\/Date(1795154400250)\/", "2026-11-20T06:00:00.2500000");
        let rest = r#"{"value": [{"name": "s1", "id": "/s/s1", "properties": {"timeCreated": "2026-11-20T06:00:00.25Z",
            "incremental": true, "creationData": {"sourceResourceId": "/d/web", "sourceUniqueId": "11"},
            "diskSizeGB": 32, "completionPercent": 100}}]}"#;
        let expected = read(az).unwrap();
        assert_eq!(expected.len(), 1);
        assert_eq!(expected[0].time.to_string(), "2026-11-20T06:00:00.25Z");
        assert_eq!(expected[0].size, Some(32 << 30));
        for other in [powershell, &dated, &plain, rest] {
            assert_eq!(read(other).unwrap(), expected, "{other}");
        }
        // As written by redirections of different shells.
        let marked = ["\u{feff}", az].concat();
        let wide = marked.encode_utf16().flat_map(u16::to_be_bytes);
        let other = marked
            .encode_utf16()
            .flat_map(|unit| u16::to_be_bytes(unit.swap_bytes()));
        for bytes in [
            marked.bytes().collect(),
            wide.collect::<Vec<u8>>(),
            other.collect(),
        ] {
            assert_eq!(read_cloud_list(&bytes, Path::new("x")).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_none_is_refused_with_its_place() {
        for (text, said) in [
            ("[{\"name\": \"a\",\n  oops}]", "line 2 column 3"),
            ("7", "not a list of snapshots"),
            ("[1]", "[0]"),
            ("[{\"timeCreated\": \"2026-11-20T06:00:00Z\"}]", "[0].name"),
            ("[{\"name\": \"a\"}]", "[0].timeCreated"),
            (
                "[{\"name\": \"a\", \"timeCreated\": \"/Date(99999999999999999)/\"}]",
                "timeCreated",
            ),
            (
                "[{\"name\": \"a\", \"timeCreated\": \"2026-11-20T06:00:00Z\", \"creationData\": \"Some.Class\"}]",
                "[0].creationData",
            ),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(read(&deep).is_err());
        assert!(read_cloud_list(&[0xFF, 0xFE, 0x41], Path::new("x")).is_err());
        assert!(read_cloud_list(&[0x80], Path::new("x")).is_err());
    }

    fn listed(name: &str, second: i64, unique: &str, size: u64) -> CloudSnapshot {
        CloudSnapshot {
            name: name.to_owned(),
            id: None,
            time: Time::from_unix(second),
            family: Family {
                source_resource_id: Some("/d/Web".to_owned()),
                source_unique_id: Some(unique.to_owned()),
            },
            incremental: true,
            size: Some(size),
            completion_percent: Some(100.0),
        }
    }

    #[test]
    fn disks_are_told_apart_and_their_snapshots_put_in_order() {
        let mut full = listed("full", 1, "aa", 1);
        full.incremental = false;
        let mut small = listed("c", 3, "AA", 1);
        small.family.source_resource_id = Some("/D/WEB".to_owned());
        let list = vec![
            listed("b", 3, "aa", 1),
            small,
            full,
            listed("x", 1, "bb", 1),
            listed("d", 2, "aa", 1),
        ];
        let all = families(list);
        let names: Vec<Vec<&str>> = all
            .iter()
            .map(|(_, all)| all.iter().map(|listed| &*listed.name).collect())
            .collect();
        assert_eq!(names, [vec!["d", "b", "c"], vec!["x"]]);
    }

    #[test]
    fn limits_are_told() {
        let mut list = vec![
            listed("a", 1, "1", 1 << 40),
            listed("b", 2, "1", 1 << 40),
            listed("c", 3, "1", 2 << 40),
            listed("d", 4, "1", 5 << 40),
        ];
        list[1].completion_percent = Some(42.5);
        let told = limits(&list, &["a", "b", "c", "d", "x"]);
        assert_eq!(told.len(), 3, "{told:?}");
        let text = |at: usize| told[at].1.as_str();
        assert!(text(0).starts_with("b: 42.5 % complete"), "{told:?}");
        assert!(
            text(1).starts_with("c: ") && !text(1).contains("4 TiB"),
            "{told:?}"
        );
        assert!(
            text(2).starts_with("d: ") && text(2).contains("4 TiB"),
            "{told:?}"
        );
        let told = limits(&vec![listed("a", 1, "1", 1); 200], &["x"; 6]);
        let kinds: Vec<CloudLimit> = told.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [CloudLimit::Access, CloudLimit::Snapshots]);
        assert!(told[0].1.contains("signed links"), "{told:?}");
        assert!(told[1].1.contains("200 incremental snapshots"), "{told:?}");
        assert_eq!(limits(&[listed("a", 1, "1", 1)], &[]), []);
    }
}
