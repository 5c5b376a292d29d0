//! Domains whose people are in a directory, against a real one.
use crate::{
    slapd::{READER, READER_PASSWORD, SUFFIX, Slapd},
    world::World,
};
use pilvi_kit::testing::Answer;
use serde_json::{Value, json};

struct Corporate {
    world: World,
    slapd: Slapd,
    domain: String,
}

fn config(slapd: &Slapd, more: Value) -> Value {
    let mut ldap = json!({
        "url": slapd.url(), "user": READER, "password": READER_PASSWORD, "suffix": SUFFIX,
        "user_tree_dn": format!("ou=people,{SUFFIX}"), "user_id_attribute": "employeeNumber", "user_name_attribute": "uid",
        "user_enabled_attribute": "employeeType", "user_attribute_ignore": "enabled",
        "user_additional_attribute_mapping": "telephoneNumber:phone",
        "group_tree_dn": format!("ou=groups,{SUFFIX}"), "group_name_attribute": "cn",
    });
    ldap.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"config": {"identity": {"driver": "ldap"}, "ldap": ldap}})
}

async fn corporate(more: Value) -> Option<Corporate> {
    let slapd = Slapd::start().await?;
    let world = World::new().await;
    let domain = world.domain("corporate").await;
    world.admin("PUT", &format!("/v3/domains/{domain}/config"), Some(config(&slapd, more))).await;
    Some(Corporate { world, slapd, domain })
}

impl Corporate {
    async fn log_in(&self, name: &str, password: &str, scope: Option<Value>) -> Answer {
        let user = json!({"name": name, "domain": {"id": self.domain}, "password": password});
        let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
        if let Some(scope) = scope {
            auth["scope"] = scope;
        }
        self.world.log_in(auth).await
    }

    async fn users(&self, query: &str) -> Vec<Value> {
        let path = format!("/v3/users?domain_id={}{query}", self.domain);
        self.world.admin("GET", &path, None).await["users"].as_array().unwrap().clone()
    }

    async fn id_of(&self, name: &str) -> String {
        self.users(&format!("&name={name}")).await[0]["id"].as_str().unwrap().to_owned()
    }

    async fn reconfigure(&self, more: Value) {
        let path = format!("/v3/domains/{}/config", self.domain);
        self.world.admin("PUT", &path, Some(config(&self.slapd, more))).await;
    }
}

#[tokio::test]
async fn people_of_a_directory_are_users_and_prove_it_by_their_password() {
    let Some(c) = corporate(json!({})).await else { return };
    assert_eq!(c.users("").await.len(), 29);
    let ann = c.users("&name=ann").await[0].clone();
    assert_eq!(
        (&ann["email"], &ann["phone"], &ann["description"]),
        (&json!("ann@example.org"), &json!("5550"), &json!("number 0"))
    );
    assert_eq!((&ann["enabled"], &ann["domain_id"], &ann["options"]), (&json!(true), &json!(c.domain), &json!({})));
    let id = ann["id"].as_str().unwrap();
    assert_eq!(id.len(), 64);
    assert_eq!(c.world.admin("GET", &format!("/v3/users/{id}"), None).await["user"], ann);
    let answer = c.log_in("ann", "ann", None).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.body["token"]["user"]["id"], id);
    for (name, password) in
        [("ann", "bob"), ("ann", ""), ("nobody", "nobody"), ("", ""), ("*", "ann"), ("ann)(uid=*", "ann")]
    {
        assert_eq!(c.log_in(name, password, None).await.status, 401, "{name} {password}");
    }
    assert_eq!(c.log_in("o'b*(x)\\y", "o'b*(x)\\y", None).await.status, 201, "odd names are names");
    assert_eq!(c.log_in("crowd*", "crowd01", None).await.status, 401, "and no patterns");
}

