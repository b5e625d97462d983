//! Many ends in few words: `web/* (12 Pods)`, `shop/db-* (3 Pods)`, `10.0.0.0/8 except 10.1.0.0/16`.
//!
//! What is said is always true of the whole set: a pattern stands only for Pods that are all in
//! it, and what is left out is counted. Called by `diff` and `matrix`.

use std::collections::{BTreeMap, BTreeSet};

use netpol_engine::policy::{IpBlock, ObjectName};
use netpol_engine::reach::{Members, Region};

/// Exceptions of a block that are written out.
const EXCEPTIONS: usize = 3;

/// The Pods among which sets are named.
pub struct PodSetFormatter<'w> {
    /// By Namespace.
    all: BTreeMap<&'w str, BTreeSet<&'w str>>,
}

impl<'w> PodSetFormatter<'w> {
    /// These Pods.
    pub fn new(pods: impl IntoIterator<Item = &'w ObjectName>) -> Self {
        let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for name in pods {
            all.entry(&name.namespace).or_default().insert(&name.name);
        }
        Self { all }
    }

    /// A set of Pods in at most so many words. `aside` may be in the set or not: an end of its own
    /// side, which makes no pair with itself.
    pub fn pods(
        &self,
        pods: &[&'w ObjectName],
        aside: Option<&ObjectName>,
        limit: usize,
    ) -> Vec<String> {
        let mut set: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for name in pods {
            set.entry(&name.namespace).or_default().insert(&name.name);
        }
        let aside = aside.map(|name| (name.namespace.as_str(), name.name.as_str()));
        let left_out = |namespace: &'w str| {
            let chosen = set.get(namespace);
            let all = self.all[namespace].iter().copied();
            all.filter(move |name| {
                !chosen.is_some_and(|chosen| chosen.contains(name))
                    && aside != Some((namespace, name))
            })
            .map(move |name| format!("{namespace}/{name}"))
        };
        if self.all.len() > 1 {
            let missing = self.all.keys().copied().flat_map(left_out);
            if let Some(whole) = whole("*/*", pods.len(), missing) {
                return vec![whole];
            }
        }
        let mut words: Vec<(String, usize)> = Vec::new();
        for (namespace, names) in &set {
            let Some((namespace, all)) = self.all.get_key_value(namespace) else {
                continue;
            };
            match whole(&format!("{namespace}/*"), names.len(), left_out(namespace)) {
                Some(whole) => words.push((whole, names.len())),
                None => words.extend(families(namespace, names, all)),
            }
        }
        shorten(words, limit)
    }

