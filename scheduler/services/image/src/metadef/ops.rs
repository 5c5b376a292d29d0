//! The verbs on metadata definitions; the only writer of their records.
use super::model::Namespace;
use pilvi_kit::{Ctx, Fault, Target};
use pilvi_store::{Query, Store, Stored};

fn missing(name: &str) -> Fault {
    Fault::not_found(format!("The metadata definition namespace={name} was not found."))
}

pub fn sees(ctx: &Ctx, namespace: &Namespace) -> bool {
    namespace.public || ctx.caller.has_role("admin") || Some(namespace.owner.as_str()) == ctx.caller.project_id()
}

/// What rules look at.
pub fn target(namespace: &Namespace) -> Target {
    let mut target = pilvi_kit::call::owned_by(&namespace.owner);
    target.insert("visibility".into(), super::view::visibility(namespace.public).into());
    target
}

/// A namespace that the caller may see.
pub async fn visible(store: &Store, ctx: &Ctx, name: &str) -> Result<Stored<Namespace>, Fault> {
    store.get::<Namespace>(name).await?.filter(|n| sees(ctx, n)).ok_or_else(|| missing(name))
}

pub async fn all(store: &Store) -> Result<Vec<Stored<Namespace>>, Fault> {
    Ok(store.list::<Namespace>(Query::all()).await?)
}

pub async fn create(store: &Store, namespace: Namespace) -> Result<Stored<Namespace>, Fault> {
    store
        .write(move |tx| {
            let namespace = namespace.clone();
            Box::pin(async move {
                if tx.get::<Namespace>(&namespace.name).await?.is_some() {
                    return Err(Fault::conflict(format!(
                        "The metadata definition namespace={} already exists.",
                        namespace.name
                    )));
                }
                Ok(tx.insert(&namespace).await?)
            })
        })
        .await
}

/// Changes a namespace by a pure function, which may refuse. A new name moves it.
pub async fn change<F>(store: &Store, name: &str, change: F) -> Result<Stored<Namespace>, Fault>
where
    F: Fn(&mut Namespace) -> Result<(), Fault> + Send + Sync + Clone + 'static,
{
    let name = name.to_owned();
    store
        .write(move |tx| {
            let (name, change) = (name.clone(), change.clone());
            Box::pin(async move {
                let mut stored = tx.get::<Namespace>(&name).await?.ok_or_else(|| missing(&name))?;
                change(&mut stored.record)?;
                if stored.record.name == name {
                    return Ok(tx.update(&stored).await?);
                }
                tx.delete::<Namespace>(&name).await?;
                Ok::<_, Fault>(tx.insert(&stored.record).await?)
            })
        })
        .await
}

pub async fn delete(store: &Store, name: &str) -> Result<(), Fault> {
    let name = name.to_owned();
    store
        .write(move |tx| {
            let name = name.clone();
            Box::pin(async move {
                let stored = tx.get::<Namespace>(&name).await?.ok_or_else(|| missing(&name))?;
                if stored.record.protected {
                    return Err(Fault::forbidden(format!(
                        "Metadata definition namespace {name} is protected and cannot be deleted."
                    )));
                }
                tx.delete::<Namespace>(&name).await?;
                Ok(())
            })
        })
        .await
}
