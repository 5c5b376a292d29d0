//! Tags of any resource that keeps them: `/v2.0/<collection>/{id}/tags`.
use crate::{
    Network,
    attribute::overlay,
    floating_ip::model::FloatingIp,
    network::model::VirtualNetwork,
    port::model::Port,
    qos::model::QosPolicy,
    router::model::Router,
    security_group::model::SecurityGroup,
    segment::model::Segment,
    segment_range::model::SegmentRange,
    subnet::model::Subnet,
    subnet_pool::model::SubnetPool,
    trunk::model::Trunk,
    verbs::{Api, gate, raw_of},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, RuleDefault, Schema};
use serde_json::{Map, json};
use std::sync::{Arc, LazyLock};

/// Tags of one resource.
const TAGS_MAX: usize = 50;
const TAG_LENGTH: usize = 255;

static TAGS: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| json!({"type": "object", "required": ["tags"], "properties": {"tags": {"type": "array"}}}))
});

macro_rules! on {
    ($record:ty, $path:literal, $rules:literal) => {
        [
            Route::get(concat!("/v2.0/", $path, "/{id}/tags"), list::<$record>)
                .rule_by_handler(concat!("get_", $rules)),
            Route::post(concat!("/v2.0/", $path, "/{id}/tags"), add_many::<$record>)
                .rule_by_handler(concat!("create_", $rules))
                .schema(&TAGS),
            Route::put(concat!("/v2.0/", $path, "/{id}/tags"), replace::<$record>)
                .rule_by_handler(concat!("update_", $rules))
                .schema(&TAGS),
            Route::delete(concat!("/v2.0/", $path, "/{id}/tags"), clear::<$record>)
                .rule_by_handler(concat!("delete_", $rules)),
            Route::get(concat!("/v2.0/", $path, "/{id}/tags/{tag}"), has::<$record>)
                .rule_by_handler(concat!("get_", $rules)),
            Route::put(concat!("/v2.0/", $path, "/{id}/tags/{tag}"), add::<$record>)
                .rule_by_handler(concat!("create_", $rules)),
            Route::delete(concat!("/v2.0/", $path, "/{id}/tags/{tag}"), remove::<$record>)
                .rule_by_handler(concat!("delete_", $rules)),
        ]
    };
}

pub fn routes() -> Vec<Route<Network>> {
    let all = [
        on!(VirtualNetwork, "networks", "networks_tags"),
        on!(Subnet, "subnets", "subnets_tags"),
        on!(SubnetPool, "subnetpools", "subnetpools_tags"),
        on!(Port, "ports", "ports_tags"),
        on!(Router, "routers", "routers_tags"),
        on!(FloatingIp, "floatingips", "floatingips_tags"),
        on!(SecurityGroup, "security-groups", "security_groups_tags"),
        on!(Segment, "segments", "segments_tags"),
        on!(QosPolicy, "qos/policies", "policies_tags"),
        // Where Neutron has them, which names collections without what is in front of them.
        on!(QosPolicy, "policies", "policies_tags"),
        on!(Trunk, "trunks", "trunks_tags"),
        on!(SegmentRange, "network_segment_ranges", "network_segment_range:tags"),
        on!(SegmentRange, "network-segment-ranges", "network_segment_range:tags"),
    ];
    all.into_iter().flatten().map(|r| r.summary("Tags of a resource")).collect()
}

macro_rules! rules_of {
    ($($rules:literal),*) => {
        [$(
            (concat!("get_", $rules), true), (concat!("create_", $rules), false),
            (concat!("update_", $rules), false), (concat!("delete_", $rules), false),
        )*]
    };
}

/// Whoever may see a resource may read its tags, whoever may change it may change them.
pub fn rules() -> Vec<RuleDefault> {
    let names = rules_of!(
        "networks_tags",
        "subnets_tags",
        "subnetpools_tags",
        "ports_tags",
        "routers_tags",
        "floatingips_tags",
        "security_groups_tags",
        "segments_tags",
        "policies_tags",
        "trunks_tags",
        "network_segment_range:tags"
    );
    let read = "rule:admin_only or (role:reader and project_id:%(project_id)s) or rule:shared or rule:external";
    let write = "rule:admin_only or (role:member and project_id:%(project_id)s)";
    let manage = "rule:admin_only or (role:manager and project_id:%(project_id)s)";
    names
        .iter()
        .map(|(name, reads)| {
            // What only managers make, only they mark.
            let write = if name.ends_with("_policies_tags") { manage } else { write };
            let rule = if *reads { read } else { write };
            // Segments and ranges of their numbers are the cloud's own.
            let clouds = name.ends_with("_segments_tags") || name.ends_with("_range:tags");
            let rule = if clouds { "rule:admin_only" } else { rule };
            RuleDefault::new(name, rule, &["project"], "")
        })
        .collect()
}

