//! The gate as text for nft(8): what people see in `nft list table bridge netpold`.
//!
//! Pure. Owns the names of its sets, counters and chains, and which interfaces it is about.
//!
//! # Whose interfaces
//! - [`Scope::Bridges`]: veths that are ports of a container engine's bridge, by the bridge's name:
//!   `docker0`, `br-` and twelve hexadecimal digits, and so on ([`bridges`]), and those that netpold
//!   has seen a container on. Needs `meta ibrname` (`CONFIG_NFT_BRIDGE_META`).
//! - [`Scope::Names`], where the kernel can't tell bridges: ports that have an engine's kind of name ([`VethNaming`]). Docker's
//!   kind is its own. CNI's and netavark's are those of other software too, and are left alone until netpold has seen a container behind
//!   such a name. A set for each of the two switches its chain on: it has `veth`, the kind of every interface that comes so
//!   far, or nothing.
//!
//! # Exact names
//! nft has wildcards for the end of a name, and none for digits. A name's bytes can be masked, though:
//! of every character that hexadecimal numbers are written with, 0x20 is set, and `& 0x78` (`x`) leaves 0x30
//! (`0`), 0x38 (`8`) or 0x60 (a backtick). Of those that leave these, `g` and `: ; < = > ?` are the only others.
//! So one line asks about one character, those before it masked with spaces (0x20), those after it with
//! nothing. A character too many is one of which `& 0x7e` (`~`) leaves something.

use std::collections::BTreeSet;

use super::veths::{MOST_DIGITS, START, VethNaming};
use crate::bridges;

/// The set of interfaces that pass.
pub const READY: &str = "ready";
/// The set of further bridges.
pub const BRIDGES: &str = "bridges";
/// The sets that switch on what is said of the names of CNI's plugins and of netavark.
pub const NAMINGS: [(VethNaming, &str); 2] = [
    (VethNaming::Cni, "cni_names"),
    (VethNaming::Netavark, "netavark_names"),
];
/// Counts frames that did not enter.
pub const FROM: &str = "from_not_ready";
/// Counts frames that did not leave.
pub const TO: &str = "to_not_ready";

/// Bridges of other managers: never gated, even with a container on them.
const FOREIGN: [&str; 5] = ["virbr", "lxcbr", "lxdbr", "incusbr", "vmbr"];

/// What tells a container's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The bridge that it is a port of.
    Bridges,
    /// Its own name.
    Names,
}

impl Scope {
    /// In words.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Bridges => "by bridge",
            Self::Names => "by engines' names of interfaces",
        }
    }
}

/// What is in its sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Interfaces that pass, by index.
    pub ready: BTreeSet<u32>,
    /// Further bridges; each passes [`may_be_added`].
    pub bridges: BTreeSet<String>,
    /// Of the namings that engines share with other software, those that are shut.
    pub namings: BTreeSet<VethNaming>,
}

/// Is a bridge of this name an engine's by its name alone?
#[must_use]
pub fn is_engines(bridge: &str) -> bool {
    bridges::maker(bridge).is_some()
}

/// May netpold add a bridge of this name, because an engine's container is on it? What nft would read as
/// something else than a name may not, nor what is another manager's.
#[must_use]
pub fn may_be_added(bridge: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=15).contains(&bridge.len())
        && bridge.bytes().all(plain)
        && !is_engines(bridge)
        && !FOREIGN.iter().any(|start| bridge.starts_with(start))
}

/// The whole table, to replace one that is there at once.
#[must_use]
pub fn render(table: &str, scope: Scope, contents: &Contents) -> String {
    let mut blocks = vec![set(
        READY,
        "iface_index",
        "interfaces that pass: netpold's programs decide there, or it has no business there",
        contents.ready.iter().map(u32::to_string),
    )];
    match scope {
        Scope::Bridges => blocks.push(set(
            BRIDGES,
            "ifname",
            "bridges of containers that are not named as engines name theirs",
            contents.bridges.iter().map(|name| format!("\"{name}\"")),
        )),
        Scope::Names => blocks.extend(NAMINGS.map(|(naming, name)| {
            let is_on = contents.namings.contains(&naming);
            set(
                name,
                "ifname",
                "has veth once a container was seen behind such a name",
                is_on.then(|| format!("\"{START}\"")).into_iter(),
            )
        })),
    }
    for (counter, what) in [
        (FROM, "frames from interfaces that were not ready"),
        (TO, "frames to interfaces that were not ready"),
    ] {
        blocks.push(format!(
            "\tcounter {counter} {{\n\t\tcomment \"{what}\"\n\t}}\n"
        ));
    }
    for chain in chains(scope) {
        let lines = chain.hook.iter().chain(&chain.rules);
        let lines: String = lines.map(|line| format!("\t\t{line}\n")).collect();
        blocks.push(format!("\tchain {} {{\n{lines}\t}}\n", chain.name));
    }
    format!(
        "# netpold's gate: `netpol gate` installs and releases it.\n\
         table bridge {table}\n\
         delete table bridge {table}\n\
         table bridge {table} {{\n{}}}\n",
        blocks.join("\n")
    )
}

