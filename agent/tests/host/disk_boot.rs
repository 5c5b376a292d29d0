//! Guests of the own VMM that bring nothing but a disk: their kernel is found on it.
use crate::contract::{Case, KVM, Subject, kvm, raw};
use crate::guest;
use crate::life::{Agent, ONE, instance};
use crate::scheduler::Scheduler;
use pilvi_agent::Config;
use pilvi_agent::runtime::{Kind, Machine, Run};
use pilvi_agent_api::v1::{Disk, ImageRef, Instance, Power};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// An ext4 file system with the freestanding guest as the kernel that GRUB would start, and the bytes of that disk.
fn disk(dir: &Path) -> Option<Vec<u8>> {
    let (content, image) = (dir.join("content"), dir.join("image"));
    std::fs::create_dir_all(content.join("boot/grub")).unwrap();
    std::fs::copy(guest::freestanding(), content.join("boot/vmlinuz")).unwrap();
    let menu = "menuentry 'guest' {\n  linux /boot/vmlinuz idle from-the-disk\n}\n";
    std::fs::write(content.join("boot/grub/grub.cfg"), menu).unwrap();
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-d"]).arg(&content).arg(&image).stderr(Stdio::null());
    if !mkfs.status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: mkfs.ext4 is not installed");
        return None;
    }
    Some(std::fs::read(image).unwrap())
}

const FROM_DISK: Subject = Subject {
    machine: |dir, _| {
        let path = dir.join("root");
        if !path.exists() {
            std::fs::write(&path, disk(dir).unwrap()).unwrap();
        }
        Machine { vcpus: 1, memory_mib: 32, disks: vec![raw("root", path)], ..Machine::default() }
    },
    ..KVM
};

fn there() -> bool {
    let dir = tempfile::tempdir().unwrap();
    kvm() && disk(dir.path()).is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_starts_by_itself_needs_no_kernel_beside_it() {
    if !there() {
        return;
    }
    let case = Case::new(&FROM_DISK);
    let machine = (FROM_DISK.machine)(&case.guest.dir, false);
    let path = machine.disks[0].path.clone();
    case.runtime.boots(&path, &machine.properties).await.unwrap();
    case.start().await;
    case.until_said("idle").await;
    // Saved and gone on with: nothing is looked for then.
    case.runtime.suspend(&case.guest).await.unwrap();
    case.runtime.start(&case.guest, Machine { restore: true, ..machine }).await.unwrap();
    assert_eq!(case.status().await.run, Run::Running);
    case.runtime.kill(&case.guest).await.unwrap();
    // What is no such disk says why.
    let uefi = BTreeMap::from([("hw_firmware_type".to_owned(), "uefi".to_owned())]);
    for (bytes, why) in [(vec![0; 1 << 20], "no partition"), (guest::boot_sector(0), "no partition")] {
        std::fs::write(&path, bytes).unwrap();
        let error = case.runtime.boots(&path, &uefi).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let error = case.runtime.boots(Path::new("/nonexistent/disk"), &uefi).await.unwrap_err().to_string();
    assert!(error.contains("cannot open the disk"), "{error}");
    case.end().await;
}

/// By an image alone, over a stop; and one whose image cannot be had that way is told why.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_a_kernel_runs_on_the_own_vmm() {
    if !there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start().await;
    let vmm_command = vec![env!("CARGO_BIN_EXE_pilvi-agent").into(), "vmm".into()];
    let config = Config { vmm_command, runtimes: vec![Kind::Kvm], ..scheduler.config(dir.path()) };
    let agent = Agent::start(config);
    scheduler.hello().await;
    let want = |generation, image: &ImageRef, power: Power| {
        let disk = Disk { id: "root".into(), image: Some(image.clone()), ..Disk::default() };
        let (runtime, power) = ("kvm".into(), power.into());
        let one = Instance { generation, runtime, power, disks: vec![disk], ..instance(ONE) };
        scheduler.want(|wanted| wanted.instances = vec![one]);
    };
    let image = scheduler.image("starts", disk(dir.path()).unwrap());
    want(1, &image, Power::Running);
    let seen = scheduler.until_settled(ONE, Power::Running).await;
    assert_eq!((seen.runtime.as_str(), seen.error.as_str()), ("kvm", ""));
    let log = agent.folder(ONE).join("console.log");
    let says = |text: &str| std::fs::read_to_string(&log).is_ok_and(|said| said.contains(text));
    for _ in 0..600 {
        if says("idle") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(says("idle"), "it does not run");
    want(2, &image, Power::Stopped);
    scheduler.until_settled(ONE, Power::Stopped).await;
    scheduler.want(|wanted| wanted.instances.clear());
    scheduler.until_gone(ONE).await;

    let empty = scheduler.image("empty", vec![0; 1 << 20]);
    want(3, &empty, Power::Running);
    let refused = |seen: &pilvi_agent_api::v1::ObservedInstance| seen.error.contains("starts by itself");
    let seen = scheduler.until_instance(ONE, "why it does not run", refused).await;
    assert!(seen.error.contains("no partition"), "{}", seen.error);
    scheduler.want(|wanted| wanted.instances.clear());
    scheduler.until_gone(ONE).await;
    agent.end().await;
}