/// The tags, after the rule was asked about the resource. (`call` is `&mut` so that the future is `Send`.)
async fn read<R: Api>(svc: &Network, call: &mut Call) -> Result<Vec<String>, Fault> {
    let id = call.param("id").to_owned();
    let raw = raw_of::<R>(&svc.store, &call.ctx, &id).await;
    let _ = call.may(call.rule(), &call.target());
    let raw = raw?;
    gate(call, R::RESOURCE, &raw)?;
    serde_json::from_value(raw.get("tags").cloned().unwrap_or(json!([]))).map_err(Fault::internal)
}

fn check_tag(tag: &str) -> Result<(), Fault> {
    if tag.is_empty() || tag.chars().count() > TAG_LENGTH || tag.contains(',') {
        return Err(Fault::bad_request(format!(
            "Invalid input for tags. Reason: a tag has 1 to {TAG_LENGTH} characters and no comma."
        )));
    }
    Ok(())
}

fn sent(call: &Call) -> Result<Vec<String>, Fault> {
    let refuse = || Fault::bad_request("Invalid input for tags. Reason: tags are texts.");
    let mut out: Vec<String> = Vec::new();
    for tag in call.member("tags")?.as_array().ok_or_else(refuse)? {
        let tag = tag.as_str().ok_or_else(refuse)?;
        check_tag(tag)?;
        if !out.iter().any(|t| t == tag) {
            out.push(tag.to_owned());
        }
    }
    Ok(out)
}

/// `change` may run again, as the transaction may.
async fn write<R: Api>(
    svc: &Network,
    id: &str,
    change: impl Fn(Vec<String>) -> Vec<String> + Send + Sync + 'static,
) -> Result<Vec<String>, Fault> {
    let (id, change) = (id.to_owned(), Arc::new(change));
    svc.store
        .write(move |tx| {
            let (id, change) = (id.clone(), change.clone());
            Box::pin(async move {
                let mut found = tx.get::<R>(&id).await?.ok_or_else(|| R::RESOURCE.not_found(&id))?;
                let before = serde_json::to_value(&found.record).map_err(Fault::internal)?["tags"].clone();
                let before: Vec<String> = serde_json::from_value(before).unwrap_or_default();
                let after = change(before.clone());
                if after.len() > TAGS_MAX {
                    return Err(Fault::bad_request(format!(
                        "The number of tags exceed the per-resource limit of {TAGS_MAX}"
                    )));
                }
                if after != before {
                    found.record = overlay(&found.record, json!({"tags": after}).as_object().unwrap_or(&Map::new()))?;
                    tx.update(&found).await?;
                }
                Ok::<_, Fault>(after)
            })
        })
        .await
}

async fn list<R: Api>(svc: Arc<Network>, mut call: Call) -> Reply {
    let tags = read::<R>(&svc, &mut call).await?;
    Ok(Response::ok(json!({"tags": tags})))
}

fn missing(tag: &str) -> Fault {
    Fault::not_found(format!("Tag {tag} could not be found.")).kind("TagNotFound")
}

async fn has<R: Api>(svc: Arc<Network>, mut call: Call) -> Reply {
    let tags = read::<R>(&svc, &mut call).await?;
    let tag = call.param("tag");
    if tags.iter().any(|t| t == tag) { Ok(Response::no_content()) } else { Err(missing(tag)) }
}

async fn add<R: Api>(svc: Arc<Network>, mut call: Call) -> Reply {
    read::<R>(&svc, &mut call).await?;
    let tag = call.param("tag").to_owned();
    check_tag(&tag)?;
    write::<R>(&svc, call.param("id"), move |mut tags| {
        if !tags.contains(&tag) {
            tags.push(tag.clone());
        }
        tags
    })
    .await?;
    Ok(Response::empty(201))
}

async fn add_many<R: Api>(svc: Arc<Network>, mut call: Call) -> Reply {
    read::<R>(&svc, &mut call).await?;
    let new = sent(&call)?;
    let tags = write::<R>(&svc, call.param("id"), move |mut tags| {
        tags.extend(new.iter().filter(|n| !tags.contains(n)).cloned().collect::<Vec<_>>());
        tags
    })
    .await?;
    Ok(Response::created(json!({"tags": tags})))
}

async fn replace<R: Api>(svc: Arc<Network>, mut call: Call) -> Reply {
    read::<R>(&svc, &mut call).await?;
    let new = sent(&call)?;
    let tags = write::<R>(&svc, call.param("id"), move |_| new.clone()).await?;
    Ok(Response::ok(json!({"tags": tags})))
}

async fn remove<R: Api>(svc: Arc<Network>, mut call: Call) -> Reply {
    let before = read::<R>(&svc, &mut call).await?;
    let tag = call.param("tag").to_owned();
    if !before.contains(&tag) {
        return Err(missing(&tag));
    }
    write::<R>(&svc, call.param("id"), move |mut tags| {
        tags.retain(|t| *t != tag);
        tags
    })
    .await?;
    Ok(Response::no_content())
}

async fn clear<R: Api>(svc: Arc<Network>, mut call: Call) -> Reply {
    read::<R>(&svc, &mut call).await?;
    write::<R>(&svc, call.param("id"), |_| Vec::new()).await?;
    Ok(Response::no_content())
}
