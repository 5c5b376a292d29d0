//! Guests of QEMU that OVMF starts: it speaks, keeps its variables, and goes where its guest goes.
use crate::contract::{Case, QEMU, Subject};
use crate::guest;
use crate::moving::streams::Streams;
use pilvi_agent::Config;
use pilvi_agent::runtime::{Machine, Run};
use pilvi_agent::uefi::Firmware;
use std::collections::BTreeMap;
use std::path::Path;

/// What OVMF's shell says on the serial line; nothing else here can be started.
const SHELL: &str = "UEFI Interactive Shell";

fn machine(dir: &Path) -> Machine {
    let properties = BTreeMap::from([("hw_firmware_type".to_owned(), "uefi".to_owned())]);
    let uefi = Firmware::new(&Config::default()).of(&properties, dir, false).unwrap();
    Machine { vcpus: 1, memory_mib: 192, uefi, properties, ..Machine::default() }
}

const UEFI: Subject = Subject { machine: |dir, _| machine(dir), says: SHELL, ..QEMU };

fn there() -> bool {
    let code = Config::default().uefi_code;
    if !code.exists() {
        eprintln!("skipped: {} is missing (package ovmf)", code.display());
    }
    code.exists() && guest::qemu()
}

async fn until_shell(case: &Case) {
    // Emulated, a minute or two.
    for _ in 0..600 {
        if case.console().await.contains(SHELL) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    panic!("no shell: {}", case.console().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn ovmf_starts_a_guest_and_its_variables_stay_and_go_with_it() {
    if !there() {
        return;
    }
    let (here, there) = (Case::new(&UEFI), Case::new(&UEFI));
    here.start().await;
    until_shell(&here).await;
    let vars = |case: &Case| std::fs::read(case.guest.dir.join("disks/uefi-vars")).unwrap();
    let (template, written) = (std::fs::read(Config::default().uefi_vars).unwrap(), vars(&here));
    assert!(written.len() == template.len() && written != template, "the firmware has written nothing");
    // Started anew it finds what it wrote.
    here.runtime.kill(&here.guest).await.unwrap();
    here.guest.console.clear().unwrap();
    let machine = machine(&here.guest.dir);
    assert!(vars(&here) == written);
    here.runtime.start(&here.guest, machine).await.unwrap();
    until_shell(&here).await;
    // Over there its variables are made of the template, and become its own with its memory.
    let coming = self::machine(&there.guest.dir);
    assert!(vars(&there) == template);
    there.runtime.receive(&there.guest, coming).await.unwrap();
    let wires = Streams::fast(&there);
    let (sent, arrived) = tokio::join!(here.runtime.send(&here.guest, &wires), there.runtime.arrive(&there.guest));
    sent.unwrap();
    arrived.unwrap();
    assert_eq!(there.status().await.run, Run::Running);
    let now = vars(&here);
    for _ in 0..200 {
        if vars(&there) == now {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(vars(&there) == now && now != template, "its variables did not come over");
    drop(wires);
    // Saved and gone on with, as any guest.
    there.runtime.suspend(&there.guest).await.unwrap();
    let machine = Machine { restore: true, ..self::machine(&there.guest.dir) };
    there.runtime.start(&there.guest, machine).await.unwrap();
    assert_eq!(there.status().await.run, Run::Running);
    there.end().await;
    here.end().await;
}
