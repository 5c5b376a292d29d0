//! Where a user could get a token for, what the catalogue is, and which tokens were revoked.
use crate::{
    Identity, domain, listing, project,
    tables::{Place, Project, RevocationEvent},
    token::resolve::Refused,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, clock};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::get("/v3/auth/catalog", catalog)
            .rule("identity:get_auth_catalog")
            .summary("Show the catalogue of one's project"),
        Route::get("/v3/auth/projects", projects)
            .rule("identity:get_auth_projects")
            .summary("List projects one can have a token for"),
        Route::get("/v3/auth/domains", domains)
            .rule("identity:get_auth_domains")
            .summary("List domains one can have a token for"),
        Route::get("/v3/auth/system", system)
            .rule("identity:get_auth_system")
            .summary("Can one have a token for the system?"),
        Route::get("/v3/OS-FEDERATION/projects", projects)
            .rule("identity:get_auth_projects")
            .summary("List projects one can have a token for"),
        Route::get("/v3/OS-FEDERATION/domains", domains)
            .rule("identity:get_auth_domains")
            .summary("List domains one can have a token for"),
        Route::get("/v3/auth/tokens/OS-PKI/revoked", gone)
            .public("there is nothing behind it")
            .summary("List revoked tokens, as was possible with PKI tokens: gone"),
        Route::get("/v3/OS-REVOKE/events", events)
            .rule("identity:list_revoke_events")
            .summary("List revocation events"),
    ]
}

impl Identity {
    /// The groups that the caller's token names beside those its user is in.
    async fn groups_of_token(&self, call: &Call) -> Result<Vec<String>, Fault> {
        let Some(text) = call.header("x-auth-token") else { return Ok(Vec::new()) };
        match self.validate(text, 0).await {
            Ok(resolved) => Ok(resolved.token.federation.as_ref().map(|f| f.group_ids.clone()).unwrap_or_default()),
            Err(Refused::Fault(fault)) if fault.status.is_server_error() => Err(fault),
            Err(_) => Ok(Vec::new()),
        }
    }
}

async fn catalog(svc: Arc<Identity>, call: Call) -> Reply {
    let Some(project) = call.caller().project_id() else {
        return Err(Fault::forbidden("A project-scoped token is required to produce a service catalog."));
    };
    let catalog = svc.catalog_for(Some(project), &call.caller().user_id).await?;
    let links = json!({"self": call.url(&call.path)});
    Ok(Response::text(200, "application/json", format!("{{\"catalog\":{catalog},\"links\":{links}}}")))
}

async fn projects(svc: Arc<Identity>, call: Call) -> Reply {
    let mut items = Vec::new();
    let groups = svc.groups_of_token(&call).await?;
    for found in svc.projects_of(&call.caller().user_id, &groups).await? {
        let domain = svc.directory.domain(found.domain_id.as_deref().unwrap_or_default()).await?;
        if found.enabled && !found.is_domain && domain.is_some_and(|d| d.enabled) {
            items.push(project::view::view(&call, &found));
        }
    }
    Ok(listing::whole(&call, "projects", items))
}

async fn domains(svc: Arc<Identity>, call: Call) -> Reply {
    let mut found: Vec<Arc<Project>> = Vec::new();
    let groups = svc.groups_of_token(&call).await?;
    for assignment in svc.directory.assignments_with(&call.caller().user_id, &groups).await?.0 {
        let Place::Domain(id) = &assignment.key.target else { continue };
        if assignment.key.inherited || found.iter().any(|d| d.id == *id) {
            continue;
        }
        found.extend(svc.directory.domain(id).await?.filter(|d| d.enabled));
    }
    Ok(listing::whole(&call, "domains", found.iter().map(|d| domain::view(&call, d)).collect()))
}

async fn system(svc: Arc<Identity>, call: Call) -> Reply {
    let groups = svc.groups_of_token(&call).await?;
    let (all, _) = svc.directory.assignments_with(&call.caller().user_id, &groups).await?;
    let any = all.iter().any(|a| a.key.target == Place::System);
    let list = if any { json!([{"all": true}]) } else { json!([]) };
    Ok(Response::ok(json!({"system": list, "links": {"self": call.url(&call.path)}})))
}

async fn gone(_svc: Arc<Identity>, _call: Call) -> Reply {
    Err(Fault::new(410, "The service you have requested is no longer available on this server."))
}

fn event(event: &RevocationEvent) -> Value {
    let members = [
        ("audit_id", &event.audit_id),
        ("audit_chain_id", &event.audit_chain_id),
        ("user_id", &event.user_id),
        ("project_id", &event.project_id),
        ("domain_id", &event.domain_id),
        ("role_id", &event.role_id),
        ("OS-TRUST:trust_id", &event.trust_id),
    ];
    let mut out = json!({"issued_before": clock::micros_z(event.issued_before_us), "revoked_at": clock::micros_z(event.revoked_us)});
    for (name, value) in members {
        if let Some(value) = value {
            out[name] = value.clone().into();
        }
    }
    out
}

async fn events(svc: Arc<Identity>, call: Call) -> Reply {
    let since = match call.query.get("since") {
        None => 0,
        Some(text) => clock::parse(text).ok_or_else(|| Fault::bad_request(format!("invalid date format {text}")))?,
    };
    let all = svc.store.list::<RevocationEvent>(Query::all()).await?;
    let items = all.iter().filter(|e| e.revoked_us >= since).map(|e| event(e)).collect();
    Ok(listing::whole(&call, "events", items))
}
