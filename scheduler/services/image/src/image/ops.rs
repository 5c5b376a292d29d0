//! The verbs on images; the only writer of their records.
use super::{
    filter::Filter,
    model::{Event, Image, Location, Status, Visibility},
    view,
};
use crate::{
    fault,
    member::{self, model::Acceptance},
    store::object,
    tables,
    task::model::Task,
};
use pilvi_kit::{Ctx, Fault, Target};
use pilvi_store::{Query, Store, Stored, Tx};
use std::collections::BTreeMap;

/// An image that the caller may see; 404 when it does not exist or is none of the caller's business.
pub async fn visible(store: &Store, ctx: &Ctx, id: &str) -> Result<Stored<Image>, Fault> {
    let found = get_any(store, id).await?;
    if sees(store, ctx, &found).await? { Ok(found) } else { Err(fault::no_image(id)) }
}

/// An image, whoever asks; 404 when there is none.
pub async fn get_any(store: &Store, id: &str) -> Result<Stored<Image>, Fault> {
    store.get::<Image>(id).await?.ok_or_else(|| fault::no_image(id))
}

pub async fn get_any_in(tx: &mut Tx, id: &str) -> Result<Stored<Image>, Fault> {
    tx.get::<Image>(id).await?.ok_or_else(|| fault::no_image(id))
}

fn is_admin(ctx: &Ctx) -> bool {
    ctx.caller.has_role("admin")
}

/// Is it the caller's, or the caller an administrator?
pub fn owns(ctx: &Ctx, image: &Image) -> bool {
    is_admin(ctx) || (image.owner.is_some() && image.owner.as_deref() == ctx.caller.project_id())
}

async fn sees(store: &Store, ctx: &Ctx, image: &Image) -> Result<bool, Fault> {
    if owns(ctx, image) || matches!(image.visibility, Visibility::Public | Visibility::Community) {
        return Ok(true);
    }
    Ok(image.visibility == Visibility::Shared && member::ops::find(store, &image.id, ctx.project_id()).await?.is_some())
}

/// What rules look at.
pub async fn target(store: &Store, ctx: &Ctx, image: &Image) -> Result<Target, Fault> {
    let mut target = Target::new();
    target.insert("project_id".into(), image.owner.clone().into());
    target.insert("owner".into(), image.owner.clone().into());
    target.insert("visibility".into(), image.visibility.as_str().into());
    if image.visibility == Visibility::Shared
        && !owns(ctx, image)
        && member::ops::find(store, &image.id, ctx.project_id()).await?.is_some()
    {
        target.insert("member_id".into(), ctx.project_id().into());
    }
    Ok(target)
}

/// Which of the images that others own a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    All,
    Only(Acceptance),
}

/// Which visibility a list asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nothing said: all but other people's community images.
    Usual,
    All,
    Only(Visibility),
}

/// Which images the caller sees, of those that are asked for.
async fn seen(store: &Store, ctx: &Ctx, asked: Asked, shared: Shared) -> Result<Query, Fault> {
    let all = Query::all;
    let own = all().eq("project", ctx.caller.project_id().filter(|p| !p.is_empty()).unwrap_or(NOBODY));
    if is_admin(ctx) {
        return Ok(match asked {
            Asked::Usual => all().any_of([own, tables::not_seen_as(Visibility::Community)]),
            Asked::All => all(),
            Asked::Only(visibility) => tables::seen_as(visibility),
        });
    }
    let mut memberships = member::ops::of_project(store, ctx.project_id()).await?;
    memberships.retain(|m| shared == Shared::All || shared == Shared::Only(m.record.status));
    let ids: Vec<String> = memberships.into_iter().map(|m| m.record.image_id).collect();
    let with_me = || tables::seen_as(Visibility::Shared).ids(ids.clone());
    let public = || tables::seen_as(Visibility::Public);
    Ok(match asked {
        Asked::Usual => all().any_of([own, public(), with_me()]),
        Asked::All => all().any_of([own, public(), tables::seen_as(Visibility::Community), with_me()]),
        Asked::Only(v @ (Visibility::Public | Visibility::Community)) => tables::seen_as(v),
        Asked::Only(Visibility::Private) => all().any_of([own]).any_of([tables::seen_as(Visibility::Private)]),
        Asked::Only(Visibility::Shared) => all().any_of([own, with_me()]).any_of([tables::seen_as(Visibility::Shared)]),
    })
}

/// Owns nothing.
const NOBODY: &str = "\u{1}";

