//! What an `ssh://` URL names.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// A program on another machine: `ssh://[user@]host[:port]/[command]`.
///
/// All behind the first slash is the command, `farref serve --stdio` if there is nothing. It is percent-decoded and given
/// to the login shell of the user there, as with `ssh host command`, so that it may be a whole line of shell. The host may be
/// a name of one's `~/.ssh/config`; an IPv6 address stands in brackets.
///
/// ```
/// let target: farref_pipe::SshTarget = "ssh://pi@kitchen:2222/farref serve --stdio --root /srv".parse()?;
/// assert_eq!((target.user(), target.host(), target.port()), (Some("pi"), "kitchen", Some(2222)));
/// assert_eq!(target.command(), "farref serve --stdio --root /srv");
/// assert_eq!(target.to_string(), "ssh://pi@kitchen:2222/farref%20serve%20--stdio%20--root%20/srv");
/// # Ok::<(), farref_pipe::SshTargetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTarget {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    command: Option<String>,
}

impl SshTarget {
    /// What is run on the other side unless the URL says something else: the files below the login's folder, read only.
    pub const DEFAULT_COMMAND: &str = "farref serve --stdio";

    /// Whom to log in as, if it is said.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, if it is said.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// What is run there.
    pub fn command(&self) -> &str {
        self.command.as_deref().unwrap_or(Self::DEFAULT_COMMAND)
    }

    /// The same, with a command to run if the URL does not say one.
    #[must_use]
    pub fn or_command(self, command: impl Into<String>) -> Self {
        Self { command: self.command.or_else(|| Some(command.into())), ..self }
    }

    /// `[user@]host[:port]`.
    pub(super) fn place(&self) -> String {
        let mut place = String::new();
        if let Some(user) = &self.user {
            place.push_str(user);
            place.push('@');
        }
        match self.host.contains(':') {
            true => place.extend(["[", &self.host, "]"]),
            false => place.push_str(&self.host),
        }
        if let Some(port) = self.port {
            place.push_str(&format!(":{port}"));
        }
        place
    }
}

impl FromStr for SshTarget {
    type Err = SshTargetError;

    fn from_str(url: &str) -> Result<Self, SshTargetError> {
        let (scheme, rest) = url.split_once("://").ok_or(SshTargetError::NoSshUrl)?;
        if !scheme.eq_ignore_ascii_case("ssh") {
            return Err(SshTargetError::NoSshUrl);
        }
        let (authority, command) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host_and_port) = match authority.rsplit_once('@') {
            Some((user, rest)) => (Some(checked_user(user)?), rest),
            None => (None, authority),
        };
        let (host, port) = split_port(host_and_port)?;
        let command = decoded(command, "command")?;
        if command.contains('\0') {
            return Err(SshTargetError::NulInCommand);
        }
        let command = (!command.trim().is_empty()).then_some(command);
        Ok(Self { user, host: checked_host(host)?, port, command })
    }
}

impl fmt::Display for SshTarget {
    /// The URL, which parses back to the same target.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(out, "{}@", utf8_percent_encode(user, RESERVED))?;
        }
        match self.host.contains(':') {
            true => write!(out, "[{}]", utf8_percent_encode(&self.host, RESERVED_IN_ADDRESS))?,
            false => write!(out, "{}", utf8_percent_encode(&self.host, RESERVED))?,
        }
        if let Some(port) = self.port {
            write!(out, ":{port}")?;
        }
        match &self.command {
            Some(command) => write!(out, "/{}", utf8_percent_encode(command, RESERVED_IN_PATH)),
            None => Ok(()),
        }
    }
}

/// What may not stand in the path of a URL as it is (RFC 3986, section 3.3).
const RESERVED_IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// And not in a user or host either.
const RESERVED: &AsciiSet = &RESERVED_IN_PATH.add(b'/').add(b':').add(b'@');
/// An address has colons.
const RESERVED_IN_ADDRESS: &AsciiSet = &RESERVED.remove(b':');

/// Why a text names nothing that can be reached by ssh. None repeats more of the text than it is about: a URL may hold a
/// password.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SshTargetError {
    /// It does not begin with `ssh://`.
    NoSshUrl,
    /// There is no host in it.
    NoHost,
    /// The host is not what a host can be.
    BadHost(String),
    /// An IPv6 address without brackets, or with half of them.
    NoBrackets(String),
    /// The port is no number from 1 to 65535.
    BadPort(String),
    /// The user is not what a user can be.
    BadUser(String),
    /// There is a password in it; ssh takes none.
    Password,
    /// Two digits that are hexadecimal have to follow each `%`, and to be UTF-8 in the end.
    BadEscape(&'static str),
    /// No operating system passes a NUL to a program.
    NulInCommand,
}

