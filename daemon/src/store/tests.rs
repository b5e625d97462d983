//! The directory's promises, on a real directory with real events.
//!
//! Manifests are in a toy language here (a line `object NAME` is a Namespace, anything
//! else an error): the store must not depend on what is in a file.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;

use netpol_engine::diagnostic::rule as content;
use netpol_engine::manifest::{Position, Value};
use netpol_engine::policy::Mode;

use super::*;

fn toy(path: &str, text: &str) -> File {
    let mut file = File {
        path: path.to_owned(),
        ..File::default()
    };
    for (index, line) in text.lines().enumerate() {
        match line.strip_prefix("object ") {
            Some(name) => file.documents.push(Object {
                position: Position {
                    line: index + 1,
                    column: 1,
                },
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                created: None,
                value: Value::Namespace {
                    name: name.to_owned(),
                    mode: Mode::Enforce,
                },
            }),
            None => file
                .diagnostics
                .push(finding(path, content::SYNTAX, "bad line", "")),
        }
    }
    file
}

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("m")).unwrap();
        Self { root }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join("m").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    fn open(&self) -> Store {
        Store::open(&self.at(""), &[], &self.root.path().join("s"), toy).unwrap()
    }
}

fn names(view: &StoreView) -> Vec<String> {
    let mut names: Vec<String> = view
        .objects()
        .map(|(object, ..)| object.id().name.name)
        .collect();
    names.sort();
    names
}