/// How many rules it has: fewer are not the gate.
#[must_use]
pub fn rules(scope: Scope) -> usize {
    chains(scope).iter().map(|chain| chain.rules.len()).sum()
}

struct Chain {
    name: String,
    hook: Option<String>,
    rules: Vec<String>,
}

fn chains(scope: Scope) -> Vec<Chain> {
    // Before all others where frames enter, behind all others where they leave.
    let ways = [
        ("from", "prerouting priority -1000", FROM, 'i'),
        ("to", "postrouting priority 1000", TO, 'o'),
    ];
    let base = ways.map(|(way, hook, _, letter)| Chain {
        name: format!("{way}_port"),
        hook: Some(format!("type filter hook {hook}; policy accept;")),
        rules: vec![
            format!("{letter}if @{READY} accept comment \"ready\""),
            format!("meta {letter}ifkind != \"veth\" accept comment \"no container's\""),
            format!("goto {way}_port_not_ready"),
        ],
    });
    let not_ready = ways.into_iter().flat_map(|(way, _, counter, letter)| {
        let drop = format!("counter name {counter} drop");
        match scope {
            Scope::Bridges => {
                let bridge = format!("meta {letter}brname");
                let named = bridges::NAMES
                    .map(|(name, _)| format!("\"{name}\""))
                    .join(", ");
                let mut rules = vec![
                    format!("{bridge} {{ {named} }} {drop}"),
                    format!("{bridge} @{BRIDGES} {drop}"),
                ];
                let (start, digits) = bridges::NETWORKS;
                rules.extend(numbered(&bridge, start, digits, "accept"));
                rules.push(drop);
                vec![Chain {
                    name: format!("{way}_port_not_ready"),
                    hook: None,
                    rules,
                }]
            }
            Scope::Names => chains_by_name(way, letter, &drop),
        }
    });
    base.into_iter().chain(not_ready).collect()
}

/// A chain for each naming, and behind them, as nft wants it, the one that jumps there.
fn chains_by_name(way: &str, letter: char, drop: &str) -> Vec<Chain> {
    let field = format!("{letter}ifname");
    let switch = |naming: VethNaming| {
        let of_naming = NAMINGS.into_iter().find(|(one, _)| *one == naming);
        of_naming.map(|(_, set)| {
            format!("meta {letter}ifkind != @{set} return comment \"no container was seen there\"")
        })
    };
    let hexadecimal = |digits: usize| {
        let mut rules = numbered(&field, START, digits, "return");
        let all = " ".repeat(START.len() + digits);
        rules.push(format!(
            "{field} & \"{all}~\" != \"{all}\" return comment \"longer than that\""
        ));
        rules
    };
    let mut chains: Vec<Chain> = VethNaming::ALL
        .into_iter()
        .map(|naming| {
            let names = match naming {
                VethNaming::Docker => hexadecimal(7),
                VethNaming::Cni => hexadecimal(8),
                VethNaming::Netavark => decimal(&field),
            };
            let rules = switch(naming).into_iter().chain(names);
            Chain {
                name: format!("{way}_port_{}", naming.word()),
                hook: None,
                rules: rules.chain([drop.to_owned()]).collect(),
            }
        })
        .collect();
    chains.push(Chain {
        name: format!("{way}_port_not_ready"),
        hook: None,
        rules: VethNaming::ALL
            .map(|naming| format!("jump {way}_port_{}", naming.word()))
            .to_vec(),
    });
    chains
}

