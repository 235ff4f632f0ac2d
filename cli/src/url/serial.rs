//! `serial:` URLs.

use std::fmt;

/// A serial port, and how fast it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialUrl {
    /// The port, such as `/dev/ttyACM0`.
    pub path: String,
    /// Bits each second.
    pub baud: u32,
}

/// The speed where none is told.
const DEFAULT_BAUD: u32 = 115_200;

impl SerialUrl {
    /// `serial:/dev/ttyACM0?baud=9600`, and as others write it, `serial:///dev/ttyACM0`.
    pub(super) fn parse(rest: &str) -> Result<Self, &'static str> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = if path.starts_with("///") { &path[2..] } else { path };
        if path.is_empty() {
            return Err("a port belongs behind the colon");
        }
        if path.contains('\0') {
            return Err("a port has no NUL byte");
        }
        let mut baud = DEFAULT_BAUD;
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let Some(("baud", value)) = parameter.split_once('=') else {
                return Err("only ?baud=RATE can stand behind the port");
            };
            let is_number = value.bytes().all(|digit| digit.is_ascii_digit());
            let rate = value.parse().ok().filter(|&rate| is_number && rate > 0);
            baud = rate.ok_or("the baud rate is no number above 0")?;
        }
        Ok(Self { path: path.to_owned(), baud })
    }
}

impl fmt::Display for SerialUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "serial:{}?baud={}", self.path, self.baud)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_a_speed() {
        for (rest, path, baud) in [
            ("/dev/ttyACM0", "/dev/ttyACM0", 115_200),
            ("///dev/ttyACM0?", "/dev/ttyACM0", 115_200),
            ("/dev/serial/by-id/usb-x?baud=9600", "/dev/serial/by-id/usb-x", 9600),
            ("COM3?baud=921600&", "COM3", 921_600),
        ] {
            let url = SerialUrl::parse(rest).unwrap_or_else(|why| panic!("{rest}: {why}"));
            assert_eq!(url, SerialUrl { path: path.into(), baud }, "{rest}");
            let shown = url.to_string();
            assert_eq!(SerialUrl::parse(shown.strip_prefix("serial:").expect("the scheme")), Ok(url), "it parses back");
        }
    }

    #[test]
    fn faults_are_told() {
        for (rest, why) in [
            ("", "a port belongs"),
            ("?baud=9600", "a port belongs"),
            ("a\0b", "NUL"),
            ("/dev/x?speed=1", "only ?baud=RATE"),
            ("/dev/x?9600", "only ?baud=RATE"),
            ("/dev/x?baud=", "the baud rate"),
            ("/dev/x?baud=0", "the baud rate"),
            ("/dev/x?baud=+1", "the baud rate"),
            ("/dev/x?baud=4294967296", "the baud rate"),
        ] {
            let fault = SerialUrl::parse(rest).expect_err(rest);
            assert!(fault.contains(why), "{rest}: {fault}");
        }
    }
}
