//! Resource providers, inventories, aggregates, traits and classes: the tables.
use super::table::*;
use serde_json::json;

#[tokio::test]
async fn envelopes_and_versions() {
    let mut s = cloud().await;
    s.play(vec![
        (
            "1.39",
            "GET /",
            none(),
            200,
            vec![
                Is("/versions/0/max_version", json!("1.39")),
                Is("/versions/0/min_version", json!("1.0")),
                Header("last-modified"),
            ],
        ),
        ("1.14", "GET /", none(), 200, vec![NoHeader("last-modified")]),
        ("latest", "GET /resource_providers", none(), 200, vec![Header("openstack-api-version"), Header("vary")]),
        (
            "1.40",
            "GET /resource_providers",
            none(),
            406,
            vec![
                Is("/errors/0/max_version", json!("1.39")),
                Is("/errors/0/min_version", json!("1.0")),
                Not("/errors/0/code"),
            ],
        ),
        ("0.9", "GET /resource_providers", none(), 406, vec![]),
        ("one", "GET /resource_providers", none(), 400, vec![]),
        (
            "1.39",
            "GET /nowhere",
            none(),
            404,
            vec![Is("/errors/0/status", json!(404)), Code(UNDEFINED), Text("could not be found")],
        ),
        (
            "1.23",
            "GET /resource_providers/$NOBODY",
            none(),
            404,
            vec![Code(UNDEFINED), Is("/errors/0/title", json!("Not Found"))],
        ),
        ("1.22", "GET /resource_providers/$NOBODY", none(), 404, vec![Not("/errors/0/code")]),
        ("1.39", "DELETE /resource_providers", none(), 405, vec![Header("allow"), Is("/errors/0/status", json!(405))]),
        ("1.39", "PATCH /resource_providers/$ROOT", json!({}), 405, vec![]),
        ("1.4", "DELETE /resource_providers/$ROOT/inventories", none(), 405, vec![]),
        ("1.12", "POST /allocations", json!({}), 404, vec![]),
        ("1.29", "POST /reshaper", json!({}), 404, vec![]),
        ("1.9", "GET /allocation_candidates?resources=VCPU:1", none(), 404, vec![]),
        ("1.8", "GET /usages?project_id=p", none(), 404, vec![]),
        ("1.0", "GET /resource_providers/$ROOT/aggregates", none(), 404, vec![]),
        ("1.5", "GET /traits", none(), 404, vec![]),
        ("1.5", "GET /resource_providers/$ROOT/traits", none(), 404, vec![]),
        ("1.1", "GET /resource_classes", none(), 404, vec![]),
    ])
    .await;
}

#[tokio::test]
async fn media_types_are_asked_for() {
    let s = cloud().await;
    let send = async |method, path, headers: &[(&str, &str)]| {
        s.bench.app.call_with(method, path, Some(&s.bench.admin), Some(json!({"name": "x"})), headers).await
    };
    let version = ("openstack-api-version", "placement 1.39");
    let text = send("POST", "/resource_providers", &[version, ("content-type", "text/plain")]).await;
    assert_eq!((text.status, &text.body["errors"][0]["status"]), (415, &json!(415)), "{:?}", text.body);
    for accept in ["text/plain", "application/xml;q=0.9, text/*"] {
        let refused = s
            .bench
            .app
            .call_with("GET", "/resource_providers", Some(&s.bench.admin), None, &[version, ("accept", accept)])
            .await;
        assert_eq!(refused.status, 406, "{accept}");
        assert!(refused.body["errors"][0].get("max_version").is_none());
    }
    for accept in ["application/json", "*/*", "application/*", "text/html, application/json;q=0.5"] {
        let fine = s
            .bench
            .app
            .call_with("GET", "/resource_providers", Some(&s.bench.admin), None, &[version, ("accept", accept)])
            .await;
        assert_eq!(fine.status, 200, "{accept}");
    }
}