/// Leaves, by `verdict`, what is not named `start` and so many hexadecimal digits, and maybe more.
fn numbered(field: &str, start: &str, digits: usize, verdict: &str) -> Vec<String> {
    let not = format!("not {start} and {digits} hexadecimal digits");
    let mut rules = vec![format!(
        "{field} != \"{start}*\" {verdict} comment \"{not}\""
    )];
    for place in start.len()..start.len() + digits {
        let before = " ".repeat(place);
        rules.push(format!(
            "{field} & \"{before}x\" != {{ \"{before}0\", \"{before}8\", \"{before}`\" }} {verdict}"
        ));
    }
    rules
}

/// Returns for what is not named `veth` and up to [`MOST_DIGITS`] decimal digits. A name that ends earlier has zero bytes
/// from there on: of it are left as many spaces as it has characters.
fn decimal(field: &str) -> Vec<String> {
    let not = format!("not {START} and a number");
    let mut rules = vec![format!("{field} != \"{START}*\" return comment \"{not}\"")];
    let shortest = START.len() + 1;
    let ended = |place: usize| -> Vec<String> {
        let lengths = shortest..=place;
        lengths
            .map(|length| format!("\"{}\"", " ".repeat(length)))
            .collect()
    };
    for place in START.len()..START.len() + MOST_DIGITS {
        let before = " ".repeat(place);
        let mut all = ended(place);
        all.extend(["0", "8"].map(|left| format!("\"{before}{left}\"")));
        let all = all.join(", ");
        rules.push(format!("{field} & \"{before}x\" != {{ {all} }} return"));
    }
    let longest = START.len() + MOST_DIGITS;
    let (before, all) = (" ".repeat(longest), ended(longest).join(", "));
    rules.push(format!(
        "{field} & \"{before}~\" != {{ {all} }} return comment \"longer than that\""
    ));
    rules
}

fn set(name: &str, of: &str, what: &str, elements: impl Iterator<Item = String>) -> String {
    let elements: Vec<String> = elements.collect();
    let elements = if elements.is_empty() {
        String::new()
    } else {
        format!("\t\telements = {{ {} }}\n", elements.join(", "))
    };
    format!("\tset {name} {{\n\t\ttype {of}\n\t\tcomment \"{what}\"\n{elements}\t}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel makes of the lines of [`numbered`].
    fn passes_lines(name: &str, start: &str, digits: usize) -> bool {
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        name.starts_with(start)
            && (start.len()..start.len() + digits).all(|place| {
                bytes[..place].iter().all(|byte| byte & b' ' == b' ')
                    && b"08`".contains(&(bytes[place] & b'x'))
            })
    }

    #[test]
    fn the_mask_lets_hexadecimal_digits_through_and_hardly_anything_else() {
        let through: String = (0x21..0x7f_u8)
            .map(char::from)
            .filter(|letter| passes_lines(&format!("br-{letter}"), "br-", 1))
            .collect();
        assert_eq!(through, "0123456789:;<=>?`abcdefg");
        assert!(passes_lines("br-0123456789ab", "br-", 12));
        for name in [
            "br-0123456789a",
            "br-backend-prod",
            "br-frontend-lan",
            "br-lan",
            "br-int",
            "br0123456789ab",
            "br-ABCDEF012345",
        ] {
            assert!(!passes_lines(name, "br-", 12), "{name}");
        }
    }

    #[test]
    fn only_bridges_of_engines_are_engines() {
        for name in [
            "docker0",
            "docker_gwbridge",
            "br-0123456789ab",
            "cni0",
            "cni-podman0",
            "podman1",
            "nerdctl0",
        ] {
            assert!(is_engines(name), "{name}");
            assert!(!may_be_added(name), "{name}: is there already");
        }
        for name in ["virbr0", "lxcbr0", "lxdbr0", "incusbr0", "vmbr0"] {
            assert!(!is_engines(name) && !may_be_added(name), "{name}");
        }
        for name in [
            "br-lan", "br0", "br-eth0", "br-int", "br-ex", "shop", "docker1",
        ] {
            assert!(!is_engines(name) && may_be_added(name), "{name}");
        }
        for name in ["", "a\"b", "a b", "a*", "{", "sixteen-bytes-xx"] {
            assert!(!may_be_added(name), "{name}");
        }
    }

    #[test]
    fn it_explains_itself() {
        let contents = Contents {
            ready: [4, 17].into(),
            bridges: ["shop".to_owned()].into(),
            namings: [VethNaming::Cni].into(),
        };
        insta::assert_snapshot!("bridges", render("netpold", Scope::Bridges, &contents));
        let names = render("netpold", Scope::Names, &contents);
        insta::assert_snapshot!("names", names);
    }
}
