//! The forms of a matrix.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use netpol_engine::manifest;
use netpol_engine::policy::Protocol;
use netpol_engine::world::{Pod, World};

use super::*;

/// `count` Pods of each of these, and the policies.
fn world(cast: &[(&str, &str, usize)], policies: &[(&str, &str)]) -> World {
    let mut text = String::new();
    for (namespace, app, count) in cast {
        for number in 0..*count {
            let name = if *count == 1 {
                (*app).to_owned()
            } else {
                format!("{app}-{number}")
            };
            write!(
                text,
                "---\napiVersion: v1\nkind: Pod\n\
                 metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}, number: \"{number}\"}}}}\n"
            )
            .unwrap();
        }
    }
    for (position, (namespace, spec)) in policies.iter().enumerate() {
        write!(
            text,
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: p-{position}, namespace: {namespace}}}\nspec: {spec}\n"
        )
        .unwrap();
    }
    let file = manifest::parse("x.yaml", &text);
    assert!(file.is_accepted(), "{:?}", file.diagnostics);
    manifest::assemble([&file]).world()
}

const FROM_WEB: &str = "{podSelector: {matchLabels: {app: api}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: web}}}]}]}";
const DENY: &str = "{podSelector: {}}";

fn shop() -> World {
    world(
        &[
            ("web", "front", 12),
            ("shop", "api", 3),
            ("shop", "db", 1),
            ("lab", "shell", 1),
        ],
        &[("shop", FROM_WEB), ("web", DENY)],
    )
}

/// Every Pod is let in by another set of others.
fn tangle() -> World {
    let rules: Vec<(&str, String)> = (0..5)
        .map(|number| {
            let spec = format!(
                "{{podSelector: {{matchLabels: {{number: \"{number}\"}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{number: \"{}\"}}}}}}]}}]}}",
                (number + 1) % 5
            );
            ("a-namespace-with-a-long-name", spec)
        })
        .collect();
    let rules: Vec<(&str, &str)> = rules
        .iter()
        .map(|(name, spec)| (*name, spec.as_str()))
        .collect();
    world(&[("a-namespace-with-a-long-name", "pod", 5)], &rules)
}