#[tokio::test]
async fn providers() {
    let mut s = cloud().await;
    s.play(vec![
        // create
        ("1.0", "POST /resource_providers", json!({"name": "old", "uuid": "$OLD"}), 201, vec![Header("location")]),
        ("1.19", "POST /resource_providers", json!({"name": "nineteen"}), 201, vec![]),
        (
            "1.20",
            "POST /resource_providers",
            json!({"name": "twenty"}),
            200,
            vec![Is("/name", json!("twenty")), Header("last-modified"), Header("location")],
        ),
        (
            "1.39",
            "POST /resource_providers",
            json!({"name": "old"}),
            409,
            vec![Code("placement.duplicate_name"), Text("already exists")],
        ),
        (
            "1.39",
            "POST /resource_providers",
            json!({"name": "new", "uuid": "$OLD"}),
            409,
            vec![Code("placement.duplicate_name")],
        ),
        ("1.13", "POST /resource_providers", json!({"name": "n", "parent_provider_uuid": "$ROOT"}), 400, vec![]),
        (
            "1.14",
            "POST /resource_providers",
            json!({"name": "n", "parent_provider_uuid": "$NOBODY"}),
            400,
            vec![Text("parent provider UUID does not exist")],
        ),
        (
            "1.14",
            "POST /resource_providers",
            json!({"name": "n", "uuid": "$SELF", "parent_provider_uuid": "$SELF"}),
            400,
            vec![],
        ),
        (
            "1.39",
            "POST /resource_providers",
            json!({"name": "n", "uuid": "no"}),
            400,
            vec![Text("JSON does not validate")],
        ),
        ("1.39", "POST /resource_providers", json!({"name": "n", "parent_provider_uuid": "no"}), 400, vec![]),
        ("1.39", "POST /resource_providers", json!({"name": "n".repeat(201)}), 400, vec![]),
        ("1.39", "POST /resource_providers", json!({}), 400, vec![]),
        ("1.39", "POST /resource_providers", json!({"name": "n", "colour": "red"}), 400, vec![]),
        // show
        (
            "1.0",
            "GET /resource_providers/$CHILD",
            none(),
            200,
            vec![Count("/links", 3), Not("/root_provider_uuid"), NoHeader("last-modified")],
        ),
        ("1.1", "GET /resource_providers/$CHILD", none(), 200, vec![Count("/links", 4)]),
        ("1.6", "GET /resource_providers/$CHILD", none(), 200, vec![Count("/links", 5)]),
        ("1.11", "GET /resource_providers/$CHILD", none(), 200, vec![Count("/links", 6), Not("/parent_provider_uuid")]),
        (
            "1.14",
            "GET /resource_providers/$CHILD",
            none(),
            200,
            vec![Is("/root_provider_uuid", json!("$ROOT")), NoHeader("cache-control")],
        ),
        ("1.15", "GET /resource_providers/$CHILD", none(), 200, vec![Header("cache-control"), Header("last-modified")]),
        // update
        (
            "1.0",
            "PUT /resource_providers/$CHILD",
            json!({"name": "renamed"}),
            200,
            vec![Is("/name", json!("renamed")), Is("/generation", json!(1))],
        ),
        (
            "1.39",
            "PUT /resource_providers/$CHILD",
            json!({"name": "other"}),
            409,
            vec![Code("placement.duplicate_name")],
        ),
        ("1.39", "PUT /resource_providers/$NOBODY", json!({"name": "x"}), 404, vec![]),
        ("1.39", "PUT /resource_providers/$CHILD", json!({"name": "x", "uuid": "$CHILD"}), 400, vec![]),
        ("1.13", "PUT /resource_providers/$CHILD", json!({"name": "x", "parent_provider_uuid": "$ROOT"}), 400, vec![]),
        (
            "1.36",
            "PUT /resource_providers/$CHILD",
            json!({"name": "renamed", "parent_provider_uuid": "$OTHER"}),
            400,
            vec![Text("re-parenting a provider is not currently allowed")],
        ),
        (
            "1.36",
            "PUT /resource_providers/$CHILD",
            json!({"name": "renamed", "parent_provider_uuid": null}),
            400,
            vec![],
        ),
        (
            "1.36",
            "PUT /resource_providers/$CHILD",
            json!({"name": "renamed", "parent_provider_uuid": "$ROOT"}),
            200,
            vec![],
        ),
        (
            "1.14",
            "PUT /resource_providers/$OLD",
            json!({"name": "old", "parent_provider_uuid": "$OTHER"}),
            200,
            vec![Is("/root_provider_uuid", json!("$OTHER"))],
        ),
        (
            "1.37",
            "PUT /resource_providers/$ROOT",
            json!({"name": "root", "parent_provider_uuid": "$CHILD"}),
            400,
            vec![Text("loop")],
        ),
        (
            "1.37",
            "PUT /resource_providers/$ROOT",
            json!({"name": "root", "parent_provider_uuid": "$ROOT"}),
            400,
            vec![],
        ),
        (
            "1.37",
            "PUT /resource_providers/$ROOT",
            json!({"name": "root", "parent_provider_uuid": "$NOBODY"}),
            400,
            vec![],
        ),
        (
            "1.37",
            "PUT /resource_providers/$ROOT",
            json!({"name": "root", "parent_provider_uuid": "$OTHER"}),
            200,
            vec![],
        ),
        (
            "1.37",
            "GET /resource_providers/$CHILD",
            none(),
            200,
            vec![Is("/root_provider_uuid", json!("$OTHER")), Is("/parent_provider_uuid", json!("$ROOT"))],
        ),
        (
            "1.37",
            "PUT /resource_providers/$ROOT",
            json!({"name": "root", "parent_provider_uuid": null}),
            200,
            vec![Is("/root_provider_uuid", json!("$ROOT"))],
        ),
        // delete
        (
            "1.39",
            "DELETE /resource_providers/$ROOT",
            none(),
            409,
            vec![Code("placement.resource_provider.cannot_delete_parent")],
        ),
        ("1.39", "PUT /allocations/$GUEST", claim("$CHILD", 1, none()), 204, vec![]),
        ("1.39", "DELETE /resource_providers/$CHILD", none(), 409, vec![Code("placement.resource_provider.inuse")]),
        ("1.39", "DELETE /allocations/$GUEST", none(), 204, vec![]),
        ("1.39", "DELETE /resource_providers/$CHILD", none(), 204, vec![]),
        ("1.39", "DELETE /resource_providers/$CHILD", none(), 404, vec![Text("found for delete")]),
    ])
    .await;
}

