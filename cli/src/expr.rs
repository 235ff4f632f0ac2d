//! The expressions of the command line, such as `open("notes.txt").read()`.
//!
//! ```text
//! expression = ["-"] number | primary step*
//! primary    = name | literal | "(" expression ")" | "[" items "]" | "(" items ")" | "{" pairs "}"
//! step       = "." name | "(" arguments ")" | "[" key "]"
//! ```
//!
//! There are no operators: an expression names objects and what to ask of them, and the work is done
//! where the objects live. A chain of steps is kept flat (a head and a list), because that is how it
//! is sent (all steps at once, each on the promise of the one before) and because a chain of any
//! length then needs no recursion.

mod lexer;
mod parser;
mod print;
#[cfg(test)]
mod tests;

use num_bigint::BigInt;
use std::fmt;
use unicode_width::UnicodeWidthStr;

/// How deep brackets may nest. It bounds the recursion of everything that walks a tree.
pub const MAX_DEPTH: usize = 64;

/// Parses one expression. Never panics, whatever the input.
pub fn parse(source: &str) -> Result<Expr, ParseError> {
    parser::Parser::new(source)?.whole()
}

/// An expression and where it stands in the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Its place, parentheses around it included.
    pub span: Span,
}

/// The kinds of expression. `Display` prints a form that parses back to the same tree.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// `None`, `none` or `null`.
    None,
    /// `True`, `true`, `False` or `false`.
    Bool(bool),
    /// An integer of any size, exact.
    Int(BigInt),
    /// A finite float.
    Float(f64),
    /// A string.
    Str(String),
    /// `b"..."`.
    Bytes(Vec<u8>),
    /// `[a, b]`.
    List(Vec<Expr>),
    /// `(a, b)`, `(a,)` or `()`.
    Tuple(Vec<Expr>),
    /// `{key: value}`, in the order written. A key may stand there twice; the later one counts.
    Map(Vec<(Expr, Expr)>),
    /// A name to look up among the roots of the other side.
    Name(String),
    /// A head that is no chain itself, and at least one step.
    Chain {
        /// What the first step is asked of.
        head: Box<Expr>,
        /// The steps, each asked of the result of the one before.
        steps: Vec<Step>,
    },
}

/// One link of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is asked.
    pub kind: StepKind,
    /// The step alone: `.name`, `(...)` or `[...]`.
    pub span: Span,
}

/// The kinds of step.
#[derive(Clone, Debug, PartialEq)]
pub enum StepKind {
    /// `.name`
    Attr(String),
    /// `(arguments)`
    Call(Args),
    /// `[key]`; a key with commas, `[a, b]`, is a tuple.
    Item(Expr),
}

/// The arguments of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Args {
    /// By position.
    pub positional: Vec<Expr>,
    /// By name, each name once, in the order written.
    pub keyword: Vec<(String, Expr)>,
}

/// A range of bytes in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// From `start` up to, not including, `end`.
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The line and its two lines of display: the source and carets below the place. Long lines are
    /// cut around the place, and characters that would move the cursor are replaced, so that the
    /// carets always stand below what they point at.
    pub fn point_at(self, source: &str) -> String {
        /// Columns shown before the place, and for the whole line.
        const LEAD: usize = 40;
        const WIDTH: usize = 76;

        let start = floor_boundary(source, self.start);
        let end = floor_boundary(source, self.end.max(start));
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |at| start + at);
        let before = shown(&source[line_start..start]);
        let marked = shown(&source[start..end.min(line_end).max(start)]);
        let after = shown(&source[end.min(line_end).max(start)..line_end]);

        let mut line = String::new();
        if before.width() > LEAD {
            line.push('…');
            line.push_str(last_columns(&before, LEAD - 1));
        } else {
            line.push_str(&before);
        }
        let indent = line.width();
        let room = WIDTH.saturating_sub(indent);
        let cut = first_columns(&marked, room);
        line.push_str(cut);
        let carets = cut.width().max(1);
        let rest = format!("{}{after}", &marked[cut.len()..]);
        let tail = first_columns(&rest, WIDTH.saturating_sub(line.width()));
        line.push_str(tail);
        if tail.len() < rest.len() {
            line.push('…');
        }
        format!("{line}\n{}{}", " ".repeat(indent), "^".repeat(carets))
    }
}

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong, in one line, without the place.
    pub message: String,
    /// Where.
    pub span: Span,
    /// The line of the place, from 1.
    pub line: usize,
    /// The column of the place in characters, from 1.
    pub column: usize,
}

impl ParseError {
    fn new(source: &str, span: Span, message: impl Into<String>) -> Self {
        let before = &source[..floor_boundary(source, span.start)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            message: message.into(),
            span,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 1 {
            write!(f, "line {}, ", self.line)?;
        }
        write!(f, "column {}: {}", self.column, self.message)
    }
}

impl std::error::Error for ParseError {}

/// The nearest character boundary at or before `at`: spans of ours always are on one, but a span may
/// meet another source than its own.
fn floor_boundary(source: &str, at: usize) -> usize {
    source.floor_char_boundary(at.min(source.len()))
}

fn shown(text: &str) -> String {
    let visible = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(visible).collect()
}

fn first_columns(text: &str, columns: usize) -> &str {
    let fits = |&end: &usize| text[..end].width() <= columns;
    if fits(&text.len()) {
        return text;
    }
    let ends = text.char_indices().map(|(at, _)| at);
    &text[..ends.take_while(fits).last().unwrap_or(0)]
}

fn last_columns(text: &str, columns: usize) -> &str {
    let fits = |&start: &usize| text[start..].width() <= columns;
    let starts = text.char_indices().rev().map(|(at, _)| at);
    &text[starts.take_while(fits).last().unwrap_or(text.len())..]
}
