//! Advice about a fault: a sentence in which the steps that this crate knows are typed.
//!
//! The sentence alone ([`Display`](fmt::Display)) names no command and no option. Whoever has names for the steps puts
//! them in with [`Remedy::naming`], as the command line does with its commands and options; whoever wants to offer a
//! step as a button asks for the [`steps`](Remedy::steps).

mod step;

use std::borrow::Cow;
use std::fmt;

pub use step::{Act, Choice, Conversion, Limit, ReadAs, SnapshotJob, Step, StoreJob, Tool};

/// Advice on what to do next, as a phrase without a final stop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remedy {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Cow<'static, str>),
    /// Belongs to the name of a step, and is omitted without names.
    Named(Cow<'static, str>),
    /// Omitted with names.
    Unnamed(Cow<'static, str>),
    /// A step, and the words in its place without names.
    Step(Step, Cow<'static, str>),
}

impl Remedy {
    /// A remedy that begins with `text`.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self::default().text(text)
    }

    /// Adds words.
    #[must_use]
    pub fn text(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.parts.push(Part::Text(text.into()));
        self
    }

    /// Adds a step; `unnamed` are the words for it where it has no name, none if the sentence is whole without it.
    #[must_use]
    pub fn step(mut self, step: Step, unnamed: impl Into<Cow<'static, str>>) -> Self {
        self.parts.push(Part::Step(step, unnamed.into()));
        self
    }

    /// Adds words that only make sense beside the name of a step, as in "with NAME".
    #[must_use]
    pub fn named(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.parts.push(Part::Named(text.into()));
        self
    }

    /// Adds words that only make sense where steps have no names.
    #[must_use]
    pub fn otherwise(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.parts.push(Part::Unnamed(text.into()));
        self
    }

    /// Adds another remedy.
    #[must_use]
    pub fn then(mut self, other: impl Into<Self>) -> Self {
        self.parts.extend(other.into().parts);
        self
    }

    /// The steps in it, in the order of the sentence.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.parts.iter().filter_map(|part| match part {
            Part::Step(step, _) => Some(step),
            Part::Text(_) | Part::Named(_) | Part::Unnamed(_) => None,
        })
    }

    /// The sentence with each step called what `name` calls it.
    pub fn naming(&self, name: impl Fn(&Step) -> String) -> String {
        let mut said = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) | Part::Named(text) => said.push_str(text),
                Part::Unnamed(_) => {}
                Part::Step(step, _) => said.push_str(&name(step)),
            }
        }
        said
    }
}

/// The advice where something has the name that was chosen for a new file.
pub fn overwrite() -> Remedy {
    Remedy::new("choose another name, or ")
        .named("use ")
        .step(Step::Choose(Choice::Overwrite), "allow it")
        .text(" to replace it")
}

/// The sentence without names of steps.
impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) | Part::Unnamed(text) | Part::Step(_, text) => {
                    f.write_str(text)?;
                }
                Part::Named(_) => {}
            }
        }
        Ok(())
    }
}

impl From<&str> for Remedy {
    fn from(text: &str) -> Self {
        Self::new(text.to_owned())
    }
}

impl From<String> for Remedy {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_reads_with_names_and_without() {
        let remedy = Remedy::new("choose another name, or have it replaced")
            .named(" with ")
            .step(Step::Choose(Choice::Overwrite), "")
            .then("; or stop");
        let name = |step: &Step| format!("<{step:?}>");
        assert_eq!(
            remedy.to_string(),
            "choose another name, or have it replaced; or stop"
        );
        assert_eq!(
            remedy.naming(name),
            "choose another name, or have it replaced with <Choose(Overwrite)>; or stop"
        );
        assert_eq!(
            remedy.steps().collect::<Vec<_>>(),
            [&Step::Choose(Choice::Overwrite)]
        );
    }
}