#[tokio::test]
async fn lists_of_providers() {
    let mut s = cloud().await;
    let count = |n| vec![Count("/resource_providers", n)];
    s.play(vec![
        (
            "1.39",
            "PUT /resource_providers/$ROOT/traits",
            json!({"traits": ["HW_CPU_X86_AVX", "STORAGE_DISK_SSD"], "resource_provider_generation": 1}),
            200,
            vec![],
        ),
        (
            "1.39",
            "PUT /resource_providers/$ROOT/aggregates",
            json!({"aggregates": ["$A", "$B"], "resource_provider_generation": 2}),
            200,
            vec![],
        ),
        (
            "1.39",
            "PUT /resource_providers/$OTHER/aggregates",
            json!({"aggregates": ["$B"], "resource_provider_generation": 1}),
            200,
            vec![],
        ),
        ("1.0", "GET /resource_providers", none(), 200, count(3)),
        ("1.0", "GET /resource_providers?name=root", none(), 200, count(1)),
        ("1.0", "GET /resource_providers?uuid=$ROOT", none(), 200, count(1)),
        ("1.0", "GET /resource_providers?name=root&uuid=$OTHER", none(), 200, count(0)),
        ("1.0", "GET /resource_providers?uuid=no", none(), 400, vec![Text("Invalid query string parameters")]),
        ("1.0", "GET /resource_providers?colour=red", none(), 400, vec![Text("Additional properties are not allowed")]),
        ("1.2", "GET /resource_providers?member_of=$A", none(), 400, vec![]),
        ("1.3", "GET /resource_providers?member_of=$A", none(), 200, count(1)),
        ("1.3", "GET /resource_providers?member_of=in:$A,$B", none(), 200, count(2)),
        ("1.3", "GET /resource_providers?member_of=$A,$B", none(), 400, vec![Text("must be prefixed with the 'in:'")]),
        ("1.3", "GET /resource_providers?member_of=in:no", none(), 400, vec![Text("to contain valid UUID(s)")]),
        ("1.23", "GET /resource_providers?member_of=$A&member_of=$B", none(), 400, vec![]),
        ("1.24", "GET /resource_providers?member_of=$A&member_of=$B", none(), 200, count(1)),
        ("1.31", "GET /resource_providers?member_of=!$A", none(), 400, vec![]),
        ("1.32", "GET /resource_providers?member_of=!$A", none(), 200, count(2)),
        ("1.32", "GET /resource_providers?member_of=!in:$A,$B", none(), 200, count(1)),
        ("1.32", "GET /resource_providers?member_of=$B&member_of=!$A", none(), 200, count(1)),
        ("1.3", "GET /resource_providers?resources=VCPU:1", none(), 400, vec![]),
        ("1.4", "GET /resource_providers?resources=VCPU:8,MEMORY_MB:1", none(), 200, count(3)),
        ("1.4", "GET /resource_providers?resources=VCPU:9", none(), 200, count(0)),
        ("1.4", "GET /resource_providers?resources=DISK_GB:1", none(), 200, count(0)),
        (
            "1.4",
            "GET /resource_providers?resources=NOTHING:1",
            none(),
            400,
            vec![Text("Invalid resource class in resources parameter")],
        ),
        ("1.4", "GET /resource_providers?resources=VCPU:0", none(), 400, vec![]),
        ("1.4", "GET /resource_providers?resources=", none(), 400, vec![Text("Got: empty string.")]),
        ("1.13", "GET /resource_providers?in_tree=$CHILD", none(), 400, vec![]),
        ("1.14", "GET /resource_providers?in_tree=$CHILD", none(), 200, count(2)),
        ("1.14", "GET /resource_providers?in_tree=$NOBODY", none(), 200, count(0)),
        ("1.14", "GET /resource_providers?in_tree=no", none(), 400, vec![]),
        ("1.17", "GET /resource_providers?required=HW_CPU_X86_AVX", none(), 400, vec![]),
        ("1.18", "GET /resource_providers?required=HW_CPU_X86_AVX", none(), 200, count(1)),
        ("1.18", "GET /resource_providers?required=HW_CPU_X86_AVX,HW_CPU_X86_SSE", none(), 200, count(0)),
        ("1.18", "GET /resource_providers?required=CUSTOM_NO", none(), 400, vec![Text("No such trait(s): CUSTOM_NO")]),
        ("1.21", "GET /resource_providers?required=!HW_CPU_X86_AVX", none(), 400, vec![]),
        ("1.22", "GET /resource_providers?required=!HW_CPU_X86_AVX", none(), 200, count(2)),
        ("1.22", "GET /resource_providers?required=,", none(), 400, vec![Text("empty trait")]),
        (
            "1.38",
            "GET /resource_providers?required=in:HW_CPU_X86_AVX,HW_CPU_X86_SSE",
            none(),
            400,
            vec![Text("only supported since microversion 1.39")],
        ),
        ("1.39", "GET /resource_providers?required=in:HW_CPU_X86_AVX,HW_CPU_X86_SSE", none(), 200, count(1)),
        (
            "1.39",
            "GET /resource_providers?required=in:HW_CPU_X86_AVX,HW_CPU_X86_SSE&required=!STORAGE_DISK_SSD",
            none(),
            200,
            count(0),
        ),
        ("1.39", "GET /resource_providers?required=in:HW_CPU_X86_AVX,!HW_CPU_X86_SSE", none(), 400, vec![]),
    ])
    .await;
}

