//! Every command that the `openstack` client offers for a service, tried against the real scheduler, with SQLite and
//! with a real PostgreSQL; and the SDK on which Terraform's and Ansible's users stand. The steps are in
//! `tests/client`, one file a service.
use crate::world;
use pilvi_store::testing::PostgresServer;
use pilvi_tests::{Site, may_run};

const SERVICES: [&str; 3] = ["identity", "image", "placement"];
const SIMULATED: &str = "runtimes = [\"fake\"]\nnetwork = \"none\"\nheartbeat_ms = 500\n\
    [capacity]\nvcpus = 8\nmemory_mib = 8192\ndisk_gib = 100";

/// The tour is its own web server.
const WEB: &str = "[image.import.web]\nnetworks = [\"127.0.0.0/8\"]\nports = { allowed = [] }\n";

fn tour(story: &str, store: Option<String>) {
    let mut site = Site::open(story).unwrap();
    let store = store.map_or(String::new(), |url| format!("store = \"{url}\"\n"));
    let images = ["first", "second"].map(|name| {
        let folder = site.state.join(name);
        format!("[image.stores.{name}]\ntype = \"file\"\ndirectory = \"{}\"\n", folder.display())
    });
    site.configure(&format!(
        "{store}cheap_passwords = true\n[image]\ndefault_store = \"first\"\ncache_mib = 16\n{WEB}{}",
        images.concat()
    ))
    .unwrap();
    let scheduler = site.serve().unwrap();
    site.tour(&SERVICES).unwrap();
    let host = site.host("sim", SIMULATED).unwrap();
    let agent = site.start_agent(&host).unwrap();
    let admin = site.admin().unwrap();
    world::wait_host(&admin, "sim");
    world::flavor(&admin, "one", 128);
    world::fake_image(&admin);
    site.tour(&["sdk"]).unwrap();
    site.tour(&["network", "plan"]).unwrap();
    drop((agent, scheduler));
    site.finish().unwrap();
}

#[test]
fn every_command_works_with_sqlite() {
    if may_run("client with SQLite") {
        tour("client", None);
    }
}

#[test]
fn every_command_works_with_postgresql() {
    if !may_run("client with PostgreSQL") {
        return;
    }
    let Some(server) = PostgresServer::start().unwrap() else {
        assert!(std::env::var_os("PILVI_NO_SKIP").is_none(), "PostgreSQL is not installed");
        println!("client with PostgreSQL: skipped: it is not installed");
        return;
    };
    tour("client-pg", Some(server.database().unwrap()));
}