impl fmt::Display for SshTargetError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSshUrl => out.write_str("an ssh URL is ssh://[user@]host[:port]/[command]"),
            Self::NoHost => out.write_str("the ssh URL names no host; it is ssh://[user@]host[:port]/[command]"),
            Self::BadHost(host) => write!(out, "{host:?} in the ssh URL is no host name and no address"),
            Self::NoBrackets(host) => {
                write!(out, "{host:?} in the ssh URL: an IPv6 address stands in brackets, as in ssh://[::1]:22/")
            }
            Self::BadPort(port) => write!(out, "{port:?} in the ssh URL is no port; one is a number from 1 to 65535"),
            Self::BadUser(user) => write!(out, "{user:?} in the ssh URL is no name of a user"),
            Self::Password => {
                out.write_str("the ssh URL has a password, which ssh does not take; let it ask, or use keys")
            }
            Self::BadEscape(part) => {
                write!(out, "the {part} of the ssh URL has a % that does not begin an escape; the sign itself is %25")
            }
            Self::NulInCommand => out.write_str("the command of the ssh URL has a NUL byte"),
        }
    }
}

impl std::error::Error for SshTargetError {}

fn decoded(text: &str, part: &'static str) -> Result<String, SshTargetError> {
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|digit| digit.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_escape) {
        return Err(SshTargetError::BadEscape(part));
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| SshTargetError::BadEscape(part))?;
    Ok(decoded.into_owned())
}

