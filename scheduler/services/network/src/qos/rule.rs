//! `/v2.0/qos/policies/{policy_id}/...`: the collections of rules, one for each kind.
use super::{
    least,
    model::{Bandwidth, Dscp, Kind, LeastBandwidth, LeastPacketRate, MARKS, PacketRate, QosPolicy, QosRule},
    ops,
};
use crate::{
    Network,
    attribute::{Absent, Resource, open},
    check::{self, Checked},
    crud::crud,
    list::Raw,
    security_group::rule::check_direction,
    tables::find,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route, call::Query};
use pilvi_store::{Store, Stored, Tx};
use serde_json::Value;

/// What rules lack of the standard attributes; whose they are follows from their policy.
const LACKS: &[&str] =
    &["name", "description", "tags", "created_at", "updated_at", "revision_number", "project_id", "tenant_id"];

/// The largest number that Neutron's database has.
const MOST: i64 = 2_147_483_647;

pub static BANDWIDTH: Resource = Resource {
    name: "bandwidth_limit_rule",
    collection: "bandwidth_limit_rules",
    missing: "QosRuleNotFound",
    label: "QoS rule",
    attrs: &[
        open("max_kbps", check::int::<0, MOST>).required(),
        open("max_burst_kbps", check::int::<0, MOST>).absent(Absent::Zero),
        open("direction", check_direction).absent(Absent::Text("egress")),
    ],
    lacks: LACKS,
    below: "policy",
};

pub static PACKET_RATE: Resource = Resource {
    name: "packet_rate_limit_rule",
    collection: "packet_rate_limit_rules",
    missing: "QosRuleNotFound",
    label: "QoS rule",
    attrs: &[
        open("max_kpps", check::int::<0, MOST>).required(),
        open("max_burst_kpps", check::int::<0, MOST>).absent(Absent::Zero),
        open("direction", check_direction).absent(Absent::Text("egress")),
    ],
    lacks: LACKS,
    below: "policy",
};

pub static DSCP: Resource = Resource {
    name: "dscp_marking_rule",
    collection: "dscp_marking_rules",
    missing: "QosRuleNotFound",
    label: "QoS rule",
    attrs: &[open("dscp_mark", check_mark).required()],
    lacks: LACKS,
    below: "policy",
};

pub static LEAST_BANDWIDTH: Resource = Resource {
    name: "minimum_bandwidth_rule",
    collection: "minimum_bandwidth_rules",
    missing: "QosRuleNotFound",
    label: "QoS rule",
    attrs: &[
        open("min_kbps", check::int::<0, MOST>).required(),
        open("direction", check_direction).absent(Absent::Text("egress")),
    ],
    lacks: LACKS,
    below: "policy",
};

pub static LEAST_PACKET_RATE: Resource = Resource {
    name: "minimum_packet_rate_rule",
    collection: "minimum_packet_rate_rules",
    missing: "QosRuleNotFound",
    label: "QoS rule",
    attrs: &[open("min_kpps", check::int::<0, MOST>).required(), open("direction", check_way).required()],
    lacks: LACKS,
    below: "policy",
};

fn check_way(value: &Value) -> Checked {
    check::one_of(value, &["any", "egress", "ingress"])
}

fn check_mark(value: &Value) -> Checked {
    let mark = check::int::<0, 63>(value)?;
    let known = mark.as_u64().is_some_and(|m| MARKS.iter().any(|k| u64::from(*k) == m));
    if known { Ok(mark) } else { Err(format!("'{mark}' is not in {MARKS:?}")) }
}

impl Kind for Bandwidth {
    const RECORD: &'static str = "qos_bandwidth_limit_rule";
    const TYPE: &'static str = "bandwidth_limit";
    const RESOURCE: &'static Resource = &BANDWIDTH;
}

impl Kind for PacketRate {
    const RECORD: &'static str = "qos_packet_rate_limit_rule";
    const TYPE: &'static str = "packet_rate_limit";
    const RESOURCE: &'static Resource = &PACKET_RATE;
}

impl Kind for Dscp {
    const RECORD: &'static str = "qos_dscp_marking_rule";
    const TYPE: &'static str = "dscp_marking";
    const RESOURCE: &'static Resource = &DSCP;
}

impl Kind for LeastBandwidth {
    const RECORD: &'static str = "qos_minimum_bandwidth_rule";
    const TYPE: &'static str = "minimum_bandwidth";
    const RESOURCE: &'static Resource = &LEAST_BANDWIDTH;
    const CLAIMED: bool = true;
}

impl Kind for LeastPacketRate {
    const RECORD: &'static str = "qos_minimum_packet_rate_rule";
    const TYPE: &'static str = "minimum_packet_rate";
    const RESOURCE: &'static Resource = &LEAST_PACKET_RATE;
    const CLAIMED: bool = true;
}

macro_rules! below_policy {
    ($kind:ty, $resource:path, $name:literal, $what:literal) => {
        crud!(
            QosRule<$kind>,
            $resource,
            concat!("/v2.0/qos/policies/{policy_id}/", $name, "s"),
            concat!("policy_", $name),
            $what,
            open
        )
    };
}

pub fn routes() -> Vec<Route<Network>> {
    let mut routes = below_policy!(Bandwidth, BANDWIDTH, "bandwidth_limit_rule", "bandwidth limits of a policy");
    routes.extend(below_policy!(PacketRate, PACKET_RATE, "packet_rate_limit_rule", "packet rate limits of a policy"));
    routes.extend(below_policy!(Dscp, DSCP, "dscp_marking_rule", "marks of a policy"));
    routes.extend(below_policy!(
        LeastBandwidth,
        LEAST_BANDWIDTH,
        "minimum_bandwidth_rule",
        "bandwidths that a policy keeps free"
    ));
    routes.extend(below_policy!(
        LeastPacketRate,
        LEAST_PACKET_RATE,
        "minimum_packet_rate_rule",
        "packet rates that a policy keeps free"
    ));
    routes.extend(super::alias::routes());
    routes
}

impl<K: Kind> Api for QosRule<K> {
    const RESOURCE: &'static Resource = K::RESOURCE;
    const PARENT: Option<(&'static str, &'static str)> = Some(("policy_id", "policy_id"));

    /// Whose policy it is; whoever may not see its rules finds none, and may make none.
    async fn parent(store: &Store, _ctx: &Ctx, id: &str) -> Result<String, Fault> {
        Ok(store.get::<QosPolicy>(id).await?.ok_or_else(|| ops::missing(id))?.record.project_id)
    }

    async fn candidates(store: &Store, _ctx: &Ctx, _query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        Ok(store.list::<Self>(find::all()).await?)
    }

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_rule_in(tx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_rule_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        if K::CLAIMED {
            least::refuse_claimed_in(tx, &found.policy_id).await?;
        }
        tx.delete::<Self>(&found.id).await?;
        ops::touch_policy_in(tx, &found.policy_id).await
    }
}
