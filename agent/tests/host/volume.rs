//! Volumes of a host: from the wanted set to the bytes, over restarts, with guests that use them.
use crate::life::{Agent, ONE, instance};
use crate::scheduler::Scheduler;
use pilvi_agent_api::v1::volume_source::From as Source;
use pilvi_agent_api::v1::*;
use pilvi_disk::samples::unpack;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const VOLUME: &str = "5f1c2b1e-0000-4000-8000-000000000001";
const OTHER: &str = "5f1c2b1e-0000-4000-8000-000000000002";

async fn set_up() -> (TempDir, Scheduler, Agent) {
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let agent = Agent::start(scheduler.config(dir.path()));
    (dir, scheduler, agent)
}

fn volume(id: &str, from: Option<Source>) -> Volume {
    let source = from.map(|from| VolumeSource { from: Some(from), of_volume: VOLUME.into() });
    Volume { id: id.into(), generation: 1, size_gib: 1, source, ..Volume::default() }
}

fn file(dir: &Path, id: &str) -> PathBuf {
    dir.join("agent/volumes").join(id).join("data")
}

fn read(dir: &Path, id: &str) -> [u8; 4] {
    let mut bytes = [0; 4];
    std::fs::File::open(file(dir, id)).unwrap().read_exact_at(&mut bytes, 1 << 20).unwrap();
    bytes
}

fn write(dir: &Path, id: &str, bytes: &[u8; 4]) {
    let file = std::fs::OpenOptions::new().write(true).open(file(dir, id)).unwrap();
    file.write_all_at(bytes, 1 << 20).unwrap();
}

/// Changes a wanted volume, whose generation grows by itself, and waits until it has settled.
async fn change(scheduler: &Scheduler, id: &str, change: impl FnOnce(&mut Volume)) -> ObservedVolume {
    let mut generation = 0;
    scheduler.want(|wanted| {
        let volume = wanted.volumes.iter_mut().find(|volume| volume.id == id).unwrap();
        volume.generation += 1;
        generation = volume.generation;
        change(volume);
    });
    settled(scheduler, id, generation).await
}

async fn settled(scheduler: &Scheduler, id: &str, generation: u64) -> ObservedVolume {
    let pick = |seen: &Observed| seen.volumes.iter().find(|v| v.id == id).cloned();
    let there = |seen: &Observed| pick(seen).is_some_and(|v| v.settled && v.generation == generation);
    pick(&scheduler.until("the volume has settled", there).await).unwrap()
}

