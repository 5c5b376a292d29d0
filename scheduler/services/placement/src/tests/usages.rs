//! Allocations, usages and the reshaper: the tables.
use super::table::*;
use serde_json::{Value, json};

fn owned(body: Value, more: Value) -> Value {
    let mut out = json!({"project_id": "p", "user_id": "u"});
    for (name, value) in body.as_object().unwrap().iter().chain(more.as_object().unwrap()) {
        out[name] = value.clone();
    }
    out
}

/// `{provider: {"resources": {"VCPU": n}}}`
fn cores(provider: &str, n: i64) -> Value {
    json!({"allocations": {provider: {"resources": {"VCPU": n}}}})
}

fn list(provider: &str, n: i64) -> Value {
    json!({"allocations": [{"resource_provider": {"uuid": provider}, "resources": {"VCPU": n}}]})
}

#[tokio::test]
async fn allocations_in_every_shape() {
    let mut s = cloud().await;
    let generation = |n: Value| json!({"consumer_generation": n});
    s.play(vec![
        ("1.0", "PUT /allocations/$ONE", list("$ROOT", 1), 204, vec![]),
        ("1.7", "PUT /allocations/$ONE", owned(list("$ROOT", 1), json!({})), 400, vec![]),
        ("1.8", "PUT /allocations/$ONE", list("$ROOT", 1), 400, vec![]),
        ("1.8", "PUT /allocations/$ONE", owned(list("$ROOT", 2), json!({})), 204, vec![]),
        ("1.11", "PUT /allocations/$ONE", owned(cores("$ROOT", 2), json!({})), 400, vec![]),
        ("1.12", "PUT /allocations/$ONE", owned(list("$ROOT", 2), json!({})), 400, vec![]),
        ("1.12", "PUT /allocations/$ONE", owned(cores("$ROOT", 3), json!({})), 204, vec![]),
        ("1.27", "PUT /allocations/$ONE", owned(json!({"allocations": {}}), json!({})), 400, vec![]),
        ("1.27", "PUT /allocations/$ONE", owned(cores("$ROOT", 3), generation(json!(1))), 400, vec![]),
        ("1.28", "PUT /allocations/$ONE", owned(cores("$ROOT", 3), json!({})), 400, vec![]),
        (
            "1.28",
            "PUT /allocations/$ONE",
            owned(cores("$ROOT", 3), generation(json!(null))),
            409,
            vec![Code(CONCURRENT), Text("consumer generation conflict")],
        ),
        ("1.28", "PUT /allocations/$ONE", owned(cores("$ROOT", 3), generation(json!(3))), 204, vec![]),
        ("1.28", "PUT /allocations/$TWO", owned(cores("$ROOT", 1), generation(json!(0))), 409, vec![Code(CONCURRENT)]),
        (
            "1.28",
            "PUT /allocations/$ONE",
            owned(cores("$ROOT", 3), json!({"consumer_generation": 4, "mappings": {"_G": ["$ROOT"]}})),
            400,
            vec![],
        ),
        (
            "1.34",
            "PUT /allocations/$ONE",
            owned(cores("$ROOT", 3), json!({"consumer_generation": 4, "mappings": {"_G": ["$ROOT"]}})),
            204,
            vec![],
        ),
        (
            "1.34",
            "PUT /allocations/$ONE",
            owned(cores("$ROOT", 3), json!({"consumer_generation": 5, "mappings": {"_G": ["no"]}})),
            400,
            vec![],
        ),
        (
            "1.34",
            "PUT /allocations/$ONE",
            owned(cores("$ROOT", 3), json!({"consumer_generation": 5, "mappings": {"_G": []}})),
            400,
            vec![],
        ),
        (
            "1.37",
            "PUT /allocations/$ONE",
            owned(cores("$ROOT", 3), json!({"consumer_generation": 5, "consumer_type": "INSTANCE"})),
            400,
            vec![],
        ),
        ("1.38", "PUT /allocations/$ONE", owned(cores("$ROOT", 3), generation(json!(5))), 400, vec![]),
        (
            "1.38",
            "PUT /allocations/$ONE",
            owned(cores("$ROOT", 3), json!({"consumer_generation": 5, "consumer_type": "a b"})),
            400,
            vec![],
        ),
        (
            "1.38",
            "PUT /allocations/$ONE",
            owned(cores("$ROOT", 3), json!({"consumer_generation": 5, "consumer_type": "INSTANCE"})),
            204,
            vec![],
        ),
        // shown
        (
            "1.0",
            "GET /allocations/$ONE",
            none(),
            200,
            vec![Is("/allocations/$ROOT/resources", json!({"VCPU": 3})), Not("/project_id"), NoHeader("last-modified")],
        ),
        (
            "1.12",
            "GET /allocations/$ONE",
            none(),
            200,
            vec![Is("/project_id", json!("p")), Is("/user_id", json!("u")), Not("/consumer_generation")],
        ),
        ("1.15", "GET /allocations/$ONE", none(), 200, vec![Header("last-modified"), Header("cache-control")]),
        (
            "1.28",
            "GET /allocations/$ONE",
            none(),
            200,
            vec![Is("/consumer_generation", json!(6)), Not("/consumer_type")],
        ),
        ("1.38", "GET /allocations/$ONE", none(), 200, vec![Is("/consumer_type", json!("INSTANCE"))]),
        ("1.39", "GET /allocations/$NOBODY", none(), 200, vec![Is("", json!({"allocations": {}}))]),
        (
            "1.0",
            "GET /resource_providers/$ROOT/allocations",
            none(),
            200,
            vec![Not("/allocations/$ONE/consumer_generation"), Is("/allocations/$ONE/resources/VCPU", json!(3))],
        ),
        (
            "1.28",
            "GET /resource_providers/$ROOT/allocations",
            none(),
            200,
            vec![Is("/allocations/$ONE/consumer_generation", json!(6))],
        ),
        ("1.39", "GET /resource_providers/$NOBODY/allocations", none(), 404, vec![]),
        // given back
        ("1.28", "PUT /allocations/$ONE", owned(json!({"allocations": {}}), generation(json!(6))), 204, vec![]),
        ("1.39", "GET /allocations/$ONE", none(), 200, vec![Count("/allocations", 0)]),
        ("1.39", "DELETE /allocations/$ONE", none(), 404, vec![Text("No allocations for consumer '$ONE'")]),
        ("1.0", "PUT /allocations/$ONE", list("$ROOT", 1), 204, vec![]),
        (
            "1.39",
            "GET /allocations/$ONE",
            none(),
            200,
            vec![
                Is("/project_id", json!("00000000-0000-0000-0000-000000000000")),
                Is("/consumer_type", json!("unknown")),
            ],
        ),
        ("1.0", "DELETE /allocations/$ONE", none(), 204, vec![]),
    ])
    .await;
}

