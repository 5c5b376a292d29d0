//! `/v2.0/network_segment_ranges`
use super::{model::SegmentRange, ops};
use crate::{
    Network,
    attribute::{Absent, Resource, Verb, once, open, shown},
    check,
    list::{self, Raw},
    verbs::{self, Api},
};
use pilvi_kit::{Ctx, Fault, Route, Schema, call::Query};
use pilvi_store::{Query as Find, Store, Stored, Tx};
use std::sync::LazyLock;

pub static SEGMENT_RANGE: Resource = Resource {
    name: "network_segment_range",
    collection: "network_segment_ranges",
    missing: "NetworkSegmentRangeNotFound",
    label: "Network Segment Range",
    attrs: &[
        once("shared", check::boolean).absent(Absent::Bool(false)),
        once("network_type", check::text::<32>).required(),
        once("physical_network", check::text_or_null::<64>).absent(Absent::Null),
        open("minimum", check::int::<1, 16_777_215>).required(),
        open("maximum", check::int::<1, 16_777_215>).required(),
        shown("default"),
        shown("used"),
        shown("available"),
    ],
    lacks: &[],
    below: "",
};

static CREATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| SEGMENT_RANGE.schema(Verb::Create)));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| SEGMENT_RANGE.schema(Verb::Update)));

/// Neutron takes names of collections with either sign; its documentation has the one, its clients send both.
macro_rules! at {
    ($path:literal) => {
        [
            Route::get($path, verbs::list::<SegmentRange>)
                .rule_by_handler("get_network_segment_range")
                .summary("Lists ranges of overlay numbers"),
            Route::post($path, verbs::create::<SegmentRange>)
                .rule_by_handler("create_network_segment_range")
                .schema(&CREATE)
                .summary("Sets numbers aside"),
            Route::get(concat!($path, "/{id}"), verbs::show::<SegmentRange>)
                .rule_by_handler("get_network_segment_range")
                .summary("Shows a range and its use"),
            Route::put(concat!($path, "/{id}"), verbs::update::<SegmentRange>)
                .rule_by_handler("update_network_segment_range")
                .schema(&UPDATE)
                .summary("Updates a range"),
            Route::delete(concat!($path, "/{id}"), verbs::delete::<SegmentRange>)
                .rule_by_handler("delete_network_segment_range")
                .summary("Deletes a range that no network is in"),
        ]
    };
}

pub fn routes() -> Vec<Route<Network>> {
    let both = [at!("/v2.0/network_segment_ranges"), at!("/v2.0/network-segment-ranges")];
    both.into_iter().flatten().collect()
}

impl Api for SegmentRange {
    const RESOURCE: &'static Resource = &SEGMENT_RANGE;

    async fn candidates(store: &Store, _ctx: &Ctx, _query: &Query) -> Result<Vec<Stored<Self>>, Fault> {
        ops::ensure(store).await?;
        Ok(store.list::<Self>(Find::all()).await?)
    }

    async fn raws(store: &Store, items: Vec<Stored<Self>>) -> Result<Vec<Raw>, Fault> {
        let mut raws = Vec::new();
        for item in &items {
            let mut raw = list::raw(item)?;
            let (used, available) = ops::usage(store, item).await?;
            raw.insert("used".into(), used);
            raw.insert("available".into(), available);
            raws.push(raw);
        }
        Ok(raws)
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