fn shown(world: &World, narrow: Option<&str>, width: usize) -> String {
    let mut matrix = matrix::matrix(world, Protocol::Tcp, 80).unwrap();
    if let Some(namespace) = narrow {
        matrix.narrow(|name| name.namespace == namespace);
    }
    let mut out = Vec::new();
    table::write(&matrix, width, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    anstream::adapter::strip_str(&text).to_string()
}

#[test]
fn a_square_has_names_where_there_is_room() {
    insta::assert_snapshot!(shown(&shop(), None, 100), @r"
    80/TCP                lab/shell, shop/db   shop/api-* (3 Pods)   web/* (12 Pods)
    lab/shell, shop/db    yes                  no                    no
    shop/api-* (3 Pods)   yes                  no                    no
    web/* (12 Pods)       yes                  yes                   no
    ");
}

#[test]
fn a_square_has_numbers_where_there_is_less() {
    insta::assert_snapshot!(shown(&shop(), None, 50), @r"
    80/TCP                   1 2 3
    1  lab/shell, shop/db    y . .
    2  shop/api-* (3 Pods)   y . .
    3  web/* (12 Pods)       y y .
    y: the row reaches the column   .: it does not
    ");
}

#[test]
fn a_square_s_columns_move_together_before_it_is_given_up() {
    insta::assert_snapshot!(shown(&tangle(), None, 48), @r"
    80/TCP                                 12345
    1  a-namespace-with-a-long-name/pod-0  -...y
    2  a-namespace-with-a-long-name/pod-1  y-...
    3  a-namespace-with-a-long-name/pod-2  .y-..
    4  a-namespace-with-a-long-name/pod-3  ..y-.
    5  a-namespace-with-a-long-name/pod-4  ...y-
    y: the row reaches the column   .: it does not
    ");
    let rules: Vec<(String, String)> = (0..11)
        .map(|number| {
            let spec = format!(
                "{{podSelector: {{matchLabels: {{app: app-{number}}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: app-{}}}}}}}]}}]}}",
                (number + 1) % 11
            );
            (format!("app-{number}"), spec)
        })
        .collect();
    let cast: Vec<(&str, &str, usize)> = rules
        .iter()
        .map(|(app, _)| ("ring", app.as_str(), 2))
        .collect();
    let policies: Vec<(&str, &str)> = rules
        .iter()
        .map(|(_, spec)| ("ring", spec.as_str()))
        .collect();
    insta::assert_snapshot!(shown(&world(&cast, &policies), None, 42), @r"
                                         11
    80/TCP                      12345678901
     1  ring/app-0-* (2 Pods)   ..y........
     2  ring/app-1-* (2 Pods)   y..........
     3  ring/app-10-* (2 Pods)  ..........y
     4  ring/app-2-* (2 Pods)   .y.........
     5  ring/app-3-* (2 Pods)   ...y.......
     6  ring/app-4-* (2 Pods)   ....y......
     7  ring/app-5-* (2 Pods)   .....y.....
     8  ring/app-6-* (2 Pods)   ......y....
     9  ring/app-7-* (2 Pods)   .......y...
    10  ring/app-8-* (2 Pods)   ........y..
    11  ring/app-9-* (2 Pods)   .........y.
    y: the row reaches the column   .: it does not
    ");
}

#[test]
fn who_reaches_whom_is_a_line_where_no_square_fits() {
    insta::assert_snapshot!(shown(&tangle(), None, 40), @r"
    FROM                                 REACHES ON 80/TCP
    a-namespace-with-a-long-name/pod-0   a-namespace-with-a-long-name/pod-4
    a-namespace-with-a-long-name/pod-1   a-namespace-with-a-long-name/pod-0
    a-namespace-with-a-long-name/pod-2   a-namespace-with-a-long-name/pod-1
    a-namespace-with-a-long-name/pod-3   a-namespace-with-a-long-name/pod-2
    a-namespace-with-a-long-name/pod-4   a-namespace-with-a-long-name/pod-3
    ");
}

#[test]
fn a_narrow_square_leaves_out_what_was_not_asked() {
    insta::assert_snapshot!(shown(&shop(), Some("lab"), 100), @r"
    80/TCP                lab/shell   shop/api-* (3 Pods)   shop/db   web/* (12 Pods)
    lab/shell             -           no                    yes       no
    shop/api-* (3 Pods)   yes
    shop/db               yes
    web/* (12 Pods)       yes
    ");
    insta::assert_snapshot!(shown(&shop(), Some("shop"), 20), @r"
    FROM              REACHES ON 80/TCP
    shop/* (4 Pods)   lab/shell,
                      shop/db
    lab/shell         shop/db
    web/* (12 Pods)   shop/* (4 Pods)
    ");
}

#[test]
fn a_legend_names_whom_a_group_s_name_leaves_out() {
    let cast: Vec<(&str, &str, usize)> = [
        "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf",
    ]
    .map(|app| ("lab", app, 1))
    .into();
    let closed = world(
        &cast,
        &[(
            "lab",
            "{podSelector: {matchExpressions: [{key: app, operator: In, values: [alpha, bravo, charlie]}]}}",
        )],
    );
    insta::assert_snapshot!(shown(&closed, None, 70), @r"
    80/TCP               lab/alpha, +2 more   lab/delta, +3 more
    lab/alpha, +2 more   no                   yes
    lab/delta, +3 more   no                   yes

    lab/alpha, +2 more:
      lab/alpha, lab/bravo, lab/charlie

    lab/delta, +3 more:
      lab/delta, lab/echo, lab/foxtrot, lab/golf
    ");
}

#[test]
fn colour_marks_the_cells_alone() {
    let world = world(&[("a", "one", 1), ("b", "two", 1)], &[("b", DENY)]);
    let matrix = matrix::matrix(&world, Protocol::Udp, 53).unwrap();
    let mut out = Vec::new();
    table::write(&matrix, 80, &mut out).unwrap();
    insta::assert_snapshot!(String::from_utf8(out).unwrap().replace('\u{1b}', "ESC"), @r"
    53/UDP   a/one   b/two
    a/one    -       ESC[31mnoESC[0m
    b/two    ESC[32myesESC[0m     -
    ");
}

/// Names that no tool should accept, in case one does.
fn hostile() -> World {
    let mut world = world(
        &[],
        &[
            ("a", "{podSelector: {matchLabels: {number: \"1\"}}}"),
            (
                "a",
                "{podSelector: {matchLabels: {number: \"2\"}}, policyTypes: [Egress]}",
            ),
        ],
    );
    for (number, (namespace, name)) in [
        ("=cmd|' /C calc'!A0", "a"),
        ("a", "x\"]; evil[label=\"\u{1b}[31m\\"),
        ("a", "`<script>&;#quot;\n%% x"),
    ]
    .into_iter()
    .enumerate()
    {
        let pod = Pod {
            labels: [("number".to_owned(), number.to_string())].into(),
            ..Pod::default()
        };
        world.pods.insert(ObjectName::new(namespace, name), pod);
    }
    world
}

fn written(form: Form) -> String {
    let world = hostile();
    let matrix = matrix::matrix(&world, Protocol::Tcp, 80).unwrap();
    let mut out = Vec::new();
    match form {
        Form::Csv => csv(&matrix, &mut out).unwrap(),
        Form::Dot => graph::dot(&matrix, &mut out).unwrap(),
        Form::Mermaid => graph::mermaid(&matrix, &mut out).unwrap(),
        _ => table::write(&matrix, 20, &mut out).unwrap(),
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn a_spreadsheet_sees_no_formula() {
    insta::assert_snapshot!(written(Form::Csv), @r#"
    from,to,protocol,port,allowed
    '=cmd|' /C calc'!A0/a,a/`<script>&;#quot;\u{a}%% x,TCP,80,true
    '=cmd|' /C calc'!A0/a,"a/x""]; evil[label=""\u{1b}[31m\",TCP,80,false
    a/`<script>&;#quot;\u{a}%% x,'=cmd|' /C calc'!A0/a,TCP,80,false
    a/`<script>&;#quot;\u{a}%% x,"a/x""]; evil[label=""\u{1b}[31m\",TCP,80,false
    "a/x""]; evil[label=""\u{1b}[31m\",'=cmd|' /C calc'!A0/a,TCP,80,true
    "a/x""]; evil[label=""\u{1b}[31m\",a/`<script>&;#quot;\u{a}%% x,TCP,80,true
    "#);
    assert_eq!(field("a/b"), "a/b");
    assert_eq!(field("-1,2"), "\"'-1,2\"");
}

#[test]
fn names_cannot_leave_their_quotes() {
    insta::assert_snapshot!(written(Form::Dot), @r#"
    digraph reachability {
      label="80/TCP";
      rankdir=LR;
      node [shape=box];
      n0 [label="=cmd|' /C calc'!A0/a"];
      n1 [label="a/`<script>&;#quot;\\u{a}%% x"];
      n2 [label="a/x\"]; evil[label=\"\\u{1b}[31m\\"];
      n0 -> n1;
      n2 -> n0;
      n2 -> n1;
    }
    "#);
    insta::assert_snapshot!(written(Form::Mermaid), @r##"
    %% 80/TCP
    flowchart LR
      n0["#61;cmd#124;#39; /C calc#39;#33;A0/a"]
      n1["a/#96;#60;script#62;#38;#59;#35;quot#59;#92;u#123;a#125;#37;#37; x"]
      n2["a/x#34;#93;#59; evil#91;label#61;#34;#92;u#123;1b#125;#91;31m#92;"]
      n0 --> n1
      n2 --> n0
      n2 --> n1
    "##);
    insta::assert_snapshot!(written(Form::Table), @r#"
    FROM                             REACHES ON 80/TCP
    =cmd|' /C calc'!A0/a,            =cmd|' /C calc'!A0/a,
    a/x"]; evil[label="\u{1b}[31m\   a/`<script>&;#quot;\u{a}%% x
    a/`<script>&;#quot;\u{a}%% x     nobody
    "#);
}

#[test]
fn graphs_have_a_node_for_a_group() {
    let world = shop();
    let mut matrix = matrix::matrix(&world, Protocol::Tcp, 80).unwrap();
    let text = |matrix: &Reachability,
                form: fn(&Reachability, &mut dyn Write) -> anyhow::Result<()>| {
        let mut out = Vec::new();
        form(matrix, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    insta::assert_snapshot!(text(&matrix, graph::dot), @r#"
    digraph reachability {
      label="80/TCP";
      rankdir=LR;
      node [shape=box];
      n0 [label="lab/shell\nshop/db"];
      n1 [label="shop/api-* (3 Pods)"];
      n2 [label="web/* (12 Pods)"];
      n0 -> n0;
      n1 -> n0;
      n2 -> n0;
      n2 -> n1;
    }
    "#);
    matrix.narrow(|name| name.name == "db");
    insta::assert_snapshot!(text(&matrix, graph::mermaid), @r#"
    %% 80/TCP
    flowchart LR
      n0["lab/shell"]
      n1["shop/api-#42; (3 Pods)"]
      n2["shop/db"]
      n3["web/#42; (12 Pods)"]
      n0 --> n2
      n1 --> n2
      n2 --> n0
      n3 --> n2
    "#);
}

#[test]
fn what_ipv6_gets_otherwise_stands_below() {
    let mut world = world(
        &[("web", "front", 2), ("shop", "api", 1), ("lab", "shell", 1)],
        &[(
            "shop",
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24}}]}]}",
        )],
    );
    for (number, pod) in (1..).zip(world.pods.values_mut()) {
        let addresses = [format!("10.0.0.{number}"), format!("fd00::{number}")];
        pod.addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    }
    let below = |matrix: &Reachability| {
        let mut out = Vec::new();
        table::over_ipv6(matrix, 80, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let mut matrix = matrix::matrix(&world, Protocol::Tcp, 80).unwrap();
    assert!(matrix.pairs().all(|pair| pair.allowed));
    insta::assert_snapshot!(below(&matrix), @r"

    OVER IPV6   FROM           TO
    no          */* (3 Pods)   shop/api
    ");
    let mut asked = matrix.clone();
    asked.narrow(|name| name.namespace == "shop");
    assert_eq!(below(&asked), below(&matrix));
    matrix.narrow(|name| name.namespace == "lab");
    insta::assert_snapshot!(below(&matrix), @r"

    OVER IPV6   FROM        TO
    no          lab/shell   shop/api
    ");
    matrix.narrow(|_| false);
    assert_eq!(below(&matrix), "");
}
