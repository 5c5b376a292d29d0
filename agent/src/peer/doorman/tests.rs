//! Streams between two agents, with certificates as the scheduler makes them.
use super::*;
use crate::peer::Calls;
use crate::runtime::Wires;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::io::{Read, Write};

/// A cloud's authority.
struct Authority(String, Issuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self(pem, Issuer::new(params, key))
    }

    fn member(&self, node_id: &str) -> Arc<Proof> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = Default::default();
        params.distinguished_name.push(DnType::CommonName, node_id);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.1).unwrap().pem();
        Arc::new(Proof::new(&self.0, &certificate, &key.serialize_pem()).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_expected_node_comes_in_and_only_by_a_door() {
    // As deep as state directories may lie.
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("x".repeat(120));
    std::fs::create_dir(&dir).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(root.path().join("in")).unwrap();
    std::fs::rename(root.path().join("in"), dir.join("in")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut word = [0; 5];
            stream.read_exact(&mut word).unwrap();
            stream.write_all(&word).unwrap();
        }
    });

    let cloud = Authority::new();
    let (here, there) = (cloud.member("here"), cloud.member("there"));
    let doorman = Doorman::new(there, "127.0.0.1:0".parse().unwrap());
    let one: Doors = Box::new(move |name| (name == "state").then(|| dir.join("in")));
    let expecting = doorman.admit("m", "here", one).await.unwrap();
    let address = expecting.address.to_string();
    let talk = |proof: &Arc<Proof>, node: &str, of: &str, door: &'static str| {
        let calls = Calls::new(proof.clone(), of, node, &address);
        async move {
            let mut stream = calls.open(door).await?;
            tokio::task::spawn_blocking(move || {
                let mut word = [0; 5];
                stream.write_all(b"hello")?;
                stream.read_exact(&mut word)?;
                Ok::<_, io::Error>(word)
            })
            .await
            .unwrap()
        }
    };
    assert_eq!(talk(&here, "there", "m", "state").await.unwrap(), *b"hello");
    assert!(talk(&here, "there", "m", "cellar").await.is_err(), "no such door");
    assert!(talk(&here, "there", "other", "state").await.is_err(), "no such move");
    assert!(talk(&cloud.member("third"), "there", "m", "state").await.is_err(), "another node of the cloud");
    assert!(talk(&Authority::new().member("here"), "there", "m", "state").await.is_err(), "another cloud");
    assert!(talk(&here, "fourth", "m", "state").await.is_err(), "the caller looks who answers");
    drop(expecting);
    assert!(talk(&here, "there", "m", "state").await.is_err(), "not expected any more");
}

#[test]
fn the_address_towards_the_scheduler_is_found() {
    assert_eq!(own_address(&[("127.0.0.1".into(), 9)]), IpAddr::from([127, 0, 0, 1]));
    assert_eq!(own_address(&[]), IpAddr::from([127, 0, 0, 1]));
}
