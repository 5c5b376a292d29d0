//! What compute does with volumes, in transactions of its own.
use super::{Rig, ctx};
use crate::{
    attachment::ops::{self as attachments, Claim},
    snapshot::ops as snapshots,
    volume::{model::Status, ops},
};

/// A step of compute's, in one transaction.
macro_rules! step {
    ($rig:expr, ($($name:ident),*), |$tx:ident| $work:expr) => {{
        $(let $name = $name.clone();)*
        $rig.svc.write(($($name,)*), |$tx, ($($name,)*)| Box::pin(async move { $work })).await
    }};
}

#[tokio::test]
async fn a_server_boots_of_a_volume_that_is_made_for_it_and_goes_with_it() {
    let rig = Rig::new().await;
    let (ctx, svc) = (ctx(&rig.alice), rig.svc.clone());
    let made = step!(rig, (ctx, svc), |tx| {
        let new = ops::NewVolume { size_gib: 3, host: Some("h1".into()), ..Default::default() };
        let volume = ops::create_in(tx, &svc, &ctx, new).await?;
        let claim = Claim {
            volume_id: volume.record.id.clone(),
            server_id: "s1".into(),
            host: Some("h1".into()),
            device: Some("/dev/vda".into()),
            ..Claim::default()
        };
        let attachment = attachments::attach_in(tx, &ctx, claim).await?;
        Ok((volume.record.id, attachment.record.id))
    })
    .unwrap();
    let (volume, attachment) = made;
    assert_eq!((rig.taken("h1").await, rig.record(&volume).await.status), (3, Status::Creating));
    rig.host_does(&volume).await;
    assert_eq!(rig.record(&volume).await.status, Status::InUse);
    let host = step!(rig, (volume), |tx| ops::host_of_in(tx, &volume).await).unwrap();
    assert_eq!(host.as_deref(), Some("h1"));
    step!(rig, (attachment), |tx| attachments::detach_in(tx, &attachment, true).await).unwrap();
    assert_eq!(rig.record(&volume).await.status, Status::Deleting);
    rig.svc.release(&volume).await.unwrap();
    assert_eq!(rig.taken("h1").await, 0);
}

#[tokio::test]
async fn an_attached_volume_is_nobody_else_s_until_it_is_detached() {
    let rig = Rig::new().await;
    let volume = rig.volume(&rig.alice, serde_json::json!({})).await;
    let ctx = ctx(&rig.alice);
    let claim = Claim { volume_id: volume.clone(), server_id: "s1".into(), ..Claim::default() };
    let attachment =
        step!(rig, (ctx, claim), |tx| Ok(attachments::attach_in(tx, &ctx, claim).await?.record.id)).unwrap();
    assert_eq!(rig.record(&volume).await.status, Status::Reserved);
    let other = Claim { server_id: "s2".into(), ..claim.clone() };
    let refused = step!(rig, (ctx, other), |tx| attachments::attach_in(tx, &ctx, other).await).unwrap_err();
    assert_eq!((refused.code(), refused.kind.as_ref()), (400, "InvalidVolume"));
    step!(rig, (attachment), |tx| attachments::place_in(tx, &attachment, "h1", "/dev/vdb").await).unwrap();
    assert_eq!(rig.record(&volume).await.status, Status::InUse);
    let busy = step!(rig, (volume, ctx), |tx| {
        let _ = &ctx;
        let volume = ops::get_in(tx, &volume).await?;
        ops::begin_delete_in(tx, volume, Default::default()).await
    });
    assert_eq!(busy.unwrap_err().code(), 400);
    step!(rig, (volume), |tx| attachments::begin_detaching_in(tx, &volume).await).unwrap();
    assert_eq!(rig.record(&volume).await.status, Status::Detaching);
    step!(rig, (volume), |tx| attachments::roll_detaching_in(tx, &volume).await).unwrap();
    step!(rig, (attachment), |tx| attachments::detach_in(tx, &attachment, false).await).unwrap();
    assert_eq!(rig.record(&volume).await.status, Status::Available);
    let missing = Claim { volume_id: pilvi_kit::id::new(), ..claim };
    let refused = step!(rig, (ctx, missing), |tx| attachments::attach_in(tx, &ctx, missing).await).unwrap_err();
    assert_eq!((refused.code(), refused.kind.as_ref()), (404, "VolumeNotFound"));
}

#[tokio::test]
async fn snapshots_are_taken_of_volumes_in_use_by_force_and_go_when_the_host_has_them_no_more() {
    let rig = Rig::new().await;
    let volume = rig.volume(&rig.alice, serde_json::json!({})).await;
    let ctx = ctx(&rig.alice);
    let claim =
        Claim { volume_id: volume.clone(), server_id: "s1".into(), host: Some("h1".into()), ..Claim::default() };
    step!(rig, (ctx, claim), |tx| attachments::attach_in(tx, &ctx, claim).await).unwrap();
    let refused = step!(rig, (ctx, volume), |tx| snapshots::create_in(tx, &ctx, &volume, None, false).await);
    assert_eq!(refused.unwrap_err().code(), 400);
    let taken = step!(rig, (ctx, volume), |tx| snapshots::create_in(tx, &ctx, &volume, None, true).await).unwrap();
    let id = taken.record.id;
    rig.host_does(&volume).await;
    let now = snapshots::visible(&rig.svc.store, &ctx, &id).await.unwrap();
    assert_eq!((now.status.as_str(), now.progress.as_str()), ("available", "100%"));
    step!(rig, (ctx, id), |tx| snapshots::delete_in(tx, &ctx, &id).await).unwrap();
    assert_eq!(snapshots::visible(&rig.svc.store, &ctx, &id).await.unwrap().status.as_str(), "deleting");
    rig.host_does(&volume).await;
    assert_eq!(snapshots::visible(&rig.svc.store, &ctx, &id).await.unwrap_err().code(), 404);
}
