//! Which container a Pod manifest means that names one (`netpold.io/container`). Pure.
//!
//! As the engine's own command line has it: an ID first, then a name, then the beginning of an ID.
//! Not the beginning of a few letters: who is named gets rights by it, and a slip must not
//! meet somebody else.

use thiserror::Error;

/// Digits of an ID that `docker ps` prints.
const SHORT_ID: usize = 12;

/// Why no container is meant.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NotNamed {
    /// None has that name or ID.
    #[error("no container of that name or ID runs: nothing is enforced for it until one does")]
    Nobody,
    /// Several do.
    #[error("several containers are meant by that: give the whole ID of one")]
    Several,
}

/// A container that may be meant.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a, T> {
    /// Its ID.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// What stands for it.
    pub value: T,
}

/// The one of `all` that `text` names.
///
/// # Errors
/// There is none, or more than one.
pub fn find<'a, T: Copy>(
    text: &str,
    all: impl Iterator<Item = Named<'a, T>> + Clone,
) -> Result<T, NotNamed> {
    let by = |is: &dyn Fn(&Named<'a, T>) -> bool| {
        let mut found = all.clone().filter(|one| is(one));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.value),
            (None, _) => Err(NotNamed::Nobody),
            (Some(_), Some(_)) => Err(NotNamed::Several),
        }
    };
    let whole = by(&|one| one.id == text);
    let name = whole.or_else(|_| by(&|one| one.name == text));
    match name {
        Err(NotNamed::Nobody) if text.len() >= SHORT_ID => by(&|one| one.id.starts_with(text)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_a_name_or_the_beginning_of_an_id() {
        let containers = [
            ("aaaabbbbccccdddd", "web"),
            ("aaaabbbbccccdddf", "db"),
            ("0123456789abcdef", "aaaabbbbccccdddd"),
            ("fedcba9876543210", "twin"),
            ("fedcba9876543211", "twin"),
        ];
        let find = |text: &str| {
            let all = containers.iter().enumerate();
            find(
                text,
                all.map(|(value, (id, name))| Named { id, name, value }),
            )
        };
        for (text, expected) in [
            ("web", Ok(0)),
            ("db", Ok(1)),
            // Nobody takes another one's ID for a name.
            ("aaaabbbbccccdddd", Ok(0)),
            ("0123456789ab", Ok(2)),
            ("0123456789a", Err(NotNamed::Nobody)),
            ("aaaabbbbcccc", Err(NotNamed::Several)),
            ("twin", Err(NotNamed::Several)),
            ("we", Err(NotNamed::Nobody)),
            ("", Err(NotNamed::Nobody)),
        ] {
            assert_eq!(find(text), expected, "{text}");
        }
    }
}
