//! Protocols of an identity provider: each has a mapping.
use super::{chosen_id, closed_schema, provider, segment};
use crate::{
    Identity,
    attributes::Attributes,
    cascade,
    directory::Area,
    fault, listing,
    tables::{IdentityProvider, Mapping, Protocol},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use pilvi_store::Tx;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

fn text(null: bool) -> Value {
    let kinds = if null { json!(["string", "null"]) } else { json!("string") };
    json!({"type": kinds, "maxLength": 64})
}

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let all = json!({"mapping_id": {"type": "string", "minLength": 1, "maxLength": 64}, "remote_id_attribute": text(true)});
        closed_schema("protocol", all, &["mapping_id"], 1)
    })
});
static UPDATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let all = json!({"mapping_id": {"type": "string", "minLength": 1, "maxLength": 64}, "remote_id_attribute": text(false)});
        closed_schema("protocol", all, &[], 1)
    })
});

pub(super) fn routes() -> Vec<Route<Identity>> {
    const ALL: &str = "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols";
    const ONE: &str = "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}";
    vec![
        Route::get(ALL, list).rule("identity:list_protocols").summary("List protocols of an identity provider"),
        Route::put(ONE, create)
            .rule("identity:create_protocol")
            .schema(&CREATE)
            .summary("Add a protocol to an identity provider"),
        Route::get(ONE, show).rule("identity:get_protocol").summary("Show a protocol"),
        Route::patch(ONE, update).rule("identity:update_protocol").schema(&UPDATE).summary("Change a protocol"),
        Route::delete(ONE, delete).rule("identity:delete_protocol").summary("Delete a protocol"),
    ]
}

fn view(call: &Call, protocol: &Protocol) -> Value {
    let above = call.url(&format!("/v3/OS-FEDERATION/identity_providers/{}", segment(&protocol.idp_id)));
    let own = format!("{above}/protocols/{}", segment(&protocol.protocol_id));
    let mut out = json!({"id": protocol.protocol_id, "mapping_id": protocol.mapping_id,
        "links": {"self": own, "identity_provider": above}});
    if let Some(attribute) = &protocol.remote_id_attribute {
        out["remote_id_attribute"] = attribute.clone().into();
    }
    out
}

fn missing(idp_id: &str, protocol_id: &str) -> Fault {
    Fault::not_found(format!("Could not find federated protocol {protocol_id} for Identity Provider: {idp_id}."))
}

impl Identity {
    pub(super) async fn protocol(&self, idp_id: &str, protocol_id: &str) -> Result<Protocol, Fault> {
        let found = self.store.get::<Protocol>(&Protocol::key(idp_id, protocol_id)).await?;
        Ok(found.ok_or_else(|| missing(idp_id, protocol_id))?.record)
    }
}

async fn known_mapping_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    match tx.get::<Mapping>(id).await? {
        Some(_) => Ok(()),
        None => Err(Fault::bad_request(format!("Invalid mapping id: {id}"))),
    }
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let found = svc.store.list::<Protocol>(Protocol::of_provider(call.param("idp_id"))).await?;
    let show = |p: &Protocol| {
        let mut out = view(&call, p);
        (out["idp_id"], out["remote_id_attribute"]) = (p.idp_id.clone().into(), p.remote_id_attribute.clone().into());
        out
    };
    listing::answer(&svc, &call, "protocols", found.iter().map(|p| show(p)).collect(), &["id"])
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let protocol = svc.protocol(call.param("idp_id"), call.param("protocol_id")).await?;
    Ok(Response::ok(json!({"protocol": view(&call, &protocol)})))
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "protocol")?;
    let (idp_id, protocol_id) = (call.param("idp_id").to_owned(), chosen_id(&call, "protocol_id")?.to_owned());
    let protocol = Protocol {
        id: Protocol::key(&idp_id, &protocol_id),
        idp_id,
        protocol_id,
        mapping_id: wanted.need("mapping_id", "protocol")?,
        remote_id_attribute: wanted.text("remote_id_attribute").filter(|a| !a.is_empty()),
    };
    let protocol = svc
        .write(Area::Quiet, move |tx| {
            let protocol = protocol.clone();
            Box::pin(async move {
                known_mapping_in(tx, &protocol.mapping_id).await?;
                let provider = tx.get::<IdentityProvider>(&protocol.idp_id).await?;
                provider.ok_or_else(|| provider::missing(&protocol.idp_id))?;
                tx.insert(&protocol)
                    .await
                    .map_err(|e| fault::named_twice(e, "federation_protocol", &protocol.protocol_id, None))?;
                Ok(protocol)
            })
        })
        .await?;
    Ok(Response::created(json!({"protocol": view(&call, &protocol)})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "protocol")?;
    let (idp_id, protocol_id) = (call.param("idp_id").to_owned(), call.param("protocol_id").to_owned());
    let protocol = svc
        .write(Area::Quiet, move |tx| {
            let (idp_id, protocol_id, wanted) = (idp_id.clone(), protocol_id.clone(), wanted.clone());
            Box::pin(async move {
                let found = tx.get::<Protocol>(&Protocol::key(&idp_id, &protocol_id)).await?;
                let mut stored = found.ok_or_else(|| missing(&idp_id, &protocol_id))?;
                if let Some(mapping) = wanted.text("mapping_id") {
                    known_mapping_in(tx, &mapping).await?;
                    stored.record.mapping_id = mapping;
                }
                if wanted.has("remote_id_attribute") {
                    stored.record.remote_id_attribute = wanted.text("remote_id_attribute").filter(|a| !a.is_empty());
                }
                Ok(tx.update(&stored).await?.record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"protocol": view(&call, &protocol)})))
}

/// Users that were known by this protocol alone go with it.
async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let (idp_id, protocol_id) = (call.param("idp_id").to_owned(), call.param("protocol_id").to_owned());
    svc.write(Area::People, move |tx| {
        let (idp_id, protocol_id) = (idp_id.clone(), protocol_id.clone());
        Box::pin(async move {
            if !tx.delete::<Protocol>(&Protocol::key(&idp_id, &protocol_id)).await? {
                return Err(missing(&idp_id, &protocol_id));
            }
            cascade::forget_federated_in(tx, &idp_id, Some(&protocol_id)).await
        })
    })
    .await?;
    Ok(Response::no_content())
}
