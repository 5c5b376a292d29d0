//! OpenID Connect through the whole kit: bearer tokens, introspection, and a browser's way; with a provider in
//! this process, and with a real one where Python has it.
use crate::{federation::Trust, world::World};
use pilvi_identity::OpenIdConfig;
use pilvi_kit::testing::Answer;
use serde_json::{Value, json};
use std::collections::HashMap;

const ORIGIN: &str = "https://dash.example.org/auth/websso/";
const WEBSSO: &str = "/v3/auth/OS-FEDERATION/websso/openid";
const CALLBACK: &str = "/v3/auth/OS-FEDERATION/openid/callback";

fn mapping() -> Value {
    json!({"rules": [{"local": [{"user": {"name": "{0}", "email": "{1}"}}], "remote": [{"type": "HTTP_OIDC_SUB"}, {"type": "OIDC-email"}]},
        {"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "sub"}]}]})
}

#[tokio::test]
async fn tokens_for_others_and_forged_ones_are_refused() {
    let trust = Trust::new(json!({}), mapping()).await;
    assert_eq!(trust.enter(json!({})).await.status, 201);
    assert_eq!(trust.enter(json!({"aud": ["x", "api"]})).await.status, 201, "an audience of the configuration");
    for change in [
        json!({"aud": "other"}),
        json!({"iss": "https://other"}),
        json!({"exp": 1}),
        json!({"nbf": 4_000_000_000_i64}),
        json!({"exp": null}),
    ] {
        assert_eq!(trust.enter(change.clone()).await.status, 401, "{change}");
    }
    let good = trust.provider.sign(json!({}));
    let mut forged = good.clone();
    let at = good.len() - 20;
    forged.replace_range(at..=at, if good[at..].starts_with('A') { "B" } else { "A" });
    for bad in ["", "x", "a.b.c", forged.as_str(), &good[..good.len() - 1]] {
        assert_eq!(trust.bearer(bad).await.status, 401, "{bad}");
    }
    let path = "/v3/OS-FEDERATION/identity_providers/acme/protocols/openid/auth";
    let bare = trust.world.call("GET", path, "", None).await;
    assert_eq!(bare.status, 401);
    assert!(bare.headers.get_all("www-authenticate").iter().any(|v| v == "Bearer"));
    let post = trust.world.call_with("POST", path, "", None, &[("authorization", &format!("Bearer {good}"))]).await;
    assert_eq!(post.status, 201, "{}", post.body);
    let body =
        json!({"identity": {"methods": ["openid"], "openid": {"identity_provider": "acme", "protocol": "openid"}}});
    let logged = trust
        .world
        .call_with(
            "POST",
            "/v3/auth/tokens",
            "",
            Some(json!({"auth": body})),
            &[("authorization", &format!("Bearer {good}"))],
        )
        .await;
    assert_eq!(logged.status, 201, "{}", logged.body);
}

#[tokio::test]
async fn a_provider_with_names_speaks_under_one_of_them() {
    for (remote_ids, expected) in [(json!(["SELF"]), 201), (json!(["https://other"]), 403), (json!([]), 201)] {
        let trust = Trust::new(json!({}), mapping()).await;
        let text = remote_ids.to_string().replace("SELF", &trust.provider.issuer);
        let ids: Value = serde_json::from_str(&text).unwrap();
        let path = "/v3/OS-FEDERATION/identity_providers/acme";
        trust.world.admin("PATCH", path, Some(json!({"identity_provider": {"remote_ids": ids}}))).await;
        assert_eq!(trust.enter(json!({})).await.status, expected, "{remote_ids}");
    }
}

#[tokio::test]
async fn opaque_tokens_are_asked_about() {
    let trust = Trust::with(json!({}), mapping(), |c| c.introspect = true).await;
    let far = 4_000_000_000_i64;
    for (token, told) in [
        ("good", json!({"active": true, "sub": "bob", "client_id": "cloud", "exp": far})),
        ("dead", json!({"active": false, "sub": "bob", "client_id": "cloud", "exp": far})),
        ("other", json!({"active": true, "sub": "bob", "client_id": "x", "aud": "y", "exp": far})),
        ("over", json!({"active": true, "sub": "bob", "client_id": "cloud", "exp": 1})),
    ] {
        trust.provider.told.lock().insert(token.to_owned(), told);
        assert_eq!(trust.bearer(token).await.status, if token == "good" { 201 } else { 401 }, "{token}");
    }
    assert_eq!(trust.bearer("unknown").await.status, 401);
    let asked = trust.provider.asked.lock().clone();
    assert!(asked.iter().all(|(_, secret)| secret == "Basic Y2xvdWQ6aHVzaA=="), "{asked:?}");
}

#[tokio::test]
async fn user_information_is_of_the_same_person() {
    let trust = Trust::with(json!({}), mapping(), |c| c.userinfo = true).await;
    let token = trust.provider.sign(json!({}));
    assert_eq!(trust.bearer(&token).await.status, 401, "the provider does not know the token");
    trust.provider.told.lock().insert(token.clone(), json!({"sub": "eve", "email": "eve@x"}));
    assert_eq!(trust.bearer(&token).await.status, 401);
    trust.provider.told.lock().insert(token.clone(), json!({"sub": "bob", "email": "bob@x"}));
    let answer = trust.bearer(&token).await;
    let user = answer.body["token"]["user"]["id"].as_str().unwrap().to_owned();
    assert_eq!(trust.world.admin("GET", &format!("/v3/users/{user}"), None).await["user"]["email"], "bob@x");
}

/// Query of an address, and its cookie as the browser sends it back.
fn journey(answer: &Answer) -> (HashMap<String, String>, String, String) {
    assert_eq!(answer.status, 302, "{}", answer.body);
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let query = url::Url::parse(&location).unwrap().query_pairs().into_owned().collect();
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("Secure") && cookie.contains("SameSite=Lax"), "{cookie}");
    (query, cookie.split(';').next().unwrap().to_owned(), location)
}

fn token_of(page: &Answer) -> String {
    let html = String::from_utf8(page.bytes.clone()).unwrap();
    assert_eq!(page.status, 200, "{html}");
    assert!(html.contains(&format!("action=\"{ORIGIN}\"")), "{html}");
    html.split("id=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_browser_signs_on_and_carries_a_token_to_the_dashboard() {
    let trust = Trust::new(json!({}), mapping()).await;
    let world = &trust.world;
    for (path, expected) in [
        (WEBSSO.to_owned(), 400),
        (format!("{WEBSSO}?origin=https://evil.example.org/"), 401),
        (format!("/v3/auth/OS-FEDERATION/websso/none?origin={ORIGIN}"), 404),
        (format!("/v3/auth/OS-FEDERATION/identity_providers/none/protocols/openid/websso?origin={ORIGIN}"), 404),
    ] {
        assert_eq!(world.call("GET", &path, "", None).await.status, expected, "{path}");
    }
    let named = format!("/v3/auth/OS-FEDERATION/identity_providers/acme/protocols/openid/websso?origin={ORIGIN}");
    let (query, cookie, _) = journey(&world.call("GET", &named, "", None).await);
    assert_eq!((query["client_id"].as_str(), query["code_challenge_method"].as_str()), ("cloud", "S256"));
    assert_eq!(query["scope"], "openid profile");
    assert!(query["redirect_uri"].ends_with(CALLBACK));
    let (state, nonce) = (&query["state"], &query["nonce"]);
    let back = |query: String, cookie: String| async move {
        world.call_with("GET", &format!("{CALLBACK}?{query}"), "", None, &[("cookie", &cookie)]).await
    };
    for (query, cookie) in [
        (format!("state={state}&code={nonce}"), String::new()),
        (format!("state=x&code={nonce}"), cookie.clone()),
        (format!("state={state}&code=bad"), cookie.clone()),
        (format!("state={state}&code=another"), cookie.clone()),
        (format!("state={state}&error=access_denied"), cookie.clone()),
        (format!("state={state}"), cookie.clone()),
        (format!("state={state}&code={nonce}"), format!("{cookie}x")),
    ] {
        assert_eq!(back(query.clone(), cookie).await.status, 401, "{query}");
    }
    let page = back(format!("state={state}&code={nonce}"), cookie).await;
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("script-src 'sha256-"));
    assert_eq!(world.validate(&token_of(&page)).await, 200);
    let form: HashMap<String, String> =
        url::form_urlencoded::parse(trust.provider.asked.lock().last().unwrap().0.as_bytes()).into_owned().collect();
    assert_eq!(form["grant_type"], "authorization_code");
    assert!(form["code_verifier"].len() >= 43);
}

/// A program that runs while the test does.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `oidc-provider-mock` (on Authlib) as another project wrote it, in a process of its own.
async fn real_provider() -> Option<(Running, String)> {
    let Some(python) = std::env::var_os("PILVI_OIDC_PYTHON") else {
        eprintln!("skipped: PILVI_OIDC_PYTHON names no Python with oidc-provider-mock in it");
        return None;
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = std::process::Command::new(python)
        .args(["-W", "ignore", "-m", "oidc_provider_mock", "--port", &port.to_string()])
        .args(["--user-claims", r#"{"sub": "bob", "email": "bob@example.org", "preferred_username": "bob"}"#])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("PILVI_OIDC_PYTHON runs");
    let running = Running(child);
    for _ in 0..600 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return Some((running, format!("http://127.0.0.1:{port}")));
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the provider did not start")
}

#[tokio::test]
async fn a_real_provider_signs_on_browsers_and_programs() {
    let Some((_running, issuer)) = real_provider().await else { return };
    let config = OpenIdConfig {
        idp: "acme".into(),
        protocol: "openid".into(),
        issuer: issuer.clone(),
        client_id: "cloud".into(),
        client_secret: Some(pilvi_identity::Secret::new("hush")),
        audiences: Vec::new(),
        scopes: vec!["openid".into(), "email".into()],
        introspect: false,
        userinfo: true,
        ca_pem: None,
    };
    let programs = OpenIdConfig { protocol: "mapped".into(), userinfo: false, ..config.clone() };
    let world = World::with(|c| {
        c.federation.openid = vec![config, programs];
        c.federation.trusted_dashboards = vec![ORIGIN.into()];
    })
    .await;
    let idp = json!({"identity_provider": {"enabled": true, "remote_ids": [issuer]}});
    world.admin("PUT", "/v3/OS-FEDERATION/identity_providers/acme", Some(idp)).await;
    world.admin("PUT", "/v3/OS-FEDERATION/mappings/m", Some(json!({"mapping": mapping()}))).await;
    let protocols = "/v3/OS-FEDERATION/identity_providers/acme/protocols";
    // What a provider calls somebody is his alone, also between protocols: programs are named apart.
    let program = json!({"rules": [{"local": [{"user": {"name": "{0} by program"}}], "remote": [{"type": "sub"}]}]});
    world.admin("PUT", "/v3/OS-FEDERATION/mappings/p", Some(json!({"mapping": program}))).await;
    for (protocol, mapping) in [("openid", "m"), ("mapped", "p")] {
        let body = json!({"protocol": {"mapping_id": mapping}});
        world.admin("PUT", &format!("{protocols}/{protocol}"), Some(body)).await;
    }
    let (_, cookie, location) = journey(&world.call("GET", &format!("{WEBSSO}?origin={ORIGIN}"), "", None).await);
    // The person at the browser says who she is.
    let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let back = browser.post(&location).header(form.0, form.1).body("sub=bob").send().await.unwrap();
    let target = url::Url::parse(back.headers()["location"].to_str().unwrap()).unwrap();
    assert!(target.path().ends_with(CALLBACK), "{target}");
    let path = format!("{CALLBACK}?{}", target.query().unwrap());
    let page = world.call_with("GET", &path, "", None, &[("cookie", &cookie)]).await;
    let token = token_of(&page);
    let shown = world.call_with("GET", "/v3/auth/tokens", &world.admin, None, &[("x-subject-token", &token)]).await;
    assert_eq!(shown.body["token"]["user"]["name"], "bob", "{}", shown.body);
    let user = shown.body["token"]["user"]["id"].as_str().unwrap();
    assert_eq!(world.admin("GET", &format!("/v3/users/{user}"), None).await["user"]["email"], "bob@example.org");
    // A program that got its token by itself.
    let ask = format!(
        "{issuer}/oauth2/authorize?response_type=code&client_id=cloud&redirect_uri=http://127.0.0.1:1/&scope=openid&state=s"
    );
    let back = browser.post(ask).header(form.0, form.1).body("sub=bob").send().await.unwrap();
    let target = url::Url::parse(back.headers()["location"].to_str().unwrap()).unwrap();
    let code = target.query_pairs().find(|(n, _)| n == "code").unwrap().1.into_owned();
    let fields = format!(
        "grant_type=authorization_code&code={code}&redirect_uri=http://127.0.0.1:1/&client_id=cloud&client_secret=hush"
    );
    let redeemed =
        browser.post(format!("{issuer}/oauth2/token")).header(form.0, form.1).body(fields).send().await.unwrap();
    let tokens: Value = serde_json::from_str(&redeemed.text().await.unwrap()).unwrap();
    let bearer = format!("Bearer {}", tokens["id_token"].as_str().unwrap());
    let answer =
        world.call_with("GET", &format!("{protocols}/mapped/auth"), "", None, &[("authorization", &bearer)]).await;
    assert_eq!(
        (answer.status, &answer.body["token"]["user"]["name"]),
        (201, &json!("bob by program")),
        "{}",
        answer.body
    );
    assert_eq!(answer.body["token"]["methods"], json!(["mapped"]));
}
