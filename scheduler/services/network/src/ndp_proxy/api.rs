//! `/v2.0/ndp_proxies`
use super::{model::NdpProxy, ops};
use crate::{
    Network,
    attribute::{Absent, Resource, once, open},
    check,
    crud::crud,
    list::Raw,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route};
use pilvi_store::{Stored, Tx};

pub static NDP_PROXY: Resource = Resource {
    name: "ndp_proxy",
    collection: "ndp_proxies",
    missing: "NDPProxyNotFound",
    label: "Ndp proxy",
    attrs: &[
        once("router_id", check::uuid).required(),
        once("port_id", check::uuid).required(),
        once("ip_address", check::ip_or_null).absent(Absent::Null),
        open("description", check::text_or_null::<1024>).absent(Absent::Text("")),
    ],
    lacks: &["tags"],
    below: "",
};

pub fn routes() -> Vec<Route<Network>> {
    crud!(NdpProxy, NDP_PROXY, "/v2.0/ndp_proxies", "ndp_proxy", "NDP proxies", open)
}

impl Api for NdpProxy {
    const RESOURCE: &'static Resource = &NDP_PROXY;

    async fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, ctx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        tx.delete::<NdpProxy>(&found.id).await?;
        Ok(())
    }
}
