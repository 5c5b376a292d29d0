//! `/v2.0/segments`
use super::{model::Segment, ops};
use crate::{
    Network,
    attribute::{Absent, Resource, once, open},
    check,
    crud::crud,
    list::Raw,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};

pub static SEGMENT: Resource = Resource {
    name: "segment",
    collection: "segments",
    missing: "SegmentNotFound",
    label: "Segment",
    attrs: &[
        once("network_id", check::uuid).required(),
        open("name", check::name_or_null).absent(Absent::Null),
        open("description", check::text_or_null::<255>).absent(Absent::Null),
        once("network_type", check::text::<32>).required(),
        once("physical_network", check::text_or_null::<64>).absent(Absent::Null),
        once("segmentation_id", check::int_or_null::<1, 16_777_215>).absent(Absent::Null),
    ],
    lacks: &["project_id", "tenant_id"],
    below: "",
};

pub fn routes() -> Vec<Route<Network>> {
    crud!(Segment, SEGMENT, "/v2.0/segments", "segment", "segments of networks", open)
}

impl Api for Segment {
    const RESOURCE: &'static Resource = &SEGMENT;

    async fn candidates(store: &Store, _ctx: &Ctx, query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        ops::ensure(store).await?;
        let networks: Vec<&str> = query.all("network_id").take(100).collect();
        let narrow = if networks.is_empty() { Find::all() } else { crate::tables::find::on_networks(networks) };
        Ok(store.list::<Self>(narrow).await?)
    }

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_in(tx, attrs).await
    }

    async fn update_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, changes: &Raw) -> Result<(), Fault> {
        ops::update_in(tx, found, changes).await
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_in(tx, found).await
    }
}
