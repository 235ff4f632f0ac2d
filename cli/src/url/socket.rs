//! `tcp:`, `tls:` and `unix:` URLs, and with them `serial:`.

use std::fmt;
use std::path::PathBuf;

use super::SerialUrl;

/// Where a socket is, or a serial port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketUrl {
    /// A plain connection.
    Tcp(Place),
    /// An encrypted one.
    Tls(Place),
    /// A socket in the file system.
    Unix(PathBuf),
    /// A serial port.
    Serial(SerialUrl),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The port where no other is told.
pub const DEFAULT_PORT: u16 = 10101;

/// The host where none is told: nobody else can connect to it.
const DEFAULT_HOST: &str = "127.0.0.1";

impl SocketUrl {
    /// What follows the colon of such a scheme; None if it is not one of them. The fault is told without the rest of the URL,
    /// which may hold a password.
    pub fn parse(scheme: &str, rest: &str) -> Option<Result<Self, &'static str>> {
        Some(match scheme {
            "tcp" => Place::parse(rest).map(Self::Tcp),
            "tls" => Place::parse(rest).map(Self::Tls),
            "unix" => path(rest).map(Self::Unix),
            "serial" => SerialUrl::parse(rest).map(Self::Serial),
            _ => return None,
        })
    }
}

impl Place {
    fn parse(rest: &str) -> Result<Self, &'static str> {
        let authority = rest.strip_prefix("//").ok_or("two slashes belong behind the colon")?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains('@') {
            return Err("there is no place for a user");
        }
        if authority.contains(['/', '?', '#']) {
            return Err("nothing can stand behind the host and its port");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, behind) = rest.split_once(']').ok_or("a bracket is not closed")?;
                match behind.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if behind.is_empty() => (host, None),
                    None => return Err("something else than a port stands behind the bracket"),
                }
            }
            None => match authority.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err("an IPv6 address stands in brackets"),
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("no host has a name with spaces");
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) if port.bytes().all(|digit| digit.is_ascii_digit()) => {
                port.parse().map_err(|_| "the port is no number up to 65,535")?
            }
            Some(_) => return Err("the port is no number up to 65,535"),
        };
        let host = if host.is_empty() { DEFAULT_HOST } else { host };
        Ok(Self { host: host.to_owned(), port })
    }
}

/// `unix:/path`, and as others write it, `unix:///path`.
fn path(rest: &str) -> Result<PathBuf, &'static str> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    match path {
        "" => Err("a path belongs behind the colon"),
        _ if path.contains('\0') => Err("a path has no NUL byte"),
        _ => Ok(path.into()),
    }
}

impl fmt::Display for SocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(place) => write!(f, "tcp://{place}"),
            Self::Tls(place) => write!(f, "tls://{place}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Serial(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(scheme: &str, rest: &str) -> String {
        let url = SocketUrl::parse(scheme, rest).expect("a socket").unwrap_or_else(|why| panic!("{rest}: {why}"));
        let shown = url.to_string();
        let again = shown.split_once(':').expect("a scheme").1;
        assert_eq!(SocketUrl::parse(scheme, again), Some(Ok(url)), "it parses back");
        shown
    }

    #[test]
    fn hosts_and_ports_have_defaults() {
        for (rest, expected) in [
            ("//pi.example:7", "pi.example:7"),
            ("//pi", "pi:10101"),
            ("//pi/", "pi:10101"),
            ("//[::1]", "[::1]:10101"),
            ("//[fe80::1%eth0]:0", "[fe80::1%eth0]:0"),
            ("//0.0.0.0:65535", "0.0.0.0:65535"),
            ("//:80", "127.0.0.1:80"),
            ("//", "127.0.0.1:10101"),
        ] {
            assert_eq!(shown("tcp", rest), format!("tcp://{expected}"));
            assert_eq!(shown("tls", rest), format!("tls://{expected}"));
        }
    }

    #[test]
    fn paths_are_taken_as_they_are() {
        assert_eq!(shown("unix", "/run/farref"), "unix:/run/farref");
        assert_eq!(shown("unix", "///run/farref"), "unix:/run/farref");
        assert_eq!(shown("unix", "a b%20c"), "unix:a b%20c");
    }

    #[test]
    fn faults_are_told() {
        for (rest, why) in [
            ("pi", "two slashes"),
            ("/pi", "two slashes"),
            ("//me:secret@pi", "no place for a user"),
            ("//pi/path", "nothing can stand behind"),
            ("//pi?x", "nothing can stand behind"),
            ("//::1", "stands in brackets"),
            ("//[::1", "not closed"),
            ("//[::1]7", "behind the bracket"),
            ("//pi:", "the port"),
            ("//pi:+7", "the port"),
            ("//pi:65536", "the port"),
            ("//p i", "spaces"),
        ] {
            let fault = SocketUrl::parse("tcp", rest).expect("a socket").expect_err(rest);
            assert!(fault.contains(why), "{rest}: {fault}");
        }
        assert!(SocketUrl::parse("unix", "").is_some_and(|url| url.is_err()));
        assert!(SocketUrl::parse("unix", "a\0b").is_some_and(|url| url.is_err()));
        assert_eq!(SocketUrl::parse("ssh", "//pi"), None);
    }
}
