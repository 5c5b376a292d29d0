//! Which images a server can be made of.
use super::{Rig, ctx};
use pilvi_image::image::{
    model::{Image, Status},
    ops,
};

#[tokio::test]
async fn servers_are_made_of_disks_that_hosts_run() {
    let rig = Rig::new().await;
    let cases = [
        ("raw", "bare", true),
        ("qcow2", "bare", true),
        ("iso", "bare", true),
        ("aki", "aki", true),
        ("vmdk", "bare", true),
        ("vhdx", "bare", true),
        ("ploop", "bare", false),
        ("raw", "docker", false),
        ("qcow2", "compressed", false),
    ];
    for (disk, container, runs) in cases {
        let mut image = Image::new(pilvi_kit::id::new(), Some("alice".into()));
        image.status = Status::Active;
        (image.disk_format, image.container_format) = (Some(disk.into()), Some(container.into()));
        let id = ops::create(&rig.svc.store, image).await.unwrap().record.id;
        match rig.svc.image_copy(&ctx(&rig.alice), &id).await {
            Ok(copy) => assert!(runs, "{disk} in {container}: {}", copy.id),
            Err(fault) => assert!(!runs && fault.code() == 400, "{disk} in {container}: {fault}"),
        }
    }
}
