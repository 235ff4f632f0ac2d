//! Serial ports of this machine: opening them, telling why they cannot be, and listing them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use farref_host::{Connection, Directory, Error, Options};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_serial::{ErrorKind, SerialPort, SerialPortType, SerialStream};

use crate::connect::Patience;
use crate::line::{self, LineOptions, Wire};

/// The speed of a port where none is told.
const BAUD: u32 = 115_200;

/// Starts a session over a serial port, such as `/dev/ttyACM0`: 8 bits, no parity, one stop bit, no flow control, at
/// [`LineOptions::baud`] or else 115,200. Nobody else can use the port meanwhile.
///
/// With [`Options::resume`] a port that is unplugged is opened again as soon as it is there, under the same name, within
/// [`Resuming::park`](crate::Resuming). The session goes on, unless what was unplugged has started again: then it ends with
/// [`Ended::PeerRestarted`](crate::Ended).
///
/// # Errors
/// [`Error::Io`] with [`NotFound`](io::ErrorKind::NotFound) if there is no such port, with
/// [`ResourceBusy`](io::ErrorKind::ResourceBusy) if somebody else uses it, with
/// [`PermissionDenied`](io::ErrorKind::PermissionDenied) if this user may not, with
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is no serial port or has no such speed; and as
/// [`start_line`](crate::start_line).
pub async fn connect_serial(
    path: impl Into<String>,
    directory: Directory,
    options: Options,
    line: LineOptions,
) -> Result<Connection, Error> {
    let patience = Patience::new(&options);
    let line = with_speed(line);
    let wire = patience.within(wire(path.into(), &line)).await?;
    line::run(wire, directory, options, &line, patience).await
}

/// At the speed of the port, whether it was told or not.
pub(crate) fn with_speed(line: LineOptions) -> LineOptions {
    LineOptions { baud: line.baud.or(Some(BAUD)), ..line }
}

/// The port, which can be opened again.
pub(crate) async fn wire(path: String, line: &LineOptions) -> Result<Wire<Port>, Error> {
    let baud = line.baud.unwrap_or(BAUD);
    let open = move || {
        let opened = Port::open(&path, baud);
        async move { opened }
    };
    Ok(Wire::open(open).await?.with_unsent(Port::unsent))
}

/// A port that is open.
pub(crate) struct Port(SerialStream);

impl Port {
    fn open(path: &str, baud: u32) -> Result<Self, Error> {
        let opened = SerialStream::open(&tokio_serial::new(path, baud));
        opened.map(Self).map_err(|error| cannot_open(path, baud, &error))
    }

    /// What the system has not sent yet. Its buffer takes several frames, which would be late when they leave.
    fn unsent(&self) -> Option<usize> {
        self.0.bytes_to_write().ok().map(|bytes| bytes as usize)
    }
}

impl AsyncRead for Port {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Port {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    /// A port sends by itself. That of the library would hold up the thread until all has left.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Why, and what the user can do about it.
fn cannot_open(path: &str, baud: u32, error: &tokio_serial::Error) -> Error {
    use io::ErrorKind as Io;
    let (kind, why) = match error.kind() {
        ErrorKind::Io(Io::NotFound) => (Io::NotFound, "there is no such port; is it plugged in?".to_owned()),
        ErrorKind::Io(Io::PermissionDenied) => (Io::PermissionDenied, not_permitted(path)),
        // So it is for the library if somebody else has the port.
        ErrorKind::NoDevice => (Io::ResourceBusy, "another program uses it".to_owned()),
        _ if is_no_port(path) => (Io::InvalidInput, "it is no serial port".to_owned()),
        ErrorKind::InvalidInput => (Io::InvalidInput, format!("it cannot be used at {baud} baud: {error}")),
        ErrorKind::Io(kind) => (kind, error.to_string()),
        ErrorKind::Unknown => (Io::Other, error.to_string()),
    };
    Error::Io(kind, why)
}

#[cfg(unix)]
fn is_no_port(path: &str) -> bool {
    use std::io::IsTerminal;
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    if std::fs::metadata(path).is_ok_and(|facts| !facts.file_type().is_char_device()) {
        return true;
    }
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits() as i32;
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    opened.is_ok_and(|device| !device.is_terminal())
}

#[cfg(not(unix))]
fn is_no_port(_: &str) -> bool {
    false
}

/// Ports belong to a group on most systems, and users do not.
#[cfg(unix)]
fn not_permitted(path: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    const OF_GROUP: u32 = 0o060;
    // Nobody is told to join the administrator's.
    let is_for_group = |facts: &std::fs::Metadata| facts.mode() & OF_GROUP == OF_GROUP && facts.gid() != 0;
    let group = std::fs::metadata(path).ok().filter(is_for_group).and_then(|facts| {
        let groups = std::fs::read_to_string("/etc/group").ok()?;
        group_name(&groups, facts.gid()).map(str::to_owned)
    });
    match group {
        Some(group) => format!(
            "this user may not use it, the group {group} may; to join it: sudo usermod -aG {group} $USER, and log in again"
        ),
        None => "this user may not use it".to_owned(),
    }
}

#[cfg(not(unix))]
fn not_permitted(_: &str) -> String {
    "this user may not use it".to_owned()
}

/// The name of a group in the text of `/etc/group`.
#[cfg(unix)]
fn group_name(groups: &str, id: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(id)).then_some(name)
    })
}

/// A serial port of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SerialPortInfo {
    /// What it is opened by, such as `/dev/ttyACM0`.
    pub name: String,
    /// What is plugged in, if it is on USB.
    pub usb: Option<UsbInfo>,
}

/// What a device on USB says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsbInfo {
    /// Who has made it.
    pub vendor: u16,
    /// What it is, by its vendor's number.
    pub product: u16,
    /// Which of those it is.
    pub serial: Option<String>,
    /// The vendor's name.
    pub vendor_name: Option<String>,
    /// Its name.
    pub product_name: Option<String>,
}

/// The serial ports of this machine, by name.
///
/// # Errors
/// [`Error::Io`] if the system does not tell.
pub fn serial_ports() -> Result<Vec<SerialPortInfo>, Error> {
    // The library would panic without it.
    if cfg!(target_os = "linux") && !std::path::Path::new("/sys/class/tty").is_dir() {
        return Ok(Vec::new());
    }
    let found = tokio_serial::available_ports();
    let found = found.map_err(|error| Error::Io(io::ErrorKind::Other, format!("cannot list serial ports: {error}")))?;
    let mut ports: Vec<_> = found
        .into_iter()
        .map(|port| {
            let usb = match port.port_type {
                SerialPortType::UsbPort(usb) => Some(UsbInfo {
                    vendor: usb.vid,
                    product: usb.pid,
                    serial: usb.serial_number,
                    vendor_name: usb.manufacturer,
                    product_name: usb.product,
                }),
                _ => None,
            };
            SerialPortInfo { name: port.port_name, usb }
        })
        .collect();
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(ports)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn groups_have_names() {
        let groups = "root:x:0:\n# a comment\ndialout:x:20:ada,bob\n";
        assert_eq!(group_name(groups, 20), Some("dialout"));
        assert_eq!(group_name(groups, 0), Some("root"));
        assert_eq!(group_name(groups, 2), None);
    }

    #[test]
    fn ports_are_listed() {
        let ports = serial_ports().expect("the system tells");
        assert!(ports.is_sorted_by(|a, b| a.name < b.name), "{ports:?}");
    }
}
