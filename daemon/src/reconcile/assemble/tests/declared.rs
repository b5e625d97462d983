//! Endpoints that manifests declare.

use super::*;

#[test]
fn a_declared_pod_is_read_from_inside() {
    let mut observed = Observed {
        store: manifests(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: x, annotations: {netpold.io/netns: /run/netns/a}}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {name: b, annotations: {netpold.io/netns: /run/netns/b}}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {name: c}\nstatus: {podIPs: [{ip: 10.0.0.9}]}\n",
        ),
        ..Observed::default()
    };
    let inside = Inside {
        ifindex: 2,
        name: "eth0".to_owned(),
        kind: Some("veth".to_owned()),
        mac: Some([2, 0, 0, 0, 0, 7]),
        iflink: Some(11),
        addresses: vec!["10.0.0.7".parse().unwrap(), "fe80::7".parse().unwrap()],
        up: true,
        ..Inside::default()
    };
    let lo = Inside {
        addresses: vec!["127.0.0.1".parse().unwrap()],
        ..inside.clone()
    };
    observed.declared = vec![
        Declared {
            name: "x/a".parse().unwrap(),
            path: PathBuf::from("/run/netns/a"),
            namespace: Ok(Namespace {
                inside: vec![lo, inside],
                ..namespace(Some(1))
            }),
        },
        Declared {
            name: "default/b".parse().unwrap(),
            path: PathBuf::from("/run/netns/b"),
            namespace: Err("is not there".to_owned()),
        },
    ];
    observed.links.veths = vec![veth(11, Some(1), None), veth(12, Some(2), None)];
    let mut register = Register::default();
    let found = go(&observed, &mut register);
    assert_eq!(
        attached(&found, "x/a").interfaces,
        [(11, [2, 0, 0, 0, 0, 7])].into()
    );
    let addresses = &found.world.pods[&"x/a".parse().unwrap()].addresses;
    assert_eq!(addresses.len(), 2);
    let absent = &found.world.pods[&"default/b".parse().unwrap()];
    assert!(absent.addresses.is_empty() && absent.place == Place::Local);
    assert!(
        found.warnings[0].contains("/run/netns/b"),
        "{:?}",
        found.warnings
    );
    let peer = &found.world.pods[&"default/c".parse().unwrap()];
    assert_eq!(peer.place, Place::External);
    assert_eq!(
        found.interfaces.len(),
        1,
        "the other veth is not netpold's business"
    );
    // What it takes turns with others for is not its own; a prefix takes none of its own away. So short a one is said.
    observed.store = manifests(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: x\n  annotations:\n    \
         netpold.io/netns: /run/netns/a\n    netpold.io/addresses: '10.0.0.7,0.0.0.0/0'\n",
    );
    let turns = go(&observed, &mut register.clone());
    let pod = &turns.world.pods[&"x/a".parse().unwrap()];
    assert_eq!(pod.addresses, ["fe80::7".parse().unwrap()].into());
    assert_eq!(pod.leaves.len(), 2);
    let said = turns
        .warnings
        .iter()
        .filter(|text| text.contains("0.0.0.0/0"));
    assert_eq!(said.count(), 1, "{:?}", turns.warnings);
    // No longer declared: it is let go, not held, though no engine has answered.
    observed.store = Arc::default();
    observed.declared.clear();
    observed.docker = vec![Engine {
        followed: true,
        ..Engine::default()
    }];
    assert!(go(&observed, &mut register).interfaces.is_empty());
}
