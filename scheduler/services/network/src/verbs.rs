//! The five verbs that every resource answers, once: list, show, create (also in bulk), update, delete.
//!
//! ```text
//! create: members -> parse -> rules (record, then attributes) -> one transaction -> views
//! update: found? -> seen? (404) -> allowed? (403) -> parse -> attribute rules -> If-Match -> transaction -> view
//! ```
//! What differs between resources is the trait [`Api`]; its methods live in the resources' own folders.
use crate::{
    Network,
    attribute::{Resource, Verb},
    fault,
    list::{self, Permits, Raw},
    network::ops::sees_all,
    rbac::model::as_seen_by,
    tables::find,
};
use pilvi_kit::{Call, Ctx, Fault, Reply, Response, call::Query};
use pilvi_store::{Query as Find, Record, Store, Stored, Tx};
use serde_json::{Value, json};
use std::{future::Future, sync::Arc};

/// What a resource adds to the common verbs.
pub trait Api: Record {
    const RESOURCE: &'static Resource;

    /// Records that a project may see: its own, unless a kind says more.
    fn seen_by(project: &str) -> Find {
        find::of_project(project)
    }

    /// Records among which the caller's list is: a superset of what its rules let it see.
    fn candidates(
        store: &Store,
        ctx: &Ctx,
        _query: &Query,
    ) -> impl Future<Output = Result<Vec<Stored<Self>>, Fault>> + Send {
        let seen = if sees_all(ctx) { find::all() } else { Self::seen_by(ctx.project_id()) };
        async move { Ok(store.list::<Self>(seen).await?) }
    }

    /// For what lives below another's path: the name of the path's parameter, and the member (and column) that holds the
    /// parent's id.
    const PARENT: Option<(&'static str, &'static str)> = None;

    /// The id of the record that the path names.
    fn record_id(call: &Call) -> String {
        call.param("id").to_owned()
    }

    /// The owner of the parent, or the parent's 404 for whoever may not know of it.
    fn parent(_store: &Store, _ctx: &Ctx, _id: &str) -> impl Future<Output = Result<String, Fault>> + Send {
        std::future::ready(Ok(String::new()))
    }

    /// Records with what their views and rules need from other records, in a fixed number of queries; nothing of others
    /// unless a kind says so.
    fn raws(_store: &Store, items: Vec<Stored<Self>>) -> impl Future<Output = Result<Vec<Raw>, Fault>> + Send {
        std::future::ready(items.iter().map(list::raw).collect())
    }

    /// What the rules of a create see: the attributes and the owner of the parent.
    fn create_target(_store: &Store, _ctx: &Ctx, attrs: &Raw) -> impl Future<Output = Result<Raw, Fault>> + Send {
        std::future::ready(Ok(attrs.clone()))
    }

    /// Rules below the level of one attribute (`create_port:fixed_ips:ip_address`).
    fn finer_rules(_call: &Call, _sent: &Value, _target: &Raw, _verb: Verb) -> Result<(), Fault> {
        Ok(())
    }

