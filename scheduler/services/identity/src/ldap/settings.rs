//! What a domain's configuration says about its directory, checked, with Keystone's defaults.
use crate::tables::Extra;
use ldap3::{DerefAliases, Scope};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};
use url::Url;

/// Entries of one list, whatever the configuration says.
const ENTRIES_MAX: usize = 100_000;
const CONNECT: Duration = Duration::from_secs(5);

/// How far the server's certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verify {
    Demand,
    Never,
}

/// Where users, or groups, are and what their attributes are called.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub base: String,
    /// In parentheses, or empty.
    pub filter: String,
    pub object_class: String,
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    /// (attribute of the directory, attribute of ours)
    pub additional: Vec<(String, String)>,
}

/// How it is known whether a user is enabled.
#[derive(Debug, Clone)]
pub(crate) enum Enabled {
    /// Nothing says so: everybody is.
    Always,
    /// An attribute that is true or false.
    Flag { attribute: String, inverted: bool, default: bool },
    /// Bits of an attribute that must not be set.
    Mask { attribute: String, mask: i64, default: i64 },
    /// Membership in one group.
    Member { group: String, attribute: String },
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Tried in this order.
    pub urls: Vec<Url>,
    /// Who reads the directory; `None`: anonymous.
    pub bind: Option<(String, String)>,
    pub scope: Scope,
    pub deref: Deref,
    /// Entries asked for at once; 0: no paging.
    pub page_size: i32,
    pub entries_max: usize,
    pub users: Tree,
    pub mail: Option<String>,
    pub default_project: Option<String>,
    pub enabled: Enabled,
    pub groups: Tree,
    pub member: String,
    pub members_are_ids: bool,
    /// Ask Active Directory for groups of groups.
    pub nested: bool,
    pub start_tls: bool,
    pub verify: Verify,
    pub ca_file: Option<PathBuf>,
    pub ca_directory: Option<PathBuf>,
    pub connect: Duration,
    pub search_pool: PoolSettings,
    pub bind_pool: PoolSettings,
    pub retries: u32,
    pub retry_delay: Duration,
}

/// `DerefAliases` is not `Clone`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deref {
    Never,
    Searching,
    Finding,
    Always,
}

impl Deref {
    pub fn alias(self) -> DerefAliases {
        match self {
            Deref::Never => DerefAliases::Never,
            Deref::Searching => DerefAliases::Searching,
            Deref::Finding => DerefAliases::Finding,
            Deref::Always => DerefAliases::Always,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolSettings {
    pub size: usize,
    /// Connections are kept so long; zero: not at all.
    pub lifetime: Duration,
}

/// Options of one group, read leniently: numbers and flags may be texts.
struct Options<'o>(Option<&'o serde_json::Map<String, Value>>);

impl Options<'_> {
    fn text(&self, name: &str) -> Option<String> {
        match self.0?.get(name)? {
            Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
    fn or(&self, name: &str, default: &str) -> String {
        self.text(name).unwrap_or_else(|| default.to_owned())
    }
    fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        match self.0.and_then(|o| o.get(name)) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(on)) => Ok(*on),
            Some(Value::String(text)) => {
                pilvi_kit::call::boolean(text.trim()).ok_or_else(|| format!("{name} is neither true nor false"))
            }
            Some(_) => Err(format!("{name} is neither true nor false")),
        }
    }
    fn number(&self, name: &str, default: i64) -> Result<i64, String> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("{name} is not a number")),
        }
    }
    fn list(&self, name: &str) -> Vec<String> {
        match self.0.and_then(|o| o.get(name)) {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(text)) => {
                text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        }
    }
    fn seconds(&self, name: &str, default: u64) -> Result<Duration, String> {
        let seconds = self.number(name, i64::try_from(default).unwrap_or_default())?;
        Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(default)))
    }
}

/// The name of an attribute goes into filters as it is, so it must be one.
fn attribute(name: String) -> Result<String, String> {
    let fits = !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.;_".contains(&b));
    if fits { Ok(name) } else { Err(format!("{name} is not the name of an attribute")) }
}

/// A filter of the operator's, in parentheses.
fn filter(text: Option<String>) -> Result<String, String> {
    let Some(text) = text else { return Ok(String::new()) };
    let text = if text.starts_with('(') { text } else { format!("({text})") };
    ldap3::parse_filter(&text).map_err(|()| format!("{text} is not a filter"))?;
    Ok(text)
}

fn pairs(list: Vec<String>) -> Result<Vec<(String, String)>, String> {
    let pair = |text: String| match text.split_once(':') {
        Some((theirs, ours)) if !ours.is_empty() => Ok((attribute(theirs.to_owned())?, ours.to_owned())),
        _ => Err(format!("{text} is not ATTRIBUTE:NAME")),
    };
    list.into_iter().map(pair).collect()
}

