//! Tokens to a tree, by recursive descent with one token in hand. Only brackets recurse, and they are
//! counted.

use super::lexer::{Lexed, Lexer, Token};
use super::{Args, Expr, ExprKind, MAX_DEPTH, ParseError, Span, Step, StepKind};
use std::collections::HashSet;

pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    current: Lexed<'a>,
    depth: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(source: &'a str) -> Result<Self, ParseError> {
        let mut lexer = Lexer::new(source);
        let current = lexer.next()?;
        Ok(Self { lexer, current, depth: 0 })
    }

    /// One expression and nothing after it.
    pub(super) fn whole(mut self) -> Result<Expr, ParseError> {
        if self.current.token == Token::End {
            return Err(self.error("the expression is empty"));
        }
        let expr = self.expression()?;
        match self.current.token {
            Token::End => Ok(expr),
            Token::Punct('=') => Err(self.error("unexpected '=': there is no assignment")),
            Token::Punct('-') => Err(self.error("unexpected '-': there are no operators")),
            Token::Punct(close @ (')' | ']' | '}')) => Err(self.error(format!("'{close}' closes nothing"))),
            _ => Err(self.expected("the end")),
        }
    }

    fn expression(&mut self) -> Result<Expr, ParseError> {
        let head = self.primary()?;
        let span = head.span;
        // `(a.b).c` is the same chain as `a.b.c`.
        let (head, mut steps) = match head.kind {
            ExprKind::Chain { head, steps } => (head, steps),
            kind => (Box::new(Expr { kind, span }), Vec::new()),
        };
        while let Some(step) = self.step()? {
            steps.push(step);
        }
        let end = steps.last().map_or(span.end, |step| step.span.end);
        let span = Span::new(span.start, end.max(span.end));
        Ok(match steps.is_empty() {
            true => *head,
            false => Expr { kind: ExprKind::Chain { head, steps }, span },
        })
    }

    fn primary(&mut self) -> Result<Expr, ParseError> {
        let span = self.current.span;
        match self.current.token {
            Token::Punct('(') => return self.parenthesised(),
            Token::Punct('[') => return self.list(),
            Token::Punct('{') => return self.map(),
            Token::Punct('-') => return self.negative(),
            Token::Punct(_) | Token::End => return Err(self.expected("an expression")),
            _ => {}
        }
        let kind = match self.bump()?.token {
            Token::Name("None" | "none" | "null") => ExprKind::None,
            Token::Name("True" | "true") => ExprKind::Bool(true),
            Token::Name("False" | "false") => ExprKind::Bool(false),
            Token::Name(name) => ExprKind::Name(name.to_owned()),
            Token::Int(value) => ExprKind::Int(value),
            Token::Float(value) => ExprKind::Float(value),
            Token::Str(text) => ExprKind::Str(text),
            Token::Bytes(bytes) => ExprKind::Bytes(bytes),
            Token::Punct(_) | Token::End => return Err(self.expected("an expression")),
        };
        Ok(Expr { kind, span })
    }

    fn negative(&mut self) -> Result<Expr, ParseError> {
        let minus = self.bump()?.span;
        if !matches!(self.current.token, Token::Int(_) | Token::Float(_)) {
            let message = "'-' may only stand before a number";
            return Err(self.lexer.error(minus, message));
        }
        let number = self.bump()?;
        let span = Span::new(minus.start, number.span.end);
        let kind = match number.token {
            Token::Int(value) => ExprKind::Int(-value),
            Token::Float(value) => ExprKind::Float(-value),
            _ => return Err(self.lexer.error(span, "'-' may only stand before a number")),
        };
        if let Token::Punct('.' | '(' | '[') = self.current.token {
            // Python would apply the minus last, to the result of the whole chain.
            return Err(self.error("put the negative number in parentheses, as in (-5).name"));
        }
        Ok(Expr { kind, span })
    }

    /// `(a)` is `a`, `(a,)` and `()` are tuples.
    fn parenthesised(&mut self) -> Result<Expr, ParseError> {
        let open = self.open()?;
        let mut items = Vec::new();
        let mut comma = false;
        while self.current.token != Token::Punct(')') {
            items.push(self.expression()?);
            comma = self.comma_or(')', open)?;
        }
        let span = self.close(open)?;
        if let ([_], false) = (items.as_slice(), comma)
            && let Some(mut only) = items.pop()
        {
            only.span = span;
            return Ok(only);
        }
        let kind = ExprKind::Tuple(items);
        Ok(Expr { kind, span })
    }

    fn list(&mut self) -> Result<Expr, ParseError> {
        let open = self.open()?;
        let mut items = Vec::new();
        while self.current.token != Token::Punct(']') {
            items.push(self.expression()?);
            self.comma_or(']', open)?;
        }
        let span = self.close(open)?;
        let kind = ExprKind::List(items);
        Ok(Expr { kind, span })
    }

    fn map(&mut self) -> Result<Expr, ParseError> {
        let open = self.open()?;
        let mut pairs = Vec::new();
        while self.current.token != Token::Punct('}') {
            let key = self.expression()?;
            if self.current.token != Token::Punct(':') {
                self.not_closed_at_end(open)?;
                return Err(self.expected("':' and a value (a map is {key: value})"));
            }
            self.bump()?;
            let value = self.expression()?;
            pairs.push((key, value));
            self.comma_or('}', open)?;
        }
        let span = self.close(open)?;
        let kind = ExprKind::Map(pairs);
        Ok(Expr { kind, span })
    }

    fn step(&mut self) -> Result<Option<Step>, ParseError> {
        let start = self.current.span.start;
        let (kind, end) = match self.current.token {
            Token::Punct('.') => {
                self.bump()?;
                let Token::Name(name) = self.current.token else {
                    return Err(self.expected("a name after '.'"));
                };
                let end = self.bump()?.span.end;
                (StepKind::Attr(name.to_owned()), end)
            }
            Token::Punct('(') => {
                let open = self.open()?;
                let args = self.args(open)?;
                (StepKind::Call(args), self.close(open)?.end)
            }
            Token::Punct('[') => {
                let open = self.open()?;
                let key = self.key(open)?;
                (StepKind::Item(key), self.close(open)?.end)
            }
            _ => return Ok(None),
        };
        let span = Span::new(start, end);
        Ok(Some(Step { kind, span }))
    }

    fn args(&mut self, open: Span) -> Result<Args, ParseError> {
        let mut args = Args::default();
        let mut names = HashSet::new();
        while self.current.token != Token::Punct(')') {
            let span = self.current.span;
            if let Some(name) = self.keyword()? {
                if !names.insert(name) {
                    let message = format!("keyword argument '{name}' is given twice");
                    return Err(self.lexer.error(span, message));
                }
                let value = self.expression()?;
                args.keyword.push((name.to_owned(), value));
            } else {
                let value = self.expression()?;
                if !args.keyword.is_empty() {
                    let message = "a positional argument may not follow a keyword argument";
                    return Err(self.lexer.error(value.span, message));
                }
                args.positional.push(value);
            }
            self.comma_or(')', open)?;
        }
        Ok(args)
    }

    /// Consumes `name =` where that is next.
    fn keyword(&mut self) -> Result<Option<&'a str>, ParseError> {
        let Token::Name(name) = self.current.token else {
            return Ok(None);
        };
        match self.lexer.clone().next() {
            Ok(next) if next.token == Token::Punct('=') => {}
            _ => return Ok(None),
        }
        self.bump()?;
        self.bump()?;
        Ok(Some(name))
    }

    fn key(&mut self, open: Span) -> Result<Expr, ParseError> {
        match self.current.token {
            Token::Punct(']') => return Err(self.error("a key is missing between '[' and ']'")),
            Token::Punct(':') => return Err(self.error("slices are not supported")),
            _ => {}
        }
        let first = self.expression()?;
        if self.current.token == Token::Punct(':') {
            return Err(self.error("slices are not supported"));
        }
        if !self.comma_or(']', open)? {
            return Ok(first);
        }
        let start = first.span.start;
        let mut items = vec![first];
        while self.current.token != Token::Punct(']') {
            items.push(self.expression()?);
            self.comma_or(']', open)?;
        }
        let end = items.last().map_or(start, |item| item.span.end);
        let kind = ExprKind::Tuple(items);
        let span = Span::new(start, end);
        Ok(Expr { kind, span })
    }

    /// Enters a bracket and returns its place.
    fn open(&mut self) -> Result<Span, ParseError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!("brackets nest more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let open = self.bump()?.span;
        self.not_closed_at_end(open)?;
        Ok(open)
    }

    /// Leaves a bracket whose closing half is in hand, and returns the place of the whole.
    fn close(&mut self, open: Span) -> Result<Span, ParseError> {
        self.depth -= 1;
        let end = self.bump()?.span.end;
        Ok(Span::new(open.start, end))
    }

    /// After an item: a comma (consumed; true) or the closing bracket (left in hand; false).
    fn comma_or(&mut self, close: char, open: Span) -> Result<bool, ParseError> {
        match self.current.token {
            Token::Punct(',') => {
                self.bump()?;
                self.not_closed_at_end(open)?;
                Ok(true)
            }
            Token::Punct(c) if c == close => Ok(false),
            Token::Punct('-') => Err(self.error("unexpected '-': there are no operators")),
            _ => {
                self.not_closed_at_end(open)?;
                Err(self.expected(&format!("',' or '{close}'")))
            }
        }
    }

    /// Where the text ends inside a bracket, the bracket is the better place to point at.
    fn not_closed_at_end(&self, open: Span) -> Result<(), ParseError> {
        if self.current.token != Token::End {
            return Ok(());
        }
        Err(self.lexer.error(open, "the bracket that opens here is not closed"))
    }

    fn bump(&mut self) -> Result<Lexed<'a>, ParseError> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.current, next))
    }

    fn expected(&self, what: &str) -> ParseError {
        let found = self.current.token.describe();
        self.error(format!("expected {what}, found {found}"))
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        self.lexer.error(self.current.span, message)
    }
}
