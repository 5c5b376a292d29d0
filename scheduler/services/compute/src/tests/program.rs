//! Which programs guests run in, and the operator's wish that they move.
use super::migration::{cloud, told};
use crate::{
    server::program::{Of, programs, upgrade},
    tables::{Seen, WantedPower},
};

#[tokio::test]
async fn those_that_run_in_another_program_are_asked_to_move_once() {
    let (rig, _, server) = cloud(&["h1"]).await;
    let store = &rig.svc.store;
    let ours = program_of(&rig, Of::All).await;
    assert_eq!((ours.host.as_str(), ours.runtime.as_str(), ours.newer.as_str()), ("h1", "kvm", ""));
    assert!(upgrade(store, Of::Host("h1")).await.unwrap().is_empty(), "it is in the right one");
    let says = |newer: &str, upgrades, error: &str| {
        let seen = Seen {
            generation: 9,
            settled: true,
            power: Some(WantedPower::Running),
            runtime: "kvm".into(),
            program: "pilvi-vmm 1 (a)".into(),
            newer_program: newer.into(),
            upgrade_error: error.into(),
            upgrades,
            ..Seen::default()
        };
        rig.svc.observe("h1", &server.id, seen)
    };
    says("pilvi-vmm 1 (b)", 0, "").await.unwrap();
    assert!(upgrade(store, Of::Host("h2")).await.unwrap().is_empty());
    assert!(upgrade(store, Of::Server("none")).await.unwrap_err().status == 404);
    let before = told(&rig, "h1").await.unwrap();
    for of in [Of::Host("h1"), Of::Server(&server.id), Of::All] {
        let asked = upgrade(store, of).await.unwrap();
        assert_eq!(asked.len(), 1);
        assert!(asked[0].asked && asked[0].newer == "pilvi-vmm 1 (b)");
        let now = told(&rig, "h1").await.unwrap();
        assert_eq!((now.upgrades, now.generation), (1, before.generation + 1));
    }
    assert!(program_of(&rig, Of::Host("h1")).await.asked);
    // It did not work, and may be asked for again.
    says("pilvi-vmm 1 (b)", 1, "no room").await.unwrap();
    let failed = program_of(&rig, Of::Server(&server.id)).await;
    assert_eq!((failed.asked, failed.error.as_str()), (false, "no room"));
    upgrade(store, Of::Host("h1")).await.unwrap();
    assert_eq!(told(&rig, "h1").await.unwrap().upgrades, 2);
    assert_eq!(rig.record(&server.id).await.vm_state.as_str(), "active");
}

async fn program_of(rig: &super::Rig, of: Of<'_>) -> crate::server::program::Program {
    programs(&rig.svc.store, of).await.unwrap().pop().unwrap()
}