fn urls(text: &str) -> Result<Vec<Url>, String> {
    let one = |text: &str| {
        let url = Url::parse(text.trim()).map_err(|e| format!("{text}: {e}"))?;
        let fits = matches!(url.scheme(), "ldap" | "ldaps") && url.host_str().is_some_and(|h| !h.is_empty());
        if fits { Ok(url) } else { Err(format!("{text} is not ldap://HOST or ldaps://HOST")) }
    };
    text.split(',').filter(|t| !t.trim().is_empty()).map(one).collect()
}

fn enabled(options: &Options<'_>, users: &str, ignored: &[String]) -> Result<Enabled, String> {
    if options.flag("user_enabled_emulation", false)? {
        let own = options.flag("user_enabled_emulation_use_group_config", false)?;
        return Ok(Enabled::Member {
            group: options.or("user_enabled_emulation_dn", &format!("cn=enabled_users,{users}")),
            attribute: if own { attribute(options.or("group_member_attribute", "member"))? } else { "member".into() },
        });
    }
    if ignored.iter().any(|name| name == "enabled") {
        return Ok(Enabled::Always);
    }
    let attribute = attribute(options.or("user_enabled_attribute", "enabled"))?;
    let mask = options.number("user_enabled_mask", 0)?;
    if mask != 0 {
        return Ok(Enabled::Mask { attribute, mask, default: options.number("user_enabled_default", 512)? });
    }
    Ok(Enabled::Flag {
        attribute,
        inverted: options.flag("user_enabled_invert", false)?,
        default: options.flag("user_enabled_default", true)?,
    })
}

/// The attribute, where the operator does not want it ignored.
fn unless_ignored(ignored: &[String], name: &str, value: String) -> Result<Option<String>, String> {
    if ignored.iter().any(|i| i == name) { Ok(None) } else { attribute(value).map(Some) }
}

fn users(options: &Options<'_>, base: String, ignored: &[String]) -> Result<Tree, String> {
    Ok(Tree {
        base,
        filter: filter(options.text("user_filter"))?,
        object_class: attribute(options.or("user_objectclass", "inetOrgPerson"))?,
        id: attribute(options.or("user_id_attribute", "cn"))?,
        name: attribute(options.or("user_name_attribute", "sn"))?,
        description: unless_ignored(ignored, "description", options.or("user_description_attribute", "description"))?,
        additional: pairs(options.list("user_additional_attribute_mapping"))?,
    })
}

fn groups(options: &Options<'_>, suffix: &str) -> Result<Tree, String> {
    let ignored = options.list("group_attribute_ignore");
    Ok(Tree {
        base: options.or("group_tree_dn", &format!("ou=UserGroups,{suffix}")),
        filter: filter(options.text("group_filter"))?,
        object_class: attribute(options.or("group_objectclass", "groupOfNames"))?,
        id: attribute(options.or("group_id_attribute", "cn"))?,
        name: attribute(options.or("group_name_attribute", "ou"))?,
        description: unless_ignored(&ignored, "description", options.or("group_desc_attribute", "description"))?,
        additional: pairs(options.list("group_additional_attribute_mapping"))?,
    })
}

