//! Bytes as a container's name and labels, a line each (`key=value`). Whatever they are: what comes
//! out is what Kubernetes would take, is bounded, and can be shown.

use std::collections::{BTreeMap, BTreeSet};

use netpold::config::{LabelSettings, Namespaces};
use netpold::runtime::cgroup;
use netpold::runtime::container::Container;
use netpold::runtime::identity::{PORTS_LABEL, identify, unique};
use netpold::syntax;

pub fn hold(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let name = lines.next().unwrap_or_default();
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    for line in lines {
        let (key, value) = line.split_once('=').unwrap_or((PORTS_LABEL, line));
        given.insert(key.to_owned(), value.to_owned());
    }
    let container = Container {
        name: name.to_owned(),
        labels: given.clone(),
        ..Container::default()
    };
    let found = identify(
        &container,
        &LabelSettings::default(),
        &Namespaces::default(),
    );
    assert!(syntax::dns_label(&found.name.namespace).is_ok());
    for (key, value) in &found.labels {
        assert!(syntax::label_key(key).is_ok(), "{key:?}");
        assert!(syntax::label_value(value).is_ok(), "{value:?}");
        let own = given.get(key).is_none_or(|own| own == value);
        assert!(own, "{key:?} is not what the container says");
    }
    let mut ports = BTreeSet::new();
    for port in &found.ports {
        assert!(syntax::port_name(&port.name).is_ok() && port.port > 0);
        assert!(ports.insert((&port.name, port.protocol)), "{port:?} twice");
    }
    assert!(ports.len() <= 256 && found.notes.len() <= given.len() + 1000);
    for note in &found.notes {
        assert!(!note.to_string().contains(char::is_control), "{note:?}");
    }
    let taken = BTreeSet::from([found.name.clone()]);
    assert!(!taken.contains(&unique(&found.name, &text, &taken)));
    for id in cgroup::containers(&text, "") {
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
