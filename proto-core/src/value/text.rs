//! Values as a person reads them.

use core::fmt::{self, Display, Write};

use super::{BigInt, Value, Values};

/// Strings at the top stand bare, inside other values in quotes. The alternate form (`{:#}`) quotes them always.
impl Display for Value<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Str(text) if !out.alternate() => out.write_str(text),
            value => exact(out, value),
        }
    }
}

fn exact(out: &mut fmt::Formatter<'_>, value: Value<'_>) -> fmt::Result {
    match value {
        Value::None => out.write_str("none"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::NotImplemented => out.write_str("not-implemented"),
        Value::Int(value) => write!(out, "{value}"),
        Value::BigInt(value) => write!(out, "{value}"),
        Value::Float(value) => write!(out, "{value:?}"),
        Value::Str(text) => quoted(out, text),
        Value::Bytes(bytes) => {
            out.write_str("b\"")?;
            bytes.escape_ascii().try_for_each(|byte| out.write_char(char::from(byte)))?;
            out.write_char('"')
        }
        Value::Tuple(items) if items.len() == 1 => {
            out.write_char('(')?;
            items.into_iter().try_for_each(|item| exact(out, item))?;
            out.write_str(",)")
        }
        Value::Tuple(items) => all(out, "(", items, ")"),
        Value::List(items) => all(out, "[", items, "]"),
        Value::Set(items) if items.is_empty() => out.write_str("set()"),
        Value::Set(items) => all(out, "{", items, "}"),
        Value::Map(mut entries) => {
            out.write_char('{')?;
            let mut separator = "";
            while let (Some(key), Some(value)) = (entries.next(), entries.next()) {
                out.write_str(separator)?;
                exact(out, key)?;
                out.write_str(": ")?;
                exact(out, value)?;
                separator = ", ";
            }
            out.write_char('}')
        }
        Value::Reference(index) => write!(out, "<reference {index}>"),
        Value::Exception(exception) => {
            out.write_str(exception.name())?;
            all(out, "(", exception.args(), ")")
        }
        Value::Named(named) => {
            write!(out, "{}=", named.name())?;
            exact(out, named.value())
        }
    }
}

fn all(out: &mut fmt::Formatter<'_>, open: &str, items: Values<'_>, close: &str) -> fmt::Result {
    out.write_str(open)?;
    let mut separator = "";
    for item in items {
        out.write_str(separator)?;
        exact(out, item)?;
        separator = ", ";
    }
    out.write_str(close)
}

fn quoted(out: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for character in text.chars() {
        match character {
            '\'' => out.write_char('\'')?,
            _ => character.escape_debug().try_for_each(|character| out.write_char(character))?,
        }
    }
    out.write_char('"')
}

/// In hexadecimal: exact at any length without memory for the conversion.
impl Display for BigInt<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.negative { "-0x" } else { "0x" })?;
        let mut bytes = self.magnitude.iter().rev();
        if let Some(first) = bytes.next() {
            write!(out, "{first:x}")?;
        }
        bytes.try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}
