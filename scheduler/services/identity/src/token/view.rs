//! The token document: what a client reads of a token.
use super::resolve::{Resolved, ResolvedPlace};
use crate::tables::{Project, ServiceProvider, User};
use pilvi_kit::clock;
use serde_json::{Map, Value, json};

fn domain(domain: &Project) -> Value {
    json!({"id": domain.id, "name": domain.name})
}

fn user(user: &User, of: &Project) -> Value {
    json!({"domain": domain(of), "id": user.id, "name": user.name,
        "password_expires_at": user.password_expires_us().map(clock::micros)})
}

fn roles(roles: &[(String, String)]) -> Value {
    roles.iter().map(|(id, name)| json!({"id": id, "name": name})).collect()
}

/// `{"token": {...}}`; without a catalogue when `catalog` (a JSON array) is `None`.
pub(crate) fn document(resolved: &Resolved, catalog: Option<&str>, clouds: &[ServiceProvider]) -> String {
    let token = &resolved.token;
    let (acting, acting_domain) = resolved.acting();
    let mut out = Map::new();
    out.insert("methods".into(), token.methods.iter().map(|m| m.name()).collect());
    let mut shown = user(acting, acting_domain);
    if let Some(federation) = &token.federation {
        let groups: Value = federation.group_ids.iter().map(|id| json!({"id": id})).collect();
        shown = json!({"domain": domain(acting_domain), "id": acting.id, "name": acting.name,
            "OS-FEDERATION": {"groups": groups, "identity_provider": {"id": federation.idp_id},
                "protocol": {"id": federation.protocol_id}}});
    }
    out.insert("user".into(), shown);
    out.insert("audit_ids".into(), json!(token.audit_ids));
    out.insert("expires_at".into(), clock::micros_z(token.expires_us).into());
    out.insert("issued_at".into(), clock::micros_z(token.issued_us).into());
    match &resolved.place {
        ResolvedPlace::Unscoped => {}
        ResolvedPlace::System => {
            out.insert("system".into(), json!({"all": true}));
        }
        ResolvedPlace::Domain(place) => {
            out.insert("domain".into(), domain(place));
        }
        ResolvedPlace::Project { project, domain: above } => {
            out.insert("project".into(), json!({"domain": domain(above), "id": project.id, "name": project.name}));
            out.insert("is_domain".into(), project.is_domain.into());
        }
    }
    if !matches!(resolved.place, ResolvedPlace::Unscoped) {
        out.insert("roles".into(), roles(&resolved.roles));
    }
    if let Some(trust) = &resolved.trust {
        out.insert(
            "OS-TRUST:trust".into(),
            json!({"id": trust.trust.id, "trustor_user": {"id": trust.trust.trustor_user_id},
                "trustee_user": {"id": trust.trust.trustee_user_id}, "impersonation": trust.trust.impersonation}),
        );
    }
    if !clouds.is_empty() {
        let cloud = |c: &ServiceProvider| json!({"auth_url": c.auth_url, "id": c.id, "sp_url": c.sp_url});
        out.insert("service_providers".into(), clouds.iter().map(cloud).collect());
    }
    if let Some(access) = &resolved.access_token {
        out.insert("OS-OAUTH1".into(), json!({"access_token_id": access.id, "consumer_id": access.consumer_id}));
    }
    if let Some(thumbprint) = &token.thumbprint {
        out.insert("oauth2_credential".into(), json!({"x5t#S256": thumbprint}));
    }
    if let Some((credential, rules)) = &resolved.app_credential {
        let mut shown = json!({"id": credential.id, "name": credential.name, "restricted": !credential.unrestricted});
        if let Some(rules) = rules {
            let rule = |r: &crate::tables::AccessRule| json!({"id": r.id, "service": r.service, "path": r.path, "method": r.method});
            shown["access_rules"] = rules.iter().map(rule).collect();
        }
        out.insert("application_credential".into(), shown);
    }
    let mut text = json!({ "token": out }).to_string();
    if let Some(catalog) = catalog {
        // The catalogue is most of the document, and the same in many: it is put in as it was written once.
        text.truncate(text.len() - "}}".len());
        text.push_str(",\"catalog\":");
        text.push_str(catalog);
        text.push_str("}}");
    }
    text
}
