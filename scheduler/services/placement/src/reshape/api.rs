//! `/reshaper`
use super::{ops, view};
use crate::{
    Placement,
    allocation::{schema, view::claims},
    version,
};
use pilvi_kit::{Call, Reply, Response, Route, Schema};
use std::sync::{Arc, LazyLock};

pub fn routes() -> Vec<Route<Placement>> {
    let post = |since: u16, until: u16, schema: &'static LazyLock<Schema>| {
        Route::post("/reshaper", reshape)
            .rule("placement:reshaper:reshape")
            .schema(schema)
            .since(1, since)
            .until(1, until)
            .summary("Move inventories and allocations between providers")
    };
    vec![
        post(version::RESHAPER.1, 33, &schema::RESHAPE_1_30),
        post(34, 37, &schema::RESHAPE_1_34),
        post(38, u16::MAX, &schema::RESHAPE_1_38),
    ]
}

async fn reshape(svc: Arc<Placement>, call: Call) -> Reply {
    ops::reshape(&svc.store, view::shapes(&call)?, claims(&call, &call.body["allocations"])?).await?;
    Ok(Response::no_content())
}