#[tokio::test]
async fn refused_allocations_change_nothing() {
    let mut s = cloud().await;
    let bad = |allocations: Value| json!({"allocations": allocations, "project_id": "p", "user_id": "u", "consumer_generation": null, "consumer_type": "INSTANCE"});
    s.play(vec![
        ("1.39", "PUT /allocations/no", claim("$ROOT", 1, none()), 400, vec![Text("Malformed consumer_uuid: no")]),
        ("1.39", "PUT /allocations/$ONE", claim("$NOBODY", 1, none()), 400, vec![Text("that does not exist")]),
        ("1.39", "PUT /allocations/$ONE", bad(json!({"no": {"resources": {"VCPU": 1}}})), 400, vec![]),
        ("1.39", "PUT /allocations/$ONE", bad(json!({"$ROOT": {"resources": {}}})), 400, vec![]),
        ("1.39", "PUT /allocations/$ONE", bad(json!({"$ROOT": {"resources": {"VCPU": 0}}})), 400, vec![]),
        ("1.39", "PUT /allocations/$ONE", bad(json!({"$ROOT": {"resources": {"lower": 1}}})), 400, vec![]),
        (
            "1.39",
            "PUT /allocations/$ONE",
            bad(json!({"$ROOT": {"resources": {"CUSTOM_NO": 1}}})),
            400,
            vec![Text("No such resource class CUSTOM_NO")],
        ),
        (
            "1.39",
            "PUT /allocations/$ONE",
            bad(json!({"$ROOT": {"resources": {"DISK_GB": 1}}})),
            409,
            vec![Code(UNDEFINED)],
        ),
        (
            "1.39",
            "PUT /allocations/$ONE",
            claim("$ROOT", 9, none()),
            409,
            vec![Text("The requested amount would exceed the capacity.")],
        ),
        // One of two providers is full: neither gives.
        (
            "1.39",
            "PUT /allocations/$ONE",
            bad(json!({"$ROOT": {"resources": {"VCPU": 1}}, "$OTHER": {"resources": {"VCPU": 9}}})),
            409,
            vec![],
        ),
        (
            "1.39",
            "GET /resource_providers/$ROOT/usages",
            none(),
            200,
            vec![Is("/usages/VCPU", json!(0)), Is("/resource_provider_generation", json!(1))],
        ),
        ("1.39", "GET /allocations/$ONE", none(), 200, vec![Count("/allocations", 0)]),
    ])
    .await;
}

