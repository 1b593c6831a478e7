//! Small files of their own: keys, and what must be whole or as before. Written temp–fsync–rename, readable by the
//! owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::StoreError;
use crate::journal::sync_parent;
use crate::limits::FILE_BYTES_MAX;

/// Creates a folder and those above it, readable by the owner alone. One that exists is left as it is.
///
/// # Errors
/// When the operating system says no.
pub fn create_private_dir(dir: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| StoreError::io(dir, source))
}

/// Writes `bytes` to `path` with mode 0600: after a crash the file is the old one or the new one. `path` must have a
/// name; the temporary file beside it is called the same with `.new` behind.
///
/// # Errors
/// When it cannot be written; the old one stands then.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let at = |source| StoreError::io(&temporary, source);
    // One left by a crash may have another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(at)?;
    file.write_all(bytes).map_err(at)?;
    file.sync_all().map_err(at)?;
    fs::rename(&temporary, path).map_err(at)?;
    sync_parent(path)
}

/// Reads a small file; `None` when there is none.
///
/// # Errors
/// When it cannot be read, or is larger than [`FILE_BYTES_MAX`].
pub fn read_file(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let at = |source| StoreError::io(path, source);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(at)?;
    if bytes.len() as u64 > FILE_BYTES_MAX { Err(StoreError::TooLarge) } else { Ok(Some(bytes)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recover::tests::TestDir;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let dir = TestDir::new("file");
        let path = dir.path().join("a").join("device.key");
        create_private_dir(path.parent().unwrap()).unwrap();
        assert_eq!(read_file(&path).unwrap(), None);
        fs::write(path.with_file_name("device.key.new"), "left by a crash").unwrap();
        write_file(&path, b"one").unwrap();
        write_file(&path, b"two").unwrap();
        assert_eq!(read_file(&path).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
