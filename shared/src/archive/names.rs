//! Which paths an archive may hold: those that mean one and the same file on every system.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization as _;

use super::{ArchiveError, Limits, shown};

/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 2_000;
/// Longest name of a file or folder, in bytes: what the common file systems store.
const NAME_BYTES_MAX: usize = 255;

/// Names that are devices on Windows, whatever follows their first dot.
const DEVICES: [&str; 7] = ["con", "prn", "aux", "nul", "clock$", "conin$", "conout$"];

/// The paths seen so far, as the tree they make.
pub(super) struct Names {
    tree: HashMap<(u32, String), Node>,
    limits: Limits,
}

struct Node {
    id: u32,
    name: String,
    folder: bool,
    /// Whether an entry names it, rather than only a path that leads through it.
    listed: bool,
}

impl Names {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { tree: HashMap::new(), limits: *limits }
    }

    /// Takes a path without a trailing slash, or says which rule it breaks.
    pub(super) fn add(&mut self, path: &str, folder: bool) -> Result<(), ArchiveError> {
        let refuse = |rule: String| Err(ArchiveError::entry(path, rule));
        if let Err(rule) = check_path(path, self.limits.depth) {
            return refuse(rule);
        }

        let mut parent = 0;
        let mut parts = path.split('/').peekable();
        while let Some(name) = parts.next() {
            let last = parts.peek().is_none();
            let folder = folder || !last;
            let id = u32::try_from(self.tree.len()).unwrap_or(u32::MAX).saturating_add(1);
            let Some(node) = self.tree.get_mut(&(parent, folded(name))) else {
                if self.tree.len() as u64 >= self.limits.entries {
                    return Err(ArchiveError::whole(format!(
                        "the archive holds more than {} files and folders",
                        self.limits.entries
                    )));
                }
                let node = Node { id, name: name.to_owned(), folder, listed: last };
                self.tree.insert((parent, folded(name)), node);
                parent = id;
                continue;
            };
            if node.name != name {
                let other = shown(&node.name);
                return refuse(format!("some systems cannot tell it from {other}"));
            }
            if node.folder != folder {
                return refuse("is a file and a folder at once".to_owned());
            }
            if last && node.listed {
                return refuse("is there twice".to_owned());
            }
            node.listed |= last;
            parent = node.id;
        }
        Ok(())
    }
}

/// What the name becomes on a file system that knows neither case nor forms of composed letters. Going through upper
/// case first makes one of letters like `ß` and `ſ` that have several lower forms.
fn folded(name: &str) -> String {
    let upper: String = name.nfd().flat_map(char::to_uppercase).collect();
    upper.chars().flat_map(char::to_lowercase).nfc().collect()
}

/// Whether a path is longer or leads deeper than any may.
pub(super) fn is_too_deep(path: &str, depth_max: usize) -> bool {
    path.len() > PATH_BYTES_MAX || path.split('/').count() > depth_max
}

fn check_path(path: &str, depth_max: usize) -> Result<(), String> {
    let bytes = path.as_bytes();
    if path.is_empty() {
        return Err("an entry has no name".to_owned());
    }
    if path.contains('\\') {
        return Err("has a backslash, which some systems take for a folder".to_owned());
    }
    if path.starts_with('/') {
        return Err("is an absolute path".to_owned());
    }
    if bytes.len() >= 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':' {
        return Err("begins with a drive letter".to_owned());
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("is a path of more than {PATH_BYTES_MAX} bytes"));
    }
    if path.split('/').count() > depth_max {
        return Err(format!("lies more than {depth_max} folders deep"));
    }
    path.split('/').try_for_each(check_name)
}

fn check_name(name: &str) -> Result<(), String> {
    match name {
        "" => return Err("has an empty name in its path".to_owned()),
        "." => return Err("has \".\" in its path".to_owned()),
        ".." => return Err("leads out of the folder".to_owned()),
        _ => {}
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("has a name of more than {NAME_BYTES_MAX} bytes"));
    }
    if name.contains(':') {
        return Err("has a colon, which names a hidden stream on Windows".to_owned());
    }
    if name.chars().any(char::is_control) {
        return Err("has a control character in its name".to_owned());
    }
    if let Some(char) = name.chars().find(|char| "<>\"|?*".contains(*char)) {
        return Err(format!("has a character in its name that Windows does not allow: {char}"));
    }
    if name.ends_with(['.', ' ']) {
        return Err("has a name that ends with a dot or a space".to_owned());
    }
    if is_device(name) {
        return Err("has the name of a device on Windows".to_owned());
    }
    Ok(())
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_lowercase();
    if DEVICES.contains(&stem.as_str()) {
        return true;
    }
    let Some(number) = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt")) else {
        return false;
    };
    let mut chars = number.chars();
    matches!(chars.next(), Some('0'..='9' | '¹' | '²' | '³')) && chars.next().is_none()
}
