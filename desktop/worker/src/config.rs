//! What a worker is told at its start.

use std::{collections::BTreeSet, path::PathBuf};

use lull_shared::jobs::LABELS_MAX;

/// Longest label, in characters.
const LABEL_CHARS_MAX: usize = 64;

/// How a worker is to behave. `WorkerConfig::new` is right for a PC with an owner.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Where identity, history, spool, cache and the folders of running jobs live.
    pub data_dir: PathBuf,
    /// Room for this many attempts at once; half the logical processors unless told.
    pub slots: Option<u32>,
    /// Works whatever the PC is used for: for a server with no owner to mind. The owner's pause still counts.
    pub always: bool,
    /// What jobs may ask for by name.
    pub labels: Labels,
    /// Runs jobs as plain process trees even where they could be isolated; it then takes only jobs that ask for no
    /// isolation.
    pub plain: bool,
}

impl WorkerConfig {
    /// A worker with its data in this folder and everything else as usual.
    #[must_use]
    pub const fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, slots: None, always: false, labels: Labels(BTreeSet::new()), plain: false }
    }
}

/// Labels of a PC, at most 32: jobs that ask for one run only where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeSet<String>);

/// Why labels cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabels {
    /// One is none.
    #[error("{0:?} is not a label: 1 to 64 letters, digits, dots, underscores and hyphens")]
    NotALabel(String),
    /// There are too many.
    #[error("{0} labels are too many: a PC has at most 32")]
    TooMany(usize),
}

impl Labels {
    /// Checks labels; what is given twice counts once.
    ///
    /// # Errors
    ///
    /// When one is no label, or there are too many.
    pub fn new(labels: impl IntoIterator<Item = String>) -> Result<Self, InvalidLabels> {
        let labels: BTreeSet<String> = labels.into_iter().collect();
        if let Some(label) = labels.iter().find(|label| !is_label(label)) {
            return Err(InvalidLabels::NotALabel(label.clone()));
        }
        if labels.len() > LABELS_MAX {
            return Err(InvalidLabels::TooMany(labels.len()));
        }
        Ok(Self(labels))
    }

    pub(crate) const fn as_set(&self) -> &BTreeSet<String> {
        &self.0
    }
}

fn is_label(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=LABEL_CHARS_MAX).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(texts: &[&str]) -> Result<Labels, InvalidLabels> {
        Labels::new(texts.iter().copied().map(str::to_owned))
    }

    #[test]
    fn labels_are_short_and_plain() {
        assert_eq!(labels(&["gpu", "gpu", "cuda-12.4_x"]).unwrap().as_set().len(), 2);
        let long = "x".repeat(65);
        for wrong in ["", "two words", "a,b", "ü", "a/b", &long] {
            assert_eq!(labels(&["ok", wrong]), Err(InvalidLabels::NotALabel(wrong.to_owned())));
        }
        assert!(labels(&["x".repeat(64).as_str()]).is_ok());
    }

    #[test]
    fn a_pc_has_at_most_32_labels() {
        let many = |count: u32| Labels::new((0..count).map(|number| number.to_string()));
        assert!(many(32).is_ok());
        assert_eq!(many(33), Err(InvalidLabels::TooMany(33)));
    }
}
