//! `farref ports`: the serial ports of this machine.

use std::io::{self, Write};

use farref_tokio::SerialPortInfo;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use crate::args::PortsArgs;
use crate::exit::{Exit, Failure, written};
use crate::visible::visible;

/// Lists them.
pub fn run(args: &PortsArgs) -> Result<(), Failure> {
    let ports = farref_tokio::serial_ports().map_err(|error| Failure::new(Exit::Local, error.to_string()))?;
    if ports.is_empty() && !args.json {
        let _ = writeln!(io::stderr(), "farref: no serial port is plugged in");
    }
    let text = if args.json { format!("{}\n", json(&ports)) } else { lines(&ports) };
    written(io::stdout().write_all(text.as_bytes()))
}

/// One line for each port: its name, and in columns of their own what is plugged in, as `lsusb` numbers it, and its names.
fn lines(ports: &[SerialPortInfo]) -> String {
    let names: Vec<_> = ports.iter().map(|port| visible(&port.name)).collect();
    let column = names.iter().map(|name| name.width()).max().unwrap_or(0);
    let mut lines = String::new();
    for (name, port) in names.iter().zip(ports) {
        lines.push_str(name);
        if let Some(usb) = &port.usb {
            let gap = " ".repeat(column - name.width() + 2);
            lines.push_str(&format!("{gap}{:04x}:{:04x}", usb.vendor, usb.product));
            // Many devices have the vendor's name in theirs.
            let product = usb.product_name.as_deref().unwrap_or_default();
            let vendor = usb.vendor_name.as_deref().filter(|vendor| !product.contains(vendor)).unwrap_or_default();
            let called = [vendor, product].join(" ");
            let serial = usb.serial.as_ref().map(|serial| format!("serial {serial}"));
            for part in [Some(called.trim().to_owned()), serial].into_iter().flatten().filter(|part| !part.is_empty()) {
                lines.push_str(&format!("  {}", visible(&part)));
            }
        }
        lines.push('\n');
    }
    lines
}

fn json(ports: &[SerialPortInfo]) -> Value {
    let port = |port: &SerialPortInfo| {
        let usb = port.usb.as_ref().map(|usb| {
            json!({
                "vendor": format!("{:04x}", usb.vendor),
                "product": format!("{:04x}", usb.product),
                "serial": usb.serial,
                "vendor_name": usb.vendor_name,
                "product_name": usb.product_name,
            })
        });
        json!({ "name": port.name, "usb": usb })
    };
    ports.iter().map(port).collect()
}

#[cfg(test)]
mod tests {
    use farref_tokio::UsbInfo;

    use super::*;

    fn ports() -> Vec<SerialPortInfo> {
        let port = |name: &str, usb| {
            let mut port = SerialPortInfo::default();
            (port.name, port.usb) = (name.to_owned(), usb);
            port
        };
        let mut pico = UsbInfo::default();
        (pico.vendor, pico.product) = (0x2e8a, 0x000a);
        (pico.serial, pico.vendor_name) = (Some("E66141".into()), Some("Raspberry Pi".into()));
        pico.product_name = Some("Pico\u{1b}[2J".into());
        let mut bare = UsbInfo::default();
        (bare.vendor, bare.product) = (0x1a86, 0x7523);
        vec![port("/dev/ttyACM0", Some(pico)), port("/dev/ttyS0", None), port("/dev/ttyUSB11", Some(bare))]
    }

    #[test]
    fn a_person_sees_what_is_plugged_in() {
        let expected = "/dev/ttyACM0   2e8a:000a  Raspberry Pi Pico\\u{1b}[2J  serial E66141\n\
                        /dev/ttyS0\n\
                        /dev/ttyUSB11  1a86:7523\n";
        assert_eq!(lines(&ports()), expected);
    }

    #[test]
    fn a_script_sees_the_same() {
        let json = json(&ports());
        assert_eq!(json[0]["usb"]["vendor"], "2e8a");
        assert_eq!(json[0]["usb"]["serial"], "E66141");
        assert_eq!(json[1], serde_json::json!({ "name": "/dev/ttyS0", "usb": null }));
        assert_eq!(json[2]["usb"]["product_name"], Value::Null);
    }
}
