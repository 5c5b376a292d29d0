//! Tokens that died before their time.
//!
//! Events are records; every scheduler keeps the ones that can still matter in memory, by what they name,
//! so that a check is a few look-ups. An event matters as long as a token issued before it could live.
use crate::tables::RevocationEvent;
use parking_lot::RwLock;
use std::collections::HashMap;

/// What of a token an event may name.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    pub audit_id: &'a str,
    pub chain_id: &'a str,
    /// All users the token speaks for: its holder, and the trustor of a trust.
    pub user_ids: [Option<&'a str>; 2],
    pub project_id: Option<&'a str>,
    /// The user's domain and the scope's.
    pub domain_ids: [Option<&'a str>; 2],
    pub trust_id: Option<&'a str>,
    pub app_credential_id: Option<&'a str>,
    /// Microseconds since 1970.
    pub issued_us: i64,
}

/// The member an event is found by: the most telling one it names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Handle {
    Audit(String),
    Chain(String),
    Trust(String),
    AppCredential(String),
    User(String),
    Project(String),
    Domain(String),
}

fn handle(event: &RevocationEvent) -> Option<Handle> {
    let pick = |id: &Option<String>, make: fn(String) -> Handle| id.clone().map(make);
    pick(&event.audit_id, Handle::Audit)
        .or_else(|| pick(&event.audit_chain_id, Handle::Chain))
        .or_else(|| pick(&event.trust_id, Handle::Trust))
        .or_else(|| pick(&event.app_credential_id, Handle::AppCredential))
        .or_else(|| pick(&event.user_id, Handle::User))
        .or_else(|| pick(&event.project_id, Handle::Project))
        .or_else(|| pick(&event.domain_id, Handle::Domain))
}

fn covers(event: &RevocationEvent, subject: &Subject<'_>) -> bool {
    let is = |wanted: &Option<String>, have: Option<&str>| wanted.as_deref().is_none_or(|w| have == Some(w));
    let any =
        |wanted: &Option<String>, have: [Option<&str>; 2]| wanted.as_deref().is_none_or(|w| have.contains(&Some(w)));
    subject.issued_us <= event.issued_before_us
        && is(&event.audit_id, Some(subject.audit_id))
        && is(&event.audit_chain_id, Some(subject.chain_id))
        && is(&event.trust_id, subject.trust_id)
        && is(&event.app_credential_id, subject.app_credential_id)
        && is(&event.project_id, subject.project_id)
        && any(&event.user_id, subject.user_ids)
        && any(&event.domain_id, subject.domain_ids)
}

/// The events in force.
#[derive(Debug, Default)]
pub struct Revocations {
    by: RwLock<HashMap<Handle, Vec<RevocationEvent>>>,
}

impl Revocations {
    /// Takes an event up; one that is known already changes nothing.
    pub fn add(&self, event: RevocationEvent) {
        let Some(handle) = handle(&event) else { return };
        let mut by = self.by.write();
        let list = by.entry(handle).or_default();
        if !list.iter().any(|e| e.id == event.id) {
            list.push(event);
        }
    }

    /// Drops events older than `us`.
    pub fn forget_before(&self, us: i64) {
        self.by.write().retain(|_, list| {
            list.retain(|e| e.revoked_us >= us);
            !list.is_empty()
        });
    }

    pub fn is_revoked(&self, subject: &Subject<'_>) -> bool {
        let by = self.by.read();
        if by.is_empty() {
            return false;
        }
        let mut handles = vec![Handle::Audit(subject.audit_id.to_owned()), Handle::Chain(subject.chain_id.to_owned())];
        handles.extend(subject.trust_id.map(|id| Handle::Trust(id.to_owned())));
        handles.extend(subject.app_credential_id.map(|id| Handle::AppCredential(id.to_owned())));
        handles.extend(subject.user_ids.iter().flatten().map(|id| Handle::User((*id).to_owned())));
        handles.extend(subject.project_id.map(|id| Handle::Project(id.to_owned())));
        handles.extend(subject.domain_ids.iter().flatten().map(|id| Handle::Domain((*id).to_owned())));
        handles.iter().filter_map(|h| by.get(h)).flatten().any(|event| covers(event, subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> RevocationEvent {
        RevocationEvent { id: id.into(), issued_before_us: 100, revoked_us: 100, ..RevocationEvent::default() }
    }

    fn subject(issued_us: i64) -> Subject<'static> {
        Subject {
            audit_id: "a",
            chain_id: "c",
            user_ids: [Some("u"), None],
            project_id: Some("p"),
            domain_ids: [Some("d"), None],
            issued_us,
            ..Subject::default()
        }
    }

    #[test]
    fn events_cover_older_tokens_that_match_every_member() {
        let cases = [
            (RevocationEvent { audit_id: Some("a".into()), ..event("1") }, true),
            (RevocationEvent { audit_id: Some("b".into()), ..event("2") }, false),
            (RevocationEvent { audit_chain_id: Some("c".into()), ..event("3") }, true),
            (RevocationEvent { user_id: Some("u".into()), ..event("4") }, true),
            (RevocationEvent { user_id: Some("u".into()), project_id: Some("p".into()), ..event("5") }, true),
            (RevocationEvent { user_id: Some("u".into()), project_id: Some("q".into()), ..event("6") }, false),
            (RevocationEvent { domain_id: Some("d".into()), ..event("7") }, true),
            (RevocationEvent { trust_id: Some("t".into()), ..event("8") }, false),
            (event("9"), false),
        ];
        for (event, dead) in cases {
            let all = Revocations::default();
            all.add(event.clone());
            all.add(event.clone());
            assert_eq!(all.is_revoked(&subject(100)), dead, "{event:?}");
            assert!(!all.is_revoked(&subject(101)), "a later token lives: {event:?}");
            all.forget_before(101);
            assert!(!all.is_revoked(&subject(100)));
        }
    }
}
