//! Root disks that become images: from the wanted set to the bytes at the scheduler.
use crate::guest;
use crate::life::{Agent, ONE, instance};
use crate::scheduler::Scheduler;
use pilvi_agent::Config;
use pilvi_agent::runtime::Kind;
use pilvi_agent_api::v1::*;
use pilvi_disk::samples::unpack;
use std::path::Path;
use std::time::Duration;
use tonic::Status;

/// Wants the disk to become an image. The instance's generation stays, as the scheduler leaves it.
fn take(scheduler: &Scheduler, image: &str) {
    scheduler.want(|wanted| wanted.instances[0].snapshot = Some(Snapshot { image_id: image.into() }));
}

async fn until_stage(scheduler: &Scheduler, image: &str, stage: SnapshotStage) -> ObservedInstance {
    let is = |seen: &ObservedInstance| {
        seen.settled && seen.snapshot.as_ref().is_some_and(|s| s.image_id == image && s.stage() == stage)
    };
    scheduler.until_instance(ONE, stage.as_str_name(), is).await
}

/// What the last upload holds when it is opened.
fn unpacked(scheduler: &Scheduler, dir: &Path, image: &str) -> Vec<u8> {
    let uploads = scheduler.state.uploads.borrow().clone();
    let (id, bytes) = uploads.last().unwrap();
    assert_eq!(id, image);
    let (packed, raw) = (dir.join("packed"), dir.join("unpacked"));
    std::fs::write(&packed, bytes).unwrap();
    // It blocks, and has a runtime of its own.
    let (from, to) = (packed, raw.clone());
    std::thread::spawn(move || unpack(&from, &to)).join().unwrap().unwrap();
    std::fs::read(raw).unwrap()
}

fn with_disk(scheduler: &Scheduler, bytes: Vec<u8>) -> Instance {
    let image = scheduler.image("base", bytes);
    Instance { disks: vec![Disk { id: "root".into(), image: Some(image), ..Disk::default() }], ..instance(ONE) }
}

async fn until_swept(agent: &Agent) {
    for _ in 0..200 {
        if !agent.folder(ONE).join("snapshot").exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the copy is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_every_power_state_a_disk_becomes_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let agent = Agent::start(scheduler.config(dir.path()));
    let mut bytes = vec![0; 4 << 20];
    bytes[1 << 20..][..5].copy_from_slice(b"mine!");
    let server = with_disk(&scheduler, bytes.clone());
    scheduler.want(|wanted| wanted.instances = vec![server]);
    let mut pid = scheduler.until_settled(ONE, Power::Running).await.pid;
    for (number, power) in [Power::Running, Power::Paused, Power::Suspended, Power::Stopped].into_iter().enumerate() {
        scheduler.change(ONE, |instance| instance.power = power.into());
        let before = scheduler.until_settled(ONE, power).await;
        if power == Power::Running {
            assert_eq!(before.pid, pid);
        }
        pid = before.pid;
        let image = format!("image-{number}");
        take(&scheduler, &image);
        let seen = until_stage(&scheduler, &image, SnapshotStage::SnapshotDone).await;
        assert_eq!((seen.power(), seen.pid, seen.error.as_str()), (power, pid, ""));
        assert!(unpacked(&scheduler, dir.path(), &image) == bytes);
        assert!(scheduler.state.uploads.borrow().last().unwrap().1.len() < 1 << 20, "zeroes were sent");
        until_swept(&agent).await;
    }
    // Once done it is never done again, also not by an agent that was restarted.
    let count = scheduler.state.uploads.borrow().len();
    scheduler.want(|wanted| wanted.instances[0].name = "other".into());
    scheduler.until_settled(ONE, Power::Stopped).await;
    assert_eq!(scheduler.state.uploads.borrow().len(), count);
    scheduler.want(|wanted| wanted.instances.clear());
    scheduler.until_gone(ONE).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_after_trouble_and_ends_when_it_is_not_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let mut agent = Agent::start(scheduler.config(dir.path()));
    let server = with_disk(&scheduler, vec![9; 70_000]);
    scheduler.want(|wanted| wanted.instances = vec![server]);
    scheduler.until_settled(ONE, Power::Running).await;
    // Busy, then the agent is gone and back: the copy from before is sent, not what the disk holds now.
    *scheduler.state.refusals.lock().unwrap() = vec![Status::unavailable("later"); 1000];
    take(&scheduler, "late");
    until_stage(&scheduler, "late", SnapshotStage::SnapshotUploading).await;
    agent.stop().await;
    std::fs::write(agent.folder(ONE).join("disks/root"), vec![1; 70_000]).unwrap();
    scheduler.state.refusals.lock().unwrap().clear();
    agent.again();
    until_stage(&scheduler, "late", SnapshotStage::SnapshotDone).await;
    assert!(unpacked(&scheduler, dir.path(), "late").starts_with(&[9; 70_000]));
    for (image, refusal, stage) in [
        ("gone", Status::not_found("deleted"), SnapshotStage::SnapshotGone),
        ("large", Status::failed_precondition("too large"), SnapshotStage::SnapshotFailed),
    ] {
        *scheduler.state.refusals.lock().unwrap() = vec![refusal];
        take(&scheduler, image);
        let seen = until_stage(&scheduler, image, stage).await;
        assert_eq!((seen.power(), seen.error.as_str()), (Power::Running, ""), "the instance is well");
        assert_eq!(seen.snapshot.unwrap().error.contains("too large"), image == "large");
        until_swept(&agent).await;
    }
    *scheduler.state.refusals.lock().unwrap() = vec![Status::unavailable("later"); 1000];
    take(&scheduler, "dropped");
    until_stage(&scheduler, "dropped", SnapshotStage::SnapshotUploading).await;
    scheduler.want(|wanted| wanted.instances[0].snapshot = None);
    until_swept(&agent).await;
    scheduler.want(|wanted| wanted.instances.clear());
    scheduler.until_gone(ONE).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qemu_guest_runs_on() {
    if !guest::qemu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let agent = Agent::start(Config { runtimes: vec![Kind::Qemu], ..scheduler.config(dir.path()) });
    let mut sector = guest::boot_sector(0);
    sector.resize(1 << 20, 0);
    let server = with_disk(&scheduler, sector.clone());
    scheduler.want(|wanted| wanted.instances = vec![server]);
    let pid = scheduler.until_settled(ONE, Power::Running).await.pid;
    take(&scheduler, "i");
    let seen = until_stage(&scheduler, "i", SnapshotStage::SnapshotDone).await;
    assert_eq!((seen.power(), seen.pid), (Power::Running, pid));
    assert!(unpacked(&scheduler, dir.path(), "i") == sector);
    scheduler.want(|wanted| wanted.instances.clear());
    scheduler.until_gone(ONE).await;
    agent.end().await;
}
