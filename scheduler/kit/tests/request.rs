//! A request through the whole kit: what it leaves behind (audit event, notification, trace) and what stops it (limits,
//! rules of verbs, a handler that forgets its rule).
#![allow(clippy::unwrap_used, clippy::expect_used)] // as in any test
use parking_lot::Mutex;
use pilvi_kit::{
    Call, Documented, EventStyle, Fault, Reply, Response, Route, RuleDefault, Service,
    notify::{Kind, Outlet, Sink},
    service::Mounting,
    testing::{App, caller},
    throttle::{Limits, Rate, Throttle},
};
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Default, Clone)]
struct Kept(Arc<Mutex<Vec<(Kind, Value)>>>);

impl Sink for Kept {
    fn send(&self, kind: Kind, event: &Value) {
        self.0.lock().push((kind, event.clone()));
    }
}

impl Kept {
    fn take(&self, wanted: Kind) -> Vec<Value> {
        let all = self.0.lock();
        all.iter().filter(|(kind, _)| *kind == wanted).map(|(_, event)| event.clone()).collect()
    }
}

async fn create(_: Arc<()>, _: Call) -> Reply {
    Ok(Response::created(json!({"thing": {"id": "t-1", "name": "x"}})))
}
async fn act(_: Arc<()>, call: Call) -> Reply {
    call.authorize(&call.target())?;
    Ok(Response::accepted(Value::Null))
}
async fn forgets(_: Arc<()>, _: Call) -> Reply {
    Ok(Response::no_content())
}
async fn refuses(_: Arc<()>, _: Call) -> Reply {
    Err(Fault::unauthorized())
}

const VERBS: &[(&str, &str)] = &[("stop", "thing:stop"), ("wipe", "thing:wipe")];

fn app(kept: &Kept, limits: Limits) -> App {
    let mut app = App::new(|authenticator| {
        let service = Service {
            name: "things",
            prefix: "/things",
            versions: None,
            fault: pilvi_kit::fault::plain_shape,
            rules: vec![
                RuleDefault::new("thing:create", "role:member", &[], ""),
                RuleDefault::new("thing:stop", "role:member", &[], ""),
                RuleDefault::new("thing:wipe", "role:admin", &[], ""),
            ],
            routes: vec![
                Route::post("/v1/things", create).rule("thing:create"),
                Route::post("/v1/things/{thing_id}/action", act).rule_by_handler("thing:stop").actions(VERBS),
                Route::post("/v1/things/{thing_id}/act", act).rule("thing:stop").actions(VERBS),
                Route::delete("/v1/things/{thing_id}", forgets).rule_by_handler("thing:wipe"),
                Route::post("/v1/login", refuses).public("a test"),
            ],
            documented: Documented::default(),
            events: EventStyle { suffix: ".end", ..EventStyle::PLAIN },
        };
        service.mount(Arc::new(()), Mounting { authenticator, policy_file: None }).unwrap()
    });
    app.front.outlet = Outlet::new("host", vec![Box::new(kept.clone())]);
    app.front.throttle = Throttle::new(limits);
    app
}

