//! Allocation candidates: the tables. What is found at all is judged in `oracle`.
use super::table::*;
use serde_json::json;

fn ways(n: usize) -> Vec<Has> {
    vec![Count("/allocation_requests", n)]
}

/// Besides `$ROOT` > `$CHILD` and `$OTHER`: a disk pool `$POOL` that lends to `$OTHER` through `$AGG`.
async fn shared() -> Stage {
    let mut s = cloud().await;
    s.play(vec![
        ("1.39", "POST /resource_providers", json!({"name": "pool", "uuid": "$POOL"}), 200, vec![]),
        (
            "1.39",
            "POST /resource_providers/$POOL/inventories",
            json!({"resource_class": "DISK_GB", "total": 100}),
            201,
            vec![],
        ),
        (
            "1.39",
            "PUT /resource_providers/$POOL/traits",
            json!({"traits": ["MISC_SHARES_VIA_AGGREGATE", "STORAGE_DISK_SSD"], "resource_provider_generation": 1}),
            200,
            vec![],
        ),
        (
            "1.39",
            "PUT /resource_providers/$POOL/aggregates",
            json!({"aggregates": ["$AGG"], "resource_provider_generation": 2}),
            200,
            vec![],
        ),
        (
            "1.39",
            "PUT /resource_providers/$OTHER/aggregates",
            json!({"aggregates": ["$AGG"], "resource_provider_generation": 1}),
            200,
            vec![],
        ),
        (
            "1.39",
            "PUT /resource_providers/$CHILD/traits",
            json!({"traits": ["HW_CPU_X86_AVX"], "resource_provider_generation": 1}),
            200,
            vec![],
        ),
    ])
    .await;
    s
}

#[tokio::test]
async fn answers_by_version() {
    let mut s = shared().await;
    s.play(vec![
        (
            "1.10",
            "GET /allocation_candidates?resources=DISK_GB:1",
            none(),
            200,
            vec![
                Is(
                    "/allocation_requests/0/allocations",
                    json!([{"resource_provider": {"uuid": "$POOL"}, "resources": {"DISK_GB": 1}}]),
                ),
                Is("/provider_summaries/$POOL", json!({"resources": {"DISK_GB": {"capacity": 100, "used": 0}}})),
                NoHeader("last-modified"),
            ],
        ),
        (
            "1.12",
            "GET /allocation_candidates?resources=DISK_GB:1",
            none(),
            200,
            vec![Is("/allocation_requests", json!([{"allocations": {"$POOL": {"resources": {"DISK_GB": 1}}}}]))],
        ),
        (
            "1.15",
            "GET /allocation_candidates?resources=DISK_GB:1",
            none(),
            200,
            vec![Header("last-modified"), Header("cache-control")],
        ),
        (
            "1.16",
            "GET /allocation_candidates?resources=DISK_GB:1",
            none(),
            200,
            vec![Not("/provider_summaries/$POOL/traits")],
        ),
        (
            "1.17",
            "GET /allocation_candidates?resources=DISK_GB:1",
            none(),
            200,
            vec![Count("/provider_summaries/$POOL/traits", 2)],
        ),
        (
            "1.26",
            "GET /allocation_candidates?resources=VCPU:1",
            none(),
            200,
            vec![Count("/provider_summaries/$ROOT/resources", 1)],
        ),
        (
            "1.27",
            "GET /allocation_candidates?resources=VCPU:1",
            none(),
            200,
            vec![Count("/provider_summaries/$ROOT/resources", 2)],
        ),
        // Before trees were seen a candidate takes of one provider of a tree.
        (
            "1.28",
            "GET /allocation_candidates?resources=VCPU:1,MEMORY_MB:1",
            none(),
            200,
            vec![Count("/allocation_requests", 3), Not("/provider_summaries/$ROOT/root_provider_uuid")],
        ),
        (
            "1.29",
            "GET /allocation_candidates?resources=VCPU:1,MEMORY_MB:1",
            none(),
            200,
            vec![
                Count("/allocation_requests", 5),
                Is("/provider_summaries/$CHILD/parent_provider_uuid", json!("$ROOT")),
                Is("/provider_summaries/$CHILD/root_provider_uuid", json!("$ROOT")),
            ],
        ),
        (
            "1.33",
            "GET /allocation_candidates?resources=DISK_GB:1",
            none(),
            200,
            vec![Not("/allocation_requests/0/mappings")],
        ),
        (
            "1.34",
            "GET /allocation_candidates?resources1=DISK_GB:1",
            none(),
            200,
            vec![Is("/allocation_requests/0/mappings", json!({"1": ["$POOL"]}))],
        ),
        (
            "1.39",
            "GET /allocation_candidates?resources=VCPU:1,DISK_GB:1",
            none(),
            200,
            vec![
                Count("/allocation_requests", 1),
                Is("/allocation_requests/0/allocations/$OTHER/resources", json!({"VCPU": 1})),
                Count("/provider_summaries", 2),
            ],
        ),
        (
            "1.39",
            "GET /allocation_candidates?resources=VCPU:9",
            none(),
            200,
            vec![Count("/allocation_requests", 0), Count("/provider_summaries", 0)],
        ),
    ])
    .await;
}

