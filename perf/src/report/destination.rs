//! A file of results, which is whole or not there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::error::Failure;

/// Where a report of one format goes. What a file held before stays until a new report is whole.
#[derive(Debug)]
pub(crate) enum Destination {
    /// A file, there already or not.
    File(PathBuf),
    /// What cannot be replaced: a device, a pipe, a terminal.
    Stream(PathBuf, File),
}

/// A file beside another that takes its place when it is whole, and is removed otherwise.
struct Part(PathBuf);

impl Destination {
    /// Makes sure that it can be written, as far as that can be known beforehand; leaves nothing
    /// there.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let found = (|| match OpenOptions::new().write(true).open(path) {
            Ok(file) if !file.metadata()?.is_file() => Ok(Self::Stream(path.to_owned(), file)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                // Of a link, what it leads to is replaced and not the link.
                let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
                Part::create(&path)?;
                Ok(Self::File(path))
            }
        })();
        found.map_err(|source| Failure::Write { path: path.to_owned(), source })
    }

    pub(crate) fn path(&self) -> &Path {
        let (Self::File(path) | Self::Stream(path, _)) = self;
        path
    }

    /// Writes all of it.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        let written = match self {
            Self::File(path) => replace(path, bytes),
            Self::Stream(_, file) => (&*file).write_all(bytes),
        };
        written.map_err(|source| Failure::Write { path: self.path().to_owned(), source })
    }
}

/// Puts a file with these bytes in the place of another, or where there was none.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (mut file, part) = Part::create(path)?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(bytes)?;
    // Some file systems find out only now that there is no room.
    file.sync_all()?;
    fs::rename(&part.0, path)
}

impl Part {
    fn create(path: &Path) -> io::Result<(File, Self)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let part = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        let path = path.with_file_name(part);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok((file, Self(path)))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It is not there any more where it has taken its place; else it is left behind at worst.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::report::sample::Directory;

    #[test]
    fn nothing_is_there_until_it_is_whole() {
        let directory = Directory::new("destination-new");
        let path = directory.0.join("a.json");
        let destination = Destination::open(&path).unwrap();
        assert_eq!(directory.names(), Vec::<String>::new());
        destination.write(b"{}").unwrap();
        assert_eq!(directory.names(), ["a.json"]);
        assert_eq!(fs::read(&path).unwrap(), b"{}");
    }

    #[test]
    fn an_old_file_is_replaced_with_its_permissions_and_its_link_kept() {
        let directory = Directory::new("destination-old");
        let (path, link) = (directory.0.join("a"), directory.0.join("b"));
        fs::write(&path, "old and long").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&path, &link).unwrap();
        let destination = Destination::open(&link).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old and long");
        destination.write(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_full_disk_is_named() {
        let destination = Destination::open(Path::new("/dev/full")).unwrap();
        let failure = destination.write(b"{}").unwrap_err().to_string();
        assert!(
            failure.starts_with("cannot write /dev/full: No space left on device"),
            "{failure}"
        );
    }

    #[test]
    fn a_path_that_cannot_be_written_is_refused_at_once() {
        for (path, why) in [("/nowhere/at/all.json", "No such file"), ("/", "Is a directory")] {
            let failure = Destination::open(Path::new(path)).unwrap_err().to_string();
            assert!(failure.starts_with(&format!("cannot write {path}: {why}")), "{failure}");
        }
    }
}
