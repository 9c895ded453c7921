//! The memory of a process.

use std::path::Path;

use anyhow::{Context, Result};

/// In MB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub resident: f64,
    /// The part that is not pages of files, such as those of the program itself.
    pub own: f64,
}

pub fn memory(pid: u32) -> Result<Memory> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let field = |name: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0 / 1e6)
    };
    Ok(Memory { resident: field("VmRSS:")?, own: field("RssAnon:")? })
}