#[tokio::test]
async fn inventories() {
    let mut s = cloud().await;
    let full =
        json!({"total": 16, "reserved": 2, "min_unit": 2, "max_unit": 8, "step_size": 2, "allocation_ratio": 2.0});
    let with = |generation: i64, total: i64, reserved: i64| json!({"resource_provider_generation": generation, "total": total, "reserved": reserved});
    s.play(vec![
        (
            "1.0",
            "GET /resource_providers/$ROOT/inventories",
            none(),
            200,
            vec![
                Is("/resource_provider_generation", json!(1)),
                Is("/inventories/VCPU/max_unit", json!(2_147_483_647)),
                Is("/inventories/VCPU/allocation_ratio", json!(1.0)),
            ],
        ),
        ("1.0", "GET /resource_providers/$NOBODY/inventories", none(), 404, vec![]),
        (
            "1.0",
            "GET /resource_providers/$ROOT/inventories/VCPU",
            none(),
            200,
            vec![Is("/total", json!(8)), Is("/resource_provider_generation", json!(1))],
        ),
        (
            "1.0",
            "GET /resource_providers/$ROOT/inventories/DISK_GB",
            none(),
            404,
            vec![Text("No inventory of class DISK_GB for $ROOT")],
        ),
        (
            "1.0",
            "POST /resource_providers/$ROOT/inventories",
            json!({"resource_class": "DISK_GB", "total": 5}),
            201,
            vec![Header("location"), Is("/resource_provider_generation", json!(2))],
        ),
        (
            "1.39",
            "POST /resource_providers/$ROOT/inventories",
            json!({"resource_class": "DISK_GB", "total": 5}),
            409,
            vec![Code(CONCURRENT)],
        ),
        (
            "1.39",
            "POST /resource_providers/$ROOT/inventories",
            json!({"resource_class": "CUSTOM_NO", "total": 5}),
            400,
            vec![Text("No such resource class CUSTOM_NO")],
        ),
        (
            "1.39",
            "POST /resource_providers/$ROOT/inventories",
            json!({"resource_class": "lower", "total": 5}),
            400,
            vec![],
        ),
        (
            "1.39",
            "POST /resource_providers/$ROOT/inventories",
            json!({"resource_class": "VGPU", "total": 0}),
            400,
            vec![],
        ),
        (
            "1.39",
            "POST /resource_providers/$ROOT/inventories",
            json!({"resource_class": "VGPU", "total": 2_147_483_648_i64}),
            400,
            vec![],
        ),
        (
            "1.39",
            "POST /resource_providers/$ROOT/inventories",
            json!({"resource_class": "VGPU", "total": 1, "allocation_ratio": 1e39}),
            400,
            vec![],
        ),
        (
            "1.39",
            "POST /resource_providers/$NOBODY/inventories",
            json!({"resource_class": "VGPU", "total": 1}),
            404,
            vec![],
        ),
        ("1.39", "PUT /resource_providers/$ROOT/inventories/VCPU", with(1, 8, 0), 409, vec![Code(CONCURRENT)]),
        (
            "1.39",
            "PUT /resource_providers/$ROOT/inventories/VGPU",
            with(2, 8, 0),
            400,
            vec![Text("No inventory record with resource class")],
        ),
        ("1.39", "PUT /resource_providers/$ROOT/inventories/VCPU", json!({"total": 8}), 400, vec![]),
        (
            "1.25",
            "PUT /resource_providers/$ROOT/inventories/VCPU",
            with(2, 8, 8),
            400,
            vec![Text("greater than or equal to total")],
        ),
        (
            "1.26",
            "PUT /resource_providers/$ROOT/inventories/VCPU",
            with(2, 8, 8),
            200,
            vec![Is("/reserved", json!(8)), Is("/resource_provider_generation", json!(3))],
        ),
        (
            "1.26",
            "PUT /resource_providers/$ROOT/inventories/VCPU",
            with(3, 8, 9),
            400,
            vec![Text("greater than total")],
        ),
        (
            "1.39",
            "PUT /resource_providers/$ROOT/inventories",
            json!({"resource_provider_generation": 3, "inventories": {"VCPU": full, "MEMORY_MB": {"total": 64}}}),
            200,
            vec![Count("/inventories", 2), Is("/inventories/VCPU/step_size", json!(2))],
        ),
        (
            "1.39",
            "PUT /resource_providers/$ROOT/inventories",
            json!({"resource_provider_generation": 3, "inventories": {}}),
            409,
            vec![Code(CONCURRENT)],
        ),
        (
            "1.39",
            "PUT /resource_providers/$ROOT/inventories",
            json!({"resource_provider_generation": 4, "inventories": {"CUSTOM_NO": {"total": 1}}}),
            400,
            vec![Text("Unknown resource class in inventory")],
        ),
        ("1.39", "PUT /resource_providers/$ROOT/inventories", json!({"inventories": {}}), 400, vec![]),
        // What of it may be taken: capacity (16 - 2) * 2 in steps of 2 from 2 to 8.
        (
            "1.39",
            "PUT /allocations/$GUEST",
            claim("$ROOT", 3, none()),
            409,
            vec![Text("would violate inventory constraints")],
        ),
        ("1.39", "PUT /allocations/$GUEST", claim("$ROOT", 10, none()), 409, vec![]),
        ("1.39", "PUT /allocations/$GUEST", claim("$ROOT", 8, none()), 204, vec![]),
        (
            "1.39",
            "GET /resource_providers?resources=VCPU:8&uuid=$ROOT",
            none(),
            200,
            vec![Count("/resource_providers", 1)],
        ),
        (
            "1.39",
            "GET /resource_providers?resources=VCPU:7&uuid=$ROOT",
            none(),
            200,
            vec![Count("/resource_providers", 0)],
        ),
        // In use
        (
            "1.39",
            "DELETE /resource_providers/$ROOT/inventories/VCPU",
            none(),
            409,
            vec![Code(CONCURRENT), Text("in use")],
        ),
        ("1.39", "DELETE /resource_providers/$ROOT/inventories", none(), 409, vec![Code("placement.inventory.inuse")]),
        (
            "1.39",
            "PUT /resource_providers/$ROOT/inventories",
            json!({"resource_provider_generation": 5, "inventories": {}}),
            409,
            vec![Code("placement.inventory.inuse")],
        ),
        ("1.39", "DELETE /resource_providers/$ROOT/inventories/MEMORY_MB", none(), 204, vec![]),
        (
            "1.39",
            "DELETE /resource_providers/$ROOT/inventories/MEMORY_MB",
            none(),
            404,
            vec![Text("No inventory of class MEMORY_MB found for delete")],
        ),
        ("1.39", "DELETE /allocations/$GUEST", none(), 204, vec![]),
        ("1.5", "DELETE /resource_providers/$ROOT/inventories", none(), 204, vec![]),
        ("1.5", "DELETE /resource_providers/$NOBODY/inventories", none(), 404, vec![]),
        ("1.39", "GET /resource_providers/$ROOT/inventories", none(), 200, vec![Count("/inventories", 0)]),
    ])
    .await;
}

