//! Endpoints that containerd reports.

use super::*;

#[test]
fn a_task_has_the_addresses_that_are_inside() {
    let observed = containerd(vec![task("web", "web")], |number| number as i32);
    let found = go(&observed, &mut Register::default());
    let web = &found.world.pods[&"default/web".parse().unwrap()];
    assert_eq!(
        web.labels,
        Labels::from([("app".to_owned(), "web".to_owned())])
    );
    let addresses: Vec<String> = web.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.88.0.1", "fe80::ff:fe00:1"]);
    assert_eq!(
        attached(&found, "default/web").interfaces,
        [(11, [2, 0, 0, 0, 0, 1])].into()
    );
}

#[test]
fn what_a_task_gives_itself_once_it_runs_is_not_its_own() {
    let own: IpAddr = "10.88.0.1".parse().unwrap();
    let taken: IpAddr = "10.88.0.99".parse().unwrap();
    for runs in [false, true] {
        let mut web = task("web", "web");
        if !runs {
            web.state = State::Created;
        }
        let mut observed = containerd(vec![web], |number| number as i32);
        let mut register = Register::default();
        go(&observed, &mut register);
        let inside = observed.containers.values_mut().next().unwrap();
        inside.inside[0].addresses.push(taken);
        let found = go(&observed, &mut register);
        let addresses = &found.world.pods[&"default/web".parse().unwrap()].addresses;
        // While it is made ready, the hook that does so may give it another one.
        assert_eq!(addresses.contains(&taken), !runs, "runs: {runs}");
        assert!(addresses.contains(&own));
    }
}

#[test]
fn a_network_that_a_running_task_gets_later_counts() {
    let mut observed = containerd(vec![task("web", "web")], |number| number as i32);
    let mut register = Register::default();
    let mut later = observed.containers.values().next().unwrap().inside[0].clone();
    go(&observed, &mut register);
    (later.ifindex, later.iflink) = (3, Some(50));
    later.addresses = vec!["10.99.0.1".parse().unwrap()];
    observed
        .containers
        .values_mut()
        .next()
        .unwrap()
        .inside
        .push(later);
    observed.links.veths.push(Veth {
        peer_ifindex: Some(3),
        ..veth(50, Some(1), None)
    });
    let found = go(&observed, &mut register);
    let addresses = &found.world.pods[&"default/web".parse().unwrap()].addresses;
    assert!(addresses.contains(&"10.99.0.1".parse().unwrap()));
    assert_eq!(attached(&found, "default/web").interfaces.len(), 2);
}

#[test]
fn of_those_in_one_namespace_the_sandbox_or_the_first_is_the_endpoint() {
    // The container was listed first.
    let pod = vec![part("main", "web", false), part("pause", "db", true)];
    let observed = containerd(pod, |_| 1);
    let mut register = Register::default();
    let found = go(&observed, &mut register);
    assert_eq!(names(&found), ["shop/store-0"]);
    assert_eq!(
        found.world.pods[&"shop/store-0".parse().unwrap()].labels["app"],
        "db"
    );
    // The endpoint stays the same, whatever joins.
    let both = vec![part("late", "x", true), task("first", "web")];
    let mut register = Register::default();
    go(&containerd(both[1..].to_vec(), |_| 1), &mut register);
    let found = go(&containerd(both, |_| 1), &mut register);
    assert_eq!(names(&found), ["default/first"]);
}

#[test]
fn a_container_that_says_it_is_of_a_pod_and_is_elsewhere_is_its_own_endpoint() {
    let pod = vec![part("pause", "db", true), part("liar", "web", false)];
    let observed = containerd(pod, |number| number as i32);
    let found = go(&observed, &mut Register::default());
    assert_eq!(names(&found), ["shop/store-0", "shop/store-0-liar"]);
}

#[test]
fn a_pod_on_the_host_is_reported_once() {
    let mut observed = containerd(
        vec![
            part("pause", "db", true),
            part("main", "db", false),
            task("plain", "x"),
        ],
        |_| 1,
    );
    for namespace in observed.containers.values_mut() {
        namespace.nsid = None;
    }
    observed.links.veths.clear();
    let found = go(&observed, &mut Register::default());
    let reported: Vec<&str> = found
        .unprotected
        .iter()
        .map(|one| one.container.as_str())
        .collect();
    assert_eq!(reported, ["shop/store-0", "default/plain"]);
}

#[test]
fn an_interface_without_a_veth_is_reported() {
    let mut observed = containerd(vec![task("web", "web")], |number| number as i32);
    let inside = &mut observed.containers.values_mut().next().unwrap().inside;
    let lo = Inside {
        kind: None,
        addresses: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        ..inside[0].clone()
    };
    let lan = Inside {
        name: "net1".to_owned(),
        kind: Some("macvtap".to_owned()),
        leads_out: true,
        ..inside[0].clone()
    };
    inside.extend([lo, lan]);
    let found = go(&observed, &mut Register::default());
    assert_eq!(found.unprotected.len(), 1);
    assert!(found.unprotected[0].reason.contains("`net1`"));
}

#[test]
fn until_containerd_has_listed_its_endpoints_stay_and_docker_has_no_say() {
    let listed = containerd(vec![task("web", "web")], |number| number as i32);
    let mut register = Register::default();
    let before = go(&listed, &mut register);
    let mut silent = listed.clone();
    silent.containers.clear();
    silent.containerd = Engine {
        runtime: Runtime::Containerd,
        followed: true,
        ..Engine::default()
    };
    silent.docker[0] = Engine {
        followed: true,
        listed: true,
        ..Engine::default()
    };
    let now = go(&silent, &mut register);
    assert_eq!(
        attached(&now, "default/web"),
        attached(&before, "default/web")
    );
    silent.containerd.listed = true;
    assert!(go(&silent, &mut register).world.pods.is_empty());
}
