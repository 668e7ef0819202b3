//! What a node makes is its owner's alone: data, and digests of passwords, are for nobody else on the machine. What
//! is there already keeps the mode that somebody gave it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Makes a directory and those above it, as far as they are missing.
///
/// # Errors
/// As [`std::fs::create_dir_all`].
pub(super) fn create_dir_all(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// How a file is opened; one that is made by it is the owner's.
pub(super) fn file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// An empty file to write to, made or emptied.
///
/// # Errors
/// As [`File::create`].
pub(super) fn create(path: &Path) -> io::Result<File> {
    file().write(true).create(true).truncate(true).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::runtime::scratch::Scratch;

    #[test]
    fn what_is_made_is_the_owners_and_what_is_there_is_left() {
        let scratch = Scratch::new("private");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let above = scratch.path().join("above");
        let (below, made) = (above.join("below"), above.join("file"));
        create_dir_all(&below).unwrap();
        create(&made).unwrap();
        assert_eq!([mode(&above), mode(&below), mode(&made)], [0o700, 0o700, 0o600]);
        fs::set_permissions(&above, fs::Permissions::from_mode(0o750)).unwrap();
        fs::set_permissions(&made, fs::Permissions::from_mode(0o640)).unwrap();
        create_dir_all(&below).unwrap();
        create(&made).unwrap();
        assert_eq!([mode(&above), mode(&made)], [0o750, 0o640]);
    }
}
