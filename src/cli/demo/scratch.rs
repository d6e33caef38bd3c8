//! A directory of the demo's own, for what it makes at start: certificate, process file, access log. It is gone when the
//! demo ends.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::DemoError;

/// Names that are tried, in case an earlier demo of the same process number was killed and left its own behind.
const NAMES_MAX: u32 = 100;

/// The directory; dropping it removes it with all that is in it.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a new one that only this user can look into.
    pub(super) fn create() -> Result<Self, DemoError> {
        Self::create_in(&std::env::temp_dir())
    }

    fn create_in(parent: &Path) -> Result<Self, DemoError> {
        let process = std::process::id();
        let mut names = (0..NAMES_MAX).map(|number| parent.join(format!("tidegate-demo-{process}-{number}")));
        loop {
            let path = names.next().unwrap_or_else(|| parent.join("tidegate-demo"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && names.len() > 0 => {}
                Err(error) => return Err(DemoError::File(path, error)),
            }
        }
    }

    /// Where something of this name stands in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a new file that only this user can read. `name` may lead through one directory.
    pub(super) fn write(&self, name: &str, content: &str) -> Result<PathBuf, DemoError> {
        let path = self.path(name);
        let write = || {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(content.as_bytes())
        };
        write().map_err(|error| DemoError::File(path.clone(), error))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("{} could not be removed: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_private_and_leaves_nothing_behind() {
        let scratch = Scratch::create().unwrap();
        let file = scratch.write("rules/shop.yaml", "routes: []\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "routes: []\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let path = scratch.path("");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn two_of_one_process_do_not_meet() {
        let (one, other) = (Scratch::create().unwrap(), Scratch::create().unwrap());
        assert_ne!(one.path(""), other.path(""));
    }

    #[test]
    fn a_place_where_nothing_can_be_made_is_named() {
        let error = Scratch::create_in(Path::new("/nowhere/at/all"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nowhere/at/all/tidegate-demo-"), "{error}");
    }
}
