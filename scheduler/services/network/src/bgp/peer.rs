//! `/v2.0/bgp-peers`
use super::{model::BgpPeer, ops};
use crate::{
    Network,
    attribute::{Absent, Resource, once, open},
    check::{self, Checked},
    crud::crud,
    list::Raw,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route};
use pilvi_store::{Stored, Tx};
use serde_json::Value;

/// AS numbers, of two octets and of four.
pub const AS_MAX: i64 = 4_294_967_295;

pub static PEER: Resource = Resource {
    name: "bgp_peer",
    collection: "bgp_peers",
    missing: "BgpPeerNotFound",
    label: "BGP peer",
    attrs: &[
        once("peer_ip", check::ip).required(),
        once("remote_as", check::int::<1, AS_MAX>).required(),
        once("auth_type", check_auth).required(),
        open("password", check::text_or_null::<255>).absent(Absent::Null).hidden(),
    ],
    lacks: &["description", "created_at", "updated_at", "revision_number", "tags"],
    below: "",
};

fn check_auth(value: &Value) -> Checked {
    check::one_of(value, &["none", "md5"])
}

pub fn routes() -> Vec<Route<Network>> {
    crud!(BgpPeer, PEER, "/v2.0/bgp-peers", "bgp_peer", "BGP peers", open)
}

impl Api for BgpPeer {
    const RESOURCE: &'static Resource = &PEER;

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_peer_in(tx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_peer_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_peer_in(tx, &found.id).await
    }
}