#[tokio::test]
async fn aggregates() {
    let mut s = cloud().await;
    s.play(vec![
        (
            "1.1",
            "GET /resource_providers/$ROOT/aggregates",
            none(),
            200,
            vec![Count("/aggregates", 0), Not("/resource_provider_generation")],
        ),
        ("1.1", "PUT /resource_providers/$ROOT/aggregates", json!(["$A"]), 200, vec![Count("/aggregates", 1)]),
        (
            "1.18",
            "PUT /resource_providers/$ROOT/aggregates",
            json!({"aggregates": ["$A"], "resource_provider_generation": 1}),
            400,
            vec![],
        ),
        ("1.19", "PUT /resource_providers/$ROOT/aggregates", json!(["$A"]), 400, vec![]),
        (
            "1.19",
            "PUT /resource_providers/$ROOT/aggregates",
            json!({"aggregates": ["$A", "$B"], "resource_provider_generation": 1}),
            200,
            vec![Is("/resource_provider_generation", json!(2))],
        ),
        (
            "1.19",
            "PUT /resource_providers/$ROOT/aggregates",
            json!({"aggregates": [], "resource_provider_generation": 1}),
            409,
            vec![Not("/errors/0/code")],
        ),
        (
            "1.23",
            "PUT /resource_providers/$ROOT/aggregates",
            json!({"aggregates": [], "resource_provider_generation": 1}),
            409,
            vec![Code(CONCURRENT)],
        ),
        (
            "1.39",
            "PUT /resource_providers/$ROOT/aggregates",
            json!({"aggregates": ["no"], "resource_provider_generation": 2}),
            400,
            vec![],
        ),
        (
            "1.39",
            "PUT /resource_providers/$ROOT/aggregates",
            json!({"aggregates": ["$A", "$A"], "resource_provider_generation": 2}),
            400,
            vec![],
        ),
        (
            "1.39",
            "PUT /resource_providers/$NOBODY/aggregates",
            json!({"aggregates": [], "resource_provider_generation": 2}),
            404,
            vec![],
        ),
        ("1.39", "GET /resource_providers/$NOBODY/aggregates", none(), 404, vec![]),
        (
            "1.19",
            "GET /resource_providers/$ROOT/aggregates",
            none(),
            200,
            vec![Is("/resource_provider_generation", json!(2)), Count("/aggregates", 2), Header("last-modified")],
        ),
    ])
    .await;
}

