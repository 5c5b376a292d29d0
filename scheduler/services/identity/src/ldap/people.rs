//! Users and groups of one directory: what is searched for, and what is found.
//!
//! Whatever a client sent goes into a filter escaped (RFC 4515), so no name can change what is asked.
use super::{
    entry::Entry,
    pool::{Failure, Pool},
    settings::{Enabled, Settings, Tree},
};
use crate::tables::Extra;
use ldap3::{Scope, ldap_escape};
use std::{collections::HashSet, sync::Arc};

/// Active Directory's rule that follows groups of groups.
const IN_CHAIN: &str = "1.2.840.113556.1.4.1941";
/// Members of one group that are looked up.
const MEMBERS_MAX: usize = 10_000;

/// One domain's directory.
pub(crate) struct Remote {
    pub settings: Arc<Settings>,
    reader: Pool,
    binder: Pool,
}

/// `attribute` is exactly `value`.
fn equals(attribute: &str, value: &str) -> String {
    format!("({attribute}={})", ldap_escape(value))
}

impl Tree {
    /// All in this tree for which `also` (a filter, or nothing) holds too.
    fn filter(&self, also: &str) -> String {
        format!("(&(objectClass={}){}{also})", ldap_escape(self.object_class.as_str()), self.filter)
    }
}

impl Remote {
    /// Says what is wrong with the configuration, if anything is.
    pub fn new(groups: &Extra) -> Result<Self, Failure> {
        let settings = Arc::new(Settings::of(groups).map_err(Failure)?);
        Ok(Remote {
            reader: Pool::new(settings.clone(), settings.search_pool, true)?,
            binder: Pool::new(settings.clone(), settings.bind_pool, false)?,
            settings,
        })
    }

    async fn search(&self, tree: &Tree, also: &str, attributes: Vec<String>) -> Result<Vec<Entry>, Failure> {
        let s = &self.settings;
        self.reader.search(&tree.base, s.scope, &tree.filter(also), attributes, s.entries_max).await
    }

    /// The user's entry by its id here.
    pub async fn user(&self, local_id: &str) -> Result<Option<Entry>, Failure> {
        let (s, tree) = (&self.settings, &self.settings.users);
        Ok(self.search(tree, &equals(&tree.id, local_id), s.user_attributes()).await?.into_iter().next())
    }

    /// Names compare as the directory compares them; that of the answer counts.
    pub async fn user_named(&self, name: &str) -> Result<Option<Entry>, Failure> {
        let (s, tree) = (&self.settings, &self.settings.users);
        Ok(self.search(tree, &equals(&tree.name, name), s.user_attributes()).await?.into_iter().next())
    }

    /// All users, or those with a name.
    pub async fn users(&self, name: Option<&str>) -> Result<Vec<Entry>, Failure> {
        let (s, tree) = (&self.settings, &self.settings.users);
        let also = name.map(|n| equals(&tree.name, n)).unwrap_or_default();
        self.search(tree, &also, s.user_attributes()).await
    }

    pub async fn group(&self, local_id: &str) -> Result<Option<Entry>, Failure> {
        let (s, tree) = (&self.settings, &self.settings.groups);
        Ok(self.search(tree, &equals(&tree.id, local_id), s.group_attributes()).await?.into_iter().next())
    }

    pub async fn groups(&self, name: Option<&str>) -> Result<Vec<Entry>, Failure> {
        let (s, tree) = (&self.settings, &self.settings.groups);
        let also = name.map(|n| equals(&tree.name, n)).unwrap_or_default();
        self.search(tree, &also, s.group_attributes()).await
    }

    /// The groups a user's entry is in.
    pub async fn groups_of(&self, user: &Entry) -> Result<Vec<Entry>, Failure> {
        let s = &self.settings;
        let member = if s.members_are_ids { user.first(&s.users.id).unwrap_or_default() } else { &user.dn };
        let also = if s.nested {
            format!("({}:{IN_CHAIN}:={})", s.member, ldap_escape(member))
        } else {
            equals(&s.member, member)
        };
        self.search(&s.groups, &also, s.group_attributes()).await
    }

