//! Text of others on a terminal: nothing in it moves the cursor or hides what is there.

/// The text on one line of bounded length, with nothing in it that would upset a terminal.
pub fn one_line(text: &str) -> String {
    /// Characters shown at most.
    const MOST: usize = 2000;
    let mut line = String::new();
    for (count, character) in text.trim_end().chars().enumerate() {
        if count == MOST {
            line.push('…');
            break;
        }
        push_visible(&mut line, character);
    }
    line
}

/// Adds a character, escaped if it would move the cursor or turn the direction of the text.
pub fn push_visible(line: &mut String, character: char) {
    let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match character.is_control() || turns {
        true => line.extend(character.escape_debug()),
        false => line.push(character),
    }
}

/// The text with every such character escaped.
pub fn visible(text: &str) -> String {
    let mut line = String::new();
    text.chars().for_each(|character| push_visible(&mut line, character));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_line_whatever_the_peer_says() {
        assert_eq!(one_line("a\nb\x1b[2J\u{202e}c"), "a\\nb\\u{1b}[2J\\u{202e}c");
        assert_eq!(one_line(&"x".repeat(10_000)).chars().count(), 2001);
        assert_eq!(one_line("trailing\n"), "trailing");
    }
}
