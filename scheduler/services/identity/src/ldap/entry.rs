//! Entries of a directory, read without trust in its bytes, and what they are here.
use super::settings::{Enabled, Settings, Tree};
use crate::tables::{Extra, Group, Source, User};
use ldap3::{
    ResultEntry,
    asn1::{PL, StructureTag},
};
use std::collections::HashMap;

/// One entry: its name, and its attributes by their names in small letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub dn: String,
    attributes: HashMap<String, Vec<String>>,
}

fn children(tag: StructureTag) -> Option<Vec<StructureTag>> {
    match tag.payload {
        PL::C(inner) => Some(inner),
        PL::P(_) => None,
    }
}

/// Text, also where the directory keeps bytes that are none.
fn text(tag: StructureTag) -> Option<String> {
    match tag.payload {
        PL::P(bytes) => Some(String::from_utf8(bytes).unwrap_or_else(|e| hex::encode(e.as_bytes()))),
        PL::C(_) => None,
    }
}

impl Entry {
    /// `None` for what is no entry (a referral) or is malformed.
    pub fn read(result: ResultEntry) -> Option<Self> {
        let mut parts = children(result.0.match_id(4)?)?.into_iter();
        let dn = text(parts.next()?)?;
        let mut attributes = HashMap::new();
        for attribute in children(parts.next()?)? {
            let mut parts = children(attribute)?.into_iter();
            let name = text(parts.next()?)?.to_ascii_lowercase();
            let values = children(parts.next()?)?.into_iter().map(text).collect::<Option<Vec<_>>>()?;
            attributes.insert(name, values);
        }
        Some(Entry { dn, attributes })
    }

    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).first().map(String::as_str)
    }

    pub fn all(&self, name: &str) -> &[String] {
        self.attributes.get(&name.to_ascii_lowercase()).map_or(&[], Vec::as_slice)
    }
}

fn extra(entry: &Entry, tree: &Tree) -> Extra {
    let mut out = Extra::new();
    if let Some(description) = tree.description.as_deref().and_then(|a| entry.first(a)) {
        out.insert("description".into(), description.into());
    }
    for (theirs, ours) in &tree.additional {
        if let Some(value) = entry.first(theirs) {
            out.insert(ours.clone(), value.into());
        }
    }
    out
}

impl Settings {
    /// What is asked for of a user's entry.
    pub fn user_attributes(&self) -> Vec<String> {
        let mut names = self.tree_attributes(&self.users);
        names.extend(self.mail.clone());
        names.extend(self.default_project.clone());
        match &self.enabled {
            Enabled::Flag { attribute, .. } | Enabled::Mask { attribute, .. } => names.push(attribute.clone()),
            Enabled::Always | Enabled::Member { .. } => {}
        }
        names
    }

    pub fn group_attributes(&self) -> Vec<String> {
        let mut names = self.tree_attributes(&self.groups);
        names.push(self.member.clone());
        names
    }

    fn tree_attributes(&self, tree: &Tree) -> Vec<String> {
        let mut names = vec![tree.id.clone(), tree.name.clone()];
        names.extend(tree.description.clone());
        names.extend(tree.additional.iter().map(|(theirs, _)| theirs.clone()));
        names
    }

    /// What an entry says of whether its user is enabled; `None` where something else says it.
    pub fn enabled_of(&self, entry: &Entry) -> Option<bool> {
        match &self.enabled {
            Enabled::Always => Some(true),
            Enabled::Member { .. } => None,
            Enabled::Flag { attribute, inverted, default } => {
                let on = entry.first(attribute).map_or(*default, |v| v.eq_ignore_ascii_case("true"));
                Some(on != *inverted)
            }
            Enabled::Mask { attribute, mask, default } => {
                let bits = entry.first(attribute).and_then(|v| v.trim().parse::<i64>().ok()).unwrap_or(*default);
                Some(bits & mask != *mask)
            }
        }
    }

    /// The user of an entry; `None` without the attributes that every user has.
    pub fn user(&self, entry: &Entry, id: String, domain_id: &str, enabled: bool) -> Option<User> {
        let mut extra = extra(entry, &self.users);
        if let Some(mail) = self.mail.as_deref().and_then(|a| entry.first(a)) {
            extra.insert("email".into(), mail.into());
        }
        Some(User {
            id,
            name: entry.first(&self.users.name)?.to_owned(),
            domain_id: domain_id.to_owned(),
            default_project_id: self.default_project.as_deref().and_then(|a| entry.first(a)).map(str::to_owned),
            enabled,
            extra,
            source: Source::Directory { dn: entry.dn.clone() },
            ..User::default()
        })
    }

