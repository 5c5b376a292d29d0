//! Cold migration between two hosts: whatever is killed while disks are copied, the server ends on one of them with
//! what was on its disk, and may go back to it.
use super::{PATIENCE, Pair, SIMULATED};
use crate::world;
use pilvi_tests::{api::text, kernel, may_run, until};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Where in the disk a mark is written for each round; the image ends before.
const MARK_AT: u64 = 512 << 20;

impl Pair {
    fn disk(&self, host: usize, id: &str) -> PathBuf {
        self.hosts[host].agent().join("instances").join(id).join("disks").join("root")
    }

    fn mark(&self, host: usize, id: &str) -> u64 {
        let mut bytes = [0; 8];
        let file = std::fs::File::open(self.disk(host, id)).unwrap();
        file.read_exact_at(&mut bytes, MARK_AT).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn act(&self, id: &str, body: &Value) -> Option<u16> {
        let path = format!("/compute/v2.1/servers/{id}/action");
        Some(self.api.call(reqwest::Method::POST, &path, body).ok()?.status)
    }

    /// Waits for one of these states with nothing under way.
    fn rests(&self, id: &str, states: &[&str]) -> Value {
        until(PATIENCE, &format!("the server is one of {states:?}"), || {
            let server = self.get(&format!("/compute/v2.1/servers/{id}"))["server"].clone();
            assert_ne!(server["status"], "ERROR", "{server}");
            let there = states.iter().any(|state| server["status"] == *state);
            (there && server["OS-EXT-STS:task_state"].is_null()).then_some(server)
        })
    }

    fn host_of(&self, server: &Value) -> usize {
        usize::from(text(server, "OS-EXT-SRV-ATTR:host") == self.hosts[1].name)
    }

    fn only_there(&self, at: usize, id: &str) {
        until(PATIENCE, "the other host has nothing of it", || {
            (!self.disk(1 - at, id).exists() && self.disk(at, id).exists()).then_some(())
        });
    }
}

#[test]
fn a_server_that_is_off_on_its_way_loses_nothing() {
    if !may_run("moves cold") {
        return;
    }
    let mut pair = Pair::open("movesc", SIMULATED);
    world::flavor(&pair.api, "one", 128);
    let noise: Vec<u8> = (0..24u32 << 20).map(|n| (n % 253) as u8 + 1).collect();
    let image = world::image(&pair.api, "fake", "raw", noise, &json!({"hw_pilvi_runtime": "fake"}));
    let (network, _) = world::network(&pair.api, "moves", "10.49.0.0/24");
    let new = |name: &str, flavor: &str| {
        let networks = json!([{"uuid": network}]);
        json!({"server": {"name": name, "imageRef": image, "flavorRef": flavor, "networks": networks}})
    };
    let id = text(&pair.api.post("/compute/v2.1/servers", &new("nomad", "one")).unwrap()["server"], "id");
    pair.settled(&id);
    let seed = world::number("PILVI_STORY_SEED", rand::rng().random());
    println!("moves cold: PILVI_STORY_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut went, rounds) = (0, world::number("PILVI_STORY_ROUNDS", 10));
    for round in 0..rounds {
        let off = round % 3 == 2;
        if off {
            pair.act(&id, &json!({"os-stop": null}));
        }
        let home = if off { "SHUTOFF" } else { "ACTIVE" };
        let from = pair.host_of(&pair.rests(&id, &[home]));
        let file = std::fs::OpenOptions::new().write(true).open(pair.disk(from, &id)).unwrap();
        file.write_all_at(&(round + 1).to_le_bytes(), MARK_AT).unwrap();
        until(PATIENCE, "the migration is taken", || (pair.act(&id, &json!({"migrate": null}))? == 202).then_some(()));
        let victim = round % 5;
        pair.disturb(victim, from, &mut random);
        let server = pair.rests(&id, &["VERIFY_RESIZE", home]);
        let (at, moved) = (pair.host_of(&server), server["status"] == "VERIFY_RESIZE");
        assert_eq!(moved, at != from, "round {round}: {server}");
        assert!(moved || victim != 0, "nothing stood in its way: {}", pair.newest_migration(&id));
        assert_eq!(pair.newest_migration(&id)["status"], if moved { "finished" } else { "error" });
        assert_eq!(pair.mark(at, &id), round + 1, "round {round}: its disk came along");
        let last = if moved {
            assert_eq!(pair.mark(from, &id), round + 1, "round {round}: and is kept");
            let confirm = round % 2 == 0;
            let verb = if confirm { "confirmResize" } else { "revertResize" };
            pair.act(&id, &json!({verb: null}));
            pair.disturb((round + 1) % 5, from, &mut random);
            let last = pair.host_of(&pair.rests(&id, &[home]));
            assert_eq!(last, if confirm { at } else { from }, "round {round}");
            assert_eq!(pair.newest_migration(&id)["status"], if confirm { "confirmed" } else { "reverted" });
            last
        } else {
            from
        };
        pair.only_there(last, &id);
        if off {
            assert!(
                pair.hosts.iter().all(|host| kernel::guests(&host.agent()).is_empty()),
                "round {round}: it was off"
            );
            pair.act(&id, &json!({"os-start": null}));
            pair.rests(&id, &["ACTIVE"]);
        }
        assert_eq!(pair.place(&id).0, last, "round {round}");
        until(PATIENCE, "it is claimed once", || (world::claims(&pair.api) == 130).then_some(()));
        went += u32::from(moved);
        println!("  round {}: victim {victim}, {}", round + 1, text(&pair.newest_migration(&id), "status"));
    }
    assert!(went > 0, "not one migration came to its end");
    resized_elsewhere(&pair, &id, &new);
    pair.finish(&id);
}

/// A size for which its own host has no room: it goes to the other one, and its disk grows there.
fn resized_elsewhere(pair: &Pair, id: &str, new: &dyn Fn(&str, &str) -> Value) {
    let from = pair.host_of(&pair.settled(id));
    world::flavor(&pair.api, "guest", 4000);
    let large = json!({"flavor": {"id": "large", "name": "large", "ram": 6000, "vcpus": 1, "disk": 2}});
    pair.api.post("/compute/v2.1/flavors", &large).unwrap();
    let mut other = new("settler", "guest");
    other["server"]["availability_zone"] = json!(format!("nova:{}", pair.hosts[from].name));
    let other = text(&pair.api.post("/compute/v2.1/servers", &other).unwrap()["server"], "id");
    pair.settled(&other);
    assert_eq!(pair.act(id, &json!({"resize": {"flavorRef": "large"}})), Some(202));
    let at = pair.host_of(&pair.rests(id, &["VERIFY_RESIZE"]));
    assert_ne!(at, from, "{}", pair.newest_migration(id));
    let length = |host| pair.disk(host, id).metadata().unwrap().len();
    assert_eq!((length(at), length(from)), (2 << 30, 1 << 30));
    assert_eq!(pair.act(id, &json!({"confirmResize": null})), Some(204));
    pair.only_there(at, id);
    pair.api.delete(&format!("/compute/v2.1/servers/{other}")).unwrap();
    world::wait_gone(&pair.api, &other, PATIENCE);
    println!("  resized to the other host");
}
