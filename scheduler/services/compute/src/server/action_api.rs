//! `POST /servers/{id}/action`: one path, the verb is the only member of the body.
use crate::{
    Compute, interface, migration,
    server::{
        api, create,
        model::{Verb, VmState},
        schema, snapshot,
        view::Shape,
    },
    tables::{LockedBy, Server},
    version as v,
};
use pilvi_agent_api::v1;
use pilvi_kit::{Call, Fault, Reply, Response, Route, call::owned_by};
use pilvi_store::Stored;
use serde_json::{Value, json};
use std::sync::Arc;

pub fn routes() -> Vec<Route<Compute>> {
    vec![
        Route::post("/v2.1/servers/{server_id}/action", act)
            .rule_by_handler("os_compute_api:servers:show")
            .schema(&schema::ACTION)
            .actions(ACTIONS)
            .summary("Act on a server: the body's only member names the verb"),
    ]
}

/// Every verb with its rule; one that is not here is 400.
const ACTIONS: &[(&str, &str)] = &[
    ("os-start", "os_compute_api:servers:start"),
    ("os-stop", "os_compute_api:servers:stop"),
    ("reboot", "os_compute_api:servers:reboot"),
    ("pause", "os_compute_api:os-pause-server:pause"),
    ("unpause", "os_compute_api:os-pause-server:unpause"),
    ("suspend", "os_compute_api:os-suspend-server:suspend"),
    ("resume", "os_compute_api:os-suspend-server:resume"),
    ("rebuild", "os_compute_api:servers:rebuild"),
    ("resize", "os_compute_api:servers:resize"),
    ("confirmResize", "os_compute_api:servers:confirm_resize"),
    ("revertResize", "os_compute_api:servers:revert_resize"),
    ("lock", "os_compute_api:os-lock-server:lock"),
    ("unlock", "os_compute_api:os-lock-server:unlock"),
    ("os-getConsoleOutput", "os_compute_api:os-console-output"),
    ("os-resetState", "os_compute_api:os-admin-actions:reset_state"),
    ("migrate", "os_compute_api:os-migrate-server:migrate"),
    ("os-migrateLive", "os_compute_api:os-migrate-server:migrate_live"),
    ("createImage", "os_compute_api:servers:create_image"),
    ("forceDelete", "os_compute_api:os-deferred-delete:force"),
    ("addSecurityGroup", "os_compute_api:os-security-groups:add"),
    ("removeSecurityGroup", "os_compute_api:os-security-groups:remove"),
    ("addFixedIp", "os_compute_api:os-multinic:add"),
    ("removeFixedIp", "os_compute_api:os-multinic:remove"),
    ("addFloatingIp", "os_compute_api:os-floating-ips:add"),
    ("removeFloatingIp", "os_compute_api:os-floating-ips:remove"),
];

async fn act(svc: Arc<Compute>, call: Call) -> Reply {
    let (action, body) = match call.body.as_object().and_then(|o| o.iter().next()) {
        Some((action, body)) => (action.clone(), body.clone()),
        None => return Err(Fault::bad_request("The body names no action.")),
    };
    let server = svc.server(call.param("server_id")).await;
    if !ACTIONS.iter().any(|(name, _)| *name == action) || interface::action::gone(&call, &action) {
        return Err(Fault::bad_request(format!("There is no such action: {action}")));
    }
    let server = server?;
    if let Err(fault) = call.authorize(&owned_by(&server.project_id)) {
        let mine = server.project_id == call.ctx.project_id();
        return Err(if mine { fault } else { crate::fault::server_not_found(&server.record.id) });
    }
    let simple = match action.as_str() {
        "os-start" => Some(Verb::Start),
        "os-stop" => Some(Verb::Stop),
        "pause" => Some(Verb::Pause),
        "unpause" => Some(Verb::Unpause),
        "suspend" => Some(Verb::Suspend),
        "resume" => Some(Verb::Resume),
        "reboot" => Some(reboot_kind(&body)?),
        _ => None,
    };
    if let Some(verb) = simple {
        svc.verb(&call.ctx, &server.record.id, verb, |_| Ok(())).await?;
        return Ok(Response::empty(202));
    }
    match action.as_str() {
        "rebuild" => rebuild(&svc, &call, &server, body).await,
        "resize" | "confirmResize" | "revertResize" => resize(&svc, &call, &server, &action, &body).await,
        "lock" | "unlock" => lock(&svc, &call, &server, action == "lock", &body).await,
        "os-getConsoleOutput" => console(&svc, &server, &body).await,
        "createImage" => snapshot::create(&svc, &call, &server, &body).await,
        "migrate" => migration::cold_api::migrate(&svc, &call, &server, &body).await,
        "os-migrateLive" => migration::api::migrate(&svc, &call, &server, &body).await,
        "os-resetState" => reset_state(&svc, &server, &body).await,
        action if interface::action::knows(action) => interface::action::act(&svc, &call, &server, action, &body).await,
        _ => {
            svc.delete_server(&call.ctx, &server.record.id).await?;
            Ok(Response::no_content())
        }
    }
}

fn reboot_kind(body: &Value) -> Result<Verb, Fault> {
    match body.get("type").and_then(Value::as_str).map(str::to_ascii_uppercase).as_deref() {
        Some("SOFT") => Ok(Verb::RebootSoft),
        Some("HARD") => Ok(Verb::RebootHard),
        _ => Err(Fault::bad_request("Invalid input for field/attribute reboot. The type must be SOFT or HARD.")),
    }
}