fn rejected(view: &StoreView) -> Vec<(String, &'static str)> {
    let name = |path: &str| {
        Path::new(path)
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    view.rejected
        .iter()
        .map(|rejected| (name(&rejected.path), rejected.diagnostics[0].rule))
        .collect()
}

/// Looks whenever the store says so, until it is settled.
async fn settled(store: &mut Store) -> Arc<StoreView> {
    loop {
        let view = store.reload();
        if view.settled {
            return view;
        }
        hint(store).await;
    }
}

async fn hint(store: &mut Store) {
    tokio::time::timeout(Duration::from_secs(10), store.changed())
        .await
        .expect("no hint came");
}

/// As `netpold` would: sleeps until there is a hint. Gives all that was in force meanwhile.
async fn until(store: &mut Store, expected: &[&str]) -> Vec<Vec<String>> {
    let mut history = Vec::new();
    loop {
        hint(store).await;
        let view = store.reload();
        history.push(names(&view));
        if view.settled && names(&view) == expected {
            return history;
        }
    }
}

#[tokio::test]
async fn a_file_counts_when_its_writer_closes_it() {
    let place = Place::new();
    let mut store = place.open();
    assert!(settled(&mut store).await.accepted.is_empty());
    let mut writer = fs::File::create(place.at("a.yaml")).unwrap();
    writer.write_all(b"object a\n").unwrap();
    let view = store.reload();
    assert!(view.accepted.is_empty() && !view.settled);
    writer.write_all(b"object b\n").unwrap();
    drop(writer);
    let history = until(&mut store, &["a", "b"]).await;
    assert!(!history.contains(&vec!["a".to_owned()]));
}

#[tokio::test]
async fn a_file_that_is_not_valid_changes_nothing_even_over_a_restart() {
    let place = Place::new();
    place.write("a.yaml", "object a\n");
    let mut store = place.open();
    assert_eq!(names(&*settled(&mut store).await), ["a"]);
    place.write("a.yaml", "object b\nnonsense\n");
    let view = settled(&mut store).await;
    assert_eq!(names(&view), ["a"]);
    assert_eq!(rejected(&view), [("a.yaml".to_owned(), content::SYNTAX)]);
    assert!(view.rejected[0].in_force && view.rejected[0].text.is_some());
    drop(store);
    let mut store = place.open();
    assert_eq!(names(&store.view()), ["a"], "before the first look");
    let view = settled(&mut store).await;
    assert_eq!(
        (names(&view), rejected(&view).len()),
        (vec!["a".to_owned()], 1)
    );
    place.write("a.yaml", "object b\n");
    let view = settled(&mut store).await;
    assert_eq!(
        (names(&view), rejected(&view).len()),
        (vec!["b".to_owned()], 0)
    );
}

#[tokio::test]
async fn removing_a_file_withdraws_and_cutting_it_does_not() {
    let place = Place::new();
    place.write("a.yaml", "object a\n");
    place.write("b.yaml", "object b\n");
    let mut store = place.open();
    settled(&mut store).await;
    place.write("a.yaml", "");
    let view = settled(&mut store).await;
    assert_eq!(names(&view), ["a", "b"]);
    assert_eq!(rejected(&view), [("a.yaml".to_owned(), rule::CUT)]);
    drop(store);
    let mut store = place.open();
    let view = settled(&mut store).await;
    assert_eq!(
        (names(&view), rejected(&view).len()),
        (vec!["a".into(), "b".into()], 1)
    );
    fs::remove_file(place.at("a.yaml")).unwrap();
    fs::remove_file(place.at("b.yaml")).unwrap();
    until(&mut store, &[]).await;
    assert!(store.view().rejected.is_empty());
    drop(store);
    assert!(place.open().view().accepted.is_empty());
}

#[tokio::test]
async fn a_new_file_that_is_empty_is_reported() {
    let place = Place::new();
    place.write("a.yaml", "\n");
    let mut store = place.open();
    let view = settled(&mut store).await;
    assert_eq!(rejected(&view), [("a.yaml".to_owned(), rule::CUT)]);
    assert!(!view.rejected[0].in_force);
}

#[tokio::test]
async fn of_two_files_the_one_accepted_first_stays() {
    let place = Place::new();
    let mut store = place.open();
    place.write("z.yaml", "object a\n");
    settled(&mut store).await;
    place.write("b.yaml", "object c\nobject a\n");
    for restart in [false, true] {
        if restart {
            store = place.open();
        }
        let view = settled(&mut store).await;
        assert_eq!(names(&view), ["a"]);
        assert_eq!(
            rejected(&view),
            [("b.yaml".to_owned(), content::DUPLICATE_OBJECT)]
        );
        let said = view.rejected[0].diagnostics[0].to_string();
        assert!(
            said.contains("b.yaml:2:1") && said.contains("z.yaml:1:1"),
            "{said}"
        );
    }
    fs::remove_file(place.at("z.yaml")).unwrap();
    let history = until(&mut store, &["a", "c"]).await;
    assert!(history.iter().all(|names| names.contains(&"a".to_owned())));
}

#[tokio::test]
async fn an_object_given_twice_in_one_file_is_an_error() {
    let place = Place::new();
    place.write("a.yaml", "object a\nobject a\n");
    let view = settled(&mut place.open()).await;
    assert_eq!(
        rejected(&view),
        [("a.yaml".to_owned(), content::DUPLICATE_OBJECT)]
    );
    assert!(view.accepted.is_empty());
}

#[tokio::test]
async fn files_that_exchange_their_objects_are_taken_together() {
    let place = Place::new();
    place.write("a.yaml", "object a\n");
    place.write("b.yaml", "object b\n");
    let mut store = place.open();
    let before = settled(&mut store).await;
    place.write("a.yaml", "object b\n");
    place.write("b.yaml", "object a\n");
    let view = settled(&mut store).await;
    assert_eq!(
        (names(&view), rejected(&view).len()),
        (vec!["a".into(), "b".into()], 0)
    );
    let since = |view: &StoreView| {
        let since = view
            .objects()
            .map(|(object, _, since)| (object.id(), since));
        since.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(since(&before), since(&view));
    assert_eq!(view.revision, before.revision + 1);
}

#[tokio::test]
async fn a_renamed_file_never_lets_go() {
    let place = Place::new();
    place.write("a.yaml", "object a\n");
    let mut store = place.open();
    settled(&mut store).await;
    fs::rename(place.at("a.yaml"), place.at("b.yaml")).unwrap();
    loop {
        hint(&mut store).await;
        let view = store.reload();
        assert_eq!(names(&view), ["a"]);
        assert!(view.rejected.is_empty(), "{:?}", view.rejected);
        if view.accepted[0].key == "b.yaml" {
            break;
        }
    }
}

#[tokio::test]
async fn editors_never_make_a_policy_vanish() {
    let place = Place::new();
    place.write("a.yaml", "object a\n");
    let mut store = place.open();
    settled(&mut store).await;
    // Vim: a probe, the old one renamed away, a new one written under the old name.
    place.write("4913", "");
    fs::remove_file(place.at("4913")).unwrap();
    place.write(".a.yaml.swp", "object x\n");
    fs::rename(place.at("a.yaml"), place.at("a.yaml~")).unwrap();
    let view = store.reload();
    assert_eq!((names(&view), view.settled), (vec!["a".to_owned()], false));
    place.write("a.yaml", "object b\n");
    let history = until(&mut store, &["b"]).await;
    assert!(!history.contains(&Vec::new()));
    // Emacs: a lock that is a dangling link, an auto-save file.
    symlink("me@host.1:2", place.at(".#a.yaml")).unwrap();
    place.write("#a.yaml#", "object x\n");
    // sed -i, GLib: a new file moved over the old one.
    place.write("sedQx1", "object c\n");
    place.write(".goutputstream-1.yaml", "object x\n");
    fs::rename(place.at("sedQx1"), place.at("a.yaml")).unwrap();
    let history = until(&mut store, &["c"]).await;
    assert!(!history.contains(&Vec::new()));
    assert!(store.view().rejected.is_empty());
}

#[tokio::test]
async fn a_swapped_link_is_one_change() {
    let place = Place::new();
    for (version, object) in [("..v1", "one"), ("..v2", "two")] {
        fs::create_dir(place.at(version)).unwrap();
        place.write(&format!("{version}/a.yaml"), &format!("object {object}\n"));
    }
    symlink("..v1", place.at("..data")).unwrap();
    symlink("..data/a.yaml", place.at("a.yaml")).unwrap();
    let mut store = place.open();
    assert_eq!(names(&*settled(&mut store).await), ["one"]);
    symlink("..v2", place.at("..tmp")).unwrap();
    fs::rename(place.at("..tmp"), place.at("..data")).unwrap();
    let history = until(&mut store, &["two"]).await;
    assert!(!history.contains(&Vec::new()));
}

#[tokio::test]
async fn new_folders_and_files_elsewhere_are_followed() {
    let place = Place::new();
    let mut store = place.open();
    settled(&mut store).await;
    fs::create_dir_all(place.at("x/y")).unwrap();
    place.write("x/y/a.yaml", "object a\n");
    until(&mut store, &["a"]).await;
    place.write("x/y/b.yaml", "object b\n");
    until(&mut store, &["a", "b"]).await;
    let outside = place.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("c"), "object c\n").unwrap();
    symlink(outside.join("c"), place.at("c.yaml")).unwrap();
    until(&mut store, &["a", "b", "c"]).await;
    fs::write(outside.join("c"), "object d\n").unwrap();
    until(&mut store, &["a", "b", "d"]).await;
}

#[tokio::test]
async fn a_directory_that_is_not_there_withdraws_nothing() {
    let place = Place::new();
    fs::remove_dir(place.at("")).unwrap();
    let mut store = place.open();
    let view = settled(&mut store).await;
    assert_eq!(rejected(&view), [("m".to_owned(), rule::NO_DIRECTORY)]);
    fs::create_dir(place.at("")).unwrap();
    place.write("a.yaml", "object a\n");
    until(&mut store, &["a"]).await;
    assert!(store.view().rejected.is_empty());
    fs::rename(place.at(""), place.root.path().join("away")).unwrap();
    hint(&mut store).await;
    let view = settled(&mut store).await;
    assert_eq!(names(&view), ["a"]);
    assert_eq!(rejected(&view), [("m".to_owned(), rule::NO_DIRECTORY)]);
    assert!(view.rejected[0].in_force);
    fs::rename(place.root.path().join("away"), place.at("")).unwrap();
    hint(&mut store).await;
    let view = settled(&mut store).await;
    assert_eq!(
        (names(&view), rejected(&view).len()),
        (vec!["a".to_owned()], 0)
    );
}

#[tokio::test]
async fn what_cannot_be_read_withdraws_nothing() {
    let place = Place::new();
    for name in ["a.yaml", "b.yaml", "c.yaml"] {
        place.write(name, &format!("object {name}\n"));
    }
    let mut store = place.open();
    settled(&mut store).await;
    fs::write(place.at("a.yaml"), b"object \xff\n").unwrap();
    fs::remove_file(place.at("b.yaml")).unwrap();
    symlink("nowhere", place.at("b.yaml")).unwrap();
    fs::File::create(place.at("c.yaml"))
        .unwrap()
        .set_len(lease::LARGEST + 1)
        .unwrap();
    let view = settled(&mut store).await;
    assert_eq!(names(&view), ["a.yaml", "b.yaml", "c.yaml"]);
    let expected = [
        ("a.yaml".to_owned(), rule::NOT_TEXT),
        ("b.yaml".to_owned(), rule::UNREADABLE),
        ("c.yaml".to_owned(), rule::TOO_LARGE),
    ];
    assert_eq!(rejected(&view), expected);
}

#[tokio::test]
async fn what_cannot_be_saved_is_in_force_and_told() {
    let place = Place::new();
    let mut store = place.open();
    fs::write(place.root.path().join("s"), "in the way").unwrap();
    place.write("a.yaml", "object a\n");
    let view = settled(&mut store).await;
    assert_eq!(names(&view), ["a"]);
    assert!(
        view.warnings
            .iter()
            .any(|warning| warning.rule == rule::NOT_SAVED)
    );
    fs::remove_file(place.root.path().join("s")).unwrap();
    assert!(store.reload().warnings.is_empty());
    assert_eq!(names(&place.open().view()), ["a"]);
}

/// An upgrade may bring rules that what was accepted breaks.
#[tokio::test]
async fn what_an_earlier_version_accepted_stays_where_this_one_is_stricter() {
    fn stricter(path: &str, text: &str) -> File {
        let mut file = toy(path, text);
        if text.contains("object a") {
            // Nothing is made of what is not valid.
            file.documents.retain(|object| object.id().name.name != "a");
            let finding = finding(path, content::SYNTAX, "not any more", "");
            file.diagnostics.push(finding);
        }
        file
    }
    let place = Place::new();
    place.write("a.yaml", "object a\nobject b\n");
    assert_eq!(names(&*settled(&mut place.open()).await), ["a", "b"]);
    let mut store =
        Store::open(&place.at(""), &[], &place.root.path().join("s"), stricter).unwrap();
    assert_eq!(names(&store.view()), ["a", "b"], "before the first look");
    let view = settled(&mut store).await;
    assert_eq!(names(&view), ["a", "b"]);
    let said = view
        .warnings
        .iter()
        .any(|warning| warning.rule == content::SYNTAX);
    assert!(said, "{:?}", view.warnings);
    // What is changed has to be right.
    place.write("a.yaml", "object a\nobject c\n");
    let view = settled(&mut store).await;
    assert_eq!((names(&view).len(), rejected(&view).len()), (2, 1));
    place.write("a.yaml", "object c\n");
    assert_eq!(names(&*settled(&mut store).await), ["c"]);
}

/// Every order of seeing the same files ends in a state where nothing collides, nothing
/// that was in force is lost to a new one, and nothing that could be in force is left out.
#[test]
fn the_order_of_seeing_does_not_matter_for_what_collides() {
    let texts = [
        "object a\nobject b\n",
        "object b\nobject c\n",
        "object c\nobject d\n",
        "object d\n",
    ];
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]];
    for order in orders {
        for together in [false, true] {
            let mut acceptance = Acceptance::new(toy, []);
            let see = |index: usize, turn: u64| {
                let text = texts[index].to_owned();
                let arrived = UNIX_EPOCH + Duration::from_secs(turn);
                (format!("{index}.yaml"), Observation::Text { text, arrived })
            };
            let seen = (0..).zip(order).map(|(turn, index)| see(index, turn));
            if together {
                acceptance.observe(seen.collect(), str::to_owned, UNIX_EPOCH);
            } else {
                for one in seen {
                    acceptance.observe([one].into(), str::to_owned, UNIX_EPOCH);
                }
            }
            let accepted = acceptance.accepted();
            let first = format!("{}.yaml", order[0]);
            assert_eq!(accepted[0].key, first, "{order:?}");
            let assembled = netpol_engine::manifest::assemble(accepted.iter().map(|one| &one.file));
            assert!(assembled.diagnostics.is_empty(), "{order:?}");
            assert_eq!(accepted.len() + acceptance.rejected().len(), 4, "{order:?}");
            for lost in acceptance.rejected() {
                let index: usize = lost.path[..1].parse().unwrap();
                let taken = texts[index].lines().any(|line| {
                    accepted
                        .iter()
                        .any(|one| one.text.lines().any(|other| other == line))
                });
                assert!(taken, "{order:?}: {} could be in force", lost.path);
            }
        }
    }
}

