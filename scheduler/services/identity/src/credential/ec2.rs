//! `/v3/users/{user_id}/credentials/OS-EC2`: access and secret keys for S3 and EC2 clients.
use super::{api::owned, ec2_id};
use crate::{Identity, delegation, fault, listing, tables::Credential};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, id};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const EC2: &str = "ec2";

static CREATE: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(
        || json!({"type": "object", "properties": {"tenant_id": {"type": "string", "minLength": 1, "maxLength": 64}}, "required": ["tenant_id"]}),
    )
});

pub(super) fn routes() -> Vec<Route<Identity>> {
    const ALL: &str = "/v3/users/{user_id}/credentials/OS-EC2";
    const ONE: &str = "/v3/users/{user_id}/credentials/OS-EC2/{access}";
    vec![
        Route::get(ALL, list).rule("identity:ec2_list_credentials").summary("List a user's EC2 credentials"),
        Route::post(ALL, create)
            .rule_by_handler("identity:ec2_create_credential")
            .schema(&CREATE)
            .summary("Create an EC2 credential"),
        Route::get(ONE, show).rule_by_handler("identity:ec2_get_credential").summary("Show an EC2 credential"),
        Route::delete(ONE, delete)
            .rule_by_handler("identity:ec2_delete_credential")
            .summary("Delete an EC2 credential"),
    ]
}

fn view(svc: &Identity, call: &Call, credential: &Credential) -> Result<Value, Fault> {
    let blob: Value = serde_json::from_str(&svc.open_blob(credential)?).map_err(Fault::internal)?;
    let access = blob.get("access").and_then(Value::as_str).unwrap_or_default();
    let path = format!("/v3/users/{}/credentials/OS-EC2/{access}", credential.user_id);
    Ok(
        json!({"user_id": credential.user_id, "tenant_id": credential.project_id, "access": access, "secret": blob.get("secret"),
        "trust_id": blob.get("trust_id"), "links": listing::self_link(call, &path)}),
    )
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    delegation::primary_only(&call)?;
    let mut items = Vec::new();
    for credential in svc.store.list::<Credential>(Credential::of_user(call.param("user_id"))).await? {
        if credential.kind.eq_ignore_ascii_case(EC2) {
            items.push(view(&svc, &call, &credential)?);
        }
    }
    Ok(listing::whole(&call, "credentials", items))
}

async fn create(svc: Arc<Identity>, call: Call) -> Reply {
    let user_id = call.param("user_id").to_owned();
    call.authorize(&owned(&call, Some(&user_id)))?;
    delegation::primary_only(&call)?;
    let project = call.member("tenant_id")?.as_str().unwrap_or_default().to_owned();
    if project.contains('\0') || svc.directory.project(&project).await?.is_none() {
        return Err(fault::missing("project", &project));
    }
    let access = id::hex();
    let blob = json!({"access": access, "secret": id::hex() + &id::hex(), "trust_id": null});
    let credential = Credential {
        id: ec2_id(&access),
        user_id,
        project_id: Some(project),
        kind: EC2.into(),
        sealed_blob: svc.seal_blob(&blob.to_string())?,
        last_step: None,
        extra: Default::default(),
    };
    let credential = svc.store_credential(credential).await?;
    Ok(Response::created(json!({"credential": view(&svc, &call, &credential)?})))
}

/// The key of the path. Keys cannot be guessed, so a missing one is 404 for everybody, as in the original.
async fn authorized(svc: &Identity, call: &Call) -> Result<Credential, Fault> {
    let Some(found) = svc.store.get::<Credential>(&ec2_id(call.param("access"))).await?.map(|c| c.record) else {
        let _ = call.may(call.rule(), &call.target());
        return Err(Fault::not_found("EC2 access key not found."));
    };
    call.authorize(&owned(call, Some(&found.user_id)))?;
    delegation::primary_only(call)?;
    Ok(found)
}

async fn show(svc: Arc<Identity>, call: Call) -> Reply {
    let credential = authorized(&svc, &call).await?;
    Ok(Response::ok(json!({"credential": view(&svc, &call, &credential)?})))
}

async fn delete(svc: Arc<Identity>, call: Call) -> Reply {
    let credential = authorized(&svc, &call).await?;
    svc.delete_credential(&credential.id).await?;
    Ok(Response::no_content())
}
