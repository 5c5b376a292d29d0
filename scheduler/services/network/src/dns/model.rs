//! What is to be published of one port or floating IP, and what is known of one name at the server. Pure.
use pilvi_dns_update::Data;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One record: a whole name, and an address or (for the way back) another whole name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub data: String,
}

/// What a port or floating IP has published; there is none for those that have nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// `port/ID` or `floating_ip/ID`.
    pub id: String,
    pub project_id: String,
    pub entries: BTreeSet<Entry>,
}

impl Publication {
    pub fn names(&self) -> BTreeSet<&str> {
        self.entries.iter().map(|e| e.name.as_str()).collect()
    }
}

/// A name at the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedName {
    /// The name itself.
    pub id: String,
    /// Whose it is; "" as long as nobody's.
    pub project_id: String,
    /// The server has said once that the name is ours.
    pub claimed: bool,
    /// All that may be there by us.
    pub made: BTreeSet<String>,
    /// Where and how it was last told.
    pub zone: String,
    pub server: String,
    pub ttl: u32,
}

/// Something has asked that a name be looked at; it is there until the server has heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameWish {
    /// The name.
    pub id: String,
    /// How often: whoever has answered fewer has not answered all.
    pub asked: u64,
}

/// Records are kept as the texts of their data: an address is one, anything else is a name.
pub fn data(text: &str) -> Data {
    text.parse().map_or_else(|_| Data::Pointer(text.to_owned()), Data::Address)
}

pub fn text(data: &Data) -> String {
    match data {
        Data::Address(address) => address.to_string(),
        Data::Pointer(name) => name.clone(),
    }
}

/// What stands for keywords in a domain: who made the port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    pub project_id: String,
    pub project_name: String,
    pub user_id: String,
    pub user_name: String,
}

/// Labels of a domain that are replaced.
pub const KEYWORDS: [&str; 4] = ["<project_id>", "<project_name>", "<user_id>", "<user_name>"];

pub fn has_keywords(domain: &str) -> bool {
    domain.contains('<')
}

impl Words {
    pub fn of(ctx: &pilvi_kit::Ctx) -> Self {
        Words {
            project_id: ctx.project_id().to_owned(),
            project_name: ctx.project_name().to_owned(),
            user_id: ctx.user_id().to_owned(),
            user_name: ctx.caller.user_name.clone(),
        }
    }

    fn of_keyword(&self, keyword: &str) -> &str {
        match keyword {
            "<project_id>" => &self.project_id,
            "<project_name>" => &self.project_name,
            "<user_id>" => &self.user_id,
            _ => &self.user_name,
        }
    }

    /// The domain with its keywords replaced; `None` where one has no value that could stand in a name.
    pub fn put_into(&self, domain: &str) -> Option<String> {
        let replaced = domain.split('.').map(|label| {
            if !KEYWORDS.contains(&label) {
                return Some(label.to_owned());
            }
            let word = self.of_keyword(label).to_ascii_lowercase();
            is_label(&word).then_some(word)
        });
        Some(replaced.collect::<Option<Vec<_>>>()?.join("."))
    }
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_whole_labels_and_values_must_be_able_to_stand_there() {
        let words = Words {
            project_id: "p1".into(),
            project_name: "Red-Team".into(),
            user_id: "u1".into(),
            user_name: "a user".into(),
        };
        assert_eq!(words.put_into("<project_name>.<project_id>.example.org.").unwrap(), "red-team.p1.example.org.");
        assert_eq!(words.put_into("<user_id>.example.org.").unwrap(), "u1.example.org.");
        assert_eq!(words.put_into("<user_name>.example.org."), None);
        assert_eq!(Words::default().put_into("<user_id>.example.org."), None);
        assert_eq!(words.put_into("example.org.").unwrap(), "example.org.");
    }

    #[test]
    fn data_survives_as_text() {
        for text_of in ["192.0.2.1", "2001:db8::1", "web.example.org."] {
            assert_eq!(text(&data(text_of)), text_of);
        }
    }
}