/// A link that leads elsewhere, or to nothing that is followed, takes nothing out of force.
#[tokio::test]
async fn what_was_in_force_behind_a_link_stays() {
    let place = Place::new();
    let outside = place.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("b.yaml"), "object b\n").unwrap();
    symlink(&outside, place.at("x")).unwrap();
    let open = |follow: &[PathBuf]| {
        Store::open(&place.at(""), follow, &place.root.path().join("s"), toy).unwrap()
    };
    let mut store = open(std::slice::from_ref(&outside));
    assert_eq!(names(&*settled(&mut store).await), ["b"]);
    let mut store = open(&[]);
    let view = settled(&mut store).await;
    assert_eq!(names(&view), ["b"]);
    assert_eq!(rejected(&view), [("x".to_owned(), rule::OUTSIDE)]);
    assert!(view.rejected[0].in_force);
    fs::remove_file(place.at("x")).unwrap();
    until(&mut store, &[]).await;
}

#[tokio::test]
async fn a_file_with_many_names_is_read_once() {
    let place = Place::new();
    place.write("m.yaml", "object a\n");
    let mut store = place.open();
    settled(&mut store).await;
    for number in 0..50 {
        symlink("m.yaml", place.at(&format!("a{number}.yaml"))).unwrap();
        fs::hard_link(place.at("m.yaml"), place.at(&format!("b{number}.yaml"))).unwrap();
    }
    let view = settled(&mut store).await;
    assert_eq!(
        (names(&view), view.rejected.len()),
        (vec!["a".to_owned()], 100)
    );
    assert_eq!(view.accepted[0].key, "m.yaml");
    for one in &view.rejected {
        assert_eq!(one.diagnostics[0].rule, rule::SAME_FILE);
        assert_eq!(one.text, None, "read, too");
    }
    // The one that is read goes: another one takes its place, and nothing lets go.
    fs::remove_file(place.at("m.yaml")).unwrap();
    loop {
        let view = store.reload();
        assert_eq!(names(&view), ["a"]);
        if view.settled && view.accepted[0].key == "b0.yaml" {
            break;
        }
        hint(&mut store).await;
    }
}

