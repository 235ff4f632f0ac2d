//! Keys and certificates: the options, the files, and `farref key`.

use std::env;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use farref_tokio::{Authorities, Identity, Key, TlsClient, TlsError};

use crate::exit::{Exit, Failure, written};
use crate::url::{PeerUrl, SocketUrl};

/// How a client shows who it is, and makes sure of the peer.
#[derive(Args, Debug)]
#[command(next_help_heading = "Security, for tcp:, tls: and unix: URLs")]
pub struct SecurityArgs {
    /// The file with the key that the peer has to know as well [env: FARREF_KEY_FILE]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    key: Option<PathBuf>,
    /// Trust servers with a certificate from the authorities in this PEM file, and no others
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    ca: Option<PathBuf>,
    /// Our certificate, for servers that ask for one (PEM, with those between it and its authority)
    #[arg(long, value_name = "FILE", requires = "cert_key", value_hint = ValueHint::FilePath)]
    cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert", value_hint = ValueHint::FilePath)]
    cert_key: Option<PathBuf>,
}

impl SecurityArgs {
    /// An error if an option was given that could not be heeded.
    pub fn check_for(&self, url: &PeerUrl) -> Result<(), Failure> {
        let is_tls = matches!(url, PeerUrl::Socket(SocketUrl::Tls(_)));
        let has_key = matches!(url, PeerUrl::Socket(place) if !matches!(place, SocketUrl::Serial(_)));
        if self.key.is_some() && !has_key {
            return Err(Failure::usage("--key is for tcp:, tls: and unix: URLs"));
        }
        if (self.ca.is_some() || self.cert.is_some()) && !is_tls {
            return Err(Failure::usage("--ca and --cert are for tls: URLs"));
        }
        Ok(())
    }

    /// The key, if one is to be used.
    pub fn key(&self) -> Result<Option<Key>, Failure> {
        key(self.key.as_deref())
    }

    /// How a server is reached by TLS.
    pub fn tls(&self) -> Result<TlsClient, Failure> {
        let authorities = self.ca.as_ref().map_or_else(Authorities::of_system, Authorities::from_file);
        let identity = match (&self.cert, &self.cert_key) {
            (Some(chain), Some(key)) => Some(identity(chain, key)?),
            _ => None,
        };
        TlsClient::new(&authorities.map_err(unusable)?, identity.as_ref()).map_err(unusable)
    }
}

/// The key of a file, or of the file that the environment names.
pub fn key(file: Option<&Path>) -> Result<Option<Key>, Failure> {
    /// Enough for the longest key and much white space.
    const LONGEST: u64 = 4096;
    let from_environment = env::var_os("FARREF_KEY_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let Some(path) = file.or(from_environment.as_deref()) else { return Ok(None) };
    let cannot = |error: io::Error| Failure::usage(format!("cannot read the key {}: {error}", path.display()));
    let file = File::open(path).map_err(cannot)?;
    warn_of_readers(path, &file);
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).map_err(cannot)?;
    // What is not UTF-8 is not hexadecimal either, which is what the error then says.
    let key = Key::from_text(&String::from_utf8_lossy(&text));
    key.map(Some).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// A certificate and its private key.
pub fn identity(chain: &Path, key: &Path) -> Result<Identity, Failure> {
    if let Ok(file) = File::open(key) {
        warn_of_readers(key, &file);
    }
    Identity::from_files(chain, key).map_err(unusable)
}

/// That TLS cannot be had like this.
pub fn unusable(error: TlsError) -> Failure {
    Failure::usage(error)
}

/// A key that others can read is none, sooner or later.
fn warn_of_readers(path: &Path, file: &File) {
    let is_open = |facts: Metadata| facts.is_file() && facts.permissions().mode() & 0o077 != 0;
    if file.metadata().is_ok_and(is_open) {
        let path = path.display();
        let _ = writeln!(io::stderr(), "farref: warning: others may read {path}; make it yours with: chmod 600 {path}");
    }
}

/// Where a new key goes.
#[derive(Args, Debug)]
#[command(after_help = crate::exit::EXIT_CODES)]
pub struct KeyArgs {
    /// A file that is not there yet; standard output if none is named
    #[arg(value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
}

/// Draws a key and writes it: `farref key`.
pub fn write_new_key(args: &KeyArgs) -> Result<(), Failure> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| Failure::new(Exit::Local, format!("no randomness: {error}")))?;
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.push('\n');
    let Some(path) = &args.file else { return written(io::stdout().write_all(text.as_bytes())) };
    let cannot = |error: io::Error| Failure::new(Exit::Local, format!("cannot write {}: {error}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        // Half a key is of use to nobody.
        let _ = std::fs::remove_file(path);
        cannot(error)
    })
}