    /// The users in a group's entry; whoever is no user of this tree is left out.
    pub async fn members(&self, group: &Entry) -> Result<Vec<Entry>, Failure> {
        let s = &self.settings;
        let mut found = Vec::new();
        if s.nested {
            let also = format!("(memberOf:{IN_CHAIN}:={})", ldap_escape(group.dn.as_str()));
            return self.search(&s.users, &also, s.user_attributes()).await;
        }
        for member in group.all(&s.member).iter().take(MEMBERS_MAX) {
            if s.members_are_ids {
                found.extend(self.user(member).await?);
                continue;
            }
            if !within(member, &s.users.base) {
                continue;
            }
            let filter = s.users.filter("");
            found.extend(self.reader.search(member, Scope::Base, &filter, s.user_attributes(), 1).await?);
        }
        Ok(found)
    }

    /// Which of these are enabled, by their names in the directory.
    pub async fn enabled(&self, users: &[Entry]) -> Result<HashSet<String>, Failure> {
        let s = &self.settings;
        let Enabled::Member { group, attribute } = &s.enabled else {
            return Ok(users.iter().filter(|u| s.enabled_of(u) == Some(true)).map(|u| u.dn.clone()).collect());
        };
        let filter = match users {
            // One is asked about alone: the group may be large.
            [one] => equals(attribute, &one.dn),
            _ => "(objectClass=*)".to_owned(),
        };
        let found = self.reader.search(group, Scope::Base, &filter, vec![attribute.clone()], 1).await?;
        let all: HashSet<String> =
            found.iter().flat_map(|e| e.all(attribute)).map(|dn| dn.to_ascii_lowercase()).collect();
        Ok(users.iter().filter(|u| all.contains(&u.dn.to_ascii_lowercase())).map(|u| u.dn.clone()).collect())
    }

    pub async fn is_password(&self, dn: &str, password: &str) -> Result<bool, Failure> {
        self.binder.is_password(dn, password).await
    }
}

/// Is the entry `dn` below `base`? Compared without spaces and capitals.
fn within(dn: &str, base: &str) -> bool {
    let plain = |dn: &str| dn.to_lowercase().split(',').map(str::trim).collect::<Vec<_>>().join(",");
    let (dn, base) = (plain(dn), plain(base));
    dn == base || dn.ends_with(&format!(",{base}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn directory() -> Remote {
        Remote::new(json!({"ldap": {"user_filter": "(memberOf=cn=x)"}}).as_object().unwrap()).unwrap()
    }

    #[test]
    fn names_are_compared_as_names() {
        assert!(within("cn=a, OU=Users,dc=x", "ou=users, dc=x"));
        assert!(!within("cn=a,ou=others,dc=x", "ou=users,dc=x"));
        assert!(!within("cn=aou=users,dc=x", "ou=users,dc=x"));
    }

    #[test]
    fn a_filter_holds_class_operators_filter_and_the_question() {
        let users = &directory().settings.users;
        assert_eq!(users.filter(&equals("cn", "a*b")), "(&(objectClass=inetOrgPerson)(memberOf=cn=x)(cn=a\\2ab))");
    }

    proptest! {
        /// Whatever the name, the filter has the same shape: one comparison more.
        #[test]
        fn no_name_changes_a_filter(name in any::<String>()) {
            let users = &directory().settings.users;
            let filter = users.filter(&equals("cn", &name));
            prop_assert!(ldap3::parse_filter(&filter).is_ok(), "{}", filter);
            prop_assert_eq!(filter.matches('(').count(), users.filter(&equals("cn", "x")).matches('(').count());
            prop_assert_eq!(filter.matches(')').count(), users.filter(&equals("cn", "x")).matches(')').count());
            prop_assert_eq!(filter.matches('*').count(), 0);
        }
    }
}
