//! Text to tokens. The lexer is cheap to clone, so that the parser can look ahead with a copy.

use super::{ParseError, Span};
use num_bigint::BigInt;

/// A token and its place.
#[derive(Clone, Debug)]
pub(super) struct Lexed<'a> {
    pub(super) token: Token<'a>,
    pub(super) span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Bytes(Vec<u8>),
    End,
    Float(f64),
    Int(BigInt),
    Name(&'a str),
    /// One of `()[]{},.:=-`.
    Punct(char),
    Str(String),
}

impl Token<'_> {
    /// The token as an error names it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Bytes(_) => "a bytes literal".into(),
            Self::End => "the end".into(),
            Self::Float(_) | Self::Int(_) => "a number".into(),
            Self::Name(name) => format!("the name '{name}'"),
            Self::Punct(c) => format!("'{c}'"),
            Self::Str(_) => "a string".into(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Self { source, at: 0 }
    }

    pub(super) fn error(&self, span: Span, message: impl Into<String>) -> ParseError {
        ParseError::new(self.source, span, message)
    }

    pub(super) fn next(&mut self) -> Result<Lexed<'a>, ParseError> {
        self.skip_while(char::is_whitespace);
        let start = self.at;
        let token = match self.peek() {
            None => Token::End,
            Some(quote @ ('"' | '\'')) => Token::Str(self.string(quote)?),
            Some(c) if is_name_start(c) => self.name()?,
            Some(c) if c.is_ascii_digit() || c == '.' && self.second_is_digit() => self.number()?,
            Some(c @ ('(' | ')' | '[' | ']' | '{' | '}' | ',' | '.' | ':' | '=' | '-')) => {
                self.bump();
                Token::Punct(c)
            }
            Some(c) => {
                self.bump();
                let message = match c {
                    '+' | '*' | '/' | '%' | '<' | '>' | '!' | '&' | '|' | '^' | '~' | '@' => {
                        format!("unexpected '{c}': there are no operators")
                    }
                    '\u{201c}' | '\u{201d}' | '\u{2018}' | '\u{2019}' => {
                        format!("unexpected {c}: strings stand in straight quotes, \" or '")
                    }
                    c => format!("unexpected character {c:?}"),
                };
                return Err(self.error_from(start, message));
            }
        };
        let span = Span::new(start, self.at);
        Ok(Lexed { token, span })
    }

    fn name(&mut self) -> Result<Token<'a>, ParseError> {
        let start = self.at;
        self.skip_while(is_name_part);
        let name = &self.source[start..self.at];
        match (name, self.peek()) {
            ("b" | "B", Some(quote @ ('"' | '\''))) => self.bytes(quote, start).map(Token::Bytes),
            (_, Some('"' | '\'')) => {
                Err(self.error_from(start, format!("unknown string prefix '{name}': only b\"...\" is known")))
            }
            _ => Ok(Token::Name(name)),
        }
    }

    fn number(&mut self) -> Result<Token<'a>, ParseError> {
        let start = self.at;
        let radix = match self.rest().as_bytes() {
            [b'0', b'x' | b'X', ..] => 16,
            [b'0', b'o' | b'O', ..] => 8,
            [b'0', b'b' | b'B', ..] => 2,
            _ => 10,
        };
        if radix != 10 {
            self.at += 2;
            self.skip_while(is_name_part);
            // An underscore may follow the prefix, as in 0x_ff.
            let written = &self.source[start + 2..self.at];
            let digits = written.strip_prefix('_').unwrap_or(written);
            return self.integer(start, digits, radix);
        }

        self.skip_digits();
        let whole_end = self.at;
        if self.peek() == Some('.') {
            self.bump();
            self.skip_digits();
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            let mut ahead = self.clone();
            ahead.bump();
            if matches!(ahead.peek(), Some('+' | '-')) {
                ahead.bump();
            }
            if ahead.peek().is_some_and(|c| c.is_ascii_digit()) {
                *self = ahead;
                self.skip_digits();
            }
        }
        let is_float = self.at > whole_end;
        let end = self.at;
        if self.peek().is_some_and(is_name_part) {
            self.skip_while(is_name_part);
            let written = &self.source[start..self.at];
            let whole = &self.source[start..whole_end];
            let hint = match self.source[whole_end..end].chars().next() {
                Some('.') if end == whole_end + 1 && start < whole_end => {
                    format!("; for a member of a number write ({whole}).{}", &self.source[end..self.at])
                }
                _ => String::new(),
            };
            return Err(self.error_from(start, format!("'{written}' is not a number{hint}")));
        }
        let written = &self.source[start..end];
        if !is_float {
            let padded = written.starts_with('0') && !written.bytes().all(|b| b"0_".contains(&b));
            if padded {
                return Err(self.error_from(start, "an integer may not start with 0 (octal is written 0o17)"));
            }
            return self.integer(start, written, 10);
        }
        if !underscores_between_digits(written, 10) {
            return Err(self.error_from(start, format!("'_' is misplaced in '{written}'")));
        }
        match written.replace('_', "").parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Token::Float(value)),
            Ok(_) => Err(self.error_from(start, format!("{written} is too large for a float"))),
            Err(_) => Err(self.error_from(start, format!("'{written}' is not a number"))),
        }
    }

    fn integer(&self, start: usize, digits: &str, radix: u32) -> Result<Token<'a>, ParseError> {
        let written = &self.source[start..self.at];
        let kind = match radix {
            2 => "a binary number",
            8 => "an octal number",
            16 => "a hexadecimal number",
            _ => "a number",
        };
        if digits.is_empty() || !digits.chars().all(|c| c == '_' || c.is_digit(radix)) {
            return Err(self.error_from(start, format!("'{written}' is not {kind}")));
        }
        if !underscores_between_digits(digits, radix) {
            return Err(self.error_from(start, format!("'_' is misplaced in '{written}'")));
        }
        match BigInt::parse_bytes(digits.replace('_', "").as_bytes(), radix) {
            Some(value) => Ok(Token::Int(value)),
            None => Err(self.error_from(start, format!("'{written}' is not {kind}"))),
        }
    }

    fn string(&mut self, quote: char) -> Result<String, ParseError> {
        let start = self.at;
        let mut text = String::new();
        self.bump();
        loop {
            match self.bump() {
                None => return Err(self.not_closed(start)),
                Some(c) if c == quote => return Ok(text),
                Some('\\') => text.push(self.escape(start)?),
                Some(c) => text.push(c),
            }
        }
    }

    fn bytes(&mut self, quote: char, start: usize) -> Result<Vec<u8>, ParseError> {
        let mut bytes = Vec::new();
        self.bump();
        loop {
            let at = self.at;
            match self.bump() {
                None => return Err(self.not_closed(start)),
                Some(c) if c == quote => return Ok(bytes),
                Some('\\') if self.peek() == Some('u') => {
                    self.bump();
                    return Err(self.error_from(at, "bytes have no \\u escapes, only \\xNN"));
                }
                // An escape without \u is a character below U+0100, so it is one byte.
                Some('\\') => bytes.push(u8::try_from(u32::from(self.escape(start)?)).unwrap_or(0)),
                Some(c) if c.is_ascii() => bytes.push(c as u8),
                Some(c) => {
                    let message = format!("'{c}' is not ASCII: bytes above 7f are written \\xNN");
                    return Err(self.error_from(at, message));
                }
            }
        }
    }

    /// What follows a backslash. `literal` is where the literal started.
    fn escape(&mut self, literal: usize) -> Result<char, ParseError> {
        let start = self.at - 1;
        let Some(c) = self.bump() else {
            return Err(self.not_closed(literal));
        };
        Ok(match c {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '\\' | '\'' | '"' => c,
            '0' if self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                self.bump();
                return Err(self.error_from(start, "there are no octal escapes: write \\x00 before a digit"));
            }
            '0' => '\0',
            'x' => char::from(self.hex(start, 2)? as u8),
            'u' if self.peek() == Some('{') => {
                self.bump();
                let digits_start = self.at;
                self.skip_while(|c| c.is_ascii_hexdigit());
                let digits = &self.source[digits_start..self.at];
                if self.bump() != Some('}') || !(1..=6).contains(&digits.len()) {
                    return Err(self.error_from(start, "\\u{...} takes 1 to 6 hex digits"));
                }
                let code = u32::from_str_radix(digits, 16).unwrap_or(u32::MAX);
                self.character(start, code)?
            }
            'u' => {
                let code = self.hex(start, 4)?;
                self.character(start, code)?
            }
            c => {
                let message = format!("unknown escape \\{}", c.escape_debug());
                return Err(self.error_from(start, message));
            }
        })
    }

    fn hex(&mut self, start: usize, count: usize) -> Result<u32, ParseError> {
        let mut code = 0;
        for _ in 0..count {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) else {
                let what = if count == 2 { "\\x" } else { "\\u" };
                return Err(self.error_from(start, format!("{what} takes {count} hex digits")));
            };
            self.bump();
            code = code * 16 + digit;
        }
        Ok(code)
    }

    fn character(&self, start: usize, code: u32) -> Result<char, ParseError> {
        char::from_u32(code).ok_or_else(|| {
            let hint = match code {
                0xd800..=0xdfff => ": half of a surrogate pair; write the whole as \\u{1f600}",
                _ => "",
            };
            self.error_from(start, format!("U+{code:04X} is no character{hint}"))
        })
    }

    fn not_closed(&self, start: usize) -> ParseError {
        let (what, opening) = match self.source.as_bytes().get(start) {
            Some(b'b' | b'B') => ("bytes literal", 2),
            _ => ("string", 1),
        };
        let span = Span::new(start, start + opening);
        self.error(span, format!("the {what} that starts here is not closed"))
    }

    fn error_from(&self, start: usize, message: impl Into<String>) -> ParseError {
        self.error(Span::new(start, self.at), message)
    }

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.bump();
        }
    }

    fn skip_digits(&mut self) {
        self.skip_while(|c| c.is_ascii_digit() || c == '_');
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn second_is_digit(&self) -> bool {
        self.rest().as_bytes().get(1).is_some_and(u8::is_ascii_digit)
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }
}

/// Whether each underscore has a digit on both sides.
fn underscores_between_digits(number: &str, radix: u32) -> bool {
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_digit(radix));
    number
        .match_indices('_')
        .all(|(at, _)| is_digit(number[..at].chars().next_back()) && is_digit(number[at + 1..].chars().next()))
}

fn is_name_start(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn is_name_part(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}
