//! The archive: a directory of plain files, `<prompt>/<version>.txt`, with percent-encoded names. Several receivers may
//! share it if they run as the same user: other users cannot read the files.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ulid::Ulid;

use crate::decision::{PromptName, VersionName};

/// Encoded names begin with a letter, a digit or `%`, so none is `.` or `..`; a `/` becomes `%2F`, and a `%` becomes `%25`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-');
/// File systems allow 255 bytes.
const MAX_NAME: usize = 240;
const TEMPORARY: &str = ".tmp-";
/// Content may be confidential.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// When a file that a dead writer left behind may be deleted.
const STALE: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug)]
pub struct ArchiveDirectory {
    root: PathBuf,
}

impl ArchiveDirectory {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Always below the root, whatever the names contain.
    pub fn path(&self, prompt: &PromptName, version: &VersionName) -> PathBuf {
        self.folder(prompt).join(format!("{}.txt", utf8_percent_encode(version.as_str(), ESCAPED)))
    }

    /// A name that is too long continues in a folder below, marked by a `%` that begins no escape.
    fn folder(&self, prompt: &PromptName) -> PathBuf {
        let name = utf8_percent_encode(prompt.as_str(), ESCAPED).to_string();
        let (head, rest) = name.split_at(name.len().min(MAX_NAME));
        let folder = self.root.join(head);
        if rest.is_empty() { folder } else { folder.join(format!("%{rest}")) }
    }

