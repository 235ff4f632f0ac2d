//! Unix sockets that only their user can reach.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::net::{UnixListener, UnixStream};

/// A socket that listens. Its file goes with it.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, to know it again.
    file: (u64, u64),
}

impl Socket {
    pub fn bind(path: &Path) -> io::Result<Self> {
        remove_stale(path)?;
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // On Linux the file gets the mode that the socket has now, so that there is no moment at which others could connect.
        // Where it does not, nobody can connect before `listen`, which comes after the mode is set.
        rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600)).or_else(|error| match error {
            rustix::io::Errno::INVAL => Ok(()),
            error => Err(error),
        })?;
        bind(&socket, &address)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listen(&socket, 1024)?;
        let listener = UnixListener::from_std(socket.into())?;
        let file = std::fs::symlink_metadata(path)?;
        Ok(Self { listener, path: path.to_owned(), file: (file.dev(), file.ino()) })
    }

    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Unless somebody else has put another there.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket that nobody listens to any more; anything else stays, and `bind` says so.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket
        && std::os::unix::net::UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
