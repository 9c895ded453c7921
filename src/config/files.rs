//! The files that a config names: secrets and certificates. What each held is kept, to see when one is replaced.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
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

    /// The same files as they are now. Each path is followed anew: it may lead through a link that was replaced.
    #[must_use]
    pub fn look(&self) -> Self {
        let now = |(path, before): (&PathBuf, &Result<_, _>)| {
            // a pipe gives what it holds only once
            (path.clone(), if is_stream(path) { before.clone() } else { open(path) })
        };
        Self(self.0.iter().map(now).collect())
    }

    /// The content of one, as `known` has it or else from the disk.
    pub fn read(&mut self, path: &Path, known: &Self) -> io::Result<Vec<u8>> {
        let content = known.0.get(path).cloned().unwrap_or_else(|| open(path));
        self.0.insert(path.to_owned(), content.clone());
        content.map_err(|(kind, message)| io::Error::new(kind, message))
    }
}

fn open(path: &Path) -> Result<Vec<u8>, (ErrorKind, String)> {
    std::fs::read(path).map_err(|error| (error.kind(), error.to_string()))
}

/// A pipe, a terminal or the like: it can't be read again.
pub fn is_stream(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| {
        let kind = metadata.file_type();
        kind.is_fifo() || kind.is_char_device() || kind.is_socket()
    })
}
