//! `/v2.0/qos/policies`
use super::{
    model::{Bandwidth, Dscp, Kind, LeastBandwidth, LeastPacketRate, PacketRate, QosPolicy, QosRule},
    ops,
};
use crate::{
    Network,
    attribute::{Absent, Resource, open, shown},
    check,
    crud::crud,
    list::{self, Raw},
    network::ops as networks,
    tables::find,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route, call::Query};
use pilvi_store::{Store, Stored, Tx};
use serde_json::{Value, json};
use std::collections::HashMap;

pub static QOS_POLICY: Resource = Resource {
    name: "policy",
    collection: "policies",
    missing: "QosPolicyNotFound",
    label: "QoS policy",
    attrs: &[
        open("shared", check::boolean).absent(Absent::Bool(false)),
        open("is_default", check::boolean).absent(Absent::Bool(false)),
        shown("rules"),
    ],
    lacks: &[],
    below: "",
};

pub fn routes() -> Vec<Route<Network>> {
    crud!(QosPolicy, QOS_POLICY, "/v2.0/qos/policies", "policy", "QoS policies", open)
}

impl Api for QosPolicy {
    const RESOURCE: &'static Resource = &QOS_POLICY;

    async fn candidates(store: &Store, ctx: &Ctx, _query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        let query = if networks::sees_all(ctx) { find::all() } else { find::open_to(ctx.project_id()) };
        Ok(store.list::<Self>(query).await?)
    }

    async fn raws(store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        let mut rules: HashMap<String, Vec<Value>> = HashMap::new();
        let ids: Vec<&str> = items.iter().map(|p| p.id.as_str()).collect();
        for chunk in ids.chunks(400) {
            gather::<Bandwidth>(store, chunk, &mut rules).await?;
            gather::<PacketRate>(store, chunk, &mut rules).await?;
            gather::<Dscp>(store, chunk, &mut rules).await?;
            gather::<LeastBandwidth>(store, chunk, &mut rules).await?;
            gather::<LeastPacketRate>(store, chunk, &mut rules).await?;
        }
        let raw = |item: &Stored<QosPolicy>| {
            let mut raw = list::raw(item)?;
            raw.insert("rules".into(), json!(rules.get(&item.id).map_or(&[][..], Vec::as_slice)));
            Ok(raw)
        };
        items.iter().map(raw).collect()
    }

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_policy_in(tx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_policy_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_policy_in(tx, &found.id).await
    }
}

/// The rules of one kind, as a policy shows them.
async fn gather<K: Kind>(store: &Store, ids: &[&str], out: &mut HashMap<String, Vec<Value>>) -> Result<(), Fault> {
    for rule in store.list::<QosRule<K>>(find::of_policies(ids.iter().copied())).await? {
        let raw = list::raw(&rule)?;
        let mut shown: Raw =
            K::RESOURCE.all().filter(|a| !a.hidden).map(|a| (a.name.to_owned(), raw[a.name].clone())).collect();
        shown.insert("qos_policy_id".into(), json!(rule.policy_id));
        shown.insert("type".into(), json!(K::TYPE));
        out.entry(rule.policy_id.clone()).or_default().push(Value::Object(shown));
    }
    Ok(())
}