#[tokio::test]
async fn groups_of_a_directory_give_roles() {
    let Some(c) = corporate(json!({})).await else { return };
    let project = c.world.project("p").await;
    let groups = c.world.admin("GET", &format!("/v3/groups?domain_id={}", c.domain), None).await;
    let admins = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "admins").unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (member, ann, bob) = (c.world.role("member").await, c.id_of("ann").await, c.id_of("bob").await);
    c.world.admin("PUT", &format!("/v3/projects/{project}/groups/{admins}/roles/{member}"), None).await;
    let scope = || Some(json!({"project": {"id": project}}));
    let answer = c.log_in("ann", "ann", scope()).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let token = answer.headers["x-subject-token"].to_str().unwrap().to_owned();
    assert_eq!(c.world.validate(&token).await, 200);
    assert_eq!(c.log_in("bob", "bob", scope()).await.status, 401, "not in the group");
    c.world.admin("PUT", &format!("/v3/projects/{project}/users/{bob}/roles/{member}"), None).await;
    assert_eq!(c.log_in("bob", "bob", scope()).await.status, 201, "by himself");
    let members = c.world.admin("GET", &format!("/v3/groups/{admins}/users"), None).await;
    let names: Vec<&str> = members["users"].as_array().unwrap().iter().map(|u| u["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ann", "eve"]);
    let of_ann = c.world.admin("GET", &format!("/v3/users/{ann}/groups"), None).await;
    assert!(of_ann["groups"].as_array().unwrap().iter().any(|g| g["id"] == admins.as_str()));
    assert_eq!(c.world.status("HEAD", &format!("/v3/groups/{admins}/users/{ann}"), None).await, 204);
    assert_eq!(c.world.status("HEAD", &format!("/v3/groups/{admins}/users/{bob}"), None).await, 404);
    let effective = format!("/v3/role_assignments?effective&include_names&scope.project.id={project}&role.id={member}");
    let rows = c.world.admin("GET", &effective, None).await;
    let mut who: Vec<&str> =
        rows["role_assignments"].as_array().unwrap().iter().map(|r| r["user"]["name"].as_str().unwrap()).collect();
    who.sort_unstable();
    assert_eq!(who, ["ann", "bob", "eve"]);
    c.world.admin("DELETE", &format!("/v3/projects/{project}/groups/{admins}/roles/{member}"), None).await;
    assert_eq!(c.world.validate(&token).await, 404);
    let secret = json!({"credential": {"type": "totp", "blob": "GEZDGNBV", "user_id": ann}});
    assert_eq!(c.world.status("POST", "/v3/credentials", Some(secret)).await, 201, "they may have credentials");
}

#[tokio::test]
async fn a_directory_is_read_only() {
    let Some(c) = corporate(json!({})).await else { return };
    let ann = c.id_of("ann").await;
    let body = json!({"user": {"name": "new", "domain_id": c.domain}});
    assert_eq!(c.world.status("POST", "/v3/users", Some(body)).await, 403);
    let group = json!({"group": {"name": "new", "domain_id": c.domain}});
    assert_eq!(c.world.status("POST", "/v3/groups", Some(group)).await, 403);
    let path = format!("/v3/users/{ann}");
    assert_eq!(c.world.status("PATCH", &path, Some(json!({"user": {"enabled": false}}))).await, 403);
    assert_eq!(c.world.status("DELETE", &path, None).await, 403);
    let change = json!({"user": {"original_password": "ann", "password": "other"}});
    assert_eq!(c.world.call("POST", &format!("{path}/password"), "", Some(change)).await.status, 403);
    let shown = c.world.admin("GET", &format!("/v3/domains/{}/config", c.domain), None).await;
    assert!(shown["config"]["ldap"].get("password").is_none(), "the reader's password is not shown");
}

