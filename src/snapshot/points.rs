//! The snapshots of a disk in order, indexed by name, number and id: a disk can have thousands.

use std::collections::HashMap;

use super::{Family, Manifest};
use crate::error::Result;

/// Snapshots ordered by number.
#[derive(Debug, Default)]
pub(super) struct Points {
    all: Vec<Manifest>,
    /// The numbers of the snapshots with each id or name, ascending. In a sound store there is one.
    by_id: HashMap<String, Vec<u32>>,
    by_name: HashMap<String, Vec<u32>>,
    /// The numbers of the snapshots with this parent id.
    by_parent: HashMap<String, Vec<u32>>,
    /// The combined knowledge about their family; `None` if it has to be determined.
    family: Option<Family>,
}

impl Points {
    pub(super) fn new(mut all: Vec<Manifest>) -> Self {
        all.sort_by_key(|point| point.sequence);
        let mut points = Self::default();
        for point in &all {
            points.add_keys(point);
        }
        points.all = all;
        points.family = points.join().ok();
        points
    }

    pub(super) fn as_slice(&self) -> &[Manifest] {
        &self.all
    }

    /// The first one called `name`.
    pub(super) fn named(&self, name: &str) -> Option<&Manifest> {
        let number = *self.by_name.get(name)?.first()?;
        self.numbered(number).find(|point| point.name == name)
    }

    /// The last one with this id whose number is less than `number`.
    pub(super) fn with_id_before(&self, id: &str, number: u32) -> Option<&Manifest> {
        let numbers = self.by_id.get(id)?;
        let before = numbers.get(..numbers.partition_point(|n| *n < number))?;
        self.numbered(*before.last()?).find(|point| point.id == id)
    }

    /// The first one with this id.
    pub(super) fn with_id(&self, id: &str) -> Option<&Manifest> {
        let number = *self.by_id.get(id)?.first()?;
        self.numbered(number).find(|point| point.id == id)
    }

    /// Those with a higher number than `parent` that are based on it: at most one, in a sound store.
    pub(super) fn children(&self, parent: &Manifest) -> impl Iterator<Item = &Manifest> {
        let numbers = self.by_parent.get(&parent.id).into_iter().flatten();
        let later = numbers.filter(|number| **number > parent.sequence);
        later.flat_map(|number| {
            let all = self.numbered(*number);
            all.filter(|point| point.parent.as_ref() == Some(&parent.id))
        })
    }

    /// Those with this number: one, in a sound store.
    pub(super) fn numbered(&self, number: u32) -> impl Iterator<Item = &Manifest> {
        self.from(number)
            .iter()
            .take_while(move |point| point.sequence == number)
    }

    /// Those with `number` or a higher number.
    pub(super) fn from(&self, number: u32) -> &[Manifest] {
        let start = self.all.partition_point(|point| point.sequence < number);
        self.all.get(start..).unwrap_or_default()
    }

    /// Those with numbers below `number`.
    pub(super) fn before(&self, number: u32) -> &[Manifest] {
        let end = self.all.partition_point(|point| point.sequence < number);
        self.all.get(..end).unwrap_or_default()
    }

    /// The combined knowledge about their family.
    pub(super) fn family(&self) -> Result<Family> {
        match &self.family {
            Some(family) => Ok(family.clone()),
            None => self.join(),
        }
    }

    /// Adds one, or replaces the one with the same number.
    pub(super) fn put(&mut self, point: Manifest) {
        self.remove(|old| old.sequence == point.sequence, point.sequence);
        self.add_keys(&point);
        let joined = self.family.take();
        self.family = joined.and_then(|family| family.join(&point.family).ok());
        let at = self.all.partition_point(|p| p.sequence < point.sequence);
        self.all.insert(at, point);
    }

    /// Removes the one with this number and id.
    pub(super) fn take_out(&mut self, number: u32, id: &str) {
        self.remove(|point| point.id == id, number);
    }

