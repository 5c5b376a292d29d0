//! Writers that remember what was acknowledged, and the comparison in the end.
//!
//! ```text
//!  asked --2xx--> acknowledged: it must be so in the end
//!        --4xx, 5xx--> not done, or (5xx) perhaps
//!        --connection broke--> perhaps: both ends are right, twice is not
//! ```
//! Every object has a name of its own, so that one that was made twice shows. A writer whose answer was lost asks what
//! became of it before it goes on with that object, as a careful client does.
use pilvi_tests::{Api, api::text, pause};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Project,
    Network,
    Image,
    Server,
}

/// What must be found of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// There, with one of these descriptions (or hashes of its data).
    There(Vec<String>),
    Gone,
    /// An answer was lost.
    Either,
}

#[derive(Debug, Clone)]
pub struct Kept {
    pub kind: Kind,
    pub name: String,
    id: Option<String>,
    fate: Fate,
    updates: u32,
}

/// What servers are made of.
#[derive(Debug)]
pub struct Ground {
    pub image: String,
    pub network: String,
}

impl Ground {
    /// Id of the new server; `None` when it was refused; an error when that is not known.
    pub fn create_server(&self, api: &Api, name: &str) -> anyhow::Result<Option<String>> {
        let new = json!({"server": {"name": name, "imageRef": self.image, "flavorRef": "one",
            "networks": [{"uuid": self.network}]}});
        made(api, "/compute/v2.1/servers", &new, "server")
    }
}

/// A POST that makes something.
fn made(api: &Api, path: &str, new: &Value, member: &str) -> anyhow::Result<Option<String>> {
    let answer = api.call(Method::POST, path, new)?;
    anyhow::ensure!(answer.status < 500, "{}", answer.text);
    if answer.status >= 300 {
        assert!([409, 429].contains(&answer.status), "POST {path}: {} {}", answer.status, answer.text);
        return Ok(None);
    }
    let object = if member.is_empty() { &answer.json } else { &answer.json[member] };
    Ok(Some(text(object, "id")))
}

pub struct Writer {
    api: Api,
    number: usize,
    ground: Arc<Ground>,
    random: StdRng,
    kept: Vec<Kept>,
    count: u32,
}

impl Writer {
    pub fn new(number: usize, api: Api, ground: Arc<Ground>, seed: u64) -> Self {
        Writer { api, number, ground, random: StdRng::seed_from_u64(seed), kept: Vec::new(), count: 0 }
    }

    /// Writes until `stop`; gives what it must be.
    pub fn run(mut self, stop: &AtomicBool) -> Vec<Kept> {
        while !stop.load(Ordering::SeqCst) {
            let known: Vec<usize> =
                (0..self.kept.len()).filter(|at| matches!(self.kept[*at].fate, Fate::There(_))).collect();
            match self.random.random_range(0..10) {
                0..=2 if !known.is_empty() => {
                    let at = known[self.random.random_range(0..known.len())];
                    self.delete(at);
                }
                3..=5 if !known.is_empty() => {
                    let at = known[self.random.random_range(0..known.len())];
                    self.update(at);
                }
                _ => self.create(),
            }
            pause(Duration::from_millis(self.random.random_range(5..60)));
        }
        self.kept
    }

    fn create(&mut self) {
        self.count += 1;
        let kinds = [Kind::Project, Kind::Project, Kind::Network, Kind::Network, Kind::Image, Kind::Server];
        let kind = kinds[self.random.random_range(0..kinds.len())];
        let name = format!("w{}-{}", self.number, self.count);
        let (fate, id) = match self.make(kind, &name) {
            Ok(Some(id)) => (Fate::There(vec![String::new()]), Some(id)),
            Ok(None) => return,
            Err(_) => (Fate::Either, None),
        };
        let mut kept = Kept { kind, name, id, fate, updates: 0 };
        if let (Kind::Image, Some(id)) = (kind, kept.id.clone()) {
            kept.fate = self.upload(&id, &kept.name);
        }
        self.kept.push(kept);
    }

    fn make(&self, kind: Kind, name: &str) -> anyhow::Result<Option<String>> {
        match kind {
            Kind::Project => {
                let new = json!({"project": {"name": name, "domain_id": "default", "description": ""}});
                made(&self.api, "/identity/v3/projects", &new, "project")
            }
            Kind::Network => {
                let new = json!({"network": {"name": name, "description": ""}});
                made(&self.api, "/network/v2.0/networks", &new, "network")
            }
            Kind::Image => {
                let new = json!({"name": name, "disk_format": "raw", "container_format": "bare"});
                made(&self.api, "/image/v2/images", &new, "")
            }
            Kind::Server => self.ground.create_server(&self.api, name),
        }
    }