#[tokio::test]
async fn traits() {
    let mut s = cloud().await;
    s.play(vec![
        ("1.6", "GET /traits", none(), 200, vec![Count("/traits", 377)]),
        ("1.6", "GET /traits/HW_CPU_X86_AVX", none(), 204, vec![NoHeader("last-modified")]),
        ("1.15", "GET /traits/HW_CPU_X86_AVX", none(), 204, vec![Header("last-modified")]),
        ("1.6", "GET /traits/CUSTOM_A", none(), 404, vec![Text("No such trait(s): CUSTOM_A")]),
        ("1.6", "PUT /traits/CUSTOM_A", none(), 201, vec![Header("location")]),
        ("1.6", "PUT /traits/CUSTOM_A", none(), 204, vec![Header("location")]),
        ("1.6", "PUT /traits/custom_a", none(), 400, vec![Text("The trait is invalid")]),
        ("1.6", "PUT /traits/HW_CPU_X86_AVX", none(), 400, vec![]),
        ("1.6", "GET /traits?name=startswith:CUSTOM_", none(), 200, vec![Is("/traits", json!(["CUSTOM_A"]))]),
        ("1.6", "GET /traits?name=in:CUSTOM_A,HW_CPU_X86_AVX,CUSTOM_NO", none(), 200, vec![Count("/traits", 2)]),
        ("1.6", "GET /traits?name=CUSTOM_A", none(), 400, vec![Text("Badly formatted name parameter")]),
        ("1.6", "GET /traits?colour=red", none(), 400, vec![]),
        ("1.6", "GET /traits?associated=maybe", none(), 400, vec![Text("only accepts")]),
        (
            "1.6",
            "PUT /resource_providers/$ROOT/traits",
            json!({"traits": ["CUSTOM_A"], "resource_provider_generation": 1}),
            200,
            vec![Is("/resource_provider_generation", json!(2)), Is("/traits", json!(["CUSTOM_A"]))],
        ),
        (
            "1.39",
            "PUT /resource_providers/$ROOT/traits",
            json!({"traits": [], "resource_provider_generation": 1}),
            409,
            vec![Code(CONCURRENT)],
        ),
        (
            "1.39",
            "PUT /resource_providers/$ROOT/traits",
            json!({"traits": ["CUSTOM_NO"], "resource_provider_generation": 2}),
            400,
            vec![Text("No such trait CUSTOM_NO")],
        ),
        ("1.39", "PUT /resource_providers/$ROOT/traits", json!({"traits": ["CUSTOM_A"]}), 400, vec![]),
        (
            "1.39",
            "PUT /resource_providers/$NOBODY/traits",
            json!({"traits": [], "resource_provider_generation": 1}),
            404,
            vec![],
        ),
        (
            "1.6",
            "GET /resource_providers/$ROOT/traits",
            none(),
            200,
            vec![Is("/traits", json!(["CUSTOM_A"])), Is("/resource_provider_generation", json!(2))],
        ),
        ("1.6", "GET /resource_providers/$NOBODY/traits", none(), 404, vec![]),
        ("1.6", "GET /traits?associated=true", none(), 200, vec![Is("/traits", json!(["CUSTOM_A"]))]),
        ("1.6", "GET /traits?associated=False", none(), 200, vec![Count("/traits", 377)]),
        ("1.6", "DELETE /traits/CUSTOM_A", none(), 409, vec![Text("in use by a resource provider")]),
        ("1.6", "DELETE /resource_providers/$ROOT/traits", none(), 204, vec![]),
        ("1.6", "DELETE /resource_providers/$NOBODY/traits", none(), 404, vec![]),
        ("1.6", "DELETE /traits/CUSTOM_A", none(), 204, vec![]),
        ("1.6", "DELETE /traits/CUSTOM_A", none(), 404, vec![]),
        ("1.6", "DELETE /traits/HW_CPU_X86_AVX", none(), 400, vec![Text("Cannot delete standard trait")]),
        ("1.39", "GET /resource_providers/$ROOT", none(), 200, vec![Is("/generation", json!(3))]),
    ])
    .await;
}

