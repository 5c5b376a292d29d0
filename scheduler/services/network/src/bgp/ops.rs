//! The verbs of speakers and peers; the only writer of both records.
use super::{
    model::{AuthType, BgpPeer, BgpSpeaker},
    peer::PEER,
    speaker::SPEAKER,
};
use crate::{attribute::overlay, fault, list::Raw, network::model::VirtualNetwork, tables::find};
use pilvi_kit::Fault;
use pilvi_store::{Record, Stored, Tx};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Peers and gateway networks of one speaker.
const EACH_MAX: usize = 64;
/// Bytes of a password, as much as a signed connection's key has.
const KEY_MAX: usize = 80;

/// A body, checked, as a new record.
fn made<R: DeserializeOwned>(attrs: &Raw) -> Result<R, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    serde_json::from_value(Value::Object(document)).map_err(Fault::internal)
}

async fn speaker_in(tx: &mut Tx, id: &str) -> Result<Stored<BgpSpeaker>, Fault> {
    tx.get::<BgpSpeaker>(id).await?.ok_or_else(|| SPEAKER.not_found(id))
}

pub async fn create_speaker_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<BgpSpeaker>, Fault> {
    Ok(tx.insert(&made::<BgpSpeaker>(attrs)?).await?)
}

pub async fn update_speaker_in(tx: &mut Tx, mut found: Stored<BgpSpeaker>, changes: &Raw) -> Result<(), Fault> {
    found.record = overlay(&found.record, changes)?;
    tx.update(&found).await?;
    Ok(())
}

fn check_password(auth_type: AuthType, password: Option<&str>) -> Result<(), Fault> {
    match (auth_type, password) {
        (AuthType::Md5, None | Some("")) => {
            Err(fault::bad("InvalidBgpPeerMd5Authentication", "A password must be supplied when using auth_type md5."))
        }
        (AuthType::Md5, Some(password)) if password.len() > KEY_MAX => Err(Fault::bad_request(format!(
            "Invalid input for password. Reason: the key of a signed connection has at most {KEY_MAX} bytes."
        ))),
        _ => Ok(()),
    }
}

pub async fn create_peer_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<BgpPeer>, Fault> {
    let peer: BgpPeer = made(attrs)?;
    check_password(peer.auth_type, peer.password.as_deref())?;
    Ok(tx.insert(&peer).await?)
}

pub async fn update_peer_in(tx: &mut Tx, mut found: Stored<BgpPeer>, changes: &Raw) -> Result<(), Fault> {
    // Clients send null with whatever else they change.
    let mut changes = changes.clone();
    if changes.get("password").is_some_and(Value::is_null) {
        changes.remove("password");
    }
    if changes.contains_key("password") && found.auth_type == AuthType::None {
        return Err(
            Fault::not_found(format!("BGP peer {} not authenticated.", found.id)).kind("BgpPeerNotAuthenticated")
        );
    }
    let after: BgpPeer = overlay(&found.record, &changes)?;
    check_password(after.auth_type, after.password.as_deref())?;
    found.record = after;
    tx.update(&found).await?;
    Ok(())
}

/// Speakers let go of it.
pub async fn delete_peer_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    for mut speaker in tx.list::<BgpSpeaker>(find::labelled(id)).await? {
        speaker.record.peers.retain(|peer| peer != id);
        tx.update(&speaker).await?;
    }
    tx.delete::<BgpPeer>(id).await?;
    Ok(())
}

/// A network goes: it is nobody's gateway any more.
pub async fn forget_network_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    for mut speaker in tx.list::<BgpSpeaker>(find::labelled(id)).await? {
        speaker.record.networks.retain(|network| network != id);
        tx.update(&speaker).await?;
    }
    Ok(())
}

/// What is given to a speaker or taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Peer,
    Network,
}

impl What {
    pub fn member(self) -> &'static str {
        match self {
            What::Peer => "bgp_peer_id",
            What::Network => "network_id",
        }
    }
}

fn full(speaker: &BgpSpeaker, what: &str) -> Fault {
    fault::conflict("Conflict", format!("BGP speaker {} has {EACH_MAX} {what} and can have no more.", speaker.id))
}

pub async fn add_in(tx: &mut Tx, id: &str, what: What, named: &str) -> Result<(), Fault> {
    let mut speaker = speaker_in(tx, id).await?;
    match what {
        What::Peer => {
            let peer = tx.get::<BgpPeer>(named).await?.ok_or_else(|| PEER.not_found(named))?;
            refuse_twin_in(tx, &speaker, &peer).await?;
            if speaker.peers.len() >= EACH_MAX {
                return Err(full(&speaker, "peers"));
            }
            speaker.record.peers.push(peer.record.id);
        }
        What::Network => {
            let network = tx.get::<VirtualNetwork>(named).await?.ok_or_else(|| fault::network_missing(named))?;
            if speaker.networks.contains(&network.id) {
                return Err(fault::conflict(
                    "BgpSpeakerNetworkBindingError",
                    format!("Network {named} is already bound to BgpSpeaker {id}."),
                ));
            }
            if speaker.networks.len() >= EACH_MAX {
                return Err(full(&speaker, "gateway networks"));
            }
            speaker.record.networks.push(network.record.id);
        }
    }
    tx.update(&speaker).await?;
    Ok(())
}

/// One speaker has one session with an address.
async fn refuse_twin_in(tx: &mut Tx, speaker: &BgpSpeaker, peer: &BgpPeer) -> Result<(), Fault> {
    let ids = speaker.peers.iter().map(String::as_str);
    let others = tx.list::<BgpPeer>(find::all().ids(ids)).await?;
    if others.iter().all(|other| other.peer_ip != peer.peer_ip) {
        return Ok(());
    }
    Err(fault::conflict(
        "DuplicateBgpPeerIpException",
        format!(
            "BGP Speaker {} is already configured to peer with a BGP Peer at {}, it cannot peer with BGP Peer {}.",
            speaker.id, peer.peer_ip, peer.id
        ),
    ))
}

pub async fn remove_in(tx: &mut Tx, id: &str, what: What, named: &str) -> Result<(), Fault> {
    let mut speaker = speaker_in(tx, id).await?;
    let (list, kind, text) = match what {
        What::Peer => (&mut speaker.record.peers, "BgpSpeakerPeerNotAssociated", "BGP peer"),
        What::Network => (&mut speaker.record.networks, "BgpSpeakerNetworkNotAssociated", "Network"),
    };
    let before = list.len();
    list.retain(|one| one != named);
    if list.len() == before {
        return Err(Fault::not_found(format!("{text} {named} is not associated with BGP speaker {id}.")).kind(kind));
    }
    tx.update(&speaker).await?;
    Ok(())
}

/// Gives a speaker to its agent, or takes it away: false when it is so already.
pub async fn host_in(tx: &mut Tx, id: &str, here: bool) -> Result<bool, Fault> {
    let mut speaker = speaker_in(tx, id).await?;
    if speaker.idle != here {
        return Ok(false);
    }
    speaker.record.idle = !here;
    tx.update(&speaker).await?;
    Ok(true)
}

/// Is it one of those that a change of this kind is about?
pub fn is_ours(kind: &str) -> bool {
    kind == BgpSpeaker::KIND || kind == BgpPeer::KIND
}
