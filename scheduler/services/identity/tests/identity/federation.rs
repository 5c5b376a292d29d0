//! Users from outside, through the whole kit: resources, what mappings make of people, and what ends it.
use crate::{
    provider::Provider,
    world::{World, project_scope, subject},
};
use pilvi_kit::testing::Answer;
use serde_json::{Value, json};
use std::sync::Arc;

const IDP: &str = "/v3/OS-FEDERATION/identity_providers/acme";
const PROTOCOL: &str = "/v3/OS-FEDERATION/identity_providers/acme/protocols/openid";
const MAPPING: &str = "/v3/OS-FEDERATION/mappings/m";

/// A cloud that trusts a provider.
pub struct Trust {
    pub world: World,
    pub provider: Arc<Provider>,
}

impl Trust {
    pub async fn new(idp: Value, mapping: Value) -> Self {
        Self::with(idp, mapping, |_| {}).await
    }

    pub async fn with(idp: Value, mapping: Value, change: impl FnOnce(&mut pilvi_identity::OpenIdConfig)) -> Self {
        let provider = Provider::start().await;
        let mut config = provider.config();
        change(&mut config);
        let dashboards = vec!["https://dash.example.org/auth/websso/".to_owned()];
        let world =
            World::with(|c| (c.federation.openid, c.federation.trusted_dashboards) = (vec![config], dashboards)).await;
        let mut idp = idp;
        idp["enabled"] = idp.get("enabled").cloned().unwrap_or(true.into());
        world.admin("PUT", IDP, Some(json!({"identity_provider": idp}))).await;
        world.admin("PUT", MAPPING, Some(json!({"mapping": mapping}))).await;
        world.admin("PUT", PROTOCOL, Some(json!({"protocol": {"mapping_id": "m"}}))).await;
        Trust { world, provider }
    }

    pub async fn bearer(&self, token: &str) -> Answer {
        let header = format!("Bearer {token}");
        self.world.call_with("GET", &format!("{PROTOCOL}/auth"), "", None, &[("authorization", &header)]).await
    }

    /// Somebody with these claims comes in.
    pub async fn enter(&self, claims: Value) -> Answer {
        self.bearer(&self.provider.sign(claims)).await
    }

    /// A group in the default domain with the role member in a new project: (group, project).
    pub async fn group(&self, name: &str) -> (String, String) {
        let body = json!({"group": {"name": name, "domain_id": "default"}});
        let group = crate::world::id(&self.world.admin("POST", "/v3/groups", Some(body)).await["group"]);
        let (project, role) = (self.world.project(&format!("of-{name}")).await, self.world.role("member").await);
        self.world.admin("PUT", &format!("/v3/projects/{project}/groups/{group}/roles/{role}"), None).await;
        (group, project)
    }

    async fn projects(&self, token: &str) -> Vec<Value> {
        let answer = self.world.call("GET", "/v3/auth/projects", token, None).await;
        answer.body["projects"].as_array().unwrap().iter().map(|p| p["id"].clone()).collect()
    }
}

fn by_name(local: Value) -> Value {
    json!({"rules": [{"local": [local], "remote": [{"type": "sub"}]}]})
}