/// More than is looked at: what was in force stays, in its last version that was read.
#[tokio::test]
async fn a_directory_that_grows_loses_nothing() {
    let place = Place::new();
    place.write("m.yaml", "object m\n");
    let mut store = place.open();
    settled(&mut store).await;
    store.place.bounds.files = 2;
    for name in ["a", "b", "c"] {
        place.write(&format!("{name}.yaml"), &format!("object {name}\n"));
    }
    let view = settled(&mut store).await;
    assert_eq!(names(&view), ["a", "b", "m"]);
    assert_eq!(rejected(&view), [("m".to_owned(), rule::TOO_MANY)]);
    assert!(view.rejected[0].diagnostics[0].message.contains("`c.yaml`"));
    store.place.bounds.files = 9;
    let view = settled(&mut store).await;
    assert_eq!((names(&view).len(), view.rejected.len()), (4, 0));

    // All bytes together. What is known counts first.
    let known: u64 = 4 * "object a\n".len() as u64;
    // Old enough that a later change shows: until then it is read each time.
    tokio::time::sleep(Duration::from_millis(3200)).await;
    settled(&mut store).await;
    store.place.bounds.bytes = known + 10;
    place.write("0.yaml", "object 0\n#a long remark\n");
    place.write("1.yaml", "object 1\n");
    let view = settled(&mut store).await;
    assert_eq!(names(&view), ["1", "a", "b", "c", "m"]);
    assert_eq!(rejected(&view), [("0.yaml".to_owned(), rule::TOO_MANY)]);

    // No time at all.
    store.place.bounds.time = Duration::ZERO;
    let view = store.reload();
    assert_eq!(names(&view), ["1", "a", "b", "c", "m"]);
    assert!(rejected(&view).contains(&("m".to_owned(), rule::TOO_MANY)));
}