impl Settings {
    /// What is wrong, in words for the log, if anything is.
    pub fn of(config: &Extra) -> Result<Self, String> {
        let options = Options(config.get("ldap").and_then(Value::as_object));
        let general = Options(config.get("identity").and_then(Value::as_object));
        let suffix = options.or("suffix", "cn=example,cn=com");
        let user_base = options.or("user_tree_dn", &format!("ou=Users,{suffix}"));
        let ignored = options.list("user_attribute_ignore");
        // What Keystone ignores by default: a project named in the directory.
        let default_project = options.text("user_default_project_id_attribute").map(attribute).transpose()?;
        let limit = general.number("list_limit", 0)?;
        let bind = options.text("user").map(|dn| (dn, options.text("password").unwrap_or_default()));
        Ok(Settings {
            urls: urls(&options.or("url", "ldap://localhost"))?,
            bind,
            scope: match options.or("query_scope", "one").as_str() {
                "one" => Scope::OneLevel,
                "sub" => Scope::Subtree,
                other => return Err(format!("query_scope is {other}, not one or sub")),
            },
            deref: match options.or("alias_dereferencing", "default").as_str() {
                "default" | "never" => Deref::Never,
                "searching" => Deref::Searching,
                "finding" => Deref::Finding,
                "always" => Deref::Always,
                other => return Err(format!("alias_dereferencing is {other}")),
            },
            page_size: i32::try_from(options.number("page_size", 0)?.clamp(0, 10_000)).unwrap_or_default(),
            entries_max: usize::try_from(limit).ok().filter(|l| *l > 0).unwrap_or(ENTRIES_MAX).min(ENTRIES_MAX),
            users: users(&options, user_base.clone(), &ignored)?,
            mail: unless_ignored(&ignored, "email", options.or("user_mail_attribute", "mail"))?,
            default_project,
            enabled: enabled(&options, &user_base, &ignored)?,
            groups: groups(&options, &suffix)?,
            member: attribute(options.or("group_member_attribute", "member"))?,
            members_are_ids: options.flag("group_members_are_ids", false)?,
            nested: options.flag("group_ad_nesting", false)?,
            start_tls: options.flag("use_tls", false)?,
            verify: match options.or("tls_req_cert", "demand").as_str() {
                "demand" => Verify::Demand,
                "allow" | "never" => Verify::Never,
                other => return Err(format!("tls_req_cert is {other}, not demand, allow or never")),
            },
            ca_file: options.text("tls_cacertfile").map(PathBuf::from),
            ca_directory: options.text("tls_cacertdir").map(PathBuf::from),
            connect: match options.number("pool_connection_timeout", -1)?.max(options.number("connection_timeout", -1)?)
            {
                seconds if seconds > 0 => Duration::from_secs(seconds.unsigned_abs().min(300)),
                _ => CONNECT,
            },
            search_pool: pool(&options, "use_pool", "pool_size", 10, "pool_connection_lifetime", 600)?,
            bind_pool: pool(&options, "use_auth_pool", "auth_pool_size", 100, "auth_pool_connection_lifetime", 60)?,
            retries: u32::try_from(options.number("pool_retry_max", 3)?.clamp(1, 10)).unwrap_or(3),
            retry_delay: Duration::from_millis(
                options
                    .text("pool_retry_delay")
                    .and_then(|t| t.parse::<f64>().ok())
                    .map_or(100, |s| (s.clamp(0.0, 10.0) * 1000.0) as u64),
            ),
        })
    }
}

fn pool(
    options: &Options<'_>,
    used: &str,
    size: &str,
    default: i64,
    lifetime: &str,
    seconds: u64,
) -> Result<PoolSettings, String> {
    let keep = options.flag(used, true)?;
    let size = options.number(size, default)?.clamp(1, 1000);
    let lifetime = if keep { options.seconds(lifetime, seconds)? } else { Duration::ZERO };
    Ok(PoolSettings { size: usize::try_from(size).unwrap_or(1), lifetime })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(ldap: Value) -> Result<Settings, String> {
        Settings::of(json!({ "ldap": ldap }).as_object().unwrap())
    }

    #[test]
    fn defaults_are_keystones() {
        let s = of(json!({"suffix": "dc=example,dc=org"})).unwrap();
        assert_eq!(s.users.base, "ou=Users,dc=example,dc=org");
        assert_eq!(s.groups.base, "ou=UserGroups,dc=example,dc=org");
        assert_eq!((s.users.id.as_str(), s.users.name.as_str(), s.groups.name.as_str()), ("cn", "sn", "ou"));
        assert!(s.bind.is_none() && !s.start_tls && s.verify == Verify::Demand);
        assert_eq!((s.search_pool.size, s.bind_pool.size), (10, 100));
    }

    #[test]
    fn numbers_and_flags_may_be_texts() {
        let s = of(json!({"page_size": "100", "use_tls": "True", "user_filter": "memberOf=cn=x", "url": "ldap://a, ldaps://b:1636",
            "user_attribute_ignore": "enabled,email", "pool_size": 3})).unwrap();
        assert_eq!((s.page_size, s.start_tls, s.users.filter.as_str()), (100, true, "(memberOf=cn=x)"));
        assert_eq!(s.urls.len(), 2);
        assert!(matches!(s.enabled, Enabled::Always) && s.mail.is_none());
        assert_eq!(s.search_pool.size, 3);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in [
            json!({"url": "http://a"}),
            json!({"url": "ldap://"}),
            json!({"query_scope": "all"}),
            json!({"user_filter": "(("}),
            json!({"user_id_attribute": "uid)(cn=*"}),
            json!({"page_size": "many"}),
            json!({"use_tls": "perhaps"}),
            json!({"tls_req_cert": "maybe"}),
            json!({"user_additional_attribute_mapping": ["x"]}),
        ] {
            assert!(of(bad.clone()).is_err(), "{bad}");
        }
    }
}
