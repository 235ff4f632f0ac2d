//! The URLs that name peers, such as `ssh://user@host` or `pipe:farref serve --stdio --root .`.

mod serial;
mod socket;

pub use serial::SerialUrl;
pub use socket::{Place, SocketUrl};

use std::fmt;
use std::str::FromStr;

use farref_pipe::{SshTarget, SshTargetError};

/// Where a peer is and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerUrl {
    /// A program to start, which speaks on its standard input and output.
    Pipe(PipeCommand),
    /// A program on another machine, reached by ssh.
    Ssh(SshTarget),
    /// A server that listens, or whatever is at the other end of a serial port.
    Socket(SocketUrl),
}

/// A program and its arguments, already split into words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipeCommand {
    /// The program, looked up as the operating system does.
    pub program: String,
    /// Its arguments, exactly as it will get them.
    pub args: Vec<String>,
}

impl FromStr for PeerUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        if url.trim().is_empty() {
            return Err(UrlError::Empty);
        }
        let (scheme, rest) = split_scheme(url).ok_or_else(|| UrlError::MissingScheme { url: url.to_owned() })?;
        let scheme = scheme.to_ascii_lowercase();
        match scheme.as_str() {
            "pipe" => rest.parse().map(Self::Pipe),
            "ssh" => url.parse().map(Self::Ssh).map_err(UrlError::Ssh),
            _ => match SocketUrl::parse(&scheme, rest) {
                Some(Ok(url)) => Ok(Self::Socket(url)),
                Some(Err(fault)) => Err(UrlError::Socket { scheme, fault }),
                // Only the scheme is kept: the rest of such a URL may hold a password.
                None => Err(UrlError::UnknownScheme { scheme }),
            },
        }
    }
}

impl FromStr for PipeCommand {
    type Err = UrlError;

    /// Splits `command` as a shell does (quotes, backslashes), without a shell: `$`, `*`, `|`, `;`
    /// and the like mean nothing.
    fn from_str(command: &str) -> Result<Self, UrlError> {
        if command.contains('\0') {
            return Err(UrlError::NulInCommand);
        }
        let words =
            shell_words::split(command).map_err(|_| UrlError::UnclosedQuote { command: command.trim().to_owned() })?;
        let mut words = words.into_iter();
        match words.next() {
            Some(program) if !program.is_empty() => Ok(Self { program, args: words.collect() }),
            _ => Err(UrlError::EmptyCommand),
        }
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipe(command) => write!(f, "pipe:{command}"),
            Self::Ssh(target) => target.fmt(f),
            Self::Socket(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for PipeCommand {
    /// The command with the quotes it needs, so that it parses back to the same words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shell_words::quote(&self.program))?;
        for arg in &self.args {
            write!(f, " {}", shell_words::quote(arg))?;
        }
        Ok(())
    }
}

/// Why a text is no URL of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// Nothing there.
    Empty,
    /// `pipe:` without a program.
    EmptyCommand,
    /// No `scheme:` in front.
    MissingScheme {
        /// The text.
        url: String,
    },
    /// No operating system passes a NUL to a program.
    NulInCommand,
    /// No place of a socket, or no serial port.
    Socket {
        /// The scheme.
        scheme: String,
        /// What is wrong with the rest.
        fault: &'static str,
    },
    /// What is wrong with an `ssh:` URL.
    Ssh(SshTargetError),
    /// A quote that opens and does not close.
    UnclosedQuote {
        /// The command.
        command: String,
    },
    /// A scheme that means nothing to us.
    UnknownScheme {
        /// The scheme.
        scheme: String,
    },
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EXAMPLE: &str = "\"pipe:farref serve --stdio --root .\"";
        match self {
            Self::Empty => write!(f, "the peer URL is empty; an example is {EXAMPLE}"),
            Self::EmptyCommand => {
                write!(f, "pipe: needs a program to start; an example is {EXAMPLE}")
            }
            Self::MissingScheme { url } => {
                write!(f, "{url:?} has no scheme; to start a program write {:?}", format!("pipe:{url}"))
            }
            Self::NulInCommand => f.write_str("the command of the pipe: URL has a NUL byte"),
            Self::Socket { scheme, fault } => {
                let example = match scheme.as_str() {
                    "unix" => "unix:/run/farref",
                    "serial" => "serial:/dev/ttyACM0?baud=115200",
                    _ => "tcp://localhost:10101",
                };
                write!(f, "no {scheme}: URL, {fault}; an example is {example}")
            }
            Self::Ssh(fault) => fault.fmt(f),
            Self::UnclosedQuote { command } => {
                write!(f, "the command of the pipe: URL has a quote that is not closed: {command}")
            }
            Self::UnknownScheme { scheme } => {
                write!(f, "unknown scheme {scheme}: in the peer URL; an example is {EXAMPLE}")
            }
        }
    }
}