#[tokio::test]
async fn names_that_are_passed_over_are_told_once_they_stand() {
    let place = Place::new();
    for name in [
        "F.YAML",
        "x.ymal",
        "policy.txt",
        "z",
        ".hidden",
        "a.yaml~",
        "a.yaml.bak",
    ] {
        place.write(name, "object x\n");
    }
    symlink("nowhere", place.at("dangling")).unwrap();
    let mut store = place.open();
    assert!(store.reload().warnings.is_empty(), "it may be a moment's");
    let begun = Instant::now();
    let warnings = loop {
        hint(&mut store).await;
        let view = store.reload();
        assert!(view.accepted.is_empty());
        if !view.warnings.is_empty() {
            break view.warnings.clone();
        }
    };
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert_eq!(warning.rule, rule::PASSED_OVER);
    let text = warning.to_string();
    assert!(
        text.contains("F.YAML") && text.contains("and 2 more"),
        "{text}"
    );
    assert!(!text.contains("hidden") && !text.contains("bak"), "{text}");
}

#[tokio::test]
async fn who_may_write_manifests_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    place.write("a.yaml", "object a\n");
    fs::create_dir(place.at("sub")).unwrap();
    let mut store = place.open();
    assert!(settled(&mut store).await.warnings.is_empty());
    for (path, mode, usual) in [
        ("a.yaml", 0o664, 0o644),
        ("sub", 0o777, 0o755),
        ("", 0o1777, 0o755),
    ] {
        let set = |mode| fs::set_permissions(place.at(path), fs::Permissions::from_mode(mode));
        set(mode).unwrap();
        let view = settled(&mut store).await;
        let [warning] = &view.warnings[..] else {
            panic!("{path}: {:?}", view.warnings);
        };
        assert_eq!(warning.rule, rule::WRITABLE);
        let whole: PathBuf = place.at(path).components().collect();
        assert_eq!(warning.path, whole.to_str().unwrap());
        set(usual).unwrap();
        assert!(settled(&mut store).await.warnings.is_empty());
    }
    // Another user can put another folder in its place.
    fs::set_permissions(place.root.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let view = settled(&mut store).await;
    assert_eq!(
        view.warnings[0].path,
        place.root.path().canonicalize().unwrap().to_str().unwrap()
    );
}

/// A change through another name of the file gives no event here; it is found by looking.
#[tokio::test]
async fn a_change_without_an_event_is_found() {
    let place = Place::new();
    let elsewhere = place.root.path().join("elsewhere");
    fs::write(&elsewhere, "object a\n").unwrap();
    fs::hard_link(&elsewhere, place.at("a.yaml")).unwrap();
    let mut store = place.open();
    settled(&mut store).await;
    // A mount elsewhere on this machine meanwhile has the store look, too: then it is tried once more.
    let mut undisturbed = false;
    for name in ["c", "d", "e", "f", "g", "b"] {
        fs::write(&elsewhere, format!("object {name}\n")).unwrap();
        let early = tokio::time::timeout(Duration::from_millis(200), store.changed()).await;
        undisturbed = early.is_err();
        if undisturbed {
            break;
        }
        settled(&mut store).await;
    }
    assert!(undisturbed, "there is an event after all");
    fs::write(&elsewhere, "object b\n").unwrap();
    let again = store.again.unwrap().duration_since(Instant::now());
    assert!(again <= SILENT, "{again:?}");
    store.again = Some(Instant::now() + Duration::from_millis(10));
    hint(&mut store).await;
    assert_eq!(names(&*settled(&mut store).await), ["b"]);
}
