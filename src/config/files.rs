//! The files that a config names: secrets and certificates. Their contents are kept, to notice when one is replaced.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The contents of files by path, or why one could not be read.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct FileContents(BTreeMap<PathBuf, Result<Vec<u8>, (ErrorKind, String)>>);

/// Without the contents.
impl fmt::Debug for FileContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl FileContents {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// Reads the same files again. Each path is resolved again, because it may contain a link that was replaced.
    #[must_use]
    pub fn look(&self) -> Self {
        let now = |(path, before): (&PathBuf, &Result<_, _>)| {
            // a pipe can be read only once
            (path.clone(), if is_stream(path) { before.clone() } else { open(path) })
        };
        Self(self.0.iter().map(now).collect())
    }

    /// The content of a file, from `known` or from the disk.
    pub fn read(&mut self, path: &Path, known: &Self) -> io::Result<Vec<u8>> {
        let content = known.0.get(path).cloned().unwrap_or_else(|| open(path));
        self.0.insert(path.to_owned(), content.clone());
        content.map_err(|(kind, message)| io::Error::new(kind, message))
    }
}

/// The longest file: a content of the largest body that the receiver takes.
pub const MAX_FILE: u64 = 64 << 20;

/// Reads a file, unless it is too long or has no end.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("expected at most {} MiB", MAX_FILE >> 20)));
    }
    Ok(content)
}

fn open(path: &Path) -> Result<Vec<u8>, (ErrorKind, String)> {
    read_file(path).map_err(|error| (error.kind(), error.to_string()))
}

/// Whether this is a pipe, a terminal or the like, which cannot be read again.
pub fn is_stream(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| {
        let kind = metadata.file_type();
        kind.is_fifo() || kind.is_char_device() || kind.is_socket()
    })
}