    /// A set of ends of any kind.
    pub fn ends(
        &self,
        ends: &[&Members<'w>],
        aside: Option<&ObjectName>,
        limit: usize,
    ) -> Vec<String> {
        let mut pods = Vec::new();
        let mut hosts = Vec::new();
        let mut regions = Vec::new();
        for members in ends {
            match members {
                Members::Pods(names) => pods.extend(names.iter().copied()),
                Members::Host(addresses) if addresses.is_empty() => {
                    hosts.push(("host".to_owned(), 1));
                }
                Members::Host(addresses) => {
                    hosts.extend(addresses.iter().map(|one| (format!("host {one}"), 1)));
                }
                Members::Strangers(region) => regions.push(region),
            }
        }
        let mut words = self.pods(&pods, aside, limit);
        words.extend(shorten(hosts, limit));
        let blocks = Region::join(regions).0;
        words.extend(shorten(
            blocks.iter().map(|block| (shown(block), 1)).collect(),
            limit,
        ));
        words
    }
}

/// `label (12 Pods)`, `label but a, b (10 Pods)`: where all but very few are there.
fn whole(label: &str, count: usize, missing: impl Iterator<Item = String>) -> Option<String> {
    let missing: Vec<String> = missing.take(3).collect();
    match missing.len() {
        0 if count > 1 => Some(format!("{label} ({count} Pods)")),
        1 | 2 if count > 4 * missing.len() => {
            Some(format!("{label} but {} ({count} Pods)", missing.join(", ")))
        }
        _ => None,
    }
}

/// Names one by one, and `stem-*` for all that have a stem in common. With how many each stands for.
fn families(namespace: &str, names: &BTreeSet<&str>, all: &BTreeSet<&str>) -> Vec<(String, usize)> {
    fn stem_of(name: &str) -> Option<&str> {
        let end = name.rfind(['-', '_', '.'])?;
        Some(&name[..=end])
    }
    let mut words = Vec::new();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for name in names {
        let Some(stem) = stem_of(name) else {
            words.push((format!("{namespace}/{name}"), 1));
            continue;
        };
        if !done.insert(stem) {
            continue;
        }
        let of_family = |name: &&&str| stem_of(name) == Some(stem);
        let family: Vec<&&str> = names.iter().filter(of_family).collect();
        if family.len() > 1 && all.iter().filter(of_family).count() == family.len() {
            let count = family.len();
            words.push((format!("{namespace}/{stem}* ({count} Pods)"), count));
        } else {
            words.extend(family.iter().map(|name| (format!("{namespace}/{name}"), 1)));
        }
    }
    words
}

/// The first of them, and how many there are besides.
fn shorten(mut words: Vec<(String, usize)>, limit: usize) -> Vec<String> {
    if words.len() > limit {
        let rest: usize = words.drain(limit - 1..).map(|(_, count)| count).sum();
        words.push((format!("+{rest} more"), 0));
    }
    words.into_iter().map(|(word, _)| word).collect()
}

/// A block with its first exceptions.
fn shown(block: &IpBlock) -> String {
    if block.except.len() <= EXCEPTIONS {
        return block.to_string();
    }
    let first = IpBlock {
        cidr: block.cidr,
        except: block.except[..EXCEPTIONS - 1].to_vec(),
    };
    format!("{first} and {} more", block.except.len() + 1 - EXCEPTIONS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn names(texts: &[&str]) -> Vec<ObjectName> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// What `chosen` is called among `all`, in so many words.
    fn called(all: &[&str], chosen: &[&str], aside: Option<&str>, limit: usize) -> String {
        let (all, chosen) = (names(all), names(chosen));
        let aside = aside.map(|text| text.parse().unwrap());
        let chosen: Vec<&ObjectName> = chosen
            .iter()
            .map(|name| all.iter().find(|known| *known == name).unwrap())
            .collect();
        PodSetFormatter::new(&all)
            .pods(&chosen, aside.as_ref(), limit)
            .join(", ")
    }

    const ALL: [&str; 9] = [
        "lab/one",
        "shop/api-1",
        "shop/api-2",
        "shop/api-3",
        "shop/db",
        "shop/web-1",
        "shop/web-2",
        "shop/x-1",
        "shop/x.2",
    ];

    #[test]
    fn a_pattern_stands_for_all_that_it_matches() {
        assert_eq!(called(&ALL, &ALL, None, 9), "*/* (9 Pods)");
        assert_eq!(called(&ALL, &ALL[1..], None, 9), "*/* but lab/one (8 Pods)");
        assert_eq!(
            called(
                &ALL,
                &["shop/api-1", "shop/api-2", "shop/api-3", "shop/db"],
                None,
                9
            ),
            "shop/api-* (3 Pods), shop/db"
        );
        // One of the family is missing.
        assert_eq!(
            called(&ALL, &["shop/api-1", "shop/api-2"], None, 9),
            "shop/api-1, shop/api-2"
        );
        // Other signs make other families.
        assert_eq!(
            called(&ALL, &["shop/x-1", "shop/x.2"], None, 9),
            "shop/x-1, shop/x.2"
        );
    }

    #[test]
    fn an_end_s_own_side_is_not_missed() {
        let but_db: Vec<&str> = ALL.into_iter().filter(|name| *name != "shop/db").collect();
        assert_eq!(called(&ALL, &but_db, Some("shop/db"), 9), "*/* (8 Pods)");
        assert_eq!(called(&ALL, &but_db, None, 9), "*/* but shop/db (8 Pods)");
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let chosen = [
            "lab/one",
            "shop/api-1",
            "shop/db",
            "shop/web-1",
            "shop/web-2",
        ];
        assert_eq!(
            called(&ALL, &chosen, None, 3),
            "lab/one, shop/api-1, +3 more"
        );
        assert_eq!(
            called(&ALL, &chosen, None, 4),
            "lab/one, shop/api-1, shop/db, shop/web-* (2 Pods)"
        );
    }

    #[test]
    fn a_block_shows_its_first_exceptions() {
        let nets = |count: u8| {
            let except = (0..count).map(|octet| format!("10.{octet}.0.0/16").parse().unwrap());
            shown(&IpBlock {
                cidr: "10.0.0.0/8".parse().unwrap(),
                except: except.collect(),
            })
        };
        assert_eq!(
            nets(3),
            "10.0.0.0/8 except 10.0.0.0/16 10.1.0.0/16 10.2.0.0/16"
        );
        assert_eq!(
            nets(9),
            "10.0.0.0/8 except 10.0.0.0/16 10.1.0.0/16 and 7 more"
        );
    }
}
