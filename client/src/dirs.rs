//! Where an installation keeps its things.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Longest path of a unix socket, bytes: `sun_path` has 108 with its end (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// The folders of one installation; made from `--dir` or from the XDG variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    data: PathBuf,
    config: PathBuf,
}

impl Dirs {
    /// All below `dir`, or without it the XDG folders (`~/.local/share/yodel`, `~/.config/yodel`).
    ///
    /// # Errors
    /// There is no home folder, or no current one that a relative `dir` could stand in.
    pub fn new(dir: Option<&Path>) -> io::Result<Dirs> {
        if let Some(dir) = dir {
            let data = std::path::absolute(dir)?;
            return Ok(Dirs { config: data.join("config.toml"), data });
        }
        let home = || std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let folder = |variable: &str, below_home: &str| {
            std::env::var_os(variable)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .or_else(|| home().map(|home| home.join(below_home)))
                .ok_or_else(|| io::Error::other("HOME is not set; use --dir"))
        };
        Ok(Dirs {
            data: folder("XDG_DATA_HOME", ".local/share")?.join("yodel"),
            config: folder("XDG_CONFIG_HOME", ".config")?.join("yodel").join("config.toml"),
        })
    }

    /// Keys, contacts, history.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The configuration file; it need not exist.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The file a running daemon holds a lock on.
    pub fn lock(&self) -> PathBuf {
        self.data.join("daemon.lock")
    }

    /// What a daemon started in the background writes.
    pub fn log(&self) -> PathBuf {
        self.data.join("daemon.log")
    }

    /// The daemon's socket: in the data folder, or where that path is too long for a socket, in a folder of its own
    /// below `XDG_RUNTIME_DIR` or `/tmp`, named after the hash of the data folder.
    pub fn socket(&self) -> PathBuf {
        let plain = self.data.join("daemon.sock");
        if plain.as_os_str().as_bytes().len() <= SOCKET_PATH_MAX {
            return plain;
        }
        let digest = Sha256::digest(self.data.as_os_str().as_bytes());
        let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let below = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .map(|path| path.join(format!("yodel-{hash}")))
            .map(|path| path.join("daemon.sock"))
            .filter(|path| path.as_os_str().as_bytes().len() <= SOCKET_PATH_MAX);
        below.unwrap_or_else(|| {
            let uid = nix::unistd::geteuid();
            PathBuf::from(OsString::from(format!("/tmp/yodel-{uid}-{hash}"))).join("daemon.sock")
        })
    }
}

/// Makes a folder that only its owner can look into, and checks that it is one: somebody else's folder of that name in
/// `/tmp` must not get our socket.
///
/// # Errors
/// It cannot be made, or is not ours alone.
pub fn private_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let found = std::fs::symlink_metadata(path)?;
    let folder = if found.is_symlink() { std::fs::metadata(path)? } else { found };
    if !folder.is_dir() || folder.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is not a folder of this user", path.display()),
        ));
    }
    if folder.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_folder_gets_a_short_socket() {
        let short = Dirs::new(Some(Path::new("/x/y"))).unwrap();
        assert_eq!(short.socket(), Path::new("/x/y/daemon.sock"));
        let long = PathBuf::from(format!("/{}", "a".repeat(200)));
        let socket = Dirs::new(Some(&long)).unwrap().socket();
        assert!(socket.as_os_str().len() <= SOCKET_PATH_MAX, "{}", socket.display());
        let other = PathBuf::from(format!("/{}", "b".repeat(200)));
        assert_ne!(socket, Dirs::new(Some(&other)).unwrap().socket());
        let edge = PathBuf::from(format!("/{}", "a".repeat(SOCKET_PATH_MAX - 1 - "/daemon.sock".len())));
        assert_eq!(Dirs::new(Some(&edge)).unwrap().socket(), edge.join("daemon.sock"));
    }

    #[test]
    fn folders_become_private() {
        let path = std::env::temp_dir().join(format!("yodel-dirs-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        private_folder(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        std::fs::remove_dir(&path).unwrap();
    }
}
