//! The verbs on tasks; the only writer of their records.
use super::model::{Status, Task};
use crate::tables;
use pilvi_kit::{Fault, clock, fetch::Progress};
use pilvi_store::{Query, Store, Stored};
use serde_json::Value;

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

/// Changes a task; a task whose image was deleted is gone, which is fine.
async fn change<F>(store: &Store, id: &str, change: F) -> Result<(), Fault>
where
    F: Fn(&mut Task) + Send + Sync + Clone + 'static,
{
    let id = id.to_owned();
    store
        .write(move |tx| {
            let (id, change) = (id.clone(), change.clone());
            Box::pin(async move {
                if let Some(mut stored) = tx.get::<Task>(&id).await? {
                    change(&mut stored.record);
                    tx.update(&stored).await?;
                }
                Ok::<_, Fault>(())
            })
        })
        .await
}

/// The task has come further. One that has ended stays as it is.
pub async fn advance(
    store: &Store,
    id: &str,
    status: Status,
    message: &str,
    result: Option<Value>,
) -> Result<(), Fault> {
    let message = message.to_owned();
    change(store, id, move |task| {
        if task.status.ended() {
            return;
        }
        if status.ended() {
            task.end(status, &message, result.clone(), clock::now_us());
        } else {
            (task.status, task.message) = (status, message.clone());
        }
    })
    .await
}

/// The task is alive.
pub async fn touch(store: &Store, id: &str) -> Result<(), Fault> {
    change(store, id, |_| {}).await
}

/// So many bytes of a download are here for good.
pub async fn checkpoint(store: &Store, id: &str, progress: &Progress) -> Result<(), Fault> {
    let progress = progress.clone();
    change(store, id, move |task| {
        task.message = format!("Copied {} MiB", progress.have >> 20);
        task.resume = Some(progress.clone());
    })
    .await
}

/// How far the download of a task was.
pub async fn progress(store: &Store, id: &str) -> Result<Option<Progress>, Fault> {
    Ok(store.get::<Task>(id).await?.and_then(|task| task.record.resume))
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
