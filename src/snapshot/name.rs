//! Names of disks and snapshots. They become parts of file names, so they must not lead elsewhere.

use crate::error::{Error, Result};

/// The longest name; the same as for the cloud's snapshots.
const LONGEST: usize = 80;

/// Fails, with the rule, if `name` isn't valid for a snapshot.
pub fn check_name(name: &str) -> Result<()> {
    check("snapshot", name)
}

/// Fails, with the rule, if `name` isn't valid for a disk.
pub fn check_disk_name(name: &str) -> Result<()> {
    check("disk", name)
}

fn check(what: &str, name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let first = name
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric());
    if first && name.len() <= LONGEST && name.chars().all(good) {
        return Ok(());
    }
    Err(Error::usage(format!("this can't be the name of a {what}"))
        .with_found(format_args!("\"{name}\""))
        .with_expected(format_args!(
            "1 to {LONGEST} letters (a-z, A-Z), digits, dots, underscores and hyphens, a letter or digit first"
        )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_leads_elsewhere() {
        let long = "a".repeat(80);
        for name in ["mon", "2026-11-20T06.00", "a_b", "0", &long] {
            check_name(name).unwrap();
        }
        let longer = "a".repeat(81);
        let bad = [
            "", ".", "..", "a/b", "/", "-f", ".hidden", "a b", "ä", "a\n", "a@b", "a:b",
        ];
        for name in bad.into_iter().chain([longer.as_str()]) {
            let error = check_disk_name(name).unwrap_err();
            assert!(error.to_string().contains("letters"), "{name:?}: {error}");
        }
    }
}
