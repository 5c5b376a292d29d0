//! A cloud with nothing but identity in it, in memory, and the words to talk to it.
use pilvi_identity::{Bootstrap, Bootstrapped, Config, EndpointSpec, Identity, Secret, kinds, service};
use pilvi_kit::{
    auth::Authenticator,
    server::PeerCertificate,
    service::Mounting,
    testing::{Answer, App},
};
use pilvi_store::Store;
use serde_json::{Value, json};
use std::sync::Arc;

pub const PASSWORD: &str = "the admin's password";

/// The service's record of the last login, as the store keeps it.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct LastActive {
    id: String,
    day: i64,
}

impl pilvi_store::Record for LastActive {
    const KIND: &'static str = "identity_last_active";
    fn id(&self) -> &str {
        &self.id
    }
}

pub struct World {
    pub identity: Arc<Identity>,
    pub made: Bootstrapped,
    /// Of the administrator, for the project `admin`.
    pub admin: String,
    pub store: Store,
    app: App,
    pub dir: tempfile::TempDir,
}

pub fn endpoints(port: u16) -> Vec<EndpointSpec> {
    vec![
        EndpointSpec {
            service_type: "identity".into(),
            name: "keystone".into(),
            url: format!("https://127.0.0.1:{port}/identity"),
        },
        EndpointSpec {
            service_type: "object-store".into(),
            name: "swift".into(),
            url: format!("https://127.0.0.1:{port}/object/v1/AUTH_$(project_id)s"),
        },
    ]
}

pub fn bootstrap(port: u16) -> Bootstrap {
    Bootstrap { admin_password: Some(Secret::new(PASSWORD)), region: "RegionOne".into(), endpoints: endpoints(port) }
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open("sqlite::memory:", kinds()).await.unwrap();
        let mut config = Config::cheap(dir.path());
        change(&mut config);
        let identity = Identity::open(store.clone(), config).await.unwrap();
        let made = identity.bootstrap(bootstrap(5000)).await.unwrap();
        let state = identity.clone();
        let app = App::new(|_tokens_of_tests| {
            let authenticator = Authenticator::new(state.clone());
            service().mount(state, Mounting { authenticator, policy_file: None }).unwrap()
        });
        let mut world = World { identity, made, admin: String::new(), store, app, dir };
        let scope = json!({"project": {"name": "admin", "domain": {"id": "default"}}});
        world.admin = world.token("admin", PASSWORD, Some(scope)).await;
        world
    }

    /// A call with a token ("" for none).
    pub async fn call(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Answer {
        self.call_with(method, path, token, body, &[]).await
    }

    pub async fn call_with(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut all = headers.to_vec();
        if !token.is_empty() {
            all.push(("x-auth-token", token));
        }
        self.app.call_with(method, path, None, body, &all).await
    }

    /// A body that is no JSON, perhaps on a connection with a client certificate.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        body: String,
        headers: &[(&str, &str)],
        certificate: Option<&[u8]>,
    ) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(axum::body::Body::from(body)).unwrap();
        if let Some(der) = certificate {
            request.extensions_mut().insert(PeerCertificate(der.to_vec().into()));
        }
        self.app.send(request).await
    }

    /// The administrator does something that must succeed.
    pub async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = self.call(method, path, &self.admin, body).await;
        assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
        answer.body
    }

    /// What the administrator's call is answered with.
    pub async fn status(&self, method: &str, path: &str, body: Option<Value>) -> u16 {
        self.call(method, path, &self.admin, body).await.status
    }

    pub async fn log_in(&self, body: Value) -> Answer {
        self.call("POST", "/v3/auth/tokens", "", Some(json!({ "auth": body }))).await
    }

    /// Logs in by name (in the default domain) and password.
    pub async fn by_password(&self, name: &str, password: &str, scope: Option<Value>) -> Answer {
        let user = json!({"name": name, "domain": {"id": "default"}, "password": password});
        let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
        if let Some(scope) = scope {
            auth["scope"] = scope;
        }
        self.log_in(auth).await
    }

    pub async fn token(&self, name: &str, password: &str, scope: Option<Value>) -> String {
        subject(&self.by_password(name, password, scope).await)
    }

    pub async fn by_token(&self, token: &str, scope: Option<Value>) -> Answer {
        let mut auth = json!({"identity": {"methods": ["token"], "token": {"id": token}}});
        if let Some(scope) = scope {
            auth["scope"] = scope;
        }
        self.log_in(auth).await
    }

    /// Is `token` good? Asked of the service by the administrator.
    pub async fn validate(&self, token: &str) -> u16 {
        self.call_with("GET", "/v3/auth/tokens", &self.admin, None, &[("x-subject-token", token)]).await.status
    }

    /// A user of the default domain whose password is his name.
    pub async fn user(&self, name: &str) -> String {
        self.user_in(name, "default").await
    }

    pub async fn user_in(&self, name: &str, domain: &str) -> String {
        let body = json!({"user": {"name": name, "password": name, "domain_id": domain}});
        id(&self.admin("POST", "/v3/users", Some(body)).await["user"])
    }

    pub async fn project(&self, name: &str) -> String {
        id(&self.admin("POST", "/v3/projects", Some(json!({"project": {"name": name, "domain_id": "default"}}))).await
            ["project"])
    }

    pub async fn domain(&self, name: &str) -> String {
        id(&self.admin("POST", "/v3/domains", Some(json!({"domain": {"name": name}}))).await["domain"])
    }

    pub async fn new_role(&self, name: &str) -> String {
        id(&self.admin("POST", "/v3/roles", Some(json!({"role": {"name": name}}))).await["role"])
    }

    /// The id of a role that bootstrap made.
    pub async fn role(&self, name: &str) -> String {
        id(&self.admin("GET", &format!("/v3/roles?name={name}"), None).await["roles"][0])
    }

    /// As if the user had logged in so many days ago for the last time.
    pub async fn set_last_login(&self, user: &str, days_ago: i64) {
        let day = pilvi_kit::clock::now_us() / 86_400_000_000 - days_ago;
        let record = LastActive { id: user.to_owned(), day };
        self.store
            .write(move |tx| {
                let record = record.clone();
                Box::pin(async move {
                    tx.delete::<LastActive>(&record.id).await?;
                    tx.insert(&record).await?;
                    Ok::<_, pilvi_store::Error>(())
                })
            })
            .await
            .unwrap();
    }

    /// Gives a user a role; `place` is `projects/ID`, `domains/ID` or `system`.
    pub async fn grant(&self, place: &str, user: &str, role: &str) {
        let role = self.role(role).await;
        self.admin("PUT", &format!("/v3/{place}/users/{user}/roles/{role}"), None).await;
    }
}

pub fn id(resource: &Value) -> String {
    resource["id"].as_str().unwrap().to_owned()
}

/// The token that a login gave.
pub fn subject(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.headers["x-subject-token"].to_str().unwrap().to_owned()
}

pub fn project_scope(id: &str) -> Option<Value> {
    Some(json!({"project": {"id": id}}))
}