#[tokio::test]
async fn what_the_configuration_says_of_the_directory_holds() {
    let Some(c) = corporate(json!({"page_size": 7, "user_filter": "(employeeType=staff)"})).await else { return };
    assert_eq!(c.users("").await.len(), 28, "in pages of seven, without the suspended one");
    assert_eq!(c.log_in("eve", "eve", None).await.status, 401);
    c.reconfigure(json!({"user_attribute_ignore": "", "user_enabled_emulation": true, "user_enabled_emulation_dn": format!("cn=enabled_users,ou=groups,{SUFFIX}")})).await;
    assert_eq!(c.log_in("ann", "ann", None).await.status, 201);
    assert_eq!(c.log_in("bob", "bob", None).await.status, 401, "not in the group of the enabled");
    let tls = json!({"url": format!("ldaps://127.0.0.1:{}", c.slapd.tls_port)});
    c.reconfigure(tls.clone()).await;
    assert_eq!(c.log_in("bob", "bob", None).await.status, 503, "nobody vouches for the certificate");
    let ca = c.slapd.dir.path().join("cert.pem").display().to_string();
    for (url, start_tls) in [(format!("ldaps://127.0.0.1:{}", c.slapd.tls_port), false), (c.slapd.url(), true)] {
        c.reconfigure(json!({"url": url, "use_tls": start_tls, "tls_cacertfile": ca})).await;
        assert_eq!(c.log_in("bob", "bob", None).await.status, 201, "{url} {start_tls}");
    }
    let mut never = tls;
    never["tls_req_cert"] = "never".into();
    c.reconfigure(never).await;
    assert_eq!(c.log_in("bob", "bob", None).await.status, 201);
    c.reconfigure(json!({"url": format!("ldap://127.0.0.1:1,{}", c.slapd.url())})).await;
    assert_eq!(c.log_in("bob", "bob", None).await.status, 201, "the second server answers");
    for broken in [json!({"url": "http://x"}), json!({"password": "wrong"}), json!({"user_filter": "(("})] {
        c.reconfigure(broken.clone()).await;
        assert_eq!(c.log_in("bob", "bob", None).await.status, 503, "{broken}");
    }
}

#[tokio::test]
async fn many_at_once_share_few_connections_and_a_lost_directory_is_told() {
    let Some(mut c) = corporate(json!({"pool_size": 2, "auth_pool_size": 2, "pool_retry_max": 1})).await else {
        return;
    };
    let all = (0..20).map(|i| {
        let name = format!("crowd{:02}", i % 10);
        let c = &c;
        async move { c.log_in(&name, &name, None).await.status }
    });
    let answers = futures::future::join_all(all).await;
    assert!(answers.iter().all(|s| *s == 201), "{answers:?}");
    c.slapd.stop();
    assert_eq!(c.log_in("crowd11", "crowd11", None).await.status, 503);
    assert_eq!(c.world.status("GET", &format!("/v3/users?domain_id={}", c.domain), None).await, 503);
    assert_eq!(c.world.status("GET", "/v3/users", None).await, 200, "the others are not touched");
}

#[tokio::test]
async fn ids_outlive_the_configuration_and_go_with_the_domain() {
    let Some(c) = corporate(json!({})).await else { return };
    let ann = c.id_of("ann").await;
    let path = format!("/v3/domains/{}/config", c.domain);
    c.world.admin("DELETE", &path, None).await;
    assert_eq!(c.world.status("GET", &format!("/v3/users/{ann}"), None).await, 404);
    c.world.admin("PUT", &path, Some(config(&c.slapd, json!({})))).await;
    assert_eq!(c.id_of("ann").await, ann);
    let project = c.world.project("p").await;
    c.world.grant(&format!("projects/{project}"), &ann, "member").await;
    c.world.admin("PATCH", &format!("/v3/domains/{}", c.domain), Some(json!({"domain": {"enabled": false}}))).await;
    c.world.admin("DELETE", &format!("/v3/domains/{}", c.domain), None).await;
    let rows = c.world.admin("GET", &format!("/v3/role_assignments?scope.project.id={project}"), None).await;
    assert_eq!(rows["role_assignments"], json!([]), "nothing is left hanging");
}
