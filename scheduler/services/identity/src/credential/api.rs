//! `/v3/credentials`
use super::ec2_id;
use crate::{
    Identity,
    attributes::{Attributes, body_schema, types, with_extra},
    delegation,
    directory::Area,
    fault, listing,
    tables::{Credential, user_exists_in},
    target,
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use pilvi_store::Query;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const KNOWN: &[&str] = &["user_id", "project_id", "type", "blob"];
const BLOB_MAX: usize = 64 * 1024;

fn properties() -> Value {
    json!({"blob": {"type": "string", "maxLength": BLOB_MAX}, "project_id": types::id_or_null(), "type": types::name(255), "user_id": types::id()})
}

static CREATE: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(|| body_schema("credential", properties(), &["blob", "type", "user_id"])));
static UPDATE: LazyLock<Schema> = LazyLock::new(|| Schema::new(|| body_schema("credential", properties(), &[])));

pub(super) fn routes() -> Vec<Route<Identity>> {
    const ONE: &str = "/v3/credentials/{credential_id}";
    vec![
        Route::get("/v3/credentials", list).rule_by_handler("identity:list_credentials").summary("List credentials"),
        Route::post("/v3/credentials", create)
            .rule_by_handler("identity:create_credential")
            .schema(&CREATE)
            .summary("Create a credential"),
        Route::get(ONE, show).rule_by_handler("identity:get_credential").summary("Show a credential"),
        Route::patch(ONE, update)
            .rule_by_handler("identity:update_credential")
            .schema(&UPDATE)
            .summary("Change a credential's blob"),
        Route::delete(ONE, delete).rule_by_handler("identity:delete_credential").summary("Delete a credential"),
    ]
}

fn view(svc: &Identity, call: &Call, credential: &Credential) -> Result<Value, Fault> {
    let base = json!({"id": credential.id, "user_id": credential.user_id, "project_id": credential.project_id, "type": credential.kind,
        "blob": svc.open_blob(credential)?, "links": listing::self_link(call, &format!("/v3/credentials/{}", credential.id))});
    Ok(with_extra(base, &credential.extra))
}

pub(super) fn owned(call: &Call, user_id: Option<&str>) -> pilvi_kit::Target {
    target::about(call, [("credential", user_id.map(|id| json!({"user_id": id})))])
}

async fn authorized(svc: &Identity, call: &Call) -> Result<Credential, Fault> {
    let id = call.param("credential_id");
    let found = svc.store.get::<Credential>(id).await?.map(|c| c.record);
    call.authorize(&owned(call, found.as_ref().map(|c| c.user_id.as_str())))?;
    delegation::primary_only(call)?;
    found.ok_or_else(|| fault::missing("credential", id))
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    call.authorize(&owned(&call, Some(&call.caller().user_id)))?;
    delegation::primary_only(&call)?;
    let query = match listing::exact(&call, "user_id") {
        Some(user) => Credential::of_user(user),
        None => Query::all(),
    };
    let mut items = Vec::new();
    for credential in svc.store.list::<Credential>(query).await? {
        // Each one is asked about, so that nobody sees those of others.
        if call.may("identity:get_credential", &owned(&call, Some(&credential.user_id))) {
            items.push(view(&svc, &call, &credential)?);
        }
    }
    listing::answer(&svc, &call, "credentials", items, &["user_id", "type"])
}

/// The access key in an EC2 blob.
fn access_of(blob: &str) -> Result<String, Fault> {
    let parsed: Value = serde_json::from_str(blob).map_err(|_| Fault::bad_request("Invalid blob in credential"))?;
    let object = parsed.as_object().filter(|o| !o.is_empty()).ok_or_else(|| fault::expecting("blob", "credential"))?;
    object
        .get("access")
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| fault::expecting("access", "credential"))
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let wanted = Attributes::of(&call, "credential")?;
    let user_id = wanted.need("user_id", "credential")?;
    call.authorize(&owned(&call, Some(&user_id)))?;
    delegation::primary_only(&call)?;
    let (kind, blob) = (wanted.need("type", "credential")?, wanted.need("blob", "credential")?);
    let ec2 = kind.eq_ignore_ascii_case("ec2");
    if ec2 && wanted.text("project_id").is_none() {
        return Err(fault::expecting("project_id", "credential"));
    }
    let credential = Credential {
        id: if ec2 { ec2_id(&access_of(&blob)?) } else { id::hex() },
        user_id,
        project_id: wanted.text("project_id"),
        kind,
        sealed_blob: svc.seal_blob(&blob)?,
        last_step: None,
        extra: wanted.extra(KNOWN),
    };
    let credential = svc.store_credential(credential).await?;
    Ok(Response::created(json!({"credential": view(&svc, &call, &credential)?})))
}

impl Identity {
    pub(super) async fn store_credential(&self, credential: Credential) -> Result<Credential, Fault> {
        self.write(Area::Quiet, move |tx| {
            let credential = credential.clone();
            Box::pin(async move {
                user_exists_in(tx, &credential.user_id).await?;
                tx.insert(&credential).await.map_err(|e| match e {
                    pilvi_store::Error::Exists { .. } => fault::duplicate("credential", "Duplicate entry"),
                    other => other.into(),
                })?;
                Ok(credential)
            })
        })
        .await
    }

    pub(super) async fn delete_credential(&self, id: &str) -> Result<(), Fault> {
        let id = id.to_owned();
        self.write(Area::Quiet, move |tx| {
            let id = id.clone();
            Box::pin(async move {
                if tx.delete::<Credential>(&id).await? { Ok(()) } else { Err(fault::missing("credential", &id)) }
            })
        })
        .await
    }
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let credential = authorized(&svc, &call).await?;
    Ok(Response::ok(json!({"credential": view(&svc, &call, &credential)?})))
}

async fn update(svc: Arc<Identity>, call: Call) -> Reply {
    let credential = authorized(&svc, &call).await?;
    let wanted = Attributes::of(&call, "credential")?;
    wanted.unchanged("type", Some(&credential.kind))?;
    wanted.unchanged("user_id", Some(&credential.user_id))?;
    wanted.unchanged("project_id", credential.project_id.as_deref())?;
    let sealed = match wanted.text("blob") {
        Some(blob) => {
            if credential.kind.eq_ignore_ascii_case("ec2") {
                access_of(&blob)?;
            }
            Some(svc.seal_blob(&blob)?)
        }
        None => None,
    };
    let id = credential.id;
    let credential = svc
        .write(Area::Quiet, move |tx| {
            let (id, sealed, wanted) = (id.clone(), sealed.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored = tx.get::<Credential>(&id).await?.ok_or_else(|| fault::missing("credential", &id))?;
                if let Some(sealed) = sealed {
                    stored.record.sealed_blob = sealed;
                }
                wanted.merge_extra(&mut stored.record.extra, KNOWN);
                Ok(tx.update(&stored).await?.record)
            })
        })
        .await?;
    Ok(Response::ok(json!({"credential": view(&svc, &call, &credential)?})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let credential = authorized(&svc, &call).await?;
    svc.delete_credential(&credential.id).await?;
    Ok(Response::no_content())
}