    pub fn group(&self, entry: &Entry, id: String, domain_id: &str) -> Option<Group> {
        let mut extra = extra(entry, &self.groups);
        let description = extra.shift_remove("description").and_then(|d| d.as_str().map(str::to_owned));
        Some(Group {
            id,
            name: entry.first(&self.groups.name)?.to_owned(),
            domain_id: domain_id.to_owned(),
            description: description.unwrap_or_default(),
            extra,
            source: Source::Directory { dn: entry.dn.clone() },
        })
    }
}

#[cfg(test)]
impl Entry {
    pub fn of(dn: &str, attributes: &[(&str, &[&str])]) -> Self {
        let owned = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect();
        Entry {
            dn: dn.into(),
            attributes: attributes.iter().map(|(n, v)| (n.to_ascii_lowercase(), owned(v))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(ldap: serde_json::Value) -> Settings {
        Settings::of(json!({ "ldap": ldap }).as_object().unwrap()).unwrap()
    }

    #[test]
    fn an_entry_is_a_user_by_its_attributes() {
        let s = settings(
            json!({"user_name_attribute": "uid", "user_additional_attribute_mapping": "telephoneNumber:phone"}),
        );
        let entry = Entry::of(
            "cn=a,ou=x",
            &[("UID", &["ann"]), ("mail", &["a@b"]), ("telephoneNumber", &["1", "2"]), ("description", &["d"])],
        );
        let user = s.user(&entry, "id".into(), "dom", true).unwrap();
        assert_eq!((user.name.as_str(), user.domain_id.as_str()), ("ann", "dom"));
        assert_eq!(serde_json::Value::from(user.extra), json!({"description": "d", "phone": "1", "email": "a@b"}));
        assert!(s.user(&Entry::of("cn=a", &[]), "id".into(), "dom", true).is_none(), "nobody without a name");
    }

    #[test]
    fn enabled_by_flag_mask_or_always() {
        for (ldap, attribute, value, expected) in [
            (json!({}), "enabled", None, Some(true)),
            (json!({}), "enabled", Some("FALSE"), Some(false)),
            (json!({"user_enabled_default": "False"}), "enabled", None, Some(false)),
            (
                json!({"user_enabled_attribute": "nsAccountLock", "user_enabled_invert": true, "user_enabled_default": "False"}),
                "nsaccountlock",
                Some("true"),
                Some(false),
            ),
            (
                json!({"user_enabled_attribute": "nsAccountLock", "user_enabled_invert": true, "user_enabled_default": "False"}),
                "nsaccountlock",
                None,
                Some(true),
            ),
            (
                json!({"user_enabled_attribute": "userAccountControl", "user_enabled_mask": 2}),
                "userAccountControl",
                Some("514"),
                Some(false),
            ),
            (
                json!({"user_enabled_attribute": "userAccountControl", "user_enabled_mask": 2}),
                "userAccountControl",
                Some("512"),
                Some(true),
            ),
            (json!({"user_attribute_ignore": ["enabled"]}), "enabled", Some("false"), Some(true)),
            (json!({"user_enabled_emulation": true}), "enabled", Some("false"), None),
        ] {
            let values: Vec<&str> = value.into_iter().collect();
            let attributes: &[(&str, &[&str])] = if values.is_empty() { &[] } else { &[(attribute, &values)] };
            assert_eq!(settings(ldap.clone()).enabled_of(&Entry::of("cn=a", attributes)), expected, "{ldap} {value:?}");
        }
    }

    #[test]
    fn malformed_entries_are_no_entries() {
        use ldap3::asn1::TagClass;
        let tag = |id, payload| StructureTag { class: TagClass::Application, id, payload };
        for broken in [
            tag(4, PL::P(vec![1])),
            tag(4, PL::C(vec![])),
            tag(19, PL::C(vec![])),
            tag(4, PL::C(vec![tag(4, PL::P(b"cn=a".to_vec()))])),
            tag(4, PL::C(vec![tag(4, PL::P(b"cn=a".to_vec())), tag(16, PL::C(vec![tag(16, PL::P(vec![]))]))])),
        ] {
            assert!(Entry::read(ResultEntry::new(broken)).is_none());
        }
    }
}