/// Images the caller sees, unordered.
pub async fn list(store: &Store, ctx: &Ctx, asked: Asked, shared: Shared) -> Result<Vec<Stored<Image>>, Fault> {
    Ok(store.list::<Image>(seen(store, ctx, asked, shared).await?).await?)
}

/// A page of the images that the caller sees and asks for, and whether more follow.
pub async fn page(store: &Store, ctx: &Ctx, filter: Filter) -> Result<(Vec<Stored<Image>>, bool), Fault> {
    let limit = filter.page.limit.unwrap_or(usize::MAX - 1);
    let seen = seen(store, ctx, filter.asked, filter.shared).await?;
    let mut query = filter.query.any_of([seen]).limit(limit + 1);
    if let Some(marker) = &filter.page.marker {
        visible(store, ctx, marker).await.map_err(|fault| match fault.code() {
            404 => Fault::bad_request(format!("Invalid marker. Image {marker} could not be found.")),
            _ => fault,
        })?;
        query = query.after_marker(marker);
    }
    let mut found = store.list::<Image>(query).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    Ok((found, more))
}

/// Keeps of properties that another service sets those that an image can have: a name with a meaning of its own is
/// none. 413 when they are too many.
pub fn set_properties(image: &mut Image, properties: BTreeMap<String, String>) -> Result<(), Fault> {
    let fits = |name: &String| view::check_name(name).is_ok() && !view::BASE.contains(&name.as_str());
    image.properties = properties.into_iter().filter(|(name, _)| fits(name)).map(|(k, v)| (k, Some(v))).collect();
    let max = view::PROPERTIES_MAX;
    if image.properties.len() > max {
        return Err(Fault::too_large(format!("An image has at most {max} properties.")));
    }
    Ok(())
}

pub async fn create(store: &Store, image: Image) -> Result<Stored<Image>, Fault> {
    store
        .write(move |tx| {
            let image = image.clone();
            Box::pin(async move { create_in(tx, &image).await })
        })
        .await
}

pub async fn create_in(tx: &mut Tx, image: &Image) -> Result<Stored<Image>, Fault> {
    if tx.get::<Image>(&image.id).await?.is_some() {
        return Err(Fault::conflict(format!("Image ID {} already exists!", image.id)));
    }
    Ok(tx.insert(image).await?)
}

/// Changes an image by a pure function, which may refuse. Objects that it names no more are doomed; who begins to work on
/// its data is written down.
pub async fn change<F>(store: &Store, id: &str, change: F) -> Result<Stored<Image>, Fault>
where
    F: Fn(&mut Image) -> Result<(), Fault> + Send + Sync + Clone + 'static,
{
    let (id, author) = (id.to_owned(), store.author().map(|author| author.id));
    store
        .write(move |tx| {
            let (id, author, change) = (id.clone(), author.clone(), change.clone());
            Box::pin(async move {
                let mut stored = get_any_in(tx, &id).await?;
                let before = stored.record.clone();
                change(&mut stored.record)?;
                object::doom_in(tx, &dropped(&before, &stored.record)).await?;
                stored.record.note_worker(&before, author.as_deref());
                if stored.record == before { Ok(stored) } else { Ok(tx.update(&stored).await?) }
            })
        })
        .await
}

/// Objects that the image named before and does not now.
pub fn dropped(before: &Image, after: &Image) -> Vec<Location> {
    let is_left = |l: &&Location| after.locations.iter().any(|other| (&other.store, &other.key) == (&l.store, &l.key));
    before.locations.iter().filter(|l| !is_left(l)).cloned().collect()
}

/// Takes the copy in one store away from an image that has others; gives what is to be removed.
pub async fn drop_copy(store: &Store, id: &str, from: &str) -> Result<Vec<Location>, Fault> {
    let (image, store_id) = (id.to_owned(), from.to_owned());
    let before = get_any(store, id).await?;
    let after = change(store, id, move |record| {
        if record.status != Status::Active {
            return Err(Fault::conflict(
                "It's not allowed to remove image data from store if image status is not 'active'",
            ));
        }
        let at = record.locations.iter().position(|l| l.store == store_id);
        if record.locations.len() == 1 {
            return Err(Fault::forbidden(
                "Cannot delete image data from the only store containing it. Consider deleting the image instead.",
            ));
        }
        let at = at.ok_or_else(|| Fault::not_found(format!("Image {image} is not stored in store {store_id}.")))?;
        record.locations.remove(at);
        Ok(())
    })
    .await?;
    Ok(dropped(&before, &after))
}

