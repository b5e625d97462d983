//! `-l SELECTOR`, in kubectl's syntax: `app=web,tier!=db,env in (a, b),!canary`.
//!
//! The grammar is that of `k8s.io/apimachinery/pkg/labels` `Parse`, less `>` and
//! `<`, which NetworkPolicy has no use for.

use std::collections::BTreeSet;

use netpol_engine::labels::{Operator, Requirement, Selector};

/// Why the text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A part is empty, as in `a=b,,c`.
    #[error("a requirement is empty")]
    Empty,
    /// A key or value has characters that labels can't have.
    #[error("`{0}` is no label key or value")]
    Word(String),
    /// `in` and `notin` need a list.
    #[error("`{0}` needs values in brackets: `key in (a, b)`")]
    List(String),
    /// Brackets that don't match.
    #[error("the brackets of `{0}` do not match")]
    Brackets(String),
}

/// Parses a whole selector. Empty text matches everything.
///
/// # Errors
/// When the text is none.
pub fn parse(text: &str) -> Result<Selector, SelectorError> {
    if text.trim().is_empty() {
        return Ok(Selector::everything());
    }
    split(text)?
        .into_iter()
        .map(requirement)
        .collect::<Result<Vec<_>, _>>()
        .map(Selector::new)
}

/// At the commas that stand outside of brackets.
fn split(text: &str) -> Result<Vec<&str>, SelectorError> {
    let mut parts = Vec::new();
    let mut inside = false;
    let mut start = 0;
    for (at, character) in text.char_indices() {
        match character {
            '(' | ')' if inside == (character == '(') => {
                return Err(SelectorError::Brackets(text.to_owned()));
            }
            '(' => inside = true,
            ')' => inside = false,
            ',' if !inside => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(SelectorError::Brackets(text.to_owned()));
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn requirement(part: &str) -> Result<Requirement, SelectorError> {
    let part = part.trim();
    if part.is_empty() {
        return Err(SelectorError::Empty);
    }
    if let Some((left, list)) = part.split_once('(') {
        let Some(list) = list.strip_suffix(')') else {
            return Err(SelectorError::Brackets(part.to_owned()));
        };
        let mut words = left.split_whitespace();
        let (key, operator) = (words.next(), words.next());
        let values = list
            .split(',')
            .map(|value| word(value.trim(), true))
            .collect::<Result<BTreeSet<_>, _>>()?;
        let operator = match operator {
            Some("in") => Operator::In(values),
            Some("notin") => Operator::NotIn(values),
            _ => return Err(SelectorError::List(part.to_owned())),
        };
        if words.next().is_some() {
            return Err(SelectorError::List(part.to_owned()));
        }
        return Ok(Requirement {
            key: word(key.unwrap_or_default(), false)?,
            operator,
        });
    }
    for (sign, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = part.split_once(sign) {
            let values = BTreeSet::from([word(value.trim(), true)?]);
            return Ok(Requirement {
                key: word(key.trim(), false)?,
                operator: if equal {
                    Operator::In(values)
                } else {
                    Operator::NotIn(values)
                },
            });
        }
    }
    match part.strip_prefix('!') {
        Some(key) => Ok(Requirement {
            key: word(key.trim(), false)?,
            operator: Operator::DoesNotExist,
        }),
        None => Ok(Requirement {
            key: word(part, false)?,
            operator: Operator::Exists,
        }),
    }
}

fn word(text: &str, may_be_empty: bool) -> Result<String, SelectorError> {
    let fits = |character: char| {
        character.is_ascii_alphanumeric()
            || matches!(character, '-' | '_' | '.')
            || (!may_be_empty && character == '/')
    };
    if (text.is_empty() && !may_be_empty) || !text.chars().all(fits) {
        return Err(SelectorError::Word(text.to_owned()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn kubectls_forms_are_understood() {
        for (text, expected) in [
            ("", "<none>"),
            ("app=web", "app=web"),
            ("app==web", "app=web"),
            (" app = web , tier!=db ", "app=web,tier notin (db)"),
            ("env in (a, b)", "env in (a,b)"),
            ("env notin (a,b),x", "env notin (a,b),x"),
            ("!canary", "!canary"),
            ("a.b/c=", "a.b/c="),
            ("e in ()", "e="),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            ",",
            "a=b,",
            "=b",
            "!",
            "a in",
            "a in b",
            "a in (b",
            "a in b)",
            "a is (b)",
            "a in (b))",
            "a in ((b)",
            "a b",
            "a in (b) c",
            "a=b=c",
            "a=\u{1b}",
            "in (a)",
        ] {
            assert!(parse(text).is_err(), "{text}: {:?}", parse(text));
        }
    }
}
