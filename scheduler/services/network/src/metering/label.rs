//! `/v2.0/metering/metering-labels`
use super::{model::MeteringLabel, ops};
use crate::{
    Network,
    attribute::{Absent, Resource, once},
    check,
    crud::crud,
    list::Raw,
    verbs::Api,
};
use pilvi_kit::{Ctx, Fault, Route};
use pilvi_store::{Stored, Tx};

pub static METERING_LABEL: Resource = Resource {
    name: "metering_label",
    collection: "metering_labels",
    missing: "MeteringLabelNotFound",
    label: "Metering label",
    attrs: &[
        once("name", check::name).absent(Absent::Text("")),
        once("description", check::text::<1024>).absent(Absent::Text("")),
        once("shared", check::boolean).absent(Absent::Bool(false)),
    ],
    lacks: &["tags", "created_at", "updated_at", "revision_number"],
    below: "",
};

pub fn routes() -> Vec<Route<Network>> {
    let mut routes = crud!(
        MeteringLabel,
        METERING_LABEL,
        "/v2.0/metering/metering-labels",
        "metering_label",
        "metering labels",
        fixed
    );
    routes.push(super::counter::route());
    routes
}

impl Api for MeteringLabel {
    const RESOURCE: &'static Resource = &METERING_LABEL;

    async fn create_in(tx: &mut Tx, _ctx: &Ctx, attrs: &Raw) -> Result<Stored<Self>, Fault> {
        ops::create_label_in(tx, attrs).await
    }

    async fn update_in(_tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>, _changes: &Raw) -> Result<(), Fault> {
        Err(METERING_LABEL.not_found(&found.id))
    }

    async fn delete_in(tx: &mut Tx, _ctx: &Ctx, found: Stored<Self>) -> Result<(), Fault> {
        ops::delete_label_in(tx, &found.id).await
    }
}