/// Runs work on images' data so that nothing of it is kept once this scheduler was declared dead, and others have
/// settled what it was doing.
pub async fn as_author<T>(store: &Store, work: impl Future<Output = T>) -> T {
    match store.author() {
        Some(author) => pilvi_store::under(author.guard, work).await,
        None => work.await,
    }
}

/// Moves an image to its next state, filling in what is known then; 409 where that is not allowed, and where another
/// scheduler has taken over the work that would end so.
pub async fn step<F>(store: &Store, id: &str, event: Event, fill: F) -> Result<Stored<Image>, Fault>
where
    F: Fn(&mut Image) + Send + Sync + Clone + 'static,
{
    let me = store.author().map(|author| author.id);
    let stepped = change(store, id, move |image| {
        let next = image.status.next(event).ok_or_else(|| refused(image.status, event))?;
        let ends = matches!(event, Event::Complete | Event::Fail);
        if ends && image.is_worked_on_by(|worker| Some(worker) != me.as_deref()) {
            return Err(Fault::conflict(format!("Another scheduler works on the data of image {}.", image.id)));
        }
        image.status = next;
        fill(image);
        Ok(())
    });
    as_author(store, stepped).await
}

/// Queues an image again whose data a scheduler that is no more was working on.
pub async fn abandon<F>(store: &Store, id: &str, fill: F) -> Result<Stored<Image>, Fault>
where
    F: Fn(&mut Image) + Send + Sync + Clone + 'static,
{
    change(store, id, move |image| {
        image.status = image.status.next(Event::Fail).ok_or_else(|| refused(image.status, Event::Fail))?;
        fill(image);
        Ok(())
    })
    .await
}

/// Does another scheduler work on the image's data? Who does not know must not touch it.
pub async fn is_anothers(store: &Store, id: &str) -> bool {
    let me = store.author().map(|author| author.id);
    match store.get::<Image>(id).await {
        Ok(now) => now.is_some_and(|image| image.is_worked_on_by(|worker| Some(worker) != me.as_deref())),
        Err(_) => true,
    }
}

/// Are these objects nobody's: not named by the image, and not what another scheduler works on?
pub async fn is_orphan(store: &Store, id: &str, objects: &[Location]) -> bool {
    let me = store.author().map(|author| author.id);
    match store.get::<Image>(id).await {
        Ok(None) => true,
        Ok(Some(now)) => {
            let named = now.locations.iter().any(|l| objects.iter().any(|o| (&o.store, &o.key) == (&l.store, &l.key)));
            !named && !now.is_worked_on_by(|worker| Some(worker) != me.as_deref())
        }
        Err(_) => false,
    }
}

fn refused(from: Status, event: Event) -> Fault {
    let to = match event {
        Event::UploadBegins => "saving",
        Event::StageBegins => "uploading",
        Event::ImportBegins => "importing",
        Event::Complete | Event::Reactivate => "active",
        Event::Fail => "queued",
        Event::Deactivate => "deactivated",
    };
    let text = format!("Image status transition from {} to {to} is not allowed", from.as_str());
    match event {
        Event::Deactivate | Event::Reactivate => Fault::forbidden(text),
        _ => Fault::conflict(text),
    }
}

/// Bytes that all images of a project have together.
pub async fn stored_by(store: &Store, project: &str) -> Result<u64, Fault> {
    let sum = store.sum::<Image>(tables::SIZE, Query::all().project(project)).await?;
    Ok(u64::try_from(sum).unwrap_or(0))
}

/// Removes an image with its members and tasks; its bytes are the caller's business. Gives it as it was.
pub async fn delete(store: &Store, id: &str) -> Result<Image, Fault> {
    let id = id.to_owned();
    store
        .write(move |tx| {
            let id = id.clone();
            Box::pin(async move {
                let stored = get_any_in(tx, &id).await?;
                if stored.record.protected {
                    return Err(Fault::forbidden(format!("Image {id} is protected and cannot be deleted.")));
                }
                member::ops::forget_in(tx, &id).await?;
                for task in tx.list::<Task>(tables::tasks_of(&id)).await? {
                    tx.delete::<Task>(&task.record.id).await?;
                }
                tx.delete::<Image>(&id).await?;
                object::doom_in(tx, &stored.record.locations).await?;
                Ok(stored.record)
            })
        })
        .await
}