    fn remove(&mut self, which: impl Fn(&Manifest) -> bool, number: u32) {
        let start = self.all.partition_point(|point| point.sequence < number);
        let mut at = start;
        while let Some(point) = self.all.get(at).filter(|p| p.sequence == number) {
            if !which(point) {
                at += 1;
                continue;
            }
            let gone = self.all.remove(at);
            for (keys, key) in self.keys_of(&gone) {
                if let Some(numbers) = keys.get_mut(key) {
                    numbers.retain(|n| *n != number);
                    if numbers.is_empty() {
                        keys.remove(key);
                    }
                }
            }
            // It may have been the only one with this information.
            if gone.family != Family::default() {
                self.family = None;
            }
        }
    }

    fn add_keys(&mut self, point: &Manifest) {
        for (keys, key) in self.keys_of(point) {
            let numbers = keys.entry(key.clone()).or_default();
            let at = numbers.partition_point(|n| *n < point.sequence);
            numbers.insert(at, point.sequence);
        }
    }

    fn keys_of<'a>(
        &mut self,
        point: &'a Manifest,
    ) -> impl Iterator<Item = (&mut HashMap<String, Vec<u32>>, &'a String)> {
        let keys = [
            (&mut self.by_id, Some(&point.id)),
            (&mut self.by_name, Some(&point.name)),
            (&mut self.by_parent, point.parent.as_ref()),
        ];
        let keys = keys.into_iter();
        keys.filter_map(|(keys, key)| key.map(|key| (keys, key)))
    }

    fn join(&self) -> Result<Family> {
        let all = self.all.iter();
        all.map(|point| &point.family)
            .try_fold(Family::default(), |known, family| known.join(family))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::manifest::tests::manifest;

    fn point(number: u32, name: &str, id: &str) -> Manifest {
        Manifest {
            sequence: number,
            name: name.to_owned(),
            id: id.to_owned(),
            ..manifest()
        }
    }

    fn names(points: &[Manifest]) -> String {
        points.iter().map(|point| point.name.as_str()).collect()
    }

    #[test]
    fn they_are_found_by_what_they_are_called_and_forgotten_when_they_go() {
        let mut points = Points::new(vec![
            point(5, "c", "3"),
            point(1, "a", "1"),
            point(2, "b", "2"),
            point(7, "d", "2"),
        ]);
        assert_eq!(names(points.as_slice()), "abcd");
        assert_eq!(names(points.from(2)), "bcd");
        assert_eq!(names(points.before(5)), "ab");
        assert_eq!(points.named("c").unwrap().sequence, 5);
        assert_eq!(points.with_id_before("2", 7).unwrap().name, "b");
        assert_eq!(points.with_id_before("2", 8).unwrap().name, "d");
        assert_eq!(points.with_id_before("2", 2), None);
        points.put(point(5, "x", "9"));
        assert_eq!(points.named("c"), None);
        assert_eq!(points.with_id("3"), None);
        assert_eq!(points.with_id("9").unwrap().name, "x");
        let mut child = point(6, "y", "8");
        child.parent = Some("9".to_owned());
        points.put(child);
        let made = |points: &Points, n| -> String {
            let parent = points.numbered(n).next().unwrap();
            points.children(parent).map(|p| p.name.as_str()).collect()
        };
        assert_eq!(made(&points, 5), "y");
        assert_eq!(made(&points, 1), "");
        points.take_out(6, "8");
        assert_eq!(made(&points, 5), "");
        points.take_out(2, "2");
        assert_eq!(names(points.as_slice()), "axd");
        assert_eq!(points.with_id("2").unwrap().name, "d");
        points.take_out(7, "other");
        assert_eq!(names(points.as_slice()), "axd");
    }

    #[test]
    fn what_is_known_of_the_family_goes_with_the_one_that_knew_it() {
        let mut points = Points::new(vec![point(1, "a", "1")]);
        let mut known = point(2, "b", "2");
        known.family.source_unique_id = Some("7".to_owned());
        points.put(known);
        let id = |points: &Points| points.family().unwrap().source_unique_id;
        assert_eq!(id(&points).as_deref(), Some("7"));
        points.take_out(2, "2");
        assert_eq!(id(&points), None);
    }
}
