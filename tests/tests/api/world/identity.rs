//! Identity: two domains, what is in them, and one of every resource.
use super::{Facts, World, make, map, root, text};
use crate::persona;
use pilvi_identity::{Bootstrap, Config, EndpointSpec, Identity, Secret, kinds, service};
use pilvi_kit::{Caller, service::Mounting, testing::App};
use pilvi_store::Store;
use serde_json::{Value, json};
use std::collections::HashMap;

const FACTS: Facts = Facts {
    // With a domain it is a role of that domain, which has rules of its own.
    bodies: &[("POST", "/v3/roles", r#"{"role": {"name": "new"}}"#)],
    unseeded: 400,
    ..Facts::NONE
};

struct Maker {
    app: App,
    names: HashMap<String, String>,
    params: HashMap<String, String>,
}

impl Maker {
    async fn made(&self, who: &Caller, method: &str, path: &str, body: Value) -> Value {
        make(&self.app, who, method, path, body, &[]).await
    }
    /// Creates `{kind: members}` at `path`; gives the id.
    async fn create(&self, path: &str, kind: &str, members: Value) -> String {
        text(&self.made(&root(), "POST", path, json!({ kind: members })).await[kind]["id"])
    }
    fn put(&mut self, param: &str, value: impl Into<String>) {
        self.params.insert(param.to_owned(), value.into());
    }
    fn name(&mut self, name: &str, id: &str) {
        self.names.insert(name.to_owned(), id.to_owned());
    }

    async fn places_and_people(&mut self) {
        for domain in ["d-own", "d-other"] {
            let id = self.create("/v3/domains", "domain", json!({"name": domain})).await;
            self.name(domain, &id);
        }
        for (project, domain) in [("p-own", "d-own"), ("p-other", "d-own"), ("p-far", "d-other")] {
            let members = json!({"name": project, "domain_id": self.names[domain], "tags": ["a-tag"]});
            let id = self.create("/v3/projects", "project", members).await;
            self.name(project, &id);
        }
        for user in ["u-own", "u-trustee"] {
            let members = json!({"name": user, "domain_id": self.names["d-own"], "password": "secret of u"});
            let id = self.create("/v3/users", "user", members).await;
            self.name(user, &id);
        }
        let (domain, project, user) =
            (self.names["d-own"].clone(), self.names["p-own"].clone(), self.names["u-own"].clone());
        let group = self.create("/v3/groups", "group", json!({"name": "g-own", "domain_id": domain})).await;
        self.made(&root(), "PUT", &format!("/v3/groups/{group}/users/{user}"), Value::Null).await;
        let member = text(&self.made(&root(), "GET", "/v3/roles?name=member", Value::Null).await["roles"][0]["id"]);
        let role = self.create("/v3/roles", "role", json!({"name": "implied"})).await;
        self.made(&root(), "PUT", &format!("/v3/projects/{project}/users/{user}/roles/{member}"), Value::Null).await;
        self.made(&root(), "PUT", &format!("/v3/roles/{member}/implies/{role}"), Value::Null).await;
        let own = [
            ("{domain_id}", domain),
            ("{project_id}", project.clone()),
            ("/v3/projects/{project_id}/tags/{tag}", "a-tag".into()),
            ("{value}", "a-tag".into()),
            ("{tag}", "a-tag".into()),
            ("{user_id}", user),
            ("{group_id}", group),
            ("{role_id}", member.clone()),
            ("{prior_role_id}", member.clone()),
            ("{implied_role_id}", role),
        ];
        for (param, id) in own {
            self.put(param, id);
        }
        self.name("role-member", &member);
    }

    async fn catalogue(&mut self) {
        let region = self.create("/v3/regions", "region", json!({"id": "r-own"})).await;
        let service = self.create("/v3/services", "service", json!({"type": "t-own", "name": "s-own"})).await;
        let members =
            json!({"service_id": service, "interface": "public", "url": "https://example.org", "region_id": region});
        let endpoint = self.create("/v3/endpoints", "endpoint", members).await;
        let members = json!({"name": "eg-own", "filters": {"service_id": service}});
        let group = self.create("/v3/OS-EP-FILTER/endpoint_groups", "endpoint_group", members).await;
        let policy = self.create("/v3/policies", "policy", json!({"blob": "{}", "type": "application/json"})).await;
        let registered =
            json!({"registered_limits": [{"service_id": service, "resource_name": "things", "default_limit": 5}]});
        let made = self.made(&root(), "POST", "/v3/registered_limits", registered).await;
        let limits = json!({"limits": [{"service_id": service, "resource_name": "things", "resource_limit": 4, "project_id": self.names["p-own"]}]});
        let limit = self.made(&root(), "POST", "/v3/limits", limits).await;
        self.put("{registered_limit_id}", text(&made["registered_limits"][0]["id"]));
        self.put("{limit_id}", text(&limit["limits"][0]["id"]));
        for (param, id) in [
            ("{region_id}", region),
            ("{service_id}", service),
            ("{endpoint_id}", endpoint),
            ("{endpoint_group_id}", group),
            ("{policy_id}", policy),
        ] {
            self.put(param, id);
        }
    }

    async fn secrets(&mut self) {
        let mut owner = persona::named("owner", &self.names).caller;
        owner.roles = vec![(self.names["role-member"].clone(), "member".into())];
        let (user, project) = (self.names["u-own"].clone(), self.names["p-own"].clone());
        let members = json!({"user_id": user, "type": "cert", "blob": "{}"});
        let made = self.made(&owner, "POST", "/v3/credentials", json!({"credential": members})).await;
        self.put("/v3/credentials/{credential_id}", text(&made["credential"]["id"]));
        let path = format!("/v3/users/{user}/credentials/OS-EC2");
        let made = self.made(&owner, "POST", &path, json!({"tenant_id": project})).await;
        self.put("/v3/users/{user_id}/credentials/OS-EC2/{credential_id}", text(&made["credential"]["access"]));
        let members = json!({"name": "ac-own", "roles": [{"name": "member"}], "access_rules": [{"service": "identity", "method": "GET", "path": "/v3/users"}]});
        let path = format!("/v3/users/{user}/application_credentials");
        let made = self.made(&owner, "POST", &path, json!({"application_credential": members})).await;
        self.put("{application_credential_id}", text(&made["application_credential"]["id"]));
        self.put("{access_rule_id}", text(&made["application_credential"]["access_rules"][0]["id"]));
        let members = json!({"trustor_user_id": user, "trustee_user_id": self.names["u-trustee"], "impersonation": false,
            "project_id": project, "roles": [{"name": "member"}]});
        let made = self.made(&owner, "POST", "/v3/OS-TRUST/trusts", json!({"trust": members})).await;
        self.put("{trust_id}", text(&made["trust"]["id"]));
    }
}

pub async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open("sqlite::memory:", kinds()).await.unwrap();
    let identity = Identity::open(store.clone(), Config::cheap(dir.path())).await.unwrap();
    let endpoints = vec![EndpointSpec {
        service_type: "identity".into(),
        name: "keystone".into(),
        url: "https://127.0.0.1:5000/identity".into(),
    }];
    let first = Bootstrap { admin_password: Some(Secret::new("of nobody")), region: "RegionOne".into(), endpoints };
    identity.bootstrap(first).await.unwrap();
    let state = identity.clone();
    let app =
        App::new(move |authenticator| service().mount(state, Mounting { authenticator, policy_file: None }).unwrap());
    let mut maker = Maker { app, names: HashMap::new(), params: HashMap::new() };
    maker.places_and_people().await;
    maker.catalogue().await;
    maker.secrets().await;
    let fill = map([
        ("domain_id", &maker.names["d-own"]),
        ("project_id", &maker.names["p-own"]),
        ("user_id", &maker.names["u-own"]),
        ("trustor_user_id", &maker.names["u-own"]),
        ("trustee_user_id", &maker.names["u-trustee"]),
        ("service_id", &maker.params["{service_id}"]),
        ("tenant_id", &maker.names["p-own"]),
    ]);
    World {
        app: maker.app,
        store,
        names: maker.names,
        params: maker.params,
        fill,
        facts: FACTS,
        judged_by_original: true,
        _dir: Some(dir),
    }
}
