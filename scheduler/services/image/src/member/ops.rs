//! The verbs on members; the only writer of their records.
use super::model::{Acceptance, Member, key};
use crate::{image, tables};
use pilvi_kit::Fault;
use pilvi_store::{Store, Stored, Tx};

/// Members of one image at most.
const MEMBERS_MAX: u64 = 128;

pub async fn find(store: &Store, image: &str, project: &str) -> Result<Option<Stored<Member>>, Fault> {
    if project.is_empty() {
        return Ok(None);
    }
    Ok(store.get::<Member>(&key(image, project)).await?)
}

pub async fn of_image(store: &Store, image: &str) -> Result<Vec<Stored<Member>>, Fault> {
    Ok(store.list::<Member>(tables::members_of(image)).await?)
}

/// What is shared with a project.
pub async fn of_project(store: &Store, project: &str) -> Result<Vec<Stored<Member>>, Fault> {
    if project.is_empty() {
        return Ok(Vec::new());
    }
    Ok(store.list::<Member>(tables::shared_with(project)).await?)
}

pub async fn add(store: &Store, image: &str, project: &str) -> Result<Stored<Member>, Fault> {
    let member = Member::new(image, project);
    store
        .write(move |tx| {
            let member = member.clone();
            Box::pin(async move {
                image::ops::get_any_in(tx, &member.image_id).await?;
                if tx.get::<Member>(&member.id).await?.is_some() {
                    return Err(Fault::conflict(format!(
                        "Member {} is duplicated for image {}",
                        member.member_id, member.image_id
                    )));
                }
                if tx.count::<Member>(tables::members_of(&member.image_id)).await? >= MEMBERS_MAX {
                    return Err(Fault::too_large(format!(
                        "Image member limit exceeded for image {}: at most {MEMBERS_MAX}",
                        member.image_id
                    )));
                }
                Ok(tx.insert(&member).await?)
            })
        })
        .await
}

pub fn unknown(image: &str, project: &str) -> Fault {
    Fault::not_found(format!("{project} not found in the member list of the image {image}."))
}

pub async fn answer(store: &Store, image: &str, project: &str, status: Acceptance) -> Result<Stored<Member>, Fault> {
    let (image, project) = (image.to_owned(), project.to_owned());
    store
        .write(move |tx| {
            let (image, project) = (image.clone(), project.clone());
            Box::pin(async move {
                let mut stored =
                    tx.get::<Member>(&key(&image, &project)).await?.ok_or_else(|| unknown(&image, &project))?;
                stored.record.status = status;
                Ok::<_, Fault>(tx.update(&stored).await?)
            })
        })
        .await
}

pub async fn remove(store: &Store, image: &str, project: &str) -> Result<(), Fault> {
    let (image, project) = (image.to_owned(), project.to_owned());
    store
        .write(move |tx| {
            let (image, project) = (image.clone(), project.clone());
            Box::pin(async move {
                if tx.delete::<Member>(&key(&image, &project)).await? { Ok(()) } else { Err(unknown(&image, &project)) }
            })
        })
        .await
}

/// The image goes: so do its members.
pub(crate) async fn forget_in(tx: &mut Tx, image: &str) -> Result<(), Fault> {
    for member in tx.list::<Member>(tables::members_of(image)).await? {
        tx.delete::<Member>(&member.record.id).await?;
    }
    Ok(())
}