    fn create_in(tx: &mut Tx, ctx: &Ctx, attrs: &Raw) -> impl Future<Output = Result<Stored<Self>, Fault>> + Send;
    fn update_in(
        tx: &mut Tx,
        ctx: &Ctx,
        found: Stored<Self>,
        changes: &Raw,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
    fn delete_in(tx: &mut Tx, ctx: &Ctx, found: Stored<Self>) -> impl Future<Output = Result<(), Fault>> + Send;
}

pub async fn list<R: Api>(svc: Arc<Network>, call: Call) -> Reply {
    let parent = parent_of::<R>(&svc.store, &call).await;
    asked(&call);
    let parent = parent?;
    let items = match parent {
        Some(parent) => svc.store.list::<R>(find::below(parent.member, &parent.id)).await?,
        None => R::candidates(&svc.store, &call.ctx, &call.query).await?,
    };
    let raws = raws_for::<R>(&svc.store, &call.ctx, items).await?;
    list::list(&call, R::RESOURCE, raws)
}

/// What the path says of the parent.
struct Parent {
    member: &'static str,
    id: String,
    owner: String,
}

impl Parent {
    fn has(&self, raw: &Raw) -> bool {
        raw.get(self.member).and_then(Value::as_str) == Some(&self.id)
    }
}

async fn parent_of<R: Api>(store: &Store, call: &Call) -> Result<Option<Parent>, Fault> {
    let Some((param, member)) = R::PARENT else { return Ok(None) };
    let id = call.param(param).to_owned();
    // Some routes lead to it by its own id alone.
    if id.is_empty() {
        return Ok(None);
    }
    let owner = R::parent(store, &call.ctx, &id).await?;
    Ok(Some(Parent { member, id, owner }))
}

/// The record that the path names, below the parent that the path names.
async fn named<R: Api>(store: &Store, call: &Call) -> Result<Raw, Fault> {
    let id = R::record_id(call);
    let parent = parent_of::<R>(store, call).await?;
    let raw = raw_of::<R>(store, &call.ctx, &id).await?;
    if parent.is_some_and(|p| !p.has(&raw)) { Err(R::RESOURCE.not_found(&id)) } else { Ok(raw) }
}

pub async fn show<R: Api>(svc: Arc<Network>, call: Call) -> Reply {
    let raw = named::<R>(&svc.store, &call).await;
    asked(&call);
    list::show(&call, R::RESOURCE, &raw?)
}

/// A record that is not there is 404 before any rule can be asked about it: nothing is told.
fn asked(call: &Call) {
    let _ = call.may(call.rule(), &call.target());
}

/// Records with their relations, as the caller's project sees them.
pub async fn raws_for<R: Api>(store: &Store, ctx: &Ctx, items: Vec<Stored<R>>) -> Result<Vec<Raw>, Fault> {
    let mut raws = R::raws(store, items).await?;
    for raw in &mut raws {
        as_seen_by(raw, ctx.project_id());
    }
    Ok(raws)
}

/// The record with its relations, or its 404.
pub async fn raw_of<R: Api>(store: &Store, ctx: &Ctx, id: &str) -> Result<Raw, Fault> {
    let found = store.get::<R>(id).await?.ok_or_else(|| R::RESOURCE.not_found(id))?;
    raws_for::<R>(store, ctx, vec![found]).await?.pop().ok_or_else(|| R::RESOURCE.not_found(id))
}

/// 403 for the owner's own people and for whoever sees what is shared with all, 404 for all others, also where it is shared with
/// them alone: so Neutron does, and clients tell the two apart.
pub fn gate(call: &Call, res: &Resource, raw: &Raw) -> Result<(), Fault> {
    if call.authorize(raw).is_ok() {
        return Ok(());
    }
    let id = raw.get("id").and_then(Value::as_str).unwrap_or_default();
    let own = call.ctx.project_id();
    let owner = raw.get("project_id").and_then(Value::as_str).unwrap_or_default();
    let named = raw.get("shared_with").and_then(Value::as_array).is_some_and(|list| list.iter().any(|p| p == own));
    let open = !named && raw.get("shared") == Some(&Value::Bool(true));
    if (own.is_empty() || own == owner || open) && Permits::new(call).sees(res, raw) {
        return Err(fault::refused(call.rule()));
    }
    Err(res.not_found(id))
}

pub async fn create<R: Api>(svc: Arc<Network>, call: Call) -> Reply {
    let res = R::RESOURCE;
    let (members, bulk) = res.members(&call.body)?;
    let mut wanted = Vec::new();
    let parent = parent_of::<R>(&svc.store, &call).await;
    asked(&call);
    let parent = parent?;
    for member in &members {
        let mut attrs = res.parse(member, Verb::Create, call.ctx.project_id())?;
        for_own_project(&call.ctx, &attrs)?;
        if let Some(parent) = &parent {
            attrs.insert(parent.member.to_owned(), json!(parent.id));
            attrs.insert("project_id".to_owned(), json!(parent.owner));
        }
        // Whether the caller may act for that project is asked before anything is looked up.
        if attrs.get("project_id").and_then(Value::as_str) == Some("") && !call.caller().is_system() {
            return Err(Fault::bad_request("Running without keystone AuthN requires that project_id is specified"));
        }
        wanted.push(attrs);
    }
    let mut targets = Vec::new();
    for attrs in &wanted {
        targets.push(R::create_target(&svc.store, &call.ctx, attrs).await);
    }
    for (member, target) in members.iter().zip(targets) {
        asked(&call);
        let target = target?;
        call.authorize(&target).map_err(|_| fault::refused(call.rule()))?;
        res.authorize_attributes(&call, member, &target, Verb::Create)?;
        R::finer_rules(&call, member, &target, Verb::Create)?;
    }
    let made = write_all::<R>(&svc.store, &call.ctx, wanted).await?;
    let mut views: Vec<Value> = raws_for::<R>(&svc.store, &call.ctx, made)
        .await?
        .iter()
        .map(|raw| Value::Object(list::view(&call, res, raw)))
        .collect();
    if bulk {
        return Ok(Response::created(json!({ res.collection: views })));
    }
    Ok(Response::created(json!({ res.name: views.pop() })))
}

/// Who neither administers the cloud nor is one of its services names no other project: said before any rule is asked,
/// as clients know it from Neutron.
fn for_own_project(ctx: &Ctx, attrs: &Raw) -> Result<(), Fault> {
    match attrs.get("project_id").and_then(Value::as_str) {
        Some(owner) if owner != ctx.project_id() && !sees_all(ctx) => {}
        _ => return Ok(()),
    }
    Err(Fault::bad_request(
        "Specifying 'project_id' or 'tenant_id' other than the authenticated project is not allowed for the current user.",
    ))
}

async fn write_all<R: Api>(store: &Store, ctx: &Ctx, wanted: Vec<Raw>) -> Result<Vec<Stored<R>>, Fault> {
    let ctx = ctx.clone();
    store
        .write(move |tx| {
            let (ctx, wanted) = (ctx.clone(), wanted.clone());
            Box::pin(async move {
                let mut made = Vec::new();
                for attrs in &wanted {
                    made.push(R::create_in(tx, &ctx, attrs).await?);
                }
                Ok::<_, Fault>(made)
            })
        })
        .await
}

pub async fn update<R: Api>(svc: Arc<Network>, call: Call) -> Reply {
    let res = R::RESOURCE;
    let id = R::record_id(&call);
    let member = call
        .body
        .get(res.name)
        .ok_or_else(|| Fault::bad_request(format!("Unable to find '{}' in request body", res.name)))?;
    // What cannot be meant is said before anything is looked up: it tells nothing.
    let changes = res.parse(member, Verb::Update, "");
    let raw = named::<R>(&svc.store, &call).await;
    asked(&call);
    let changes = changes?;
    let raw = raw?;
    gate(&call, res, &raw)?;
    res.authorize_attributes(&call, member, &raw, Verb::Update)?;
    R::finer_rules(&call, member, &raw, Verb::Update)?;
    let revision = if_match(&call)?;
    let (ctx, key) = (call.ctx.clone(), id.clone());
    svc.store
        .write(move |tx| {
            let (ctx, id, changes) = (ctx.clone(), key.clone(), changes.clone());
            Box::pin(async move {
                let found = tx.get::<R>(&id).await?.ok_or_else(|| R::RESOURCE.not_found(&id))?;
                expect_revision(res, &id, revision, found.rev)?;
                R::update_in(tx, &ctx, found, &changes).await
            })
        })
        .await?;
    let raw = raw_of::<R>(&svc.store, &call.ctx, &id).await?;
    Ok(Response::ok(json!({ res.name: list::view(&call, res, &raw) })))
}

pub async fn delete<R: Api>(svc: Arc<Network>, call: Call) -> Reply {
    let res = R::RESOURCE;
    let id = R::record_id(&call);
    let raw = named::<R>(&svc.store, &call).await;
    asked(&call);
    gate(&call, res, &raw?)?;
    let revision = if_match(&call)?;
    let ctx = call.ctx.clone();
    svc.store
        .write(move |tx| {
            let (ctx, id) = (ctx.clone(), id.clone());
            Box::pin(async move {
                let found = tx.get::<R>(&id).await?.ok_or_else(|| R::RESOURCE.not_found(&id))?;
                expect_revision(res, &id, revision, found.rev)?;
                R::delete_in(tx, &ctx, found).await
            })
        })
        .await?;
    Ok(Response::no_content())
}

/// `If-Match: revision_number=7`
fn if_match(call: &Call) -> Result<Option<i64>, Fault> {
    let Some(text) = call.header("if-match") else { return Ok(None) };
    let number = text.trim().strip_prefix("revision_number=").and_then(|n| n.parse().ok());
    number.map(Some).ok_or_else(|| {
        fault::bad(
            "InvalidInput",
            format!("Invalid input for operation: Invalid match: {text}. Expected revision_number=<n>."),
        )
    })
}

fn expect_revision(res: &Resource, id: &str, wanted: Option<i64>, found: i64) -> Result<(), Fault> {
    match wanted {
        Some(wanted) if wanted != found => Err(Fault::new(
            412,
            format!("Constrained to {wanted}, but current revision of {} {id} is {found}", res.name),
        )
        .kind("RevisionNumberConstraintFailed")),
        _ => Ok(()),
    }
}
