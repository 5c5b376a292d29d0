//! Limits within limits.
use crate::world::World;
use pilvi_identity::LimitModel;
use serde_json::{Value, json};

struct Limited {
    world: World,
    service: String,
    domain: String,
    projects: [String; 2],
}

async fn limited(model: LimitModel) -> Limited {
    let world = World::with(|c| c.limit_model = model).await;
    let service =
        world.admin("GET", "/v3/services?type=identity", None).await["services"][0]["id"].as_str().unwrap().to_owned();
    let registered =
        json!({"registered_limits": [{"service_id": service, "resource_name": "volumes", "default_limit": 10}]});
    world.admin("POST", "/v3/registered_limits", Some(registered)).await;
    let domain = world.domain("d").await;
    let mut projects = Vec::new();
    for name in ["one", "two"] {
        let body = json!({"project": {"name": name, "domain_id": domain}});
        projects
            .push(world.admin("POST", "/v3/projects", Some(body)).await["project"]["id"].as_str().unwrap().to_owned());
    }
    let projects = [projects[0].clone(), projects[1].clone()];
    Limited { world, service, domain, projects }
}

impl Limited {
    fn limit(&self, place: &str, id: &str, amount: i64) -> Value {
        json!({place: id, "service_id": self.service, "resource_name": "volumes", "resource_limit": amount})
    }
    async fn make(&self, limits: Vec<Value>) -> (u16, Value) {
        let answer = self.world.call("POST", "/v3/limits", &self.world.admin, Some(json!({ "limits": limits }))).await;
        (answer.status, answer.body)
    }
}

#[tokio::test]
async fn a_flat_model_lets_each_stand_for_itself() {
    let l = limited(LimitModel::Flat).await;
    assert_eq!(l.world.admin("GET", "/v3/limits/model", None).await["model"]["name"], "flat");
    let all = vec![l.limit("domain_id", &l.domain, 5), l.limit("project_id", &l.projects[0], 100)];
    assert_eq!(l.make(all).await.0, 201);
    for (place, id) in [("project_id", "none"), ("domain_id", "none"), ("domain_id", l.projects[0].as_str())] {
        assert_eq!(l.make(vec![l.limit(place, id, 1)]).await.0, 400, "{place} {id}");
    }
}

#[tokio::test]
async fn a_project_has_no_more_than_its_domain() {
    let l = limited(LimitModel::StrictTwoLevel).await;
    assert_eq!(l.world.admin("GET", "/v3/limits/model", None).await["model"]["name"], "strict_two_level");
    assert_eq!(l.make(vec![l.limit("project_id", &l.projects[0], 11)]).await.0, 403, "more than is registered");
    let both = vec![l.limit("project_id", &l.projects[0], 15), l.limit("domain_id", &l.domain, 20)];
    let (status, made) = l.make(both).await;
    assert_eq!(status, 201, "a whole family at once: {made}");
    let of = |at: usize| format!("/v3/limits/{}", made["limits"][at]["id"].as_str().unwrap());
    let change = |at: usize, amount: i64| {
        l.world.status("PATCH", Box::leak(of(at).into_boxed_str()), Some(json!({"limit": {"resource_limit": amount}})))
    };
    assert_eq!(change(0, 21).await, 403);
    assert_eq!(change(0, 20).await, 200);
    assert_eq!(change(1, 19).await, 403, "a child has more");
    assert_eq!(change(1, -1).await, 200);
    assert_eq!(change(0, 1000).await, 200);
    let too_much = vec![l.limit("project_id", &l.projects[1], 5)];
    assert_eq!(l.make(too_much).await.0, 201);
    let deep = json!({"project": {"name": "deep", "parent_id": l.projects[0], "domain_id": l.domain}});
    assert_eq!(l.world.status("POST", "/v3/projects", Some(deep)).await, 403, "two levels");
}

#[tokio::test]
async fn a_domain_named_as_a_project_is_a_domain() {
    let l = limited(LimitModel::Flat).await;
    let (status, made) = l.make(vec![l.limit("project_id", &l.domain, 5)]).await;
    assert_eq!(status, 201);
    assert_eq!((&made["limits"][0]["domain_id"], &made["limits"][0]["project_id"]), (&json!(l.domain), &Value::Null));
    assert_eq!(l.make(vec![l.limit("domain_id", &l.domain, 6)]).await.0, 409);
}
