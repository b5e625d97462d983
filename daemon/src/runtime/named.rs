//! Which container a Pod manifest means that names one (`netpold.io/container`). Pure.
//!
//! By its name, its ID, or the digits of that which `docker ps` prints; not by the beginning of a few
//! letters: a named container gets rights by it, and a slip must not meet another one.
//!
//! Any user who may start containers may give one a name that is another's ID, or a name that another
//! runtime's container has. So where several are meant, it is the container that was meant before, else the oldest:
//! a new container neither takes a manifest's rights nor another one's isolation.

use thiserror::Error;

/// Digits of an ID that `docker ps` prints.
const SHORT_ID: usize = 12;

/// No container is meant.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("no container of that name or ID runs: nothing is enforced for it until one does")]
pub struct NotNamed;

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

/// Those of `all` that `text` names, in their order, each once.
pub fn find<'a, T: Copy + PartialEq>(
    text: &str,
    all: impl Iterator<Item = Named<'a, T>>,
) -> Vec<T> {
    let is_meant = |one: &Named<'a, T>| {
        one.id == text || one.name == text || (text.len() >= SHORT_ID && one.id.starts_with(text))
    };
    let mut found: Vec<T> = Vec::new();
    for one in all.filter(is_meant) {
        if !found.contains(&one.value) {
            found.push(one.value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_an_id_or_the_beginning_of_one() {
        let containers = [
            ("aaaabbbbccccdddd", "web", 0),
            ("aaaabbbbccccdddf", "db", 1),
            ("0123456789abcdef", "aaaabbbbccccdddd", 2),
            ("fedcba9876543210", "twin", 3),
            // Two parts of one.
            ("fedcba9876543211", "twin", 3),
            ("9999999999999999", "0123456789ab", 4),
        ];
        let find = |text: &str| {
            let all = containers.iter();
            find(
                text,
                all.map(|(id, name, value)| Named {
                    id,
                    name,
                    value: *value,
                }),
            )
        };
        for (text, expected) in [
            ("web", vec![0]),
            ("db", vec![1]),
            ("aaaabbbbccccdddd", vec![0, 2]),
            ("0123456789ab", vec![2, 4]),
            ("0123456789a", vec![]),
            ("aaaabbbbcccc", vec![0, 1]),
            ("twin", vec![3]),
            ("we", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(find(text), expected, "{text}");
        }
    }
}