    /// The root is never created: if it is missing, a disk is not mounted.
    fn must_be_there(&self) -> io::Result<()> {
        let described = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.root.display()));
        match fs::metadata(&self.root).map_err(described)?.is_dir() {
            true => Ok(()),
            false => {
                Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{}: not a directory", self.root.display())))
            }
        }
    }

    /// After this returns, the content is on the disk under its name, and was read back.
    pub fn write(&self, prompt: &PromptName, version: &VersionName, text: &str) -> io::Result<()> {
        self.must_be_there()?;
        let (folder, path) = (self.folder(prompt), self.path(prompt, version));
        for folder in
            [folder.parent().filter(|parent| *parent != self.root), Some(folder.as_path())].into_iter().flatten()
        {
            match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Err(_) => close(folder),
                Ok(()) => {}
            }
            sync(folder.parent())?;
        }
        let temporary = folder.join(format!("{TEMPORARY}{}", Ulid::generate()));
        let written = write_new(&temporary, text).and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        sync(Some(&folder))?;
        match fs::read(&path)? == text.as_bytes() {
            true => Ok(()),
            false => Err(io::Error::other("the written file reads back differently")),
        }
    }

    /// `None`: the archive is there, but not this content.
    pub fn read(&self, prompt: &PromptName, version: &VersionName, most: u64) -> io::Result<Option<Vec<u8>>> {
        self.must_be_there()?;
        let file = match File::open(self.path(prompt, version)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut text = Vec::new();
        file.take(most).read_to_end(&mut text)?;
        Ok(Some(text))
    }

    /// Deletes files of this prompt that are not in `archived` and older than `keep`.
    pub fn sweep(&self, prompt: &PromptName, archived: &[VersionName], keep: Duration) -> io::Result<()> {
        let kept: Vec<_> = archived.iter().map(|version| self.path(prompt, version)).collect();
        let entries = match fs::read_dir(self.folder(prompt)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let (name, path, metadata) = (entry.file_name(), entry.path(), entry.metadata()?);
            if metadata.is_dir() {
                continue; // of prompts whose longer names begin like this one
            }
            let temporary = name.to_string_lossy().starts_with(TEMPORARY);
            let text = path.extension().is_some_and(|end| end == "txt") && !kept.contains(&path);
            let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
            if (temporary && age > STALE) || (text && age > keep) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    pub fn remove(&self, prompt: &PromptName, version: &VersionName) -> io::Result<()> {
        match fs::remove_file(self.path(prompt, version)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Tests whether content can be written.
    pub fn probe(&self) -> io::Result<()> {
        self.must_be_there()?;
        let temporary = self.root.join(format!("{TEMPORARY}{}", Ulid::generate()));
        let written = write_new(&temporary, "prompt-rollback");
        let _ = fs::remove_file(&temporary);
        written
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Restricts a folder that an earlier release created readable for all. A folder of another owner cannot be changed,
/// and stays.
fn close(folder: &Path) {
    let open = fs::metadata(folder).is_ok_and(|metadata| metadata.mode() & 0o077 != 0);
    if open && let Err(error) = fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE)) {
        tracing::warn!(%error, folder = %folder.display(), "other users may read the archived content in this folder");
    }
}

/// A name survives a power failure only if its folder was synced as well.
fn sync(folder: Option<&Path>) -> io::Result<()> {
    folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Root(PathBuf);

    impl Root {
        fn new() -> Self {
            let root = std::env::temp_dir().join(format!("archive-{}", Ulid::generate()));
            fs::create_dir(&root).unwrap();
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names(prompt: &str, version: &str) -> (PromptName, VersionName) {
        (PromptName::parse(prompt).unwrap(), VersionName::parse(version).unwrap())
    }

    #[test]
    fn no_name_leads_out_of_the_archive_or_to_anothers_file() {
        let root = Root::new();
        let files = ArchiveDirectory::new(&root.0);
        let long = |tail: &str| format!("a{}{tail}", "/".repeat(128 - 1 - tail.len()));
        // encoded, the second part begins just behind "..": 80 escapes are 240 bytes
        let edge = |tail: &str| format!("{}{}{tail}", "a".repeat(3), "/".repeat(79));
        let mut hostile = vec!["a/../../../etc/passwd".to_owned(), "a/..".to_owned(), "a..".to_owned(), "a".to_owned()];
        hostile
            .extend(["a/.", "a//b", "a/b", "a.b", "a-b", "a_b", "a%2Fb".trim_end_matches("%2Fb")].map(str::to_owned));
        hostile.extend([long(""), long(".."), long("/.."), long("x"), edge(""), edge(".."), edge("../x"), edge("/..")]);
        hostile.sort();
        hostile.dedup();
        let mut seen = std::collections::BTreeMap::new();
        for prompt in &hostile {
            for version in ["v1", "v1.txt", "v..", "1:a", "1+a", &"v".repeat(64)] {
                let (p, v) = names(prompt, version);
                let text = format!("{prompt} {version}");
                files.write(&p, &v, &text).unwrap();
                let path = files.path(&p, &v);
                assert!(fs::canonicalize(&path).unwrap().starts_with(fs::canonicalize(&root.0).unwrap()), "{path:?}");
                let depth = path.strip_prefix(&root.0).unwrap().components();
                assert!(depth.clone().all(|part| matches!(part, std::path::Component::Normal(_))), "{path:?}");
                assert!(depth.count() <= 3);
                assert_eq!(seen.insert(path, text.clone()), None, "{text}");
            }
        }
        for (path, text) in seen {
            assert_eq!(fs::read_to_string(path).unwrap(), text, "nothing was overwritten");
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is_left() {
        let root = Root::new();
        let files = ArchiveDirectory::new(&root.0);
        let (p, v) = names("team/refund", "v1");
        assert_eq!(files.read(&p, &v, 100).unwrap(), None);
        files.write(&p, &v, "one").unwrap();
        files.write(&p, &v, "two").unwrap();
        assert_eq!(files.read(&p, &v, 100).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(files.read(&p, &v, 2).unwrap().map(|text| text.len()), Some(2), "never more than asked for");
        assert_eq!(fs::read_dir(root.0.join("team%2Frefund")).unwrap().count(), 1);
        files.probe().unwrap();
        assert_eq!(fs::read_dir(&root.0).unwrap().count(), 1);
        files.remove(&p, &v).unwrap();
        files.remove(&p, &v).unwrap();
        assert_eq!(files.read(&p, &v, 100).unwrap(), None);
    }

    #[test]
    fn nobody_else_may_read_what_is_archived() {
        let root = Root::new();
        let files = ArchiveDirectory::new(&root.0);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        for prompt in ["team/refund".to_owned(), format!("a{}", "/".repeat(127))] {
            let (p, v) = names(&prompt, "v1");
            files.write(&p, &v, "secret").unwrap();
            let path = files.path(&p, &v);
            assert_eq!(mode(&path), 0o600, "{path:?}");
            for folder in path.ancestors().skip(1).take_while(|folder| *folder != root.0) {
                assert_eq!(mode(folder), 0o700, "{folder:?}");
            }
        }
        // as the previous release created it
        let (p, v) = names("old", "v1");
        fs::create_dir(root.0.join("old")).unwrap();
        fs::set_permissions(root.0.join("old"), Permissions::from_mode(0o755)).unwrap();
        files.write(&p, &v, "secret").unwrap();
        assert_eq!(mode(&root.0.join("old")), 0o700);
    }

    #[test]
    fn a_root_that_is_missing_or_a_file_is_an_error_and_is_not_made() {
        let root = Root::new();
        let (p, v) = names("p", "v1");
        fs::write(root.0.join("file"), "").unwrap();
        for wrong in ["missing", "file"] {
            let files = ArchiveDirectory::new(root.0.join(wrong));
            assert!(files.write(&p, &v, "text").is_err());
            assert!(files.read(&p, &v, 1).is_err());
            assert!(files.probe().unwrap_err().to_string().contains(wrong));
        }
        assert!(!root.0.join("missing").exists());
    }

    #[test]
    fn sweeping_takes_what_is_old_and_not_archived() {
        let root = Root::new();
        let files = ArchiveDirectory::new(&root.0);
        let (p, old) = names("p", "v1");
        let kept = VersionName::parse("v2").unwrap();
        for version in [&old, &kept] {
            files.write(&p, version, "text").unwrap();
        }
        files.sweep(&p, std::slice::from_ref(&kept), Duration::from_secs(60)).unwrap();
        assert!(files.read(&p, &old, 9).unwrap().is_some(), "young");
        let long_ago = SystemTime::now() - Duration::from_secs(120);
        for version in [&old, &kept] {
            File::options().write(true).open(files.path(&p, version)).unwrap().set_modified(long_ago).unwrap();
        }
        files.sweep(&p, std::slice::from_ref(&kept), Duration::from_secs(60)).unwrap();
        assert!(files.read(&p, &old, 9).unwrap().is_none());
        assert!(files.read(&p, &kept, 9).unwrap().is_some());
    }

    #[test]
    fn sweeping_leaves_the_folders_of_longer_names_alone() {
        let root = Root::new();
        let files = ArchiveDirectory::new(&root.0);
        // encoded, this name takes a whole folder name: 3 letters and 79 escapes
        let name = format!("{}{}", "a".repeat(3), "/".repeat(79));
        let ((p, v), (longer, _)) = (names(&name, "v1"), names(&format!("{name}.txt"), "v1"));
        files.write(&p, &v, "text").unwrap();
        files.write(&longer, &v, "text").unwrap();
        assert_eq!(files.folder(&longer).parent(), Some(files.folder(&p).as_path()));
        std::thread::sleep(Duration::from_millis(20));
        files.sweep(&p, &[], Duration::ZERO).unwrap();
        assert!(files.read(&p, &v, 9).unwrap().is_none());
        assert!(files.read(&longer, &v, 9).unwrap().is_some());
    }
}
