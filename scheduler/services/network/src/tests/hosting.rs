//! Which host answers DHCP and which holds a way out: what operators see, and what they move.
use super::{Rig, id, ids};
use crate::{
    host::{HostInfo, gateway_host},
    tables::find,
};
use serde_json::{Value, json};

fn host(n: usize, up: bool) -> HostInfo {
    HostInfo { name: format!("h{n}"), vtep: format!("10.255.0.{n}"), up, ..HostInfo::default() }
}

impl Rig {
    /// The id of the agent that does a job on a host.
    async fn agent(&self, host: &str, kind: &str) -> String {
        let path = format!("/v2.0/agents?host={host}&agent_type={kind}%20agent");
        id(&self.get(&self.admin, &path).await["agents"][0])
    }
}

#[tokio::test]
async fn operators_see_who_holds_a_way_out_and_move_it() {
    let rig = Rig::new().await;
    let external = rig.external().await;
    let gateway = json!({"external_gateway_info": {"network_id": external}});
    let out = id(&rig.make(&rig.alice, "/v2.0/routers", "router", gateway).await);
    let inner = id(&rig.make(&rig.alice, "/v2.0/routers", "router", json!({"name": "inner"})).await);
    let hosts = [host(1, true), host(2, true), host(3, false)];
    rig.svc.host_network("h1", &hosts).await.unwrap();
    let held = || async { rig.get(&rig.admin, &format!("/v2.0/routers/{out}/l3-agents")).await["agents"].clone() };
    let holder = gateway_host(&out, hosts.iter()).unwrap().name.clone();
    assert_eq!(held().await[0]["host"], json!(holder));
    assert_eq!(rig.get(&rig.admin, &format!("/v2.0/routers/{inner}/l3-agents")).await["agents"], json!([]));
    let other = if holder == "h1" { "h2" } else { "h1" };
    let there = format!("/v2.0/agents/{}/l3-routers", rig.agent(other, "L3").await);
    assert_eq!(ids(&rig.get(&rig.admin, &there).await["routers"]), Vec::<String>::new());
    rig.want(201, &rig.admin, "POST", &there, json!({"router_id": out})).await;
    assert_eq!(held().await[0]["host"], json!(other));
    assert_eq!(ids(&rig.get(&rig.admin, &there).await["routers"]), vec![out.clone()]);
    let gone = format!("{there}/{out}");
    rig.want(204, &rig.admin, "DELETE", &gone, Value::Null).await;
    assert_eq!(held().await[0]["host"], json!(holder), "back where the hash has it");
    assert_eq!(rig.refused(409, &rig.admin, "DELETE", &gone, Value::Null).await, "RouterNotHostedByL3Agent");
    let dhcp = format!("/v2.0/agents/{}/l3-routers", rig.agent(other, "DHCP").await);
    assert_eq!(rig.refused(409, &rig.admin, "GET", &dhcp, Value::Null).await, "InvalidL3Agent");
    rig.want(403, &rig.alice, "GET", &there, Value::Null).await;
    rig.want(404, &rig.admin, "GET", "/v2.0/agents/none/l3-routers", Value::Null).await;
    // With the last host sent away too, the way out is on none.
    let last = format!("/v2.0/agents/{}/l3-routers/{out}", rig.agent(&holder, "L3").await);
    rig.want(204, &rig.admin, "DELETE", &last, Value::Null).await;
    assert_eq!(held().await, json!([]));
    for name in ["h1", "h2"] {
        let wire = rig.svc.host_network(name, &hosts).await.unwrap();
        assert!(wire.routers.iter().all(|r| r.gateway.is_none()));
    }
    let router = format!("/v2.0/routers/{out}");
    rig.want(204, &rig.alice, "DELETE", &router, Value::Null).await;
    let left = rig.svc.store.list::<crate::hosting::model::Hosting>(find::hosting(&out)).await.unwrap();
    assert!(left.is_empty(), "wishes go with their router");
}

#[tokio::test]
async fn a_host_that_is_sent_away_answers_no_dhcp_there() {
    let rig = Rig::new().await;
    let network = rig.network(&rig.alice, "n").await;
    rig.subnet(&rig.alice, &network, "10.0.0.0/24").await;
    let port = json!({"project_id": "alice", "network_id": network, "binding:host_id": "h1"});
    rig.make(&rig.admin, "/v2.0/ports", "port", port).await;
    let hosts = [host(1, true)];
    let answers = || async { rig.svc.host_network("h1", &hosts).await.unwrap().networks[0].subnets[0].dhcp };
    assert!(answers().await);
    let path = format!("/v2.0/agents/{}/dhcp-networks", rig.agent("h1", "DHCP").await);
    assert_eq!(ids(&rig.get(&rig.admin, &path).await["networks"]), vec![network.clone()]);
    let wish = json!({"network_id": network});
    assert_eq!(rig.refused(409, &rig.admin, "POST", &path, wish.clone()).await, "NetworkHostedByDHCPAgent");
    rig.want(204, &rig.admin, "DELETE", &format!("{path}/{network}"), Value::Null).await;
    assert!(!answers().await);
    let agents = format!("/v2.0/networks/{network}/dhcp-agents");
    assert_eq!(rig.get(&rig.admin, &agents).await["agents"], json!([]));
    let again = rig.refused(409, &rig.admin, "DELETE", &format!("{path}/{network}"), Value::Null).await;
    assert_eq!(again, "NetworkNotHostedByDhcpAgent");
    rig.want(201, &rig.admin, "POST", &path, wish).await;
    assert!(answers().await);
    assert_eq!(rig.get(&rig.admin, &agents).await["agents"][0]["agent_type"], "DHCP agent");
    // As Tempest spells it.
    let spelled = rig.get(&rig.admin, "/v2.0/agents?agent_type=DHCP%20Agent").await;
    assert_eq!(spelled["agents"][0]["agent_type"], "DHCP agent");
}

#[tokio::test]
async fn agents_take_notes_and_stay() {
    let rig = Rig::new().await;
    rig.svc.host_network("h1", &[host(1, true)]).await.unwrap();
    let path = format!("/v2.0/agents/{}", rig.agent("h1", "Pilvi").await);
    let noted = rig.want(200, &rig.admin, "PUT", &path, json!({"agent": {"description": "rack 7"}})).await;
    assert_eq!(noted["agent"]["description"], "rack 7");
    assert_eq!(rig.get(&rig.admin, &path).await["agent"]["description"], "rack 7");
    rig.want(200, &rig.admin, "PUT", &path, json!({"agent": {"admin_state_up": true}})).await;
    rig.want(409, &rig.admin, "PUT", &path, json!({"agent": {"admin_state_up": false}})).await;
    rig.want(400, &rig.admin, "PUT", &path, json!({"agent": {"host": "h2"}})).await;
    rig.want(409, &rig.admin, "DELETE", &path, Value::Null).await;
    assert_eq!(rig.refused(404, &rig.admin, "DELETE", "/v2.0/agents/none", Value::Null).await, "AgentNotFound");
    rig.want(403, &rig.alice, "PUT", &path, json!({"agent": {"description": "x"}})).await;
}