async fn rebuild(svc: &Compute, call: &Call, server: &Stored<Server>, body: Value) -> Reply {
    schema::REBUILD.check(&body)?;
    let image_id = body["imageRef"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
    if crate::volume::model::backed(server) {
        return Err(Fault::bad_request("Rebuilding a server whose root disk is a volume is not offered."));
    }
    let image = svc.image_copy(&call.ctx, &image_id).await?;
    create::fits(&server.flavor, &image)?;
    let key = match body.get("key_name").and_then(Value::as_str) {
        Some(name) => Some(svc.key_copy(&call.ctx, name).await?),
        None => None,
    };
    let user_data = api::user_data(body.get("user_data").and_then(Value::as_str).map(str::to_owned))?;
    let password = body.get("adminPass").and_then(Value::as_str).map_or_else(api::password, str::to_owned);
    let (new, told) = (body.clone(), password.clone());
    let server = svc
        .verb(&call.ctx, &server.record.id, Verb::Rebuild, move |s| {
            s.image = Some(image.clone());
            api::apply(s, &new);
            if new.get("metadata").is_some() {
                s.metadata = api::strings(new.get("metadata"));
            }
            if new.get("key_name").is_some() {
                s.key.clone_from(&key);
            }
            if new.get("user_data").is_some() {
                s.user_data.clone_from(&user_data);
            }
            s.admin_password = Some(told.clone());
            Ok(())
        })
        .await?;
    let mut view = svc.server_view(call, &server, Shape::Rebuilt).await?;
    view["adminPass"] = json!(password);
    let location = call.url(&format!("/v2.1/servers/{}", server.record.id));
    Ok(Response::accepted(json!({"server": view})).header("location", location))
}

async fn resize(svc: &Compute, call: &Call, server: &Stored<Server>, action: &str, body: &Value) -> Reply {
    let id = &server.record.id;
    match action {
        "resize" => {
            schema::RESIZE.check(body)?;
            let flavor_id = match &body["flavorRef"] {
                Value::String(s) => s.rsplit('/').next().unwrap_or_default().to_owned(),
                other => other.to_string(),
            };
            svc.resize_server(&call.ctx, id, &flavor_id).await?;
            Ok(Response::empty(202))
        }
        "confirmResize" => {
            svc.finish_resize(&call.ctx, id, true).await?;
            Ok(Response::no_content())
        }
        _ => {
            svc.finish_resize(&call.ctx, id, false).await?;
            Ok(Response::empty(202))
        }
    }
}

async fn lock(svc: &Compute, call: &Call, server: &Stored<Server>, lock: bool, body: &Value) -> Reply {
    let admin = call.caller().has_role("admin");
    let reason =
        body.get("locked_reason").and_then(Value::as_str).filter(|_| call.version >= v::LOCK_REASON).map(str::to_owned);
    if !lock && !admin && server.locked.as_ref().is_some_and(|l| l.admin) {
        call.enforce("os_compute_api:os-lock-server:unlock:unlock_override", &owned_by(&server.project_id))?;
    }
    let by_admin = admin && call.ctx.project_id() != server.project_id;
    svc.change(&server.record.id, move |s| {
        s.locked = lock.then(|| LockedBy { admin: by_admin, reason: reason.clone() });
        Ok(true)
    })
    .await?;
    Ok(Response::empty(202))
}

async fn console(svc: &Compute, server: &Stored<Server>, body: &Value) -> Reply {
    let lines = match body.get("length") {
        None | Some(Value::Null) => 0,
        Some(value) => {
            let n = value.as_i64().or_else(|| value.as_str().and_then(|s| s.parse().ok()));
            let n = n
                .filter(|n| *n >= -1)
                .ok_or_else(|| Fault::bad_request("Invalid input for field/attribute length."))?;
            // Nova: -1 is everything, 0 is nothing.
            if n == 0 {
                return Ok(Response::ok(json!({"output": ""})));
            }
            u32::try_from(n).unwrap_or(0)
        }
    };
    let Some(host) = &server.host else {
        return Err(Fault::conflict(format!("Instance {} is not ready", server.record.id)));
    };
    let node = svc.fleet.node_by_name(host).await?.ok_or_else(|| Fault::conflict("The server's host was removed."))?;
    let question = v1::question::Body::ConsoleLog(v1::ConsoleLog { instance_id: server.record.id.clone(), lines });
    let bytes = svc.fleet.ask(&node.record.id, question).await?;
    // A guest writes what it likes; JSON and terminals shall not suffer from it.
    let output: String = String::from_utf8_lossy(&bytes)
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
        .collect();
    Ok(Response::ok(json!({"output": output})))
}

async fn reset_state(svc: &Compute, server: &Stored<Server>, body: &Value) -> Reply {
    let state = match body.get("state").and_then(Value::as_str) {
        Some("active") => VmState::Active,
        Some("error") => VmState::Error,
        _ => return Err(Fault::bad_request("Invalid input for field/attribute state. It must be active or error.")),
    };
    svc.change(&server.record.id, move |s| {
        if !s.wanted.delete {
            (s.vm_state, s.task_state) = (state, None);
        }
        Ok(true)
    })
    .await?;
    Ok(Response::empty(202))
}
