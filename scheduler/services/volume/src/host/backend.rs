//! What the one kind of backend there is can do, and whether a type's extra specs ask for just that. Pure.
use crate::volume_type::ops::is_true;
use std::collections::BTreeMap;

/// Its name, in types and behind the `@` of hosts' names.
pub const NAME: &str = "files";
pub const VENDOR: &str = "Pilvi";
pub const PROTOCOL: &str = "file";
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `host1@files`: the name of a host's volume service.
pub fn service_of(host: &str) -> String {
    format!("{host}@{NAME}")
}

/// `host1@files#files`: the name of a host's only pool.
pub fn pool_of(host: &str) -> String {
    format!("{host}@{NAME}#{NAME}")
}

/// The host of the name of a service or a pool.
pub fn host_of(name: &str) -> Option<&str> {
    let (host, rest) = name.split_once('@')?;
    matches!(rest.split_once('#'), None | Some((NAME, NAME))).then_some(())?;
    (rest == NAME || rest.starts_with("files#")).then_some(host)
}

/// What it says of itself, by the names that extra specs use.
pub fn capabilities() -> [(&'static str, Told); 13] {
    [
        ("volume_backend_name", Told::Text(NAME)),
        ("vendor_name", Told::Text(VENDOR)),
        ("driver_version", Told::Text(VERSION)),
        ("storage_protocol", Told::Text(PROTOCOL)),
        ("multiattach", Told::Flag(true)),
        ("thin_provisioning_support", Told::Flag(true)),
        ("thick_provisioning_support", Told::Flag(false)),
        ("QoS_support", Told::Flag(false)),
        ("consistent_group_snapshot_enabled", Told::Flag(true)),
        ("consistencygroup_support", Told::Flag(true)),
        ("replication_enabled", Told::Flag(false)),
        ("online_extend_support", Told::Flag(true)),
        ("sparse_copy_volume", Told::Flag(true)),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Text(&'static str),
    Flag(bool),
}

/// Scopes of specs that are for others than the choice of a backend.
fn is_scoped(key: &str) -> bool {
    key.split_once(':').is_some_and(|(scope, _)| scope != "capabilities")
}

/// Could a volume with these extra specs lie here?
pub fn fits(extra_specs: &BTreeMap<String, String>) -> bool {
    extra_specs.iter().filter(|(key, _)| !is_scoped(key) && !key.starts_with("RESKEY")).all(|(key, wish)| {
        let key = key.strip_prefix("capabilities:").unwrap_or(key);
        let told = capabilities().into_iter().find(|(name, _)| *name == key).map(|(_, told)| told);
        told.is_some_and(|told| meets(told, wish))
    })
}

fn meets(told: Told, wish: &str) -> bool {
    match told {
        Told::Flag(flag) if wish.trim().starts_with("<is>") => is_true(wish) == flag,
        Told::Flag(flag) => wish.trim().eq_ignore_ascii_case(if flag { "true" } else { "false" }),
        Told::Text(text) => {
            let wish = wish.trim();
            match (wish.strip_prefix("<in>"), wish.strip_prefix("<or>"), wish.strip_prefix("s==")) {
                (Some(part), _, _) => text.contains(part.trim()),
                (_, Some(choices), _) => choices.split("<or>").any(|choice| choice.trim() == text),
                (_, _, Some(same)) => same.trim() == text,
                _ => wish == text,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_ask_for_what_is_there_or_find_no_backend() {
        let asks = |key: &str, wish: &str| fits(&BTreeMap::from([(key.to_owned(), wish.to_owned())]));
        assert!(asks("volume_backend_name", "files") && !asks("volume_backend_name", "ceph"));
        assert!(asks("multiattach", "<is> True") && !asks("multiattach", "<is> False"));
        assert!(asks("capabilities:vendor_name", "<or> X <or> Pilvi") && !asks("replication_enabled", "<is> True"));
        assert!(asks("quality:iops", "9") && !asks("unheard_of", "1"));
        assert!(asks("storage_protocol", "<in> fil"));
    }

    #[test]
    fn names_lead_back_to_hosts() {
        assert_eq!(host_of("h1@files#files"), Some("h1"));
        assert_eq!(host_of("h1@files"), Some("h1"));
        assert_eq!((host_of("h1"), host_of("h1@ceph"), host_of("h1@files#x")), (None, None, None));
        assert_eq!(pool_of("h"), "h@files#files");
    }
}