fn in_groups() -> Value {
    json!({"rules": [
        {"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "sub"}]},
        {"local": [{"groups": "{0}", "domain": {"name": "Default"}}], "remote": [{"type": "groups"}]}]})
}

#[tokio::test]
async fn providers_are_kept_with_a_domain_and_names_of_their_own() {
    let world = World::new().await;
    let made =
        world.call("PUT", IDP, &world.admin, Some(json!({"identity_provider": {"remote_ids": ["a", "b"]}}))).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let made = &made.body["identity_provider"];
    assert_eq!(
        (&made["id"], &made["enabled"], &made["remote_ids"]),
        (&json!("acme"), &json!(false), &json!(["a", "b"]))
    );
    assert!(made["links"]["protocols"].as_str().unwrap().ends_with("/identity_providers/acme/protocols"));
    let domain = world.admin("GET", &format!("/v3/domains/{}", made["domain_id"].as_str().unwrap()), None).await;
    assert_eq!(domain["domain"]["enabled"], true);
    for (path, body, expected) in [
        (IDP, json!({}), 409),
        ("/v3/OS-FEDERATION/identity_providers/two", json!({"remote_ids": ["b"]}), 409),
        ("/v3/OS-FEDERATION/identity_providers/two", json!({"domain_id": "none"}), 404),
        ("/v3/OS-FEDERATION/identity_providers/two", json!({"unknown": 1}), 400),
        ("/v3/OS-FEDERATION/identity_providers/two", json!({"remote_ids": ["x", "x"]}), 400),
        ("/v3/OS-FEDERATION/identity_providers/two", json!({"authorization_ttl": -1}), 400),
        ("/v3/OS-FEDERATION/identity_providers/two", json!({"domain_id": "default", "authorization_ttl": 5}), 201),
    ] {
        assert_eq!(world.status("PUT", path, Some(json!({"identity_provider": body}))).await, expected, "{body}");
    }
    let long = format!("/v3/OS-FEDERATION/identity_providers/{}", "x".repeat(65));
    assert_eq!(world.status("PUT", &long, Some(json!({"identity_provider": {}}))).await, 400);
    let body = json!({"identity_provider": {"remote_ids": ["a", "c"], "description": "d"}});
    let changed = world.admin("PATCH", IDP, Some(body)).await;
    assert_eq!(changed["identity_provider"]["remote_ids"], json!(["a", "c"]));
    assert_eq!(world.status("PATCH", IDP, Some(json!({"identity_provider": {"domain_id": "default"}}))).await, 400);
    let enabled = world.admin("GET", "/v3/OS-FEDERATION/identity_providers?enabled=false&id=acme", None).await;
    assert_eq!(enabled["identity_providers"].as_array().unwrap().len(), 1);
    assert_eq!(world.status("DELETE", IDP, None).await, 204);
    assert_eq!(world.status("GET", IDP, None).await, 404);
    assert_eq!(world.status("DELETE", IDP, None).await, 404);
}

#[tokio::test]
async fn a_provider_goes_with_its_domain() {
    let world = World::new().await;
    let domain = world.domain("d").await;
    world.admin("PUT", IDP, Some(json!({"identity_provider": {"domain_id": domain}}))).await;
    let path = format!("/v3/domains/{domain}");
    world.admin("PATCH", &path, Some(json!({"domain": {"enabled": false}}))).await;
    world.admin("DELETE", &path, None).await;
    assert_eq!(world.status("GET", IDP, None).await, 404);
}

#[tokio::test]
async fn mappings_and_protocols_are_checked_when_they_are_kept() {
    let world = World::new().await;
    world.admin("PUT", IDP, Some(json!({"identity_provider": {}}))).await;
    for (body, expected) in [
        (json!({"rules": []}), 400),
        (json!({}), 400),
        (json!({"rules": [{"local": [{"user": {"name": "{1}"}}], "remote": [{"type": "a"}]}]}), 400),
        (json!({"rules": [{"local": [], "remote": [{"type": "a", "any_one_of": ["("], "regex": true}]}]}), 400),
        (json!({"rules": [{"local": [], "remote": [{"type": "a"}]}], "schema_version": "9"}), 400),
        (by_name(json!({"user": {"name": "{0}"}})), 201),
        (by_name(json!({"user": {"name": "{0}"}})), 409),
    ] {
        assert_eq!(world.status("PUT", MAPPING, Some(json!({"mapping": body}))).await, expected, "{body}");
    }
    assert_eq!(world.admin("GET", MAPPING, None).await["mapping"]["schema_version"], "1.0");
    let newer = json!({"mapping": {"rules": [{"local": [], "remote": [{"type": "a"}]}], "schema_version": "2.0"}});
    assert_eq!(world.admin("PATCH", MAPPING, Some(newer)).await["mapping"]["schema_version"], "2.0");
    assert_eq!(world.admin("GET", "/v3/OS-FEDERATION/mappings", None).await["mappings"].as_array().unwrap().len(), 1);
    for (path, body, expected) in [
        (PROTOCOL, json!({"mapping_id": "none"}), 400),
        (PROTOCOL, json!({}), 400),
        ("/v3/OS-FEDERATION/identity_providers/none/protocols/openid", json!({"mapping_id": "m"}), 404),
        (PROTOCOL, json!({"mapping_id": "m", "remote_id_attribute": "iss"}), 201),
        (PROTOCOL, json!({"mapping_id": "m"}), 409),
    ] {
        assert_eq!(world.status("PUT", path, Some(json!({"protocol": body}))).await, expected, "{body}");
    }
    let listed = world.admin("GET", &format!("{IDP}/protocols"), None).await;
    assert_eq!((&listed["protocols"][0]["id"], &listed["protocols"][0]["idp_id"]), (&json!("openid"), &json!("acme")));
    assert_eq!(world.status("PATCH", PROTOCOL, Some(json!({"protocol": {"mapping_id": "none"}}))).await, 400);
    assert_eq!(world.status("DELETE", PROTOCOL, None).await, 204);
    assert_eq!(world.status("GET", PROTOCOL, None).await, 404);
    assert_eq!(world.status("DELETE", MAPPING, None).await, 204);
    assert_eq!(world.status("DELETE", MAPPING, None).await, 404);
}

#[tokio::test]
async fn enabled_service_providers_stand_in_tokens() {
    let world = World::new().await;
    let path = |id: &str| format!("/v3/OS-FEDERATION/service_providers/{id}");
    let body = |enabled: bool| json!({"service_provider": {"auth_url": "https://a/v3", "sp_url": "https://a/sp", "enabled": enabled}});
    let made = world.call("PUT", &path("on"), &world.admin, Some(body(true))).await;
    assert_eq!((made.status, &made.body["service_provider"]["relay_state_prefix"]), (201, &json!("ss:mem:")));
    world.admin("PUT", &path("off"), Some(body(false))).await;
    let token = world.by_password("admin", crate::world::PASSWORD, None).await;
    let shown = token.body["token"]["service_providers"].as_array().unwrap();
    assert_eq!(shown, &vec![json!({"id": "on", "auth_url": "https://a/v3", "sp_url": "https://a/sp"})]);
    for bad in [json!({"auth_url": "nothing"}), json!({}), json!({"x": 1})] {
        assert_eq!(world.status("PATCH", &path("on"), Some(json!({"service_provider": bad}))).await, 400, "{bad}");
    }
    world.admin("PATCH", &path("on"), Some(json!({"service_provider": {"enabled": false}}))).await;
    let token = world.by_password("admin", crate::world::PASSWORD, None).await;
    assert!(token.body["token"].get("service_providers").is_none());
    assert_eq!(world.status("DELETE", &path("off"), None).await, 204);
    assert_eq!(world.status("GET", &path("off"), None).await, 404);
}

#[tokio::test]
async fn administrators_and_system_readers_see_federation_and_nobody_else() {
    let world = World::new().await;
    let user = world.user("u").await;
    world.grant("system", &user, "reader").await;
    let reader = world.token("u", "u", Some(json!({"system": {"all": true}}))).await;
    let nobody = world.token("u", "u", None).await;
    let body = json!({"identity_provider": {}});
    for path in ["identity_providers", "mappings", "service_providers", "identity_providers/acme/protocols"] {
        let path = format!("/v3/OS-FEDERATION/{path}");
        assert_eq!(world.call("GET", &path, &reader, None).await.status, 200, "{path}");
        assert_eq!(world.call("GET", &path, &nobody, None).await.status, 403, "{path}");
        assert_eq!(world.call("GET", &path, "", None).await.status, 401, "{path}");
    }
    assert_eq!(world.call("PUT", IDP, &reader, Some(body)).await.status, 403);
    assert_eq!(world.call("GET", IDP, &reader, None).await.status, 404);
    assert_eq!(world.call("GET", IDP, &nobody, None).await.status, 403);
}

#[tokio::test]
async fn who_comes_from_outside_gets_a_user_and_chooses_a_project() {
    let trust = Trust::new(json!({}), in_groups()).await;
    let (group, project) = trust.group("devs").await;
    let answer = trust.enter(json!({"groups": ["devs", "unknown"]})).await;
    let token = subject(&answer);
    let user = &answer.body["token"]["user"];
    assert_eq!(user["name"], "bob");
    assert_eq!(
        user["OS-FEDERATION"],
        json!({"groups": [{"id": group}], "identity_provider": {"id": "acme"}, "protocol": {"id": "openid"}})
    );
    assert!(user.get("password_expires_at").is_none() && answer.body["token"].get("project").is_none());
    assert_eq!(answer.body["token"]["methods"], json!(["openid"]));
    assert_eq!(trust.projects(&token).await, [json!(project)]);
    assert_eq!(trust.world.call("GET", "/v3/OS-FEDERATION/projects", &token, None).await.status, 200);
    let scoped = trust.world.by_token(&token, project_scope(&project)).await;
    assert_eq!(scoped.body["token"]["project"]["id"], project.as_str(), "{}", scoped.body);
    assert_eq!(scoped.body["token"]["methods"], json!(["openid", "token"]));
    assert_eq!(scoped.body["token"]["expires_at"], answer.body["token"]["expires_at"], "no longer than the first");
    assert_eq!(trust.world.validate(&subject(&scoped)).await, 200);
    for name in ["mapped", "saml2", "openid"] {
        let auth = json!({"identity": {"methods": [name], name: {"id": token}}, "scope": {"project": {"id": project}}});
        assert_eq!(trust.world.log_in(auth).await.status, 201, "{name}");
    }
    let own = json!({"identity": {"methods": ["mapped"], "mapped": {"id": trust.world.admin}}});
    assert_eq!(trust.world.log_in(own).await.status, 401, "a token of our own user");
    let again = trust.enter(json!({})).await;
    assert_eq!(again.body["token"]["user"]["id"], user["id"], "the same user");
    assert_eq!(trust.projects(&subject(&again)).await, Vec::<Value>::new(), "and no groups this time");
    let shown = trust.world.admin("GET", &format!("/v3/users/{}", user["id"].as_str().unwrap()), None).await;
    assert_eq!(
        shown["user"]["federated"],
        json!([{"idp_id": "acme", "protocols": [{"protocol_id": "openid", "unique_id": "bob"}]}])
    );
    let idp = trust.world.admin("GET", IDP, None).await;
    assert_eq!(shown["user"]["domain_id"], idp["identity_provider"]["domain_id"]);
}

#[tokio::test]
async fn what_ends_the_trust_ends_the_tokens() {
    type Act = (&'static str, &'static str, Option<Value>);
    let acts: [Act; 3] = [
        ("DELETE", IDP, None),
        ("PATCH", IDP, Some(json!({"identity_provider": {"enabled": false}}))),
        ("DELETE", PROTOCOL, None),
    ];
    for (method, path, body) in acts {
        let trust = Trust::new(json!({}), in_groups()).await;
        let (_, project) = trust.group("devs").await;
        let answer = trust.enter(json!({"groups": ["devs"]})).await;
        let user = answer.body["token"]["user"]["id"].as_str().unwrap().to_owned();
        let token = subject(&trust.world.by_token(&subject(&answer), project_scope(&project)).await);
        assert_eq!(trust.world.call("GET", "/v3/auth/projects", &token, None).await.status, 200);
        trust.world.admin(method, path, body).await;
        assert_eq!(trust.world.call("GET", "/v3/auth/projects", &token, None).await.status, 401, "{method} {path}");
        let left = trust.world.status("GET", &format!("/v3/users/{user}"), None).await;
        assert_eq!(left, if method == "DELETE" { 404 } else { 200 }, "{method} {path}");
        assert!(trust.enter(json!({})).await.status >= 400);
    }
}

#[tokio::test]
async fn memberships_last_as_long_as_the_provider_says() {
    let trust = Trust::new(json!({"authorization_ttl": 10}), in_groups()).await;
    let (group, project) = trust.group("devs").await;
    let first = trust.enter(json!({"groups": ["devs"]})).await;
    let user = first.body["token"]["user"]["id"].as_str().unwrap().to_owned();
    let token = subject(&trust.world.by_token(&subject(&first), project_scope(&project)).await);
    let made = trust
        .world
        .call(
            "POST",
            &format!("/v3/users/{user}/application_credentials"),
            &token,
            Some(json!({"application_credential": {"name": "a"}})),
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.body);
    let proof = json!({"id": made.body["application_credential"]["id"], "secret": made.body["application_credential"]["secret"]});
    let auth = json!({"identity": {"methods": ["application_credential"], "application_credential": proof}});
    assert_eq!(trust.world.log_in(auth.clone()).await.status, 201, "the membership outlives the login");
    assert_eq!(trust.enter(json!({})).await.status, 201);
    assert_eq!(trust.world.log_in(auth).await.status, 401, "he is in group {group} no more");
    assert_eq!(trust.world.validate(&token).await, 404, "and older tokens, which say that he is, have ended");
}

#[tokio::test]
async fn a_mapping_may_name_users_of_our_own() {
    let local = json!({"user": {"name": "{0}", "type": "local", "domain": {"id": "default"}}});
    let trust = Trust::new(json!({}), by_name(local)).await;
    let user = trust.world.user("bob").await;
    let answer = trust.enter(json!({})).await;
    assert_eq!(answer.body["token"]["user"]["id"], user.as_str(), "{}", answer.body);
    assert!(answer.body["token"]["user"].get("OS-FEDERATION").is_none());
    assert_eq!(trust.enter(json!({"sub": "eve"})).await.status, 401);
    trust.world.admin("PATCH", &format!("/v3/users/{user}"), Some(json!({"user": {"enabled": false}}))).await;
    assert_eq!(trust.enter(json!({})).await.status, 401);
}

#[tokio::test]
async fn a_mapping_may_make_projects() {
    let local = json!({"user": {"name": "{0}"}, "projects": [{"name": "of {0}", "roles": [{"name": "member"}]}]});
    let trust = Trust::new(json!({}), by_name(local)).await;
    for _ in 0..2 {
        let token = subject(&trust.enter(json!({})).await);
        let projects = trust.projects(&token).await;
        assert_eq!(projects.len(), 1);
        let scoped = trust.world.by_token(&token, project_scope(projects[0].as_str().unwrap())).await;
        assert_eq!(scoped.body["token"]["project"]["name"], "of bob");
    }
    let unknown = json!({"user": {"name": "{0}"}, "projects": [{"name": "p", "roles": [{"name": "none"}]}]});
    trust.world.admin("PATCH", MAPPING, Some(json!({"mapping": by_name(unknown)}))).await;
    assert_eq!(trust.enter(json!({})).await.status, 404);
}

#[tokio::test]
async fn roles_that_the_provider_names_no_more_go_from_version_three() {
    let rules = json!([{"local": [{"user": {"name": "{0}"}, "projects_json": "{1}"}], "remote": [{"type": "sub"}, {"type": "p"}]}]);
    let trust = Trust::new(json!({}), json!({"rules": rules, "schema_version": "3.0"})).await;
    let with = |names: &[&str]| {
        let list: Value = names.iter().map(|n| json!({"name": n, "roles": [{"name": "member"}]})).collect();
        json!({"p": list.to_string()})
    };
    let both = subject(&trust.enter(with(&["one", "two"])).await);
    assert_eq!(trust.projects(&both).await.len(), 2);
    let one = subject(&trust.enter(with(&["two"])).await);
    assert_eq!(trust.projects(&one).await.len(), 1);
}

#[tokio::test]
async fn two_providers_of_one_domain_do_not_share_a_user() {
    let trust = Trust::with(json!({"domain_id": "default"}), by_name(json!({"user": {"name": "{0}"}})), |_| {}).await;
    trust.world.user("bob").await;
    let shadow = trust.enter(json!({})).await;
    assert_eq!(shadow.status, 201, "a name may be somebody else's too: {}", shadow.body);
    let own = trust.world.by_password("bob", "bob", None).await;
    assert_ne!(own.body["token"]["user"]["id"], shadow.body["token"]["user"]["id"]);
}
