//! The verbs on tasks; the only writer of their records.
use super::model::{Status, Task};
use crate::tables;
use pilvi_kit::{Fault, clock};
use pilvi_store::{Query, Store, Stored};

/// How long the tasks of images stay after they ended: two days, as elsewhere.
pub const KEPT_US: i64 = 48 * 3_600 * 1_000_000;

pub async fn add(store: &Store, task: Task) -> Result<Stored<Task>, Fault> {
    store
        .write(move |tx| {
            let task = task.clone();
            Box::pin(async move { Ok::<_, Fault>(tx.insert(&task).await?) })
        })
        .await
}

/// The task has come further; a task whose image was deleted is gone, which is fine.
pub async fn advance(store: &Store, id: &str, status: Status, message: &str) -> Result<(), Fault> {
    let (id, message) = (id.to_owned(), message.to_owned());
    store
        .write(move |tx| {
            let (id, message) = (id.clone(), message.clone());
            Box::pin(async move {
                if let Some(mut stored) = tx.get::<Task>(&id).await? {
                    (stored.record.status, stored.record.message) = (status, message);
                    stored.record.ended_us = status.ended().then(clock::now_us);
                    tx.update(&stored).await?;
                }
                Ok::<_, Fault>(())
            })
        })
        .await
}

/// Removes tasks that ended long ago.
pub async fn expire(store: &Store) -> Result<(), Fault> {
    let before = clock::now_us() - KEPT_US;
    store
        .write(move |tx| {
            Box::pin(async move {
                for old in tx.list::<Task>(Query::all().lt("updated", before)).await? {
                    if old.record.status.ended() {
                        tx.delete::<Task>(&old.record.id).await?;
                    }
                }
                Ok::<_, Fault>(())
            })
        })
        .await
}

pub async fn of_image(store: &Store, image: &str) -> Result<Vec<Stored<Task>>, Fault> {
    Ok(store.list::<Task>(tables::tasks_of(image)).await?)
}

pub async fn all(store: &Store) -> Result<Vec<Stored<Task>>, Fault> {
    Ok(store.list::<Task>(Query::all()).await?)
}

pub async fn get(store: &Store, id: &str) -> Result<Stored<Task>, Fault> {
    store.get::<Task>(id).await?.ok_or_else(|| Fault::not_found(format!("No task found with ID {id}")))
}