#[tokio::test]
async fn classes() {
    let mut s = cloud().await;
    s.play(vec![
        (
            "1.2",
            "GET /resource_classes",
            none(),
            200,
            vec![Count("/resource_classes", 21), Is("/resource_classes/0/name", json!("VCPU"))],
        ),
        ("1.2", "POST /resource_classes", json!({"name": "CUSTOM_A"}), 201, vec![Header("location")]),
        ("1.2", "POST /resource_classes", json!({"name": "CUSTOM_A"}), 409, vec![Text("already exists")]),
        ("1.2", "POST /resource_classes", json!({"name": "VCPU"}), 400, vec![]),
        ("1.2", "POST /resource_classes", json!({"name": "CUSTOM_a"}), 400, vec![]),
        (
            "1.2",
            "GET /resource_classes/CUSTOM_A",
            none(),
            200,
            vec![Is("/name", json!("CUSTOM_A")), Count("/links", 1)],
        ),
        ("1.2", "GET /resource_classes/CUSTOM_B", none(), 404, vec![]),
        (
            "1.6",
            "PUT /resource_classes/CUSTOM_A",
            json!({"name": "CUSTOM_B"}),
            200,
            vec![Is("/name", json!("CUSTOM_B"))],
        ),
        ("1.6", "PUT /resource_classes/CUSTOM_A", json!({"name": "CUSTOM_C"}), 404, vec![]),
        (
            "1.6",
            "PUT /resource_classes/VCPU",
            json!({"name": "CUSTOM_C"}),
            400,
            vec![Text("Cannot update standard resource class")],
        ),
        ("1.7", "PUT /resource_classes/CUSTOM_A", none(), 201, vec![Header("location")]),
        ("1.7", "PUT /resource_classes/CUSTOM_A", none(), 204, vec![]),
        ("1.7", "PUT /resource_classes/PONY", none(), 400, vec![]),
        ("1.6", "PUT /resource_classes/CUSTOM_A", json!({"name": "CUSTOM_B"}), 409, vec![]),
        (
            "1.39",
            "POST /resource_providers/$ROOT/inventories",
            json!({"resource_class": "CUSTOM_A", "total": 1}),
            201,
            vec![],
        ),
        ("1.2", "DELETE /resource_classes/CUSTOM_A", none(), 409, vec![Text("in use in inventory")]),
        ("1.6", "PUT /resource_classes/CUSTOM_A", json!({"name": "CUSTOM_C"}), 200, vec![]),
        ("1.39", "GET /resource_providers/$ROOT/inventories/CUSTOM_C", none(), 200, vec![]),
        ("1.2", "DELETE /resource_classes/CUSTOM_B", none(), 204, vec![]),
        ("1.2", "DELETE /resource_classes/CUSTOM_B", none(), 404, vec![]),
        ("1.2", "DELETE /resource_classes/VCPU", none(), 400, vec![Text("Cannot delete standard resource class")]),
    ])
    .await;
}