/// The host, brackets and all, and the port.
fn split_port(text: &str) -> Result<(&str, Option<u16>), SshTargetError> {
    let (host, port) = match text.rfind(']') {
        Some(end) => match text.split_at(end + 1) {
            (host, "") => (host, None),
            (host, rest) => {
                (host, Some(rest.strip_prefix(':').ok_or_else(|| SshTargetError::BadHost(text.to_owned()))?))
            }
        },
        None => match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => return Err(SshTargetError::NoBrackets(text.to_owned())),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    // RFC 3986 allows a colon with nothing behind it.
    let port = port.filter(|port| !port.is_empty()).map(|port| {
        let is_number = port.bytes().all(|digit| digit.is_ascii_digit());
        let number = port.parse().ok().filter(|&number: &u16| is_number && number > 0);
        number.ok_or_else(|| SshTargetError::BadPort(port.to_owned()))
    });
    Ok((host, port.transpose()?))
}

/// Only what a host or an address is made of, whatever `ssh` and the commands of its configuration might make of more.
fn checked_host(text: &str) -> Result<String, SshTargetError> {
    if text.is_empty() {
        return Err(SshTargetError::NoHost);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let address = rest.strip_suffix(']').ok_or_else(|| SshTargetError::NoBrackets(text.to_owned()))?;
        let address = decoded(address, "host")?;
        let (digits, zone) = address.split_once('%').unwrap_or((&address, "0"));
        let is_zone = !zone.is_empty() && zone.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        return match digits.parse::<std::net::Ipv6Addr>() {
            Ok(_) if is_zone => Ok(address),
            _ => Err(SshTargetError::BadHost(address)),
        };
    }
    let host = decoded(text, "host")?;
    let fits = host.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
    // One that begins with a dash would be an option of ssh.
    match fits && !host.starts_with('-') {
        true => Ok(host),
        false => Err(SshTargetError::BadHost(host)),
    }
}

/// A user may be called almost anything, but nothing that is more than a word to a shell.
fn checked_user(text: &str) -> Result<String, SshTargetError> {
    if text.contains(':') {
        return Err(SshTargetError::Password);
    }
    let user = decoded(text, "user")?;
    let means_more = |c: char| c.is_whitespace() || c.is_control() || "'\"`;&<>|(){}$*?!#:".contains(c);
    match user.is_empty() || user.starts_with('-') || user.ends_with('\\') || user.contains(means_more) {
        true => Err(SshTargetError::BadUser(user)),
        false => Ok(user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> SshTarget {
        url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn fault(url: &str) -> SshTargetError {
        url.parse::<SshTarget>().expect_err(url)
    }

    #[test]
    fn the_parts_are_found() {
        let all = target("ssh://me@host.example:2222/farref serve --stdio --root /srv");
        assert_eq!((all.user(), all.host(), all.port()), (Some("me"), "host.example", Some(2222)));
        assert_eq!(all.command(), "farref serve --stdio --root /srv");
        for url in ["ssh://host", "SSH://host/", "ssh://host:/", "ssh://host/%20"] {
            let plain = target(url);
            assert_eq!((plain.user(), plain.host(), plain.port()), (None, "host", None), "{url}");
            assert_eq!(plain.command(), SshTarget::DEFAULT_COMMAND);
        }
        let address = target("ssh://[::1]:2222");
        assert_eq!((address.host(), address.port()), ("::1", Some(2222)));
        assert_eq!(target("ssh://[fe80::1%25eth0]").host(), "fe80::1%eth0");
        assert_eq!(target("ssh://me@corp@host").user(), Some("me@corp"));
        assert_eq!(target("ssh://CORP%5Cme@host").user(), Some("CORP\\me"));
    }

    #[test]
    fn the_command_is_all_behind_the_first_slash() {
        for (path, command) in [
            ("/bin/farref serve", "/bin/farref serve"),
            ("cd%20/srv%20%26%26%20ls%3B", "cd /srv && ls;"),
            ("echo 100%25 $HOME?a#b@c:d", "echo 100% $HOME?a#b@c:d"),
            ("-x", "-x"),
            ("gr%C3%BC%C3%9Fe", "grüße"),
        ] {
            assert_eq!(target(&format!("ssh://host/{path}")).command(), command);
        }
    }

    #[test]
    fn it_displays_as_a_url_that_parses_back() {
        for url in [
            "ssh://host",
            "ssh://a%25b@host:1/",
            "ssh://me@corp@[fe80::1%25eth0]:22/x",
            "ssh://host//bin/sh -c 'echo \"100%25\" | cat; [ -e ? ] # é'",
        ] {
            let target = target(url);
            let shown = target.to_string();
            assert_eq!(shown.parse(), Ok(target), "{shown}");
            assert!(shown.bytes().all(|byte| byte.is_ascii_graphic()), "{shown}");
        }
    }

    #[test]
    fn what_would_be_an_option_of_ssh_or_more_than_a_word_is_refused() {
        use SshTargetError::{BadHost, BadUser};
        for host in
            ["-oProxyCommand=x", "%2DoProxyCommand", "a b", "a;b", "$(x)", "a%00b", "a`b`", "[a]", "[-1]", "x[::1]"]
        {
            assert!(matches!(fault(&format!("ssh://{host}/x")), BadHost(_)), "{host}");
        }
        for user in ["", "-l", "%2Dl", "a b", "a%0Ab", "$(x)", "a;b", "a\\"] {
            assert!(matches!(fault(&format!("ssh://{user}@host/x")), BadUser(_)), "{user}");
        }
    }

    #[test]
    fn faults_are_named_and_passwords_are_not() {
        use SshTargetError::{BadEscape, BadPort, NoBrackets, NoHost, NoSshUrl, NulInCommand, Password};
        for url in ["", "ssh:host", "ssh:/host", "http://host"] {
            assert_eq!(fault(url), NoSshUrl, "{url}");
        }
        for url in ["ssh://", "ssh:///command", "ssh://me@/x", "ssh://:22/x"] {
            assert_eq!(fault(url), NoHost, "{url}");
        }
        for port in ["0", "65536", "x", "+1", "22x"] {
            assert_eq!(fault(&format!("ssh://host:{port}/x")), BadPort(port.into()));
        }
        assert_eq!(fault("ssh://::1/x"), NoBrackets("::1".into()));
        assert_eq!(fault("ssh://[::1/x"), NoBrackets("[::1".into()));
        assert_eq!(fault("ssh://me:hunter2@host/x"), Password);
        assert!(!fault("ssh://me:hunter2@host/x").to_string().contains("hunter2"));
        for path in ["%", "a%2", "%zz", "%C3", "%é1"] {
            assert_eq!(fault(&format!("ssh://host/{path}")), BadEscape("command"), "{path}");
        }
        assert_eq!(fault("ssh://host/a%00b"), NulInCommand);
        for url in ["", "ssh://", "ssh://a\nb/", "ssh://host:\n/", "ssh://::\n/"] {
            assert!(!fault(url).to_string().contains('\n'), "{url:?}");
        }
    }
}
