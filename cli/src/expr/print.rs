//! Printing: a form that parses back to the same tree.

use super::{Args, Expr, ExprKind, Step, StepKind};
use std::fmt::{self, Display, Formatter, Write};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Display for ExprKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(true) => f.write_str("True"),
            Self::Bool(false) => f.write_str("False"),
            Self::Int(value) => value.fmt(f),
            // Debug prints the shortest text that reads back as the same float, and always with a
            // point or an exponent.
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Str(text) => string(f, text),
            Self::Bytes(bytes) => {
                f.write_str("b\"")?;
                bytes.iter().try_for_each(|&byte| match byte {
                    b'"' | b'\\' => write!(f, "\\{}", char::from(byte)),
                    b' '..=b'~' => f.write_char(char::from(byte)),
                    _ => write!(f, "\\x{byte:02x}"),
                })?;
                f.write_char('"')
            }
            Self::List(items) => {
                f.write_char('[')?;
                separated(f, items, Expr::fmt)?;
                f.write_char(']')
            }
            Self::Tuple(items) => {
                f.write_char('(')?;
                separated(f, items, Expr::fmt)?;
                f.write_str(if items.len() == 1 { ",)" } else { ")" })
            }
            Self::Map(pairs) => {
                f.write_char('{')?;
                separated(f, pairs, |(key, value), f| write!(f, "{key}: {value}"))?;
                f.write_char('}')
            }
            Self::Name(name) => f.write_str(name),
            Self::Chain { head, steps } => {
                match head.kind {
                    // `5.real` is no number and `-5.real` would read as -(5.real) in Python.
                    Self::Int(_) | Self::Float(_) => write!(f, "({head})")?,
                    _ => head.fmt(f)?,
                }
                steps.iter().try_for_each(|step| step.fmt(f))
            }
        }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            StepKind::Attr(name) => write!(f, ".{name}"),
            StepKind::Call(args) => write!(f, "({args})"),
            StepKind::Item(key) => write!(f, "[{key}]"),
        }
    }
}

impl Display for Args {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        separated(f, &self.positional, Expr::fmt)?;
        if !self.positional.is_empty() && !self.keyword.is_empty() {
            f.write_str(", ")?;
        }
        separated(f, &self.keyword, |(name, value), f| write!(f, "{name}={value}"))
    }
}

fn separated<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    print: impl Fn(&T, &mut Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            f.write_str(", ")?;
        }
        print(item, f)?;
    }
    Ok(())
}

fn string(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    text.chars().try_for_each(|c| match c {
        '"' | '\\' => write!(f, "\\{c}"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if c.is_control() => write!(f, "\\u{{{:x}}}", u32::from(c)),
        c => f.write_char(c),
    })?;
    f.write_char('"')
}
