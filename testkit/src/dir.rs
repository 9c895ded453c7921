//! The directory of a server.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// A temporary directory, removed when dropped.
#[derive(Debug)]
pub struct Dir(tempfile::TempDir);

impl Dir {
    /// Creates an empty directory whose name starts with `prefix`.
    pub fn new(prefix: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("{prefix}-")).tempdir();
        Ok(Self(dir.context("create a temporary directory")?))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, and creates its folders. Returns the absolute path.
    pub fn write(&self, relative: impl AsRef<Path>, text: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path().join(relative);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}