#[tokio::test]
async fn parameters_by_version() {
    let mut s = shared().await;
    s.play(vec![
        ("1.10", "GET /allocation_candidates", none(), 400, vec![Text("'resources' is a required property")]),
        ("1.15", "GET /allocation_candidates?resources=VCPU:1&limit=1", none(), 400, vec![]),
        ("1.16", "GET /allocation_candidates?resources=VCPU:1&limit=1", none(), 200, ways(1)),
        ("1.16", "GET /allocation_candidates?resources=VCPU:1&limit=0", none(), 400, vec![Text("Invalid query string parameters")]),
        ("1.16", "GET /allocation_candidates?resources=VCPU:1&limit=many", none(), 400, vec![]),
        ("1.16", "GET /allocation_candidates?resources=VCPU:1&required=HW_CPU_X86_AVX", none(), 400, vec![]),
        ("1.17", "GET /allocation_candidates?resources=VCPU:1&required=HW_CPU_X86_AVX", none(), 200, ways(1)),
        ("1.17", "GET /allocation_candidates?resources=VCPU:1&required=CUSTOM_NO", none(), 400, vec![Text("No such trait(s): CUSTOM_NO")]),
        ("1.20", "GET /allocation_candidates?resources=VCPU:1&member_of=$AGG", none(), 400, vec![]),
        ("1.21", "GET /allocation_candidates?resources=VCPU:1&member_of=$AGG", none(), 200, ways(1)),
        ("1.21", "GET /allocation_candidates?resources=VCPU:1&member_of=no", none(), 400, vec![]),
        ("1.21", "GET /allocation_candidates?resources=VCPU:1&required=!HW_CPU_X86_AVX", none(), 400, vec![]),
        ("1.22", "GET /allocation_candidates?resources=VCPU:1&required=!HW_CPU_X86_AVX", none(), 200, ways(2)),
        ("1.22", "GET /allocation_candidates?resources=VCPU:1&required=HW_CPU_X86_AVX,!HW_CPU_X86_AVX", none(), 400, vec![Text("Conflicting required and forbidden traits")]),
        ("1.23", "GET /allocation_candidates?resources=VCPU:1&member_of=$AGG&member_of=$NONE", none(), 400, vec![]),
        ("1.24", "GET /allocation_candidates?resources=VCPU:1&member_of=$AGG&member_of=$NONE", none(), 200, ways(0)),
        ("1.24", "GET /allocation_candidates?resources=VCPU:1&resources1=VCPU:1", none(), 400, vec![]),
        ("1.25", "GET /allocation_candidates?resources=VCPU:1&resources1=VCPU:1&required1=HW_CPU_X86_AVX", none(), 200, vec![]),
        ("1.25", "GET /allocation_candidates?resources1=VCPU:1&resources2=VCPU:1", none(), 400, vec![Text("\"group_policy\" parameter is required")]),
        ("1.25", "GET /allocation_candidates?resources1=VCPU:1&resources2=VCPU:1&group_policy=some", none(), 400, vec![]),
        ("1.29", "GET /allocation_candidates?resources1=VCPU:1&resources2=VCPU:1&group_policy=none", none(), 200, ways(5)),
        ("1.29", "GET /allocation_candidates?resources1=VCPU:1&resources2=VCPU:1&group_policy=isolate", none(), 200, ways(2)),
        ("1.25", "GET /allocation_candidates?resources=VCPU:1&required1=HW_CPU_X86_AVX", none(), 400, vec![Text("orphaned traits keys: required1")]),
        ("1.25", "GET /allocation_candidates?resources=VCPU:1&member_of1=$AGG", none(), 400, vec![Text("orphaned member_of keys: member_of1")]),
        ("1.25", "GET /allocation_candidates?limit=1", none(), 400, vec![]),
        ("1.25", "GET /allocation_candidates?resources01=VCPU:1", none(), 400, vec![]),
        ("1.30", "GET /allocation_candidates?resources=VCPU:1&in_tree=$CHILD", none(), 400, vec![]),
        ("1.31", "GET /allocation_candidates?resources=VCPU:1&in_tree=$CHILD", none(), 200, ways(2)),
        ("1.31", "GET /allocation_candidates?resources=VCPU:1&in_tree=$NOBODY", none(), 200, ways(0)),
        ("1.31", "GET /allocation_candidates?resources=VCPU:1&in_tree=no", none(), 400, vec![Text("to be a format of uuid")]),
        ("1.31", "GET /allocation_candidates?resources=VCPU:1&member_of=!$AGG", none(), 400, vec![]),
        ("1.32", "GET /allocation_candidates?resources=VCPU:1&member_of=!$AGG", none(), 200, ways(2)),
        ("1.32", "GET /allocation_candidates?resources_A=VCPU:1", none(), 400, vec![]),
        ("1.33", "GET /allocation_candidates?resources_A=VCPU:1&required_A=HW_CPU_X86_AVX", none(), 200, ways(1)),
        ("1.33", "GET /allocation_candidates?resources_A.=VCPU:1", none(), 400, vec![]),
        ("1.34", "GET /allocation_candidates?resources=VCPU:1&root_required=HW_CPU_X86_AVX", none(), 400, vec![]),
        ("1.35", "GET /allocation_candidates?resources=VCPU:1&root_required=HW_CPU_X86_AVX", none(), 200, ways(0)),
        ("1.35", "GET /allocation_candidates?resources=VCPU:1&root_required=!HW_CPU_X86_AVX", none(), 200, ways(3)),
        ("1.35", "GET /allocation_candidates?resources=VCPU:1&root_required=HW_CPU_X86_AVX&root_required=HW_CPU_X86_SSE", none(), 400, vec![Code("placement.query.duplicate_key")]),
        ("1.35", "GET /allocation_candidates?resources=VCPU:1&root_required=HW_CPU_X86_AVX,!HW_CPU_X86_AVX", none(), 400, vec![Code("placement.query.bad_value")]),
        ("1.35", "GET /allocation_candidates?resources=VCPU:1&root_required=CUSTOM_NO", none(), 400, vec![]),
        ("1.35", "GET /allocation_candidates?resources_A=VCPU:1&same_subtree=_A", none(), 400, vec![]),
        ("1.36", "GET /allocation_candidates?resources_A=VCPU:1&same_subtree=_A", none(), 200, ways(3)),
        ("1.36", "GET /allocation_candidates?resources_A=MEMORY_MB:1&required_B=HW_CPU_X86_AVX&same_subtree=_A,_B&group_policy=none", none(), 200, ways(2)),
        ("1.36", "GET /allocation_candidates?resources_A=VCPU:1&same_subtree=_B", none(), 400, vec![Code("placement.query.bad_value"), Text("Real suffixes should be specified")]),
        ("1.36", "GET /allocation_candidates?resources=VCPU:1&required_B=HW_CPU_X86_AVX", none(), 400, vec![Code("placement.query.bad_value")]),
        ("1.36", "GET /allocation_candidates?resources_A=VCPU:1&same_subtree=_A,", none(), 400, vec![Code("placement.query.bad_value")]),
        ("1.36", "GET /allocation_candidates?required_A=HW_CPU_X86_AVX&same_subtree=_A", none(), 400, vec![Code("placement.query.missing_value")]),
        ("1.38", "GET /allocation_candidates?resources=VCPU:1&required=in:HW_CPU_X86_AVX,HW_CPU_X86_SSE", none(), 400, vec![]),
        ("1.39", "GET /allocation_candidates?resources=VCPU:1&required=in:HW_CPU_X86_AVX,HW_CPU_X86_SSE", none(), 200, ways(1)),
        ("1.38", "GET /allocation_candidates?resources=VCPU:1&required=HW_CPU_X86_SSE&required=HW_CPU_X86_AVX", none(), 200, ways(1)),
        ("1.39", "GET /allocation_candidates?resources=VCPU:1&required=HW_CPU_X86_SSE&required=HW_CPU_X86_AVX", none(), 200, ways(0)),
        ("1.39", "GET /allocation_candidates?resources=VCPU:1&colour=red", none(), 400, vec![]),
        ("1.39", "GET /allocation_candidates?resources=CUSTOM_NO:1", none(), 400, vec![Text("No such resource class CUSTOM_NO")]),
    ])
    .await;
}
