//! The Unix socket: mode 0600 from the first moment, never taken from a living daemon. Its file is left behind for a
//! successor to replace: removing it could hit one that has started already.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

use super::AdminError;

/// A listening socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
}

impl Socket {
    /// Listens at the path. A file that a killed predecessor left is replaced.
    pub(super) fn open(path: &Path) -> Result<Self, AdminError> {
        if UnixStream::connect(path).is_ok() {
            return Err(AdminError::Taken { path: path.into() });
        }
        let listener = bind(path).map_err(|source| AdminError::Socket { path: path.into(), source })?;
        Ok(Self { listener })
    }
}

/// Made under another name, closed to others, and only then moved to its place.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let dir = path.parent().unwrap_or(Path::new("."));
    if !dir.as_os_str().is_empty() {
        fs::create_dir_all(dir)?;
    }
    let mut private: PathBuf = path.into();
    private.set_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&private);
    let listener = UnixListener::bind(&private)?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600))?;
    fs::rename(&private, path)?;
    Ok(listener)
}