impl std::error::Error for UrlError {}

/// The scheme and what follows its colon (RFC 3986, section 3.1).
fn split_scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let starts_with_letter = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    (starts_with_letter && scheme.chars().all(is_part)).then_some((scheme, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(url: &str) -> Vec<String> {
        let PeerUrl::Pipe(command) = url.parse().unwrap() else { panic!("no pipe: {url}") };
        [vec![command.program], command.args].concat()
    }

    fn fault(url: &str) -> String {
        url.parse::<PeerUrl>().unwrap_err().to_string()
    }

    #[test]
    fn words_are_split_as_a_shell_does() {
        assert_eq!(words("pipe:a b  c\td"), ["a", "b", "c", "d"]);
        assert_eq!(words("pipe: a"), ["a"]);
        assert_eq!(words("PIPE:a"), ["a"]);
        assert_eq!(words("pipe:'a b' \"c d\" e\\ f ''"), ["a b", "c d", "e f", ""]);
        assert_eq!(words("pipe:a'b'\"c\"d"), ["abcd"]);
        assert_eq!(words("pipe:C:/x --at=a:b"), ["C:/x", "--at=a:b"]);
    }

    #[test]
    fn nothing_is_expanded() {
        let line = "pipe:echo $HOME ~ * | a; b && c > d `e` \"$f\"";
        let expected = ["echo", "$HOME", "~", "*", "|", "a;", "b", "&&", "c", ">", "d", "`e`", "$f"];
        assert_eq!(words(line), expected);
    }

    #[test]
    fn displays_as_a_url_that_parses_back() {
        let url: PeerUrl = "pipe:'a b' '' it\\'s $x \"line\nbreak\" '#no comment'".parse().unwrap();
        assert_eq!(url.to_string().parse::<PeerUrl>().unwrap(), url);
    }

    #[test]
    fn faults_of_the_command_are_named() {
        for url in ["pipe:", "pipe:  ", "pipe:''", "pipe:# a comment"] {
            assert_eq!(url.parse::<PeerUrl>(), Err(UrlError::EmptyCommand), "{url}");
        }
        for url in ["pipe:a 'b", "pipe:a \"b", "pipe:\"", "pipe:a \"b\\\""] {
            assert!(fault(url).contains("quote that is not closed"), "{url}");
        }
        assert_eq!("pipe:a\0b".parse::<PeerUrl>(), Err(UrlError::NulInCommand));
    }

    #[test]
    fn sockets_have_urls() {
        for url in ["tcp://host:7", "TLS://host:7", "unix:/run/x", "serial:/dev/ttyACM0?baud=9600"] {
            let parsed: PeerUrl = url.parse().unwrap();
            assert!(matches!(parsed, PeerUrl::Socket(_)), "{url}");
            assert!(parsed.to_string().eq_ignore_ascii_case(url), "{parsed}");
        }
        let message = fault("tcp://user:hunter2@host");
        assert!(message.contains("no place for a user") && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn ssh_urls_name_a_command_on_a_host() {
        let url: PeerUrl = "ssh://me@host:2222/farref serve --stdio".parse().unwrap();
        let PeerUrl::Ssh(target) = &url else { panic!("{url}") };
        assert_eq!((target.host(), target.command()), ("host", "farref serve --stdio"));
        assert_eq!(url.to_string().parse::<PeerUrl>().unwrap(), url);
        assert!(fault("ssh:host").starts_with("an ssh URL is ssh://"));
        assert!(!fault("ssh://me:hunter2@host").contains("hunter2"));
    }

    #[test]
    fn missing_and_unknown_schemes_come_with_an_example() {
        assert!(fault("").contains("pipe:farref serve"));
        assert!(fault("  ").contains("pipe:farref serve"));
        assert_eq!(
            fault("farref serve"),
            r#""farref serve" has no scheme; to start a program write "pipe:farref serve""#
        );
        for url in ["/bin/a:b", ":a", "1a:b", "a b:c", "é:a"] {
            assert!(fault(url).contains("has no scheme"), "{url}");
        }
        assert!(fault("localhost:10101").starts_with("unknown scheme localhost:"));
        assert!(fault("gopher://x").contains("pipe:farref serve"));
    }

    #[test]
    fn faults_are_one_line_for_plain_input() {
        for url in ["", "x", "pipe:", "pipe:'", "ssh:", "ssh://", "tcp:", "serial:", "zzz:"] {
            assert!(!fault(url).contains('\n'), "{url}");
        }
    }
}