#[tokio::test]
async fn several_consumers_at_once() {
    let mut s = cloud().await;
    let both = |one: Value, two: Value| json!({"$ONE": one, "$TWO": two});
    let old = |provider: &str, n: i64| owned(cores(provider, n), json!({}));
    s.play(vec![
        ("1.13", "POST /allocations", both(old("$ROOT", 2), old("$OTHER", 3)), 204, vec![]),
        (
            "1.13",
            "POST /allocations",
            both(old("$ROOT", 2), json!({"allocations": {}, "project_id": "p", "user_id": "u"})),
            204,
            vec![],
        ),
        ("1.39", "GET /allocations/$TWO", none(), 200, vec![Count("/allocations", 0)]),
        ("1.13", "POST /allocations", json!({}), 400, vec![]),
        ("1.13", "POST /allocations", json!({"no": old("$ROOT", 1)}), 400, vec![]),
        ("1.28", "POST /allocations", json!({"$ONE": old("$ROOT", 1)}), 400, vec![]),
        ("1.38", "POST /allocations", both(claim("$ROOT", 1, json!(2)), claim("$OTHER", 8, none())), 204, vec![]),
        // Of a pair neither happens when one cannot.
        (
            "1.38",
            "POST /allocations",
            both(claim("$ROOT", 2, json!(3)), claim("$OTHER", 8, json!(7))),
            409,
            vec![Code(CONCURRENT)],
        ),
        (
            "1.38",
            "POST /allocations",
            both(claim("$ROOT", 2, json!(3)), claim("$OTHER", 9, json!(1))),
            409,
            vec![Code(UNDEFINED)],
        ),
        ("1.38", "POST /allocations", both(claim("$ROOT", 2, json!(3)), claim("$NOBODY", 1, json!(1))), 400, vec![]),
        (
            "1.39",
            "GET /allocations/$ONE",
            none(),
            200,
            vec![Is("/allocations/$ROOT/resources/VCPU", json!(1)), Is("/consumer_generation", json!(3))],
        ),
        // They change places on full providers.
        ("1.38", "POST /allocations", both(claim("$OTHER", 8, json!(3)), claim("$ROOT", 8, json!(1))), 204, vec![]),
        ("1.39", "GET /resource_providers/$ROOT/usages", none(), 200, vec![Is("/usages/VCPU", json!(8))]),
    ])
    .await;
}

#[tokio::test]
async fn usages() {
    let mut s = cloud().await;
    let more = |project: &str, user: &str, kind: &str| {
        let mut body = claim("$ROOT", 1, none());
        (body["project_id"], body["user_id"], body["consumer_type"]) = (json!(project), json!(user), json!(kind));
        body
    };
    s.play(vec![
        ("1.39", "PUT /allocations/$ONE", more("p", "u", "INSTANCE"), 204, vec![]),
        ("1.39", "PUT /allocations/$TWO", more("p", "v", "MIGRATION"), 204, vec![]),
        ("1.39", "PUT /allocations/$THREE", more("q", "u", "INSTANCE"), 204, vec![]),
        ("1.0", "PUT /allocations/$OLD", list("$OTHER", 1), 204, vec![]),
        (
            "1.0",
            "GET /resource_providers/$ROOT/usages",
            none(),
            200,
            vec![Is("/usages", json!({"VCPU": 3, "MEMORY_MB": 0}))],
        ),
        ("1.39", "GET /resource_providers/$NOBODY/usages", none(), 404, vec![]),
        (
            "1.9",
            "GET /usages?project_id=p",
            none(),
            200,
            vec![Is("/usages", json!({"VCPU": 2})), NoHeader("last-modified")],
        ),
        ("1.15", "GET /usages?project_id=p", none(), 200, vec![Header("last-modified")]),
        ("1.9", "GET /usages?project_id=p&user_id=v", none(), 200, vec![Is("/usages", json!({"VCPU": 1}))]),
        ("1.9", "GET /usages?project_id=nobody", none(), 200, vec![Is("/usages", json!({}))]),
        ("1.9", "GET /usages", none(), 400, vec![Text("'project_id' is a required property")]),
        ("1.9", "GET /usages?user_id=u", none(), 400, vec![]),
        ("1.9", "GET /usages?project_id=p&colour=red", none(), 400, vec![]),
        ("1.9", "GET /usages?project_id=", none(), 400, vec![]),
        ("1.37", "GET /usages?project_id=p&consumer_type=INSTANCE", none(), 400, vec![]),
        (
            "1.38",
            "GET /usages?project_id=p",
            none(),
            200,
            vec![
                Is("/usages/INSTANCE", json!({"VCPU": 1, "consumer_count": 1})),
                Is("/usages/MIGRATION/VCPU", json!(1)),
            ],
        ),
        ("1.38", "GET /usages?project_id=p&consumer_type=INSTANCE", none(), 200, vec![Count("/usages", 1)]),
        (
            "1.38",
            "GET /usages?project_id=p&consumer_type=all",
            none(),
            200,
            vec![Is("/usages", json!({"all": {"VCPU": 2, "consumer_count": 2}}))],
        ),
        (
            "1.38",
            "GET /usages?project_id=00000000-0000-0000-0000-000000000000&consumer_type=unknown",
            none(),
            200,
            vec![Is("/usages/unknown/consumer_count", json!(1))],
        ),
        ("1.38", "GET /usages?project_id=p&consumer_type=a", none(), 400, vec![]),
    ])
    .await;
}