    /// Bytes that only this image has. Unless they were acknowledged, the image may be without.
    fn upload(&mut self, id: &str, name: &str) -> Fate {
        let mut bytes = vec![0u8; self.random.random_range(1..512) * 1024];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let hash = hex::encode(Sha512::digest(&bytes));
        let path = format!("/image/v2/images/{id}/file");
        match self.api.send(Method::PUT, &path, "application/octet-stream", bytes) {
            Ok(answer) if answer.status == 204 => Fate::There(vec![hash]),
            Ok(answer) => {
                assert!(
                    [409, 500, 502, 503, 504, 410, 400].contains(&answer.status),
                    "{} {}",
                    answer.status,
                    answer.text
                );
                Fate::There(vec![hash, String::new()])
            }
            Err(_) => Fate::There(vec![hash, String::new()]),
        }
    }

    fn path(kept: &Kept) -> String {
        let id = kept.id.as_deref().unwrap_or_default();
        match kept.kind {
            Kind::Project => format!("/identity/v3/projects/{id}"),
            Kind::Network => format!("/network/v2.0/networks/{id}"),
            Kind::Image => format!("/image/v2/images/{id}"),
            Kind::Server => format!("/compute/v2.1/servers/{id}"),
        }
    }

    fn delete(&mut self, at: usize) {
        let answer = self.api.call(Method::DELETE, &Self::path(&self.kept[at]), &Value::Null);
        self.kept[at].fate = match answer {
            Ok(answer) if answer.status == 204 => Fate::Gone,
            Ok(answer) if answer.status == 404 => panic!("{:?} was acknowledged and is not found", self.kept[at]),
            // Refused: it is as it was.
            Ok(answer) if answer.status < 500 => return,
            _ => Fate::Either,
        };
    }

    fn update(&mut self, at: usize) {
        let kept = &self.kept[at];
        let description = format!("{}", kept.updates + 1);
        let (method, member) = match kept.kind {
            Kind::Project => (Method::PATCH, "project"),
            Kind::Network => (Method::PUT, "network"),
            Kind::Image | Kind::Server => return,
        };
        let body = json!({member: {"description": description}});
        let answer = self.api.call(method, &Self::path(kept), &body);
        let kept = &mut self.kept[at];
        kept.updates += 1;
        let Fate::There(descriptions) = &mut kept.fate else { return };
        match answer {
            Ok(answer) if answer.status == 200 => *descriptions = vec![description],
            Ok(answer) if answer.status == 404 => panic!("{} was acknowledged and is not found", kept.name),
            Ok(answer) if answer.status < 500 => {}
            _ => descriptions.push(description),
        }
    }
}

/// name -> (id, description) of everything there is of a kind, page by page.
fn found(admin: &Api, kind: Kind) -> BTreeMap<String, Vec<(String, String)>> {
    let (path, list) = match kind {
        Kind::Project => ("/identity/v3/projects", "projects"),
        Kind::Network => ("/network/v2.0/networks?limit=5000", "networks"),
        Kind::Image => ("/image/v2/images?limit=1000", "images"),
        Kind::Server => ("/compute/v2.1/servers/detail?limit=1000", "servers"),
    };
    let mut all: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next.take() {
        let page = admin.get(&path).unwrap();
        for object in page[list].as_array().unwrap() {
            let said = match kind {
                Kind::Image => object["os_hash_value"].as_str(),
                _ => object["description"].as_str(),
            };
            let entry = (text(object, "id"), said.unwrap_or_default().to_owned());
            all.entry(object["name"].as_str().unwrap_or_default().to_owned()).or_default().push(entry);
        }
        next = page["next"].as_str().map(|n| if n.starts_with("/image") { n.to_owned() } else { format!("/image{n}") });
    }
    all
}

/// Is everything as it was acknowledged?
pub fn check(admin: &Api, kept: &[Kept]) {
    for kind in [Kind::Project, Kind::Network, Kind::Image, Kind::Server] {
        let found = found(admin, kind);
        let (mut there, mut gone, mut open) = (0, 0, 0);
        for object in kept.iter().filter(|k| k.kind == kind) {
            let now = found.get(&object.name).map_or(&[][..], Vec::as_slice);
            assert!(now.len() <= 1, "{object:?} is doubled: {now:?}");
            match (&object.fate, now.first()) {
                (Fate::There(said), Some((id, now))) => {
                    assert_eq!(Some(id), object.id.as_ref(), "{object:?}");
                    let fits = kind == Kind::Server || said.contains(now);
                    assert!(fits, "{object:?} says {now:?}");
                    if kind == Kind::Image && !now.is_empty() {
                        let path = format!("/image/v2/images/{id}/file");
                        let bytes = admin.bytes(&path).unwrap();
                        assert_eq!(hex::encode(Sha512::digest(&bytes)), *now, "{object:?}: its data");
                    }
                    there += 1;
                }
                (Fate::There(_), None) => panic!("{object:?} was acknowledged and is lost"),
                (Fate::Gone, Some(now)) => {
                    // A server leaves the list when its host has confirmed.
                    if kind == Kind::Server {
                        crate::world::wait_gone(admin, &now.0, 120);
                    } else {
                        panic!("{object:?} was deleted and is back: {now:?}");
                    }
                    gone += 1;
                }
                (Fate::Gone, None) => gone += 1,
                (Fate::Either, _) => open += 1,
            }
        }
        println!("  {kind:?}: {there} there, {gone} gone, {open} whose answer was lost");
    }
}
