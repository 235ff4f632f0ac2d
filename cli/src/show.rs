//! Results as a person likes to read them.

use farref_pipe::{Exception, Member};
use num_bigint::BigInt;
use unicode_width::UnicodeWidthStr;

use crate::look::{self, Look, Plain};
use crate::visible::{push_visible, visible};

/// What is longer goes on several lines.
const WIDTH: usize = 80;

/// The lines to print; nothing for none.
///
/// A string is printed as it is. A short container is one line; in a longer one, or one of strings, each item has a line.
pub fn text(look: &Look) -> String {
    match look {
        Look::Value(Plain::None) => String::new(),
        Look::Value(Plain::Str(text)) => with_newline(text.clone()),
        Look::Value(Plain::Map(entries)) if !entries.is_empty() => map(entries),
        Look::Value(value @ (Plain::Tuple(items) | Plain::List(items) | Plain::Set(items))) => container(value, items),
        Look::Value(value) => with_newline(inline(value)),
        Look::Object { text, members: all } => {
            let mut lines = with_newline(visible(text));
            for line in members(all).lines() {
                lines.push_str(&format!("  {line}\n"));
            }
            lines
        }
    }
}

/// One line for each member: its name, and its documentation in a column of its own.
pub fn members(members: &[Member]) -> String {
    let names: Vec<_> = members.iter().map(|member| visible(&member.name)).collect();
    let column = names.iter().map(|name| name.width()).max().unwrap_or(0);
    let mut lines = String::new();
    for (name, member) in names.iter().zip(members) {
        let gap = " ".repeat(column - name.width() + 2);
        lines.push_str(format!("{name}{gap}{}", visible(&member.doc)).trim_end());
        lines.push('\n');
    }
    lines
}

/// An exception as a traceback's last line has it.
pub fn exception(exception: &Exception) -> String {
    let text = match (&exception.text, &*look::arguments(exception)) {
        (Some(text), _) => text.clone(),
        (None, [Plain::Str(text)]) => text.clone(),
        (None, args) => all(args),
    };
    match text.is_empty() {
        true => exception.name.clone(),
        false => format!("{}: {text}", exception.name),
    }
}

/// An integer in decimal; one of more than some 150,000 digits in hexadecimal, which takes no time.
pub fn integer(value: &BigInt) -> String {
    const MOST_BITS: u64 = 1 << 19;
    match value.bits() > MOST_BITS {
        true => format!("{value:#x}"),
        false => value.to_string(),
    }
}

/// `inf`, `nan`, or the shortest digits that read back as the same number.
pub fn float(value: f64) -> String {
    match value.is_nan() {
        true => "nan".into(),
        false => format!("{value:?}"),
    }
}

fn container(value: &Plain, items: &[Plain]) -> String {
    let is_text = |item: &Plain| matches!(item, Plain::Str(_));
    if items.is_empty() || (!items.iter().all(is_text) && !is_long(items)) {
        let line = inline(value);
        if line.width() <= WIDTH {
            return with_newline(line);
        }
    }
    items.iter().map(|item| with_newline(bare(item))).collect()
}

/// Whether it is of no use to try one line: each item takes two columns at least.
fn is_long(items: &[Plain]) -> bool {
    items.len() > WIDTH / 2
}

fn map(entries: &[(Plain, Plain)]) -> String {
    let keys: Vec<_> = entries.iter().map(|(key, _)| bare(key)).collect();
    // One key of great length does not push the others' values off the screen.
    let column = keys.iter().map(|key| key.width()).filter(|&width| width <= WIDTH / 2).max().unwrap_or(0);
    let mut lines = String::new();
    for (key, (_, value)) in keys.iter().zip(entries) {
        let gap = " ".repeat(column.saturating_sub(key.width()) + 1);
        lines.push_str(&format!("{key}:{gap}{}\n", bare(value)));
    }
    lines
}

/// As one of several lines: strings without quotes where nothing is lost by that.
fn bare(value: &Plain) -> String {
    match value {
        Plain::Str(text) if !text.is_empty() && text.trim() == text && visible(text) == *text => text.clone(),
        other => inline(other),
    }
}

