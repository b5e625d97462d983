//! Takes the elements of a JSON array apart while it arrives, so that one that is too large costs itself and
//! hides no other. Knows strings and brackets; whether an element can be read, its reader says. Pure.

/// An element may have so many bytes, while there is room for all.
pub(super) const LARGEST: usize = 1 << 20;
/// And so many when there is none: what nearly all have.
const USUAL: usize = 16 << 10;
/// Bytes of all elements, until room becomes scarce.
const ROOM: usize = 64 << 20;

/// One element.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Element<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// Its beginning.
    TooLarge(&'a [u8]),
}

/// What has arrived so far.
#[derive(Debug)]
pub(super) struct Elements {
    depth: usize,
    in_string: bool,
    escaped: bool,
    element: Vec<u8>,
    too_large: bool,
    room: usize,
    has_begun: bool,
    is_array: bool,
}

impl Default for Elements {
    fn default() -> Self {
        Self {
            depth: 0,
            in_string: false,
            escaped: false,
            element: Vec::new(),
            too_large: false,
            room: ROOM,
            has_begun: false,
            is_array: true,
        }
    }
}

impl Elements {
    /// Takes the next bytes, and hands over what they complete.
    pub(super) fn take(&mut self, bytes: &[u8], mut each: impl FnMut(Element<'_>)) {
        for byte in bytes {
            match byte {
                _ if self.in_string => {
                    match byte {
                        _ if self.escaped => self.escaped = false,
                        b'\\' => self.escaped = true,
                        b'"' => self.in_string = false,
                        _ => {}
                    }
                    self.keep(*byte);
                }
                b'[' if !self.has_begun => (self.has_begun, self.depth) = (true, 1),
                b' ' | b'\t' | b'\r' | b'\n' if self.depth <= 1 => {}
                _ if self.depth == 0 => self.is_array = false,
                b',' if self.depth == 1 => self.end(&mut each),
                b']' if self.depth == 1 => {
                    self.end(&mut each);
                    self.depth = 0;
                }
                byte => {
                    match byte {
                        b'"' => self.in_string = true,
                        b'[' | b'{' => self.depth += 1,
                        b']' | b'}' => self.depth -= 1,
                        _ => {}
                    }
                    self.keep(*byte);
                }
            }
        }
    }

    /// Was all of it an array, and is it at its end?
    pub(super) fn is_complete(&self) -> bool {
        self.has_begun && self.is_array && self.depth == 0
    }

    fn keep(&mut self, byte: u8) {
        let limit = if self.room >= LARGEST { LARGEST } else { USUAL };
        if self.element.len() < limit {
            self.element.push(byte);
        } else {
            self.too_large = true;
        }
    }

    fn end(&mut self, each: &mut impl FnMut(Element<'_>)) {
        if self.element.is_empty() {
            return;
        }
        if std::mem::take(&mut self.too_large) {
            each(Element::TooLarge(&self.element));
        } else {
            self.room = self.room.saturating_sub(self.element.len());
            each(Element::Whole(&self.element));
        }
        self.element.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apart(text: &[u8], pieces: usize) -> (Vec<String>, bool) {
        let mut elements = Elements::default();
        let mut found = Vec::new();
        for piece in text.chunks(pieces) {
            elements.take(piece, |element| {
                found.push(match element {
                    Element::Whole(text) => String::from_utf8_lossy(text).into_owned(),
                    Element::TooLarge(text) => format!("{} and more", text.len()),
                });
            });
        }
        (found, elements.is_complete())
    }

    #[test]
    fn an_array_comes_apart_however_it_arrives() {
        let text = br#" [ {"a":"]},\"[{","b":[1,[2]]} , {} ,7,"x]" ] "#;
        for pieces in [1, 2, 3, 7, 1000] {
            let (found, complete) = apart(text, pieces);
            assert_eq!(
                found,
                [r#"{"a":"]},\"[{","b":[1,[2]]}"#, "{}", "7", r#""x]""#]
            );
            assert!(complete);
        }
        assert_eq!(apart(b"[]", 1), (Vec::new(), true));
        for wrong in ["", "{}", "null", "[][]", "[1] 2", "[1", "[\"]", "[{]", "]"] {
            let (_, complete) = apart(wrong.as_bytes(), 1);
            assert!(!complete, "{wrong}");
        }
    }

    #[test]
    fn one_that_is_too_large_hides_no_other() {
        let large = "x".repeat(2 * LARGEST);
        let text = format!(r#"[{{"Id":"1"}},{{"Id":"2","l":"{large}"}},{{"Id":"3"}}]"#);
        let (found, complete) = apart(text.as_bytes(), 4096);
        assert_eq!(
            found,
            [
                r#"{"Id":"1"}"#.to_owned(),
                format!("{LARGEST} and more"),
                r#"{"Id":"3"}"#.to_owned()
            ]
        );
        assert!(complete);
    }

    #[test]
    fn many_that_are_large_leave_room_for_those_that_are_not() {
        let large = format!(r#""{}""#, "x".repeat(LARGEST - 2));
        let mut all = vec![large; 100];
        all.push(r#"{"Id":"3"}"#.to_owned());
        let (found, complete) = apart(format!("[{}]", all.join(",")).as_bytes(), 65536);
        let whole = found.iter().filter(|one| one.len() == LARGEST).count();
        assert_eq!(whole, ROOM / LARGEST);
        assert_eq!(found.last().map(String::as_str), Some(r#"{"Id":"3"}"#));
        assert!(complete);
    }
}
