//! The EC2 tree: `/<version>/meta-data/...` and `/<version>/user-data`.
use super::{Page, View};
use serde_json::{Map, Value, json};

/// Versions that are listed; `latest` stands for the last one. All have the same content.
pub const VERSIONS: [&str; 9] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
];

/// A folder of pages, or a page.
enum Node {
    Folder(Vec<(String, Node)>),
    Leaf(String),
}

pub(super) fn page(version: &str, parts: &[&str], view: &View) -> Option<Page> {
    if version != "latest" && !VERSIONS.contains(&version) {
        return None;
    }
    let user_data = &view.metadata.user_data;
    match parts {
        [] if user_data.is_empty() => Some(Page::lines(["meta-data/"])),
        [] => Some(Page::lines(["meta-data/", "user-data"])),
        ["user-data"] if !user_data.is_empty() => {
            Some(Page { content_type: "application/octet-stream", body: user_data.clone() })
        }
        ["meta-data", rest @ ..] => walk(&tree(view), rest).map(Page::text),
        _ => None,
    }
}

fn walk(node: &Node, parts: &[&str]) -> Option<String> {
    match (node, parts) {
        (Node::Leaf(text), []) => Some(text.clone()),
        (Node::Folder(children), []) => {
            let lines = children.iter().map(|(name, child)| match child {
                Node::Leaf(_) => name.clone(),
                // A key's folder is listed as "0=name", as EC2 does.
                Node::Folder(_) if name.contains('=') => name.clone(),
                Node::Folder(_) => format!("{name}/"),
            });
            Some(lines.collect::<Vec<_>>().join("\n"))
        }
        (Node::Folder(children), [first, rest @ ..]) => {
            let child = children.iter().find(|(name, _)| name.split('=').next() == Some(first))?;
            walk(&child.1, rest)
        }
        (Node::Leaf(_), _) => None,
    }
}

fn tree(view: &View) -> Node {
    let about = &view.metadata;
    let leaf = |name: &str, text: &str| (name.to_owned(), Node::Leaf(text.to_owned()));
    let folder = |name: &str, children| (name.to_owned(), Node::Folder(children));
    let mut disks = vec![leaf("ami", "vda"), leaf("root", "/dev/vda")];
    for (at, name) in view.disks.iter().enumerate().skip(1) {
        disks.push(leaf(&format!("ebs{}", at - 1), name));
    }
    let mut children = vec![
        leaf("ami-id", &short_id("ami", &view.image)),
        leaf("ami-launch-index", &about.launch_index.to_string()),
        leaf("ami-manifest-path", ""),
        folder("block-device-mapping", disks),
        leaf("hostname", &about.hostname),
        leaf("instance-action", "none"),
        leaf("instance-id", &short_id("i", &about.uuid)),
        leaf("instance-type", &about.instance_type),
        leaf("local-hostname", &about.hostname),
        leaf("local-ipv4", &view.local_ipv4),
        leaf("mac", &view.mac),
        folder("placement", vec![leaf("availability-zone", &about.availability_zone)]),
        leaf("public-hostname", &about.hostname),
        leaf("public-ipv4", &view.public_ipv4),
    ];
    if !about.keys.is_empty() {
        let keys = about.keys.iter().enumerate().map(|(at, key)| {
            folder(&format!("{at}={}", key.name.replace(['/', '\n'], "_")), vec![leaf("openssh-key", &key.public_key)])
        });
        children.push(folder("public-keys", keys.collect()));
    }
    children.push(leaf("reservation-id", &about.reservation_id));
    children.push(leaf("security-groups", ""));
    Node::Folder(children)
}

/// An id of EC2's form, made from a UUID: stable, and unique as far as eight digits go.
fn short_id(prefix: &str, uuid: &str) -> String {
    let digits: String = uuid.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    format!("{prefix}-{digits:0>8}")
}

/// `meta-data.json` of a config drive: the tree as one document.
#[must_use]
pub fn document(view: &View) -> Value {
    fn value(node: &Node) -> Value {
        match node {
            Node::Leaf(text) => json!(text),
            Node::Folder(children) => {
                let map: Map<String, Value> = children
                    .iter()
                    .map(|(name, child)| (name.split('=').next().unwrap_or(name).to_owned(), value(child)))
                    .collect();
                map.into()
            }
        }
    }
    value(&tree(view))
}