/// On one line. Values nest 16 deep at most (VAL-4).
fn inline(value: &Plain) -> String {
    match value {
        Plain::None => "none".into(),
        Plain::Bool(value) => value.to_string(),
        Plain::NotImplemented => "not-implemented".into(),
        Plain::Int(value) => integer(value),
        Plain::Float(value) => float(*value),
        Plain::Str(text) => quoted(text),
        Plain::Bytes(bytes) => format!("b\"{}\"", bytes.escape_ascii().to_string().replace("\\'", "'")),
        Plain::Tuple(items) if items.len() == 1 => format!("({},)", all(items)),
        Plain::Tuple(items) => format!("({})", all(items)),
        Plain::List(items) => format!("[{}]", all(items)),
        Plain::Set(items) if items.is_empty() => "set()".into(),
        Plain::Set(items) => format!("{{{}}}", all(items)),
        Plain::Map(entries) => {
            let entry = |(key, value): &(Plain, Plain)| format!("{}: {}", inline(key), inline(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        Plain::Exception { name, args } => format!("{}({})", visible(name), all(args)),
        Plain::Object(text) => visible(text),
    }
}

fn all(items: &[Plain]) -> String {
    items.iter().map(inline).collect::<Vec<_>>().join(", ")
}

fn quoted(text: &str) -> String {
    let mut line = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            other => push_visible(&mut line, other),
        }
    }
    line.push('"');
    line
}

fn with_newline(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(value: Plain) -> String {
        text(&Look::Value(value))
    }

    fn word(text: &str) -> Plain {
        Plain::Str(text.into())
    }

    fn int(value: i64) -> Plain {
        Plain::Int(value.into())
    }

    #[test]
    fn strings_are_raw_and_end_a_line() {
        assert_eq!(shown(word("a\tb")), "a\tb\n");
        assert_eq!(shown(word("a\n")), "a\n");
        assert_eq!(shown(Plain::None), "");
    }

    #[test]
    fn numbers_are_exact() {
        assert_eq!(shown(Plain::Int(BigInt::from(10u8).pow(40))), format!("1{}\n", "0".repeat(40)));
        assert_eq!(shown(Plain::Float(0.1)), "0.1\n");
        assert_eq!(shown(Plain::Float(f64::NEG_INFINITY)), "-inf\n");
        assert_eq!(shown(Plain::Float(-f64::NAN)), "nan\n");
        assert!(shown(Plain::Int(BigInt::from(1) << 40_000_000)).starts_with("0x1000"));
    }

    #[test]
    fn short_containers_are_one_line_and_strings_a_line_each() {
        assert_eq!(shown(Plain::Tuple(vec![int(1), word("a\"b")])), "(1, \"a\\\"b\")\n");
        assert_eq!(shown(Plain::Tuple(vec![int(1)])), "(1,)\n");
        assert_eq!(shown(Plain::List(vec![])), "[]\n");
        assert_eq!(shown(Plain::Set(vec![])), "set()\n");
        assert_eq!(
            shown(Plain::Tuple(vec![word("b.txt"), word("new\nline"), word("")])),
            "b.txt\n\"new\\nline\"\n\"\"\n"
        );
        let long = shown(Plain::List((0..100).map(int).collect()));
        assert_eq!(long.lines().count(), 100);
        assert_eq!(shown(Plain::Bytes(b"a'\"\x00".to_vec())), "b\"a'\\\"\\x00\"\n");
    }

    #[test]
    fn maps_are_aligned() {
        let map =
            Plain::Map(vec![(word("size"), int(7)), (word("modified"), Plain::Float(1.5)), (int(1), word("x y"))]);
        assert_eq!(shown(map), "size:     7\nmodified: 1.5\n1:        x y\n");
        assert_eq!(shown(Plain::Map(vec![])), "{}\n");
    }

    proptest! {
        /// Whatever a peer sends is lines that end, and never a panic.
        #[test]
        fn any_value_is_shown(value in look::tests::any_plain()) {
            let is_none = value == Plain::None;
            let lines = shown(value);
            prop_assert!(lines.ends_with('\n') != is_none);
        }
    }

    #[test]
    fn exceptions_are_shown_as_tracebacks_do() {
        let raised = |args: Vec<farref_pipe::Value>| {
            exception(&Exception { name: "KeyError".into(), args, text: None, traceback: None })
        };
        assert_eq!(raised(vec![]), "KeyError");
        assert_eq!(raised(vec!["k".into()]), "KeyError: k");
        assert_eq!(raised(vec![7.into(), "k".into()]), "KeyError: 7, \"k\"");
        let texted = Exception { name: "E".into(), args: vec![7.into()], text: Some("seven".into()), traceback: None };
        assert_eq!(exception(&texted), "E: seven");
    }

    #[test]
    fn what_the_peer_names_cannot_move_the_cursor() {
        let members = [Member::method("a", "does\x1b[2J"), Member::method("long", "")];
        let look = Look::Object { text: "<x\r\n>".into(), members: members.into() };
        assert_eq!(text(&look), "<x\\r\\n>\n  a     does\\u{1b}[2J\n  long\n");
    }
}