#[tokio::test]
async fn a_change_is_audited_and_announced_with_the_resource_it_changed() {
    let kept = Kept::default();
    let (app, member) = (app(&kept, Limits::default()), caller("p", &["member"]));
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let secret = json!({"thing": {"name": "x", "password": "open sesame"}});
    let answer = app.call_with("POST", "/v1/things", Some(&member), Some(secret), &[("traceparent", parent)]).await;
    assert_eq!(answer.status, 201);
    let trace = answer.headers["traceparent"].to_str().unwrap();
    assert!(trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && trace != parent, "{trace}");
    let stop = app.call("POST", "/v1/things/t-1/action", Some(&member), Some(json!({"stop": null}))).await;
    let wipe = app.call("POST", "/v1/things/t-1/action", Some(&member), Some(json!({"wipe": null}))).await;
    assert_eq!((stop.status, wipe.status), (202, 403));

    let told = kept.take(Kind::Notification);
    let types: Vec<&str> = told.iter().map(|e| e["event_type"].as_str().unwrap()).collect();
    assert_eq!(types, ["thing.create.end", "thing.stop.end"], "what was refused is no change");
    let payload = &told[0]["payload"];
    assert_eq!(payload["resource"], json!({"type": "thing", "id": "t-1"}));
    assert_eq!((&payload["outcome"], &payload["initiator"]["project_id"]), (&json!("success"), &json!("p")));
    assert_eq!(payload["initiator"]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(payload["initiator"]["request_id"], answer.headers["x-openstack-request-id"].to_str().unwrap());
    let audited = kept.take(Kind::Audit);
    assert_eq!(audited.len(), 3);
    assert_eq!(
        (&audited[0]["target"]["id"], &audited[0]["target"]["typeURI"]),
        (&json!("t-1"), &json!("service/things/thing"))
    );
    assert_eq!((&audited[2]["outcome"], &audited[2]["action"]), (&json!("failure"), &json!("wipe")));
    assert!(!format!("{told:?}{audited:?}").contains("sesame"), "bodies are no part of events");
}

#[tokio::test]
async fn each_verb_has_its_own_rule_and_a_forgotten_one_is_noticed() {
    let app = app(&Kept::default(), Limits::default());
    let (member, admin) = (caller("p", &["member"]), caller("p", &["admin", "member"]));
    for path in ["/v1/things/t/action", "/v1/things/t/act"] {
        let stop = app.call("POST", path, Some(&member), Some(json!({"stop": {}}))).await;
        let wipe = app.call("POST", path, Some(&member), Some(json!({"wipe": {}}))).await;
        let by_admin = app.call("POST", path, Some(&admin), Some(json!({"wipe": {}}))).await;
        assert_eq!((stop.status, wipe.status, by_admin.status), (202, 403, 202), "{path}");
    }
    assert_eq!(app.call("DELETE", "/v1/things/t", Some(&admin), None).await.status, 500);
    let (answer, asked) = app.probe(("DELETE", "/v1/things/t"), Some(&admin), None, &[], None).await;
    assert_eq!((answer.status, asked.len()), (500, 0), "a probe sees it too");
    let (answer, asked) =
        app.probe(("POST", "/v1/things/t/action"), Some(&admin), Some(json!({"wipe": {}})), &[], None).await;
    assert_eq!((answer.status, asked[0].rule.as_str(), asked[0].allowed), (403, "thing:wipe", true));
}

#[tokio::test]
async fn limits_answer_429_in_the_services_envelope() {
    let limits = Limits { user: Rate::new(60.0, 2.0), address: Rate::new(600.0, 5.0), ..Limits::default() };
    let app = app(&Kept::default(), limits);
    let member = caller("p", &["member"]);
    let call = async || app.call("POST", "/v1/things", Some(&member), None).await;
    assert_eq!((call().await.status, call().await.status), (201, 201));
    let over = call().await;
    assert_eq!((over.status, &over.body["error"]["code"]), (429, &json!(429)));
    assert!(over.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(app.call("POST", "/v1/things", Some(&caller("p", &["admin", "member"])), None).await.status, 201);
    assert_eq!(app.call("POST", "/v1/login", None, None).await.status, 401);
    assert_eq!(app.call("POST", "/v1/login", None, None).await.status, 429, "the address has used up its own");
}

#[tokio::test]
async fn a_service_may_take_addresses_to_the_letter() {
    let mut app = app(&Kept::default(), Limits::default());
    let member = caller("p", &["member"]);
    let status = async |app: &App, method: &str, path: &str| app.call(method, path, Some(&member), None).await.status;
    let asked = [("POST", "/v1/things"), ("POST", "/v1/things/"), ("PUT", "/v1/things"), ("POST", "/v1/things//act")];
    let mut found = Vec::new();
    for (method, path) in asked {
        found.push(status(&app, method, path).await);
    }
    assert_eq!(found, [201, 201, 405, 405]);
    app.service = app.service.literally();
    let mut found = Vec::new();
    for (method, path) in asked {
        found.push(status(&app, method, path).await);
    }
    assert_eq!(found, [201, 404, 404, 404], "a forgotten id is another address");
}
