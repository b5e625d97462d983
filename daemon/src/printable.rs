//! Text that others chose, made safe to print.
//!
//! Containers choose their labels, names and hostnames, and files their content.
//! None of it may reach a terminal raw: an escape sequence there could rewrite
//! the screen, or what the reader pastes next. JSON output needs none of this,
//! its own escapes do it.

use std::borrow::Cow;

/// The text with control characters, and characters that turn the direction of
/// writing, replaced by their escapes (`\u{1b}`).
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .map(|character| {
            if is_unsafe(character) {
                character.escape_unicode().to_string()
            } else {
                character.to_string()
            }
        })
        .collect::<String>()
        .into()
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_do_not_get_through() {
        assert_eq!(printable("web"), "web");
        assert_eq!(printable("Straße 名"), "Straße 名");
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(printable("a\u{9b}31m"), "a\\u{9b}31m");
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
    }
}
