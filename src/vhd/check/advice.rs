//! Advice about findings, before it is known what the file is called.

use std::path::Path;

use crate::remedy::{Act, Choice, Remedy, Step, Tool};

/// The advice about a finding of some rule, whichever file it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice(pub(super) &'static [Phrase]);

/// A part of an advice. As in a [`Remedy`], steps have the words that take their place where they have no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phrase {
    Text(&'static str),
    /// Belongs to the name of a step.
    Named(&'static str),
    /// Done with the file.
    Do(Act, &'static str),
    Choose(Choice, &'static str),
    Use(Tool, &'static str),
}

impl Advice {
    /// Returns the advice for the image at `file`.
    pub fn remedy(self, file: &Path) -> Remedy {
        let begin = Remedy::default();
        self.0.iter().fold(begin, |remedy, phrase| match *phrase {
            Phrase::Text(text) => remedy.text(text),
            Phrase::Named(text) => remedy.named(text),
            Phrase::Do(act, unnamed) => remedy.step(Step::Do(act, file.to_path_buf()), unnamed),
            Phrase::Choose(choice, unnamed) => remedy.step(Step::Choose(choice), unnamed),
            Phrase::Use(tool, unnamed) => remedy.step(Step::Use(tool), unnamed),
        })
    }
}

/// The advice about one finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Advised {
    /// Advice of the rule, or of all findings of its kind.
    Kind(Advice),
    /// The part that is specific to this finding.
    Own(Remedy),
}

impl Advised {
    /// The remedy for the image at `file`.
    pub(super) fn remedy(&self, file: &Path) -> Remedy {
        match self {
            Self::Kind(advice) => advice.remedy(file),
            Self::Own(remedy) => remedy.clone(),
        }
    }
}
