//! Standard input and output as a channel, and channels made of two functions.

use std::io::{self, Read, Write};

/// Takes standard input and output for the protocol alone.
///
/// From now on whatever prints to standard output, in this program or in a C library that it calls, prints to standard
/// error, and whoever reads standard input finds it empty: neither can disturb the protocol.
#[cfg(unix)]
pub fn take_stdio() -> io::Result<(std::fs::File, std::fs::File)> {
    use std::fs::File;

    use rustix::io::fcntl_dupfd_cloexec;
    use rustix::stdio;

    // What was printed before belongs to a banner.
    io::stdout().flush()?;
    let input = File::from(fcntl_dupfd_cloexec(stdio::stdin(), 3)?);
    let output = File::from(fcntl_dupfd_cloexec(stdio::stdout(), 3)?);
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    stdio::dup2_stdin(&nothing)?;
    // Without a standard error, stray output goes nowhere.
    stdio::dup2_stdout(stdio::stderr()).or_else(|_| stdio::dup2_stdout(&nothing))?;
    Ok((input, output))
}

/// A [`Read`] made of a function that receives bytes: half of a channel of one's own (feature A9).
///
/// ```
/// use std::sync::mpsc;
/// use farref_pipe::{Connection, Directory, Options, ReadFn, Remote, WriteFn};
///
/// /// Two functions for one end of a channel: receive bytes, send bytes.
/// fn end(from: mpsc::Receiver<Vec<u8>>, to: mpsc::Sender<Vec<u8>>) -> (impl std::io::Read + Send, impl std::io::Write + Send) {
///     let mut left = Vec::new();
///     let receive = move |buffer: &mut [u8]| {
///         if left.is_empty() {
///             left = from.recv().unwrap_or_default();
///         }
///         let count = left.len().min(buffer.len());
///         buffer[..count].copy_from_slice(&left[..count]);
///         left.drain(..count);
///         Ok(count)
///     };
///     let send = move |bytes: &[u8]| to.send(bytes.to_vec()).map_err(std::io::Error::other);
///     (ReadFn(receive), WriteFn(send))
/// }
///
/// let ((to_server, from_client), (to_client, from_server)) = (mpsc::channel(), mpsc::channel());
/// let (read, write) = end(from_client, to_client);
/// let directory = Directory::new().with("one", "is 1", farref_pipe::Function::new(|_| Ok(1.into())));
/// std::thread::spawn(move || farref_pipe::open(read, write, directory, Options::default()).map(|server| server.wait_closed()));
/// let (read, write) = end(from_server, to_server);
/// let client = farref_pipe::open(read, write, Directory::new(), Options::default())?;
/// assert_eq!(client.root().invoke("one", ())?.as_int(), Some(1));
/// # Ok::<(), farref_pipe::Error>(())
/// ```
pub struct ReadFn<F>(
    /// Receives bytes into the buffer and tells how many; 0 at the end.
    pub F,
);

impl<F: FnMut(&mut [u8]) -> io::Result<usize>> Read for ReadFn<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.0)(buffer)
    }
}

/// A [`Write`] made of a function that sends bytes: the other half.
pub struct WriteFn<F>(
    /// Sends all the bytes.
    pub F,
);

impl<F: FnMut(&[u8]) -> io::Result<()>> Write for WriteFn<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