async fn gone(scheduler: &Scheduler, id: &str) {
    let generation = scheduler.wanted().generation;
    let gone = |seen: &Observed| seen.generation >= generation && seen.volumes.iter().all(|v| v.id != id);
    scheduler.until("the volume is gone", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_an_image_to_copies_of_it_and_back() {
    let (dir, scheduler, mut agent) = set_up().await;
    let dir = dir.path();
    let mut bytes = vec![0; 2 << 20];
    bytes[1 << 20..][..4].copy_from_slice(b"base");
    let image = scheduler.image("base", bytes);
    scheduler.want(|wanted| wanted.volumes = vec![volume(VOLUME, Some(Source::Image(image)))]);
    let seen = settled(&scheduler, VOLUME, 1).await;
    assert_eq!((seen.error.as_str(), seen.bytes), ("", 1 << 30));
    assert_eq!(&read(dir, VOLUME), b"base");

    let seen = change(&scheduler, VOLUME, |volume| volume.snapshots = vec!["first".into()]).await;
    assert_eq!((seen.snapshots[0].id.as_str(), seen.snapshots[0].error.as_str()), ("first", ""));
    write(dir, VOLUME, b"more");
    let seen = change(&scheduler, VOLUME, |volume| volume.size_gib = 2).await;
    assert_eq!(seen.bytes, 2 << 30);

    // A copy of the snapshot has what was there then, a copy of the volume what is there now.
    for (source, found) in [(Source::SnapshotId("first".into()), b"base"), (Source::VolumeId(VOLUME.into()), b"more")] {
        scheduler.want(|wanted| wanted.volumes.push(volume(OTHER, Some(source))));
        settled(&scheduler, OTHER, 1).await;
        assert_eq!(&read(dir, OTHER), found);
        scheduler.want(|wanted| wanted.volumes.retain(|volume| volume.id != OTHER));
        gone(&scheduler, OTHER).await;
        assert!(!file(dir, OTHER).parent().unwrap().exists());
    }

    // Another agent goes on: nothing is made, taken or reverted again.
    agent.stop().await;
    agent.again();
    let back = |volume: &mut Volume| (volume.revert_to, volume.reverts) = ("first".into(), 1);
    let seen = change(&scheduler, VOLUME, back).await;
    assert_eq!((seen.reverts, seen.bytes), (1, 2 << 30));
    assert_eq!(&read(dir, VOLUME), b"base");
    write(dir, VOLUME, b"mine");
    agent.stop().await;
    agent.again();
    let seen = change(&scheduler, VOLUME, |volume| volume.snapshots.clear()).await;
    assert!(seen.snapshots.is_empty());
    assert_eq!(&read(dir, VOLUME), b"mine");
    let seen = change(&scheduler, VOLUME, |volume| volume.reimages = 1).await;
    assert_eq!(seen.reimages, 1);
    assert_eq!(&read(dir, VOLUME), b"base");
    scheduler.want(|wanted| wanted.volumes.clear());
    gone(&scheduler, VOLUME).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_becomes_an_image_once() {
    let (dir, scheduler, agent) = set_up().await;
    scheduler.want(|wanted| wanted.volumes = vec![volume(VOLUME, None)]);
    settled(&scheduler, VOLUME, 1).await;
    write(dir.path(), VOLUME, b"mine");
    change(&scheduler, VOLUME, |volume| volume.upload = Some(Snapshot { image_id: "made".into() })).await;
    let done = |seen: &Observed| {
        let upload = seen.volumes.first().and_then(|volume| volume.upload.clone());
        upload.is_some_and(|upload| upload.stage() == SnapshotStage::SnapshotDone)
    };
    scheduler.until("the image is there", done).await;
    change(&scheduler, VOLUME, |volume| volume.request_id = "another".into()).await;
    let uploads = scheduler.state.uploads.borrow().clone();
    assert_eq!(uploads.len(), 1);
    let (packed, raw) = (dir.path().join("packed"), dir.path().join("raw"));
    std::fs::write(&packed, &uploads[0].1).unwrap();
    let to = raw.clone();
    std::thread::spawn(move || unpack(&packed, &to)).join().unwrap().unwrap();
    assert_eq!(&std::fs::read(&raw).unwrap()[1 << 20..][..4], b"mine");
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_waits_for_its_volume_and_keeps_it_from_going() {
    let (dir, scheduler, agent) = set_up().await;
    let disk = Disk {
        id: VOLUME.into(),
        volume: Some(VolumeRef { id: VOLUME.into(), ..VolumeRef::default() }),
        ..Disk::default()
    };
    // Its image does not exist: the guest cannot have it, and says why.
    let missing = ImageRef { id: "missing".into(), size: 512, disk_format: "raw".into(), ..ImageRef::default() };
    scheduler.want(|wanted| {
        wanted.volumes = vec![volume(VOLUME, Some(Source::Image(missing)))];
        wanted.instances = vec![Instance { disks: vec![disk], ..instance(ONE) }];
    });
    let waits = |seen: &Observed| seen.volumes.first().is_some_and(|volume| volume.step == "waiting");
    let seen = scheduler.until("it waits for its image", waits).await;
    assert!(seen.instances.iter().all(|instance| instance.pid == 0));
    scheduler.image("missing", vec![3; 512]);
    let seen = scheduler.until_settled(ONE, Power::Running).await;
    assert_eq!(seen.disk_bytes, [1 << 30]);
    let pid = seen.pid;
    // Snapshots are taken while it runs; it is held for a moment and goes on.
    let seen = change(&scheduler, VOLUME, |volume| volume.snapshots = vec!["live".into()]).await;
    assert_eq!(seen.snapshots[0].error, "");
    let seen = scheduler.until_settled(ONE, Power::Running).await;
    assert_eq!(seen.pid, pid);
    // The volume outlives the instance.
    scheduler.want(|wanted| wanted.instances.clear());
    scheduler.until_gone(ONE).await;
    assert!(file(dir.path(), VOLUME).exists());
    scheduler.want(|wanted| wanted.volumes.clear());
    gone(&scheduler, VOLUME).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_is_said_and_not_made_anew() {
    let (dir, scheduler, mut agent) = set_up().await;
    scheduler.want(|wanted| wanted.volumes = vec![volume(VOLUME, None)]);
    settled(&scheduler, VOLUME, 1).await;
    agent.stop().await;
    std::fs::remove_file(file(dir.path(), VOLUME)).unwrap();
    agent.again();
    let seen = change(&scheduler, VOLUME, |volume| volume.request_id = "look".into()).await;
    assert!(seen.error.contains("gone from this host") && seen.bytes == 0);
    assert!(!file(dir.path(), VOLUME).exists());
    scheduler.want(|wanted| wanted.volumes.clear());
    gone(&scheduler, VOLUME).await;
    agent.end().await;
}

/// Attached, grown and detached while the guest runs; only then may it go.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_comes_to_a_running_guest_and_leaves_it() {
    let (dir, scheduler, agent) = set_up().await;
    let want = |generation, attached: bool| {
        let reference = Some(VolumeRef { id: VOLUME.into(), ..VolumeRef::default() });
        let disk = Disk { id: VOLUME.into(), volume: reference, ..Disk::default() };
        let disks = if attached { vec![disk] } else { vec![] };
        scheduler.want(|wanted| wanted.instances = vec![Instance { generation, disks, ..instance(ONE) }]);
    };
    want(1, false);
    let pid = scheduler.until_settled(ONE, Power::Running).await.pid;
    scheduler.want(|wanted| wanted.volumes = vec![volume(VOLUME, None)]);
    want(2, true);
    let has = |seen: &ObservedInstance, generation| {
        seen.settled && seen.generation == generation && seen.devices == [VOLUME] && seen.device_troubles.is_empty()
    };
    let seen = scheduler.until_instance(ONE, "the volume", |seen| has(seen, 2)).await;
    assert_eq!(seen.pid, pid);
    change(&scheduler, VOLUME, |volume| volume.size_gib = 2).await;
    scheduler.until_instance(ONE, "its new length", |seen| has(seen, 2) && seen.disk_bytes == [2 << 30]).await;
    want(3, false);
    let left = |seen: &ObservedInstance| seen.settled && seen.generation == 3 && seen.devices.is_empty();
    assert_eq!(scheduler.until_instance(ONE, "no volume", left).await.pid, pid);
    assert!(file(dir.path(), VOLUME).exists());
    scheduler.want(|wanted| wanted.volumes.clear());
    gone(&scheduler, VOLUME).await;
    agent.end().await;
}