#[tokio::test]
async fn the_reshaper() {
    let mut s = cloud().await;
    let stock = |generation: i64, inventories: Value| json!({"resource_provider_generation": generation, "inventories": inventories});
    let shape = |root: Value, child: Value, allocations: Value| json!({"inventories": {"$ROOT": root, "$CHILD": child}, "allocations": allocations});
    let moved = |n: i64, generation: i64| json!({"$ONE": claim("$CHILD", n, json!(generation))});
    let (root, child) = (stock(2, json!({"MEMORY_MB": {"total": 1024}})), stock(1, json!({"VCPU": {"total": 8}})));
    let mut typeless = moved(2, 1);
    typeless["$ONE"].as_object_mut().unwrap().remove("consumer_type");
    s.play(vec![
        ("1.39", "PUT /allocations/$ONE", claim("$ROOT", 2, none()), 204, vec![]),
        ("1.30", "POST /reshaper", json!({"inventories": {}, "allocations": {}}), 400, vec![]),
        ("1.30", "POST /reshaper", json!({"inventories": {"$ROOT": root.clone()}}), 400, vec![]),
        (
            "1.38",
            "POST /reshaper",
            json!({"inventories": {"$NOBODY": root.clone()}, "allocations": {}}),
            400,
            vec![Code("placement.resource_provider.not_found")],
        ),
        (
            "1.38",
            "POST /reshaper",
            shape(stock(9, json!({})), child.clone(), moved(2, 1)),
            409,
            vec![Code(CONCURRENT), Text("generation conflict")],
        ),
        ("1.38", "POST /reshaper", shape(root.clone(), child.clone(), moved(2, 9)), 409, vec![Code(CONCURRENT)]),
        (
            "1.38",
            "POST /reshaper",
            shape(root.clone(), child.clone(), json!({})),
            409,
            vec![Code("placement.inventory.inuse")],
        ),
        ("1.38", "POST /reshaper", shape(root.clone(), child.clone(), moved(9, 1)), 409, vec![Code(UNDEFINED)]),
        (
            "1.38",
            "POST /reshaper",
            shape(root.clone(), stock(1, json!({"CUSTOM_NO": {"total": 1}})), moved(2, 1)),
            400,
            vec![],
        ),
        ("1.38", "POST /reshaper", shape(root.clone(), child.clone(), typeless.clone()), 400, vec![]),
        ("1.39", "GET /resource_providers/$ROOT", none(), 200, vec![Is("/generation", json!(2))]),
        ("1.37", "POST /reshaper", shape(root, child, typeless), 204, vec![]),
        ("1.39", "GET /resource_providers/$ROOT/usages", none(), 200, vec![Is("/usages", json!({"MEMORY_MB": 0}))]),
        ("1.39", "GET /resource_providers/$CHILD/usages", none(), 200, vec![Is("/usages", json!({"VCPU": 2}))]),
        (
            "1.39",
            "GET /allocations/$ONE",
            none(),
            200,
            vec![Is("/allocations/$CHILD/resources/VCPU", json!(2)), Is("/consumer_type", json!("INSTANCE"))],
        ),
    ])
    .await;
}
